"""The Experiments panel: which prompt works, for which organ, with which model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari.components import ViewerModel
from napari.viewer import current_viewer
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFrame,
    QLabel,
    QProgressBar,
    QScrollArea,
    QSizePolicy,
    QStackedWidget,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_sam_med.errors import SamMedError
from napari_sam_med.gui.appearance import InputManners, button, narrow_button, note, row
from napari_sam_med.gui.docked import Docked
from napari_sam_med.gui.experiments_choices import ChoicesPage
from napari_sam_med.gui.experiments_control import Experiments
from napari_sam_med.gui.experiments_dock import PagesOutside, PanelPlace
from napari_sam_med.gui.experiments_results import AnswersPage, MeansPage, PlotsPage
from napari_sam_med.gui.experiments_study import StudyPage
from napari_sam_med.gui.own_context import delete_in_own_context
from napari_sam_med.gui.planes import canvas_of
from napari_sam_med.session.experiments import Sight
from napari_sam_med.wording import number_of

if TYPE_CHECKING:
    from napari.window import Window

    from napari_sam_med.evaluation.measuring import SliceScore

__all__ = ["DOCK_NAME", "ExperimentsWidget", "open_experiments", "opening_experiments"]

DOCK_NAME = "Experiments (SAM Med)"
"""As napari's Plugins menu names it, so that there is one of them, whichever way it was opened."""
_BAR_STEPS = 1000
_MIN_WIDTH = 340
_DELETE_MS = 100
"""From its end to its deletion: the window is in order without it by then, which takes as long."""


