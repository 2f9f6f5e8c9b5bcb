"""Propagation with a SAM 2 video model: slices are frames, and the model remembers keys and its own way."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from napari_sam_med.errors import PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.device import Precision, resolve_device, resolve_precision
from napari_sam_med.segmentation.propagation import Direction, PromptedObjects, PropagatedSlice
from napari_sam_med.segmentation.slicewise import Window
from napari_sam_med.segmentation.video_extra import is_available
from napari_sam_med.segmentation.video_network import Film, KeyMemories, Track, VideoAnswer, VideoNetwork
from napari_sam_med.segmentation.video_weights import read_video_weights
from napari_sam_med.volume.intensity import resolve_window
from napari_sam_med.volume.slice_view import PLANES, Plane, SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.model_registry import ModelRecord
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.sam.prompts import Prompts
    from napari_sam_med.volume.volume import Volume

__all__ = ["VideoPropagator", "is_available", "load_video_propagator"]

FEATURE_BYTES = 512 * 1024**2
"""Image features kept for the objects of one call: of 31 slices at 1024 pixels in fp32, of 127 at 512."""

Masks = Mapping[int, Mapping[SliceView, npt.ArrayLike]]


def load_video_propagator(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    image_size: int | None = None,
) -> VideoPropagator:
    """Load a SAM 2 video model from this machine, as an engine for `napari_sam_med.propagate`.

    Parameters
    ----------
    path : path
        A folder of transformers, or a file in the layout of the sam2 repository (SAM 2.1, MedSAM2); see
        `read_video_weights`.
    device, precision
        As for `load_predictor`.
    image_size : int, optional
        Side of the square that slices are shown as, where the file does not say it.

    Raises
    ------
    ModelError
        When the extra ``video`` is not installed, or the path is no such model.
    DeviceError
        When the machine does not have the device.

    Examples
    --------
    >>> engine = load_video_propagator("MedSAM2_latest.pt")    # doctest: +SKIP
    >>> for done in propagate(volume, {1: (6, {view: prompts})}, engine=engine):    # doctest: +SKIP
    ...     labels.assign(done.view, done.mask, done.class_id)
    """
    where = resolve_device(device)
    how = resolve_precision(precision, where)
    weights = read_video_weights(path, image_size=image_size)
    return VideoPropagator(VideoNetwork(weights.model, weights.record, where, how), weights.sha256)


@dataclass(frozen=True, eq=False)
class _Found:
    """One slice of an object's way, and why the way ends there, if it does."""

    view: SliceView
    mask: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float32] | None
    quality: float
    iou_prediction: float | None
    direction: Direction
    reason: str | None = None
    missing: str | None = None


@dataclass
class _Walker:
    """One direction from one key slice."""

    direction: Literal["forward", "backward"]
    track: Track
    missed: list[_Found] = field(default_factory=list)
    """Slices on which the object was not found, held back until it is known whether it comes back."""


@dataclass
class _Gap:
    """Slices low to high that no walker has reached, between two key slices or beyond the outermost."""

    low: int
    high: int
    walkers: list[_Walker]
    end_reason: str | None

    @property
    def remaining(self) -> int:
        return max(0, self.high - self.low + 1) if self.walkers else 0

    def take(self, walker: _Walker) -> int:
        """The next slice for a walker."""
        if walker.direction == "forward":
            self.low += 1
            return self.low - 1
        self.high -= 1
        return self.high + 1

    def stop(self, walker: _Walker) -> _Found | None:
        """End a direction that lost the object; the slices it missed are left to the one from the other side.

        Returns
        -------
        _Found or None
            The first missed slice with the reason, once nobody is left to find the object there.
        """
        first = walker.missed[0]
        if walker.direction == "forward":
            self.low = first.view.index
        else:
            self.high = first.view.index
        self.walkers.remove(walker)
        if self.walkers:
            return None
        empty = np.zeros_like(first.mask)
        return _Found(first.view, empty, None, 0.0, first.iou_prediction, walker.direction, first.missing)


@dataclass
class _Object:
    """One object on its way through the volume."""

    object_id: int
    class_id: int
    film: Film
    gaps: list[_Gap] = field(default_factory=list)


