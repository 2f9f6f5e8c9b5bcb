"""Files of one name can be told apart where layers are chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import QApplication

from napari_sam_med.gui import leaving
from napari_sam_med.gui.layer_combo import names_told_apart
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_carrying import accept_a_box
from tests.gui.test_scan_loading import scan_file


def layer(name: str, path: str | None = None, *, is_ours: bool = True) -> SimpleNamespace:
    known = None if path is None else Path(path)
    return SimpleNamespace(
        name=name,
        metadata={"sam_med": SimpleNamespace(path=known)} if is_ours else {},
        source=SimpleNamespace(path=None if is_ours or known is None else str(known)),
    )


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ([("ct.nii", "/a/ct.nii"), ("mr.nii", "/b/mr.nii")], ["ct.nii", "mr.nii"]),
        ([("ct.nii", "/a/ct.nii"), ("ct.nii [1]", "/b/ct.nii")], ["a/ct.nii", "b/ct.nii [1]"]),
        (
            [("ct.nii", "/a/imgs/ct.nii"), ("ct.nii [1]", "/b/imgs/ct.nii"), ("mr.nii", "/b/imgs/mr.nii")],
            ["a/imgs/ct.nii", "b/imgs/ct.nii [1]", "mr.nii"],
        ),
        ([("ct.nii", "/a/ct.nii"), ("ct.nii [1]", "/a/ct.nii")], ["ct.nii", "ct.nii [1]"]),
        ([("ct", None), ("ct [1]", "/a/ct"), ("ct [2]", "/b/ct")], ["ct", "a/ct [1]", "b/ct [2]"]),
        ([], []),
    ],
)
@pytest.mark.parametrize("is_ours", [True, False])
def test_names_are_told_apart_by_their_folders(
    given: list[tuple[str, str | None]], shown: list[str], is_ours: bool
) -> None:
    assert names_told_apart([layer(*one, is_ours=is_ours) for one in given]) == shown


def test_the_list_of_images_shows_folders_and_paths(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    desk = make_desk()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        path = scan_file(tmp_path / name)
        desk.actions.open_scan(path)
        desk.wait(
            lambda path=path: (
                desk.session.volume is not None
                and desk.session.volume.path == path
                and not desk.actions.scans.is_loading
            )
        )
    images = desk.widget.volume_panel.images
    listed = {images.itemText(index).split("/")[0] for index in range(images.count())}
    assert listed == {"first", "second"}
    assert images.currentText().startswith("second/ct.nii.gz")
    QApplication.sendEvent(images, QHelpEvent(QEvent.Type.ToolTip, QPoint(3, 3), QPoint(3, 3)))
    assert str(tmp_path / "second" / "ct.nii.gz") in images.toolTip()
    desk.viewer.add_image(np.zeros((2, 3, 4)), name="other")
    desk.wait(lambda: images.findText("other") >= 0)
    images.setCurrentIndex(images.findText("other"))
    QApplication.sendEvent(images, QHelpEvent(QEvent.Type.ToolTip, QPoint(3, 3), QPoint(3, 3)))
    assert str(tmp_path) not in images.toolTip()


def test_choosing_the_scan_that_is_open_changes_nothing(
    desk: Desk, predictor: FakePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(leaving, "ask", lambda *question: asked.append(question) or "leave")
    accept_a_box(desk)
    labels, images = desk.bridge.labels_layer, desk.widget.volume_panel.images
    images.activated.emit(images.currentIndex())
    desk.settle()
    assert not desk.actions.scans.is_loading
    assert not asked
    assert desk.bridge.labels_layer is labels
    assert desk.labels.any()
