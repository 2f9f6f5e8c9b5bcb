"""Finding without a hand: one run at a time, its candidates streamed to the chooser."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_sam_med.errors import ImageError, PromptError
from napari_sam_med.gui.chooser import Chooser
from napari_sam_med.gui.find_progress import FindProgress
from napari_sam_med.gui.layer_bridge import LayerBridge
from napari_sam_med.gui.live_model import LiveModel
from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.progress import Progress
from napari_sam_med.session import finding_jobs
from napari_sam_med.session.finding_jobs import FindingPlan, FindingStep, GivenExample
from napari_sam_med.session.found import Found
from napari_sam_med.session.jobs import ModelView
from napari_sam_med.session.session import Session
from napari_sam_med.wording import number_of

if TYPE_CHECKING:
    from napari_sam_med.segmentation.automatic.found_objects import FoundObject
    from napari_sam_med.segmentation.automatic.words import RankedObject

__all__ = ["Finding"]

_LIKELY = 0.5
"""Probability from which the first of a ranking is offered without a warning."""
_AFTER_SEARCH = {"naming": "Naming the objects…", "ranking": "Ranking the objects…"}
"""What is said in these parts of a run, by the first word of their progress."""
_SEARCH_FINER = "search with a smaller grid or more slices"


class Finding(QObject):
    """Starts the jobs of `session.finding_jobs`, and keeps what they found.

    Parameters
    ----------
    is_free : callable
        Whether nothing else runs that the user waits for; says so when not.
    make_way : callable
        Ends a job that fills slices, before a candidate is taken.

    Attributes
    ----------
    found : Found
    chooser : Chooser

    Signals
    -------
    status : str
    failed : Exception
    progress : Progress or None
        None when there is no job.
    ended
        A run is over.
    """

    status = Signal(str)
    failed = Signal(object)
    progress = Signal(object)
    ended = Signal()

    def __init__(
        self,
        session: Session,
        bridge: LayerBridge,
        workers: Workers,
        model: LiveModel,
        is_free: Callable[[], bool],
        make_way: Callable[[], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._session, self._bridge, self._workers, self._model = session, bridge, workers, model
        self._is_free = is_free
        self.found = Found(session)
        self.chooser = Chooser(session, self.found, bridge, make_way, self)
        self.chooser.status.connect(self.status)
        self.chooser.failed.connect(self.failed)
        self._job: Job | None = None
        self._has_begun = False
        self._left_out, self._links = 0, True
        self._so_far: Callable[[], list[FoundObject]] | None = None
        self._n_slices = 0
        self._pace, self._part = FindProgress(), ""
        self._shows_edges = self._has_failed = False
        session.events.volume.connect(self._on_volume)

    @property
    def is_busy(self) -> bool:
        """Whether something is being looked for."""
        return self._job is not None

    def end(self) -> None:
        """End within the slice; what was found stays."""
        if self._job is not None:
            self._job.cancel()
            self.status.emit("Cancelling; the objects found so far are kept…")

    def stop(self) -> None:
        """For the end of the widget."""
        self._session.events.volume.disconnect(self._on_volume, missing_ok=True)
        self.chooser.stop()

    def _on_volume(self, *_: Any) -> None:
        if self._job is not None:
            self._so_far = None
            self._job.discard()
        self.chooser.clear()
        self.chooser.layers.let_go()

    # what can be looked for

    def plan(self, whole: bool, every: int, grid_mm: float, names: bool) -> FindingPlan:
        """The slice at hand with some choices.

        Raises
        ------
        PromptError
            When no slice is looked at.
        """
        view = self._bridge.current_view()
        if view is None:
            raise PromptError("No slice is shown; open a scan and show one of its slices in 2-D.")
        return FindingPlan(view, whole, every, grid_mm, names)

    def find_everything(self, plan: FindingPlan) -> None:
        """All that the model sees, as candidates."""
        self._begin("Finding", lambda sight: finding_jobs.everything(sight, plan), names=plan.names)

    def find_word(self, plan: FindingPlan, meant: str) -> None:
        """Candidates by how likely they are what a word means; those that are there, else all are found.

        Raises
        ------
        PromptError
            When there is no word.
        """
        if not meant.strip():
            raise PromptError("No word was given; type the name of an organ.")
        known = list(self.found.objects.values()) or None
        self._begin(
            f"Looking for {meant}",
            lambda sight: finding_jobs.word(sight, plan, meant, known),
            lambda ranked: self._on_ranked(ranked, meant.strip()),
            keeps=known is not None,
        )

    def find_like(self, plan: FindingPlan, given: GivenExample) -> None:
        """Objects that look like an example."""
        doing = f"Looking for {given.name}"
        self._begin(doing, lambda sight: finding_jobs.example(sight, plan, given), links=False)

    def find_edges(self, plan: FindingPlan) -> None:
        """Edges, as an image on the scan's grid."""
        self._begin("Looking for edges", lambda sight: finding_jobs.edges(sight, plan))

    def find_boxes(self, plan: FindingPlan) -> None:
        """Boxes of whatever may be an object, as prompts to take."""
        self._begin("Proposing", lambda sight: finding_jobs.proposals(sight, plan))

    # running it

    def _begin(
        self,
        doing: str,
        made: Callable[[ModelView], Generator[FindingStep, None, Any]],
        returned: Callable[[Any], None] | None = None,
        *,
        keeps: bool = False,
        links: bool = True,
        names: bool = False,
    ) -> None:
        """Start a job once the model is there; it takes the place of what was found before, unless it keeps
        that. Whether its masks are linked to objects, and whether these are named, is to be said.
        """
        if not self._is_free():
            return
        volume = self._session.volume
        if volume is not None and volume.is_lazy:
            self.failed.emit(
                ImageError(
                    f"{doing} needs the whole scan in memory, and {volume.name} is too large for that; "
                    "prompt organs on single slices and carry them, or crop the scan."
                )
            )
            return

        def start(sight: ModelView) -> None:
            if self.is_busy or self._session.volume is not volume:
                return
            if not keeps:
                self.chooser.clear()
                self.chooser.model = self._session.model
            self._links = links
            self.found.awaits_names = names and volume is not None and volume.is_hounsfield
            self._start(doing, made(sight), returned or self._on_objects)

        self._model.with_model(start)

    def _start(
        self, doing: str, steps: Generator[FindingStep, None, Any], returned: Callable[[Any], None]
    ) -> None:
        self._so_far, self._n_slices, self._left_out = None, 0, 0
        self._has_begun = False
        self._shows_edges = self._has_failed = False
        self._model.hold(True)
        job = self._workers.start(
            steps,
            doing.lower(),
            yielded=lambda step: self._on_step(doing, step),
            returned=returned,
            failed=self._on_failed,
            finished=lambda: self._on_ended(job),
        )
        self._job, self._pace, self._part = job, FindProgress(), ""
        self._show_progress(Progress(0, 1, "starting"))
        self.status.emit(f"{doing}…")

    def _show_progress(self, progress: Progress) -> None:
        self.progress.emit(self._pace.told(progress))
        part = progress.text.split(" ")[0]
        if part != self._part:
            self._part = part
            if part in _AFTER_SEARCH:
                self.status.emit(_AFTER_SEARCH[part])

    def _on_step(self, doing: str, step: FindingStep) -> None:
        self._show_progress(step.progress)
        if step.view is None:
            return
        self._so_far = step.so_far
        self._n_slices += 1
        if step.edges is not None:
            self.chooser.layers.show_edges(step.view, step.edges, begins=not self._shows_edges)
            self._shows_edges = True
        elif step.boxes:
            self.found.add_boxes(step.view, step.boxes)
        else:
            self.found.add(step.view, step.masks)
        if step.edges is None and not self._has_begun and not self.found.is_empty:
            self._has_begun = True
            self._bridge.turns.add(self._begin_to_choose())
        self.status.emit(f"{doing}: {step.view.plane} slice {step.view.index}")

    def _begin_to_choose(self) -> Iterator[None]:
        if not self.found.is_empty:  # else cleared meanwhile
            yield from self.chooser.layers.prepare()
        if not self.found.is_empty and not self.chooser.is_on:  # else all was found meanwhile
            self.chooser.begin()
            yield

    def _on_objects(self, objects: list[FoundObject]) -> None:
        self._so_far = None
        if objects:
            self.chooser.finish()
            self.found.replace(objects)
            self.chooser.begin()

    def _on_ranked(self, ranked: list[RankedObject], meant: str) -> None:
        self._so_far = None
        self.chooser.finish()
        self.found.rank(ranked, meant)
        if ranked:
            self.chooser.begin()

    def _on_failed(self, error: Exception) -> None:
        self._has_failed = True
        self.failed.emit(error)

    def _on_ended(self, job: Job) -> None:
        if job is not self._job:
            return
        self._job = None
        if self._so_far is not None:  # ended early: what was found is linked all the same
            self._link(self._so_far, job)
            return
        self._tell_end(job)

    def _link(self, so_far: Callable[[], list[FoundObject]], ended: Job) -> None:
        self._so_far = None
        self._job = self._workers.start(
            finding_jobs.linked(so_far),
            "link",
            yielded=lambda step: self._show_progress(step.progress),
            returned=self._on_linked_objects,
            failed=self._on_failed,
            finished=lambda: self._on_linked(ended),
        )

    def _on_linked_objects(self, objects: list[FoundObject]) -> None:
        """What was found before a run ended early; the masks that it leaves out are counted."""
        if objects and self._links:  # those of an example were carried anew
            kept = {id(mask) for one in objects for _, mask in one}
            self._left_out = sum(id(m) not in kept for one in self.found.objects.values() for _, m in one)
        self._on_objects(objects)

    def _on_linked(self, ended: Job) -> None:
        self._job = None
        self._tell_end(ended)

    def _tell_end(self, job: Job) -> None:
        self.found.awaits_names = False
        if self.found.boxes:
            self.found.put_boxes_in_order()
        self._model.hold(False)
        self.progress.emit(None)
        self.ended.emit()
        if self._has_failed or job.was_discarded:  # what was said since matters more
            return
        if not job.was_cancelled:
            self.status.emit(self._told())
        elif self.found.is_empty and not self._shows_edges:
            self.status.emit("Cancelled; nothing was found yet.")
        else:
            self.status.emit(f"Cancelled. {self._told()}{self._told_left_out()}")

    def _told_left_out(self) -> str:
        if not self._left_out:
            return ""
        those = number_of(self._left_out, "mask")
        return f" Left out: {those} seen on one slice alone, too small, or nearly the same as another."

    def _told(self) -> str:
        """What was found, and what can be done with it."""
        found, count = self.found, len(self.found.objects)
        if found.boxes:
            return f"{number_of(len(found.boxes), 'box')} proposed. Click one to take it as a prompt."
        if self._shows_edges:
            return f"The edges of {number_of(self._n_slices, 'slice')} are shown."
        if not count:
            return f"Nothing was found; {_SEARCH_FINER}, or choose another window."
        if found.is_nothing_like_it:
            return (
                f"None of the found objects looks like {found.word}. {_SEARCH_FINER.capitalize()} (Clear, "
                f"then Find), or prompt {found.word} by hand."
            )
        if found.is_ranked and found.best_score < _LIKELY:
            many = "The only object found is not" if count == 1 else f"None of {count} objects is"
            return f"{many} likely to be {found.word}; the list is in order of probability."
        them = "it" if count == 1 else "one"
        order = f", the likeliest {found.word} first" if found.is_ranked and count > 1 else ""
        what_next = f"Point at {them} in the list or on the image; click it on the image to take it."
        return f"{number_of(count, 'object')} found{order}. {what_next}"
