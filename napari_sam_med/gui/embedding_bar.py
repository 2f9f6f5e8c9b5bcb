"""Which slices are embedded, as a video player shows what is loaded; and the switch that turns it off."""

from __future__ import annotations

from collections.abc import Iterator

from qtpy.QtCore import QEvent, QRectF, QSize, Qt, QTimer
from qtpy.QtGui import QColor, QHelpEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QCheckBox, QLabel, QSizePolicy, QToolTip, QVBoxLayout, QWidget

from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import row
from napari_sam_med.gui.embedding_ahead import AheadState
from napari_sam_med.wording import number_of

__all__ = ["EmbeddingBar", "EmbeddingStrip", "runs_of", "text_of"]

_MEANING = (
    "Slices that the model has seen: a click on those is answered at once. The nearest come first;\n"
    "slices of air and what there is no room for are left out."
)
_REDRAW_MS = 100
_SIDE, _TOP, _HEIGHT = 5, 3, 5
_TROUGH, _AIR, _READY = QColor(58, 61, 70), QColor(96, 100, 112), QColor(116, 173, 209)
_AT_RIM, _AT = QColor(20, 20, 25), QColor(255, 255, 255)


class EmbeddingStrip(QWidget):
    """The slices of the plane at hand from first to last: ready ones are light, those of air grey."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state: AheadState | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setAccessibleName("Slices that are embedded")

    def show_state(self, state: AheadState | None, text: str) -> None:
        """Show something else, said as `text` to who cannot see it; drawn when Qt draws next."""
        if state != self._state:
            self._state = state
            self.update()
        self.setAccessibleDescription(text)

    def sizeHint(self) -> QSize:  # noqa: N802  Qt's name
        """As wide as there is room, always of one height."""
        return QSize(200, 2 * _TOP + _HEIGHT)

    def left_of(self, index: int) -> float:
        """Where a slice begins, in pixels of the widget."""
        n_slices = 1 if self._state is None else self._state.stack.n_slices
        return _SIDE + (self.width() - 2 * _SIDE) * index / n_slices

    def text_at(self, x: float) -> str:
        """What there is to say of the slice at a place of the widget."""
        if self._state is None:
            return ""
        stack = self._state.stack
        share = (x - _SIDE) / max(1, self.width() - 2 * _SIDE)
        index = min(max(int(share * stack.n_slices), 0), stack.n_slices - 1)
        if index in stack.ready:
            return f"Slice {index}: ready, a click is answered at once"
        if index in stack.air:
            return f"Slice {index}: shows nothing but air, and is left out"
        return f"Slice {index}: not ready, a click on it waits for the model"

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802  Qt's name
        """Draw the trough, what is ready in it, and where the user is."""
        painter = QPainter(self)
        painter.fillRect(QRectF(_SIDE, _TOP, self.width() - 2 * _SIDE, _HEIGHT), _TROUGH)
        if self._state is None:
            return
        for indices, color in ((self._state.stack.air, _AIR), (self._state.stack.ready, _READY)):
            for first, last in runs_of(indices):
                left = self.left_of(first)
                painter.fillRect(QRectF(left, _TOP, self.left_of(last + 1) - left, _HEIGHT), color)
        x = (self.left_of(self._state.at) + self.left_of(self._state.at + 1)) / 2
        for width, color in ((4.0, _AT_RIM), (2.0, _AT)):
            painter.fillRect(QRectF(x - width / 2, 0, width, self.height()), color)

    def event(self, event: QEvent) -> bool:
        """Say what there is to say of the slice under the mouse."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            QToolTip.showText(event.globalPos(), self.text_at(event.pos().x()), self)
            return True
        return super().event(event)


class EmbeddingBar(QWidget):
    """The strip, its sum in words, and the switch; hidden while there is no scan or no model."""

    def __init__(self, actions: Actions) -> None:
        super().__init__()
        self._ahead = actions.model.ahead
        self._settings = actions.settings
        self.strip = EmbeddingStrip()
        self.text = QLabel()
        self.text.setStyleSheet("font-size: 11px;")
        policy = self.text.sizePolicy()
        policy.setHorizontalPolicy(QSizePolicy.Policy.Ignored)  # words must not widen the dock
        self.text.setSizePolicy(policy)
        self.switch = QCheckBox("Embed ahead")
        self.switch.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.switch.setToolTip(
            "Let the model look at the slices of this plane before you click on them, the nearest first,\n"
            "so that a click on any of them is answered at once. It waits while a prompt is answered or a\n"
            "mask carried; what is ready is kept for the next time. Off: less heat, and a first click waits."
        )
        self.switch.setChecked(self._settings.embeds_ahead)
        self._ahead.switch(self._settings.embeds_ahead)
        self.switch.toggled.connect(self._on_switch)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 0, 6, 0)
        layout.setSpacing(1)
        layout.addWidget(self.strip)
        layout.addLayout(row(self.text, self.switch, stretch_first=True))
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REDRAW_MS)
        self._timer.timeout.connect(self.refresh)
        self._ahead.changed.connect(self._later)
        actions.model.loaded.connect(self._later)
        self.refresh()

    def _later(self) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def _on_switch(self, is_on: bool) -> None:
        self._settings.remember(embeds_ahead=is_on)
        self._ahead.switch(is_on)

    def refresh(self) -> None:
        """Show how far it is."""
        state = self._ahead.state
        self.setVisible(state is not None)
        text = "" if state is None else text_of(state, self._ahead.is_on)
        self.text.setText(text)
        self.text.setToolTip(text if state is None else f"{text}\n{state.error or _MEANING}")
        # off, it is not known which are ready
        self.strip.show_state(state if self._ahead.is_on else None, text)


def text_of(state: AheadState, is_on: bool) -> str:
    """The state in a few words."""
    stack = state.stack
    n_ready, total = len(stack.ready), stack.n_slices - len(stack.air)
    if not is_on:
        return "Embedded when prompted"
    if total == 0:
        return "Nothing to prepare: all air"
    slices = number_of(total, "slice")
    if n_ready >= total:
        return f"{slices} ready" if total == 1 else f"All {slices} ready"
    text = f"{n_ready} of {slices} ready"
    if state.error:
        return f"{text}; stopped"
    if state.is_waiting:
        return f"{text}; waiting"
    return f"{text}: the nearest" if n_ready >= stack.room else text


def runs_of(indices: frozenset[int]) -> Iterator[tuple[int, int]]:
    """First and last index of each run of indices that follow one another, in their order."""
    first = last = None
    for index in sorted(indices):
        if last is not None and index != last + 1:
            yield first, last
            first = None
        first, last = index if first is None else first, index
    if last is not None:
        yield first, last
