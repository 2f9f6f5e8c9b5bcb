"""What the documents show is run: the README's Python and commands; and links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
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
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for of, block in found if of == language]


@pytest.fixture
def scan_folder(tmp_path, monkeypatch):
    """The folder that the README has a newcomer make in a clone, by the very lines it shows."""
    (tmp_path / "napari_sam_med").symlink_to(ROOT / "napari_sam_med")
    (lines,) = [block for block in blocks(README, "") if block.startswith("mkdir ")]
    subprocess.run(["sh", "-e", "-c", lines], cwd=tmp_path, check=True, timeout=60)
    monkeypatch.chdir(tmp_path / "try_out")
    return tmp_path / "try_out"


def commands_of(text):
    """What is called in the blocks of a page, without the program's name and remarks."""
    lines = "".join(blocks(text, "")).splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("napari-sam-med ")]


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
def test_the_prompts_of_the_readme_are_answered(scan_folder):
    (prompts,) = blocks(README, "json")
    (scan_folder / "prompts.json").write_text(prompts, encoding="utf-8")
    call = "segment ct.nii.gz --prompts prompts.json -o labels.nii.gz --no-propagate"
    assert main(call.split()) == 0


@pytest.mark.slow
def test_the_commands_of_the_readme_run_one_after_the_other(scan_folder):
    commands = commands_of(README)
    assert commands.pop(0) == ["demo"]  # opens napari; tested with the commands
    assert {command[0] for command in commands} == {
        *("segment", "convert", "evaluate", "classify", "models", "cache"),
        *("auto", "match", "find", "edges", "proposals"),
    }
    sooner = {"--every": "16", "--spacing-mm": "40", "--grid": "4"}
    for command in commands:
        command += ["--grid", ""] if command[0] == "edges" else []
        for option, value in sooner.items():
            if option in command:
                command[command.index(option) + 1] = value
        assert main(command) == 0, command
    for name in (
        *("labels.nii.gz", "labels.seg.nrrd", "report.json", "organs.json", "evaluation/summary.json"),
        *("objects.nii.gz", "matched.nii.gz", "kidney.nii.gz", "edges.nii.gz", "boxes.csv"),
    ):
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
