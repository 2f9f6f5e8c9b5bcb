"""What the documents show is run: the README's Python and commands; and links lead somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med.cli import main
from napari_sam_med.volume import lazy_array
from tests.volume.ome_zarr_files import write_image

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def scan_folder(tmp_path, monkeypatch):
    """A folder with the sample under the names that the README uses."""
    sample = ROOT / "napari_sam_med" / "sample_data"
    shutil.copy(sample / "abdomen_phantom.nii.gz", tmp_path / "ct.nii.gz")
    for name in ("labels.nii.gz", "drawn_by_hand.nii.gz"):
        shutil.copy(sample / "abdomen_phantom_labels.nii.gz", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_python_blocks_of_the_readme_run(scan_folder):
    from napari_sam_med import read_labels

    names: dict[str, object] = {}
    for block in blocks(README, "python"):
        exec(compile(block, "README.md", "exec"), names)
    labels = read_labels(scan_folder / "ct_liver.nii.gz")
    assert labels.voxel_count(6) > 1000
    assert (labels.data == 6).any(axis=(1, 2)).sum() > 1, "the second block fills more than one slice"


@pytest.mark.slow
def test_the_commands_of_the_readme_run(scan_folder, monkeypatch):
    (prompts,) = blocks(README, "json")
    (scan_folder / "prompts.json").write_text(prompts, encoding="utf-8")
    commands = re.findall(
        r"^napari-sam-med ((?:segment|convert|evaluate|classify|models list|cache info).*)$",
        README,
        flags=re.MULTILINE,
    )
    assert len(commands) == 6
    for command in commands:
        assert main(command.split()) == 0, command
    assert (scan_folder / "labels.seg.nrrd").exists()
    assert (scan_folder / "report.json").exists()
    assert (scan_folder / "organs.json").exists()
    assert (scan_folder / "evaluation" / "summary.json").exists()


@pytest.mark.slow
def test_the_commands_without_prompts_of_the_readme_run(scan_folder):
    shutil.copy(scan_folder / "ct.nii.gz", scan_folder / "other.nii.gz")
    commands = re.findall(
        r"^napari-sam-med ((?:auto|match|find|edges|proposals) .*)$", README, flags=re.MULTILINE
    )
    assert len(commands) == 5
    coarser = {
        "auto": ["--every", "16", "--spacing-mm", "40"],
        "edges": ["--grid", "4"],
        "proposals": ["--grid", "4"],
    }
    for command in commands:
        words = shlex.split(command)
        # the last of an option given twice counts
        assert main([*words, *coarser.get(words[0], [])]) == 0, command
    for name in ("objects.nii.gz", "matched.nii.gz", "kidney.nii.gz", "edges.nii.gz", "boxes.csv"):
        assert (scan_folder / name).exists(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_make_targets_named_in_the_documents_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in DOCUMENTS:
        for target in re.findall(r"`make (\w+)`", document.read_text(encoding="utf-8")):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"make {target}"


@pytest.fixture
def large_scan(scan_folder, monkeypatch):
    """The sample as OME-Zarr, on a machine with five times as much memory."""
    words = {
        "L": "right-to-left",
        "R": "left-to-right",
        "P": "anterior-to-posterior",
        "A": "posterior-to-anterior",
        "S": "inferior-to-superior",
        "I": "superior-to-inferior",
    }
    sample = nib.load(scan_folder / "ct.nii.gz")
    array = np.asarray(sample.dataobj).T
    write_image(
        scan_folder / "ct.ome.zarr",
        [array, array[::2, ::2, ::2]],
        words=[words[code] for code in nib.aff2axcodes(sample.affine)[::-1]],
        scale=[float(mm) for mm in sample.header.get_zooms()[::-1]],
        chunks=(16, 32, 32),
    )
    monkeypatch.setattr(lazy_array, "physical_memory", lambda: 5 * array.nbytes)
    (prompts,) = blocks(README, "json")
    (scan_folder / "prompts.json").write_text(prompts, encoding="utf-8")
    return scan_folder


@pytest.mark.slow
def test_what_is_shown_of_volumes_larger_than_memory_runs(large_scan):
    text = (ROOT / "docs" / "large_volumes.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    (block,) = blocks(text, "python")
    exec(compile(block, "large_volumes.md", "exec"), names)
    assert names["volume"].is_lazy
    assert names["again"].voxel_count(6) == names["labels"].voxel_count(6) > 1000
    commands = re.findall(r"^napari-sam-med (segment .*|convert .*)$", text, flags=re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        sooner = ["--no-propagate"] if command.startswith("segment") else []
        assert main([*command.split(), *sooner]) == 0, command
    assert (large_scan / "labels.nii.gz").exists()
