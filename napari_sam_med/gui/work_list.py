"""Working through a folder of cases: saves one case and opens the next, and asks only where saving failed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_sam_med.errors import ExportError, SamMedError
from napari_sam_med.gui.contributions import ask_time
from napari_sam_med.gui.geometry_question import ask_form
from napari_sam_med.gui.window_names import said_of_window
from napari_sam_med.gui.work_list_output import ask_output, remember_output
from napari_sam_med.gui.work_list_words import said_of_case
from napari_sam_med.session.work_list import (
    KnownFile,
    OpenedCase,
    WorkList,
    is_writable,
    known_file,
    open_work_list,
    read_case,
    save_case,
)
from napari_sam_med.session.work_list_cases import Case, default_output
from napari_sam_med.session.work_list_status import Status
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.reading import volume_times
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.gui.actions import Actions, LabelsToWrite
    from napari_sam_med.session.journal_recovery import Offer
    from napari_sam_med.volume.labels import LabelVolume

__all__ = ["WorkListControl"]


class WorkListControl(QObject):
    """The work list that is open, the case that is worked on, and the way from one to the next.

    Attributes
    ----------
    work_list : WorkList or None
    position : int
        Of the case that was asked for last; it may be one that cannot be opened.
    problems : dict
        ``{key: text}`` of cases that could not be opened.
    passes_done : bool
        Whether `go` leaves cases out that are done.
    ask : callable
        Asks before work is left that could not be saved, as `Leaving.may_leave`.

    Signals
    -------
    changed
        Anything that a list of cases shows.
    status : str
    failed : Exception
    """

    changed = Signal()
    status = Signal(str)
    failed = Signal(object)

    def __init__(self, actions: Actions) -> None:
        super().__init__(actions)
        self._actions = actions
        self._session = actions.session
        self.work_list: WorkList | None = None
        self.position = 0
        self.problems: dict[str, str] = {}
        self.passes_done = False
        self.ask: Callable[[str, Callable[[], object]], bool] = lambda verb, again: True
        self._opened: OpenedCase | None = None
        self._known: KnownFile | None = None
        self._wanted: int | None = None
        self._is_saving = False
        self._after_saving: list[tuple[Callable[[], object], Callable[[], object]]] = []
        self._is_changed = self._has_failed = False
        self._has_seen_offer = self._may_go = self._shows_case = False
        self._organs: OrganTable | None = None
        self._word_on_done = ""  # it is said with the next case, as what is said before is seen for a moment
        self._session.voxels_changed.connect(self._on_voxels)
        self._session.events.objects.connect(self._on_objects)
        actions.keeping.needs_no_question = self._goes_on_with
        actions.keeping.brought_back.connect(self._on_brought_back)
        actions.scans.opened.connect(self._on_scan_opened)

    def stop(self) -> None:
        """Let go of the session."""
        self._session.voxels_changed.disconnect(self._on_voxels, missing_ok=True)
        self._session.events.objects.disconnect(self._on_objects, missing_ok=True)

    # the list

    def open_folder(self, folder: Path, output: Path | None = None) -> None:
        """Open a folder of cases, and the first of them that is not done.

        Parameters
        ----------
        output : Path, optional
            Where labels are saved; where they went the last time, or ``labels`` beside the images.
        """
        folder = Path(os.path.abspath(folder))  # it is remembered, and dialogs give such paths
        settings = self._actions.settings
        remembered = settings.work_list_outputs.get(str(folder))
        place = output or (Path(remembered) if remembered else default_output(folder))
        if not is_writable(place):
            chosen = ask_output(place)
            if chosen is None:
                self.status.emit("No work list was opened: its labels have no place yet.")
                return
            if not is_writable(chosen):
                self.failed.emit(
                    ExportError(f"{chosen} cannot be written; choose another folder for labels.")
                )
                return
            place = chosen
        if not self.may_leave("Open", lambda: self.open_folder(folder, place)):
            return
        self._may_go = True  # it was asked just now; `_on_voxels` takes that back
        self._actions.workers.start(
            open_work_list(folder, place),
            "open work list",
            yielded=lambda progress: self.status.emit(f"{progress.text}…"),
            returned=self._on_listed,
            failed=self._on_not_listed,
        )

    def _on_not_listed(self, error: Exception) -> None:
        self._may_go = False
        self.failed.emit(error)

    def _on_listed(self, work_list: WorkList) -> None:
        if not self._may_go and not self.may_leave("Open", lambda: self._on_listed(work_list)):
            return  # something was drawn while the folder was looked through
        self.work_list = work_list
        self._opened, self._wanted, self._may_go = None, None, True
        self.problems.clear()
        remember_output(self._actions.settings, work_list)
        for warning in work_list.warnings:
            self.failed.emit(ExportError(warning))
        first = work_list.next_open(-1)
        self.position = first or 0
        self.changed.emit()
        if first is None:
            self._may_go = False
            self.status.emit(f"All {work_list.summary}; double-click on a case to open it.")
        else:
            self.open_position(first)

    def close(self) -> None:
        """Leave the work list; the scan that is open stays."""
        if self.work_list is not None and self.may_leave("Close", self.close):
            self.work_list = self._opened = self._wanted = None
            self._shows_case = False
            self.changed.emit()

    @property
    def current(self) -> OpenedCase | None:
        """The case that is worked on; None where another scan is open, or none."""
        opened = self._opened
        return opened if opened is not None and self._session.volume is opened.scan.volume else None

    @property
    def asked_for(self) -> int:
        """Position of the case that is on its way, else of the one that was."""
        return self.position if self._wanted is None else self._wanted

    def mark(self, case: Case, status: Status) -> None:
        """Note how far a case is."""
        self._note(case, status=status)
        self.changed.emit()

    # going from case to case

    def go(self, step: int) -> None:
        """Save, and open the case before or after the one that was asked for last."""
        if self.work_list is None:
            self.status.emit("There is no work list: open a folder of cases first.")
            return
        work_list, position = self.work_list, self.asked_for + step
        n_cases = len(work_list.cases)
        while self.passes_done and 0 <= position < n_cases:
            if work_list.status(work_list.cases[position]) != "done":
                break
            position += step
        if 0 <= position < n_cases:
            self.open_position(position)
        else:
            which = "that is not done" if self.passes_done else "of the list"
            self.status.emit(f"This is the {'last' if step > 0 else 'first'} case {which}.")

    def go_to_next_open(self) -> None:
        """Save, and open the next case that is not done."""
        if self.work_list is not None:
            after = self.work_list.next_open(self.position, frozenset(self.problems))
            current = self.current
            if after is None or (current is not None and self.work_list.cases[after] == current.case):
                word, self._word_on_done = self._word_on_done, ""
                self.status.emit(f"{word}No other case is left to do. {self.work_list.summary}.")
            else:
                self.open_position(after)

    def finish(self) -> None:
        """Save, mark the case that is open as done, and open the next that is not."""
        if self.work_list is None or self.current is None:
            self.status.emit("No case of a work list is open.")
            return
        preview = self._session.preview
        if preview is not None and preview.mask.any():
            self.status.emit("The proposed mask is not accepted yet: press Enter or Esc, then Done again.")
            return
        self._actions.carrying.end_now()
        self._give_up_waiting()
        if self._known is None or self.needs_saving:  # what is done has its file, empty or not
            self._save(self.finish, lambda: None)
            return
        case = self.current.case
        self.mark(case, "done")
        if self.work_list.status(case) == "done":
            is_empty = not self._actions.keeping.journal.holds_labels
            self._word_on_done = f"{case.name} is done with empty labels. " if is_empty else ""
            self.go_to_next_open()

    def open_position(self, position: int) -> None:
        """Save what is open, and open a case."""
        self._wanted = position
        self.changed.emit()
        self._leave(self._load)

    def _leave(self, then: Callable[[], object]) -> None:
        """Go on when nothing would be lost by it."""
        if self.work_list is None:  # closed meanwhile
            self._actions.scans.give_up()
            return
        self._actions.carrying.end_now()
        position = self._wanted

        def again() -> None:
            self._is_changed, self._may_go = False, True
            self._wanted = self.position = position
            self._leave(then)

        def ask() -> None:
            if self.ask("Open", again):
                again()
                return
            self._give_up_waiting()

        if self._may_go or (self.current is not None and not self.needs_saving):
            then()
        elif self.current is not None:
            self._save(lambda: self._leave(then), ask)
        else:
            ask()

    def _give_up_waiting(self) -> None:
        """Let go of a case on its way, as the work before it stays or something else was asked for."""
        if self._wanted is not None:
            if self.current is not None:
                self.position = self.work_list.cases.index(self.current.case)
            self._wanted = None
            self._actions.scans.give_up()
            self.changed.emit()

    def _load(self) -> None:
        if self.work_list is None or self._wanted is None:
            return
        self.position = self._wanted
        case = self.work_list.cases[self.position]
        try:
            self.work_list.refresh()
            kept = self.work_list.kept(case)
            if kept.time is None and not case.image.is_dir() and volume_times(case.image) > 1:
                kept = replace(kept, time=ask_time(case.image))
                self._note(case, time=kept.time)
            start = self.work_list.start(case)
        except SamMedError as error:
            self._on_unreadable(case, error)
            return
        self._actions.scans.start(
            read_case(case, kept, start, self.work_list.target(case)),
            self._on_read,
            lambda error: self._on_unreadable(case, error),
        )
        self.changed.emit()

    def _on_read(self, opened: OpenedCase) -> None:
        work_list = self.work_list
        if work_list is None or self._wanted is None:  # closed or given up meanwhile
            return
        try:
            if work_list.kept(opened.case).form is None and opened.scan.volume.grid.doubt is not None:
                form = ask_form(opened.scan.volume)
                self._note(opened.case, form=form or "as read")
                if form is not None:
                    self._load()
                    return
        except SamMedError as error:
            self._on_unreadable(opened.case, error)
            return
        self._bring(opened)

    def _bring(self, opened: OpenedCase) -> None:
        self._actions.scans.bring(
            opened.scan,
            lambda: self._leave(lambda: self._show(opened)),  # the user may have gone on with the one before
            failed=lambda error: self._on_unreadable(opened.case, error),
            is_certain=False,
        )

    def _show(self, opened: OpenedCase) -> None:
        scans = self._actions.scans
        if not scans.has_brought(opened.scan):  # it was given up until the work before was exported
            scans.give_up()
            self._bring(opened)
            return
        current, session = self.current, self._session
        if current is not None and (current.start is None or current.saved is not None):
            self._organs = session.organs  # not those of a file of the user's, which may have no names
        if opened.start is None and self._organs is not None:
            opened.scan.labels.organs = self._organs
        self._opened = None
        scans.show_case(opened.scan, replaces=self._shows_case)
        self._opened, self._known, self._shows_case = opened, opened.saved, True
        self._is_changed = self._has_seen_offer = self._may_go = False
        self._wanted = None
        self.problems.pop(opened.case.key, None)
        bridge = self._actions.bridge
        bridge.go_to(SliceView("axial", opened.scan.volume.shape[0] // 2))
        window = said_of_window(opened.scan.volume, session.window, self._actions.settings.window)
        said = said_of_case(opened, self.position + 1, len(self.work_list.cases), window)
        self.status.emit(f"{self._word_on_done}{said}")
        self._word_on_done = ""
        self.changed.emit()

    def _on_unreadable(self, case: Case, error: Exception) -> None:
        """One line; the list goes on from there."""
        self._wanted, self._may_go, self._word_on_done = None, False, ""
        self.problems[case.key] = str(error)
        self.changed.emit()
        self.failed.emit(error)

    def _on_scan_opened(self) -> None:
        """Other labels of the case were opened by hand: they are its labels now, and are saved as such."""
        if self.current is not None:
            self._is_changed = True
        elif self._opened is not None:  # another scan
            self._opened, self._shows_case = None, False
        self.changed.emit()

    # saving

    @property
    def needs_saving(self) -> bool:
        """Whether the case that is open has labels that are not in its file."""
        if self.current is None:
            return False
        if self._is_saving:  # and whether that succeeds is not known yet
            return True
        if not (self._is_changed or self._actions.keeping.has_unexported_work):
            return False
        return self._known is not None or self._actions.keeping.journal.holds_labels

    def may_leave(self, verb: str, again: Callable[[], object]) -> bool:
        """Whether to go on at once; a case that has to be saved is saved first, and ``again`` called then."""
        self._give_up_waiting()
        if self.current is None:
            return self.ask(verb, again)
        if self._may_go or not self.needs_saving:
            self._may_go = False
            return True

        def go() -> None:
            self._is_changed, self._may_go = False, True
            again()

        def not_saved() -> None:
            if self.ask(verb, go):
                go()

        self._save(again, not_saved)
        return False

    def _save(self, then: Callable[[], object], not_saved: Callable[[], object]) -> None:
        """Write the labels of the case; one of the two is called at the end."""
        self._after_saving.append((then, not_saved))
        opened, work_list = self.current, self.work_list
        if self._is_saving or opened is None or work_list is None:
            return
        target = work_list.target(opened.case)

        def returned(content: LabelsToWrite, known: KnownFile) -> None:
            if self._session.labels is content.of:
                self._known = known
                self._actions.keeping.journal.mark_exported(content.change_number)
            self._on_saved(opened.case, target, known)

        self._is_saving = True
        self._is_changed = self._has_failed = False
        self._actions.write_labels(
            partial(save_case, target, self._known),
            "save case",
            returned,
            self._on_not_saved,
            self._on_saving_ended,
        )

    def _on_saved(self, case: Case, target: Path, known: KnownFile) -> None:
        if self.work_list is None:
            return
        try:
            self.work_list.note_saved(case, known, self._journal_name())
        except ExportError as error:
            self.failed.emit(error)
        if known.path == target:
            self.status.emit(f"{known.path.name} saved and checked.")
        else:
            self.failed.emit(
                ExportError(
                    f"{target.name} is of somebody else, or was changed meanwhile, and stays as it is; the "
                    f"labels of {case.name} are in {known.path.name}."
                )
            )

    def note_export(self, path: Path, labels: LabelVolume) -> None:
        """Labels were exported by hand: over the file of the case, that is no change by somebody else."""
        opened, work_list = self.current, self.work_list
        if opened is not None and work_list is not None and path == work_list.target(opened.case):
            self._known = known_file(path, labels)
            self._on_saved(opened.case, path, self._known)

    def _on_not_saved(self, error: Exception) -> None:
        self._is_changed = self._has_failed = True
        self.failed.emit(error)

    def _on_saving_ended(self) -> None:
        self._is_saving = False
        waiting, self._after_saving = self._after_saving, []
        self.changed.emit()
        for then, not_saved in waiting[-1:]:  # what was asked for last
            (not_saved if self._has_failed else then)()

    def _note(self, case: Case, **changes: object) -> None:
        if self.work_list is not None:
            try:
                self.work_list.note(case, **changes)
            except ExportError as error:
                self.failed.emit(error)

    # work that the journal has

    def _journal_name(self) -> str | None:
        """Name of this window's own journal of the image: the one written last, as the image is locked."""
        journal = self._actions.keeping.journal
        if journal.folder is None or journal.image is None:
            return None
        journal.flush(1.0)
        files = journal.folder.files(journal.image)
        return files[0].path.stem if files else None

    def _goes_on_with(self, offer: Offer) -> bool:
        """Whether earlier work is this case's newest; asked once, of what was done last."""
        opened = self.current
        if opened is None or self.work_list is None or self._has_seen_offer:
            return False
        self._has_seen_offer = True
        is_untouched = not self._is_changed and not self._session.objects
        return is_untouched and self.work_list.continues(offer, opened)

    def _on_brought_back(self) -> None:
        if self.current is None or self.work_list is None:
            return
        self.status.emit(f"{self.current.case.name}: labels, prompts and objects are as you left them.")
        if not self._actions.keeping.has_unexported_work:
            self._is_changed = False
            self._note(self.current.case, journal=self._journal_name())

    def _on_voxels(self, *_: object) -> None:
        self._may_go = False
        if self.current is not None:
            self._is_changed = True
            self._note_work()

    def _on_objects(self, objects: object) -> None:
        if objects:
            self._note_work()

    def _note_work(self) -> None:
        opened = self.current
        if opened is not None and self.work_list is not None and self.work_list.status(opened.case) == "new":
            self.mark(opened.case, "in progress")
