"""Everything on one slice: a grid of clicks, and of their masks those that are sound and not the same.

What SAM's own automatic mask generator does, with its parameters, its order and its results.

Kirillov et al., Segment Anything, 2023, appendix B, https://arxiv.org/abs/2304.02643
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError, PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.square import checked_image
from napari_sam_med.segmentation.automatic.click_masks import ClickMask, click_masks_of
from napari_sam_med.segmentation.automatic.crop_layers import ImageCrop, crops_of
from napari_sam_med.segmentation.automatic.found_objects import FoundMask
from napari_sam_med.segmentation.automatic.mask_filters import best_of_overlapping
from napari_sam_med.segmentation.automatic.point_grids import Points, lie_in, point_grids

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import ImageEmbedding, Predictor

__all__ = ["EverythingOptions", "OutputMode", "find_masks", "finding_masks", "segment_everything"]

T = TypeVar("T")
OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]


@dataclass(frozen=True)
class EverythingOptions:
    """How a slice is searched; names and defaults are those of SAM's automatic mask generator.

    Attributes
    ----------
    points_per_side : int or None
        Points along each side of the grid; None when `point_grids` gives the points.
    points_per_batch : int or None
        Points that the network answers together; None for as many as suit the model and the device. Results
        do not depend on it.
    pred_iou_thresh : float
        Masks whose predicted IoU does not exceed this are dropped; 0 keeps all.
    stability_score_thresh : float
        Masks that change more than this when the cut-off is moved are dropped; 0 keeps all.
    stability_score_offset : float
        By how much the cut-off is moved up and down for that, in logits.
    box_nms_thresh : float
        Of two masks of one crop whose boxes overlap by more (IoU) the one of higher predicted IoU stays.
    crop_n_layers : int
        Also search 2 x 2 crops (1), and 4 x 4 (2), ...
    crop_nms_thresh : float
        Of two masks of different crops whose boxes overlap by more (IoU) that of the smaller crop stays.
    crop_overlap_ratio : float
        Overlap of the first layer's crops as a share of the shorter side.
    crop_n_points_downscale_factor : int
        Points along each side become fewer by this factor from layer to layer.
    point_grids : sequence of array-like (N, 2), or None
        Points x, y of each layer in 0..1 of the image or crop, in place of `points_per_side`.
    min_mask_region_area : int
        Fill smaller holes and take away smaller islands, in pixels; 0 leaves masks as they are.

    Raises
    ------
    PromptError
        When a value is out of range.
    """

    points_per_side: int | None = 32
    points_per_batch: int | None = None
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    point_grids: Sequence[npt.ArrayLike] | None = None
    min_mask_region_area: int = 0

    def __post_init__(self) -> None:
        if (self.points_per_side is None) == (self.point_grids is None):
            raise PromptError(
                "The points come from points_per_side or from point_grids, and "
                f"{'neither' if self.point_grids is None else 'both'} was given; set one, the other to "
                "None."
            )
        least = {
            "points_per_side": 1,
            "points_per_batch": 1,
            "crop_n_layers": 0,
            "crop_n_points_downscale_factor": 1,
            "min_mask_region_area": 0,
            "stability_score_offset": 0,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise PromptError(f"{name} is {value}, but must be at least {low}; give a larger number.")
        if not 0 <= self.crop_overlap_ratio < 1:
            raise PromptError(
                f"crop_overlap_ratio is {self.crop_overlap_ratio}, but is a share of the side, from 0 to "
                "below 1; give such a number."
            )
        self.grids()

    def grids(self) -> list[Points]:
        """Points (N, 2) x, y in 0..1 of each layer: the whole image, then the crops."""
        if self.points_per_side is not None:
            return point_grids(self.points_per_side, self.crop_n_layers, self.crop_n_points_downscale_factor)
        given = [np.asarray(grid, dtype=np.float64) for grid in self.point_grids or ()]
        if len(given) <= self.crop_n_layers or any(grid.ndim != 2 or grid.shape[1] != 2 for grid in given):
            raise PromptError(
                f"point_grids must be {self.crop_n_layers + 1} arrays (N, 2) of x, y in 0..1, one for the "
                f"image and one for each layer of crops, got shapes {[grid.shape for grid in given]}."
            )
        return given


def segment_everything(
    image: npt.ArrayLike,
    predictor: Predictor,
    *,
    pixel_spacing: npt.ArrayLike = (1.0, 1.0),
    output_mode: OutputMode = "binary_mask",
    **options: Any,
) -> list[dict[str, Any]]:
    """Automatic masks of one slice, as records like those of SAM's own generator.

    In fp32 with the same weights they are that generator's records, in its order.

    Parameters
    ----------
    image : array-like (H, W, 3) uint8
    predictor : Predictor
        Of a model that takes points.
    pixel_spacing : (row, column)
        Millimetres.
    output_mode : str
        What a segmentation is: ``binary_mask``, ndarray (H, W) bool; ``uncompressed_rle`` or ``coco_rle``, a
        dict of ``size`` [H, W] and ``counts``, run lengths as COCO's tools write them.
    **options
        See `EverythingOptions`: ``points_per_side``, ``points_per_batch``, ``pred_iou_thresh``,
        ``stability_score_thresh``, ``stability_score_offset``, ``box_nms_thresh``, ``crop_n_layers``,
        ``crop_nms_thresh``, ``crop_overlap_ratio``, ``crop_n_points_downscale_factor``, ``point_grids``,
        ``min_mask_region_area``.

    Returns
    -------
    list of dict
        ``segmentation``; ``area``, pixels; ``bbox`` [x, y, width, height], from the first to the last pixel
        of the mask; ``predicted_iou``; ``point_coords`` [[x, y]], the click; ``stability_score``;
        ``crop_box`` [x, y, width, height], the part of the image that the model saw.

    Raises
    ------
    PromptError
        When the model takes no points, or an option is out of range.
    ImageError
        When the image or the spacing is not of this form.
    DeviceMemoryError
        When the device ran out of memory.
    """
    chosen = _options(options)
    if output_mode not in get_args(OutputMode):
        raise PromptError(
            f'There is no output_mode "{output_mode}": give {", ".join(get_args(OutputMode)[:-1])} or '
            f"{get_args(OutputMode)[-1]}."
        )
    search = _searching(checked_image(image), predictor, chosen, pixel_spacing, None, None)
    return [one.record(output_mode) for one in _run(search, None)]


def find_masks(
    image: npt.ArrayLike,
    predictor: Predictor,
    options: EverythingOptions | None = None,
    *,
    pixel_spacing: npt.ArrayLike = (1.0, 1.0),
    embedding: ImageEmbedding | None = None,
    where: npt.NDArray[np.bool_] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[FoundMask]:
    """Automatic masks of one slice.

    Parameters
    ----------
    image : array-like (H, W, 3) uint8
    predictor : Predictor
        Of a model that takes points.
    options : EverythingOptions, optional
    pixel_spacing : (row, column)
        Millimetres.
    embedding : ImageEmbedding, optional
        Of the whole image, if there is one already.
    where : ndarray (H, W) bool, optional
        Points elsewhere are not asked; masks may reach beyond it.
    on_progress : callable, optional
        Told after each batch of points; an error that it raises ends the search.

    Returns
    -------
    list of FoundMask
        Of falling predicted IoU; with crops, those of smaller crops first. None of them is empty.

    Raises
    ------
    PromptError
        When the model takes no points.
    ImageError
        When the image, the spacing, the embedding or `where` do not fit.
    ModelError
        When the embedding is another model's.
    DeviceMemoryError
        When the device ran out of memory.
    """
    search = finding_masks(
        image, predictor, options, pixel_spacing=pixel_spacing, embedding=embedding, where=where
    )
    return _run(search, on_progress)


def finding_masks(
    image: npt.ArrayLike,
    predictor: Predictor,
    options: EverythingOptions | None = None,
    *,
    pixel_spacing: npt.ArrayLike = (1.0, 1.0),
    embedding: ImageEmbedding | None = None,
    where: npt.NDArray[np.bool_] | None = None,
) -> Generator[Progress, None, list[FoundMask]]:
    """`find_masks` as a job: yields after each batch of points, and may be closed at any of them.

    Parameters, the masks returned and errors are those of `find_masks`.
    """
    pixels = checked_image(image)
    _check_fit((pixels.shape[0], pixels.shape[1]), embedding, where)
    search = _searching(pixels, predictor, options or EverythingOptions(), pixel_spacing, embedding, where)
    found = yield from search
    return [one.found_mask() for one in found if one.area_px]


def _options(given: dict[str, Any]) -> EverythingOptions:
    known = [field.name for field in fields(EverythingOptions)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise TypeError(f"segment_everything() has no option {unknown[0]!r}; it has {', '.join(known)}")
    return EverythingOptions(**given)


def _run(
    search: Generator[Progress, None, list[T]], on_progress: Callable[[Progress], None] | None
) -> list[T]:
    while True:
        try:
            progress = next(search)
        except StopIteration as end:
            found: list[T] = end.value
            return found
        if on_progress is not None:
            on_progress(progress)


def _check_fit(
    size: tuple[int, int], embedding: ImageEmbedding | None, where: npt.NDArray[np.bool_] | None
) -> None:
    if embedding is not None and (embedding.original_size != size or embedding.crop_xyxy is not None):
        raise ImageError(
            f"The embedding is of {embedding.original_size[0]} x {embedding.original_size[1]} pixels"
            f"{'' if embedding.crop_xyxy is None else ', cropped'}, but the image has {size[0]} x {size[1]}; "
            "give that of the whole image, or none."
        )
    if where is not None and where.shape != size:
        raise ImageError(
            f"`where` has shape {where.shape}, but the image has {size[0]} x {size[1]} pixels; give a value "
            "for each pixel."
        )


def _searching(
    image: npt.NDArray[np.uint8],
    predictor: Predictor,
    options: EverythingOptions,
    pixel_spacing: npt.ArrayLike,
    embedding: ImageEmbedding | None,
    where: npt.NDArray[np.bool_] | None,
) -> Generator[Progress, None, list[ClickMask]]:
    """Search crop by crop; yields after each batch of points."""
    from napari_sam_med.sam.click_answers import answer_clicks, check_takes_points

    check_takes_points(predictor)
    size = (image.shape[0], image.shape[1])
    crops = crops_of(size, options.crop_n_layers, options.crop_overlap_ratio)
    grids = options.grids()
    points = [_points_in(crop, grids[crop.layer], where) for crop in crops]
    total, done = sum(map(len, points)), 0
    found: list[ClickMask] = []
    for crop, points_xy in zip(crops, points, strict=True):
        if not len(points_xy):
            continue
        if crop.layer > 0 or embedding is None:
            embedding = predictor.embed(image, pixel_spacing, None if crop.layer == 0 else crop.xyxy)
        here: list[ClickMask] = []
        for answers in answer_clicks(
            predictor,
            embedding,
            points_xy,
            iou_above=options.pred_iou_thresh if options.pred_iou_thresh > 0 else -np.inf,
            at_once=options.points_per_batch,
        ):
            here += click_masks_of(answers, embedding, predictor, crop, points_xy, options)
            done += answers.n_clicks
            yield Progress(done, total, "asking points")
        found += _without_doubles(here, [one.predicted_iou for one in here], options.box_nms_thresh)
    if len(crops) > 1:
        scores = [np.float32(1) / np.float32(one.crop_area) for one in found]
        found = _without_doubles(found, scores, options.crop_nms_thresh)
    if options.min_mask_region_area > 0:
        found = _mended(found, options)
    return found


def _points_in(crop: ImageCrop, grid: Points, where: npt.NDArray[np.bool_] | None) -> Points:
    """The points of a grid in pixels of the crop, those alone where they are wanted."""
    height, width = crop.size
    points: Points = grid * np.array([[width, height]])
    if where is None:
        return points
    wanted: Points = points[lie_in(points + crop.xyxy[:2], where)]
    return wanted


def _without_doubles(
    found: list[ClickMask], scores: Sequence[float | np.float32], iou_thresh: float
) -> list[ClickMask]:
    boxes = np.array([one.box_xyxy for one in found]).reshape(-1, 4)
    kept = best_of_overlapping(boxes, np.array(scores, dtype=np.float32), iou_thresh)
    return [found[i] for i in kept]


def _mended(found: list[ClickMask], options: EverythingOptions) -> list[ClickMask]:
    """Masks without small regions; of new doubles those stay that needed no mending."""
    mended = [one.without_small_regions(options.min_mask_region_area) for one in found]
    untouched = [float(new is old) for new, old in zip(mended, found, strict=True)]
    return _without_doubles(mended, untouched, max(options.box_nms_thresh, options.crop_nms_thresh))
