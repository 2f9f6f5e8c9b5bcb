"""Hands for the Experiments panel: a viewer with a scan, its labels and the docked panel; a model at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from napari import Viewer
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QListWidget, QWidget

from napari_sam_med.gui import workers
from napari_sam_med.gui.experiments import ExperimentsWidget, open_experiments
from napari_sam_med.gui.experiments_layers import MARK
from napari_sam_med.gui.planes import Frame, current_view
from napari_sam_med.session import experiment_jobs
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume
from tests.gui.desk import LEFT, NO_KEY, undrawn
from tests.session.measured_model import MeasuredPredictor, labels_of, loads


class PanelDesk:
    """One person in front of the panel."""

    def __init__(self, viewer: Viewer, qtbot: QtBot, volume: Volume, labels: LabelVolume | None) -> None:
        viewer.window.resize(1100, 800)
        self.viewer, self.qtbot, self.volume = viewer, qtbot, volume
        self.said: list[str] = []
        with undrawn(viewer):
            viewer.add_image(
                volume.data, name="scan", metadata={"sam_med": volume}, **volume.display_transform
            )
            if labels is not None:
                self.add_labels(labels)
            self.panel: ExperimentsWidget = open_experiments(viewer)
            self.control, self.lab = self.panel.control, self.panel.control.lab
            self.control.status.connect(self.said.append)
            self.wait(lambda: self.control.catalogue is not None)
            if labels is not None:
                self.wait(lambda: self.lab.survey is not None and self.panel.choices.organs.count())

    def add_labels(self, labels: LabelVolume, **options: Any) -> Any:
        transform = self.volume.display_transform | options
        return self.viewer.add_labels(labels.data, name="truth", metadata={"sam_med": labels}, **transform)

    # eyes

    def wait(self, condition: Callable[[], object], timeout: int = 60_000) -> None:
        self.qtbot.waitUntil(lambda: bool(condition()), timeout=timeout)

    def settle(self) -> None:
        for _ in range(3):
            QApplication.processEvents()
            QTest.qWait(5)

    @property
    def view(self) -> SliceView | None:
        """The slice that is looked at."""
        return current_view(self.viewer, Frame(self.volume.display_transform, self.volume.shape))

    def own_layers(self) -> dict[str, Any]:
        """The layers of the panel that are seen, by name."""
        return {one.name: one for one in self.viewer.layers if one.metadata.get(MARK) and one.visible}

    def shown_mask(self, name: str) -> np.ndarray:
        """The mask (H, W) that a layer of the panel shows."""
        return SliceView(self.view.plane, 0).extract(self.own_layers()[name].data) > 0

    # hands

    def click(self, widget: QWidget, place: QPoint | None = None) -> None:
        assert widget.isVisible(), widget
        assert widget.isEnabled(), widget
        QTest.mouseMove(widget, widget.rect().center() if place is None else place)
        QTest.mouseClick(widget, LEFT, NO_KEY, widget.rect().center() if place is None else place)
        self.settle()

    def tick(self, of: QListWidget, text: str) -> None:
        """Click the box of an entry."""
        item = next(of.item(n) for n in range(of.count()) if of.item(n).text().startswith(text))
        of.scrollToItem(item)
        place = of.visualItemRect(item)
        self.click(of.viewport(), QPoint(place.left() + 10, place.center().y()))

    def run(self) -> None:
        """Run what is chosen to its end."""
        self.click(self.panel.run)
        self.wait(lambda: not self.control.is_running)
        self.settle()

    def click_row(self, number: int) -> Any:
        """Click a row of the answers; returns its answer."""
        self.panel.tabs.setCurrentWidget(self.panel.answers)
        self.settle()
        table = self.panel.answers.table
        score = table.rows.row(number)
        self.click(table.viewport(), table.visualRect(table.rows.index(number, 2)).center())
        return score

    def wait_for_mask(self, score: Any) -> None:
        self.wait(
            lambda: (
                self.lab.sight is not None
                and self.lab.sight.score is score
                and self.lab.sight.prediction is not None
            )
        )
        self.settle()


@pytest.fixture(autouse=True)
def no_other_programs_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests share the machine with others: they would wait for all of those."""
    monkeypatch.setattr(workers, "_give_way", lambda: None)


@pytest.fixture(name="answering")
def model_that_answers(monkeypatch: pytest.MonkeyPatch) -> MeasuredPredictor:
    """The model that is loaded, whatever its name."""
    predictor = MeasuredPredictor()
    monkeypatch.setattr(experiment_jobs, "load_model", loads(predictor))
    return predictor


@pytest.fixture(name="make_panel")
def panels(
    make_viewer: Callable[[], Viewer], qtbot: QtBot, volume, answering: MeasuredPredictor
) -> Iterator[Callable[..., PanelDesk]]:
    """A shown viewer with a scan, labels and the docked panel."""
    made: list[PanelDesk] = []

    def make(labels: LabelVolume | None = None) -> PanelDesk:
        made.append(PanelDesk(make_viewer(), qtbot, volume, labels))
        return made[-1]

    yield make
    for desk in made:
        desk.panel.stop()


@pytest.fixture(name="desk")
def panel_desk(make_panel: Callable[..., PanelDesk], volume) -> PanelDesk:
    """The panel on the small volume and its labels."""
    return make_panel(labels_of(volume))
