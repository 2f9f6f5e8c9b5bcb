"""Statement 41: the main thread is never held up, whatever a job is doing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_sam_med.sample_data import sample_labels, sample_volume
from napari_sam_med.session import jobs, labels_copy
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.reading import read_labels
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.heartbeat import MOST_SECONDS, Heartbeat, longest_turns
from tests.gui.spare_viewer import SpareViewer
from tests.gui.test_carrying import accept_a_box
from tests.gui.test_prompting import INSIDE, LIVER, VIEW

BEATS = 20
SPLEEN = 1


@pytest.fixture(autouse=True)
def what_never_changes_is_remembered(spare_viewer: SpareViewer) -> Iterator[None]:
    """Not here: napari takes the time that it takes users, with a viewer that no other test prepared."""
    spare_viewer.drop()
    yield
    spare_viewer.drop()


@pytest.fixture
def beats(desk: Desk) -> Callable[[], None]:
    """Waits for beats of the main thread: it returns only if the main thread is free."""

    def wait() -> None:
        heart = Heartbeat()
        desk.wait(lambda: len(heart.gaps) >= BEATS)
        heart.stop()

    return wait


def test_the_canvas_lives_while_a_slice_is_embedded(desk: Desk, predictor: FakePredictor, beats) -> None:
    desk.actions.model.model.store.kept.clear()
    predictor.gate.clear()
    desk.look_at(VIEW)
    desk.bridge.set_tool("point")
    desk.click(INSIDE)
    beats()
    assert desk.session.preview is None
    assert any("embedding" in text for text in desk.said)
    predictor.gate.set()
    desk.wait_for_proposal()


def test_the_canvas_lives_while_a_mask_is_carried(desk: Desk, predictor: FakePredictor, beats) -> None:
    accept_a_box(desk)
    desk.actions.model.model.store.kept.clear()
    predictor.gate.clear()
    desk.key(Qt.Key.Key_G)
    beats()
    assert desk.actions.is_busy
    predictor.gate.set()
    desk.wait_until_carried(draws=True)


def test_the_canvas_lives_while_a_file_is_written(desk: Desk, tmp_path: Path, beats, monkeypatch) -> None:
    gate = threading.Event()

    def slow(path: Path, labels: object, **_: object) -> Path:
        gate.wait(60)
        return Path(path)

    monkeypatch.setattr("napari_sam_med.volume.writing.write_labels", slow)
    accept_a_box(desk)
    desk.widget.export_panel.export_to(tmp_path / "labels.nii.gz")
    beats()
    gate.set()
    desk.wait(lambda: "Written" in desk.widget.export_panel.written.text())


def test_the_canvas_lives_while_labels_are_copied_and_what_is_done_meanwhile_is_in_the_file(
    desk: Desk, tmp_path: Path, beats, monkeypatch
) -> None:
    gate = threading.Event()
    plain = labels_copy.sparse_copy

    def slow(data: np.ndarray) -> np.ndarray:
        copy = plain(data)
        gate.wait(60)
        return copy

    accept_a_box(desk)
    monkeypatch.setattr(labels_copy, "sparse_copy", slow)
    desk.widget.export_panel.export_to(tmp_path / "labels.nii.gz")
    beats()
    view = desk.bridge.current_view()
    desk.session.select_organ(SPLEEN)
    view.window_on(desk.labels)[:3, :3] = SPLEEN
    desk.session.record_stroke([view])
    gate.set()
    desk.wait(lambda: "Written" in desk.widget.export_panel.written.text())
    assert not desk.actions.keeping.has_unexported_work
    written = read_labels(tmp_path / "labels.nii.gz", reference=desk.session.volume)
    np.testing.assert_array_equal(written.data, desk.labels)
    assert set(written.class_ids()) == {LIVER, SPLEEN}


def test_the_canvas_lives_while_a_model_is_loaded(
    desk: Desk, predictor: FakePredictor, beats, monkeypatch
) -> None:
    gate = threading.Event()
    plain = jobs.load_model

    def slow(model: str, device: str):
        gate.wait(60)
        return (yield from plain(model, device))

    monkeypatch.setattr(jobs, "load_model", slow)
    desk.session.device = "cpu"
    beats()
    assert desk.actions.model.model is None
    gate.set()
    desk.wait(lambda: desk.actions.model.model is not None)
    assert predictor.loaded[-1] == ("nano", "cpu")


@pytest.fixture
def large_volume() -> Volume:
    """512 x 512 x 100 voxels with one bright organ on 40 slices."""
    data = np.full((100, 512, 512), -100, dtype=np.int16)
    data[30:70, 150:330, 170:350] = 150
    data[0, 0, 0] = -1000
    return Volume(data=data, grid=Grid.from_zyx(data.shape, (2.5, 0.8, 0.8)))


@pytest.mark.slow
def test_no_step_of_an_annotation_holds_the_window_up(
    make_desk: Callable[[], Desk], predictor: FakePredictor, large_volume: Volume, tmp_path: Path
) -> None:
    def annotate(heart: Heartbeat) -> None:
        desk = make_desk()
        desk.open(large_volume)
        desk.session.select_organ(LIVER)
        desk.look_at(SliceView("axial", 50))
        desk.key(Qt.Key.Key_Right)  # what the opening left to draw is drawn

        def end(step: str) -> None:
            desk.settle()
            heart.end(step)

        heart.skip()
        for _ in range(4):
            desk.key(Qt.Key.Key_Right)
        end("scroll")
        desk.look_at(SliceView("axial", 50))
        desk.drag((50, 140, 160), (50, 340, 360))
        desk.wait_for_proposal()
        end("preview")
        desk.key(Qt.Key.Key_Return)
        end("accept")
        desk.key(Qt.Key.Key_G)
        desk.wait_until_carried(draws=True)
        end("carry")
        assert np.flatnonzero(desk.labels.any(axis=(1, 2))).size == 40
        desk.undo()
        end("undo")
        desk.redo()
        end("do again")
        desk.key(Qt.Key.Key_N)
        end("review")
        desk.widget.export_panel.export_to(tmp_path / "labels.nii.gz")
        desk.wait(lambda: "Written" in desk.widget.export_panel.written.text())
        end("export")
        desk.viewer.close()

    longest = longest_turns(annotate)
    assert max(longest.values()) < MOST_SECONDS, longest


@pytest.mark.slow
def test_box_to_file_on_the_phantom_with_nano(make_desk: Callable[[], Desk], tmp_path: Path) -> None:
    """The main thread works less than 100 ms at a stretch from the first box to the written file."""

    def annotate(heart: Heartbeat) -> None:
        desk = make_desk()
        desk.actions.open_scan(sample_volume())
        desk.wait(lambda: desk.actions.model.model is not None, timeout=60_000)
        volume = desk.session.volume
        liver = read_labels(sample_labels(), reference=volume).data == 6
        index = int(np.argmax(liver.sum(axis=(1, 2))))
        rows, columns = (np.flatnonzero(liver[index].any(axis=axis)) for axis in (1, 0))
        desk.session.select_organ(6)
        desk.look_at(SliceView("axial", index))
        heart.skip()
        desk.drag((index, rows[0], columns[0]), (index, rows[-1], columns[-1]))
        desk.wait(lambda: desk.session.preview is not None, timeout=60_000)
        heart.end("preview")
        desk.key(Qt.Key.Key_Return)
        accepted = desk.labels[index] == 6
        heart.end("accept")
        desk.widget.propagation_panel.limited.setChecked(True)
        desk.widget.propagation_panel.first.setValue(index - 6)
        desk.widget.propagation_panel.last.setValue(index + 6)
        desk.key(Qt.Key.Key_G)
        desk.wait_until_carried(draws=True)
        heart.end("carry")
        desk.widget.export_panel.export_to(tmp_path / "labels.nii.gz")
        desk.wait(lambda: "Written" in desk.widget.export_panel.written.text())
        heart.end("export")
        both = np.count_nonzero(accepted & liver[index])
        assert 2 * both / (np.count_nonzero(accepted) + np.count_nonzero(liver[index])) > 0.7
        desk.viewer.close()

    longest = longest_turns(annotate)
    assert max(longest.values()) < MOST_SECONDS, longest
