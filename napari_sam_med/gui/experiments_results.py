"""Results of the Experiments panel: means, every answer, and plots; all lead to the slice behind a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QModelIndex, QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QScrollArea, QStackedWidget, QVBoxLayout, QWidget

from napari_sam_med.gui.appearance import combo, note, tool_buttons
from napari_sam_med.gui.experiments_plots import DicePlot, MarginPlot, PredictedPlot, ScorePlot, margin_of
from napari_sam_med.gui.experiments_tables import AnswerTable, MeanTable
from napari_sam_med.session.experiments import Laboratory, Shown

if TYPE_CHECKING:
    from napari_sam_med.evaluation.measuring import SliceScore

__all__ = ["AnswersPage", "FilterBar", "MeansPage", "PlotsPage"]

_DRAW_MS = 500
"""Between two drawings while answers come in."""
_NO_MEANS = "Means stand here once something was measured or opened."

Look = Callable[["SliceScore"], object]


class FilterBar(QWidget):
    """Which organ, strategy and model are shown."""

    def __init__(self, lab: Laboratory) -> None:
        super().__init__()
        self._lab = lab
        self.organ = combo("Show this organ only.")
        self.strategy = combo("Show this strategy only.")
        self.model = combo("Show this model only.")
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(4)
        for made in (self.organ, self.strategy, self.model):
            line.addWidget(made, 1)
            made.activated.connect(self._on_chosen)
        lab.events.shown.connect(self.refresh)
        lab.replaced.connect(self.refresh)
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Offer what there is."""
        shown = self._lab.shown
        strategies, models, organs = self._lab.choices()
        for made, every, entries, now in (
            (self.organ, "All organs", organs, shown.organ),
            (self.strategy, "All strategies", strategies, shown.strategy),
            (self.model, "All models", models, shown.model),
        ):
            if [made.itemText(i) for i in range(1, made.count())] != entries or not made.count():
                with QSignalBlocker(made):
                    made.clear()
                    made.addItems([every, *entries])
            made.setCurrentIndex(entries.index(now) + 1 if now in entries else 0)
        self.model.setVisible(len(models) > 1)

    def _on_chosen(self, _: int) -> None:
        def text(made) -> str:
            return made.currentText() if made.currentIndex() > 0 else ""

        self._lab.shown = Shown(text(self.strategy), text(self.model), text(self.organ))


class MeansPage(QWidget):
    """A row a strategy and model; a click shows its answers.

    Signals
    -------
    opened
        The answers behind a row are wanted.
    """

    opened = Signal()

    def __init__(self, lab: Laboratory) -> None:
        super().__init__()
        self._lab = lab
        self.table = MeanTable()
        self.table.clicked.connect(self._on_clicked)
        self.note = note(_NO_MEANS)
        column = _column(self)
        column.addWidget(self.table, 1)
        column.addWidget(self.note)
        lab.events.means.connect(self.refresh)
        lab.replaced.connect(self.refresh)
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Show the means as they are."""
        means = self._lab.means
        rows = [] if means is None else means.rows
        self.table.show_column("Model", len({row.model for row in rows if row.strategy}) > 1)
        self.table.rows.show_rows(rows)
        if not rows:
            self.note.setText(_NO_MEANS)
            return
        over = {row.over for row in rows if row.low is not None}
        told = "Click a row for its answers. "
        if over:
            told += f"95 %: bootstrap over {' and '.join(sorted(over))}. "
        if over == {"slices"}:
            told += "One scan says nothing of other patients. "
        self.note.setText(f"{told}Not for clinical use.")

    def _on_clicked(self, index: QModelIndex) -> None:
        row = self.table.rows.row(index.row())
        if row.strategy:
            self._lab.shown = Shown(row.strategy, row.model, self._lab.shown.organ)
            self.opened.emit()


class AnswersPage(QWidget):
    """A row an answer, worst first; a click shows it on its slice."""

    def __init__(self, lab: Laboratory, look: Look) -> None:
        super().__init__()
        self._lab = lab
        self._look = look
        self._looked_at: object = None
        self.filter = FilterBar(lab)
        self.table = AnswerTable()
        column = _column(self)
        column.addWidget(self.filter)
        column.addWidget(self.table, 1)
        self.table.selectionModel().currentRowChanged.connect(self._on_row)
        self.table.clicked.connect(self._on_clicked)
        lab.added.connect(self._on_added)
        lab.replaced.connect(self.refresh)
        lab.events.shown.connect(self.refresh)
        lab.events.chosen.connect(self._on_chosen)
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Show the answers that are to be shown."""
        with QSignalBlocker(self.table.selectionModel()):
            self.table.rows.show_rows(self._lab.shown_scores())
        self._fit()
        self._on_chosen(self._lab.chosen)

    def sort_again(self) -> None:
        """Put what came in where it belongs."""
        self.table.rows.sort_again()
        self.filter.refresh()
        self._fit()

    def _fit(self) -> None:
        _, models, _ = self._lab.choices()
        self.table.show_column("Model", len(models) > 1)
        self.table.show_column("Scan", len({score.volume for score in self._lab.scores}) > 1)

    def _on_added(self, scores: list[SliceScore]) -> None:
        self.table.rows.add_rows([score for score in scores if self._lab.shown.takes(score)])

    def _on_chosen(self, score: SliceScore | None) -> None:
        """Select the row of an answer that was chosen in a plot."""
        number = -1 if score is None else self.table.rows.number_of(score)
        if number >= 0 and number != self.table.currentIndex().row():
            with QSignalBlocker(self.table.selectionModel()):
                self.table.selectRow(number)
            self.table.viewport().update()
            self.table.scrollTo(self.table.rows.index(number, 0))

    def _on_row(self, now: QModelIndex, before: QModelIndex) -> None:
        if now.isValid():
            self._looked_at = self.table.rows.row(now.row())
            self._look(self._looked_at)

    def _on_clicked(self, index: QModelIndex) -> None:
        """A click on the row that is current already goes back to its slice."""
        row = self.table.rows.row(index.row())
        was, self._looked_at = self._looked_at, None
        if row is not was:
            self._look(row)


