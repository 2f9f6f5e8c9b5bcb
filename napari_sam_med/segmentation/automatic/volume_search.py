"""Everything on the slices of a volume, linked to objects while it is found."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError, PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.click_answers import check_takes_points
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.segmentation.automatic.everything import EverythingOptions, find_masks
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.segmentation.automatic.gap_filling import Filling, GapFiller
from napari_sam_med.segmentation.automatic.linking import LinkRules
from napari_sam_med.segmentation.automatic.naming import name_objects
from napari_sam_med.segmentation.automatic.outward import AscendingLinks, OutwardLinks, outwards
from napari_sam_med.segmentation.automatic.prompt_area import PromptArea
from napari_sam_med.segmentation.organ_classifier import OrganClassifier, check_model
from napari_sam_med.segmentation.slicewise import Window, embed_slice
from napari_sam_med.volume.intensity import resolve_window, to_rgb
from napari_sam_med.volume.slice_view import PLANES, Plane, SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.volume.volume import Volume

__all__ = ["SearchedSlice", "VolumeSearch", "search_volume", "usual_options"]

_SHARED_MEMORY_BYTES = 256 * 1024**2
"""Bound of the embeddings kept when no store is given: those of a gap are asked for twice."""


_NANO = "nano"
_NANO_IOU, _NANO_STABILITY = 0.4, 0.5
"""nano is less sure of itself than SAM: on 8 slices of the bundled sample no mask reaches SAM's 0.88 and
0.95. Of its masks there with an IoU above 0.7 with an organ, 4 of 5 pass these two; of all masks 1 of 6."""


@dataclass(frozen=True)
class VolumeSearch:
    """What is asked, and what counts as an object.

    Attributes
    ----------
    plane : {"axial", "coronal", "sagittal"}
    every : int
        Each n-th slice is searched, and the last one; those between are filled.
    first, last : int or None
        Slices to search, both inside the range; all of them when left out.
    options : EverythingOptions or None
        How a slice is searched; `usual_options` of the model when left out.
    point_spacing_mm : float or None
        Distance of neighbouring points, in place of `points_per_side`.
    body_only : bool
        Ask inside the body only, see `body_mask`.
    values : (low, high) or None
        Ask only about voxels with these values.
    links : LinkRules
    filling : {"propagate", "interpolate"}
        How slices between searched ones are filled.
    each_once : bool
        No organ is given to two objects.
    begin_at : int or None
        The slice that is nearest to this one is searched first, then those further away; from the lowest to
        the highest when left out. The objects are the same.
    """

    plane: Plane = "axial"
    every: int = 1
    first: int | None = None
    last: int | None = None
    options: EverythingOptions | None = None
    point_spacing_mm: float | None = None
    body_only: bool = True
    values: tuple[float, float] | None = None
    links: LinkRules = field(default_factory=LinkRules)
    filling: Filling = "propagate"
    each_once: bool = True
    begin_at: int | None = None

    def views(self, volume: Volume) -> list[SliceView]:
        """The slices to search, ascending.

        Raises
        ------
        ImageError
            When they lie outside the volume, or none is left.
        """
        n_slices = volume.shape[PLANES.index(self.plane)]
        first = 0 if self.first is None else self.first
        last = n_slices - 1 if self.last is None else self.last
        if not 0 <= first <= last < n_slices:
            asked = f"slice {first}" if first == last else f"slices {first} to {last}"
            raise ImageError(f"The volume has no {self.plane} {asked}; give slices of 0 to {n_slices - 1}.")
        if self.every < 1:
            raise ImageError(f"Each {self.every}-th slice cannot be searched; give 1 or more.")
        return [SliceView(self.plane, index) for index in sorted({*range(first, last + 1, self.every), last})]

    def options_for(self, predictor: Predictor, volume: Volume, view: SliceView) -> EverythingOptions:
        """The options of a slice, with a grid of points of the spacing in millimetres if one is given.

        Raises
        ------
        PromptError
            When the spacing is not above 0.
        """
        options = self.options or usual_options(predictor)
        if self.point_spacing_mm is None:
            return options
        if not 0 < self.point_spacing_mm < np.inf:
            raise PromptError(
                f"Points cannot lie {self.point_spacing_mm:g} mm apart; give a distance above 0, such as 10."
            )
        sizes = np.multiply(view.slice_shape(volume.shape), volume.pixel_spacing(view))
        rows, columns = np.maximum(1, np.rint(sizes / self.point_spacing_mm)).astype(int).tolist()
        fewer = options.crop_n_points_downscale_factor
        grids = [
            _grid(max(1, rows // fewer**layer), max(1, columns // fewer**layer))
            for layer in range(options.crop_n_layers + 1)
        ]
        return replace(options, points_per_side=None, point_grids=grids)


def usual_options(predictor: Predictor) -> EverythingOptions:
    """SAM's own defaults, with thresholds that suit a model which judges itself differently."""
    if predictor.record.architecture != _NANO:
        return EverythingOptions()
    return EverythingOptions(pred_iou_thresh=_NANO_IOU, stability_score_thresh=_NANO_STABILITY)


