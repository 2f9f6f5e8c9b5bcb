"""Where the labels of a work list go: those of one scan never open with another, nor are they replaced."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from napari_sam_med.errors import LabelError
from napari_sam_med.session.work_list import OpenedCase, WorkList, open_work_list, read_case, save_case
from napari_sam_med.session.work_list_cases import STATUS_FILE_NAME, default_output
from tests.session.test_work_list import made, result, scan


def _opened(work: WorkList) -> OpenedCase:
    case = work.cases[0]
    return result(read_case(case, work.kept(case), work.start(case), work.target(case)))


def _worked(folder: Path, output: Path | None = None) -> Path:
    """The file with the labels of the first case."""
    work = result(open_work_list(folder, output))
    opened = _opened(work)
    opened.scan.labels.data[1, 1, 1] = 3
    saved = result(save_case(work.target(opened.case), None, opened.scan.labels, opened.scan.volume))
    work.note_saved(opened.case, saved, None)
    work.note(opened.case, status="done")
    return saved.path


def test_parts_of_a_set_have_places_of_their_own(tmp_path: Path) -> None:
    """Scans of two parts may be called alike."""
    scan(tmp_path / "imagesTr" / "case1.nii.gz", 1)
    scan(tmp_path / "imagesTs" / "case1.nii.gz", 2)
    assert _worked(tmp_path / "imagesTr") == tmp_path / "labels" / "case1_labels.nii.gz"
    other = result(open_work_list(tmp_path / "imagesTs"))
    assert other.summary == "1 case: 0 done, 0 in progress, 1 new"
    assert _opened(other).saved is None
    assert not _opened(other).scan.labels.data.any()
    assert _worked(tmp_path / "imagesTs") == tmp_path / "labels_ts" / "case1_labels.nii.gz"
    assert result(open_work_list(tmp_path / "imagesTs")).counts["done"] == 1  # it finds them again


def test_the_place_of_a_part_is_not_among_labels_of_others(tmp_path: Path) -> None:
    made(tmp_path, "imagesTs/a.nii.gz", "labels_ts/a.nii.gz", "imagesVal/a.nii.gz")
    assert default_output(tmp_path / "imagesTs") == tmp_path / "labels_sam_med_ts"
    assert default_output(tmp_path / "imagesVal") == tmp_path / "labels_val"
    made(tmp_path, f"labels_ts/{STATUS_FILE_NAME}")
    assert default_output(tmp_path / "imagesTs") == tmp_path / "labels_ts"


def test_labels_of_another_scan_are_neither_opened_nor_replaced(tmp_path: Path) -> None:
    """Two folders were given one place for their labels."""
    scan(tmp_path / "one" / "case1.nii.gz", 1)
    scan(tmp_path / "two" / "case1.nii.gz", 2)
    path = _worked(tmp_path / "one", tmp_path / "out")
    before = path.read_bytes()
    other = result(open_work_list(tmp_path / "two", tmp_path / "out"))
    with pytest.raises(LabelError, match=r"labels of another scan .*choose another place"):
        _opened(other)
    assert path.read_bytes() == before


def test_labels_come_back_where_their_scan_was_moved(tmp_path: Path) -> None:
    scan(tmp_path / "one" / "case1.nii.gz", 1)
    _worked(tmp_path / "one")
    os.rename(tmp_path / "one", tmp_path / "elsewhere")
    back = _opened(result(open_work_list(tmp_path / "elsewhere")))
    assert back.scan.labels.data[1, 1, 1] == 3
    assert back.saved is not None
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "copy")
    assert _opened(result(open_work_list(tmp_path / "copy"))).saved is not None
