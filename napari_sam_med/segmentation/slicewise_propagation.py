"""Slice-wise propagation: the previous slice's box and logits are the next slice's prompt."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.propagation import Direction, PromptedObjects, PropagatedSlice, Source
from napari_sam_med.segmentation.slicewise import (
    Window,
    box_of_mask,
    embed_slice,
    logits_of_mask,
    prompts_for_model,
)
from napari_sam_med.volume.intensity import resolve_window
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import ImageEmbedding, MaskPrediction, Predictor
    from napari_sam_med.volume.volume import Volume

__all__ = ["SlicewisePropagator"]

_SHARED_MEMORY_BYTES = 512 * 1024**2
"""Bound of the embeddings kept for the objects of one call when no store is given."""
_WINDOW_PER_LEAST_DEVIATION = 60
"""An even object may still differ by 3 such deviations, a twentieth of the window, from slice to slice."""


@dataclass(frozen=True)
class _Step:
    """What was found on one slice, and why propagation ends there, if it does."""

    view: SliceView
    mask: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float32] | None
    quality: float
    iou_prediction: float | None
    reason: str | None


@dataclass(frozen=True)
class _Key(_Step):
    """A key slice, from which walkers start."""

    brightness: _Brightness


@dataclass
class _Walker:
    """One direction from one key slice. It carries the last good mask and stops with a reason."""

    direction: Literal["forward", "backward"]
    index: int
    mask: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float32] | None
    brightness: _Brightness
    active: bool = True

    @property
    def step(self) -> int:
        return 1 if self.direction == "forward" else -1


@dataclass
class _Gap:
    """Slices between two key slices, or between one and the end of the range; walked from its key ends."""

    indices: range
    walkers: list[_Walker]
    end_reason: str | None
    done: set[int] = field(default_factory=set)

    @property
    def remaining(self) -> int:
        return len(self.indices) - len(self.done) if any(w.active for w in self.walkers) else 0


@dataclass
class _Track:
    """One object on its way through the volume."""

    object_id: int
    class_id: int
    keys: list[_Key]
    gaps: list[_Gap]


class SlicewisePropagator:
    """Propagation with any promptable 2-D model.

    From every key slice a walker goes forward and one backward, a slice a turn, so that slices near the keys
    come first and between two keys the nearer one wins. A walker prompts the next slice with the box of its
    last mask and that mask's logits, and stops when the mask vanishes, overlaps the last one too little, is
    one that the model itself does not trust, or lies on tissue of another brightness. Key slices are never
    computed again. The limits were chosen on volumes that no reported figure comes from.

    An object whose key slices lie in several planes is carried along the plane that has most of them (the
    first of axial, coronal, sagittal when equal); the other key slices are answered as they are.
    """

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
        directions: Collection[str] = ("forward", "backward"),
        min_overlap: float = 0.5,
        min_iou_prediction: float = 0.55,
        max_brightness_shift: float = 3.0,
        box_margin: float = 0.0,
    ) -> Iterator[PropagatedSlice]:
        """Carry the objects; see `napari_sam_med.propagate` for what is yielded.

        Parameters
        ----------
        volume, objects, predictor
            As in `napari_sam_med.propagate`.
        window : str or (low, high)
            What the model sees.
        store : EmbeddingStore, optional
            Embeddings are looked up and kept here; a bounded one in memory when left out.
        masks : mapping, optional
            ``object_id -> {view: (H, W) bool}``: key masks drawn by hand, taken as they are.
        first_index, last_index : int, optional
            Canonical indices, both inside the range that may be filled; the whole volume when left out.
        directions : collection of {"forward", "backward"}
            Which way to leave the outermost key slices; between key slices both are always walked.
        min_overlap : float
            Least IoU (0..1) of neighbouring slices' masks; below it a direction ends.
        min_iou_prediction : float
            Least IoU (0..1) that the model predicts for its own mask; below it a direction ends.
        max_brightness_shift : float
            Most that a mask's mean value, limited to the window, may differ from that of the key slice it
            came from, in standard deviations of the key slice's values (at least a twentieth of the window).
        box_margin : float
            Share of its sides by which the last mask's box is widened to prompt the next slice. None by
            default: models answer beyond a tight box, and a wide one makes masks grow from slice to slice.

        Raises
        ------
        PromptError
            If the range neither holds a key slice nor lies beside one.
        """
        _check_range(objects, masks or {}, first_index, last_index)
        stop = _StopRule(min_overlap, min_iou_prediction, max_brightness_shift)
        shared = store if store is not None else EmbeddingStore(None, memory_bytes=_SHARED_MEMORY_BYTES)
        sight = _Sight(volume, predictor, resolve_window(volume, window), shared, box_margin)
        tracks: list[_Track] = []
        n_done = 0
        n_ahead = sum(_span(volume, keys, first_index, last_index) for _, keys in objects.values())
        for object_id, (class_id, prompted) in objects.items():
            track = _Track(object_id, class_id, [], [])
            for view, prompts, drawn in _key_slices(prompted, (masks or {}).get(object_id, {})):
                key = sight.key(view, prompts, drawn)
                track.keys.append(key)
                n_done += 1
                progress = Progress(n_done, max(n_ahead, n_done), "key slices")
                yield _as_slice(track, key, progress, "prompt", "key")
            track.gaps = _gaps(track.keys, volume, (first_index, last_index), directions)
            tracks.append(track)
        while turns := [
            (t, g, w) for t in tracks for g in t.gaps for w in g.walkers if w.active and g.remaining
        ]:
            for track, gap, walker in turns:
                if not walker.active or not gap.remaining:
                    continue
                done = sight.walk(track, gap, walker, stop)
                if done is None:
                    continue
                n_done += 1
                ahead = sum(g.remaining for t in tracks for g in t.gaps)
                progress = Progress(n_done, n_done + ahead, "propagating")
                yield _as_slice(track, done, progress, "propagated", walker.direction)


@dataclass(frozen=True)
class _Brightness:
    """Mean and standard deviation of an object's values on its key slice, limited to the window."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class _Findings:
    """What is known of a carried mask when it is decided whether to go on."""

    mask: npt.NDArray[np.bool_]
    overlap: float
    iou_prediction: float
    brightness: _Brightness


