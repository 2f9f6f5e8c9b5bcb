"""Export: all or nothing, and never over the scan; `test_export_faults` has what goes wrong on disks."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med import LabelVolume, Volume, read_labels, read_volume, write_labels
from napari_sam_med.errors import ExportError, LabelError
from napari_sam_med.volume import replacement, writing
from napari_sam_med.volume.organs import Organ, OrganTable
from tests.volume.phantoms import affine_of, ct_like, save_nifti

ENDINGS = [".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".mha"]


@pytest.fixture
def scan(tmp_path) -> Volume:
    return read_volume(
        save_nifti(tmp_path / "scan.nii.gz", ct_like((5, 6, 7)), affine_of("PIR", (1.0, 2.0, 3.0)))
    )


@pytest.fixture
def labels(scan) -> LabelVolume:
    labels = LabelVolume.like(scan)
    labels.data[...] = np.random.default_rng(0).integers(0, 14, labels.shape)
    return labels


def _files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_voxels_place_and_names_back(tmp_path, labels, scan, ending) -> None:
    """Statement 18."""
    labels.organs = labels.organs.with_organ(
        Organ(300, "Läsion é 名前 ]]> <b> & \"q\" 'a'", (0.1, 0.25, 1.0))
    )
    labels.data = labels.data.astype(np.uint16)
    labels.data[0, 0, 0] = 300
    path = write_labels(tmp_path / f"a b é 名{ending}", labels, source=scan, model={"name": "nano"})
    read = read_labels(path, reference=scan)
    assert np.array_equal(read.data, labels.data)
    assert read.data.dtype == np.uint16
    assert read.organs == labels.organs
    assert read.warnings == ()
    assert not list(tmp_path.glob(".sam-med*"))


def test_the_sidecar_tells_where_the_labels_came_from(tmp_path, labels, scan) -> None:
    write_labels(tmp_path / "liver.seg.nrrd", labels, model={"name": "nano", "sha256": "ab"})
    record = json.loads((tmp_path / "liver.sam-med.json").read_text(encoding="utf-8"))
    assert record["schema_version"] == 1
    assert record["file"] == "liver.seg.nrrd"
    sha256 = hashlib.sha256((tmp_path / "scan.nii.gz").read_bytes()).hexdigest()
    assert record["source"] == {"path": "scan.nii.gz", "sha256": sha256}
    assert record["model"] == {"name": "nano", "sha256": "ab"}
    assert np.array_equal(record["affine"], scan.affine)
    assert OrganTable.from_json(record["labels"]) == labels.organs


def test_the_label_table_is_where_other_programs_look(tmp_path, labels) -> None:
    image = nib.load(write_labels(tmp_path / "labels.nii.gz", labels))
    content = image.header.extensions[0].get_content()
    assert image.header.extensions[0].get_code() == 0
    text = content if isinstance(content, str) else content.decode()
    assert '<Label Key="6" Red="0.78" Green="0.22" Blue="0.18" Alpha="1"><![CDATA[liver]]></Label>' in text
    assert image.get_data_dtype() == np.uint8


def test_labels_without_a_table_row_are_named_by_number(tmp_path, scan) -> None:
    labels = LabelVolume.like(scan, OrganTable())
    labels.data[0] = 9
    assert read_labels(write_labels(tmp_path / "labels.nii", labels)).organs.name_of(9) == "label 9"


class _DiskFullError(OSError):
    def __init__(self) -> None:
        super().__init__(28, "No space left on device")


def _fail(*_: object, **__: object) -> None:
    raise _DiskFullError


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("target", "name"),
    [
        (os, "replace"),
        (os, "fsync"),
        (writing, "_write"),
        (writing.sidecar, "content"),
        (Path, "write_bytes"),
    ],
)
def test_a_failed_export_leaves_the_previous_file_as_it_was(
    tmp_path, labels, monkeypatch, ending, target, name
) -> None:
    """Statements 12 and 17."""
    path = write_labels(tmp_path / f"labels{ending}", labels)
    before = _files(tmp_path)
    labels.data[...] = 3
    monkeypatch.setattr(target, name, _fail)
    with pytest.raises(ExportError, match="No space left on device"):
        write_labels(path, labels)
    monkeypatch.undo()
    assert _files(tmp_path) == before


def test_labels_without_their_sidecar_are_told(tmp_path, labels, monkeypatch) -> None:
    path = write_labels(tmp_path / "labels.nii", labels)
    labels.data[...] = 3
    replace = os.replace

    def replace_all_but_sidecars(source, target) -> None:
        if str(target).endswith(".json"):
            _fail()
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_all_but_sidecars)
    with pytest.raises(
        ExportError, match=r"labels were written .*labels\.sam-med\.json .*No space"
    ) as caught:
        write_labels(path, labels)
    assert "as it was" not in str(caught.value)
    assert (read_labels(path).data == 3).all()
    assert not list(tmp_path.glob(".sam-med*"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a right to make links")
def test_a_link_is_written_through(tmp_path, labels) -> None:
    (tmp_path / "store").mkdir()
    stored, link = tmp_path / "store" / "blob.nii", tmp_path / "labels.nii"
    link.symlink_to(stored)
    for value in (3, 4):  # first to a file that is not there yet
        labels.data[...] = value
        write_labels(link, labels)
        assert link.is_symlink()
        assert not stored.is_symlink()
        assert (read_labels(stored).data == value).all()
    assert (tmp_path / "labels.sam-med.json").exists()
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["blob.nii"]


def test_what_reads_back_otherwise_never_replaces_a_file(tmp_path, labels, monkeypatch) -> None:
    """Statement 13."""
    path = write_labels(tmp_path / "labels.nii", labels)
    before = _files(tmp_path)
    wrong = LabelVolume(np.where(labels.data == 6, 7, labels.data).astype(np.uint8), labels.grid)
    write = writing._write
    monkeypatch.setattr(writing, "_write", lambda file, ending, _, *rest: write(file, ending, wrong, *rest))
    with pytest.raises(ExportError, match="other values"):
        write_labels(path, labels)
    nameless = OrganTable.from_names(dict.fromkeys(range(1, 14), "x"))
    monkeypatch.setattr(
        writing, "_write", lambda file, ending, these, header, _: write(file, ending, these, header, nameless)
    )
    with pytest.raises(ExportError, match="names"):
        write_labels(path, labels)
    monkeypatch.setattr(writing, "_write", lambda file, *_: file.write_bytes(b""))
    with pytest.raises(ExportError, match="cannot be read again"):
        write_labels(path, labels)
    assert _files(tmp_path) == before


def test_the_scan_itself_is_never_replaced(tmp_path, labels, scan) -> None:
    """Statement 15."""
    before = _files(tmp_path)
    os.symlink(tmp_path / "scan.nii.gz", tmp_path / "alias.nii.gz")
    for name in ("scan.nii.gz", "alias.nii.gz"):
        with pytest.raises(ExportError, match="scan itself"):
            write_labels(tmp_path / name, labels)
        anonymous = LabelVolume(labels.data, labels.grid)
        with pytest.raises(ExportError, match="scan itself"):
            write_labels(tmp_path / name, anonymous, source=scan)
    (tmp_path / "alias.nii.gz").unlink()
    assert _files(tmp_path) == before


def test_labels_of_another_grid_are_refused(tmp_path, labels) -> None:
    """Statement 26."""
    other = read_volume(
        save_nifti(tmp_path / "other.nii", ct_like((5, 6, 7)), affine_of("LPS", (1.0, 2.0, 3.0)))
    )
    with pytest.raises(LabelError, match="another grid"):
        write_labels(tmp_path / "labels.nii", labels, source=other)


@pytest.mark.parametrize("name", ["labels.png", "labels", ".nii", "labels.dcm"])
def test_endings_decide_the_format(tmp_path, labels, name) -> None:
    with pytest.raises(ExportError, match=r"\.nii\.gz"):
        write_labels(tmp_path / name, labels)


def test_a_missing_folder_is_named(tmp_path, labels) -> None:
    with pytest.raises(ExportError, match="nowhere"):
        write_labels(tmp_path / "nowhere" / "labels.nii.gz", labels)
    with pytest.raises(ExportError):
        write_labels(tmp_path / "nowhere" / "labels.nrrd", labels)


def test_only_our_own_dead_leftovers_are_swept(tmp_path, labels) -> None:
    """Statement 14."""
    host = replacement._host()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    orphan = tmp_path / f".sam-med-{host}-{dead.pid}-0123abcd.partial.nii.gz"
    kept = [
        tmp_path / f".sam-med-{host}-{os.getppid()}-0123abcd.partial.nii.gz",
        tmp_path / f".sam-med-00000000-{dead.pid}-0123abcd.partial.nii.gz",
        tmp_path / ".sam-med-notes.partial.txt",
        tmp_path / "labels.partial.nii",
    ]
    for path in (orphan, *kept):
        path.write_bytes(b"")
    write_labels(tmp_path / "labels.nii", labels)
    assert not orphan.exists()
    assert all(path.exists() for path in kept)


def test_a_file_that_windows_keeps_busy_is_tried_again_a_few_times(tmp_path, labels, monkeypatch) -> None:
    """Statement 16."""
    waits: list[float] = []
    replace = os.replace
    failures = [32, 5]

    def busy(source, target) -> None:
        if failures:
            error = OSError(13, "busy")
            error.winerror = failures.pop()
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(replacement.time, "sleep", waits.append)
    path = write_labels(tmp_path / "labels.nii", labels)
    assert np.array_equal(read_labels(path).data, labels.data)
    assert len(waits) == 2
    failures.extend([33] * 50)
    with pytest.raises(ExportError, match="busy"):
        write_labels(path, labels)
    assert len(waits) < 10
