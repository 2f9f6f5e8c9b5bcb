"""Going through what was carried: the strip, the next doubtful slice, one slice mended and carried again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_sam_med.session.review import doubtful_slices
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import LEFT, NO_KEY, Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_prompting import LIVER

SHIFT, CONTROL = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier
KEY, WRONG = 12, 5


def axial(index: int) -> SliceView:
    return SliceView("axial", index)


class Decodes:
    """The axial slices that the model answered, each as often as it was asked."""

    def __init__(self, predictor: FakePredictor) -> None:
        self.images: list[np.ndarray] = []
        self._predict = predictor.predict

    def __call__(self, embedding: Any, *args: Any, **options: Any) -> Any:
        self.images.append(embedding.features.image)
        answer = self._predict(embedding, *args, **options)
        answer.iou_predictions[:] = 0.7  # not so sure that nothing would be in doubt
        return answer

    def take(self, desk: Desk) -> list[int]:
        images, self.images = self.images, []
        session = desk.session
        slices = [to_rgb(session.volume, axial(i), session.window) for i in range(session.volume.shape[0])]
        return [next(i for i, one in enumerate(slices) if np.array_equal(one, image)) for image in images]


@pytest.fixture
def decodes(predictor: FakePredictor, monkeypatch: pytest.MonkeyPatch) -> Decodes:
    counting = Decodes(predictor)
    monkeypatch.setattr(predictor, "predict", counting)
    return counting


@pytest.fixture
def long_desk(make_desk: Callable[[], Desk], decodes: Decodes, make_volume: Callable) -> Iterator[Desk]:
    """The widget at work on 20 slices with an organ in slices 1 to 18, carried from slice 12."""
    made = make_desk()
    made.open(make_volume((20, 24, 32)))
    made.session.select_organ(LIVER)
    made.look_at(axial(KEY))
    made.bridge.set_tool("box")
    made.drag((KEY, 4, 6), (KEY, 13, 18))
    made.wait_for_proposal()
    made.key(Qt.Key.Key_Return)
    made.key(Qt.Key.Key_G)
    made.wait_until_carried()
    return made


def correct(desk: Desk, index: int) -> np.ndarray:
    """Take a bit off the mask of a slice with a minus click, and accept."""
    desk.look_at(axial(index))
    desk.bridge.set_tool("point")
    desk.click((index, 10, 14), CONTROL)
    mask = desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Return)
    return mask


def test_one_corrected_slice_is_carried_into_the_gaps_beside_it_alone(
    long_desk: Desk, decodes: Decodes
) -> None:
    desk = long_desk
    assert set(decodes.take(desk)) >= set(range(1, KEY)) | set(range(KEY + 1, 19))
    carried = desk.labels.copy()
    mended = correct(desk, WRONG)
    corrected = desk.labels.copy()
    decodes.take(desk)
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    asked = decodes.take(desk)
    assert asked
    assert max(asked) < KEY, "slices beyond the next key slice are known from the first run"
    assert np.array_equal(desk.slice_labels(axial(WRONG)) == LIVER, mended)
    assert np.array_equal(desk.labels[KEY:], carried[KEY:])
    again = desk.labels.copy()
    desk.undo()
    assert np.array_equal(desk.labels, corrected), "the second run is one step"
    desk.undo()
    assert np.array_equal(desk.labels, carried), "the correction is one step"
    desk.redo()
    desk.redo()
    assert np.array_equal(desk.labels, again)


def test_n_goes_through_the_doubtful_slices_until_nothing_is_left(long_desk: Desk) -> None:
    desk, session = long_desk, long_desk.session
    object_id = session.active_object_id
    seen: list[int] = []
    for _ in range(20):
        expected = doubtful_slices(session, object_id)
        desk.key(Qt.Key.Key_N)
        if not expected:
            break
        assert desk.bridge.current_view() == expected[0].view
        assert desk.said[-1] == expected[0].text
        seen.append(expected[0].view.index)
        before = desk.labels.copy()
        desk.key(Qt.Key.Key_N, SHIFT)
        assert np.array_equal(desk.labels, before), "what is right is not changed"
        assert session.active_object.masks[expected[0].view].is_key
    assert desk.said[-1] == "Nothing is left in doubt in liver."
    assert 4 <= seen[0] <= 8, "the middle of the longer run comes first"
    assert len(seen) == len(set(seen))
    for index in reversed(seen):
        assert session.undo_stack.undo_label == f"Take liver on slice {index} for right"
        desk.undo()
        assert not session.active_object.masks[axial(index)].is_key
    assert session.undo_stack.undo_label == "Carry liver through slices"


def test_n_tells_the_qualities_that_the_strip_shows(long_desk: Desk) -> None:
    desk, strip = long_desk, long_desk.widget.review_bar.strip
    desk.wait(lambda: len(strip.content.slices) == 18)
    desk.key(Qt.Key.Key_N)
    found = re.match(
        r"Slice (\d+): the largest error is expected on slices (\d+) to (\d+), .* Quality ([\d.]+) here"
        r"(?:, lowest ([\d.]+) on slice (\d+)|, the lowest)\.",
        desk.said[-1],
    )
    assert found is not None, desk.said[-1]
    index, first, last = (int(found[i]) for i in (1, 2, 3))
    shown = {i: strip.content.slices[i].quality for i in range(first, last + 1)}
    lowest = min(shown, key=lambda i: shown[i])
    assert desk.bridge.current_view() == axial(index)
    assert found[4] == f"{shown[index]:.2f}"
    assert (found[5] or found[4]) == f"{shown[lowest]:.2f}"
    assert "area of a mask times its doubt" in desk.widget.review_bar.next.toolTip()


def test_n_goes_on_after_a_correction_and_past_a_slice_that_is_left(long_desk: Desk) -> None:
    desk = long_desk
    first, second = (one.view for one in doubtful_slices(desk.session, desk.session.active_object_id)[:2])
    desk.widget.review_bar.next.click()
    assert desk.bridge.current_view() == first
    desk.widget.review_bar.next.click()
    assert desk.bridge.current_view() == second
    correct(desk, second.index)
    desk.key(Qt.Key.Key_N)
    assert desk.bridge.current_view() == first
    desk.widget.review_bar.right.click()
    desk.widget.review_bar.right.click()
    assert desk.said[-1] == f"Slice {first.index} of liver is a key slice already. N goes on."


def test_before_anything_is_carried_n_says_so(desk: Desk) -> None:
    desk.key(Qt.Key.Key_N)
    assert "Nothing was carried yet" in desk.said[-1]
    desk.key(Qt.Key.Key_N, SHIFT)
    assert desk.said[-1].startswith("Choose an object")
    assert not desk.widget.review_bar.next.isEnabled()


def test_a_click_on_the_strip_goes_to_its_slice(long_desk: Desk) -> None:
    desk, strip = long_desk, long_desk.widget.review_bar.strip
    desk.wait(lambda: len(strip.content.slices) == 18)
    assert [i for i, one in strip.content.slices.items() if one.is_key] == [KEY]
    assert strip.content.ends.keys() == {0, 19}
    for index in (3, 17):
        place = round((strip.left_of(index) + strip.left_of(index + 1)) / 2)
        QTest.mouseClick(strip, LEFT, NO_KEY, QPoint(place, strip.height() // 2))
        assert desk.bridge.current_view() == axial(index)
        desk.wait(lambda index=index: strip.content.current == index)
    assert strip.text_of(3).startswith("Slice 3: quality 0.")
    assert strip.text_of(KEY) == f"Slice {KEY}: key slice, accepted"
    assert strip.text_of(0) == "Slice 0\nCarrying ended here: the mask vanished"
    desk.bridge.show_plane("coronal")
    desk.wait(lambda: strip.content.current is None)
    QTest.mouseClick(strip, LEFT, NO_KEY, QPoint(strip.width() // 2, strip.height() // 2))
    assert desk.bridge.current_view().plane == "axial", "the strip belongs to the plane of the object"


def test_the_strip_shows_what_undo_and_another_object_leave(long_desk: Desk) -> None:
    desk, strip = long_desk, long_desk.widget.review_bar.strip
    desk.undo()
    desk.wait(lambda: strip.content.slices.keys() == {KEY})
    desk.key(Qt.Key.Key_K)
    desk.wait(lambda: not strip.content.slices)
    assert strip.content.caption == "no object chosen"
    QTest.mouseClick(strip, LEFT, NO_KEY, QPoint(10, 10))
    assert desk.bridge.current_view() == axial(KEY)


def test_a_locked_organ_keeps_its_voxels_when_another_one_is_carried(long_desk: Desk) -> None:
    desk, session = long_desk, long_desk.session
    desk.undo()
    spleen = 1
    session.labels.data[15, 6:12, 12:16] = spleen
    session.record_stroke()
    session.set_organ(session.organs[spleen].__class__(spleen, "spleen", (0.5, 0.2, 0.8), locked=True))
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    assert (desk.labels[15, 6:12, 12:16] == spleen).all()
    assert (desk.labels[15, 6:12, 8:12] == LIVER).all()
    assert not session.active_object.mask(axial(15))[6:12, 12:16].any()


def test_boxes_in_two_planes_make_one_object(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    desk.look_at(axial(4))
    desk.bridge.set_tool("box")
    desk.drag((4, 4, 6), (4, 13, 18))
    desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Return)
    desk.widget.volume_panel.planes["coronal"].click()
    desk.look_at(SliceView("coronal", 8))
    desk.bridge.set_tool("box")
    desk.drag((0, 8, 6), (7, 8, 18))
    desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Return)
    assert len(desk.session.objects) == 1
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    assert np.array_equal(desk.labels == LIVER, np.asarray(desk.session.volume.data) > 100)
    assert {v.plane for v in desk.session.active_object.key_slices} == {"axial", "coronal"}


def test_a_mask_from_elsewhere_becomes_a_key_slice(desk: Desk) -> None:
    organ = np.asarray(desk.session.volume.data) > 100
    desk.session.select_organ(LIVER)
    desk.labels[4][organ[4]] = LIVER  # as imported: it belongs to no object
    desk.look_at(axial(4))
    desk.widget.prompt_panel.as_key.click()
    mask = desk.session.active_object.masks[axial(4)]
    assert (mask.source, mask.is_key) == ("edited", True)
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    assert np.array_equal(desk.labels == LIVER, organ)
    desk.undo()
    desk.undo()
    assert not desk.session.objects
    assert np.array_equal(desk.labels[4] == LIVER, organ[4]), "the voxels were there before"
    desk.look_at(axial(2))
    desk.widget.prompt_panel.as_key.click()
    assert desk.said[-1] == "There is no voxel of liver on slice 2; paint or prompt it first."
