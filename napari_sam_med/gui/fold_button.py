"""The button that folds what a section needs seldom, and the arrows of what is folded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from qtpy.QtCore import QEvent, QPointF, QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPalette, QPixmap, QPolygonF, QShowEvent
from qtpy.QtWidgets import QToolButton, QWidget

__all__ = ["ARROW", "FoldButton", "fold_arrow"]

ARROW = 12
"""Pixels of the side of a square that an arrow lies in."""

_SUMMARY_WIDTH = 190
"""Pixels at most of what a heading tells of a folded section."""


class FoldButton(QToolButton):
    """An arrow in a heading, and beside it what there is to know of what is folded away."""

    def __init__(self, changed: Callable[[], object], parent: QWidget) -> None:
        super().__init__(parent)
        self.is_folded = False
        self._changed = changed
        self._summary = ""
        self.setAutoRaise(True)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setLayoutDirection(Qt.LayoutDirection.RightToLeft)  # the arrow on the right
        self.setIconSize(QSize(ARROW, ARROW))
        self.setStyleSheet(
            "QToolButton { border: none; padding: 0px 2px; background: transparent; }"
            "QToolButton:hover { background: rgba(128, 128, 128, 70); border-radius: 4px; }"
        )
        self.clicked.connect(lambda: self.set_folded(not self.is_folded))

    def set_folded(self, is_folded: bool) -> None:
        """Fold the section or unfold it."""
        self.is_folded = is_folded
        self._show()
        self._changed()

    def set_summary(self, text: str) -> None:
        """What is seen in the heading while the section is folded."""
        self._summary = text
        self._show()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802  Qt's name
        """The theme is known by now."""
        super().showEvent(event)
        self._show()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802  Qt's name
        """Another theme."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange:
            self._show()

    def _show(self) -> None:
        text = self._summary if self.is_folded else ""
        self.setText(self.fontMetrics().elidedText(text, Qt.TextElideMode.ElideMiddle, _SUMMARY_WIDTH))
        self.ensurePolished()
        color = self.palette().color(QPalette.ColorRole.ButtonText)
        self.setIcon(fold_arrow(color, "right" if self.is_folded else "down"))


def fold_arrow(color: QColor, towards: Literal["right", "down"]) -> QIcon:
    """A filled triangle."""
    picture = QPixmap(QSize(2 * ARROW, 2 * ARROW))  # sharp on dense screens, too
    picture.fill(Qt.GlobalColor.transparent)
    picture.setDevicePixelRatio(2)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(color)
    corners = [(1.5, 3.0), (10.5, 3.0), (6.0, 9.5)]
    if towards == "right":
        corners = [(y, x) for x, y in corners]
    painter.drawPolygon(QPolygonF([QPointF(x, y) for x, y in corners]))
    painter.end()
    return QIcon(picture)
