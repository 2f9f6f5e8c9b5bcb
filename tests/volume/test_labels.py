"""Labels: what may overwrite what, and undo."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam_med import LabelVolume, SliceView, Volume
from napari_sam_med.errors import LabelError, LockedError
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import sparse_copy
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.slice_view import PLANES

SHAPE = (4, 5, 6)
AXIAL = SliceView("axial", 1)


def _labels() -> LabelVolume:
    data = np.full(SHAPE, -1000, dtype=np.int16)
    return LabelVolume.like(Volume(data, Grid.from_zyx(SHAPE, (3.0, 2.0, 1.0))))


def _mask(rows: slice, view: SliceView = AXIAL) -> np.ndarray:
    mask = np.zeros(view.slice_shape(SHAPE), dtype=bool)
    mask[rows] = True
    return mask


def test_labels_lie_on_the_scan_and_are_measured() -> None:
    labels = _labels()
    assert labels.shape == SHAPE
    assert labels.organs == OrganTable.btcv()
    labels.assign(AXIAL, _mask(slice(0, 2)), np.int64(6))
    assert labels.class_ids() == (6,)
    assert labels.voxel_count(6) == 12
    assert labels.volume_ml(6) == pytest.approx(12 * 6 / 1000)
    assert "6 liver" in repr(labels)


def test_a_mask_overwrites_other_organs_but_no_locked_one() -> None:
    labels = _labels()
    labels.assign(AXIAL, _mask(slice(0, 2)), 6)
    labels.assign(AXIAL, _mask(slice(1, 3)), 1)
    assert labels.data[1, :, 0].tolist() == [6, 1, 1, 0, 0]
    labels.organs = labels.organs.locking(1, True)
    change = labels.assign(AXIAL, _mask(slice(0, 5)), 6)
    assert labels.data[1, :, 0].tolist() == [6, 1, 1, 6, 6]
    assert set(change.before) == {0}


def test_a_carried_mask_takes_background_only() -> None:
    labels = _labels()
    labels.assign(AXIAL, _mask(slice(0, 2)), 6)
    labels.assign(AXIAL, _mask(slice(3, 4)), 1)
    change = labels.assign(AXIAL, _mask(slice(1, 5)), 1, replaces=_mask(slice(3, 4)), keep_others=True)
    assert labels.data[1, :, 0].tolist() == [6, 6, 1, 1, 1]
    assert set(change.before) == {0}


def test_a_locked_organ_is_not_changed_by_itself_either() -> None:
    labels = _labels()
    labels.organs = labels.organs.locking(6, True)
    with pytest.raises(LockedError, match="liver is locked"):
        labels.assign(AXIAL, _mask(slice(0, 2)), 6)
    assert not labels.data.any()


def test_what_the_object_had_before_is_cleared_where_it_still_is_its_own() -> None:
    labels = _labels()
    old, new = _mask(slice(0, 3)), _mask(slice(2, 4))
    labels.assign(AXIAL, old, 6)
    labels.assign(AXIAL, _mask(slice(0, 1)), 1)
    labels.assign(AXIAL, new, 6, replaces=old)
    assert labels.data[1, :, 0].tolist() == [1, 0, 6, 6, 0]


def test_erasing_spares_locked_organs() -> None:
    labels = _labels()
    labels.assign(AXIAL, _mask(slice(0, 2)), 6)
    labels.assign(AXIAL, _mask(slice(2, 4)), 1)
    labels.organs = labels.organs.locking(1, True)
    labels.assign(AXIAL, _mask(slice(0, 5)), 0)
    assert labels.class_ids() == (1,)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_reverting_every_change_gives_the_labels_back(data) -> None:
    """Statement 10: other classes that were overwritten come back, too."""
    labels = _labels()
    labels.organs = labels.organs.locking(3, True)
    labels.data[...] = np.random.default_rng(0).integers(0, 5, SHAPE)
    start = labels.data.copy()
    changes = []
    for _ in range(data.draw(st.integers(1, 6))):
        plane = data.draw(st.sampled_from(PLANES))
        view = SliceView(plane, data.draw(st.integers(0, 3)))
        shape = view.slice_shape(SHAPE)
        bits = data.draw(st.integers(0, 2 ** (shape[0] * shape[1]) - 1))
        mask = np.array([bits >> n & 1 for n in range(shape[0] * shape[1])], dtype=bool).reshape(shape)
        changes.append(labels.assign(view, mask, data.draw(st.sampled_from([0, 1, 2, 300])), replaces=~mask))
    assert np.array_equal(labels.data == 3, start == 3)
    for change in reversed(changes):
        labels.revert(change)
    assert np.array_equal(labels.data, start)


def test_large_numbers_widen_the_labels_and_never_wrap() -> None:
    """Statement 20."""
    labels = _labels()
    heard = Mock()
    labels.changed.connect(heard)
    change = labels.assign(AXIAL, _mask(slice(0, 2)), 256)
    heard.assert_called_once_with(None)
    assert labels.data.dtype == np.uint16
    assert labels.class_ids() == (256,)
    with pytest.raises(LabelError, match="uint8"):
        change.apply(np.zeros(SHAPE, dtype=np.uint8))
    for number in (65536, -1, 1.5):
        with pytest.raises(LabelError):
            labels.assign(AXIAL, _mask(slice(0, 2)), number)  # type: ignore[arg-type]


def test_listeners_hear_which_slice_changed_and_nothing_when_nothing_did() -> None:
    labels = _labels()
    heard = Mock()
    labels.changed.connect(heard)
    change = labels.assign(AXIAL, _mask(slice(0, 2)), 6)
    again = labels.assign(AXIAL, _mask(slice(0, 2)), 6)
    assert again.is_empty
    assert not change.is_empty
    assert change.nbytes > 0
    labels.revert(change)
    assert [call.args for call in heard.call_args_list] == [(AXIAL,), (AXIAL,)]


def test_masks_and_arrays_of_another_shape_are_refused() -> None:
    labels = _labels()
    with pytest.raises(LabelError, match="does not fit"):
        labels.assign(AXIAL, np.ones((6, 5)), 6)
    with pytest.raises(LabelError):
        LabelVolume(np.zeros(SHAPE, dtype=np.int64), labels.grid)
    with pytest.raises(LabelError):
        LabelVolume(np.zeros((1, 2, 3), dtype=np.uint8), labels.grid)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_sparse_copy_is_a_copy_of_the_same_layout(axes: tuple[int, int, int]) -> None:
    data = np.zeros((6, 5, 4), np.uint8).transpose(axes)[::-1]
    data[1, 2, 3] = 7
    data[2, 1, 1] = 9
    copy = sparse_copy(data)
    assert np.array_equal(copy, data)
    assert np.argsort(np.abs(copy.strides)).tolist() == np.argsort(np.abs(data.strides)).tolist()
    data[...] = 1
    assert copy.sum() == 7 + 9


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_empty_slices_take_no_memory_in_a_sparse_copy() -> None:
    data = np.zeros((200, 512, 512), np.uint8)
    data[...] = 0  # takes its memory
    data[100] = 1
    before = _resident()
    copy = sparse_copy(data)
    assert np.array_equal(copy[100], data[100])
    assert _resident() - before < data.nbytes // 4


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
