"""How the widget looks: sections, tool buttons, colour swatches. Native Qt under napari's theme."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer
from qtpy.QtGui import (
    QColor,
    QIcon,
    QPainter,
    QPaintEvent,
    QPalette,
    QPen,
    QPixmap,
    QShowEvent,
)
from qtpy.QtWidgets import (
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QButtonGroup,
    QComboBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLayout,
    QLineEdit,
    QMainWindow,
    QPushButton,
    QScrollBar,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_sam_med.gui.fold_button import ARROW, FoldButton, fold_arrow

__all__ = [
    "Combo",
    "Foldable",
    "InputManners",
    "Section",
    "button",
    "combo",
    "glyph",
    "labelled",
    "narrow_button",
    "note",
    "press",
    "row",
    "swatch",
    "tool_buttons",
    "window_to_ask_in",
]

_COMBO_MARGIN = 2
"""Pixels that styles keep free beside a combo box's text."""

_ANY_HEIGHT = (1 << 24) - 1
"""Qt's QWIDGETSIZE_MAX."""

_FAINT = 90
"""Alpha, of 255, of what is off."""

Color = tuple[float, float, float]


class Foldable(QCollapsible):
    """A section that is folded at first, and unfolds to whatever height its content takes at any time.

    Its arrows have the colour of its title, in any theme; superqt draws its own before there is one.
    """

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self.setDuration(0)
        self.toggled.connect(self._make_room)
        self.toggleButton().setIconSize(QSize(ARROW, ARROW))

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802  Qt's name
        """The theme is known by now."""
        super().showEvent(event)
        self._draw_arrows()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802  Qt's name
        """Another theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange):
            self._draw_arrows()

    def _draw_arrows(self) -> None:
        button = self.toggleButton()
        button.ensurePolished()
        color = button.palette().color(QPalette.ColorRole.ButtonText)
        self.setCollapsedIcon(fold_arrow(color, "right"))
        self.setExpandedIcon(fold_arrow(color, "down"))

    def put(self, body: QWidget) -> None:
        """Show a widget when unfolded; `addWidget` would keep it as low as it is when first seen."""
        self.content().layout().addWidget(body)

    def _make_room(self, is_open: bool) -> None:
        if is_open:
            self.content().setMaximumHeight(_ANY_HEIGHT)


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
        self.body.setContentsMargins(8, 4, 8, 6)
        self.body.setSpacing(4)
        title_label = QLabel(f"{number}   {title}")
        title_label.setObjectName("samMedTitle")
        self.heading = row(title_label)
        self.heading.addStretch(1)
        self.body.addLayout(self.heading)
        self.fold = FoldButton(self._show_details, self)
        self.fold.hide()
        self._details: list[QWidget] = []

    def add(self, item: QWidget | QLayout) -> None:
        """Put a widget or a row below what is there."""
        if isinstance(item, QWidget):
            self.body.addWidget(item)
        else:
            self.body.addLayout(item)

    def add_detail(self, item: QWidget | QLayout) -> None:
        """Put a widget or a row below what is there, that a button in the heading folds away."""
        if not self._details:
            self.heading.addWidget(self.fold)
            self.fold.show()
        detail = QWidget()
        layout = QVBoxLayout(detail)
        layout.setContentsMargins(0, 0, 0, 0)
        if isinstance(item, QWidget):
            layout.addWidget(item)
        else:
            layout.addLayout(item)
        detail.setVisible(not self.fold.is_folded)
        self._details.append(detail)
        self.body.addWidget(detail)

    def _show_details(self) -> None:
        for detail in self._details:
            detail.setVisible(not self.fold.is_folded)


def row(*widgets: QWidget, stretch_first: bool = False) -> QHBoxLayout:
    """Widgets side by side."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(5)
    for position, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if stretch_first and position == 0 else 0)
    return layout


def narrow_button(text: str, tip: str, clicked: Callable[[], object], width: int = 72) -> QPushButton:
    """A push button of at least so many pixels, and of more where the font needs them."""
    made = button(text, tip, clicked)
    made.setMinimumWidth(width)
    made.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
    return made


class _Caption(QLabel):
    """As wide as the longest caption of its section, in whatever font."""

    def __init__(self, text: str, longest: str) -> None:
        super().__init__(text)
        self._longest = longest
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Preferred)

    def sizeHint(self) -> QSize:  # noqa: N802  Qt's name
        """Room for the longest caption."""
        hint = super().sizeHint()
        needed, own = (self.fontMetrics().size(0, text).width() for text in (self._longest, self.text()))
        return QSize(hint.width() + max(0, needed - own), hint.height())


def labelled(text: str, widget: QWidget, *more: QWidget, longest: str = "Direction") -> QHBoxLayout:
    """A short caption and its widget; those with the same `longest` caption line up."""
    caption = _Caption(text, longest)
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


