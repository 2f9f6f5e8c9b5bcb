"""Finding masks without a hand, as jobs: everything, one example, a word, edges, proposed boxes.

Each yields a `FindingStep` after every slice and may be closed at any of them; what it yielded last holds a
correct partial result.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import CancelledError
from napari_sam_med.progress import Progress
from napari_sam_med.session.found import FoundBox
from napari_sam_med.session.organ_suggestion import classifier_and_model
from napari_sam_med.session.preloading import preload_torch_libraries
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
    from napari_sam_med.segmentation.automatic.volume_search import SearchedSlice
    from napari_sam_med.segmentation.automatic.words import RankedObject
    from napari_sam_med.session.jobs import ModelView

__all__ = [
    "FindingPlan",
    "FindingStep",
    "Steps",
    "edges",
    "everything",
    "linked",
    "proposals",
    "word",
]

T = TypeVar("T")


@dataclass(frozen=True)
class FindingPlan:
    """Where to look, and how closely.

    Attributes
    ----------
    view : SliceView
        The slice at hand; its plane is searched.
    whole : bool
        All slices of that plane, not this one alone.
    every : int
        Of all slices only each n-th, and the last one.
    grid_mm : float
        Distance of the points that are asked; 0 for as many as the method's authors take.
    names : bool
        Whether the organ classifier names what is found; it reads CT.
    """

    view: SliceView
    whole: bool = False
    every: int = 1
    grid_mm: float = 0.0
    names: bool = True

    def views(self, shape_zyx: Sequence[int]) -> list[SliceView]:
        """The slices to search, ascending."""
        if not self.whole:
            return [self.view]
        last = int(shape_zyx[self.view.axis]) - 1
        indices = sorted({*range(0, last + 1, max(1, self.every)), last})
        return [SliceView(self.view.plane, index) for index in indices]


@dataclass(frozen=True, eq=False)
class FindingStep:
    """What came of one slice.

    Attributes
    ----------
    progress : Progress
    view : SliceView or None
        None while nothing is found yet.
    masks : tuple of FoundMask
        Found on that slice, not linked to objects yet.
    so_far : callable or None
        The objects that all slices up to this one make, as they would be returned.
    edges : ndarray (H, W) float32 or None
        Edges of that slice, 0..1.
    boxes : tuple of FoundBox
        Proposed on that slice, the best first, numbered from 1.
    """

    progress: Progress
    view: SliceView | None = None
    masks: tuple[FoundMask, ...] = ()
    so_far: Callable[[], list[FoundObject]] | None = None
    edges: npt.NDArray[np.float32] | None = None
    boxes: tuple[FoundBox, ...] = ()


Steps = Generator[FindingStep, None, "list[FoundObject]"]

_BOXES_PER_SLICE = 100
"""Of the up to 1000 that are proposed: the rest is never looked at by hand."""


def everything(sight: ModelView, plan: FindingPlan) -> Steps:
    """All masks of the slices, linked to objects and named.

    Raises
    ------
    ModelError
        When the model takes no points.
    """
    preload_torch_libraries()
    from napari_sam_med.segmentation.automatic.linking import LinkRules
    from napari_sam_med.segmentation.automatic.volume_search import VolumeSearch, search_volume

    yield _beginning(plan)
    search = VolumeSearch(plan.view.plane, plan.every, point_spacing_mm=plan.grid_mm or None)
    if not plan.whole:
        index = plan.view.index
        search = replace(search, first=index, last=index, every=1, links=LinkRules(min_voxels=1))
    found = search_volume(sight.volume, sight.predictor, search, window=sight.window, store=sight.store)
    objects = yield from _streamed(found)
    return (yield from _named(sight, objects)) if plan.names and sight.volume.is_hounsfield else objects


def edges(sight: ModelView, plan: FindingPlan) -> Steps:
    """Where masks of the slices end; no objects are found.

    Raises
    ------
    PromptError
        When the model takes no points.
    """
    preload_torch_libraries()
    from napari_sam_med.segmentation.automatic.edges import search_edges

    yield _beginning(plan)
    views = plan.views(sight.volume.shape)
    found = search_edges(sight.volume, sight.predictor, views, window=sight.window, store=sight.store)
    with closing(found):
        for done in found:
            yield FindingStep(done.progress, done.view, edges=done.edges)
    return []


def proposals(sight: ModelView, plan: FindingPlan) -> Steps:
    """The best boxes of whatever may be an object on the slices; no objects are found.

    Raises
    ------
    PromptError
        When the model takes no points.
    """
    preload_torch_libraries()
    from napari_sam_med.segmentation.automatic.proposals import ProposalOptions, search_proposals

    yield _beginning(plan)
    views, options = plan.views(sight.volume.shape), ProposalOptions(most=_BOXES_PER_SLICE)
    found = search_proposals(
        sight.volume, sight.predictor, views, options, window=sight.window, store=sight.store
    )
    with closing(found):
        for done in found:
            boxes = tuple(FoundBox(one.rank, done.view, one.box_xyxy, one.score) for one in done.proposals)
            yield FindingStep(done.progress, done.view, boxes=boxes)
    return []


def word(
    sight: ModelView, plan: FindingPlan, meant: str, objects: Sequence[FoundObject] | None = None
) -> Generator[FindingStep, None, list[RankedObject]]:
    """Objects by how likely they are what a word means; everything is searched where none are given.

    Returns
    -------
    list of RankedObject
        All of them, the likeliest first.

    Raises
    ------
    PromptError
        When the word is no known organ.
    ModelError
        When the model takes no points.
    """
    preload_torch_libraries()
    from napari_sam_med.segmentation.automatic.words import organs_called, rank_by_organ

    classifier, predictor = classifier_and_model(sight.predictor)
    organs_called(meant, classifier.facts.organs)  # a word that means nothing is refused before the search
    if objects is None:
        objects = yield from everything(sight, replace(plan, names=False))

    def rank(tell: Callable[[Progress], None]) -> list[RankedObject]:
        return rank_by_organ(
            objects, meant, sight.volume, predictor, classifier, store=sight.store, on_progress=tell
        )

    return (yield from _reporting(rank, f"looking for {meant}"))


def linked(so_far: Callable[[], list[FoundObject]]) -> Steps:
    """The objects that a run found before it ended early."""
    yield FindingStep(Progress(0, 0, "linking"))
    return so_far()


def _beginning(plan: FindingPlan) -> FindingStep:
    return FindingStep(Progress(0, 0, f"{plan.view.plane} slice {plan.view.index}"))


def _streamed(found: Generator[SearchedSlice, None, list[FoundObject]]) -> Steps:
    with closing(found):
        while True:
            try:
                done = next(found)
            except StopIteration as stop:
                return list(stop.value)
            yield FindingStep(done.progress, done.view, tuple(done.masks), done.objects_so_far)


def _named(sight: ModelView, objects: list[FoundObject]) -> Steps:
    from napari_sam_med.segmentation.automatic.naming import name_objects

    classifier, predictor = classifier_and_model(sight.predictor)

    def name(tell: Callable[[Progress], None]) -> list[FoundObject]:
        return name_objects(
            objects,
            sight.volume,
            predictor,
            classifier,
            each_once=True,
            store=sight.store,
            on_progress=tell,
        )

    return (yield from _reporting(name, "naming"))


def _reporting(
    call: Callable[[Callable[[Progress], None]], T], doing: str
) -> Generator[FindingStep, None, T]:
    """What a call answers that reports its progress; closing the generator ends it at its next report."""
    messages: queue.Queue[tuple[str, Any]] = queue.Queue()
    cancelled = threading.Event()

    def tell(progress: Progress) -> None:
        if cancelled.is_set():
            raise CancelledError("Cancelled.")
        messages.put(("progress", progress))

    def run() -> None:
        try:
            messages.put(("done", call(tell)))
        except BaseException as error:  # noqa: BLE001  it is raised again on the job's own thread
            messages.put(("error", error))

    threading.Thread(target=run, name="sam-med find", daemon=True).start()
    try:
        yield FindingStep(Progress(0, 0, doing))
        while True:
            kind, value = messages.get()
            if kind == "done":
                answer: T = value
                return answer
            if kind == "error":
                raise value
            yield FindingStep(replace(value, text=doing))
    finally:
        cancelled.set()
