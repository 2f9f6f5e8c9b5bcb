"""Opening a scan from a file: it is seen before its labels and the layers to draw on are ready."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_sam_med.errors import LabelError
from napari_sam_med.gui import contributions
from napari_sam_med.gui.experiments import open_experiments
from napari_sam_med.gui.scan_layers import BOXES_NAME, LABELS_NAME, POINTS_NAME, PREVIEW_NAME
from napari_sam_med.session import jobs
from napari_sam_med.session.voxel_counts import VoxelCounts
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.case_list import at
from tests.gui.desk import LEFT, NO_KEY, Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_journal import press, window_of


@pytest.fixture
def may_go_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Labels are not ready until it is set."""
    event = threading.Event()

    def counts(data: np.ndarray) -> VoxelCounts:
        event.wait(20)
        return VoxelCounts(data)

    monkeypatch.setattr(jobs, "VoxelCounts", counts)
    yield event
    event.set()


def scan_file(folder: Path, name: str = "ct.nii.gz") -> Path:
    data = np.full((40, 30, 12), -1000, dtype=np.int16)
    data[10:30, 8:22] = 100
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    nib.save(nib.Nifti1Image(data, affine), folder / name)
    return folder / name


def images(desk: Desk) -> list[Image]:
    return [layer for layer in desk.viewer.layers if isinstance(layer, Image)]


