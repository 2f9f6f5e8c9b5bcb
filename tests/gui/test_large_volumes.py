"""A scan that is larger than memory: drawn on, carried, undone and exported without being read as a whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_sam_med import read_labels, read_volume
from napari_sam_med.volume import lazy_array
from napari_sam_med.volume.disk_labels import is_on_disk
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import LEFT, Desk
from tests.volume.ome_zarr_files import write_image

SHAPE, CHUNKS = (64, 64, 96), (4, 32, 32)


@pytest.fixture
def large(tmp_path: Path, make_volume: Callable, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An OME-Zarr scan of 768 KiB on a machine with 3 MiB of memory."""
    data = np.asarray(make_volume(SHAPE).data)
    path = write_image(tmp_path / "ct.ome.zarr", [data, data[::2, ::2, ::2]], chunks=CHUNKS)
    monkeypatch.setattr(lazy_array, "physical_memory", lambda: 3 << 20)
    return path


@pytest.fixture
def desk(make_desk: Callable[[], Desk], predictor: object, large: Path) -> Desk:
    desk = make_desk()
    desk.actions.open_scan(large)
    desk.wait(lambda: desk.session.volume is not None and desk.actions.model.model is not None)
    desk.viewer.reset_view()
    desk.settle()
    return desk


def test_a_large_scan_is_drawn_on_undone_and_exported(desk: Desk, large: Path, tmp_path: Path) -> None:
    volume = desk.session.volume
    assert volume.is_lazy
    assert is_on_disk(desk.labels)
    assert desk.bridge.image_layer.multiscale
    view = SliceView("axial", 20)
    desk.look_at(view)
    desk.drag((20, 16, 24), (20, 32, 48))
    desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Return)
    desk.wait(lambda: desk.slice_labels(view).any())
    masked = desk.slice_labels(view)
    desk.undo()
    assert not desk.slice_labels(view).any()
    desk.redo()
    assert np.array_equal(desk.slice_labels(view), masked)
    assert desk.widget.export_panel.suggested_path().name.endswith("_labels.ome.zarr")
    written: list[Path] = []
    desk.actions.export(tmp_path / "labels.ome.zarr", written.append)
    desk.wait(lambda: written)
    found = read_labels(written[0], reference=read_volume(large))
    assert np.array_equal(view.extract(found.data), masked)
    assert found.voxel_count(int(masked.max())) == np.count_nonzero(masked)
    n_chunks = np.prod([-(-n // c) for n, c in zip(SHAPE, CHUNKS, strict=True)])
    assert volume.data.cache.n_read < n_chunks / 2
    _check_that_what_needs_all_of_it_says_so(desk, tmp_path)


def _check_that_what_needs_all_of_it_says_so(desk: Desk, tmp_path: Path) -> None:
    def is_said(words: str) -> bool:
        return any(words in line for line in desk.said)

    desk.viewer.dims.ndisplay = 3
    assert desk.viewer.dims.ndisplay == 2
    assert desk.bridge.labels_layer._slice_input.ndisplay == 2
    assert is_said("3-D needs all labels")
    desk.bridge.show_plane("coronal")
    desk.bridge.set_tool("point")
    planes = desk.widget.volume_panel.planes
    QTest.mouseClick(planes["3d"], LEFT)
    assert not planes["3d"].isChecked()
    assert planes["coronal"].isChecked()
    assert desk.bridge.current_view().plane == "coronal"
    assert desk.bridge.tool == "point"
    desk.actions.finding.find_edges(desk.actions.finding.plan(False, 1, 10.0, False))
    assert is_said("Edges") or is_said("edges")
    assert not desk.actions.is_busy
    desk.actions.export(tmp_path / "labels.seg.nrrd")
    desk.wait(lambda: is_said("choose .ome.zarr or .nii.gz"))
    assert not (tmp_path / "labels.seg.nrrd").exists()


def test_work_on_a_large_scan_is_kept_and_comes_back(
    desk: Desk, make_desk: Callable[[], Desk], large: Path
) -> None:
    view = SliceView("coronal", 20)
    desk.look_at(view)
    desk.drag((10, 20, 24), (40, 20, 48))
    desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Return)
    desk.wait(lambda: desk.actions.keeping.journal.image is not None)
    desk.wait(lambda: desk.slice_labels(view).any())
    masked = desk.slice_labels(view)
    desk.widget.stop()
    again = make_desk()
    again.actions.open_scan(large)
    again.wait(lambda: again.actions.keeping.offer is not None)
    again.actions.keeping.bring_back()
    again.wait(lambda: again.slice_labels(view).any())
    assert is_on_disk(again.labels)
    assert np.array_equal(again.slice_labels(view), masked)


def test_a_large_layer_of_another_reader_is_read_slice_by_slice(
    make_desk: Callable[[], Desk], predictor: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    values = np.random.default_rng(0).integers(0, 500, SHAPE).astype(np.int16)

    def block(block_info: Any = None) -> np.ndarray:
        (first, last), *_ = block_info[None]["array-location"]
        read.append(first)
        return values[first:last]

    data = dask.array.map_blocks(block, chunks=((1,) * SHAPE[0], *SHAPE[1:]), dtype=np.int16)
    monkeypatch.setattr(lazy_array, "physical_memory", lambda: 3 << 20)
    desk = make_desk()
    desk.viewer.add_image(
        [data, data[:, ::2, ::2]], multiscale=True, contrast_limits=(0, 500), name="foreign"
    )
    desk.wait(lambda: desk.session.volume is not None and desk.actions.model.model is not None)
    desk.wait(lambda: desk.actions.keeping.journal.image is not None)
    assert desk.session.volume.data is data
    assert is_on_disk(desk.labels)
    view = SliceView("axial", 50)
    desk.look_at(view)
    desk.drag((50, 16, 24), (50, 32, 48))
    desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Return)
    desk.wait(lambda: desk.slice_labels(view).any())
    assert 50 in read
    assert len(set(read)) < SHAPE[0]
