"""Section 3, Organs: the organ table with live volumes, and the objects of each organ."""

from __future__ import annotations

from dataclasses import replace

from qtpy.QtCore import QEvent, QSignalBlocker, QSize, Qt, QTimer
from qtpy.QtGui import QColor, QPalette
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QColorDialog,
    QHeaderView,
    QInputDialog,
    QMenu,
    QTreeWidget,
    QTreeWidgetItem,
)

from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import Section, button, glyph, note, row, swatch
from napari_sam_med.session.changes import Change
from napari_sam_med.session.objects import AnnotatedObject
from napari_sam_med.volume.organs import Organ, OrganTable, default_color

__all__ = ["HIGHEST_LIST", "LOWEST_LIST", "OrganPanel"]

LOWEST_LIST, HIGHEST_LIST = 80, 190
"""Pixels that the list of organs takes on a low screen, and on one with room."""

_NAME, _VOLUME, _VISIBLE, _LOCKED = range(4)
_CLASS_ID = Qt.ItemDataRole.UserRole
_OBJECT_ID = Qt.ItemDataRole.UserRole + 1
_REBUILD_MS = 60


class OrganPanel(Section):
    """Choose, add, rename, colour, hide and lock organs; choose among an organ's objects."""

    def __init__(self, actions: Actions) -> None:
        super().__init__(3, "Organs")
        self._actions = actions
        self._session = actions.session
        self.tree = self._made_tree()
        self.add(self.tree)
        self.add_button = button(
            "Add organ", "Add one of the 13 BTCV organs, or one of your own.", lambda: None
        )
        self._menu = QMenu(self.add_button)
        self._menu.aboutToShow.connect(self._fill_menu)
        self.add_button.setMenu(self._menu)
        self.new_object = button(
            "New object", "The next prompt starts another object of this organ (K).", actions.new_object
        )
        self.remove = button(
            "Remove",
            "Remove the selected object or organ with its voxels; Ctrl-Z brings it back.",
            self._remove,
        )
        self.add(row(self.add_button, self.new_object, self.remove))
        # always there, so that nothing below moves when a suggestion comes and goes
        self.suggestion = note(" ")
        self.suggestion.setWordWrap(False)
        self.suggestion.setMinimumWidth(1)
        self.suggests = QCheckBox("Suggest the organ of a mask")
        self.suggests.setToolTip(
            "On axial slices of CT: say which of the 13 BTCV organs a proposed mask looks like, where that\n"
            "is sure enough. Nothing is renamed unless you press Shift-Enter."
        )
        self.fold.setToolTip("The organ that a mask looks like, and whether that is told.")
        self.suggests.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.suggests.setChecked(actions.suggesting.is_on)
        self.suggests.toggled.connect(actions.suggesting.switch)
        actions.suggesting.changed.connect(self._show_suggestion)
        self.add_detail(self.suggestion)
        self.add_detail(self.suggests)
        self.names = button("Use the names from before", "", self._use_names)
        self.names.setVisible(False)
        self.add(self.names)
        self._names: OrganTable | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REBUILD_MS)
        self._timer.timeout.connect(self.refresh)
        events = self._session.events
        for signal in (events.organs, events.objects, events.active_class_id, events.active_object_id):
            signal.connect(self._later)
        self._session.counts_changed.connect(self._later)
        actions.scans.opened.connect(self.refresh)
        actions.scans.names_offered.connect(self._offer_names)
        self.refresh()

    def _made_tree(self) -> QTreeWidget:
        tree = QTreeWidget()
        tree.setColumnCount(4)
        tree.setHeaderLabels(["Organ", "ml", "", ""])
        tree.setIconSize(QSize(16, 16))
        tree.setIndentation(14)
        tree.setUniformRowHeights(True)
        tree.setFixedHeight(LOWEST_LIST)
        tree.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        tree.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        tree.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        tree.setToolTip(
            "Click: go on with this organ or object (K: a new object). Double click: rename. "
            "Right click: colour and more. "
            "Eye: show or hide. Padlock: keep from any change."
        )
        header = tree.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(24)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(_VOLUME, QHeaderView.ResizeMode.Fixed)
        header.resizeSection(_VOLUME, 62)
        for column in (_VISIBLE, _LOCKED):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            header.resizeSection(column, 26)
        tree.itemClicked.connect(self._on_clicked)
        tree.itemDoubleClicked.connect(self._on_double_clicked)
        tree.customContextMenuRequested.connect(self._on_context_menu)
        return tree

    # showing

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802  Qt's name
        """Another theme."""
        super().changeEvent(event)
        is_theme = event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange)
        if is_theme and hasattr(self, "_timer"):  # the first comes while it is made
            self._later()

    def _later(self, *_: object) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def refresh(self) -> None:
        """Show the table, the objects and the volumes as they are."""
        session = self._session
        wanted = [
            (class_id, sorted(i for i, o in session.objects.items() if o.class_id == class_id))
            for class_id in session.organs
        ]
        with QSignalBlocker(self.tree):
            if wanted != self._shown():
                self._rebuild(wanted)
            for position, (class_id, object_ids) in enumerate(wanted):
                item = self.tree.topLevelItem(position)
                self._fill_organ(item, session.organs[class_id])
                for child, object_id in enumerate(object_ids):
                    self._fill_object(item.child(child), session.objects[object_id])
            self._select()
        self.names.setVisible(bool(self._unnamed()))
        has_scan = session.volume is not None
        for made in (self.add_button, self.new_object, self.remove):
            made.setEnabled(has_scan)

    def _show_suggestion(self) -> None:
        text = self._actions.suggesting.text
        self.suggestion.setText(text or " ")
        self.suggestion.setToolTip(text)

    def _shown(self) -> list[tuple[int, list[int]]]:
        shown = []
        for position in range(self.tree.topLevelItemCount()):
            item = self.tree.topLevelItem(position)
            children = [item.child(i).data(0, _OBJECT_ID) for i in range(item.childCount())]
            shown.append((item.data(0, _CLASS_ID), children))
        return shown

    def _rebuild(self, wanted: list[tuple[int, list[int]]]) -> None:
        self.tree.clear()
        for class_id, object_ids in wanted:
            item = QTreeWidgetItem(self.tree)
            item.setData(0, _CLASS_ID, class_id)
            item.setTextAlignment(_VOLUME, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            for object_id in object_ids:
                child = QTreeWidgetItem(item)
                child.setData(0, _OBJECT_ID, object_id)
                child.setFirstColumnSpanned(True)
            item.setExpanded(True)

    def _fill_organ(self, item: QTreeWidgetItem, organ: Organ) -> None:
        color = self.tree.palette().color(QPalette.ColorRole.Text)
        key = (organ, self._session.voxel_count(organ.class_id), color.name())
        if item.data(1, _CLASS_ID) == repr(key):
            return
        item.setData(1, _CLASS_ID, repr(key))
        item.setText(_NAME, organ.name)
        item.setIcon(_NAME, swatch(organ.color))
        item.setIcon(_VISIBLE, glyph("eye", organ.visible, color))
        item.setIcon(_LOCKED, glyph("lock", organ.locked, color))
        count = key[1]
        item.setText(_VOLUME, f"{self._session.volume_ml(organ.class_id):.1f}" if count else "–")
        item.setToolTip(
            _NAME, f"{organ.name}: label {organ.class_id}, {count} voxels. Double click renames it."
        )
        item.setToolTip(_VISIBLE, "Hide" if organ.visible else "Show")
        item.setToolTip(_LOCKED, "Unlock" if organ.locked else "Lock: nothing may change this organ")

    def _fill_object(self, item: QTreeWidgetItem, annotated: AnnotatedObject) -> None:
        is_named_after_organ = annotated.name == self._session.organs.name_of(annotated.class_id)
        quality = annotated.quality_text
        text = quality if is_named_after_organ else f"{annotated.name}: {quality}"
        if item.text(_NAME) != text:
            item.setText(_NAME, text)
            reasons = [f"{way}: {reason}" for way, reason in sorted(annotated.stop_reasons.items())]
            item.setToolTip(
                _NAME,
                "\n".join(
                    [text, *reasons, "Numbers are quality, 0 to 1; N goes to the next doubtful slice."]
                ),
            )

    def _select(self) -> None:
        session = self._session
        for position in range(self.tree.topLevelItemCount()):
            item = self.tree.topLevelItem(position)
            if item.data(0, _CLASS_ID) != session.active_class_id:
                continue
            chosen = item
            for number in range(item.childCount()):
                if item.child(number).data(0, _OBJECT_ID) == session.active_object_id:
                    chosen = item.child(number)
            if self.tree.currentItem() is not chosen:
                self.tree.setCurrentItem(chosen)

    def _offer_names(self, organs: OrganTable) -> None:
        self._names = organs
        names = ", ".join(f"{i} {organs.name_of(i)}" for i in self._unnamed())
        self.names.setToolTip(
            f"The file names no organs. If its numbers mean what they meant before: {names}.\nOne undo step."
        )
        self._actions.status.emit(
            f'The file names no organs. "{self.names.text()}" under Organs takes: {names}.'
        )
        self.refresh()

    def _unnamed(self) -> list[int]:
        """Organs without a name for which one is offered."""
        offered, organs = self._names or {}, self._session.organs
        return [i for i in offered if i in organs and organs[i].name == f"label {i}" != offered[i].name]

    def _use_names(self) -> None:
        before, offered = self._session.annotations, self._names
        if offered is not None:
            named = len(self._unnamed())
            after = replace(before, organs=offered.covering(before.organs))
            self._session.commit(Change("Use the names from before", (), before, after))
            self._actions.status.emit(
                f"The organs have their names from before ({named}). Ctrl-Z takes them away again."
            )

    # the user's clicks

    def _organ_of(self, item: QTreeWidgetItem | None) -> Organ | None:
        class_id = None if item is None else item.data(0, _CLASS_ID)
        return None if class_id is None else self._session.organs.get(class_id)

    def _on_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        organ = self._organ_of(item)
        if organ is None:
            self._session.select_object(item.data(0, _OBJECT_ID))
            self._show_object(item.data(0, _OBJECT_ID))
        elif column == _VISIBLE:
            self._session.set_organ(replace(organ, visible=not organ.visible))
        elif column == _LOCKED:
            self._session.set_organ(replace(organ, locked=not organ.locked))
        else:
            self._session.go_on_with_organ(organ.class_id)

    def _show_object(self, object_id: int) -> None:
        """Move to a slice of the object, unless the one at hand shows it already."""
        annotated = self._session.objects[object_id]
        here = self._actions.bridge.current_view()
        if here in annotated.masks or here in annotated.key_slices:
            return
        keys = list(annotated.key_slices) or list(annotated.masks)
        if keys and here is not None:
            self._actions.bridge.go_to(keys[0])

    def _on_double_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        organ = self._organ_of(item)
        if organ is not None and column in (_VISIBLE, _LOCKED):
            return
        old = organ.name if organ is not None else self._session.objects[item.data(0, _OBJECT_ID)].name
        name, is_given = QInputDialog.getText(self, "SAM Med", "Name", text=old)
        name = name.strip()
        if not is_given or not name:
            return
        if organ is not None:
            self._session.set_organ(replace(organ, name=name))
        else:
            self._session.rename_object(item.data(0, _OBJECT_ID), name)

    def _on_context_menu(self, position: object) -> None:
        item = self.tree.itemAt(position)
        organ = self._organ_of(item)
        if item is None:
            return
        menu = QMenu(self)
        menu.addAction("Rename…", lambda: self._on_double_clicked(item, _NAME))
        if organ is not None:
            menu.addAction("Colour…", lambda: self._ask_color(organ))
        menu.addAction("Remove", lambda: self._remove(item))
        menu.exec(self.tree.viewport().mapToGlobal(position))

    def _ask_color(self, organ: Organ) -> None:
        color = QColorDialog.getColor(QColor.fromRgbF(*organ.color), self, f"Colour of {organ.name}")
        if color.isValid():
            red, green, blue, _ = color.getRgbF()
            clipped = tuple(min(1.0, max(0.0, value)) for value in (red, green, blue))
            self._session.set_organ(replace(organ, color=clipped))

    def _fill_menu(self) -> None:
        self._menu.clear()
        for organ in OrganTable.btcv().values():
            if organ.class_id not in self._session.organs:
                self._menu.addAction(
                    swatch(organ.color), organ.name, lambda organ=organ: self.add_organ(organ)
                )
        self._menu.addSeparator()
        self._menu.addAction("Organ of your own…", self._ask_new)

    def _ask_new(self) -> None:
        name, is_given = QInputDialog.getText(self, "SAM Med", "Name of the organ")
        if is_given and name.strip():
            class_id = self._session.organs.next_free_id()
            self.add_organ(Organ(class_id, name.strip(), default_color(class_id)))

    def add_organ(self, organ: Organ) -> None:
        """Add an organ and make it the active one."""
        self._session.set_organ(organ)
        self._session.select_organ(organ.class_id)

    def _remove(self, item: QTreeWidgetItem | None = None) -> None:
        item = self.tree.currentItem() if item is None else item
        organ = self._organ_of(item)
        if item is None:
            return
        if organ is not None:
            self._actions.attempt(lambda: self._session.remove_organ(organ.class_id))
        else:
            object_id = item.data(0, _OBJECT_ID)
            self._actions.attempt(lambda: self._session.remove_object(object_id))
