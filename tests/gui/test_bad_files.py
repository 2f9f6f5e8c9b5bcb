"""Every odd or broken file in the widget and dropped on the viewer: it opens, or is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QInputDialog

from napari_sam_med import read_labels
from napari_sam_med.errors import SamMedError
from napari_sam_med.gui import contributions
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_carrying import accept_a_box
from tests.shared_data import needs_bad
from tests.test_bad_data import REFUSED, WORKS, file_of

pytestmark = needs_bad

LARGE = {"r30_kits_ipl_axes.nii.gz", "r19_ct_scl_slope.nii.gz"}


@pytest.fixture(autouse=True)
def first_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of several volumes: the first is chosen."""
    monkeypatch.setattr(QInputDialog, "getInt", lambda *args: (1, True))


def _open(desk: Desk, path: Path) -> None:
    del desk.said[:]
    with desk.nothing_drawn():
        desk.actions.open_scan(path)
        desk.wait(lambda: not desk.actions.scans.is_loading, timeout=60_000)
    desk.settle()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_odd_files_open_one_after_the_other(
    make_desk: Callable[[], Desk], predictor: FakePredictor, part: int
) -> None:
    """Statements 28 and 33: shown, with a window that napari takes."""
    desk = make_desk()
    for name in sorted(WORKS.keys() - LARGE)[part::5]:
        _open(desk, file_of(name))
        volume = desk.session.volume
        assert volume is not None, (name, desk.said)
        assert volume.path == file_of(name), (name, desk.said)
        layer = desk.bridge.image_layer
        assert np.isfinite(layer.contrast_limits).all(), name
        assert np.isfinite(layer.contrast_limits_range).all(), name
        assert layer.data.shape == desk.labels.shape == volume.shape, name
        assert not any("defect" in text for text in desk.said), (name, desk.said)
        with desk.nothing_drawn():
            desk.viewer.layers.clear()  # each comes into an empty viewer; napari is slow with a hundred
        desk.settle()


def test_a_scan_elsewhere_is_seen_in_every_plane(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    """Statement 25: where the viewer was looking at an earlier scan, there may be no slice of this one."""
    desk = make_desk()
    for number, place in enumerate(((0, 0, 0), (500, -700, 900), (-3000, 200, 0))):
        affine = np.eye(4)
        affine[:3, 3] = place
        nib.save(nib.Nifti1Image(np.ones((12, 10, 8), np.int16), affine), tmp_path / f"{number}.nii")
        _open(desk, tmp_path / f"{number}.nii")
        for plane in ("axial", "coronal", "sagittal"):
            desk.widget.volume_panel.planes[plane].click()
            view = desk.bridge.current_view()
            assert view is not None
            assert view.plane == plane


def test_broken_files_leave_what_is_open(desk: Desk, tmp_path: Path) -> None:
    """Statement 7: no empty labels take the place of those there are, which an export would write."""
    accept_a_box(desk)
    before, volume = desk.labels.copy(), desk.session.volume
    layers = list(desk.viewer.layers)
    for name in REFUSED:
        try:
            _open(desk, file_of(name))
        except SamMedError:
            pytest.fail(f"{name}: the error reached the button")
        assert any(REFUSED[name] in text for text in desk.said), (name, desk.said)
        assert not any("defect" in text for text in desk.said), (name, desk.said)
        assert desk.session.volume is volume
        assert np.array_equal(desk.labels, before)
        assert list(desk.viewer.layers) == layers
    desk.widget.export_panel.export_to(tmp_path / "labels.nii.gz")
    desk.wait(lambda: "Written" in desk.widget.export_panel.written.text())
    assert np.array_equal(read_labels(tmp_path / "labels.nii.gz", reference=volume).data, before)


@pytest.mark.parametrize("name", [*REFUSED, "r27_overlapping.seg.nrrd"])
def test_broken_files_dropped_on_the_viewer_become_no_layer(name: str) -> None:
    """Statement 7: napari shows the one line; other suffixes are not taken for ours."""
    reader = contributions.get_reader(str(file_of(name)))
    if reader is None:
        return
    with pytest.raises(SamMedError) as caught:
        reader(str(file_of(name)))
    assert REFUSED.get(name, "one label") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", WORKS.keys() - LARGE - {"r27_overlapping.seg.nrrd"})
def test_odd_files_dropped_on_the_viewer_become_layers(name: str) -> None:
    reader = contributions.get_reader(str(file_of(name)))
    if reader is None:
        assert not name.endswith((".nii", ".nii.gz", ".nrrd", ".mha", ".dcm"))
        return
    [(data, options, kind)] = reader(str(file_of(name)))
    assert data.ndim == 3
    assert kind in ("image", "labels")
    if kind == "image":
        assert options["contrast_limits"][0] < options["contrast_limits"][1]


@pytest.mark.parametrize(
    "name", ["d17_nan_inf.nii.gz", "d18_all_nan.nii.gz", "d19_constant.nii.gz", "r05_nan_3slices.nii"]
)
def test_files_without_numbers_are_prompted(make_desk: Callable[[], Desk], name: str) -> None:
    """Statement 33, with nano itself."""
    desk = make_desk()
    _open(desk, file_of(name))
    desk.wait(lambda: desk.actions.model.model is not None, timeout=60_000)
    z, y, x = desk.session.volume.shape
    view = SliceView("axial", z // 2)
    desk.look_at(view)
    desk.bridge.set_tool("box")
    desk.drag((view.index, y // 4, x // 4), (view.index, 3 * y // 4, 3 * x // 4))
    mask = desk.wait_for_proposal()
    assert mask.shape == (y, x)
    desk.key(Qt.Key.Key_Return)
    desk.settle()
    assert not any("defect" in text for text in desk.said), desk.said


def test_one_slice_is_prompted_and_exported(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    """Statement 28: two axes in, two axes out."""
    for name, shape in (("d20_2d.nii.gz", (80, 60)), ("d21_one_slice_3d.nii.gz", (80, 60, 1))):
        desk = make_desk()
        _open(desk, file_of(name))
        desk.wait(lambda desk=desk: desk.actions.model.model is not None)
        desk.bridge.set_tool("box")
        view = desk.bridge.current_view()
        assert view is not None
        desk.drag((0, 10, 10), (0, 40, 50))
        desk.wait_for_proposal()
        desk.key(Qt.Key.Key_Return)
        assert desk.labels.any()
        out = tmp_path / f"{name[:3]}.nii.gz"
        desk.widget.export_panel.export_to(out)
        desk.wait(lambda desk=desk: "Written" in desk.widget.export_panel.written.text())
        assert nib.load(out).shape == shape
        assert np.array_equal(read_labels(out, reference=desk.session.volume).data, desk.labels)
