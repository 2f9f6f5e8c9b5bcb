"""One model at a time: what is let go of leaves memory before the next one takes it."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
from pytestqt.qtbot import QtBot

from napari_sam_med.gui.live_model import LiveModel
from napari_sam_med.gui.workers import Workers
from napari_sam_med.session import jobs
from napari_sam_med.session.session import Session
from tests.gui.fake_model import FakePredictor, FakeStore


def test_two_models_are_never_in_memory_together(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    is_begun, may_go_on = threading.Event(), threading.Event()
    may_go_on.set()

    def load_model(model: str, device: str):
        is_begun.set()
        may_go_on.wait(30)
        yield jobs.Progress(0, 1, f"loading {model}")
        return jobs.LoadedModel(FakePredictor(), FakeStore())

    monkeypatch.setattr(jobs, "load_model", load_model)
    session, workers = Session(model="nano"), Workers()
    live = LiveModel(session, workers)
    live.reload()
    qtbot.waitUntil(lambda: live.model is not None)
    first = weakref.ref(live.model.predictor)
    is_begun.clear()
    may_go_on.clear()
    session.device = "cpu"
    assert is_begun.wait(10)

    def is_gone() -> bool:
        gc.collect()
        return first() is None

    qtbot.waitUntil(is_gone)
    may_go_on.set()
    qtbot.waitUntil(lambda: live.model is not None)
    live.stop()
    workers.stop()
