"""What every way of matching offers: a slice in, the instances of the example's organ out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import PromptError
from napari_sam_med.segmentation.automatic.found_objects import FoundMask
from napari_sam_med.volume.slice_view import Plane

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.predictor import ImageEmbedding, Predictor
    from napari_sam_med.segmentation.matching.example import Example

__all__ = [
    "DESIGNS",
    "ENGINES",
    "Design",
    "EngineName",
    "MatchedMask",
    "Matcher",
    "Matching",
    "QuerySlice",
    "is_same_object",
    "place_agreement",
    "size_agreement",
    "surest",
]

EngineName = Literal["similarity", "stitching"]
Design = Literal["example", "random", "grid", "grid-negatives"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
DESIGNS: tuple[Design, ...] = get_args(Design)

_SAME_OBJECT_IOU = 0.5
_SAME_OBJECT_SHARE = 0.7
"""Of the smaller mask inside the larger one: two answers to one object, not two instances."""

_LEAST_AREA_SHARE = 0.05
_MOST_AREA_SHARE = 2.5
"""Areas, as shares of the example's, between which an answer loses nothing for its size."""


@dataclass(frozen=True)
class Matching:
    """How the organ of an example is looked for.

    Attributes
    ----------
    engine : {"similarity", "stitching"}
        Compare what the model's encoder says, or show example and query to the model as one image.
    design : {"example", "random", "grid", "grid-negatives"}
        Prompts of the stitched image.
    plane : {"axial", "coronal", "sagittal"}
        Of the slices that are searched.
    every : int
        Only each so-manieth slice is searched; 0 for one in about 10 mm.
    propagate : bool
        Carry the best slice of each instance through the volume; else only searched slices have masks.
    min_score : float
        Answers that are less sure are dropped, 0..1.
    least_of_best : float
        As are those that are less sure than this share of the surest, on a slice and in a volume, 0..1.
    most_instances : int
        On a slice, and in a volume.
    runs : int
        Prompts of the stitched image, at most.
    near_mm : float
        Prefer places as far from the image's middle as the organ is on the example, give or take so many
        millimetres: for scans that show the same part of the body; 0 for no such preference.
    seed : int
        Of the random points.

    Raises
    ------
    PromptError
        On a name that does not exist, or a number out of range.
    """

    engine: EngineName = "similarity"
    design: Design = "random"
    plane: Plane = "axial"
    every: int = 0
    propagate: bool = True
    min_score: float = 0.3
    least_of_best: float = 0.9
    most_instances: int = 8
    runs: int = 25
    near_mm: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, what, known in (
            (self.engine, "engine of matching", ENGINES),
            (self.design, "prompt design", DESIGNS),
        ):
            if name not in known:
                raise PromptError(f"There is no {what} {name!r}; use {', '.join(known)}.")
        if min(self.most_instances, self.runs) < 1 or self.every < 0:
            raise PromptError(
                "Matching takes 1 or more for most_instances and runs, and 0 or more for every; "
                f"got {self.most_instances}, {self.runs} and {self.every}."
            )
        if not self.near_mm >= 0:
            raise PromptError(f"near_mm is 0 or more millimetres, got {self.near_mm:g}.")
        if not (0 <= self.min_score <= 1 and 0 <= self.least_of_best <= 1):
            raise PromptError(
                "Matching takes 0 to 1 for min_score and least_of_best; "
                f"got {self.min_score:g} and {self.least_of_best:g}."
            )


@dataclass(frozen=True, eq=False)
class MatchedMask:
    """One instance on a slice, and how much speaks for it, 0..1."""

    found: FoundMask
    score: float


@dataclass(frozen=True, eq=False)
class QuerySlice:
    """A slice that is searched; what the model makes of it is made when it is asked for.

    Attributes
    ----------
    image : ndarray (H, W, 3) uint8
    pixel_spacing : (row, column)
        Millimetres.
    predictor : Predictor
    store : EmbeddingStore, optional
        Where the embedding may lie already.
    """

    image: npt.NDArray[np.uint8]
    pixel_spacing: tuple[float, float]
    predictor: Predictor
    store: EmbeddingStore | None = None

    @cached_property
    def embedding(self) -> ImageEmbedding:
        """The model's embedding of the slice."""
        if self.store is None:
            return self.predictor.embed(self.image, self.pixel_spacing)
        return self.store.get_or_embed(self.predictor, self.image, self.pixel_spacing)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def pixel_mm2(self) -> float:
        """Square millimetres of a pixel."""
        return self.pixel_spacing[0] * self.pixel_spacing[1]


class Matcher(Protocol):
    """A way to find the example's organ on a slice; it keeps the example, and nothing of what it searched."""

    def find(self, query: QuerySlice) -> list[MatchedMask]:
        """Instances by falling score; none where nothing is sure enough."""
        ...


def surest(masks: Iterable[MatchedMask], matching: Matching) -> list[MatchedMask]:
    """The surest masks of a slice, each object once, by falling score."""
    kept: list[MatchedMask] = []
    for one in sorted(masks, key=lambda mask: -mask.score):
        least = matching.min_score if not kept else matching.least_of_best * kept[0].score
        if len(kept) == matching.most_instances or one.score < max(least, matching.min_score):
            break
        if not any(is_same_object(one.found, other.found) for other in kept):
            kept.append(one)
    return kept


def is_same_object(one: FoundMask, other: FoundMask) -> bool:
    """Whether two masks of a slice are two answers to one object."""
    both = one.overlap_px(other)
    smaller = min(one.area_px, other.area_px)
    return both > _SAME_OBJECT_SHARE * smaller or one.iou(other) > _SAME_OBJECT_IOU


def place_agreement(
    mask: npt.NDArray[np.bool_],
    pixel_spacing: tuple[float, float],
    example: Example,
    near_mm: float,
) -> float:
    """What a mask's score is multiplied by for its place: 1 where the example has the organ, less elsewhere.

    Parameters
    ----------
    mask : ndarray (H, W) bool
        Not empty.
    pixel_spacing : (row, column)
        Millimetres.
    example : Example
        Its main slice; places are counted from the middles of both images.
    near_mm : float
        Distance at which 0.61 is left; 0 for 1 everywhere.
    """
    if near_mm == 0:
        return 1.0
    one = example.slices[0]
    gap = _from_middle(mask, pixel_spacing) - _from_middle(one.mask, one.pixel_spacing)
    return float(np.exp(-0.5 * np.sum(gap**2) / near_mm**2))


def _from_middle(mask: npt.NDArray[np.bool_], pixel_spacing: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Where a mask lies (row, column), millimetres from the middle of its image."""
    centre = np.argwhere(mask).mean(axis=0)
    place: npt.NDArray[np.float64] = (centre - (np.array(mask.shape) - 1) / 2) * np.array(pixel_spacing)
    return place


def size_agreement(area_mm2: float, example_mm2: float) -> float:
    """What a mask's score is multiplied by for its size: 1, and less where it is far from the example's.

    The outer slices of an organ show little of it, so that smaller is forgiven more than larger.
    """
    share = area_mm2 / example_mm2
    return min(1.0, share / _LEAST_AREA_SHARE, _MOST_AREA_SHARE / share)
