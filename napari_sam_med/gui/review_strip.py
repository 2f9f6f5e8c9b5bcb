"""A strip that shows how sure the masks of one object are, slice by slice; a click goes to a slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QHelpEvent, QMouseEvent, QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

__all__ = ["ReviewStrip", "StripContent", "StripSlice", "quality_color"]

# Red through yellow to blue (ColorBrewer RdYlBu): told apart with any colour vision, also in grey.
_QUALITIES = (0.3, 0.55, 0.75, 0.9, 1.0)
_COLORS = ((165, 0, 38), (244, 109, 67), (254, 224, 144), (116, 173, 209), (69, 117, 180))
_KEY = QColor(245, 245, 245)
_EMPTY, _RIM = QColor(58, 61, 70), QColor(90, 94, 104)  # dark under every theme: white has to show on it
_SURE_END, _DOUBTFUL_END = QColor(170, 175, 185), QColor(255, 140, 40)

_SIDE, _TOP, _BAR, _CAPTION_HEIGHT = 5, 7, 13, 12
_BLOCK = 8
"""The strip begins and ends at multiples of this, so that it does not stretch with every slice that comes."""


def quality_color(quality: float) -> QColor:
    """Colour of a quality: dark red for 0.3 and less, yellow for 0.75, blue for 1."""
    red, green, blue = (
        round(float(np.interp(quality, _QUALITIES, [color[channel] for color in _COLORS])))
        for channel in range(3)
    )
    return QColor(red, green, blue)


@dataclass(frozen=True)
class StripSlice:
    """What the strip says of one slice; ``quality`` is None where there is none to tell, on key slices."""

    quality: float | None
    is_key: bool
    text: str


@dataclass(frozen=True)
class StripContent:
    """Everything that the strip shows.

    Attributes
    ----------
    n_slices : int
        Slices of the volume along the plane.
    slices : mapping
        ``{index: StripSlice}`` where the object has a mask.
    ends : mapping
        ``{index: (direction, whether it is sure that the object ends there, text)}`` where propagation ended.
    caption : str
        Object and plane.
    current : int or None
        Slice that is looked at.
    """

    n_slices: int = 0
    slices: Mapping[int, StripSlice] = field(default_factory=dict)
    ends: Mapping[int, tuple[str, bool, str]] = field(default_factory=dict)
    caption: str = ""
    current: int | None = None

    @property
    def shown(self) -> range:
        """Slices that the strip reaches over: those of the object and a few beside it."""
        known = [*self.slices, *self.ends]
        if not known:
            return range(0)
        first = (min(known) - 2) // _BLOCK * _BLOCK
        last = -(-(max(known) + 3) // _BLOCK) * _BLOCK
        return range(max(0, first), min(self.n_slices, last))


class ReviewStrip(QWidget):
    """One coloured bar a slice: red is doubtful, blue is sure, white is a key slice.

    Signals
    -------
    chosen : int
        Index of the slice that was clicked or dragged to.
    """

    chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._content = StripContent()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setMouseTracking(True)
        self.setAccessibleName("Quality of every slice")

    @property
    def content(self) -> StripContent:
        """What is shown."""
        return self._content

    def show_content(self, content: StripContent) -> None:
        """Show something else; drawn when Qt draws next."""
        if content != self._content:
            self._content = content
            self.setCursor(Qt.CursorShape.PointingHandCursor if content.shown else Qt.CursorShape.ArrowCursor)
            self.update()

    def sizeHint(self) -> QSize:  # noqa: N802  Qt's name
        """As wide as there is room, always of one height."""
        return QSize(200, _TOP + _BAR + _CAPTION_HEIGHT + 1)

    def left_of(self, index: int) -> float:
        """Where the bar of a slice begins, in pixels of the widget."""
        shown = self._content.shown
        return _SIDE + (self.width() - 2 * _SIDE) * (index - shown.start) / max(1, len(shown))

    def slice_at(self, x: float) -> int | None:
        """Slice under a place of the widget, the outermost ones beyond the ends; None when all is empty."""
        shown = self._content.shown
        if not shown:
            return None
        index = shown.start + int((x - _SIDE) / max(1, self.width() - 2 * _SIDE) * len(shown))
        return min(max(index, shown.start), shown.stop - 1)

    # drawing

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802  Qt's name
        """Draw from the back to the front: trough, slices, ends, the slice at hand."""
        painter = QPainter(self)
        painter.fillRect(QRectF(_SIDE, _TOP, self.width() - 2 * _SIDE, _BAR), _EMPTY)
        self._draw_captions(painter)
        if not self._content.shown:
            return
        self._draw_slices(painter)
        for index, (direction, is_sure, _) in self._content.ends.items():
            self._draw_end(painter, index, direction, is_sure)
        current = self._content.current
        if current is not None and current in self._content.shown:
            x = (self.left_of(current) + self.left_of(current + 1)) / 2
            for width, color in ((4.0, QColor(20, 20, 25)), (2.0, QColor(255, 255, 255))):
                painter.setPen(QPen(color, width))
                painter.drawLine(QPointF(x, 1), QPointF(x, _TOP + _BAR + 2))

    def _draw_slices(self, painter: QPainter) -> None:
        painter.setPen(Qt.PenStyle.NoPen)
        # where several slices share a pixel the most doubtful one is seen, and key slices above all
        order = sorted(self._content.slices.items(), key=lambda one: (one[1].is_key, -(one[1].quality or 0)))
        for index, one in order:
            left, right = self.left_of(index), self.left_of(index + 1)
            gap = 1 if right - left >= 4 else 0
            color = _KEY if one.is_key else quality_color(one.quality or 0.0)
            painter.fillRect(QRectF(left, _TOP, max(1.0, right - left - gap), _BAR), color)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setBrush(_KEY)
        painter.setPen(QPen(_RIM, 1))
        for index in (index for index, one in order if one.is_key):
            x = (self.left_of(index) + self.left_of(index + 1)) / 2
            painter.drawPolygon(QPolygonF([QPointF(x - 4, 0), QPointF(x + 4, 0), QPointF(x, _TOP - 1)]))

    def _draw_end(self, painter: QPainter, index: int, direction: str, is_sure: bool) -> None:
        is_filled, sign = index in self._content.slices, 1 if direction == "forward" else -1
        x = self.left_of(index + (is_filled if sign > 0 else not is_filled)) + 2 * sign
        painter.setPen(QPen(_SURE_END if is_sure else _DOUBTFUL_END, 2))
        top, bottom = _TOP - 1, _TOP + _BAR
        painter.drawPolyline(
            QPolygonF(
                [
                    QPointF(x - 3 * sign, top),
                    QPointF(x, top),
                    QPointF(x, bottom),
                    QPointF(x - 3 * sign, bottom),
                ]
            )
        )

    def _draw_captions(self, painter: QPainter) -> None:
        font = self.font()
        font.setPixelSize(10)
        painter.setFont(font)
        painter.setPen(self.palette().color(QPalette.ColorRole.WindowText))
        place = QRectF(_SIDE, _TOP + _BAR + 1, self.width() - 2 * _SIDE, _CAPTION_HEIGHT)
        shown = self._content.shown
        metrics, room = painter.fontMetrics(), place.width()
        if shown:
            for index, side in (
                (shown.start, Qt.AlignmentFlag.AlignLeft),
                (shown.stop - 1, Qt.AlignmentFlag.AlignRight),
            ):
                painter.drawText(place, side | Qt.AlignmentFlag.AlignVCenter, str(index))
                room -= 2 * metrics.horizontalAdvance(f"{index} ")
        text = metrics.elidedText(self._content.caption, Qt.TextElideMode.ElideRight, int(room))
        painter.drawText(place, Qt.AlignmentFlag.AlignCenter, text)

    # the mouse

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802  Qt's name
        """Go to the slice."""
        self._choose(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802  Qt's name
        """Go along with the mouse while its button is down."""
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._choose(event)

    def _choose(self, event: QMouseEvent) -> None:
        index = self.slice_at(event.position().x())
        if index is not None:
            self.chosen.emit(index)

    def text_of(self, index: int) -> str:
        """What there is to say of a slice."""
        lines = [f"Slice {index}"]
        if index in self._content.slices:
            lines[0] += f": {self._content.slices[index].text}"
        elif index not in self._content.ends:
            lines[0] += ": no mask"
        if index in self._content.ends:
            lines.append(self._content.ends[index][2])
        return "\n".join(lines)

    def event(self, event: QEvent) -> bool:
        """Say what there is to say of the slice under the mouse."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            index = self.slice_at(event.pos().x())
            legend = "Quality of every slice of the object: red is doubtful, blue is sure, white a key slice."
            QToolTip.showText(event.globalPos(), legend if index is None else self.text_of(index), self)
            return True
        return super().event(event)