@dataclass(frozen=True)
class _StopRule:
    """When a direction ends, and how that is said."""

    min_overlap: float
    min_iou_prediction: float
    max_brightness_shift: float

    def reason(self, found: _Findings, of_key: _Brightness) -> str | None:
        if not found.mask.any():
            return "the mask vanished"
        if found.overlap < self.min_overlap:
            return (
                f"overlap with the previous slice fell to {found.overlap:.2f} (limit {self.min_overlap:.2f})"
            )
        if found.iou_prediction < self.min_iou_prediction:
            limit = self.min_iou_prediction
            return f"the model's predicted IoU fell to {found.iou_prediction:.2f} (limit {limit:.2f})"
        if abs(found.brightness.mean - of_key.mean) > self.max_brightness_shift * of_key.deviation:
            changed = f"from {of_key.mean:.4g} on the key slice to {found.brightness.mean:.4g}"
            return (
                f"the mean value changed {changed} (limit {self.max_brightness_shift:g} standard deviations)"
            )
        return None


@dataclass(frozen=True)
class _Sight:
    """What the propagator looks at: a volume, through a window, with a model."""

    volume: Volume
    predictor: Predictor
    window: tuple[float, float]
    store: EmbeddingStore
    box_margin: float

    def embedding(self, view: SliceView) -> ImageEmbedding:
        return embed_slice(self.volume, view, self.predictor, window=self.window, store=self.store)

    def key(self, view: SliceView, prompts: Prompts | None, drawn: npt.ArrayLike | None) -> _Key:
        embedding = self.embedding(view)
        if drawn is not None:
            mask = np.asarray(drawn, dtype=bool)
            logits = logits_of_mask(mask, embedding, self.predictor) if mask.any() else None
            return _Key(view, mask, logits, 1.0, None, _why_empty(mask), self.brightness(view, mask))
        assert prompts is not None  # every key slice has a mask or prompts, see _key_slices
        prediction = self.predictor.predict(embedding, prompts)
        mask, iou_prediction = prediction.best_mask, _iou_prediction(prediction)
        return _Key(
            view,
            mask,
            prediction.best_low_res_logits,
            float(np.sqrt(_unit(iou_prediction) * _stability(prediction))),
            iou_prediction,
            _why_empty(mask),
            self.brightness(view, mask),
        )

    def brightness(self, view: SliceView, mask: npt.NDArray[np.bool_]) -> _Brightness:
        """Of the voxels in a mask; of the whole slice when it is empty."""
        low, high = self.window
        values = np.asarray(view.extract(self.volume.data))
        inside = np.clip(values[mask if mask.any() else ...].astype(np.float64), low, high)
        inside = inside[np.isfinite(inside)]
        if not len(inside):
            return _Brightness(low, high - low)
        least = (high - low) / _WINDOW_PER_LEAST_DEVIATION
        return _Brightness(float(inside.mean()), max(float(inside.std()), least))

    def walk(self, track: _Track, gap: _Gap, walker: _Walker, stop: _StopRule) -> _Step | None:
        """Take one step; None when the slice ahead is already done from the other side."""
        index = walker.index + walker.step
        if index not in gap.indices or index in gap.done:
            walker.active = False
            return None
        view = SliceView(track.keys[0].view.plane, index)
        prediction = self._carry(view, walker)
        mask = prediction.best_mask
        overlap = _iou(walker.mask, mask)
        iou_prediction = _iou_prediction(prediction)
        found = _Findings(mask, overlap, iou_prediction, self.brightness(view, mask))
        reason = stop.reason(found, walker.brightness)
        gap.done.add(index)
        if reason is not None:
            walker.active = False
            gap.done.discard(index)  # the walker from the other side may still reach this slice
            if any(w.active for w in gap.walkers):
                return None
            return _Step(view, np.zeros_like(mask), None, 0.0, iou_prediction, reason)
        walker.index, walker.mask, walker.logits = index, mask, prediction.best_low_res_logits
        quality = float(np.cbrt(_unit(iou_prediction) * _stability(prediction) * overlap))
        at_end = index + walker.step not in gap.indices
        walker.active = not at_end
        return _Step(
            view,
            mask,
            prediction.best_low_res_logits,
            quality,
            iou_prediction,
            gap.end_reason if at_end else None,
        )

    def _carry(self, view: SliceView, walker: _Walker) -> MaskPrediction:
        embedding = self.embedding(view)
        prompts = Prompts(box_xyxy=box_of_mask(walker.mask, self.box_margin), mask_input=walker.logits)
        prompts = prompts_for_model(prompts, self.predictor)
        return self.predictor.predict(embedding, prompts, multimask=False, direct_upsampling=True)


