"""How the widget looks: sections, tool buttons, colour swatches. Native Qt under napari's theme."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPen, QPixmap
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLayout,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

__all__ = ["Section", "button", "combo", "glyph", "labelled", "note", "row", "swatch", "tool_buttons"]

Color = tuple[float, float, float]


class Section(QFrame):
    """A titled group: a number, a title, and what belongs to it below."""

    def __init__(self, number: int, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("samMedSection")
        self.setStyleSheet(
            "QFrame#samMedSection { border: 1px solid rgba(128, 128, 128, 70); border-radius: 6px; }"
            "QLabel#samMedTitle { font-weight: bold; }"
        )
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(10, 7, 10, 9)
        self.body.setSpacing(6)
        heading = QLabel(f"{number}   {title}")
        heading.setObjectName("samMedTitle")
        self.body.addWidget(heading)

    def add(self, item: QWidget | QLayout) -> None:
        """Put a widget or a row below what is there."""
        if isinstance(item, QWidget):
            self.body.addWidget(item)
        else:
            self.body.addLayout(item)


def row(*widgets: QWidget, stretch_first: bool = False) -> QHBoxLayout:
    """Widgets side by side."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(5)
    for position, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if stretch_first and position == 0 else 0)
    return layout


def labelled(text: str, widget: QWidget, *more: QWidget, width: int = 64) -> QHBoxLayout:
    """A short caption and its widget; captions of one section line up."""
    caption = QLabel(text)
    caption.setFixedWidth(width)
    caption.setToolTip(widget.toolTip())
    layout = row(caption, widget, *more)
    layout.setStretch(1, 1)
    return layout


def button(text: str, tip: str, clicked: Callable[[], object]) -> QPushButton:
    """A push button that leaves the keyboard to the canvas."""
    made = QPushButton(text)
    made.setToolTip(tip)
    made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    made.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    made.clicked.connect(lambda: clicked())
    return made


def combo(tip: str) -> QComboBox:
    """A combo box that shrinks with the dock; long entries are elided, not cut."""
    made = QComboBox()
    made.setToolTip(tip)
    made.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    made.setMinimumContentsLength(8)
    made.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return made


def note(text: str = "") -> QLabel:
    """Small grey text that wraps."""
    made = QLabel(text)
    made.setWordWrap(True)
    made.setStyleSheet("color: rgba(160, 165, 175, 255); font-size: 11px;")
    made.setVisible(bool(text))
    return made


def tool_buttons(
    entries: list[tuple[str, str, str]], chosen: Callable[[str], object], columns: int
) -> tuple[QGridLayout, dict[str, QToolButton]]:
    """Buttons of which one is down: ``(key, text, tip)`` each."""
    layout = QGridLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(5)
    group = QButtonGroup(layout)
    buttons: dict[str, QToolButton] = {}
    for key, text, tip in entries:
        made = QToolButton()
        made.setText(text)
        made.setToolTip(tip)
        made.setCheckable(True)
        made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        made.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        made.setStyleSheet(
            "QToolButton { padding: 4px 6px; border-radius: 4px; background: rgba(128, 128, 128, 55); }"
            "QToolButton:hover { background: rgba(128, 128, 128, 95); }"
            "QToolButton:checked { background: #2d72d9; color: white; }"
            "QToolButton:disabled { color: rgba(128, 128, 128, 140); }"
        )
        made.clicked.connect(lambda _=False, key=key: chosen(key))
        group.addButton(made)
        layout.addWidget(made, len(buttons) // columns, len(buttons) % columns)
        buttons[key] = made
    return layout, buttons


def swatch(color: Color, size: int = 14) -> QIcon:
    """A filled square in a colour."""
    picture = _blank(size)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor(255, 255, 255, 90), 1))
    painter.setBrush(QColor.fromRgbF(*color))
    painter.drawRoundedRect(1, 1, size - 2, size - 2, 3, 3)
    painter.end()
    return QIcon(picture)


def glyph(name: str, on: bool, size: int = 16) -> QIcon:
    """An eye or a padlock, bright when on; drawn, so that no font has to have it."""
    picture = _blank(size)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    color = QColor(225, 228, 235) if on else QColor(140, 145, 155, 110)
    painter.setPen(QPen(color, 1.4))
    if name == "eye":
        painter.drawEllipse(2, 5, 12, 7)
        if on:
            painter.setBrush(color)
            painter.drawEllipse(6, 6, 4, 4)
        else:
            painter.drawLine(3, 14, 13, 3)
    else:
        painter.drawArc(5, 2, 6 if on else 8, 9, 0, 180 * 16)
        painter.setBrush(color if on else Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(3, 7, 10, 7, 2, 2)
    painter.end()
    return QIcon(picture)


def _blank(size: int) -> QPixmap:
    picture = QPixmap(QSize(size, size))
    picture.fill(Qt.GlobalColor.transparent)
    return picture
