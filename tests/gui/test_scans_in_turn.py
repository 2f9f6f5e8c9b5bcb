"""Two scans in one viewer, worked on in turn: each goes on where it was left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels
from qtpy.QtCore import Qt, QTimer

from napari_sam_med.gui import leaving
from napari_sam_med.session.journal_folder import default_folder
from napari_sam_med.volume.organs import Organ
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume
from tests.gui.desk import Desk
from tests.gui.scan_choice import choose_image, click_on
from tests.gui.test_carrying import accept_a_box
from tests.gui.test_journal import crash, everything, kept, offers_of, press, window_of
from tests.gui.test_prompting import LIVER


@pytest.fixture
def other(make_volume: Callable[..., Volume]) -> Volume:
    """Another scan on the same grid."""
    volume = make_volume()
    np.asarray(volume.data)[...] += np.int16(3)
    return volume


def added(desk: Desk, volume: Volume, name: str = "other") -> Image:
    return desk.viewer.add_image(
        volume.data, name=name, metadata={"sam_med": volume}, **volume.display_transform
    )


def test_a_scan_that_the_user_opened_in_napari_says_how_to_work_on_it(
    desk: Desk, other: Volume, asked: list[str]
) -> None:
    first, says = desk.bridge.image_layer, 'To work on "other", choose it under Scan, Image.'
    desk.viewer.add_image(np.zeros((24, 32, 3), np.uint8), name="photograph", rgb=True)
    desk.viewer.add_image(np.zeros((2, 8, 24, 32)), name="series")
    assert not any("choose it" in text for text in desk.said), [t for t in desk.said if "choose it" in t]
    second = added(desk, other)
    assert desk.widget.status.text.text() == says
    assert desk.bridge.image_layer is first
    desk.said.clear()
    choose_image(desk, second)
    assert not any("choose it" in text for text in desk.said)


def test_a_scan_that_the_widget_opens_needs_no_choosing(desk: Desk, asked: list[str], tmp_path: Path) -> None:
    path = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(8 * 24 * 30, dtype=np.int16).reshape(30, 24, 8), np.eye(4)), path)
    desk.actions.open_scan(path)
    desk.wait(lambda: desk.session.volume.path == path and not desk.actions.scans.is_loading)
    assert not any("choose it" in text for text in desk.said)


def labels_layers(desk: Desk) -> list[Labels]:
    return [one for one in desk.bridge.layers_of_type(Labels) if one.name.startswith("SAM Med labels")]


def test_each_scan_goes_on_with_its_own_labels_objects_prompts_and_undo(
    desk: Desk, other: Volume, asked: list[str]
) -> None:
    first, layer = desk.bridge.image_layer, desk.bridge.labels_layer
    desk.session.set_organ(Organ(LIVER, "Leber", (0.2, 0.4, 0.6)))
    accept_a_box(desk)
    before = everything(desk.session)
    kept(desk)
    second = added(desk, other)
    choose_image(desk, second)
    assert asked == ["Open"]
    assert not desk.labels.any()
    assert not desk.session.objects
    their_layer = desk.bridge.labels_layer
    accept_a_box(desk)
    theirs = everything(desk.session)
    kept(desk)
    for _ in range(2):
        choose_image(desk, first)
        kept(desk)
        assert desk.bridge.labels_layer is layer
        assert layer.visible
        assert not their_layer.visible
        assert everything(desk.session) == before
        assert len(desk.bridge.boxes_layer.data) == 1
        assert not desk.widget.recovery_bar.isVisible(), "nothing is offered that is there"
        assert "as you left them" in desk.widget.status.text.text()
        choose_image(desk, second)
        kept(desk)
        assert desk.bridge.labels_layer is their_layer
        assert everything(desk.session) == theirs
        assert not desk.widget.recovery_bar.isVisible()
    assert asked == ["Open", "Open"], "once for each, as nothing was done since"
    assert sorted(map(id, labels_layers(desk))) == sorted(map(id, (layer, their_layer)))
    choose_image(desk, first)
    desk.undo()
    assert not desk.labels.any()
    desk.redo()
    assert everything(desk.session) == before
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    assert np.count_nonzero(desk.labels.any(axis=(1, 2))) > 1


def test_closing_asks_for_what_was_gone_on_with_and_a_crash_loses_nothing(
    desk: Desk, volume: Volume, other: Volume, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = desk.bridge.image_layer
    accept_a_box(desk)
    before = everything(desk.session)
    kept(desk)
    choose_image(desk, added(desk, other))
    choose_image(desk, first)
    assert kept(desk).has_unexported_work
    assert kept(desk).journal.flush()
    desk.wait(lambda: len(offers_of(volume)) == 1)
    asked.clear()
    monkeypatch.setattr(leaving, "ask", lambda parent, verb, is_kept, name: asked.append(verb) or "cancel")
    window_of(desk).close()
    assert asked == ["Close"]
    crash(desk)
    desk.open(volume)
    desk.wait(desk.widget.recovery_bar.offer.isVisible)
    assert "older" not in desk.widget.recovery_bar.text.text(), "one journal holds it"
    press(desk.widget.recovery_bar.bring_back)
    desk.wait(lambda: everything(desk.session) == before)


def test_work_that_is_in_this_viewer_is_offered_for_the_same_scan_on_demand_only(
    desk: Desk, make_volume: Callable[..., Volume], asked: list[str]
) -> None:
    """The same voxels under another name: its layer is below, and is gone on with by a choice."""
    first, keeping = desk.bridge.image_layer, kept(desk)
    accept_a_box(desk)
    twin = added(desk, make_volume(), name="twin")
    with desk.qtbot.waitSignal(keeping.changed_on_disk):
        choose_image(desk, twin)
    assert keeping.offer is None
    here = f'Earlier work on this scan is here: choose "{first.name}" under Scan, Image.'
    assert desk.widget.status.text.text() == here
    keeping.look_for_all()
    desk.wait(lambda: keeping.offer is not None)
    desk.viewer.layers.remove(first)
    with desk.qtbot.waitSignal(keeping.changed_on_disk):
        choose_image(desk, added(desk, make_volume(), name="another twin"))
    desk.wait(desk.widget.recovery_bar.offer.isVisible)


def test_an_exported_scan_is_still_exported_when_it_is_chosen_again(
    desk: Desk, volume: Volume, other: Volume, asked: list[str]
) -> None:
    first = desk.bridge.image_layer
    accept_a_box(desk)
    kept(desk).journal.mark_exported()
    choose_image(desk, added(desk, other))
    choose_image(desk, first)
    assert not kept(desk).has_unexported_work
    window_of(desk).close()
    assert not asked
    [offer] = offers_of(volume)
    assert offer.is_exported


def test_labels_that_somebody_changed_meanwhile_stay_as_they_are_and_count_as_work(
    desk: Desk, volume: Volume, other: Volume, asked: list[str]
) -> None:
    first, layer = desk.bridge.image_layer, desk.bridge.labels_layer
    accept_a_box(desk)
    kept(desk).journal.mark_exported()
    choose_image(desk, added(desk, other))
    layer.data[2, 3:5, 3:5] = LIVER
    changed = layer.data.copy()
    choose_image(desk, first)
    assert desk.bridge.labels_layer is layer
    assert np.array_equal(desk.labels, changed)
    assert not desk.session.objects, "their masks are not those of the labels any more"
    assert "changed while another scan was open" in desk.widget.status.text.text()
    assert kept(desk).has_unexported_work
    desk.undo()
    assert np.array_equal(desk.labels, changed)
    desk.wait(desk.widget.recovery_bar.offer.isVisible)
    press(desk.widget.recovery_bar.bring_back)
    desk.wait(lambda: desk.session.objects)
    assert not desk.labels[2].any()
    desk.undo()
    assert np.array_equal(desk.labels, changed)


def test_a_layer_of_the_users_keeps_its_window_too(desk: Desk, other: Volume, asked: list[str]) -> None:
    first = desk.bridge.image_layer
    plain = desk.viewer.add_image(other.data, name="plain", scale=other.display_transform["scale"])
    choose_image(desk, plain)
    accept_a_box(desk)
    before = everything(desk.session)
    desk.session.window = (-50.0, 150.0)
    choose_image(desk, first)
    choose_image(desk, plain)
    assert everything(desk.session) == before
    assert desk.session.window == (-50.0, 150.0)
    assert tuple(plain.contrast_limits) == (-50.0, 150.0)


def test_a_scan_on_which_nothing_was_done_leaves_nothing_behind(
    desk: Desk, other: Volume, asked: list[str]
) -> None:
    first, second = desk.bridge.image_layer, added(desk, other)
    for image in (second, first, second, first):
        choose_image(desk, image)
    assert len(labels_layers(desk)) == 1
    assert not asked
    assert not desk.widget.recovery_bar.isVisible()
    assert default_folder().files() == []


def test_a_scan_that_is_chosen_again_while_its_empty_labels_go_has_new_ones(
    desk: Desk, other: Volume, asked: list[str]
) -> None:
    first, bridge, second = desk.bridge.image_layer, desk.bridge, added(desk, other)
    back = iter([lambda: desk.actions.open_scan(first, bridge.labels_of_work(first))])
    desk.actions.scans.opened.connect(lambda: QTimer.singleShot(0, next(back, lambda: None)))
    desk.actions.open_scan(second)
    desk.wait(lambda: bridge.image_layer is second)
    desk.wait(lambda: bridge.image_layer is first and not desk.actions.scans.is_loading)
    assert labels_layers(desk) == [bridge.labels_layer]
    accept_a_box(desk)
    assert desk.labels.any()


def test_prompts_without_a_mask_are_not_lost(desk: Desk, other: Volume) -> None:
    """Empty labels go with their scan; what was prompted is offered then."""
    first = desk.bridge.image_layer
    desk.look_at(SliceView("axial", 4))
    desk.bridge.set_tool("box")
    desk.drag((4, 4, 6), (4, 12, 18))
    desk.wait_for_proposal()
    kept(desk)
    choose_image(desk, added(desk, other))
    choose_image(desk, first)
    desk.wait(desk.widget.recovery_bar.offer.isVisible)
    press(desk.widget.recovery_bar.bring_back)
    desk.wait(lambda: len(desk.session.objects) == 1)
    desk.wait(lambda: len(desk.bridge.boxes_layer.data) == 1)


def test_labels_that_went_with_another_scan_since_are_not_taken_for_what_was_left(
    desk: Desk, other: Volume
) -> None:
    first, layer = desk.bridge.image_layer, desk.bridge.labels_layer
    accept_a_box(desk)
    kept(desk)
    second = added(desk, other)
    choose_image(desk, second)
    click_on(desk, desk.widget.volume_panel.labels, layer)
    desk.wait(lambda: desk.bridge.labels_layer is layer and not desk.actions.scans.is_loading)
    assert not desk.session.objects, "their prompts were made on the other scan"
    choose_image(desk, first)
    assert desk.bridge.labels_layer is not layer
    desk.wait(desk.widget.recovery_bar.offer.isVisible)
