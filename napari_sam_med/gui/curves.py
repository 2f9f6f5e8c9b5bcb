"""Learning curves as they grow, drawn with the theme's own colours."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

__all__ = ["CurvePlot"]

_LEARNED, _HELD_OUT = QColor("#4c9aff"), QColor("#ff9f43")
"""Blue and orange: told apart on dark and on light ground, and by the colour-blind."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 32, 10, 20, 18
_LEAST_SPAN = 0.1

Point = tuple[int, float, float]


class CurvePlot(QWidget):
    """Dice by epoch: on the views learned from, and on the slices held out."""

    def __init__(self) -> None:
        super().__init__()
        self._points: list[Point] = []
        self._epochs = 1
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Mean Dice by epoch. Orange: slices held out, which decide which epoch is kept.\n"
            "Blue: the views learned from. Epoch 0 is the model as it was."
        )

    @property
    def points(self) -> list[Point]:
        """Epoch, Dice on what is learned from, and on what is held out, as shown."""
        return list(self._points)

    def show_points(self, points: Sequence[Point], epochs: int) -> None:
        """Draw the epochs so far of so many."""
        self._points, self._epochs = list(points), max(1, epochs)
        self.update()

    def sizeHint(self) -> QSize:  # noqa: N802  Qt's name
        """As wide as the panel."""
        return QSize(240, 132)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802  Qt's name
        """Draw frame, scale, both curves and what they are."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = painter.font()
        font.setPixelSize(11)
        painter.setFont(font)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        faint = QColor(text)
        faint.setAlpha(60)
        area = QRectF(
            _LEFT, _TOP, max(1, self.width() - _LEFT - _RIGHT), max(1, self.height() - _TOP - _BOTTOM)
        )
        low, high = self._range()
        painter.setPen(QPen(faint, 1))
        painter.drawRect(area)
        painter.setPen(text)
        flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for value, y in ((high, area.top()), (low, area.bottom())):
            painter.drawText(QRectF(0, y - 8, _LEFT - 4, 16), flags, f"{value:.2f}")
        below = QRectF(area.left(), area.bottom() + 2, area.width(), 16)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, "0")
        painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, "epoch")
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, str(self._epochs))
        x = area.left()
        for column, color, name in ((2, _HELD_OUT, "held out"), (1, _LEARNED, "learned from")):
            painter.setPen(QPen(color, 2))
            places = [
                QPointF(
                    area.left() + area.width() * point[0] / self._epochs,
                    area.bottom() - area.height() * (point[column] - low) / (high - low),
                )
                for point in self._points
                if math.isfinite(point[column])
            ]
            painter.drawPolyline(QPolygonF(places))
            for place in places:
                painter.drawEllipse(place, 1.5, 1.5)
            painter.drawText(QPointF(x, 13), name)
            x += painter.fontMetrics().horizontalAdvance(name) + 14
        painter.end()

    def _range(self) -> tuple[float, float]:
        values = [v for point in self._points for v in point[1:] if math.isfinite(v)]
        low, high = min(values, default=0.0), max(values, default=1.0)
        low, high = math.floor(low * 20) / 20, math.ceil(high * 20) / 20
        return (low, high) if high - low >= _LEAST_SPAN else (max(0.0, high - _LEAST_SPAN), high)
