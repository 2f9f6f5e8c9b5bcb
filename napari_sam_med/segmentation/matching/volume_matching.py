"""The organ of an example in a volume, or on one slice: search, join, carry."""

from __future__ import annotations

from collections.abc import Container, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.progress import Progress
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.segmentation.automatic.linking import LinkRules, without_duplicates
from napari_sam_med.segmentation.automatic.outward import outwards
from napari_sam_med.segmentation.matching.example import Example
from napari_sam_med.segmentation.matching.matcher import MatchedMask, Matcher, Matching, QuerySlice
from napari_sam_med.segmentation.matching.similarity import SimilarityMatcher
from napari_sam_med.segmentation.matching.stitching import StitchingMatcher
from napari_sam_med.segmentation.propagation import PropagatedSlice, propagate
from napari_sam_med.segmentation.slicewise import Window
from napari_sam_med.volume.intensity import resolve_window, to_rgb
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.volume.volume import Volume

__all__ = ["MatchedSlice", "match_slice", "match_volume", "matcher_of", "searched_views"]

_EVERY_MM = 10.0
_SHARED_MEMORY_BYTES = 512 * 1024**2
_LINKED_SHARE = 0.3
"""Of the smaller of two masks on searched slices that follow each other: one instance."""
_VOTES = 2
"""Searched slices that must show an instance for its full score."""
_CRUMB_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class MatchedSlice:
    """What is known of a slice, as soon as it is.

    Attributes
    ----------
    progress : Progress
        Slices done and expected.
    view : SliceView
    masks : tuple of MatchedMask
        Candidates by falling score while the volume is searched; then the one mask of the instance that is
        carried, or none where it ended.
    number : int or None
        Of the instance that is carried, from 1; None while the volume is searched.
    """

    progress: Progress
    view: SliceView
    masks: tuple[MatchedMask, ...]
    number: int | None = None


@dataclass(eq=False)
class _Instance:
    """Masks of the searched slices that are one object, and which of them a person drew."""

    masks: dict[SliceView, MatchedMask] = field(default_factory=dict)
    drawn: dict[SliceView, MatchedMask] = field(default_factory=dict)

    def score(self, votes: int) -> float:
        """Mean of its best masks; a slice that is missing counts as nothing, but not beside a drawn one."""
        best = sorted((one.score for one in self.masks.values()), reverse=True)[:votes]
        return best[0] if self.drawn else sum(best) / votes

    @property
    def keys(self) -> dict[SliceView, MatchedMask]:
        """What a person drew, else its best slice; the larger mask of equal ones."""
        if self.drawn:
            return self.drawn
        return dict([max(self.masks.items(), key=lambda item: (item[1].score, item[1].found.area_px))])


def matcher_of(example: Example, predictor: Predictor, matching: Matching) -> Matcher:
    """The engine that `matching` names, for an example.

    Raises
    ------
    ModelError
        When the model does not take its prompts.
    """
    if matching.engine == "stitching":
        return StitchingMatcher(example, predictor, matching)
    return SimilarityMatcher(example, predictor, matching)


def match_slice(
    image: npt.NDArray[np.uint8],
    example: Example,
    predictor: Predictor,
    matching: Matching | None = None,
    *,
    pixel_spacing: tuple[float, float] = (1.0, 1.0),
    store: EmbeddingStore | None = None,
) -> list[MatchedMask]:
    """All instances of the example's organ on a slice (H, W, 3) uint8, by falling score.

    Parameters
    ----------
    image : ndarray (H, W, 3) uint8
    example : Example
    predictor : Predictor
    matching : Matching, optional
        Similarity when left out.
    pixel_spacing : (row, column)
        Millimetres.
    store : EmbeddingStore, optional
        Where the slice's embedding may lie already.

    Raises
    ------
    ModelError
        When the model does not take the engine's prompts.
    ImageError
        When the image is not of this form.
    """
    matcher = matcher_of(example, predictor, matching or Matching())
    return matcher.find(QuerySlice(image, pixel_spacing, predictor, store))


