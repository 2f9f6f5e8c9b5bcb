"""What a propagator is measured against: simple ways to carry a prompt, with the same model.

Each is an engine for `napari_sam_med.propagate`. They answer key slices exactly as the slice-wise engine
does, so that only the carrying differs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.evaluation.metrics import iou
from napari_sam_med.progress import Progress
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.propagation import Direction, PromptedObjects, PropagatedSlice
from napari_sam_med.segmentation.slicewise import Window, box_of_mask, embed_slice
from napari_sam_med.volume.intensity import resolve_window
from napari_sam_med.volume.slice_view import PLANES, Plane, SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.mask_prediction import MaskPrediction
    from napari_sam_med.sam.predictor import ImageEmbedding, Predictor
    from napari_sam_med.volume.volume import Volume

__all__ = ["BoxCopyPropagator", "PreviousMaskPropagator"]

Mask = npt.NDArray[np.bool_]
Projection = Literal["box", "single_point"]

_POINT_SMOOTHING_PX = 1.0
"""Standard deviation of the Gaussian on the distance transform: the middle of a plateau, not its corner."""


@dataclass(frozen=True)
class _Answer:
    """A mask on one slice, and what the model thinks of it."""

    index: int
    mask: Mask
    logits: npt.NDArray[np.float32] | None
    quality: float
    iou_prediction: float | None
    direction: Direction
    reason: str | None = None

    @classmethod
    def of(cls, index: int, prediction: MaskPrediction, direction: Direction) -> _Answer:
        predicted = float(prediction.iou_predictions[prediction.best_index])
        return cls(
            index=index,
            mask=prediction.best_mask,
            logits=prediction.best_low_res_logits,
            quality=float(np.clip(np.nan_to_num(predicted), 0.0, 1.0)),
            iou_prediction=predicted,
            direction=direction,
        )

    @classmethod
    def empty(cls, index: int, shape: tuple[int, ...], direction: Direction, reason: str | None) -> _Answer:
        return cls(index, np.zeros(shape, dtype=bool), None, 0.0, None, direction, reason)


@dataclass(frozen=True)
class _Key:
    """A key slice: its mask, and the user's box if there was one."""

    answer: _Answer
    box_xyxy: npt.NDArray[np.float32] | None

    @property
    def index(self) -> int:
        return self.answer.index

    @property
    def mask(self) -> Mask:
        return self.answer.mask


@dataclass(frozen=True)
class _Sight:
    """A volume in one plane, through a window, with a model."""

    volume: Volume
    predictor: Predictor
    plane: Plane
    window: tuple[float, float]
    store: EmbeddingStore | None
    limits: tuple[int | None, int | None]
    memory: dict[int, _Answer] = field(default_factory=dict)

    @property
    def range(self) -> range:
        """Slices that may be filled."""
        n_slices = self.volume.shape[SliceView(self.plane, 0).axis]
        first, last = self.limits
        return range(max(0, first or 0), min(n_slices, n_slices if last is None else last + 1))

    def ask(self, index: int, prompts: Prompts, direction: Direction) -> _Answer:
        """One mask for the prompts, as it is made for every carried slice."""
        prediction = self.predictor.predict(
            self._embedding(SliceView(self.plane, index)), prompts, multimask=False, direct_upsampling=True
        )
        return _Answer.of(index, prediction, direction)

    def key(self, view: SliceView, prompts: Prompts | None, drawn: npt.ArrayLike | None) -> _Key:
        """A key slice's mask: the drawn one, else the model's answer to the prompts."""
        box = None if prompts is None else prompts.box_xyxy
        if drawn is not None:
            mask = np.array(drawn, dtype=bool)
            return _Key(_Answer(view.index, mask, None, 1.0, None, "key"), box if mask.any() else None)
        assert prompts is not None  # propagate refuses objects without either
        prediction = self.predictor.predict(self._embedding(view), prompts)
        return _Key(_Answer.of(view.index, prediction, "key"), box)

    def _embedding(self, view: SliceView) -> ImageEmbedding:
        return embed_slice(self.volume, view, self.predictor, window=self.window, store=self.store)


class _Baseline(ABC):
    """The common frame: key slices first, then whatever the baseline does, object after object."""

    def propagate(
        self,
        volume: Volume,
        objects: PromptedObjects,
        predictor: Predictor,
        *,
        window: Window = "auto",
        store: EmbeddingStore | None = None,
        masks: Mapping[int, Mapping[SliceView, npt.ArrayLike]] | None = None,
        first_index: int | None = None,
        last_index: int | None = None,
    ) -> Iterator[PropagatedSlice]:
        """Carry the objects; parameters as in `SlicewisePropagator.propagate`.

        Key slices of the plane that has most of them are carried; those of other planes are answered alone.
        An empty drawn mask says that the object does not reach that slice.
        """
        low_high = resolve_window(volume, window)
        numbers = count(1)
        for object_id, (class_id, prompted) in objects.items():
            drawn = (masks or {}).get(object_id, {})
            views = sorted({*prompted, *drawn}, key=lambda view: (view.plane, view.index))
            plane = max(PLANES, key=lambda name: sum(view.plane == name for view in views))
            sight = _Sight(volume, predictor, plane, low_high, store, (first_index, last_index))
            keys = {view: sight.key(view, prompted.get(view), drawn.get(view)) for view in views}
            carried = self._carry(sight, [key for view, key in keys.items() if view.plane == plane])
            total = len(sight.range)
            for view, answer in self._in_order(keys, carried, plane):
                number = next(numbers)
                yield PropagatedSlice(
                    progress=Progress(number, max(number, total), "propagating"),
                    object_id=object_id,
                    class_id=class_id,
                    view=view,
                    mask=answer.mask,
                    logits=answer.logits,
                    quality=answer.quality,
                    source="prompt" if answer.direction == "key" else "propagated",
                    reason=answer.reason,
                    direction=answer.direction,
                    iou_prediction=answer.iou_prediction,
                )

    @staticmethod
    def _in_order(
        keys: Mapping[SliceView, _Key], carried: Iterator[_Answer], plane: Plane
    ) -> Iterator[tuple[SliceView, _Answer]]:
        yield from ((view, key.answer) for view, key in keys.items())
        yield from ((SliceView(plane, answer.index), answer) for answer in carried)

    @abstractmethod
    def _carry(self, sight: _Sight, keys: list[_Key]) -> Iterator[_Answer]:
        """Answers on slices other than the keys, which come in ascending order."""


