"""The list of prompt strategies: ticks, and parameters that can be edited."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_sam_med.session.experiment_jobs import StrategyKind

__all__ = ["StrategyTree"]

_KIND = Qt.ItemDataRole.UserRole
_SNAPS, _FREE, _USUAL = "snap", "no snap", "standard"
_NONE = ("", _FREE, _USUAL)
_WHAT = {
    ":PIXELS": "pixels, separated by commas",
    ":SHARE": "shares of the box, separated by commas",
    ":POINTS": "points, separated by commas",
    ":CLICKS": "clicks, separated by commas",
    "[:PIXELS]": f'pixels that the Gaussian is wide, separated by commas, or "{_USUAL}"',
    "[:PIXELS][:snap]": f'pixels that the Gaussian is wide, snap, both as 50:snap, or "{_USUAL}"',
}


class StrategyTree(QTreeWidget):
    """Strategies by group.

    Signals
    -------
    ticked
        By the user: a tick or a parameter.
    """

    ticked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setColumnCount(2)
        self.setHeaderHidden(True)
        self.setUniformRowHeights(True)
        self.setIndentation(12)
        self.setMinimumHeight(150)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        # the theme draws an empty box like the ground below it
        box = "border: 1px solid rgba(160, 165, 175, 200); border-radius: 2px;"
        self.setStyleSheet(f"QTreeView::indicator:unchecked {{ {box} }}")
        header = self.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Fixed)
        header.resizeSection(1, 128)
        self.itemChanged.connect(lambda *_: self.ticked.emit())
        self.itemClicked.connect(self._on_clicked)

    def fill(self, kinds: Sequence[StrategyKind]) -> None:
        """List these, none ticked."""
        with QSignalBlocker(self):
            self.clear()
            groups: dict[str, QTreeWidgetItem] = {}
            for kind in kinds:
                if kind.group not in groups:
                    groups[kind.group] = QTreeWidgetItem(self, [kind.group, ""])
                    groups[kind.group].setFlags(Qt.ItemFlag.ItemIsEnabled)
                    groups[kind.group].setExpanded(True)
                item = QTreeWidgetItem(groups[kind.group], [kind.name, _parameters(kind, kind.parameters)])
                item.setData(0, _KIND, kind)
                item.setCheckState(0, Qt.CheckState.Unchecked)
                item.setFlags(
                    Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEditable
                )
                item.setToolTip(0, f"{kind.name}\n{kind.about}")
                item.setToolTip(1, _tip(kind))

    def items(self) -> list[QTreeWidgetItem]:
        """The rows of strategies."""
        groups = [self.topLevelItem(number) for number in range(self.topLevelItemCount())]
        return [group.child(number) for group in groups for number in range(group.childCount())]

    def names(self) -> list[str]:
        """What is ticked, as `parse_strategies` takes it."""
        found = []
        for item in self.items():
            if item.checkState(0) == Qt.CheckState.Checked:
                kind, given = item.data(0, _KIND), item.text(1)
                parameters = [part.strip() for part in given.split(",")]
                named = [kind.name if one in _NONE else f"{kind.name}:{one}" for one in parameters]
                found += dict.fromkeys(named)
        return found

    def tick(self, names: Sequence[str]) -> list[str]:
        """Tick these and no others; returns those that are not in the list."""
        wanted: dict[str, list[str]] = {}
        rest = []
        known = {item.data(0, _KIND).name for item in self.items()}
        for text in names:
            name, _, parameter = text.partition(":")
            if name in known and "+" not in text:
                wanted.setdefault(name, []).append(parameter)
            else:
                rest.append(text)
        with QSignalBlocker(self):
            for item in self.items():
                kind = item.data(0, _KIND)
                given = wanted.get(kind.name)
                item.setCheckState(0, Qt.CheckState.Unchecked if given is None else Qt.CheckState.Checked)
                if given is not None:
                    item.setText(1, _parameters(kind, given if any(given) else kind.parameters))
        self.viewport().update()
        return rest

    def _on_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        kind = item.data(0, _KIND)
        if kind is None:
            item.setExpanded(not item.isExpanded())
        elif column == 1 and _can_snap(kind):
            item.setText(1, _FREE if item.text(1) == _SNAPS else _SNAPS)
        elif column == 1 and kind.form:
            self.editItem(item, 1)


def _can_snap(kind: StrategyKind) -> bool:
    """Whether there is nothing to choose but whether clicks are moved onto the organ."""
    return kind.form == f"[:{_SNAPS}]"


def _parameters(kind: StrategyKind, parameters: Sequence[str]) -> str:
    if _can_snap(kind):
        return _SNAPS if _SNAPS in parameters else _FREE
    given = [one or _USUAL for one in parameters] if kind.form else []
    return ", ".join(given)


def _tip(kind: StrategyKind) -> str:
    if _can_snap(kind):
        return "Click to change. snap: a click beside the organ is moved to its nearest pixel."
    what = _WHAT.get(kind.form)
    return f"Click to edit: {what}." if what else ""
