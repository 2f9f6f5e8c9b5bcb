"""Work outlives a crash: kept from the first click, offered in words, brought back by one click."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from napari._qt import qt_main_window
from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QFileDialog,
    QMainWindow,
    QMessageBox,
    QPushButton,
    QWidget,
)

from napari_sam_med.gui import keeping as keeping_module
from napari_sam_med.gui import leaving
from napari_sam_med.gui.disk_use import DiskUse
from napari_sam_med.gui.keeping import Keeping
from napari_sam_med.gui.settings import Settings
from napari_sam_med.sam.embedding_store import default_store
from napari_sam_med.sam.image_embedding import ImageEmbedding
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.session import jobs
from napari_sam_med.session.journal_folder import JournalFile, default_folder
from napari_sam_med.session.journal_image import identify
from napari_sam_med.session.journal_recovery import Offer, find_offers
from napari_sam_med.session.session import Session
from napari_sam_med.volume.organs import Organ
from napari_sam_med.volume.volume import Volume
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_carrying import accept_a_box
from tests.gui.test_prompting import LIVER, VIEW
from tests.gui.test_responsiveness import BEATS, Heartbeat

LEFT = Qt.MouseButton.LeftButton
REAL_ASK = leaving.ask


def result(generator):
    """What a job returns."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value


def press(button: QWidget) -> None:
    assert button.isVisible()
    assert button.isEnabled()
    QTest.mouseClick(button, LEFT)


def kept(desk: Desk) -> Keeping:
    """The controller, once the image is known and the work is being kept."""
    keeping = desk.actions.keeping
    desk.wait(lambda: keeping.is_kept)
    return keeping


def files() -> list[JournalFile]:
    return default_folder().files()


def offers_of(volume: Volume) -> tuple[Offer, ...]:
    return result(find_offers(default_folder(), result(identify(volume))))


def let_go(desk: Desk) -> None:
    """Close the scan, with everything that was drawn on it."""
    desk.viewer.layers.clear()
    desk.wait(lambda: desk.session.volume is None)
    desk.settle()


def crash(desk: Desk) -> Path:
    """Leave the journal as a crash would leave it now, and close the scan."""
    assert kept(desk).journal.flush()
    [file] = files()
    as_it_was = file.path.read_bytes()
    let_go(desk)
    file.path.write_bytes(as_it_was)
    return file.path


def everything(session: Session) -> list[object]:
    """Labels, organs, objects with their prompts and masks, to compare."""
    organs = [(i, o.name, o.color, o.locked) for i, o in sorted(session.organs.items())]
    objects = [
        (
            item.object_id,
            item.class_id,
            item.name,
            {view: (p.points_xy.tolist(), p.box_xyxy.tolist()) for view, p in item.key_slices.items()},
            {view: (m.packed, m.source, m.quality) for view, m in item.masks.items()},
        )
        for _, item in sorted(session.objects.items())
    ]
    return [session.labels.data.tolist(), organs, objects, session.active_object_id]


def test_what_a_crash_left_is_brought_back_by_a_click(
    make_desk: Callable[[], Desk], predictor: FakePredictor, volume: Volume
) -> None:
    """Statements 1 and 4."""
    desk = make_desk()
    desk.open(volume)
    desk.session.set_organ(Organ(LIVER, "Leber", (0.2, 0.4, 0.6)))
    accept_a_box(desk)
    before = everything(desk.session)
    volume_ml = desk.session.volume_ml(LIVER)
    crash(desk)
    desk.widget.stop()

    desk = make_desk()
    desk.open(volume)
    bar = desk.widget.recovery_bar
    desk.wait(bar.offer.isVisible)
    text = bar.text.text()
    assert volume.name in text
    assert f"{volume_ml:.1f} ml of 1 organ, 1 object; not exported" in text
    assert "not closed properly" in text
    assert "takes the place" not in text
    press(bar.bring_back)
    desk.wait(lambda: desk.labels.any())
    assert everything(desk.session) == before
    assert desk.bridge.current_view() == VIEW
    assert len(desk.bridge.boxes_layer.data) == 1
    desk.wait(lambda: not bar.isVisible())
    desk.undo()
    assert not desk.labels.any()
    assert not desk.session.objects
    desk.redo()
    assert everything(desk.session) == before
    assert kept(desk).journal.flush()
    assert sorted(file.path.suffix for file in files()) == [".continued", ".journal"]