def _key_slices(
    prompted: Mapping[SliceView, Prompts], drawn: Mapping[SliceView, npt.ArrayLike]
) -> Iterator[tuple[SliceView, Prompts | None, npt.ArrayLike | None]]:
    """Key slices of the object's main plane in order of index, then those of the other planes."""
    views = {*prompted, *drawn}
    planes = ("axial", "coronal", "sagittal")
    main = max(planes, key=lambda plane: sum(view.plane == plane for view in views))
    for view in sorted(views, key=lambda v: (v.plane != main, v.plane, v.index)):
        yield view, prompted.get(view), drawn.get(view)


def _check_range(
    objects: PromptedObjects,
    masks: Mapping[int, Mapping[SliceView, npt.ArrayLike]],
    first: int | None,
    last: int | None,
) -> None:
    if first is None and last is None:
        return
    keys: set[int] = set()
    for object_id, (_, prompted) in objects.items():
        views = [view for view, _, _ in _key_slices(prompted, masks.get(object_id, {}))]
        keys.update(view.index for view in views if view.plane == views[0].plane)
    low, high = first or 0, max(keys) if last is None else last
    if not any(low - 1 <= key <= high + 1 for key in keys):
        text = f"{low} on" if last is None else f"{low} to {last}"
        raise PromptError(
            f"The range {text} does not touch a key slice ({', '.join(map(str, sorted(keys)))}); "
            "widen it, or prompt a slice in it."
        )


def _gaps(
    keys: list[_Key],
    volume: Volume,
    limits: tuple[int | None, int | None],
    directions: Collection[str],
) -> list[_Gap]:
    """Runs of slices to fill, each with the walkers that enter it from its key slices."""
    plane = keys[0].view.plane
    keys = [key for key in keys if key.view.plane == plane]
    n_slices = volume.shape[keys[0].view.axis]
    first = max(0, limits[0] if limits[0] is not None else 0)
    last = min(n_slices - 1, limits[1] if limits[1] is not None else n_slices - 1)

    def walker(key: _Key, direction: Literal["forward", "backward"]) -> list[_Walker]:
        if not key.mask.any():
            return []
        return [_Walker(direction, key.view.index, key.mask, key.logits, key.brightness)]

    def between(before: int, after: int) -> range:
        return range(max(first, before + 1), min(last + 1, after))

    gaps = []
    if "backward" in directions:
        reason = "start of the volume" if first == 0 else "start of the chosen range"
        gaps.append(_Gap(between(-1, keys[0].view.index), walker(keys[0], "backward"), reason))
    for before, after in pairwise(keys):
        gaps.append(
            _Gap(
                between(before.view.index, after.view.index),
                walker(before, "forward") + walker(after, "backward"),
                None,
            )
        )
    if "forward" in directions:
        reason = "end of the volume" if last == n_slices - 1 else "end of the chosen range"
        gaps.append(_Gap(between(keys[-1].view.index, n_slices), walker(keys[-1], "forward"), reason))
    return gaps


def _span(volume: Volume, keys: Mapping[SliceView, Prompts], first: int | None, last: int | None) -> int:
    """Slices that an object may fill at most (an estimate before its key slices are known)."""
    if not keys:
        return 1
    n_slices = volume.shape[next(iter(keys)).axis]
    return min(n_slices - 1, n_slices - 1 if last is None else last) - max(0, first or 0) + 1


def _why_empty(mask: npt.NDArray[np.bool_]) -> str | None:
    return None if mask.any() else "the prompts gave an empty mask"


def _as_slice(
    track: _Track, done: _Step, progress: Progress, source: Source, direction: Direction
) -> PropagatedSlice:
    return PropagatedSlice(
        progress=progress,
        object_id=track.object_id,
        class_id=track.class_id,
        view=done.view,
        mask=done.mask,
        logits=done.logits,
        quality=done.quality,
        source=source,
        reason=done.reason,
        direction=direction,
        iou_prediction=done.iou_prediction,
    )


def _iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0


def _iou_prediction(prediction: MaskPrediction) -> float:
    return float(prediction.iou_predictions[prediction.best_index])


def _stability(prediction: MaskPrediction) -> float:
    return _unit(float(prediction.stability_scores[prediction.best_index]))


def _unit(value: float) -> float:
    """The value limited to 0..1; 0 for NaN (the stability of an empty mask)."""
    return float(min(1.0, max(0.0, value))) if np.isfinite(value) else 0.0
