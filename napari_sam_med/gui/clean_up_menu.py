"""The menu of clean-up tools, each one undo step."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtGui import QActionGroup
from qtpy.QtWidgets import QInputDialog, QMenu, QWidget

from napari_sam_med.gui.actions import Actions

__all__ = ["CleanUpMenu"]

_MM3_PER_ML = 1000.0


class CleanUpMenu(QMenu):
    """Put shapes in order, of the active object or of the whole organ."""

    def __init__(self, actions: Actions, parent: QWidget) -> None:
        super().__init__(parent)
        self._actions = actions
        self._radius_mm, self._island_ml = 2.0, 0.5
        self.setToolTipsVisible(True)
        targets = QActionGroup(self)
        self.on_object = self.addAction("On this object")
        self.on_organ = self.addAction("On the whole organ")
        self.on_organ.setToolTip("Painted and imported voxels of the organ included.")
        for action in (self.on_object, self.on_organ):
            action.setCheckable(True)
            targets.addAction(action)
        self._wants_organ = False
        self.on_object.triggered.connect(lambda: self._choose(False))
        self.on_organ.triggered.connect(lambda: self._choose(True))
        self.addSeparator()
        clean_up = actions.reviewing.clean_up
        self._add(
            "Keep the largest piece",
            "Pieces on key slices stay too.",
            lambda: clean_up("largest_component", self.is_for_organ),
        )
        self._add(
            "Remove small pieces…", "Asks for the volume below which a piece goes.", self._remove_islands
        )
        self._add(
            "Fill holes", "Holes that are closed in 3-D.", lambda: clean_up("fill_holes", self.is_for_organ)
        )
        self._add("Fill holes slice by slice", "Holes within the slices of this plane.", self._fill_in_slices)
        self._add("Smooth…", "Asks for the size of what is smoothed away.", self._smooth)
        self.addSeparator()
        self._add(
            "Erase on this slice",
            "The mask and the prompts of this slice.",
            lambda: actions.reviewing.erase_here(self.is_for_organ),
        )
        self._add(
            "Erase everywhere",
            "The object as a whole; of an organ, all its voxels and objects.",
            lambda: actions.reviewing.erase_everywhere(self.is_for_organ),
        )
        self.aboutToShow.connect(self.refresh)
        self.refresh()

    @property
    def is_for_organ(self) -> bool:
        """Whether the whole organ is meant: chosen so, or because no object is active."""
        return self._wants_organ or self._actions.session.active_object is None

    def refresh(self) -> None:
        """Name what the tools would work on."""
        session = self._actions.session
        active = session.active_object
        organ = session.organs.name_of(session.active_class_id)
        self.on_object.setEnabled(active is not None)
        self.on_object.setText("On this object" if active is None else f"On this object: {active.name}")
        self.on_organ.setText(f"On the whole organ: {organ}")
        (self.on_organ if self.is_for_organ else self.on_object).setChecked(True)

    def _choose(self, whole_organ: bool) -> None:
        self._wants_organ = whole_organ
        button = self.parentWidget()
        if button is not None and hasattr(button, "showMenu"):
            button.showMenu()  # choosing what to work on is only half of it

    def _add(self, text: str, tip: str, run: Callable[[], object]) -> None:
        action = self.addAction(text)
        action.setToolTip(f"{tip} Ctrl-Z takes it back.")
        action.triggered.connect(lambda: run())

    def _remove_islands(self) -> None:
        value, is_given = QInputDialog.getDouble(
            self.parentWidget(),
            "Remove small pieces",
            "Remove pieces smaller than (ml; 1 ml is 1000 mm³)",
            self._island_ml,
            0.001,
            10_000.0,
            3,
        )
        if is_given:
            self._island_ml = value
            self._actions.reviewing.clean_up(
                "remove_islands", self.is_for_organ, min_volume_mm3=value * _MM3_PER_ML
            )

    def _fill_in_slices(self) -> None:
        view = self._actions.bridge.current_view()
        plane = "axial" if view is None else view.plane
        self._actions.reviewing.clean_up("fill_holes", self.is_for_organ, plane=plane)

    def _smooth(self) -> None:
        value, is_given = QInputDialog.getDouble(
            self.parentWidget(),
            "Smooth",
            "Smooth away bumps and dents of about this size (mm)",
            self._radius_mm,
            0.1,
            50.0,
            1,
        )
        if is_given:
            self._radius_mm = value
            self._actions.reviewing.clean_up("smooth", self.is_for_organ, radius_mm=value)
