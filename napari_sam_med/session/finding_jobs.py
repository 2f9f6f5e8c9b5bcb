"""Finding masks without a hand, as jobs: everything, one example, a word, edges, proposed boxes.

Each yields a `FindingStep` after every slice and may be closed at any of them; what it yielded last holds a
correct partial result.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import CancelledError
from napari_sam_med.progress import Progress
from napari_sam_med.session.finding_progress import SearchProgress, counted
from napari_sam_med.session.found import FoundBox
from napari_sam_med.session.organ_suggestion import classifier_and_model
from napari_sam_med.session.preloading import preload_torch_libraries
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
    from napari_sam_med.segmentation.automatic.volume_search import SearchedSlice
    from napari_sam_med.segmentation.automatic.words import RankedObject
    from napari_sam_med.segmentation.matching.example import Example
    from napari_sam_med.segmentation.matching.matcher import Design, EngineName
    from napari_sam_med.segmentation.matching.volume_matching import MatchedSlice
    from napari_sam_med.session.jobs import ModelView

__all__ = [
    "FindingPlan",
    "FindingStep",
    "GivenExample",
    "Steps",
    "edges",
    "everything",
    "example",
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
        """The slices to search, the one that is nearest to the slice at hand first."""
        from napari_sam_med.segmentation.automatic.outward import outwards  # torch is loaded with it

        if not self.whole:
            return [self.view]
        last = int(shape_zyx[self.view.axis]) - 1
        indices = sorted({*range(0, last + 1, max(1, self.every)), last})
        return outwards([SliceView(self.view.plane, index) for index in indices], self.view.index)


@dataclass(frozen=True, eq=False)
class GivenExample:
    """An organ that is labelled: on the slice at hand, or in another scan.

    Attributes
    ----------
    name : str
        Of the organ; in another scan it is looked for by that name, else by its number.
    class_id : int
    mask : ndarray (H, W) of bool, or None
        On the slice at hand; None where files are given.
    image, labels : Path or None
        Files of another scan.
    engine : {"similarity", "stitching"}
    design : {"example", "random", "grid", "grid-negatives"}
        Prompts of the stitched image.
    """

    name: str
    class_id: int
    mask: npt.NDArray[np.bool_] | None = None
    image: Path | None = None
    labels: Path | None = None
    engine: EngineName = "similarity"
    design: Design = "random"

    def example(self, sight: ModelView, view: SliceView) -> Example:
        """Read it, as `segmentation.matching` takes it."""
        from napari_sam_med.segmentation.matching.example import Example
        from napari_sam_med.volume.reading import read_labels, read_volume

        if self.image is None or self.labels is None:
            masks = [] if self.mask is None else [(view, self.mask)]
            return Example.of_masks(sight.volume, masks, window=sight.window)
        volume = read_volume(self.image)
        labels = read_labels(self.labels, reference=volume)
        same_name = [i for i, o in labels.organs.items() if o.name.casefold() == self.name.casefold()]
        class_id = same_name[0] if same_name else self.class_id
        return Example.of_labels(volume, labels.data, class_id, plane=view.plane)


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
_BEAT_SECONDS = 0.2
"""A call that tells nothing for so long is asked whether it is still wanted."""
_TOLD_EVERY_SECONDS = 0.1
"""Nobody reads progress faster, and a job waits until what it told was shown."""
_LEAVE_SECONDS = 0.2
"""What a cancelled call gets to reach its next step: the user waits for that."""


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

    index = plan.view.index
    search = VolumeSearch(plan.view.plane, plan.every, point_spacing_mm=plan.grid_mm or None, begin_at=index)
    if not plan.whole:
        search = replace(search, first=index, last=index, every=1, links=LinkRules(min_voxels=1))
    told = SearchProgress(plan.view, len(plan.views(sight.volume.shape)), fills=plan.whole and plan.every > 1)
    at_work = threading.Lock()

    def run(tell: Callable[[FindingStep], None]) -> list[FoundObject]:
        found = search_volume(
            sight.volume,
            sight.predictor,
            search,
            window=sight.window,
            store=sight.store,
            on_points=lambda part: tell(FindingStep(told.within(part))),
        )
        with closing(found):
            while True:
                try:
                    with at_work:
                        done = next(found)
                except StopIteration as stop:
                    return list(stop.value)
                so_far = partial(linked_so_far, done)
                tell(FindingStep(told.slice_done(), done.view, done.masks, so_far))

    def linked_so_far(done: SearchedSlice) -> list[FoundObject]:
        with at_work:  # not while the search, ended within a slice, is on its way out
            return done.objects_so_far()

    objects = yield from _reporting(run, _place(plan))
    return (yield from _named(sight, objects)) if plan.names and sight.volume.is_hounsfield else objects


def example(sight: ModelView, plan: FindingPlan, given: GivenExample) -> Steps:
    """All instances of an organ that is labelled already, here or in another scan.

    Raises
    ------
    LabelError
        When the example shows nothing of the organ.
    ModelError
        When the model does not take the engine's prompts.
    ImageError
        When a file cannot be read.
    """
    preload_torch_libraries()
    from napari_sam_med.segmentation.automatic.found_objects import FoundObject
    from napari_sam_med.segmentation.matching.matcher import Matching
    from napari_sam_med.segmentation.matching.volume_matching import match_slice, match_volume

    yield _beginning(plan)
    view, volume = plan.view, sight.volume
    shown = given.example(sight, view)
    matching = Matching(given.engine, given.design, plane=view.plane, every=plan.every)

    def run_here(_: object) -> list[FoundObject]:
        matches = match_slice(
            to_rgb(volume, view, sight.window),
            shown,
            sight.predictor,
            matching,
            pixel_spacing=volume.pixel_spacing(view),
            store=sight.store,
        )
        return [FoundObject(i, {view: one.found}, one.score) for i, one in enumerate(matches, start=1)]

    def run(tell: Callable[[FindingStep], None]) -> list[FoundObject]:
        found = match_volume(
            volume,
            shown,
            sight.predictor,
            matching,
            window=sight.window,
            store=sight.store,
            begin_at=view.index,
        )
        seen: list[MatchedSlice] = []
        with closing(found):
            while True:
                try:
                    done = next(found)
                except StopIteration as stop:
                    return list(stop.value)
                seen.append(done)
                masks = tuple(one.found for one in done.masks)
                progress = counted(done.progress, "slice" if done.number is None else "carrying")
                tell(FindingStep(progress, done.view, masks, partial(_matched, tuple(seen))))

    return (yield from _reporting(run if plan.whole else run_here, _place(plan)))


def _matched(seen: Sequence[MatchedSlice]) -> list[FoundObject]:
    """The instances as far as they were carried; while none was, each mask by itself."""
    from napari_sam_med.segmentation.automatic.found_objects import FoundObject

    carried: dict[int, dict[SliceView, FoundMask]] = {}
    scores: dict[int, float] = {}
    for done in seen:
        if done.number is not None and done.masks:
            carried.setdefault(done.number, {})[done.view] = done.masks[0].found
            scores[done.number] = max(scores.get(done.number, 0.0), done.masks[0].score)
    if carried:
        return [FoundObject(i, dict(sorted(masks.items())), scores[i]) for i, masks in carried.items()]
    each = [(done.view, one) for done in seen for one in done.masks]
    alone = [FoundObject(i, {view: one.found}, one.score) for i, (view, one) in enumerate(each, start=1)]
    return FoundObject.renumbered(alone)


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
    told = SearchProgress(plan.view, len(views))

    def run(tell: Callable[[FindingStep], None]) -> list[FoundObject]:
        found = search_edges(
            sight.volume,
            sight.predictor,
            views,
            window=sight.window,
            store=sight.store,
            body_only=True,
            on_points=lambda points: tell(FindingStep(told.of_all(points))),
        )
        with closing(found):
            for done in found:
                tell(FindingStep(told.slice_done(), done.view, edges=done.edges))
        return []

    return (yield from _reporting(run, _place(plan)))


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
    told = SearchProgress(plan.view, len(views))

    def run(tell: Callable[[FindingStep], None]) -> list[FoundObject]:
        found = search_proposals(
            sight.volume,
            sight.predictor,
            views,
            options,
            window=sight.window,
            store=sight.store,
            body_only=True,
            on_points=lambda points: tell(FindingStep(told.of_all(points))),
        )
        with closing(found):
            for done in found:
                boxes = tuple(
                    FoundBox(one.rank, done.view, one.box_xyxy, one.score) for one in done.proposals
                )
                tell(FindingStep(told.slice_done(), done.view, boxes=boxes))
        return []

    return (yield from _reporting(run, _place(plan)))


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

    def rank(tell: Callable[[FindingStep], None]) -> list[RankedObject]:
        return rank_by_organ(
            objects,
            meant,
            sight.volume,
            predictor,
            classifier,
            store=sight.store,
            on_progress=lambda progress: tell(FindingStep(counted(progress, "ranking"))),
        )

    return (yield from _reporting(rank, "ranking"))


def linked(so_far: Callable[[], list[FoundObject]]) -> Steps:
    """The objects that a run found before it ended early."""
    return (yield from _reporting(lambda tell: so_far(), "linking"))


def _beginning(plan: FindingPlan) -> FindingStep:
    return FindingStep(Progress(0, 0, _place(plan)))


def _place(plan: FindingPlan) -> str:
    return f"{plan.view.plane} slices" if plan.whole else f"slice {plan.view.index}"


def _named(sight: ModelView, objects: list[FoundObject]) -> Steps:
    from napari_sam_med.segmentation.automatic.naming import name_objects

    def name(tell: Callable[[FindingStep], None]) -> list[FoundObject]:
        classifier, predictor = classifier_and_model(sight.predictor)
        return name_objects(
            objects,
            sight.volume,
            predictor,
            classifier,
            each_once=True,
            store=sight.store,
            on_progress=lambda progress: tell(FindingStep(counted(progress, "naming"))),
        )

    return (yield from _reporting(name, "naming"))


def _reporting(
    call: Callable[[Callable[[FindingStep], None]], T], doing: str
) -> Generator[FindingStep, None, T]:
    """What a call answers that tells its steps, on a thread of its own: the generator can be closed at any
    time, and the call then ends when it tells the next step, or within an encoder.
    """
    from napari_sam_med.sam.interruption import interruptible

    messages: queue.Queue[tuple[str, Any]] = queue.Queue()
    cancelled = threading.Event()
    told_at = -_TOLD_EVERY_SECONDS

    def tell(step: FindingStep) -> None:
        nonlocal told_at
        if cancelled.is_set():
            raise CancelledError("Cancelled.")
        now = time.monotonic()
        if step.view is not None or now - told_at >= _TOLD_EVERY_SECONDS:
            told_at = now
            messages.put(("step", step))

    def run() -> None:
        try:
            with interruptible(cancelled.is_set):
                messages.put(("done", call(tell)))
        except BaseException as error:  # noqa: BLE001  it is raised again on the job's own thread
            messages.put(("error", error))

    thread = threading.Thread(target=run, name="sam-med find", daemon=True)
    thread.start()
    last = Progress(0, 0, doing)
    try:
        yield FindingStep(last)
        while True:
            try:
                kind, value = messages.get(timeout=_BEAT_SECONDS)
            except queue.Empty:
                yield FindingStep(last)
                continue
            if kind == "done":
                answer: T = value
                return answer
            if kind == "error":
                raise value
            last = value.progress
            yield value
    finally:
        cancelled.set()
        thread.join(_LEAVE_SECONDS)
