"""The work list, in sight above the sections as long as one is open: counts, cases, previous and next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import QPoint, QPointF, QSignalBlocker, QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPen, QPixmap, QPolygonF
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFrame,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import button, row, window_to_ask_in
from napari_sam_med.session.work_list_cases import Case

__all__ = ["WorkListPanel", "folder_button", "status_icon"]

_POSITION = Qt.ItemDataRole.UserRole
_LIST_HEIGHT = 118
_ICON = 14
_COLORS = {"new": "#8a909c", "in progress": "#ffb74d", "done": "#66bb6a", "problem": "#ef5350"}


class WorkListPanel(QWidget):
    """Cases of the folder with their status; hidden while no work list is open."""

    def __init__(self, actions: Actions) -> None:
        super().__init__()
        self._control = actions.work_list
        self._give_keyboard_back = actions.bridge.give_keyboard_to_canvas
        frame = QFrame()
        frame.setObjectName("samMedCases")
        frame.setStyleSheet("QFrame#samMedCases { border: 1px solid #2d72d9; border-radius: 6px; }")
        self._icons = {name: status_icon(name) for name in _COLORS}
        self.title = QLabel()
        self.title.setStyleSheet("font-weight: bold;")
        self.fold = _tool("", "Show or hide the list of cases.", self._on_fold)
        self.fold.setCheckable(True)
        self.fold.setChecked(True)
        self.fold.setArrowType(Qt.ArrowType.DownArrow)
        self.close_list = _tool(
            "✕", "Close the work list; labels are saved, and the scan stays open.", self._control.close
        )
        self.counts = QLabel()
        self.counts.setWordWrap(True)
        self.previous = button(
            "◀  Previous", "Save, and open the case before this one (Alt-←).", self._previous
        )
        self.next = button("Next  ▶", "Save, and open the next case (Alt-→).", self._next)
        self.done = button(
            "Done, next",
            "Save, mark this case as done, and open the next one that is not (Alt-D).",
            self._control.finish,
        )
        self.list = self._made_list()
        self.only_open = QCheckBox("Only what is not done")
        self.only_open.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.only_open.setToolTip("Hide cases that are done; Next and Previous leave them out.")
        self.only_open.toggled.connect(self._on_only_open)
        self.place = QLabel()
        self.place.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.place.setStyleSheet("color: rgba(160, 165, 175, 255); font-size: 11px;")
        self._shown: list[str] = []
        self._shown_position: int | None = None
        outer = QVBoxLayout(self)
        outer.setContentsMargins(6, 4, 6, 0)
        outer.addWidget(frame)
        layout = QVBoxLayout(frame)
        layout.setContentsMargins(10, 5, 10, 7)
        layout.setSpacing(5)
        layout.addLayout(row(self.title, self.fold, self.close_list, stretch_first=True))
        layout.addWidget(self.counts)
        layout.addLayout(row(self.previous, self.next, self.done))
        layout.addWidget(self.list)
        layout.addLayout(row(self.only_open, self.place, stretch_first=True))
        self._control.changed.connect(self.refresh)
        self.refresh()

    def _made_list(self) -> QListWidget:
        made = QListWidget()
        made.setIconSize(QSize(_ICON, _ICON))
        made.setUniformItemSizes(True)
        made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        made.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        made.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        made.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        made.itemDoubleClicked.connect(lambda item: self._open(item.data(_POSITION)))
        made.customContextMenuRequested.connect(self._on_context_menu)
        return made

    # showing

    def refresh(self, *_: object) -> None:
        """Show the list as it is."""
        control = self._control
        work_list = control.work_list
        self.setVisible(work_list is not None)
        if work_list is None:
            self._shown, self._shown_position = [], None
            return
        self.title.setText(
            self.fontMetrics().elidedText(work_list.folder.name, Qt.TextElideMode.ElideMiddle, 210)
        )
        self.title.setToolTip(f"Work list of {work_list.folder}")
        self.counts.setText(work_list.summary)
        self.place.setText(f"saved in: {work_list.output.name}")
        self.place.setToolTip(f"Labels are saved in {work_list.output}")
        keys = [str(work_list.output), *(case.key for case in work_list.cases)]
        if keys != self._shown:
            self._rebuild(work_list.cases)
            self._shown = keys
        current = control.current
        n_cases = len(work_list.cases)
        position = control.asked_for
        with QSignalBlocker(self.list):
            for place, case in enumerate(work_list.cases):
                self._fill(self.list.item(place), case, current is not None and current.case == case)
            if position != self._shown_position:
                self.list.setCurrentRow(position)
                self.list.scrollToItem(self.list.item(position))
                self._shown_position = position
        self.previous.setEnabled(position > 0)
        self.next.setEnabled(position < n_cases - 1)
        self.done.setEnabled(current is not None)
        if current is not None:
            self.done.setToolTip(
                f"Save, mark {current.case.name} as done, and open the next case that is not (Alt-D)."
            )

    def _rebuild(self, cases: tuple[Case, ...]) -> None:
        self._shown_position = None
        with QSignalBlocker(self.list):
            self.list.clear()
            for place, case in enumerate(cases):
                item = QListWidgetItem(case.name)
                item.setData(_POSITION, place)
                self.list.addItem(item)
        rows = len(cases) * self.list.sizeHintForRow(0) + 2 * self.list.frameWidth() + 4
        self.list.setFixedHeight(min(_LIST_HEIGHT, rows))

    def _fill(self, item: QListWidgetItem, case: Case, is_current: bool) -> None:
        status = self._control.work_list.status(case)
        problem = self._control.problems.get(case.key)
        seen = (status, problem, is_current)
        if item.data(_POSITION + 1) != repr(seen):
            item.setData(_POSITION + 1, repr(seen))
            item.setIcon(self._icons["problem" if problem else status])
            font = item.font()
            font.setBold(is_current)
            item.setFont(font)
            lines = [case.key, status if problem is None else f"could not be opened: {problem}"]
            item.setToolTip("\n".join([*lines, "Double click opens it; right click: more."]))
        item.setHidden(self.only_open.isChecked() and status == "done" and not is_current)

    # the user's clicks

    def _open(self, position: int) -> None:
        self._control.open_position(position)
        self._give_keyboard_back()

    def _previous(self) -> None:
        self._control.go(-1)
        self._give_keyboard_back()

    def _next(self) -> None:
        self._control.go(1)
        self._give_keyboard_back()

    def _on_only_open(self, is_on: bool) -> None:
        self._control.passes_done = is_on
        self.refresh()

    def _on_fold(self) -> None:
        is_open = self.fold.isChecked()
        self.fold.setArrowType(Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow)
        for widget in (self.list, self.only_open, self.place):
            widget.setVisible(is_open)

    def _on_context_menu(self, place: QPoint) -> None:
        item = self.list.itemAt(place)
        if item is not None:
            self.menu_of(item.data(_POSITION)).popup(self.list.viewport().mapToGlobal(place))

    def menu_of(self, position: int) -> QMenu:
        """What can be done with a case."""
        control = self._control
        case = control.work_list.cases[position]
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction("Open", lambda: self._open(position))
        if control.work_list.status(case) == "done":
            menu.addAction("Mark as not done", lambda: control.mark(case, "in progress"))
        else:
            menu.addAction("Mark as done", lambda: control.mark(case, "done"))
        return menu


def folder_button(actions: Actions) -> QPushButton:
    """Opens a folder of cases, the one of the last time among them."""
    made = button(
        "Open folder of cases", "Work through all scans of a folder, one after the other.", lambda: None
    )
    menu = QMenu(made)
    menu.aboutToShow.connect(lambda: _fill_menu(menu, actions))
    made.setMenu(menu)
    return made


def _fill_menu(menu: QMenu, actions: Actions) -> None:
    menu.clear()
    last = actions.settings.work_list_folder
    menu.addAction("Choose a folder…", lambda: _choose(actions))
    menu.addAction("Choose a folder, and where its labels go…", lambda: _choose(actions, with_output=True))
    if last:
        open_now = actions.work_list.work_list
        action = menu.addAction(
            f"Go on with {Path(last).name}", lambda: actions.work_list.open_folder(Path(last))
        )
        action.setToolTip(last)
        action.setEnabled(open_now is None or str(open_now.folder) != last)


def _choose(actions: Actions, *, with_output: bool = False) -> None:
    window, last = window_to_ask_in(), actions.settings.work_list_folder
    folder = QFileDialog.getExistingDirectory(window, "Open a folder of cases", last)
    if not folder:
        return
    output = None
    if with_output:
        output = QFileDialog.getExistingDirectory(window, "Where its labels are saved", folder)
        if not output:
            return
    actions.work_list.open_folder(Path(folder), Path(output) if output else None)


def status_icon(name: str) -> QIcon:
    """A ring for new, half a disk for in progress, a disk with a tick for done, a triangle for a problem."""
    picture = QPixmap(QSize(_ICON, _ICON))
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    color = QColor(_COLORS[name])
    painter.setPen(QPen(color, 1.5))
    if name == "problem":
        painter.setBrush(color)
        painter.drawPolygon(QPolygonF([QPointF(7, 1.5), QPointF(13, 12.5), QPointF(1, 12.5)]))
        painter.setPen(QPen(QColor("white"), 1.5))
        painter.drawLine(QPointF(7, 5.5), QPointF(7, 8.5))
        painter.drawPoint(QPointF(7, 11))
    elif name == "done":
        painter.setBrush(color)
        painter.drawEllipse(1, 1, 12, 12)
        painter.setPen(QPen(QColor("white"), 1.8))
        painter.drawPolyline(QPolygonF([QPointF(4, 7.2), QPointF(6.2, 9.5), QPointF(10.2, 4.8)]))
    else:
        painter.drawEllipse(1, 1, 12, 12)
        if name == "in progress":
            painter.setBrush(color)
            painter.drawPie(1, 1, 12, 12, 90 * 16, 180 * 16)
    painter.end()
    icon = QIcon()
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):  # Qt would dim the icon of the selected row
        icon.addPixmap(picture, mode)
    return icon


def _tool(text: str, tip: str, clicked: Callable[[], object]) -> QToolButton:
    made = QToolButton()
    made.setText(text)
    made.setToolTip(tip)
    made.setAutoRaise(True)
    made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    made.clicked.connect(lambda: clicked())
    return made