def _grid(rows: int, columns: int) -> npt.NDArray[np.float64]:
    """Middles x, y of equal cells of the unit square, row by row."""
    y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


@dataclass(frozen=True, eq=False)
class SearchedSlice:
    """One slice, as soon as it is searched.

    Attributes
    ----------
    progress : Progress
        Slices done and to be searched.
    view : SliceView
    masks : tuple of FoundMask
        All that was found on it, also what belongs to no object.
    objects_so_far : callable
        The objects, not named, that the slices up to the latest one have: a correct partial result.
    """

    progress: Progress
    view: SliceView
    masks: tuple[FoundMask, ...]
    objects_so_far: Callable[[], list[FoundObject]]


def search_volume(
    volume: Volume,
    predictor: Predictor,
    search: VolumeSearch | None = None,
    *,
    window: Window = "auto",
    store: EmbeddingStore | None = None,
    classifier: OrganClassifier | None = None,
    on_points: Callable[[Progress], None] | None = None,
) -> Generator[SearchedSlice, None, list[FoundObject]]:
    """Find the objects of a volume without a prompt.

    Parameters
    ----------
    volume : Volume
    predictor : Predictor
        Any model that takes points.
    search : VolumeSearch, optional
        SAM's own defaults on every axial slice when left out.
    window : str or (low, high)
        What the model sees.
    store : EmbeddingStore, optional
        Embeddings are looked up and kept here; a bounded one in memory when left out.
    classifier : OrganClassifier, optional
        Names the objects; it must have been trained on `predictor`, see `name_objects` otherwise.
    on_points : callable, optional
        Told of parts of slices, each with a text of its own: slices in which the body is looked for (`BODY`),
        batches of points of a slice, masks filled in between slices (`FILLING`). An error that it raises
        ends the search.

    Yields
    ------
    SearchedSlice
        After each slice; closing the generator ends the search, and nothing that was yielded is lost.

    Returns
    -------
    list of FoundObject
        By falling score, numbered from 1; they may overlap.

    Raises
    ------
    PromptError
        When the model takes no points, or the range of values or the spacing of points holds nothing.
    ModelError
        When the classifier was trained on another model.
    ImageError
        When there are no such slices.
    """
    plan = VolumeSearch() if search is None else search
    check_takes_points(predictor)
    if classifier is not None:
        check_model(classifier.facts, predictor.record.name, predictor.model_hash)
    views = plan.views(volume)
    if plan.begin_at is not None:
        views = outwards(views, plan.begin_at)
    plan.options_for(predictor, volume, views[0])
    area = PromptArea(volume, body_only=plan.body_only, values=plan.values, on_progress=on_points)
    kept = EmbeddingStore(None, memory_bytes=_SHARED_MEMORY_BYTES) if store is None else store
    scene = _Scene(volume, predictor, plan, resolve_window(volume, window), kept, area, on_points)
    return _search(scene, views, classifier)


@dataclass(frozen=True, eq=False)
class _Scene:
    """What is looked at, and with what."""

    volume: Volume
    predictor: Predictor
    plan: VolumeSearch
    window: tuple[float, float]
    store: EmbeddingStore
    area: PromptArea
    on_points: Callable[[Progress], None] | None

    def masks_on(self, view: SliceView) -> list[FoundMask]:
        where = self.area.on(view)
        if not where.any():
            return []
        return find_masks(
            to_rgb(self.volume, view, self.window),
            self.predictor,
            self.plan.options_for(self.predictor, self.volume, view),
            pixel_spacing=self.volume.pixel_spacing(view),
            embedding=embed_slice(self.volume, view, self.predictor, window=self.window, store=self.store),
            where=where,
            on_progress=self.on_points,
        )


def _search(
    scene: _Scene, views: list[SliceView], classifier: OrganClassifier | None
) -> Generator[SearchedSlice, None, list[FoundObject]]:
    plan = scene.plan
    filler = GapFiller(
        scene.volume, scene.predictor, scene.window, scene.store, plan.filling, on_progress=scene.on_points
    )
    is_outward = plan.begin_at is not None
    links = OutwardLinks(plan.links, filler) if is_outward else AscendingLinks(plan.links, filler)
    for done, view in enumerate(views, start=1):
        masks = scene.masks_on(view)
        links.add(view, masks)
        progress = Progress(done, len(views), f"{view.plane} slice {view.index}")
        yield SearchedSlice(progress, view, tuple(masks), links.objects_so_far)
    objects = links.objects()
    if classifier is None:
        return objects
    return name_objects(
        objects, scene.volume, scene.predictor, classifier, each_once=plan.each_once, store=scene.store
    )
