"""Kept on disk: what is derived from the user's scans, where it lies, how large it is, how it goes away."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QLabel, QMessageBox, QSpinBox, QVBoxLayout, QWidget

from napari_sam_med.gui import disk_use
from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import Foldable, button, labelled, narrow_button, note, row
from napari_sam_med.gui.disk_use import DiskUse
from napari_sam_med.session.journal_folder import default_folder
from napari_sam_med.training import own_models

__all__ = ["DiskPanel"]

_MOST_GB = 1000
_LONGEST_CAPTION = "Own models"


class DiskPanel(Foldable):
    """Measured in a worker whenever it is unfolded or something in it changes.

    Signals
    -------
    models_cleared
        Own models were removed.
    """

    models_cleared = Signal()

    _panels: ClassVar[WeakSet[DiskPanel]] = WeakSet()

    def __init__(self, actions: Actions) -> None:
        super().__init__("Kept on disk")
        self._actions = actions
        self._panels.add(self)
        self._keeping = actions.keeping
        self._make_parts()
        self._lay_out()
        self.nothing.toggled.connect(self._on_nothing)
        self.work_limit.valueChanged.connect(self._on_work_limit)
        self.embeddings_limit.valueChanged.connect(self._on_embeddings_limit)
        self.toggled.connect(self.refresh)
        self._keeping.changed_on_disk.connect(self._on_changed)
        actions.model.loaded.connect(self._apply_to_store)
        self._apply_to_store()
        self._show_warning()

    def _make_parts(self) -> None:
        settings = self._actions.settings
        self.work = QLabel("…")
        self.work_path = note(_breakable(default_folder().path))
        self.clear_work = _narrow(
            "Clear…", "Remove all earlier work, of every scan; asks first.", self._ask_clear_work
        )
        self.work_limit = _limit(settings.journals_gb, "Work that was not exported is never removed unasked.")
        self.earlier = button(
            "Earlier work on this scan…",
            "Offer all earlier work on this scan again, also what was declined or brought back before.",
            self._keeping.look_for_all,
        )
        self.embeddings = QLabel("…")
        self.embeddings_path = note(_breakable(disk_use.embeddings_folder()))
        self.clear_embeddings = _narrow(
            "Clear",
            "Remove all embeddings; the model makes them anew when they are needed.",
            self._clear_embeddings,
        )
        self.embeddings_limit = _limit(settings.embeddings_gb, "What was not used for longest goes first.")
        self.models = QLabel("…")
        self.models_path = note(_breakable(own_models.models_folder()))
        self.clear_models = _narrow(
            "Clear…", "Remove the models that you have made; asks first.", self._ask_clear_models
        )
        self.learning = QLabel("…")
        self.learning_path = note(
            "Stopped runs, beside the models; the list of volumes and copies of labels, in "
            + _breakable(own_models.case_list_path().parent)
        )
        self.clear_learning = _narrow(
            "Clear…",
            "Remove what is kept to learn from, and runs that were stopped; asks first.",
            self._ask_clear_learning,
        )
        self.nothing = QCheckBox("Keep nothing on disk")
        self.nothing.setToolTip(
            "From now on neither work nor embeddings are written to disk, nor folders of scans remembered.\n"
            "Work and embeddings that are there already stay until you clear them.\n"
            "After a crash nothing can be brought back."
        )
        self.nothing.setChecked(settings.keeps_nothing)
        self.warning = note("After a crash nothing can be brought back.")

    def _lay_out(self) -> None:
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(6, 2, 6, 6)
        column.setSpacing(5)
        column.addWidget(note("All of this is derived from your scans."))
        for item in (
            labelled("Work", self.work, self.clear_work, longest=_LONGEST_CAPTION),
            self.work_path,
            labelled("at most", self.work_limit, longest=_LONGEST_CAPTION),
            row(self.earlier),
            labelled("Embeddings", self.embeddings, self.clear_embeddings, longest=_LONGEST_CAPTION),
            self.embeddings_path,
            labelled("at most", self.embeddings_limit, longest=_LONGEST_CAPTION),
            labelled("Own models", self.models, self.clear_models, longest=_LONGEST_CAPTION),
            self.models_path,
            labelled("Learning", self.learning, self.clear_learning, longest=_LONGEST_CAPTION),
            self.learning_path,
            row(self.nothing),
            self.warning,
        ):
            (column.addWidget if isinstance(item, QWidget) else column.addLayout)(item)
        self.put(body)

    # showing

    def _on_changed(self) -> None:
        self._actions.workers.start(
            disk_use.keep_within(self._actions.settings.journals_gb << 30), "prune", finished=self.refresh
        )

    def refresh(self, *_: object) -> None:
        """Measure anew, unless nobody can see it."""
        if self.isExpanded():
            self._actions.workers.start(
                disk_use.measure(), "measure", returned=self._show, failed=self._actions.show_error
            )

    def _show(self, use: DiskUse) -> None:
        for label, n_bytes in (
            (self.work, use.journal_bytes),
            (self.embeddings, use.embedding_bytes),
            (self.models, use.model_bytes),
            (self.learning, use.learning_bytes),
        ):
            label.setText(_bytes_text(n_bytes) if n_bytes else "nothing")

    def _show_warning(self) -> None:
        self.warning.setVisible(self.nothing.isChecked())

    # acting

    def stop(self) -> None:
        """A window that is closed has no say any more in what the others keep."""
        self._panels.discard(self)
        for panel in self._panels:
            panel._apply_to_store()

    def _on_nothing(self, is_nothing: bool) -> None:
        self._keeping.keep_nothing(is_nothing)
        self._apply_to_store()
        self._show_warning()

    def _on_work_limit(self, gigabytes: int) -> None:
        self._actions.settings.remember(journals_gb=gigabytes)
        self._on_changed()

    def _on_embeddings_limit(self, gigabytes: int) -> None:
        self._actions.settings.remember(embeddings_gb=gigabytes)
        self._apply_to_store()

    def _apply_to_store(self) -> None:
        """The store is one for all windows of this process; jobs under way obey at once.

        While one of them keeps nothing, none of them keeps embeddings.
        """
        model, settings = self._actions.model.model, self._actions.settings
        if model is not None:
            is_nothing = any(panel._actions.settings.keeps_nothing for panel in self._panels)
            model.store.directory = None if is_nothing else disk_use.embeddings_folder()
            model.store.disk_bytes = settings.embeddings_gb << 30

    def _ask_clear_work(self) -> None:
        question = (
            "Remove all earlier work, of every scan, for good? Labels in it that were not exported are "
            "lost. The work that is open now stays."
        )
        if not self._is_sure(question):
            return
        of_this_scan = self._actions.attempt(self._keeping.clear_earlier) or 0

        def returned(removed: int) -> None:
            self._actions.status.emit(f"{_bytes_text(removed + of_this_scan)} of earlier work removed.")

        self._actions.workers.start(
            disk_use.clear_earlier_work(),
            "clear earlier work",
            returned=returned,
            failed=self._actions.show_error,
            finished=self.refresh,
        )

    def _is_sure(self, question: str) -> bool:
        yes = QMessageBox.StandardButton.Yes
        return QMessageBox.question(self, "SAM Med", question) == yes

    def _ask_clear_models(self) -> None:
        names = ", ".join(f'"{folder.name}"' for folder in own_models.finished_models())
        if not names:
            self._actions.status.emit("There are no models of your own.")
            return
        if not self._is_sure(f"Remove the models that you have made, for good? These are {names}."):
            return

        def returned(cleared: tuple[list[Path], int]) -> None:
            folders, n_bytes = cleared
            if self._actions.session.model in map(str, folders):
                self._actions.choose_model("nano")
            self.models_cleared.emit()
            self._actions.status.emit(f"{_bytes_text(n_bytes)} of own models removed.")

        self._actions.workers.start(
            disk_use.clear_own_models(),
            "clear own models",
            returned=returned,
            failed=self._actions.show_error,
            finished=self.refresh,
        )

    def _ask_clear_learning(self) -> None:
        learning = self._actions.learning
        if learning.is_running:
            self._actions.status.emit("A model is being trained; stop it first.")
            return
        question = (
            "Remove runs that were stopped, the list of volumes to learn from, and the copies of labels made "
            "for it? The runs cannot be gone on with then. Models, scans and your own label files stay."
        )
        if not self._is_sure(question):
            return
        learning.cases.remove(learning.cases.listed)

        def returned(n_bytes: int) -> None:
            learning.unfinished = own_models.unfinished_plan()
            learning.changed.emit()
            self._actions.status.emit(f"{_bytes_text(n_bytes)} kept to learn from removed.")

        self._actions.workers.start(
            disk_use.clear_learning(),
            "clear learning",
            returned=returned,
            failed=self._actions.show_error,
            finished=self.refresh,
        )

    def _clear_embeddings(self) -> None:
        model = self._actions.model.model
        self._actions.model.ahead.forget()
        self._actions.workers.start(
            disk_use.clear_embeddings(None if model is None else model.store),
            "clear embeddings",
            returned=lambda removed: self._actions.status.emit(
                f"{_bytes_text(removed)} of embeddings removed."
            ),
            failed=self._actions.show_error,
            finished=self.refresh,
        )


def _narrow(text: str, tip: str, clicked) -> QWidget:
    return narrow_button(text, tip, clicked, 64)


def _limit(gigabytes: int, tip: str) -> QSpinBox:
    made = QSpinBox()
    made.setRange(1, _MOST_GB)
    made.setSuffix(" GB")
    made.setValue(gigabytes)
    made.setToolTip(tip)
    return made


def _breakable(path: Path) -> str:
    """A path that a label may break after each folder, and so needs not be as wide as the whole."""
    return str(path).replace(os.sep, f"{os.sep}\u200b")


def _bytes_text(n_bytes: int) -> str:
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} bytes"