class ExperimentsWidget(Docked):
    """Choose, run, look.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Given by napari; the current viewer when left out.
    is_whole : bool
        Make all at once; else `making` does, one part in a step.
    """

    def __init__(self, napari_viewer: ViewerModel | None = None, *, is_whole: bool = True) -> None:
        super().__init__()
        self._is_stopped = False
        viewer = current_viewer() if napari_viewer is None else napari_viewer
        # napari hands plugins a proxy that nobody else keeps: a weak reference to it would be dead at once
        viewer = getattr(viewer, "__wrapped__", viewer)
        delete_in_own_context(canvas_of(viewer))
        self.control = Experiments(viewer, self)
        self._watch_the_end()
        self.place = PanelPlace(self, viewer.window._qt_window, self.control.main_widget)
        self._outside: PagesOutside | None = None
        if is_whole:
            for _ in self.making():
                pass

    def making(self) -> Iterator[None]:
        """Make what is seen, in steps."""
        self.choices = ChoicesPage(self.control)
        yield
        self.means = MeansPage(self.control.lab)
        self.answers = AnswersPage(self.control.lab, self.look_at)
        self.plots = PlotsPage(self.control.lab, self.look_at)
        self.study = StudyPage(self.control.lab)
        yield
        self._compose()
        self.control.changed.connect(self.refresh)
        self.control.progress.connect(self._show_progress)
        self.control.status.connect(self.say)
        self.control.finished.connect(self._on_finished)
        self.control.lab.events.sight.connect(self._show_chosen)
        self.control.lab.events.means.connect(self._show_study)
        self.control.lab.replaced.connect(self._on_replaced)
        self.means.opened.connect(lambda: self.tabs.setCurrentWidget(self.answers))
        self.control.look_up()
        self.refresh()

    def _compose(self) -> None:
        setup = self._setup = QScrollArea()
        setup.setWidget(self.choices)
        setup.setWidgetResizable(True)
        setup.setFrameShape(QFrame.Shape.NoFrame)
        setup.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        for page, title in (
            (setup, "Set up"),
            (self.means, "Means"),
            (self.answers, "Answers"),
            (self.plots, "Plots"),
            (self.study, "Study"),
        ):
            self.tabs.addTab(page, title)
        self.tabs.setTabToolTip(self.tabs.indexOf(self.study), "What was published beside what is measured.")
        self._show_study()
        self.estimate = note("…")
        self.run = button(
            "Run",
            "Measure in the background; prompting and painting go on.\n"
            "With the first answer, results that are shown now go: save them before.",
            self._run,
        )
        self.bar = QProgressBar()
        self.bar.setRange(0, _BAR_STEPS)
        self.bar.setFixedHeight(18)
        self.cancel = narrow_button(
            "Cancel", "Stop; what was measured or written stays.", self.control.cancel
        )
        busy = QWidget()
        busy.setLayout(row(self.bar, self.cancel, stretch_first=True))
        self._bottom = QStackedWidget()  # one place for both, so that nothing moves when a run begins
        self._bottom.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self._bottom.addWidget(self.run)
        self._bottom.addWidget(busy)
        self.save = button(
            "Save report…", "Write report, table (results.csv) and means into a folder.", self._ask_save
        )
        self.open = button("Open results…", "Look at a folder that was saved before.", self._ask_open)
        self.hide_labels = QCheckBox("Hide labels")
        self.hide_labels.setToolTip("Hide the labels layer, which lies over the image; it is not changed.")
        self.hide_labels.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.hide_labels.toggled.connect(lambda is_on: self.control.show_labels(not is_on))
        self.chosen = note("no answer")
        self.chosen.setTextFormat(Qt.TextFormat.RichText)
        self.status = _status_label()
        self.body = QWidget()
        self.body.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        around = QVBoxLayout(self)
        around.setContentsMargins(0, 0, 0, 0)
        around.addWidget(self.body)
        column = QVBoxLayout(self.body)
        column.setContentsMargins(2, 2, 2, 4)
        column.setSpacing(4)
        column.addWidget(self.tabs, 1)
        looked_at = row(self.chosen, self.hide_labels, stretch_first=True)
        column.addLayout(looked_at)
        for made in (self.estimate, self._bottom):
            column.addWidget(made)
        column.addLayout(row(self.open, self.save))
        column.addWidget(self.status)
        self._manners = InputManners(self, self._give_keyboard_back)
        self._show_chosen(None)
        self.choices.installEventFilter(self)
        self._fit()

    def _fit(self) -> None:
        """As wide as the choices need, so that nothing is cut off; fonts and theme decide."""
        bar = self._setup.verticalScrollBar().sizeHint().width()
        self.setMinimumWidth(max(_MIN_WIDTH, self.choices.minimumSizeHint().width() + bar + 8))

    def _give_keyboard_back(self) -> None:
        actions = self.control.main_actions()
        if actions is not None:
            actions.bridge.give_keyboard_to_canvas()

    # showing

    def say(self, text: str) -> None:
        """One line for the user."""
        self.status.setText(text)
        self.status.setToolTip(text)

    def attempt(self, action) -> None:
        """Do something; a user's error becomes a line."""
        try:
            action()
        except SamMedError as error:
            self.control.show_error(error)

    def refresh(self) -> None:
        """Show what can be done now."""
        control = self.control
        self._bottom.setCurrentIndex(int(control.is_running or control.is_filing))
        self.cancel.setEnabled(not control.is_stopping)
        self.run.setEnabled(control.catalogue is not None)
        for made in (self.open, self.save):
            made.setEnabled(not control.is_running and not control.is_filing)
        if not control.lab.scores:
            self.save.setEnabled(False)
        self.estimate.setText(self._estimate())

    def _estimate(self) -> str:
        control = self.control
        if control.is_running or control.is_filing:
            return self.estimate.text()
        try:
            counts = control.estimate()
        except SamMedError as error:
            return str(error)
        if counts is None:
            return "What a run takes is said here, once image and labels are chosen."
        slices, rows, prompts = counts
        answers = f"{number_of(slices, 'slice')}, {number_of(rows, 'answer')}"
        return f"{answers}, about {number_of(prompts, 'prompt')}."

    def _show_progress(self, text: str, share: float) -> None:
        self.bar.setValue(round(share * _BAR_STEPS))
        if text:
            self.estimate.setText(text)

    def _on_finished(self) -> None:
        self.answers.sort_again()
        self.plots.refresh()
        self.refresh()

    def _on_replaced(self) -> None:
        """Other results begin."""
        if self.tabs.currentIndex() == 0:
            self.tabs.setCurrentWidget(self.means)

    def _show_study(self, *_: object) -> None:
        self.tabs.setTabVisible(self.tabs.indexOf(self.study), self.study.has_study)

    def _show_chosen(self, sight: Sight | None) -> None:
        self.chosen.setVisible(sight is not None)
        self.hide_labels.setVisible(sight is not None)
        if sight is not None:
            score = sight.score
            self.chosen.setText(
                f"<b>{score.organ}</b>, {score.view.plane} {score.view.index}, {score.strategy}, "
                f"{score.model}: Dice {score.dice:.3f}, IoU {score.iou:.3f}, predicted "
                f"{score.iou_prediction:.3f}<br>{_legend(sight)}"
            )

    # docked bit by bit

    def take_apart(self) -> None:
        """Take the pages out, and hide the rest: the window takes all at once three times as long."""
        self.place.waits = True
        self._outside = PagesOutside(self.tabs)
        self.body.hide()

    def put_in_page(self) -> bool:
        """Put in the next page that is out; False where that was the last."""
        return isalive(self) and self._outside is not None and self._outside.put_in()

    def put_together(self) -> None:
        """Put in all pages that are out, and show the whole; safe to call again."""
        outside, self._outside = self._outside, None
        if outside is None:
            return
        if not isalive(self):
            outside.delete()
            return
        while outside.put_in():
            pass
        self._show_study()
        self.body.show()
        if self.place.waits:
            self.place.take()

    # the user's clicks

    def look_at(self, score: SliceScore) -> None:
        """Show an answer on its slice."""
        self.attempt(lambda: self.control.look_at(score))

    def _run(self) -> None:
        def start() -> None:
            self.control.start()
            self.say("Measuring…")

        self.choices.more.clearFocus()  # takes what was typed last
        self.attempt(start)

    def _ask_save(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Save the report into a folder")
        if path:
            self.attempt(lambda: self.control.save(Path(path)))

    def _ask_open(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Open results")
        if path:
            self.attempt(lambda: self.control.open(Path(path), self.choices.added_models))

    # the end

    def _watch_the_end(self) -> None:
        # a bound method would be disconnected before `destroyed` reaches it; the closure holds no widget
        control = self.control

        def end(*_: object, waits: bool = True) -> None:
            with suppress(RuntimeError):
                control.stop(waits=waits)

        self._end = end
        self.destroyed.connect(end)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802  Qt's name
        """List the models that are there by now."""
        super().showEvent(event)
        self.choices.list_models()
        self._fit()
        self.place.on_shown()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802  Qt's name
        """The canvas has its width back."""
        super().hideEvent(event)
        self.place.on_hidden()

    def _end_with_dock(self) -> None:
        self.stop(waits=False)  # a model that is being asked answers first, and the window stays
        super()._end_with_dock()
        self.place.give_back()

    def _delete(self) -> None:
        """In a turn of its own."""
        QTimer.singleShot(_DELETE_MS, self.deleteLater)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802  Qt's name
        """Fit the width to the content, too."""
        is_layout = event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.StyleChange)
        if is_layout and watched is getattr(self, "choices", None):  # also asked when half is gone
            self._fit()
        return super().eventFilter(watched, event)

    def stop(self, *, waits: bool = True) -> None:
        """Cancel what runs and let go of the viewer; safe to call twice.

        Parameters
        ----------
        waits : bool
            Wait for the threads, as the application may end now.
        """
        if not self._is_stopped:
            self._is_stopped = True
            self._end(waits=waits)


def open_experiments(viewer: ViewerModel) -> ExperimentsWidget:
    """Show the panel of a viewer beside the SAM Med widget; made where there is none yet."""
    for _ in opening_experiments(viewer):
        pass
    panel = viewer.window.dock_widgets[DOCK_NAME]
    panel.put_together()  # it may be on its way already
    return panel


def opening_experiments(viewer: ViewerModel) -> Iterator[None]:
    """`open_experiments` in steps, of which none keeps the window from a click for long."""
    window = viewer.window
    if DOCK_NAME not in window.dock_widgets:
        yield from _docking(ExperimentsWidget(viewer, is_whole=False), window)
    else:
        dock = window.dock_widgets[DOCK_NAME].parentWidget()
        dock.show()
        dock.raise_()


def _docking(panel: ExperimentsWidget, window: Window) -> Iterator[None]:
    """Make a panel, dock it empty, give it its width, and fill it; what it holds is seen once it is full."""
    try:
        yield from panel.making()
        panel.take_apart()
        yield
        if DOCK_NAME in window.dock_widgets:  # opened from napari's menu meanwhile
            return
        window.add_dock_widget(panel, name=DOCK_NAME, area="right", tabify=True, add_vertical_stretch=False)
        yield
        panel.place.take()
        yield
        while panel.put_in_page():
            yield
    finally:  # also where no further step is taken
        panel.put_together()
        if isalive(panel) and window.dock_widgets.get(DOCK_NAME) is not panel:
            panel.stop(waits=False)
            panel.deleteLater()


def _legend(sight: Sight) -> str:
    """What is drawn in which colour; the prediction comes a moment later."""
    parts = ['<span style="color:#e69f00">▭ truth</span>']
    if sight.prediction is not None:
        parts.append('<span style="color:#56b4e9">■ prediction</span>')
    if sight.prompts is not None and sight.prompts.box_xyxy is not None:
        parts.append('<span style="color:#ffffff">▭ box</span>')
    labels = [] if sight.prompts is None else sight.prompts.point_labels.tolist()
    if 1 in labels:
        parts.append('<span style="color:#1ad940">● + point</span>')
    if 0 in labels:
        parts.append('<span style="color:#f22626">● – point</span>')
    return " &nbsp; ".join(parts)


def _status_label() -> QLabel:
    made = QLabel("Ready. Not for clinical use.")
    made.setWordWrap(True)
    made.setAlignment(Qt.AlignmentFlag.AlignTop)
    made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    made.setMinimumHeight(2 * made.fontMetrics().lineSpacing() + 4)
    return made
