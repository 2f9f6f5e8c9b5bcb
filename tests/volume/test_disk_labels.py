"""Labels in a file: they behave as those in memory, and what is empty is passed over."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from napari_sam_med.errors import LabelError
from napari_sam_med.volume import disk_labels
from napari_sam_med.volume.disk_labels import (
    DiskLabels,
    is_on_disk,
    labelled_planes,
    refuse_on_disk,
)
from napari_sam_med.volume.labels import LabelChange
from napari_sam_med.volume.slice_view import SliceView

SHAPE = (40, 128, 128)


def test_only_planes_that_were_written_to_are_looked_at(user_folders: Path) -> None:
    data = DiskLabels.zeros(SHAPE)
    assert not any(data[index].any() for index in labelled_planes(data))
    data[7, 3, 4] = 5
    data[20:22, :, 9] = 6
    planes = set(labelled_planes(data))
    assert {7, 20, 21} <= planes
    if hasattr(os, "SEEK_DATA"):
        assert len(planes) <= 3 * 3  # a block of the disk may reach into the neighbours
    other = DiskLabels.zeros(SHAPE)
    other[39] = 1
    assert {7, 20, 21, 39} <= set(labelled_planes(data, other))
    assert set(labelled_planes(data, np.zeros(SHAPE))) == set(range(40))


def test_a_copy_is_another_file_and_no_name_is_left_on_the_disk(user_folders: Path) -> None:
    data = DiskLabels.zeros(SHAPE)
    data[7, 3, 4] = 5
    copy = data.copy_labelled()
    data[7, 3, 4] = 0
    assert copy[7, 3, 4] == 5
    assert copy.sum() == 5
    descriptors = (data.descriptor, copy.descriptor)
    del data, copy
    gc.collect()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    assert not any((user_folders / "labels on disk").iterdir())


def test_a_nearly_full_disk_refuses_labels_before_the_system_ends_the_program(
    user_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DiskLabels.zeros(SHAPE)
    data[3] = 1
    full = SimpleNamespace(free=disk_labels._RESERVE - 1)
    monkeypatch.setattr(disk_labels.shutil, "disk_usage", lambda _: full)
    change = LabelChange(SliceView("axial", 5), np.array([7]), np.array([0]), np.array([2]))
    for write in (lambda: change.apply(data), lambda: DiskLabels.zeros(SHAPE), data.copy_labelled):
        with pytest.raises(LabelError, match=r"MiB left, and .* free some space"):
            write()
    assert data.sum() == SHAPE[1] * SHAPE[2]
    full.free += 1
    change.apply(data)
    assert data[5, 0, 7] == 2


def test_labels_live_on_when_the_folder_is_cleared(user_folders: Path) -> None:
    data = DiskLabels.zeros(SHAPE)
    (user_folders / "labels on disk").rmdir()
    data[3] = 1
    assert data.sum() == SHAPE[1] * SHAPE[2]


@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="this system knows no holes")
@pytest.mark.parametrize("number", [errno.ENXIO, errno.EINVAL])
def test_holes_are_not_believed_where_new_labels_are_taken_for_one(
    user_folders: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def blind(*_: int) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "lseek", blind)
        data = DiskLabels.zeros(SHAPE)
    data[7] = 1
    assert list(labelled_planes(data)) == list(range(SHAPE[0]))
    assert not data[-1].any()


def test_views_and_results_do_not_take_planes_of_the_whole_for_their_own() -> None:
    data = DiskLabels.zeros(SHAPE)
    data[7] = 1
    assert list(labelled_planes(data[5:10])) == list(range(5))
    assert is_on_disk(data[5:10])
    assert not is_on_disk(np.zeros(SHAPE, np.uint8))


def test_what_needs_all_of_them_is_refused() -> None:
    with pytest.raises(LabelError, match=r"Smoothing needs all labels of the scan .* carry them"):
        refuse_on_disk(DiskLabels.zeros(SHAPE), "Smoothing", "carry them")
    refuse_on_disk(np.zeros(SHAPE, np.uint8), "Smoothing", "carry them")


def test_a_folder_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NAPARI_SAM_MED_HOME", str(tmp_path / "file"))
    with pytest.raises(LabelError, match="NAPARI_SAM_MED_HOME"):
        DiskLabels.zeros(SHAPE)