class VideoPropagator:
    """Propagation with SAM 2 or MedSAM2 (Ravi et al., arXiv 2408.00714; Ma et al., arXiv 2504.03600).

    The model answers the key slices from their points and boxes, or takes their masks as they are. From every
    key slice it goes forward and backward, a slice a turn, so that between two key slices the nearer one
    decides; on each slice it attends to the key slices on both sides (the nearest eight) and to the last six
    slices of its own way. A direction ends when the object is not found on `patience` slices in a row.

    An object whose key slices lie in several planes is carried along the plane that has most of them (the
    first of axial, coronal, sagittal when equal); the other key slices are answered as they are.

    Parameters
    ----------
    network : VideoNetwork
    model_hash : str
        SHA-256 of the weights, for reports.
    """

    def __init__(self, network: VideoNetwork, model_hash: str) -> None:
        self.model_hash = model_hash
        self._network = network

    def __repr__(self) -> str:
        where = f"device={str(self.device)!r}, precision={self.precision!r}"
        return f"VideoPropagator({self.record.name!r}, {where})"

    @property
    def record(self) -> ModelRecord:
        """Name, input size and architecture of the model."""
        return self._network.record

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._network.device

    @property
    def precision(self) -> Precision:
        """``fp32`` or ``bf16``."""
        return self._network.precision

    def propagate(
        self,
        volume: Volume,
        objects: PromptedObjects,
        predictor: Predictor | None = None,
        *,
        window: Window = "auto",
        store: EmbeddingStore | None = None,
        masks: Masks | None = None,
        first_index: int | None = None,
        last_index: int | None = None,
        directions: Collection[str] = ("forward", "backward"),
        patience: int = 2,
    ) -> Iterator[PropagatedSlice]:
        """Carry the objects; see `napari_sam_med.propagate` for what is yielded.

        Parameters
        ----------
        volume, objects
            As in `napari_sam_med.propagate`.
        predictor, store
            Not used: the video model answers the key slices itself, and its features are of no use to others.
        window : str or (low, high)
            What the model sees.
        masks : mapping, optional
            ``object_id -> {view: (H, W) bool}``: key masks drawn by hand, taken as they are. An empty one
            tells the model that the object is not there.
        first_index, last_index : int, optional
            Canonical indices, both inside the range that may be filled; the whole volume when left out.
        directions : collection of {"forward", "backward"}
            Which way to leave the outermost key slices; between key slices both are always walked.
        patience : int
            Slices in a row without the object after which a direction ends. Fewer are bridged and come out
            empty.

        Raises
        ------
        PromptError
            If the range neither holds a key slice nor lies beside one, or a key slice has no prompt that a
            video model takes.
        """
        limits = (first_index, last_index)
        drawn = masks or {}
        keys = {one: _key_views(prompted, drawn.get(one, {})) for one, (_, prompted) in objects.items()}
        _check_range(keys, limits)
        films = _Films(volume, resolve_window(volume, window), self.record.input_size)
        ways: list[_Object] = []
        n_done = 0
        n_ahead = sum(len(films[views[0].plane]) for views in keys.values())
        for object_id, (class_id, prompted) in objects.items():
            way = _Object(object_id, class_id, films[keys[object_id][0].plane])
            memories: KeyMemories = {}
            starts: dict[int, bool] = {}
            for view in keys[object_id]:
                found, memory = self._key(
                    films[view.plane], view, prompted.get(view), drawn.get(object_id, {}).get(view)
                )
                if view.plane == way.film.plane:
                    starts[view.index] = bool(found.mask.any())
                    if memory is not None:
                        memories[view.index] = memory
                n_done += 1
                yield _as_slice(way, found, Progress(n_done, max(n_ahead, n_done), "key slices"))
            way.gaps = self._gaps(way.film, memories, starts, limits, directions)
            ways.append(way)
        while turns := [(o, g, w) for o in ways for g in o.gaps for w in g.walkers if g.remaining]:
            for way, gap, walker in turns:
                for found in self._walk(way.film, gap, walker, patience):
                    n_done += 1
                    ahead = sum(g.remaining for o in ways for g in o.gaps)
                    yield _as_slice(way, found, Progress(n_done, n_done + ahead, "carrying"))

    def _key(
        self, film: Film, view: SliceView, prompts: Prompts | None, drawn: npt.ArrayLike | None
    ) -> tuple[_Found, Any]:
        """Answer a key slice; also what to remember of it, None when the model found nothing there."""
        if drawn is not None:
            mask = np.asarray(drawn, dtype=bool)
            memory = self._network.remember_mask(film, view.index, mask)
            return _Found(view, mask, None, 1.0, None, "key", _why_empty(mask)), memory
        assert prompts is not None  # every key slice has a mask or prompts, see _key_views
        answer, memory = self._network.answer_prompts(film, view.index, prompts)
        is_empty = not answer.mask.any()
        found = _Found(
            view,
            answer.mask,
            None if is_empty else answer.logits,
            _quality(answer),
            answer.iou_prediction,
            "key",
            _why_empty(answer.mask),
        )
        return found, None if is_empty else memory

    def _gaps(
        self,
        film: Film,
        memories: KeyMemories,
        starts: Mapping[int, bool],
        limits: tuple[int | None, int | None],
        directions: Collection[str],
    ) -> list[_Gap]:
        """Runs of slices to fill, each with the walkers that enter it from its key slices.

        `starts` says of each key slice whether the object is on it: from an empty one nobody sets out.
        """
        first = max(0, limits[0] if limits[0] is not None else 0)
        last = min(len(film) - 1, limits[1] if limits[1] is not None else len(film) - 1)

        def walkers(key: int, direction: Literal["forward", "backward"]) -> list[_Walker]:
            if not starts[key]:
                return []
            track = self._network.track(film, memories, reverse=direction == "backward")
            return [_Walker(direction, track)]

        indices = sorted(starts)
        gaps = [
            _Gap(max(a + 1, first), min(b - 1, last), walkers(a, "forward") + walkers(b, "backward"), None)
            for a, b in pairwise(indices)
        ]
        if "backward" in directions:
            reason = "start of the volume" if first == 0 else "start of the chosen range"
            high = min(indices[0] - 1, last)
            gaps.insert(0, _Gap(first, high, walkers(indices[0], "backward"), reason))
        if "forward" in directions:
            reason = "end of the volume" if last == len(film) - 1 else "end of the chosen range"
            low = max(indices[-1] + 1, first)
            gaps.append(_Gap(low, last, walkers(indices[-1], "forward"), reason))
        return gaps

    def _walk(self, film: Film, gap: _Gap, walker: _Walker, patience: int) -> Iterator[_Found]:
        """Take one step; yields what is certain after it, which is nothing while the object is missed."""
        if not gap.remaining or walker not in gap.walkers:
            return
        view = SliceView(film.plane, gap.take(walker))
        answer = self._network.answer_next(film, walker.track, view.index)
        missing = _why_missing(answer)
        if missing is None:
            yield from walker.missed
            walker.missed.clear()
        found = _Found(
            view,
            answer.mask,
            None if missing else answer.logits,
            _quality(answer),
            answer.iou_prediction,
            walker.direction,
            reason=None if missing or gap.remaining else gap.end_reason,
            missing=missing,
        )
        if missing is None:
            yield found
        else:
            walker.missed.append(found)
        for one in list(gap.walkers):
            if one.missed and (len(one.missed) >= patience or not gap.remaining):
                stopped = gap.stop(one)
                if stopped is not None:
                    yield stopped