class BoxCopyPropagator(_Baseline):
    """The nearest key slice's box, copied to every slice of the range and answered by the model.

    What a model does with a box alone when nobody says where the object ends. The user's own box is copied,
    or the tangent box of a drawn mask.
    """

    def _carry(self, sight: _Sight, keys: list[_Key]) -> Iterator[_Answer]:
        boxes = {key.index: _box(key) for key in keys}
        indices = [index for index in sight.range if index not in boxes]
        for index in sorted(indices, key=lambda i: min(abs(i - key) for key in boxes)):
            nearest = min(boxes, key=lambda key: abs(index - key))
            direction: Direction = "forward" if index > nearest else "backward"
            box = boxes[nearest]
            if box is None:
                shape = SliceView(sight.plane, index).slice_shape(sight.volume.shape)
                yield _Answer.empty(index, shape, direction, None)
            else:
                yield sight.ask(index, Prompts(box_xyxy=box), direction)


class PreviousMaskPropagator(_Baseline):
    """micro-sam's rule: each slice is prompted from the mask of the one before.

    Outside the key slices it ends where the mask overlaps the previous one too little, or the volume ends.
    Between two key slices it marches from both to the middle, without a stop test; a slice just as far from
    both ends is prompted from the union of its two neighbours.

    Source: Archit et al., Segment Anything for Microscopy, Nature Methods 22, 2025, and its documentation;
    written from the description.

    Parameters
    ----------
    projection : {"box", "single_point"}
        What is made of the previous mask: its tangent box, or the pixel where its smoothed distance transform
        is largest.
    min_overlap : float
        Least IoU (0..1) of neighbouring masks.
    box_extension : float
        Share of its sides by which the box grows on each side; without effect on a point.
    """

    def __init__(
        self, projection: Projection = "box", min_overlap: float = 0.8, box_extension: float = 0.0
    ) -> None:
        self.projection = projection
        self.min_overlap = min_overlap
        self.box_extension = box_extension

    def _carry(self, sight: _Sight, keys: list[_Key]) -> Iterator[_Answer]:
        first, last = keys[0], keys[-1]
        yield from self._outwards(sight, first, range(first.index - 1, sight.range.start - 1, -1))
        yield from self._outwards(sight, last, range(last.index + 1, sight.range.stop))
        for before, after in pairwise(keys):
            if before.mask.any() and after.mask.any():
                yield from self._to_the_middle(sight, before, after)
            elif before.mask.any():
                yield from self._outwards(sight, before, range(before.index + 1, after.index))
            else:
                yield from self._outwards(sight, after, range(after.index - 1, before.index, -1))

    def _outwards(self, sight: _Sight, key: _Key, indices: range) -> Iterator[_Answer]:
        direction: Direction = "forward" if indices.step > 0 else "backward"
        previous = key.mask
        for index in indices:
            if not previous.any() or index not in sight.range:
                return
            answer = self._step(sight, index, previous, direction)
            overlap = iou(previous, answer.mask) if answer.mask.any() else 0.0
            if overlap < self.min_overlap:
                reason = (
                    f"overlap with the previous slice fell to {overlap:.2f} (limit {self.min_overlap:.2f})"
                    if answer.mask.any()
                    else "the mask vanished"
                )
                yield _Answer.empty(index, answer.mask.shape, direction, reason)
                return
            yield answer
            previous = answer.mask

    def _to_the_middle(self, sight: _Sight, before: _Key, after: _Key) -> Iterator[_Answer]:
        low, high, from_low, from_high = before.index, after.index, before.mask, after.mask
        while high - low > 2:
            low, high = low + 1, high - 1
            forward = self._step(sight, low, from_low, "forward")
            from_low = forward.mask
            yield forward
            backward = self._step(sight, high, from_high, "backward")
            from_high = backward.mask
            yield backward
        if high - low == 2:
            yield self._step(sight, low + 1, from_low | from_high, "forward")

    def _step(self, sight: _Sight, index: int, previous: Mask, direction: Direction) -> _Answer:
        if index not in sight.range or not previous.any():
            return _Answer.empty(index, previous.shape, direction, None)
        return sight.ask(index, self._prompts(previous), direction)

    def _prompts(self, previous: Mask) -> Prompts:
        if self.projection == "box":
            return Prompts(box_xyxy=box_of_mask(previous, self.box_extension))
        depth = ndimage.gaussian_filter(
            ndimage.distance_transform_edt(np.pad(previous, 1)), _POINT_SMOOTHING_PX
        )
        row, column = np.unravel_index(np.argmax(depth[1:-1, 1:-1]), previous.shape)
        return Prompts.from_points([(int(column), int(row))], [1])


def _box(key: _Key) -> npt.ArrayLike | None:
    if key.box_xyxy is not None:
        return key.box_xyxy
    return box_of_mask(key.mask) if key.mask.any() else None
