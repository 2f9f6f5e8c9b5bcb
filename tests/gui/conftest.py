"""A viewer with the widget, a model that answers at once, and hands that really click."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

# Beside Mesa's software OpenGL the first import of torchvision crashes; before it, it does not.
import torchvision  # noqa: F401
from napari import Viewer
from napari._vispy import canvas
from napari.layers import Layer
from napari.settings._base import EventedConfigFileSettings
from npe2 import PluginManifest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QTimer

from napari_sam_med.gui import geometry_question, leaving
from napari_sam_med.gui.arrival import Arrival
from napari_sam_med.session import jobs, organ_suggestion
from tests.gui import remembered
from tests.gui.case_list import at
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor, FakeStore
from tests.gui.find_desk import search  # noqa: F401  a fixture
from tests.gui.spare_viewer import SpareViewer

# Mesa draws in the thread that asks for it: for small pictures, threads that wait for each other cost more.
os.environ.setdefault("LP_NUM_THREADS", "0")


@pytest.fixture(autouse=True, scope="session")
def _plugins_are_sought_once() -> Iterator[None]:
    """napari looks through all installed packages for each viewer, and writes its settings as each closes."""
    found = list(PluginManifest.discover())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PluginManifest, "discover", lambda paths=(): iter(found))
        patch.setattr(EventedConfigFileSettings, "_maybe_save", lambda self: None)
        yield


@pytest.fixture(autouse=True)
def what_never_changes_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares each viewer but the first what it takes longest; where that is measured, it is taken back."""
    remembered.remember(monkeypatch)


@pytest.fixture(autouse=True)
def _garbage_is_sought_among_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """napari looks for it whenever a layer goes: long, among all that torch and earlier viewers hold."""
    gc.collect()
    gc.freeze()
    monkeypatch.setattr(jobs, "set_imports_aside", lambda: False)  # a viewer of a test has to go with it


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked about unexported work; answered with "leave", so that no test hangs on a question."""
    questions: list[str] = []
    monkeypatch.setattr(leaving, "ask", lambda parent, verb, is_kept, name: questions.append(verb) or "leave")
    return questions


@pytest.fixture(autouse=True)
def no_organ_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled classifier has nothing to say of invented boxes, and would say it in between."""

    def suggest_organ(sight: object, preview: object) -> Iterator[None]:
        yield None

    monkeypatch.setattr(organ_suggestion, "suggest_organ", suggest_organ)


@pytest.fixture(autouse=True)
def asked_about_geometry(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked about files whose geometry is in doubt; answered with the first answer."""
    questions: list[str] = []

    def ask(parent: object, question: str, answers: list[str]) -> str:
        questions.append(question)
        return answers[0]

    monkeypatch.setattr(geometry_question, "ask", ask)
    return questions


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> FakePredictor:
    """The model that the widget loads in a test."""
    fake = FakePredictor()

    def load_model(model: str, device: str):
        yield jobs.Progress(0, 1, f"loading {model}")
        fake.loaded.append((model, device))
        return jobs.LoadedModel(fake, FakeStore())

    monkeypatch.setattr(jobs, "load_model", load_model)
    return fake


@pytest.fixture(scope="session")
def spare_viewer() -> Iterator[SpareViewer]:
    """A viewer that tests give back as good as new."""
    spare = SpareViewer()
    yield spare
    spare.drop()


@pytest.fixture
def _no_spare_viewer(spare_viewer: SpareViewer) -> None:
    spare_viewer.drop()


@pytest.fixture
def make_napari_viewer(_no_spare_viewer: None, make_napari_viewer: Callable) -> Callable:
    """A viewer that is closed as the test ends; no other window is open beside it."""
    return make_napari_viewer


@pytest.fixture
def make_viewer(
    spare_viewer: SpareViewer, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Callable[[], Viewer]]:
    """A shown viewer as good as new, for tests to which it does not matter that it is no new one."""
    with spare_viewer.lent(qtbot, monkeypatch) as (give, reasons):
        yield give
        # napari looks for garbage as each layer of a viewer goes; once all have gone is enough.
        monkeypatch.setattr(canvas, "gc", SimpleNamespace(collect=lambda: None))
        report = getattr(request.node, "rep_call", None)
        if report is None or report.failed:
            reasons.append("the test failed")


@pytest.fixture
def make_desk(make_viewer: Callable[[], Viewer], qtbot: QtBot) -> Iterator[Callable[[], Desk]]:
    """A shown viewer with the docked widget; its threads are stopped at the end."""
    desks: list[Desk] = []

    def make() -> Desk:
        desks.append(Desk(make_viewer(), qtbot))
        return desks[-1]

    yield make
    for desk in desks:
        desk.widget.stop()


@pytest.fixture
def desk(make_desk: Callable[[], Desk], predictor: FakePredictor, volume) -> Desk:
    """The widget at work on the small volume."""
    made = make_desk()
    made.open(volume)
    return made


@pytest.fixture
def folder(tmp_path: Path, make_volume: Callable) -> Path:
    """Three scans that differ, of different sizes."""
    for number, n_slices in ((1, 8), (2, 9), (10, 8)):
        volume = make_volume((n_slices, 24, 32))
        data = np.asarray(volume.data) + np.int16(number)
        affine = np.diag([-1.0, -1.5, 4.0, 1.0])  # first voxel right, anterior, inferior: as `make_volume`
        nib.save(nib.Nifti1Image(data.transpose(2, 1, 0), affine), tmp_path / f"ct_{number}.nii.gz")
    return tmp_path


@pytest.fixture
def open_list(make_desk: Callable[[], Desk], predictor: FakePredictor, folder: Path) -> Callable[..., Desk]:
    """A desk with the folder open at its first case."""

    def made(*, is_opened: bool = True) -> Desk:
        desk = make_desk()
        with desk.nothing_drawn():
            desk.actions.work_list.open_folder(folder)
            desk.wait(lambda: desk.actions.work_list.work_list is not None)
            if is_opened:
                at(desk, desk.actions.work_list.work_list.next_open(-1))
        desk.settle()
        return desk

    return made


@pytest.fixture
def at_turn(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Lets something happen after a number of layers of a scan have come."""

    def after(number: int, action: Callable[[], object]) -> None:
        plain, come = Arrival._add, []

        def add(self: Arrival, layer: Layer) -> Layer:
            added = plain(self, layer)
            come.append(layer)
            if len(come) == number:
                QTimer.singleShot(0, action)
            return added

        monkeypatch.setattr(Arrival, "_add", add)

    return after