class _Films(dict[Plane, Film]):
    """A film a plane, made when it is first asked for."""

    def __init__(self, volume: Volume, window: tuple[float, float], side: int) -> None:
        super().__init__()
        self._of = (volume, window, side)

    def __missing__(self, plane: Plane) -> Film:
        volume, window, side = self._of
        self[plane] = Film(volume, plane, window, side, FEATURE_BYTES)
        return self[plane]


def _key_views(prompted: Mapping[SliceView, Any], drawn: Mapping[SliceView, Any]) -> list[SliceView]:
    """Key slices of the object's main plane in order of index, then those of the other planes."""
    views = {*prompted, *drawn}
    main = max(PLANES, key=lambda plane: sum(view.plane == plane for view in views))
    return sorted(views, key=lambda view: (view.plane != main, view.plane, view.index))


def _check_range(keys: Mapping[int, list[SliceView]], limits: tuple[int | None, int | None]) -> None:
    if limits == (None, None):
        return
    indices = {view.index for views in keys.values() for view in views if view.plane == views[0].plane}
    low = limits[0] or 0
    high = max(indices) if limits[1] is None else limits[1]
    if not any(low - 1 <= index <= high + 1 for index in indices):
        text = f"{low} on" if limits[1] is None else f"{low} to {high}"
        raise PromptError(
            f"The range {text} does not touch a key slice ({', '.join(map(str, sorted(indices)))}); "
            "widen it, or prompt a slice in it."
        )


def _why_empty(mask: npt.NDArray[np.bool_]) -> str | None:
    return None if mask.any() else "the prompts gave an empty mask"


def _why_missing(answer: VideoAnswer) -> str | None:
    """SAM 2 decides by the sign of its object score whether there is anything to outline."""
    if answer.object_score < 0:
        return f"the object left the slice (object score {answer.object_score:.2f}, limit 0)"
    return None if answer.mask.any() else "the mask vanished"


def _quality(answer: VideoAnswer) -> float:
    """Geometric mean of predicted IoU and probability that the object is there; 0 without a mask."""
    if not answer.mask.any():
        return 0.0
    presence = 1.0 / (1.0 + np.exp(-np.clip(answer.object_score, -50.0, 50.0)))
    return float(np.sqrt(np.clip(answer.iou_prediction, 0.0, 1.0) * presence))


def _as_slice(way: _Object, found: _Found, progress: Progress) -> PropagatedSlice:
    return PropagatedSlice(
        progress=progress,
        object_id=way.object_id,
        class_id=way.class_id,
        view=found.view,
        mask=found.mask,
        logits=found.logits,
        quality=found.quality,
        source="prompt" if found.direction == "key" else "propagated",
        reason=found.reason,
        direction=found.direction,
        iou_prediction=found.iou_prediction,
    )
