"""Bringing a part of the dock into sight, without taking away what the user is at."""

from __future__ import annotations

from qtpy.QtCore import QPoint, QRect, Qt
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QApplication, QScrollArea, QWidget

__all__ = ["is_used_elsewhere", "scroll_area_of", "scroll_to"]

_MARGIN = 6
"""Pixels left free around what is brought into sight."""


def scroll_area_of(widget: QWidget) -> QScrollArea | None:
    """The scroll area that a widget lies in; None where it lies in none."""
    at = widget.parentWidget()
    while at is not None and not isinstance(at, QScrollArea):
        at = at.parentWidget()
    return at


def is_used_elsewhere(scroll: QScrollArea, panel: QWidget) -> bool:
    """Whether the mouse or the keyboard is at a part of a scroll area beside one panel of it, or a button of
    the mouse is down.
    """
    if QApplication.mouseButtons() != Qt.MouseButton.NoButton:
        return True
    at = QCursor.pos()
    is_over = _contains(scroll, at) and not _contains(panel, at)
    focus = scroll.window().focusWidget()  # also while another program is in front
    has_keys = focus is not None and scroll.isAncestorOf(focus) and not panel.isAncestorOf(focus)
    return is_over or has_keys


def scroll_to(scroll: QScrollArea, part: QWidget) -> None:
    """Scroll as little as shows all of a part, or its head where it is higher than what can be shown."""
    content, bar = scroll.widget(), scroll.verticalScrollBar()
    top = part.mapTo(content, QPoint(0, 0)).y() - _MARGIN
    bottom = top + part.height() + 2 * _MARGIN
    height = scroll.viewport().height()
    if not bar.value() <= top <= bottom <= bar.value() + height:
        bar.setValue(top if bar.value() > top or bottom - top > height else bottom - height)


def _contains(widget: QWidget, at: QPoint) -> bool:
    return QRect(QPoint(0, 0), widget.size()).contains(widget.mapFromGlobal(at))
