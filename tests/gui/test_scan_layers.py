"""The layers of prompts and proposal go on from one scan to the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from napari.layers import Image

from napari_sam_med.gui import planes
from napari_sam_med.gui.scan_layers import BOXES_NAME, POINTS_NAME, PREVIEW_NAME
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_carrying import accept_a_box
from tests.gui.test_prompting import LIVER, box_the_organ


def open_file(desk: Desk, path: Path) -> None:
    with desk.nothing_drawn():
        desk.actions.open_scan(path)
        desk.wait(lambda: desk.session.volume is not None and desk.session.volume.path == path)
        desk.wait(lambda: desk.actions.model.model is not None)
    desk.settle()


def test_own_layers_are_emptied_and_lie_over_the_next_scan(
    make_desk: Callable[[], Desk], predictor: FakePredictor, folder: Path
) -> None:
    desk = make_desk()
    open_file(desk, folder / "ct_1.nii.gz")
    box_the_organ(desk)  # is not accepted, so that a proposal is left
    bridge, layers = desk.bridge, desk.viewer.layers
    own = [layers[name] for name in (PREVIEW_NAME, POINTS_NAME, BOXES_NAME)]
    first = bridge.image_layer
    open_file(desk, folder / "ct_2.nii.gz")  # of another size
    assert [layers[name] for name in (PREVIEW_NAME, POINTS_NAME, BOXES_NAME)] == own
    assert not own[0].data.any()
    assert len(own[1].data) == len(own[2].data) == 0
    shown = max(layers.index(bridge.image_layer), layers.index(bridge.labels_layer))
    assert min(layers.index(layer) for layer in own) > shown
    assert not first.visible, "the next scan covers it"
    assert bridge.labels_layer.data.shape == (9, 24, 32)
    accept_a_box(desk)
    assert np.count_nonzero(desk.labels == LIVER)


def choose(desk: Desk, image: Image) -> None:
    with desk.nothing_drawn():
        desk.actions.open_scan(image)
        desk.wait(lambda: desk.bridge.image_layer is image and not desk.actions.scans.is_loading)
    desk.settle()


def test_a_scan_elsewhere_comes_into_sight_and_one_in_the_same_place_keeps_the_zoom(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    desk, images = make_desk(), []
    for name, place in (("here", 0), ("here_too", 0), ("elsewhere", 900), ("beside", 60)):
        affine = np.diag([-2.0, -2.0, 4.0, 1.0])
        affine[:3, 3] = place
        path = tmp_path / f"{name}.nii"
        nib.save(nib.Nifti1Image(np.arange(40 * 30 * 12, dtype=np.int16).reshape(40, 30, 12), affine), path)
        open_file(desk, path)
        assert desk.bridge.current_view() is not None
        assert planes.sees(desk.viewer, desk.bridge.frame)
        centre = desk.canvas_xy((6, 15, 20))
        middle = desk.native.rect().center()
        assert (centre - middle).manhattanLength() < 20, "all of it is seen"
        images.append(desk.bridge.image_layer)
    camera = desk.viewer.scene.camera
    choose(desk, images[0])
    assert planes.sees(desk.viewer, desk.bridge.frame)
    desk.look_at(SliceView("coronal", 3))
    camera.zoom *= 3
    zoom, centre = camera.zoom, camera.center
    for image in (images[1], images[0]):
        choose(desk, image)
        assert (camera.zoom, camera.center) == (zoom, centre)
        assert desk.bridge.current_view() == SliceView("coronal", 3)
    choose(desk, images[2])
    assert planes.sees(desk.viewer, desk.bridge.frame)
    assert desk.bridge.current_view().plane == "coronal"
    choose(desk, images[0])
    choose(desk, images[3])  # a quarter of it was in sight
    centre = desk.canvas_xy((6, 15, 20))
    assert (centre - desk.native.rect().center()).manhattanLength() < 20


def test_the_slice_stays_when_a_layer_goes_that_reached_further(
    make_desk: Callable[[], Desk], predictor: FakePredictor, folder: Path
) -> None:
    desk = make_desk()
    open_file(desk, folder / "ct_1.nii.gz")
    z, y, x = desk.session.volume.shape
    here = desk.bridge.image_layer
    start = np.asarray(here.translate) - (3 * z * here.scale[0], 0, 0)
    further = Image(np.zeros((4 * z, y, x), dtype=np.uint8), scale=here.scale, translate=start)
    desk.viewer.add_layer(further)
    view = SliceView("axial", z // 2)
    desk.look_at(view)
    assert desk.viewer.dims.current_step[0] > z
    desk.viewer.layers.remove(further)
    desk.settle()
    assert desk.bridge.current_view() == view