def test_not_now_keeps_the_file_and_asks_no_more(desk: Desk, volume: Volume) -> None:
    """Statement 4."""
    accept_a_box(desk)
    path = crash(desk)
    content = path.read_bytes()
    desk.open(volume)
    bar = desk.widget.recovery_bar
    desk.wait(bar.offer.isVisible)
    press(bar.not_now)
    assert not bar.isVisible()
    assert not desk.labels.any()
    assert path.with_suffix(".declined").read_bytes() == content
    let_go(desk)
    with desk.qtbot.waitSignal(desk.actions.keeping.changed_on_disk, timeout=10_000):
        desk.open(volume)
    assert not bar.isVisible()
    accept_a_box(desk)
    desk.widget.disk_panel.expand(animate=False)
    desk.widget._scroll.ensureWidgetVisible(desk.widget.disk_panel.earlier)
    desk.settle()
    press(desk.widget.disk_panel.earlier)
    desk.wait(bar.offer.isVisible)
    assert "takes the place of the labels that are open now" in bar.text.text()
    press(bar.bring_back)
    desk.wait(lambda: not bar.isVisible())
    assert desk.session.undo_stack.undo_label == "Bring back earlier work"


def test_what_is_newer_stays_on_offer_when_more_was_brought_back(desk: Desk, volume: Volume) -> None:
    """Statement 4: labels come first, and prompts that were made later are not given up for them."""
    accept_a_box(desk)
    crash(desk)
    desk.open(volume)
    bar, box = desk.widget.recovery_bar, Prompts.from_box((6, 4, 18, 13))
    desk.wait(bar.offer.isVisible)
    desk.session.prompt(VIEW, box)
    assert kept(desk).journal.flush()
    let_go(desk)
    desk.open(volume)
    desk.wait(bar.offer.isVisible)
    assert "ml of 1 organ" in bar.text.text()
    assert "1 more: press Not now to see." in bar.text.text()
    press(bar.bring_back)
    desk.wait(lambda: desk.labels.any() and "0.0 ml of 0 organs, 1 object" in bar.text.text())
    assert bar.offer.isVisible()
    press(bar.not_now)
    assert not bar.isVisible()


def test_work_on_the_same_voxels_elsewhere_is_told_apart_and_waits(
    desk: Desk, volume: Volume, make_volume: Callable[..., Volume]
) -> None:
    """Statement 5."""
    accept_a_box(desk)
    path = crash(desk)
    desk.open(make_volume(spacing=(5.0, 1.5, 1.0)))
    bar = desk.widget.recovery_bar
    desk.wait(bar.offer.isVisible)
    assert "does not fit this scan" in bar.text.text()
    assert not bar.bring_back.isEnabled()
    press(bar.not_now)
    assert not bar.isVisible()
    assert path.is_file()
    assert [offer.mismatch for offer in offers_of(volume)] == [None]


def test_another_window_on_the_image_is_named_and_work_goes_on(
    make_desk: Callable[[], Desk], predictor: FakePredictor, volume: Volume
) -> None:
    """Statement 9; the work is kept from the moment that the other window lets go."""
    other = default_folder().lock(result(identify(volume)))
    desk = make_desk()
    desk.actions.keeping._retry_timer.setInterval(50)
    desk.open(volume)
    trouble = desk.widget.recovery_bar.trouble
    desk.wait(trouble.isVisible)
    assert "is being annotated in another window" in trouble.text()
    accept_a_box(desk)
    assert desk.labels.any()
    assert not files()
    other.release()
    desk.wait(lambda: not trouble.isVisible())
    assert kept(desk).journal.flush()
    [offer] = offers_of(volume)
    assert offer.n_voxels == np.count_nonzero(desk.labels)


def test_a_folder_that_cannot_be_written_is_told_until_it_can(
    make_desk: Callable[[], Desk], predictor: FakePredictor, volume: Volume
) -> None:
    folder = default_folder().path
    folder.write_text("a file where the folder should be")
    desk = make_desk()
    desk.actions.keeping._retry_timer.setInterval(50)
    desk.open(volume)
    trouble = desk.widget.recovery_bar.trouble
    desk.wait(trouble.isVisible)
    assert str(folder) in trouble.text()
    folder.unlink()
    desk.wait(lambda: not trouble.isVisible())
    assert kept(desk).trouble is None