class PlotsPage(QWidget):
    """Dice by strategy, predicted against true IoU, and the margin sweep where there is one."""

    def __init__(self, lab: Laboratory, look: Look) -> None:
        super().__init__()
        self._lab = lab
        self.filter = FilterBar(lab)
        layout, self.kinds = tool_buttons(
            [
                ("dice", "Dice", "Dice of every answer, by strategy."),
                ("predicted", "Predicted IoU", "Predicted against true IoU."),
                (
                    "margins",
                    "Margins",
                    "Dice by the margin of the box, of all strategies random_margin_box that were measured.\n"
                    "The line is the mean over slices, then organs, as in the table.",
                ),
            ],
            self.show_kind,
            columns=3,
        )
        self.plots: dict[str, ScorePlot] = {
            "dice": DicePlot(),
            "predicted": PredictedPlot(),
            "margins": MarginPlot(),
        }
        self._stack = QStackedWidget()
        for plot in self.plots.values():
            plot.picked.connect(look)
            self._stack.addWidget(_scrolled(plot))
        column = _column(self)
        column.addWidget(self.filter)
        column.addLayout(layout)
        column.addWidget(self._stack, 1)
        column.addWidget(note("Click a point to see its answer on its slice."))
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_DRAW_MS)
        self._timer.timeout.connect(self.refresh)
        lab.added.connect(self._on_added)
        lab.replaced.connect(self.refresh)
        lab.events.shown.connect(self.refresh)
        lab.events.chosen.connect(self._on_chosen)
        self.show_kind("dice")
        self.refresh()

    def show_kind(self, key: str) -> None:
        """Show one of the plots."""
        self.kinds[key].setChecked(True)
        self._stack.setCurrentIndex(list(self.plots).index(key))

    def refresh(self, *_: object) -> None:
        """Draw the answers that are to be shown."""
        self._timer.stop()
        scores = self._lab.shown_scores()
        _, models, _ = self._lab.choices()
        # a margin is a strategy: of one strategy there would be no sweep
        sweep = [score for score in self._lab.shown_scores(of_all_strategies=True) if _is_of_sweep(score)]
        for kind, plot in self.plots.items():
            plot.show_scores(sweep if kind == "margins" else scores, models)
        has_margins = bool(sweep)
        self.kinds["margins"].setEnabled(has_margins)
        if not has_margins and self.kinds["margins"].isChecked():
            self.show_kind("dice")
        self.filter.refresh()
        self._on_chosen(self._lab.chosen)

    def _on_added(self, scores: list[SliceScore]) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def _on_chosen(self, score: SliceScore | None) -> None:
        for plot in self.plots.values():
            plot.show_chosen(score)


def _is_of_sweep(score: SliceScore) -> bool:
    return margin_of(score.strategy) is not None


def _scrolled(plot: QWidget) -> QScrollArea:
    made = QScrollArea()
    made.setWidget(plot)
    made.setWidgetResizable(True)
    made.setFrameShape(QFrame.Shape.NoFrame)
    made.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return made


def _column(of: QWidget) -> QVBoxLayout:
    column = QVBoxLayout(of)
    column.setContentsMargins(4, 6, 4, 4)
    column.setSpacing(5)
    return column
