"""The layers of prompts and proposal go on from one scan to the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from napari_sam_med.gui.scan_layers import BOXES_NAME, POINTS_NAME, PREVIEW_NAME
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_carrying import accept_a_box
from tests.gui.test_prompting import LIVER, box_the_organ


def open_file(desk: Desk, path: Path) -> None:
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