def searched_views(volume: Volume, matching: Matching) -> list[SliceView]:
    """The slices of a volume that are searched, in order of index."""
    axis = SliceView(matching.plane, 0).axis
    every = matching.every or max(1, round(_EVERY_MM / volume.spacing[axis]))
    n_slices = volume.shape[axis]
    return [SliceView(matching.plane, i) for i in range((n_slices - 1) % every // 2, n_slices, every)]


def match_volume(
    volume: Volume,
    example: Example,
    predictor: Predictor,
    matching: Matching | None = None,
    *,
    window: Window = "auto",
    store: EmbeddingStore | None = None,
    begin_at: int | None = None,
) -> Generator[MatchedSlice, None, list[FoundObject]]:
    """All instances of the example's organ in a volume.

    Slices are searched first. Masks of slices that follow each other and overlap are one instance; the best
    slice of each is the key from which it is carried through the volume. Slices of the example that lie in
    this volume and plane are not searched: their masks are known, are the keys of what they belong to, and
    come back as they are. Of two instances that turn out to be much the same the less sure one goes.

    Parameters
    ----------
    volume : Volume
    example : Example
    predictor : Predictor
    matching : Matching, optional
        Similarity when left out.
    window : str or (low, high)
        What the model sees of this volume.
    store : EmbeddingStore, optional
        Embeddings are looked up and kept here; a bounded one in memory when left out.
    begin_at : int, optional
        The slice that is nearest to this one is searched first, then those further away; from the lowest to
        the highest when left out. The instances are the same.

    Yields
    ------
    MatchedSlice
        Searched slices, then carried ones. What was yielded so far is a correct partial result, and closing
        the generator ends the work.

    Returns
    -------
    list of FoundObject
        By falling score, with the numbers that they have in the slices; empty where nothing was sure enough.

    Raises
    ------
    ModelError
        When the model does not take the engine's prompts.
    """
    chosen = matching or Matching()
    matcher = matcher_of(example, predictor, chosen)
    limits = resolve_window(volume, window)
    shared = store if store is not None else EmbeddingStore(None, memory_bytes=_SHARED_MEMORY_BYTES)
    known = _known_masks(volume, example, chosen)
    views = sorted({*searched_views(volume, chosen), *known})
    found: dict[SliceView, list[MatchedMask]] = {}
    for done, view in enumerate(views if begin_at is None else outwards(views, begin_at), start=1):
        if view not in known:
            query = QuerySlice(to_rgb(volume, view, limits), volume.pixel_spacing(view), predictor, shared)
            found[view] = matcher.find(query)
            yield MatchedSlice(Progress(done, len(views), "searching"), view, tuple(found[view]))
    # nothing is surer than what a person drew
    best = max((one.score for masks in found.values() for one in masks), default=1.0)
    for view, masks in known.items():
        found[view] = [MatchedMask(mask, best) for mask in masks]
    instances = _instances({view: found[view] for view in views}, known, chosen)
    if not chosen.propagate or not instances:
        return [
            FoundObject(number, {view: one.found for view, one in sorted(instance.masks.items())}, score)
            for number, (instance, score) in enumerate(instances, start=1)
        ]
    return (yield from _carried(volume, instances, predictor, limits, shared))


def _carried(
    volume: Volume,
    instances: Sequence[tuple[_Instance, float]],
    predictor: Predictor,
    window: tuple[float, float],
    store: EmbeddingStore,
) -> Generator[MatchedSlice, None, list[FoundObject]]:
    """Carry each instance from its best slice."""
    keys = {number: instance.keys for number, (instance, _) in enumerate(instances, start=1)}
    run = propagate(
        volume,
        {number: (1, {}) for number in keys},
        predictor,
        masks={
            number: {view: one.found.mask for view, one in shown.items()} for number, shown in keys.items()
        },
        window=window,
        store=store,
    )
    masks: dict[int, dict[SliceView, FoundMask]] = {number: {} for number in keys}
    for done in run:
        here: tuple[MatchedMask, ...] = ()
        if done.mask.any():
            key = keys[done.object_id].get(done.view)
            found = _as_found(done) if key is None else key.found
            masks[done.object_id][done.view] = found
            here = (MatchedMask(found, done.quality),)
        yield MatchedSlice(done.progress, done.view, here, done.object_id)
    carried = [
        FoundObject(number, dict(sorted(masks[number].items())), score)
        for number, (_, score) in enumerate(instances, start=1)
    ]
    # one that a searched slice between did not show was joined to two instances
    return without_duplicates(carried, LinkRules().max_shared)


def _as_found(done: PropagatedSlice) -> FoundMask:
    stability = done.quality
    if done.logits is not None:
        inner, outer = (int(np.count_nonzero(done.logits > level)) for level in (1.0, -1.0))
        stability = inner / max(outer, 1)
    iou = done.quality if done.iou_prediction is None else done.iou_prediction
    return FoundMask.of(done.mask, float(iou), float(stability))


def _known_masks(volume: Volume, example: Example, matching: Matching) -> dict[SliceView, list[FoundMask]]:
    """Instances on the example's own slices, where these are slices of the volume that is searched."""
    if example.volume is not volume:
        return {}
    return {
        one.view: list(_pieces(one.mask))
        for one in example.slices
        if one.view is not None and one.view.plane == matching.plane
    }


def _pieces(mask: npt.NDArray[np.bool_]) -> Iterator[FoundMask]:
    """Connected pieces of a drawn mask; crumbs belong to the largest."""
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    largest = int(np.argmax(areas)) + 1
    is_crumb = np.concatenate([[False], areas < _CRUMB_SHARE * areas.max()])
    pieces[is_crumb[pieces]] = largest
    for number in np.unique(pieces[mask]):
        yield FoundMask.of(pieces == number, 1.0, 1.0)


def _instances(
    found: Mapping[SliceView, Sequence[MatchedMask]], known: Container[SliceView], matching: Matching
) -> list[tuple[_Instance, float]]:
    """Masks of all slices joined to instances, the surest ones with their scores, by falling score."""
    instances: list[_Instance] = []
    before: list[tuple[_Instance, FoundMask]] = []
    for view, masks in found.items():
        pairs = sorted(
            ((one, instance, _share(one.found, last)) for one in masks for instance, last in before),
            key=lambda pair: -pair[2],
        )
        taken: dict[int, _Instance] = {}
        for one, instance, share in pairs:
            if share >= _LINKED_SHARE and id(one) not in taken and instance not in taken.values():
                taken[id(one)] = instance
        here = []
        for one in masks:
            instance = taken.get(id(one)) or _Instance()
            if not instance.masks:
                instances.append(instance)
            instance.masks[view] = one
            if view in known:
                instance.drawn[view] = one
            here.append((instance, one.found))
        before = here
    votes = min(_VOTES, len(found))
    scored = sorted(
        ((one, one.score(votes)) for one in instances), key=lambda pair: (-pair[1], not pair[0].drawn)
    )
    least = matching.least_of_best * scored[0][1] if scored else 0.0
    return [(one, score) for one, score in scored if score >= least][: matching.most_instances]


def _share(one: FoundMask, other: FoundMask) -> float:
    return one.overlap_px(other) / min(one.area_px, other.area_px)