class Combo(QComboBox):
    """A combo box that shrinks with the dock; the middle of long entries is left out."""

    def __init__(self, tip: str) -> None:
        super().__init__()
        self._tip = tip
        self.setToolTip(tip)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def shown_text(self) -> str:
        """The chosen entry as far as there is room for it."""
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        field = self.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox, option, QStyle.SubControl.SC_ComboBoxEditField, self
        )
        return self.fontMetrics().elidedText(
            self.currentText(), Qt.TextElideMode.ElideMiddle, field.width() - _COMBO_MARGIN
        )

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802  Qt's name
        """Draw as Qt does, with the elided text."""
        painter = QStylePainter(self)
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        option.currentText = self.shown_text()
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)

    def event(self, event: QEvent) -> bool:
        """Name the entry in the tooltip, and what there is to say of it."""
        if event.type() == QEvent.Type.ToolTip:  # only now: entries are renamed at any time
            more = self.currentData(Qt.ItemDataRole.ToolTipRole)
            self.setToolTip("\n".join(text for text in (self.currentText(), more, self._tip) if text))
        return super().event(event)


_ENTER = (Qt.Key.Key_Return, Qt.Key.Key_Enter)


class InputManners(QObject):
    """Keeps the inputs of a panel from surprises.

    The wheel scrolls the panel and changes only the input that has the keyboard; when a choice is made, the
    keyboard goes back to the canvas, where the shortcuts work. Enter in an input is not also one of those.

    Parameters
    ----------
    panel : QWidget
        All combo boxes, sliders and spin boxes in it are watched.
    give_back : callable
        Gives the keyboard to the canvas.
    """

    def __init__(self, panel: QWidget, give_back: Callable[[], object]) -> None:
        super().__init__(panel)
        self._give_back = give_back
        self._enter_is_used = False
        panel.installEventFilter(self)  # a key that an input leaves comes up to here
        for kind in (QComboBox, QAbstractSlider, QAbstractSpinBox):
            for widget in panel.findChildren(kind):
                if not isinstance(widget, QScrollBar):
                    self._watch(widget)
        for line in panel.findChildren(QLineEdit):
            line.installEventFilter(self)

    def _watch(self, widget: QWidget) -> None:
        widget.installEventFilter(self)
        if widget.focusPolicy() == Qt.FocusPolicy.WheelFocus:
            widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        if isinstance(widget, QComboBox):
            widget.activated.connect(lambda _: self._give_back())
            widget.view().installEventFilter(self)
        elif isinstance(widget, QAbstractSpinBox):
            widget.lineEdit().returnPressed.connect(lambda: self._give_back())

    def _forget_enter(self) -> None:
        self._enter_is_used = False

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802  Qt's name
        """Hand the wheel on, see lists close without a choice, and keep Enter from the canvas."""
        if event.type() == QEvent.Type.KeyPress and event.key() in _ENTER:
            if watched is self.parent():
                return self._enter_is_used
            # as long as the key comes up to the panel; the input may have lost the keyboard meanwhile
            self._enter_is_used = True
            QTimer.singleShot(0, self._forget_enter)
        if watched is self.parent():
            return False
        if event.type() == QEvent.Type.Wheel and not isinstance(watched, QAbstractItemView):
            if not watched.hasFocus():
                event.ignore()  # so that Qt offers it to the scroll area
                return True
        elif event.type() == QEvent.Type.Hide and isinstance(watched, QAbstractItemView):
            QTimer.singleShot(0, self._give_back)
        return False


def combo(tip: str) -> Combo:
    """A combo box that shrinks with the dock; long entries are elided, not cut."""
    return Combo(tip)


def note(text: str = "") -> QLabel:
    """Small text that wraps."""
    made = QLabel(text)
    made.setWordWrap(True)
    made.setStyleSheet("font-size: 11px;")
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


def press(buttons: Mapping[str, QToolButton], key: str | None) -> None:
    """Have one of `tool_buttons` down, or none: Qt lets none of a group go by itself."""
    for name, made in buttons.items():
        group = made.group()
        group.setExclusive(False)
        made.setChecked(name == key)
        group.setExclusive(True)


def window_to_ask_in() -> QWidget | None:
    """The parent of a dialog that no widget opens: the active window, else napari's. Without one it is white
    in the dark theme, and may come up behind napari.
    """
    shown = (widget for widget in QApplication.topLevelWidgets() if widget.isVisible())
    return QApplication.activeWindow() or next((w for w in shown if isinstance(w, QMainWindow)), None)


def swatch(color: Color, size: int = 14) -> QIcon:
    """A filled square in a colour."""
    picture = _blank(size)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor(255, 255, 255, 90), 1))
    painter.setBrush(QColor.fromRgbF(*color))
    painter.drawRoundedRect(1, 1, size - 2, size - 2, 3, 3)
    painter.end()
    icon = QIcon(picture)
    icon.addPixmap(picture, QIcon.Mode.Selected)  # else Qt tints it in a row that is selected
    return icon


def glyph(name: str, on: bool, color: QColor, size: int = 16) -> QIcon:
    """An eye or a padlock, faint when off; drawn, so that no font has to have it."""
    picture = _blank(size)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    color = QColor(color)
    if not on:
        color.setAlpha(_FAINT)
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
