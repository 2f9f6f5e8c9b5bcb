"""Plots of the Experiments panel, in which every point is an answer that can be clicked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPalette, QPen, QPixmap, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_sam_med.session.experiments import mean_dice

if TYPE_CHECKING:
    from napari_sam_med.evaluation.measuring import SliceScore

__all__ = ["DicePlot", "MarginPlot", "PredictedPlot", "ScorePlot", "margin_of"]

_COLORS = [QColor(c) for c in ("#4c9aff", "#ff9f43", "#3fb950", "#d2a8ff", "#ffd33d", "#f778ba")]
"""Told apart on dark and on light ground; blue and orange, the usual two, by the colour-blind as well."""
_REACH = 8.0
"""Pixels from a click to the point that it means."""
_MARGIN = "random_margin_box:"


def margin_of(strategy: str) -> int | None:
    """The margin of a strategy of the margin sweep, pixels; None of any other."""
    text = strategy.removeprefix(_MARGIN)
    return int(text) if strategy.startswith(_MARGIN) and text.lstrip("-").isdecimal() else None


def _jitter(count: int) -> np.ndarray:
    """Numbers of -0.5 to 0.5, spread evenly whatever their count (the golden ratio's multiples)."""
    return (np.arange(count) * 0.618034) % 1.0 - 0.5


class ScorePlot(QWidget):
    """Points over a drawing; drawn once, then copied, as there may be thousands.

    Signals
    -------
    picked : SliceScore
        The point that was clicked.
    """

    picked = Signal(object)
    left, right, top, bottom = 40, 12, 10, 34

    def __init__(self) -> None:
        super().__init__()
        self.scores: list[SliceScore] = []
        self._models: list[str] = []
        self._chosen: SliceScore | None = None
        self._marks = np.empty((0, 2))
        self._marked: list[SliceScore] = []
        self._picture: QPixmap | None = None
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def show_scores(self, scores: Sequence[SliceScore], models: Sequence[str]) -> None:
        """Draw these; colours go by the place of their model among ``models``."""
        self.scores, self._models = list(scores), list(models)
        self._forget()
        self.updateGeometry()

    def show_chosen(self, score: SliceScore | None) -> None:
        """Put a ring around a point."""
        self._chosen = score
        self.update()

    def place_of(self, score: SliceScore) -> QPointF | None:
        """Where a point is drawn, in pixels of the widget; None where it is not."""
        self._drawn()
        for place, marked in zip(self._marks, self._marked, strict=True):
            if marked is score:
                return QPointF(*place)
        return None

    def sizeHint(self) -> QSize:  # noqa: N802  Qt's name
        """As wide as the panel."""
        return QSize(320, 300)

    def minimumSizeHint(self) -> QSize:  # noqa: N802  Qt's name
        """What can still be read."""
        return QSize(240, 180)

    # to be drawn by each kind

    def _draw(self, painter: QPainter, area: QRectF) -> None:
        raise NotImplementedError

    def _mark(
        self, painter: QPainter, scores: list[SliceScore], places: np.ndarray, faint: int = 150
    ) -> None:
        """Draw points at places (N, 2), by the colours of their models, and note them for clicks."""
        self._marked += scores
        self._marks = np.concatenate([self._marks, places])
        size = 5.0 if len(self.scores) < 2000 else 3.0
        for number, model in enumerate(self._models):
            own = [place for score, place in zip(scores, places, strict=True) if score.model == model]
            color = QColor(_COLORS[number % len(_COLORS)])
            color.setAlpha(faint)
            painter.setPen(QPen(color, size, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
            painter.drawPoints(QPolygonF([QPointF(x, y) for x, y in own]))

    def _color(self, model: str) -> QColor:
        return _COLORS[self._models.index(model) % len(_COLORS)]

    @property
    def _text_color(self) -> QColor:
        return self.palette().color(QPalette.ColorRole.WindowText)

    @property
    def _faint_pen(self) -> QPen:
        color = QColor(self._text_color)
        color.setAlpha(60)
        return QPen(color, 1)

    def _draw_scale(self, painter: QPainter, area: QRectF, title: str, *, vertical: bool = False) -> None:
        """Lines at 0, 0.25 ... 1 with their numbers, along x or y."""
        for step in range(5):
            value = step / 4
            painter.setPen(self._faint_pen)
            if vertical:
                y = area.bottom() - value * area.height()
                painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            else:
                x = area.left() + value * area.width()
                painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()))
            painter.setPen(self._text_color)
            if vertical:
                box = QRectF(0, y - 8, area.left() - 4, 16)
                painter.drawText(
                    box, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, f"{value:g}"
                )
            else:
                painter.drawText(
                    QRectF(x - 24, area.bottom() + 2, 48, 15), Qt.AlignmentFlag.AlignHCenter, f"{value:g}"
                )
        painter.setPen(self._text_color)
        if vertical:
            painter.save()
            painter.translate(11, area.center().y())
            painter.rotate(-90)
            painter.drawText(QRectF(-100, -10, 200, 16), Qt.AlignmentFlag.AlignHCenter, title)
            painter.restore()
        else:
            below = QRectF(area.left(), area.bottom() + 16, area.width(), 16)
            painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, title)

    def _draw_legend(self, painter: QPainter, area: QRectF) -> None:
        """Names of the models, where there are several."""
        x = area.left() + 4
        for model in self._models if len(self._models) > 1 else []:
            painter.setPen(self._color(model))
            painter.drawText(QPointF(x, area.top() - 5), f"● {model}")
            x += painter.fontMetrics().horizontalAdvance(f"● {model}") + 14

    # drawing and clicks

    def _forget(self) -> None:
        self._picture = None
        self.update()

    def _drawn(self) -> QPixmap:
        ratio = self.devicePixelRatioF()
        if self._picture is None or self._picture.size() != self.size() * ratio:
            self._marks, self._marked = np.empty((0, 2)), []
            self._picture = QPixmap(self.size() * ratio)
            self._picture.setDevicePixelRatio(ratio)
            self._picture.fill(Qt.GlobalColor.transparent)
            painter = QPainter(self._picture)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            font = painter.font()
            font.setPixelSize(11)
            painter.setFont(font)
            top = self.top + (14 if len(self._models) > 1 else 0)
            area = QRectF(
                self.left,
                top,
                max(1, self.width() - self.left - self.right),
                max(1, self.height() - top - self.bottom),
            )
            self._draw(painter, area)
            self._draw_legend(painter, area)
            painter.end()
        return self._picture

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802  Qt's name
        """Copy the picture, and ring the chosen point."""
        painter = QPainter(self)
        painter.drawPixmap(0, 0, self._drawn())
        place = None if self._chosen is None else self.place_of(self._chosen)
        if place is not None:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(QPen(self._text_color, 2))
            painter.drawEllipse(place, 6, 6)
        painter.end()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802  Qt's name
        """Another theme has other colours."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self._forget()

    def _at(self, place: QPointF) -> SliceScore | None:
        self._drawn()
        if not self._marked:
            return None
        away = np.hypot(self._marks[:, 0] - place.x(), self._marks[:, 1] - place.y())
        nearest = int(away.argmin())
        return self._marked[nearest] if away[nearest] <= _REACH else None

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802  Qt's name
        """Pick the point."""
        score = self._at(event.position())
        if score is not None and event.button() == Qt.MouseButton.LeftButton:
            self.picked.emit(score)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802  Qt's name
        """Say what the point is."""
        score = self._at(event.position())
        self.setCursor(Qt.CursorShape.ArrowCursor if score is None else Qt.CursorShape.PointingHandCursor)
        if score is None:
            QToolTip.hideText()
        else:
            view = score.view
            told = f"{score.organ}, {view.plane} slice {view.index}\n{score.strategy}, {score.model}"
            told += f"\nDice {score.dice:.3f}, IoU {score.iou:.3f}, predicted {score.iou_prediction:.3f}"
            QToolTip.showText(event.globalPosition().toPoint(), told, self)


class DicePlot(ScorePlot):
    """Dice of every answer, a row a strategy and model, with median, quartiles and whiskers."""

    _ROW = 30

    def groups(self) -> list[tuple[str, str]]:
        """Strategy and model of each row."""
        order = {model: number for number, model in enumerate(self._models)}
        found = dict.fromkeys((score.strategy, score.model) for score in self.scores)
        strategies = {strategy: None for strategy, _ in found}
        place = {strategy: number for number, strategy in enumerate(strategies)}
        return sorted(found, key=lambda pair: (place[pair[0]], order[pair[1]]))

    def minimumSizeHint(self) -> QSize:  # noqa: N802  Qt's name
        """Room for each row."""
        return QSize(240, max(180, self._ROW * len(self.groups()) + self.top + self.bottom + 14))

    def show_scores(self, scores: Sequence[SliceScore], models: Sequence[str]) -> None:
        """Draw these."""
        super().show_scores(scores, models)
        self.setMinimumHeight(self.minimumSizeHint().height())

    def _draw(self, painter: QPainter, area: QRectF) -> None:
        groups = self.groups()
        names = [strategy for strategy, _ in groups]
        widest = max((painter.fontMetrics().horizontalAdvance(name) for name in names), default=0)
        area.setLeft(min(widest + 10, self.width() * 0.42))
        self._draw_scale(painter, area, "Dice")
        own: dict[tuple[str, str], list[SliceScore]] = {}
        for score in self.scores:
            own.setdefault((score.strategy, score.model), []).append(score)
        height = min(self._ROW * 1.6, area.height() / max(1, len(groups)))
        for number, group in enumerate(groups):
            y = area.top() + (number + 0.5) * height
            dice = np.array([score.dice for score in own[group]])
            places = np.stack([area.left() + dice * area.width(), y + _jitter(len(dice)) * height * 0.62], 1)
            self._mark(painter, own[group], places)
            self._draw_box(painter, area, dice, y, height * 0.36)
            if not number or names[number - 1] != group[0]:
                painter.setPen(self._text_color)
                name = painter.fontMetrics().elidedText(
                    group[0], Qt.TextElideMode.ElideMiddle, int(area.left() - 8)
                )
                where = QRectF(0, y - 9, area.left() - 6, 18)
                painter.drawText(where, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, name)

    def _draw_box(self, painter: QPainter, area: QRectF, values: np.ndarray, y: float, half: float) -> None:
        """Box of the quartiles; whiskers to the farthest value within 1.5 boxes of it."""
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        reach = 1.5 * (high - low)
        first, last = values[values >= low - reach].min(), values[values <= high + reach].max()
        x = [area.left() + value * area.width() for value in (first, low, middle, high, last)]
        painter.setPen(QPen(self._text_color, 1))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawLine(QPointF(x[0], y), QPointF(x[1], y))
        painter.drawLine(QPointF(x[3], y), QPointF(x[4], y))
        painter.drawRect(QRectF(x[1], y - half, x[3] - x[1], 2 * half))
        painter.setPen(QPen(self._text_color, 2.5))
        painter.drawLine(QPointF(x[2], y - half), QPointF(x[2], y + half))


class PredictedPlot(ScorePlot):
    """True IoU against the one that the model predicted; a model that knows itself lies on the diagonal."""

    def _draw(self, painter: QPainter, area: QRectF) -> None:
        side = min(area.width(), area.height())
        area.setSize(area.size().scaled(side, side, Qt.AspectRatioMode.KeepAspectRatio))
        self._draw_scale(painter, area, "predicted IoU")
        self._draw_scale(painter, area, "true IoU", vertical=True)
        painter.setPen(QPen(self._text_color, 1, Qt.PenStyle.DashLine))
        painter.drawLine(area.bottomLeft(), area.topRight())
        known = [score for score in self.scores if np.isfinite(score.iou_prediction)]
        predicted = np.clip([score.iou_prediction for score in known], 0.0, 1.0)
        true = np.array([score.iou for score in known])
        x, y = area.left() + predicted * area.width(), area.bottom() - true * area.height()
        self._mark(painter, known, np.stack([x, y], axis=1))


class MarginPlot(ScorePlot):
    """Dice by the largest margin of the box, with a line through the means of each model, as in the table."""

    def margins(self) -> list[int]:
        """Margins that were measured, ascending."""
        found = {margin_of(score.strategy) for score in self.scores}
        return sorted(margin for margin in found if margin is not None)

    def means(self) -> dict[tuple[str, int], float]:
        """Mean Dice by model and margin."""
        groups: dict[tuple[str, int], list[SliceScore]] = {}
        for score in self.scores:
            margin = margin_of(score.strategy)
            if margin is not None:
                groups.setdefault((score.model, margin), []).append(score)
        return {key: mean_dice(own) for key, own in groups.items()}

    def _draw(self, painter: QPainter, area: QRectF) -> None:
        self._draw_scale(painter, area, "Dice", vertical=True)
        margins = self.margins()
        step = area.width() / max(1, len(margins))
        x_of = {margin: area.left() + (number + 0.5) * step for number, margin in enumerate(margins)}
        painter.setPen(self._text_color)
        for margin, x in x_of.items():
            painter.drawText(
                QRectF(x - 24, area.bottom() + 2, 48, 15), Qt.AlignmentFlag.AlignHCenter, f"{margin}"
            )
        below = QRectF(area.left(), area.bottom() + 16, area.width(), 16)
        painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, "largest margin of the box, pixels")
        known = [score for score in self.scores if margin_of(score.strategy) is not None]
        for margin in margins:
            own = [score for score in known if margin_of(score.strategy) == margin]
            x = x_of[margin] + _jitter(len(own)) * step * 0.6
            y = area.bottom() - np.array([score.dice for score in own]) * area.height()
            self._mark(painter, own, np.stack([x, y], axis=1), faint=110)
        means = self.means()
        for model in self._models:
            line = [
                QPointF(x_of[margin], area.bottom() - means[model, margin] * area.height())
                for margin in margins
                if (model, margin) in means
            ]
            painter.setPen(QPen(self._color(model), 2.5))
            painter.drawPolyline(QPolygonF(line))
            for place in line:
                painter.drawEllipse(place, 3.0, 3.0)