def test_a_scan_is_drawn_before_its_labels_are_ready(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, may_go_on: threading.Event
) -> None:
    desk = make_desk()
    desk.actions.open_scan(scan_file(tmp_path))
    desk.wait(lambda: images(desk))
    assert desk.session.volume is None
    (image,) = desk.viewer.layers
    assert image.contrast_limits == [-160, 240]

    def is_bright_in_the_middle() -> bool:
        shown = desk.viewer.screenshot(canvas_only=True, flash=False)
        return bool((shown[shown.shape[0] // 2, shown.shape[1] // 2, :3] > 100).all())

    desk.wait(is_bright_in_the_middle)
    may_go_on.set()
    desk.wait(lambda: desk.session.volume is not None)
    assert desk.bridge.image_layer is image
    assert images(desk) == [image]
    assert desk.viewer.layers.index(image) < desk.viewer.layers.index(desk.bridge.labels_layer)
    assert desk.bridge.tool == "box"


@pytest.mark.parametrize(("fill", "says"), [(np.nan, "no number"), (7, "the value 7")])
def test_a_scan_without_contrast_opens_and_is_told_of(
    make_desk: Callable[[], Desk],
    predictor: FakePredictor,
    tmp_path: Path,
    fill: float,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "empty.nii.gz"
    nib.save(nib.Nifti1Image(np.full((20, 16, 5), fill, np.float32), np.eye(4)), path)
    desk = make_desk()
    desk.actions.open_scan(path)
    desk.wait(lambda: desk.session.volume is not None)
    assert any(says in text and "nothing to see" in text for text in desk.said)
    assert says in desk.widget.volume_panel.facts.text()
    told: list[str] = []
    monkeypatch.setattr(contributions, "show_warning", told.append)
    contributions.read_files(str(path))
    assert [says in text for text in told] == [True], "where it is read without the widget, too"
    told.clear()
    contributions.read_files(str(scan_file(tmp_path)))
    assert told == []


def test_a_box_on_a_scan_without_any_number_gives_an_empty_mask_and_is_not_carried(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    path = tmp_path / "empty.nii.gz"
    nib.save(nib.Nifti1Image(np.full((20, 16, 5), np.nan, np.float32), np.eye(4)), path)
    desk = make_desk()
    desk.actions.open_scan(path)
    desk.wait(lambda: desk.bridge.boxes_layer is not None and desk.actions.model.model is not None)
    desk.wait(lambda: not desk.actions.scans.is_loading)
    desk.look_at(SliceView("axial", 2))
    desk.drag((2, 3, 4), (2, 10, 14))
    assert not desk.wait_for_proposal().any()
    says = "No voxel of this slice has a number: there is nothing to find. Escape clears."
    assert desk.widget.status.text.text() == says
    desk.key(Qt.Key.Key_G)
    desk.wait(lambda: any("The proposed mask is empty" in text for text in desk.said))
    desk.wait_until_carried()
    assert not desk.labels.any()


def test_another_scan_takes_the_place_of_one_that_is_not_ready(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, may_go_on: threading.Event
) -> None:
    desk = make_desk()
    desk.actions.open_scan(scan_file(tmp_path, "one.nii.gz"))
    desk.wait(lambda: images(desk))
    desk.actions.open_scan(scan_file(tmp_path, "two.nii.gz"))
    may_go_on.set()
    desk.wait(lambda: desk.session.volume is not None)
    assert [layer.name for layer in images(desk)] == ["two.nii.gz"]


def test_a_scan_that_is_removed_before_it_is_ready_is_not_opened(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, may_go_on: threading.Event
) -> None:
    desk = make_desk()
    desk.actions.open_scan(scan_file(tmp_path))
    desk.wait(lambda: images(desk))
    desk.viewer.layers.remove(images(desk)[0])
    may_go_on.set()
    desk.wait(lambda: not desk.actions.scans.is_loading)
    desk.settle()
    assert desk.session.volume is None
    assert not desk.viewer.layers


def test_a_scan_that_fails_after_it_was_seen_goes_again(
    make_desk: Callable[[], Desk],
    predictor: FakePredictor,
    tmp_path: Path,
    may_go_on: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(data: np.ndarray) -> VoxelCounts:
        may_go_on.wait(20)
        raise LabelError("The disk is full; free some space.")

    monkeypatch.setattr(jobs, "VoxelCounts", fail)
    desk = make_desk()
    desk.actions.open_scan(scan_file(tmp_path))
    desk.wait(lambda: images(desk))
    may_go_on.set()
    desk.wait(lambda: not desk.actions.scans.is_loading)
    assert not desk.viewer.layers
    assert any("The disk is full" in line for line in desk.said)


def test_a_second_scan_may_be_opened_while_the_layers_of_the_first_come(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, at_turn
) -> None:
    desk = make_desk()
    other = scan_file(tmp_path, "two.nii.gz")
    at_turn(3, lambda: desk.actions.open_scan(other))
    desk.actions.open_scan(scan_file(tmp_path, "one.nii.gz"))
    desk.wait(lambda: desk.session.volume is not None and not desk.actions.scans.is_loading)
    assert [layer.name for layer in images(desk)] == ["two.nii.gz"]
    assert len(desk.viewer.layers) == 5
    assert desk.bridge.labels_layer.name == LABELS_NAME


def test_the_scan_before_is_worked_on_until_the_next_is_there_and_when_that_fails(
    make_desk: Callable[[], Desk],
    predictor: FakePredictor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = make_desk()
    first = scan_file(tmp_path, "one.nii.gz")
    desk.actions.open_scan(first)
    desk.wait(lambda: desk.session.volume is not None and not desk.actions.scans.is_loading)
    layers, shown = list(desk.viewer.layers), desk.bridge.image_layer

    def fail(*_: object, **__: object) -> None:
        assert desk.bridge.image_layer is shown
        assert shown.visible
        raise LabelError("The disk is full; free some space.")

    monkeypatch.setattr("napari_sam_med.gui.arrival.labels_layer", fail)
    desk.actions.open_scan(scan_file(tmp_path, "two.nii.gz"))
    desk.wait(lambda: any("The disk is full" in line for line in desk.said))
    assert not desk.actions.scans.is_loading
    assert list(desk.viewer.layers) == layers
    assert desk.session.volume.path == first
    assert desk.bridge.current_view() is not None


def test_a_layer_that_is_removed_on_its_way_ends_the_opening(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, at_turn
) -> None:
    desk = make_desk()
    at_turn(2, lambda: desk.viewer.layers.remove(desk.viewer.layers[LABELS_NAME]))
    desk.actions.open_scan(scan_file(tmp_path))
    desk.wait(lambda: images(desk))
    desk.wait(lambda: not desk.actions.scans.is_loading)
    assert desk.session.volume is None
    assert not desk.viewer.layers


def test_a_widget_that_ends_while_layers_come_leaves_none_of_them(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, at_turn
) -> None:
    desk = make_desk()
    at_turn(3, desk.widget.stop)
    desk.actions.open_scan(scan_file(tmp_path))
    desk.wait(lambda: images(desk))
    desk.wait(lambda: not desk.viewer.layers)
    desk.settle()
    assert not desk.viewer.layers
    assert desk.viewer.window._qt_viewer.canvas.native.updatesEnabled()


def test_empty_labels_of_the_scan_before_go_and_those_drawn_on_stay_hidden(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    desk = make_desk()
    for name in ("one", "two", "three"):
        path = scan_file(tmp_path, f"{name}.nii.gz")
        desk.actions.open_scan(path)
        desk.wait(lambda path=path: desk.session.volume is not None and desk.session.volume.path == path)
        desk.wait(lambda: not desk.actions.scans.is_loading)
        if name == "two":
            drawn_on = desk.bridge.labels_layer
            drawn_on.data[3, 4, 5] = 1  # as a script does, which tells nobody
    labels = [layer for layer in desk.viewer.layers if isinstance(layer, Labels)]
    assert labels == [drawn_on, desk.bridge.labels_layer, desk.bridge.display.preview_layer]
    assert not drawn_on.visible
    assert [image.visible for image in images(desk)] == [False, False, True]


def open_file(desk: Desk, path: Path) -> Image:
    with desk.nothing_drawn():
        desk.actions.open_scan(path)
        desk.wait(lambda: desk.session.volume is not None and desk.session.volume.path == path)
        desk.wait(lambda: not desk.actions.scans.is_loading)
    return desk.bridge.image_layer


def names_of_own(desk: Desk) -> list[str]:
    """Of the layers of proposal and prompts that the viewer has, lowest first."""
    return [layer.name for layer in desk.viewer.layers if layer.metadata.get("sam_med_own")]


OWN_NAMES = [PREVIEW_NAME, POINTS_NAME, BOXES_NAME]


@pytest.mark.parametrize("removed", ["one.nii.gz", POINTS_NAME])
def test_what_is_removed_of_the_scan_before_takes_nothing_from_the_next(
    removed: str, make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, at_turn
) -> None:
    desk = make_desk()
    open_file(desk, scan_file(tmp_path, "one.nii.gz"))
    at_turn(1, lambda: desk.viewer.layers.remove(desk.viewer.layers[removed]))
    open_file(desk, scan_file(tmp_path, "two.nii.gz"))
    desk.settle()
    assert names_of_own(desk) == OWN_NAMES
    assert all(layer in desk.viewer.layers for layer in desk.bridge.own_layers)
    desk.drag((5, 5, 5), (5, 20, 30))
    desk.wait_for_proposal()
    assert desk.bridge.display.preview_layer.visible


def test_a_box_that_is_half_drawn_when_the_next_scan_is_there_is_dropped(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, at_turn
) -> None:
    desk = make_desk()
    open_file(desk, scan_file(tmp_path, "one.nii.gz"))
    boxes = desk.bridge.boxes_layer
    start, end = desk.canvas_xy((5, 5, 5)), desk.canvas_xy((5, 20, 30))

    def begin() -> None:
        QTest.mouseMove(desk.native, start)
        QTest.mousePress(desk.native, LEFT, NO_KEY, start)
        QTest.mouseMove(desk.native, (start + end) / 2)
        assert boxes._is_creating

    at_turn(1, begin)
    open_file(desk, scan_file(tmp_path, "two.nii.gz"))
    QTest.mouseMove(desk.native, end)
    QTest.mouseRelease(desk.native, LEFT, NO_KEY, end)
    desk.settle()
    assert not desk.session.objects
    assert names_of_own(desk) == OWN_NAMES
    assert desk.bridge.tool == "box"
    desk.drag((5, 5, 5), (5, 20, 30))
    desk.wait_for_proposal()
    assert len(desk.bridge.boxes_layer.data) == 1


def test_a_polygon_that_is_half_drawn_when_the_next_scan_comes_is_no_prompt_of_the_one_before(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, at_turn
) -> None:
    desk = make_desk()
    open_file(desk, scan_file(tmp_path, "one.nii.gz"))
    asked = []
    desk.session.events.objects.connect(lambda objects: asked.extend(objects))

    def begin() -> None:
        desk.bridge.boxes_layer.mode = "add_polygon"
        for place in ((5, 5, 5), (5, 20, 5), (5, 20, 30)):
            QTest.mouseClick(desk.native, LEFT, NO_KEY, desk.canvas_xy(place))
        assert desk.bridge.prompts.is_half_drawn

    at_turn(1, begin)
    open_file(desk, scan_file(tmp_path, "two.nii.gz"))
    desk.settle()
    assert not asked
    assert desk.bridge.tool == "box"
    assert names_of_own(desk) == OWN_NAMES


@pytest.mark.parametrize("is_certain", [True, False])
def test_the_tool_changes_before_the_scan_does_where_that_is_certain(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, is_certain: bool
) -> None:
    desk = make_desk()
    open_file(desk, scan_file(tmp_path, "one.nii.gz"))
    desk.bridge.set_tool("paint")
    tools: list[str | None] = []
    scans = desk.actions.scans
    bring = scans.bring

    def noting(scan, then, *arguments, **options) -> None:
        bring(scan, lambda: (tools.append(desk.bridge.tool), then()), is_certain=is_certain)

    scans.bring = noting
    open_file(desk, scan_file(tmp_path, "two.nii.gz"))
    assert tools == ["box" if is_certain else "paint"]
    assert desk.bridge.tool == "box"


def test_the_tool_stays_where_a_case_may_not_come(open_list: Callable[..., Desk]) -> None:
    desk = open_list()
    desk.bridge.set_tool("paint")
    tools: list[str | None] = []
    show_case = desk.actions.scans.show_case

    def noting(*arguments, **options) -> None:
        tools.append(desk.bridge.tool)
        show_case(*arguments, **options)

    desk.actions.scans.show_case = noting
    press(desk.widget.work_list_panel.next)
    at(desk, 1)
    assert tools == ["paint"]
    assert desk.bridge.tool == "box"


def test_layers_that_come_anew_over_an_image_of_the_user_s_have_the_plain_names(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    desk = make_desk()
    open_file(desk, scan_file(tmp_path, "one.nii.gz"))
    before = desk.bridge.own_layers
    image = desk.viewer.add_image(np.zeros((12, 30, 40), dtype=np.int16), name="dragged")
    desk.actions.open_scan(image)
    desk.wait(lambda: desk.bridge.image_layer is image and not desk.actions.scans.is_loading)
    assert not set(before) & set(desk.bridge.own_layers)
    assert names_of_own(desk) == OWN_NAMES


def test_where_the_scan_is_removed_the_one_below_is_opened_with_labels_of_its_own(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    desk = make_desk()
    open_file(desk, scan_file(tmp_path, "one.nii.gz"))
    drawn_on = desk.bridge.labels_layer
    drawn_on.data[3, 4, 5] = 1
    second = open_file(desk, scan_file(tmp_path, "two.nii.gz"))  # all three lie on the same grid
    desk.viewer.layers.remove(open_file(desk, scan_file(tmp_path, "three.nii.gz")))
    desk.wait(lambda: desk.bridge.image_layer is second)
    desk.wait(lambda: not desk.actions.scans.is_loading)
    assert second.visible
    assert desk.bridge.labels_layer in desk.viewer.layers
    assert desk.bridge.labels_layer is not drawn_on
    assert not desk.labels.any()
    assert names_of_own(desk) == OWN_NAMES


def test_labels_of_a_scan_that_was_removed_are_not_seen_over_the_one_below(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    desk = make_desk()
    first = open_file(desk, scan_file(tmp_path, "one.nii.gz"))
    second = open_file(desk, scan_file(tmp_path, "two.nii.gz"))
    drawn_on = desk.bridge.labels_layer
    drawn_on.data[3, 4, 5] = 1
    desk.viewer.layers.remove(second)
    desk.wait(lambda: desk.bridge.image_layer is first and not desk.actions.scans.is_loading)
    desk.wait(lambda: not drawn_on.visible)
    assert drawn_on in desk.viewer.layers
    assert drawn_on.data[3, 4, 5] == 1
    assert desk.bridge.labels_layer.visible
    hidden = f'"{drawn_on.name}" of two.nii.gz is hidden, as its image is not in the viewer any more.'
    desk.wait(lambda: hidden in desk.widget.status.text.text())


def test_labels_whose_image_is_there_or_that_were_never_worked_on_stay_seen(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    desk = make_desk()
    first = open_file(desk, scan_file(tmp_path, "one.nii.gz"))
    drawn_on = desk.bridge.labels_layer
    drawn_on.data[3, 4, 5] = 1
    reference = desk.viewer.add_labels(
        np.ones_like(drawn_on.data), name="reference", metadata={"sam_med": desk.session.labels}
    )
    open_file(desk, scan_file(tmp_path, "two.nii.gz"))
    desk.wait(lambda: not first.visible)
    first.visible = drawn_on.visible = True  # to compare
    open_file(desk, scan_file(tmp_path, "three.nii.gz"))
    desk.settle()
    assert reference.visible
    assert drawn_on.visible
    assert "is hidden" not in desk.widget.status.text.text()


def test_a_window_that_is_closed_while_layers_come_ends_quietly(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, at_turn
) -> None:
    desk = make_desk()
    window = window_of(desk)
    closing = [window.close]  # nothing shall keep the window when the test is over
    at_turn(3, lambda: closing.pop()())
    desk.actions.open_scan(scan_file(tmp_path))
    desk.wait(lambda: not window.isVisible())
    desk.settle()
    assert not desk.actions.scans.is_loading
    assert not desk.viewer.layers


def test_an_experiments_panel_follows_from_scan_to_scan(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    desk = make_desk()
    panel = open_experiments(desk.viewer)
    try:
        for name in ("one.nii.gz", "two.nii.gz"):
            image = open_file(desk, scan_file(tmp_path, name))
            assert panel.control.data.image is image
            assert panel.control.data.labels is desk.bridge.labels_layer
    finally:
        panel.stop()


def test_each_scan_keeps_its_window_and_the_chosen_one_is_seen(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    desk = make_desk()
    first = open_file(desk, scan_file(tmp_path, "ct.nii.gz"))
    window = list(first.contrast_limits)
    image = nib.Nifti1Image(
        np.random.default_rng(0).random((30, 30, 9), np.float32), np.diag([-2, -2, 9, 1.0])
    )
    nib.save(image, tmp_path / "mr.nii.gz")
    second = open_file(desk, tmp_path / "mr.nii.gz")
    other = list(second.contrast_limits)
    assert list(first.contrast_limits) == window != other
    desk.actions.open_scan(first)
    desk.wait(lambda: desk.bridge.image_layer is first)
    desk.wait(lambda: not desk.actions.scans.is_loading)
    desk.settle()
    assert list(first.contrast_limits) == window
    assert list(second.contrast_limits) == other
    assert first.visible
    assert not second.visible
    assert desk.bridge.current_view() is not None


def test_the_slice_is_there_again_after_3d(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    desk = make_desk()
    nib.save(
        nib.Nifti1Image(np.zeros((9, 9, 90), np.int16), np.diag([-2, -2, 9, 1.0])), tmp_path / "long.nii.gz"
    )
    open_file(desk, tmp_path / "long.nii.gz")
    open_file(desk, scan_file(tmp_path))
    desk.look_at(SliceView("axial", 2))
    desk.bridge.show_in_3d()
    desk.settle()
    desk.bridge.show_plane("axial")
    desk.settle()
    assert desk.bridge.current_view() == SliceView("axial", 2)
