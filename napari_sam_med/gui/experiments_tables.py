"""Sortable tables of the Experiments panel: means of strategies, and every single answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from napari_sam_med.session.experiments import MeanRow

__all__ = ["AnswerTable", "Column", "MeanTable", "RowModel", "answer_columns", "mean_columns"]

_NONE = QModelIndex()
_ROW_HEIGHT = 22
_NARROW = 46
_LEAST_TEXT = 84
_WITHOUT_MODEL = {"inscribed_ellipse": "ellipse, no model", "filled_box": "whole box, no model"}
"""Answers that the tangent box gives by itself."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    title, tip : str
    value : callable
        What rows are sorted by: text or a number, None where there is none.
    text : callable
        What is shown.
    width : int
        Pixels; 0: as wide as there is room.
    share : float
        Of that room.
    """

    title: str
    tip: str
    value: Callable[[Any], Any]
    text: Callable[[Any], str]
    width: int = 0
    share: float = 1.0


class RowModel(QAbstractTableModel):
    """Any number of rows, each any object; sorted by a column, those without a value last."""

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.columns = list(columns)
        self._rows: list[Any] = []
        self._sorted_by: tuple[int, Qt.SortOrder] | None = None

    def rowCount(self, parent: QModelIndex = _NONE) -> int:  # noqa: N802  Qt's name
        """As many as there are rows."""
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: QModelIndex = _NONE) -> int:  # noqa: N802  Qt's name
        """As many as were given."""
        return 0 if parent.isValid() else len(self.columns)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Text, and numbers to the right."""
        if not index.isValid():
            return None
        column, row = self.columns[index.column()], self._rows[index.row()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            return column.text(row)
        if role == Qt.ItemDataRole.TextAlignmentRole and not isinstance(column.value(row), (str, tuple)):
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def headerData(  # noqa: N802  Qt's name
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Titles and what they mean."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self.columns[section].title
        return self.columns[section].tip if role == Qt.ItemDataRole.ToolTipRole else None

    def row(self, number: int) -> Any:
        """The object that a row shows."""
        return self._rows[number]

    def number_of(self, row: Any) -> int:
        """Where an object is shown; -1 where it is not."""
        return next((number for number, one in enumerate(self._rows) if one is row), -1)

    def show_rows(self, rows: Sequence[Any]) -> None:
        """Show these in the place of all others, sorted as before."""
        self.beginResetModel()
        self._rows = self._in_order(list(rows))
        self.endResetModel()

    def add_rows(self, rows: Sequence[Any]) -> None:
        """Show more at the end; they find their place at the next sorting, so that nothing jumps."""
        if rows:
            first = len(self._rows)
            self.beginInsertRows(QModelIndex(), first, first + len(rows) - 1)
            self._rows.extend(rows)
            self.endInsertRows()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; what is selected stays selected."""
        self._sorted_by = (column, order) if column >= 0 else None
        self.sort_again()

    def sort_again(self) -> None:
        """Sort as was asked for last."""
        self.layoutAboutToBeChanged.emit()
        before = self.persistentIndexList()
        kept = [self._rows[index.row()] for index in before]
        self._rows = self._in_order(self._rows)
        places = {id(row): number for number, row in enumerate(self._rows)}
        after = [self.index(places[id(row)], index.column()) for row, index in zip(kept, before, strict=True)]
        self.changePersistentIndexList(before, after)
        self.layoutChanged.emit()

    def _in_order(self, rows: list[Any]) -> list[Any]:
        if self._sorted_by is None:
            return rows
        column, order = self._sorted_by
        value = self.columns[column].value
        keyed = [(value(row), row) for row in rows]
        known = [(key, row) for key, row in keyed if not _is_missing(key)]
        known.sort(key=lambda pair: pair[0], reverse=order == Qt.SortOrder.DescendingOrder)
        return [row for _, row in known] + [row for key, row in keyed if _is_missing(key)]


def _is_missing(key: Any) -> bool:
    return key is None or (isinstance(key, float) and math.isnan(key))


class _Table(QTableView):
    """A table of whole rows that leaves the keyboard's arrows to itself."""

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.rows = RowModel(columns)
        self.setModel(self.rows)
        self.setSortingEnabled(True)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setTabKeyNavigation(False)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.verticalHeader().setVisible(False)
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setMinimumSectionSize(30)
        for number, column in enumerate(columns):
            header.setSectionResizeMode(number, QHeaderView.ResizeMode.Interactive)
            if column.width:
                header.resizeSection(number, column.width)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802  Qt's name
        """Give texts the room that numbers leave."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        shown = [number for number in range(len(self.rows.columns)) if not self.isColumnHidden(number)]
        texts = [number for number in shown if not self.rows.columns[number].width]
        room = self.viewport().width() - sum(self.columnWidth(n) for n in shown if n not in texts)
        shares = {number: self.rows.columns[number].share for number in texts}
        for number, share in shares.items():
            self.setColumnWidth(number, max(_LEAST_TEXT, int(room * share / sum(shares.values()))))

    def show_column(self, title: str, is_shown: bool) -> None:
        """Show a column, or leave it out where it says the same in every row."""
        number = [column.title for column in self.rows.columns].index(title)
        if self.isColumnHidden(number) == is_shown:
            self.setColumnHidden(number, not is_shown)
            self._fit()


class MeanTable(_Table):
    """Means of strategies by models, and of the baselines."""

    def __init__(self) -> None:
        super().__init__(mean_columns())
        self.sortByColumn(2, Qt.SortOrder.DescendingOrder)


class AnswerTable(_Table):
    """Every answer, worst first."""

    def __init__(self) -> None:
        columns = answer_columns()
        super().__init__(columns)
        dice = [column.title for column in columns].index("Dice")
        self.sortByColumn(dice, Qt.SortOrder.AscendingOrder)


def mean_columns() -> list[Column]:
    """Columns over `MeanRow`."""
    return [
        Column(
            "Strategy",
            "How the prompts are made; no model: what the tangent box gives by itself",
            _strategy,
            _strategy,
        ),
        Column("Model", "Who answers", lambda r: r.model, lambda r: r.model if r.strategy else "none"),
        _number("Dice", "Mean over the slices of an organ, then the organs", lambda r: r.dice),
        Column(
            "95 %",
            "Interval of the mean Dice (bootstrap)",
            lambda r: r.low,
            lambda r: "" if r.low is None else f"{r.low:.2f}–{r.high:.2f}",
            76,
        ),
        _number("IoU", "Mean over the slices of an organ, then the organs", lambda r: r.iou),
        _number("NSD", "Normalised surface distance: outlines within 2 mm of each other", lambda r: r.nsd),
        _number("HD95", "95th percentile of the distance of the outlines, mm", lambda r: r.hd95_mm, 1),
        Column("n", "Answers", lambda r: r.count, lambda r: str(r.count), 40),
    ]


def answer_columns() -> list[Column]:
    """Columns over `SliceScore`."""
    return [
        Column("Scan", "Name of the case", lambda r: r.volume, lambda r: r.volume),
        Column("Slice", "Plane and index", _slice_key, _slice, 74),
        Column("Organ", "What was to be found", lambda r: r.organ, lambda r: r.organ),
        Column("Strategy", "How the prompt was made", lambda r: r.strategy, lambda r: r.strategy, share=1.5),
        Column("Model", "Who answered", lambda r: r.model, lambda r: r.model),
        _number("Dice", "Of the mask that the model trusts most", lambda r: r.dice),
        _number("IoU", "Of the mask that the model trusts most", lambda r: r.iou),
        _number("Pred.", "IoU that the model itself predicted", lambda r: r.iou_prediction),
    ]


def _number(title: str, tip: str, value: Callable[[Any], float | None], digits: int = 3) -> Column:
    def text(row: Any) -> str:
        number = value(row)
        return "" if _is_missing(number) else f"{number:.{digits}f}"

    return Column(title, tip, value, text, _NARROW)


def _strategy(row: MeanRow) -> str:
    return row.strategy or _WITHOUT_MODEL.get(row.model, row.model)


def _slice_key(score: Any) -> tuple[str, int]:
    return score.view.plane, score.view.index


def _slice(score: Any) -> str:
    return f"{score.view.plane} {score.view.index}"
