"""The ranked list of what was found: hovering a row shows it, a double click takes it."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSignalBlocker, Qt, QTimer
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_sam_med.gui.chooser import Chooser
from napari_sam_med.session.found import Found, FoundBox
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["FindList"]

_NUMBER, _NAME, _SCORE, _VOLUME, _SLICES = range(5)
_KEY = Qt.ItemDataRole.UserRole
_MOST_ROWS = 300
"""Nobody reads further, and each costs Qt time."""
_REST_MS = 150
"""A row that the mouse only passes does not move the viewer."""
_GREY = QColor(130, 135, 145)
_NOTHING = "–"
_TIP = "Point at a row: the slice with most of it is shown. Double click: take it."
_MEASURES = {
    "Sure": "how probable the organ under “Looks like” is for this object, in per cent; – where it looks "
    "like\nno known organ, or was not compared with any. Those follow by their score: how well they are "
    "outlined, 0 to 1.",
    "Likely": "how probable it is that the object is {word}, in per cent.",
    "Score": "how sure the model is that the box holds an object, 0 to 1.",
}
"""What the column says, by its head; one list holds one measure."""


class FindList(QTreeWidget):
    """Candidates or boxes, the best first.

    Parameters
    ----------
    found : Found
    chooser : Chooser
    """

    def __init__(self, found: Found, chooser: Chooser) -> None:
        super().__init__()
        self._found, self._chooser = found, chooser
        self.setColumnCount(5)
        self.setHeaderLabels(["", "Looks like", "Sure", "ml", "Slices"])
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setFixedHeight(170)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setMouseTracking(True)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        header = self.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(20)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        for column, width in ((_NUMBER, 32), (_SCORE, 54), (_VOLUME, 50), (_SLICES, 58)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            header.resizeSection(column, width)
        self._hovered: int | None = None
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)
        self._rest.timeout.connect(self._go_to_hovered)
        self.itemEntered.connect(self._on_entered)
        self.itemClicked.connect(lambda item, _: chooser.point_at_row(item.data(0, _KEY), True))
        self.itemDoubleClicked.connect(lambda item, _: chooser.take(item.data(0, _KEY)))
        self.viewport().installEventFilter(self)
        found.objects_changed.connect(self._on_objects)
        found.taken_changed.connect(self._mark_taken)
        found.pointed_changed.connect(self._mark_pointed)

    def detach(self) -> None:
        """Stop listening."""
        self._rest.stop()
        self._found.objects_changed.disconnect(self._on_objects, missing_ok=True)
        self._found.taken_changed.disconnect(self._mark_taken, missing_ok=True)
        self._found.pointed_changed.disconnect(self._mark_pointed, missing_ok=True)

    def _on_objects(self, view: SliceView | None) -> None:
        if view is None:
            self.refresh()
        else:
            self._go_on(view)

    def _go_on(self, view: SliceView) -> None:
        """List what streams in below what is there: no row moves under the mouse. It is ranked at the end."""
        found, room = self._found, _MOST_ROWS - self.topLevelItemCount()
        if self.topLevelItemCount() == 0:
            self._name_columns()
        if found.boxes:
            scores = {box.number: box.score for box in found.boxes_on(view)}
        else:
            scores = {number: found.score(number) for number, _ in found.on_slice(view)}
        listed = {row.data(0, _KEY) for row in self._rows()}
        new = sorted(scores.keys() - listed, key=lambda number: (-scores[number], number))
        with QSignalBlocker(self):
            self.addTopLevelItems([self._row(number) for number in new[: max(0, room)]])
        self._mark_taken()

    def refresh(self) -> None:
        """List what there is."""
        found = self._found
        self._forget_hovered()  # its number may be another one's now, or nobody's
        self._name_columns()
        with QSignalBlocker(self):
            self.clear()
            rows = [self._row(number) for number in found.ranked[:_MOST_ROWS]]
            self.addTopLevelItems(rows)
        self.scrollToTop()  # the best is in sight, wherever the mouse was before
        self._mark_taken()

    def _name_columns(self) -> None:
        found = self._found
        self.headerItem().setText(_NAME, "Box" if found.boxes else "Looks like")
        self.setColumnHidden(_VOLUME, bool(found.boxes))
        measure = "Score" if found.boxes else "Likely" if found.is_ranked else "Sure"
        told = f"{measure}: {_MEASURES[measure].format(word=found.word)}"
        self.headerItem().setText(_SCORE, measure)
        self.headerItem().setToolTip(_SCORE, told)
        self.setToolTip(f"{_TIP}\n{told}")

    def _row(self, number: int) -> QTreeWidgetItem:
        box = self._found.boxes.get(number)
        texts = self._object_texts(number) if box is None else _box_texts(box)
        row = QTreeWidgetItem([str(number), *texts])
        row.setData(0, _KEY, number)
        for column in (_NUMBER, _SCORE, _VOLUME, _SLICES):
            row.setTextAlignment(column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return row

    def _object_texts(self, number: int) -> list[str]:
        found = self._found
        one, guess = found.objects[number], found.guess(number)
        sure = found.score(number) if found.is_ranked else one.organ.probability if guess else None
        indices = [view.index for view in one.masks]
        first, last = min(indices), max(indices)
        slices = str(first) if first == last else f"{first}–{last}"
        return [guess or _NOTHING, _percent(sure), f"{found.volume_ml(number):.3g}", slices]

    def _rows(self) -> list[QTreeWidgetItem]:
        return [self.topLevelItem(position) for position in range(self.topLevelItemCount())]

    def _mark_taken(self) -> None:
        for row in self._rows():
            is_taken = row.data(0, _KEY) in self._found.taken
            row.setForeground(_NAME, _GREY if is_taken else self.palette().text())
            row.setText(_NUMBER, "✓" if is_taken else str(row.data(0, _KEY)))

    def _mark_pointed(self) -> None:
        row = next((row for row in self._rows() if row.data(0, _KEY) == self._found.pointed), None)
        with QSignalBlocker(self):
            self.setCurrentItem(row)
        if row is not None and not self.underMouse():
            self.scrollToItem(row)

    def _on_entered(self, item: QTreeWidgetItem, _: int) -> None:
        self._hovered = item.data(0, _KEY)
        self._chooser.point_at_row(self._hovered, False)
        self._rest.start()

    def _go_to_hovered(self) -> None:
        if self._hovered is not None:
            self._chooser.point_at_row(self._hovered, True)

    def _forget_hovered(self) -> None:
        self._rest.stop()
        self._hovered = None

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802  Qt's name
        """The mouse leaves: no row is pointed at by it any more."""
        if event.type() == QEvent.Type.Leave:
            self._forget_hovered()
        return super().eventFilter(watched, event)


def _percent(share: float | None) -> str:
    return _NOTHING if share is None else f"{share * 100:.0f} %"


def _box_texts(box: FoundBox) -> list[str]:
    left, top, right, bottom = box.box_xyxy
    return [
        f"{right - left + 1:.0f} × {bottom - top + 1:.0f} px",
        f"{box.score:.2f}",
        "",
        str(box.view.index),
    ]