def test_what_is_done_before_the_image_is_known_is_kept_and_the_canvas_lives(
    make_desk: Callable[[], Desk], predictor: FakePredictor, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statement 41, and statement 3 from the first moment on."""
    gate = threading.Event()

    def slow(of: Volume) -> Iterator:
        gate.wait(60)
        return (yield from identify(of))

    monkeypatch.setattr(keeping_module, "identify", slow)
    desk = make_desk()
    desk.open(volume)
    heart = Heartbeat()
    desk.wait(lambda: len(heart.gaps) >= BEATS)
    heart.stop()
    accept_a_box(desk)
    assert not desk.actions.keeping.is_kept
    gate.set()
    assert kept(desk).journal.flush()
    desk.bridge.labels_layer.data[2, 3:5, 3:5] = LIVER  # another plugin, without a word
    assert kept(desk).journal.flush()
    [offer] = offers_of(volume)
    assert offer.n_voxels == np.count_nonzero(desk.labels)


@pytest.fixture
def really_ask(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """The real question, answered by a click on the button that begins with a text."""
    seen: list[str] = []

    def answer(text: str) -> list[str]:
        def click() -> None:
            box = QApplication.activeModalWidget()
            if not isinstance(box, QMessageBox):
                return
            timer.stop()
            seen.append(f"{box.text()}\n{box.informativeText()}")
            [button] = [b for b in box.findChildren(QPushButton) if b.text().startswith(text)]
            QTest.mouseClick(button, LEFT)

        timer = QTimer()
        timer.setInterval(20)
        timer.timeout.connect(click)
        timer.start()
        timers.append(timer)
        return seen

    timers: list[QTimer] = []
    monkeypatch.setattr(leaving, "ask", REAL_ASK)
    yield answer
    for timer in timers:
        timer.stop()


def window_of(desk: Desk) -> QWidget:
    """The main window, which outlives its closing for the test to look at it."""
    window = desk.viewer.window._qt_window
    window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    return window


def test_closing_with_unexported_work_asks_and_an_export_closes(
    desk: Desk, volume: Volume, tmp_path: Path, really_ask, make_volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statement 11."""
    window = window_of(desk)
    accept_a_box(desk)
    kept(desk)
    really_ask("Cancel")
    window.close()
    assert window.isVisible()
    other = desk.viewer.add_image(make_volume((6, 20, 20)).data, name="other")
    seen = really_ask("Cancel")
    desk.actions.open_scan(other)
    assert desk.session.volume is volume
    assert desk.widget.volume_panel.images.currentText() != "other"
    assert len(seen) == 2
    assert all("the work is kept, and is there when this scan is opened again" in text for text in seen)
    assert all(f"The labels of {volume.name} changed" in text for text in seen), "which scan it is about"
    target = tmp_path / "work.nii.gz"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    really_ask("Export")
    window.close()
    assert window.isVisible()
    desk.wait(lambda: not window.isVisible())
    assert target.is_file()
    [offer] = offers_of(volume)
    assert offer.is_exported
    assert offer.was_closed


def test_closing_without_an_export_keeps_the_work(desk: Desk, volume: Volume, really_ask) -> None:
    """Statement 11."""
    window = window_of(desk)
    accept_a_box(desk)
    kept(desk)
    really_ask("Close without")
    window.close()
    assert not window.isVisible()
    [offer] = offers_of(volume)
    assert offer.n_voxels
    assert not offer.is_exported
    assert offer.was_closed


def test_closing_right_after_an_edit_from_outside_asks(desk: Desk, tmp_path: Path, asked: list[str]) -> None:
    """Statement 11."""
    window = window_of(desk)
    accept_a_box(desk)
    keeping = kept(desk)
    desk.actions.export(tmp_path / "work.nii.gz")
    desk.wait(lambda: not keeping.has_unexported_work)
    desk.labels[2, 3:5, 3:5] = LIVER
    window.close()
    assert asked == ["Close"]


def test_a_refused_quit_is_forgotten(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statement 11: closing this window later leaves the others open."""
    window = window_of(desk)
    accept_a_box(desk)
    kept(desk)
    quits: list[str] = []
    monkeypatch.setattr(qt_main_window, "quit_app_", lambda: quits.append("quit"))
    answers = ["cancel", "leave"]
    monkeypatch.setattr(leaving, "ask", lambda *_: answers.pop(0))
    window.close(quit_app=True)
    assert window.isVisible()
    QMainWindow.close(window)  # as the window's own button does, past napari's method
    assert not window.isVisible()
    assert not answers
    assert not quits


@pytest.mark.parametrize(
    ("state", "end"),
    [("kept", "opened again."), ("not kept", "in the viewer."), ("exported", "another one.")],
)
def test_removing_the_scan_says_where_its_work_is(desk: Desk, volume: Volume, state: str, end: str) -> None:
    keeping = kept(desk)
    keeping.keep_nothing(state == "not kept")
    accept_a_box(desk)
    if state == "exported":
        keeping.journal.mark_exported()
    desk.viewer.layers.remove(desk.bridge.image_layer)
    desk.settle()
    assert desk.said[-1].startswith("The scan was removed from the viewer. ")
    assert desk.said[-1].endswith(end)
    assert bool(offers_of(volume)) == (state != "not kept")


def test_closing_without_work_asks_nothing(desk: Desk, asked: list[str]) -> None:
    kept(desk)
    window = window_of(desk)
    window.close()
    assert not window.isVisible()
    assert not asked


def test_the_disk_section_measures_clears_and_keeps_nothing(
    make_desk: Callable[[], Desk],
    predictor: FakePredictor,
    volume: Volume,
    user_folders: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load_model(model: str, device: str) -> Iterator:
        yield jobs.Progress(0, 1, "")
        return jobs.LoadedModel(predictor, default_store())

    monkeypatch.setattr(jobs, "load_model", load_model)
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    embedding = user_folders / "cache" / "embeddings" / "ab12.safetensors"
    embedding.parent.mkdir(parents=True)
    embedding.write_bytes(bytes(2048))
    digest = result(identify(volume)).digest
    folder = default_folder().path
    folder.mkdir(parents=True)
    for name in (digest, "0" * 32):
        (folder / f"{name}-20260101T000000-00000000.declined").write_bytes(bytes(1536))
    desk = make_desk()
    desk.open(volume)
    keeping = kept(desk)
    panel = desk.widget.disk_panel
    desk.widget._scroll.ensureWidgetVisible(panel)
    press(panel.toggleButton())
    desk.settle()
    desk.wait(lambda: panel.work.text() == "3.0 KB")
    assert panel.embeddings.text() == "2.0 KB"
    assert str(folder) == panel.work_path.text().replace("\u200b", "")
    panel._show(DiskUse(1234 << 30, 1234 << 30))
    panel.work_path.setText("/\u200b".join(["a rather long folder"] * 9))
    desk.settle()
    assert desk.widget.minimumWidth() <= 345, "nothing is cut off in a narrow dock"
    for label in (panel.work_path, panel.embeddings_path):
        assert label.height() >= label.heightForWidth(label.width())
    panel.refresh()
    desk.widget._scroll.ensureWidgetVisible(panel.nothing)
    desk.settle()
    press(panel.clear_work)
    desk.wait(lambda: panel.work.text() == "nothing")
    assert not files()
    press(panel.clear_embeddings)
    desk.wait(lambda: panel.embeddings.text() == "nothing")
    assert not embedding.exists()

    tick(panel.nothing)
    assert panel.warning.isVisible()
    assert Settings.load().keeps_nothing
    default_store().put("cd34", made_embedding())
    desk.labels[2, 3:5, 3:5] = LIVER
    assert keeping.has_unexported_work
    assert not keeping.is_kept
    assert not files()
    assert not list(embedding.parent.glob("*"))

    tick(panel.nothing)
    assert not Settings.load().keeps_nothing
    default_store().put("ef56", made_embedding())
    assert [path.stem for path in embedding.parent.glob("*")] == ["ef56"]
    assert kept(desk).journal.flush()
    [offer] = offers_of(volume)
    assert offer.n_voxels == 4
    assert not desk.widget.recovery_bar.isVisible()


def test_keep_nothing_is_remembered(
    make_desk: Callable[[], Desk], predictor: FakePredictor, volume: Volume, user_folders: Path
) -> None:
    Settings.load().remember(keeps_nothing=True)
    desk = make_desk()
    desk.open(volume)
    desk.wait(lambda: desk.actions.keeping.journal.image is not None)
    accept_a_box(desk)
    assert desk.actions.keeping.has_unexported_work
    desk.widget.stop()
    assert not default_folder().path.exists()
    assert not (user_folders / "cache").exists()


def test_labels_that_cannot_be_read_leave_the_work_as_it_is(
    desk: Desk, volume: Volume, tmp_path: Path
) -> None:
    """Statement 7: nothing empty takes its place, which an export could write."""
    accept_a_box(desk)
    before, layer = everything(desk.session), desk.bridge.labels_layer
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"nothing of the kind")
    desk.actions.open_labels(bad)
    desk.wait(lambda: any("bad.nii.gz" in text and "…" not in text for text in desk.said))
    assert everything(desk.session) == before
    assert desk.bridge.labels_layer is layer
    assert kept(desk).journal.flush()
    [offer] = offers_of(volume)
    assert offer.n_voxels == np.count_nonzero(desk.labels)


class _Features(NamedTuple):
    image: torch.Tensor


def made_embedding() -> ImageEmbedding:
    return ImageEmbedding(_Features(torch.zeros(1, 2, 2)), (2, 2), (2, 2), None, "0" * 64)


def tick(box: QCheckBox) -> None:
    assert box.isVisible()
    QTest.mouseClick(box, LEFT, pos=QPoint(8, box.height() // 2))
