"""Slice-wise propagation: each slice is prompted by what its neighbours show, and its answer is judged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ModelError, PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.gaps import Key
from napari_sam_med.segmentation.propagation import PromptedObjects, PropagatedSlice
from napari_sam_med.segmentation.propagation_cache import PropagationCache
from napari_sam_med.segmentation.slice_hypotheses import PromptKind
from napari_sam_med.segmentation.slicewise import Window
from napari_sam_med.segmentation.slicewise_run import Found, Run, Track
from napari_sam_med.volume.intensity import resolve_window
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.segmentation.body import BodyBox
    from napari_sam_med.volume.volume import Volume

__all__ = ["SlicewisePropagator"]

_SHARED_MEMORY_BYTES = 512 * 1024**2
"""Bound of the embeddings kept for the objects of one call when no store is given."""


@dataclass(frozen=True)
class SlicewisePropagator:
    """Propagation with any promptable 2-D model.

    From every key slice a front goes forward and one backward, a slice a turn, so that slices near the keys
    come first. All objects of a slice are decoded in one batch; where two overlap the higher logit wins.

    Beyond the outermost key slices the last mask, moved on as it moved before, gives box and logits of the
    next prompt. When the answer is not believed (see `StopLimits`), other prompts are tried; when none is,
    one slice may be stepped over, and then the direction ends with a reason.

    Between two key slices the masks of both, interpolated by signed distance, widen the prompt and are a
    prior that is mixed with the answer in logits. Nothing stops there: a slice that finds no credible answer
    shows the interpolation.

    An object whose key slices lie in several planes is carried along the plane that has most of them (the
    first of axial, coronal, sagittal when equal); key slices of other planes hold where they cross a slice.

    Parameters
    ----------
    min_overlap, min_iou_prediction, min_stability, max_brightness_shift, max_divergence, max_growth
        See `StopLimits`.
    box_margin : float
        Share of its sides by which the box of a prompt is widened.
    follow_motion : bool
        Expect the mask where its motion leads.
    use_hypotheses : bool
        Try other prompts where the first answer is not believed.
    stop_leaks : bool
        Let one of those prompts have a background click where the first answer leaked.
    most_bridged : int
        Slices that may be stepped over.
    use_prior : bool
        Use the interpolated key masks between key slices.
    fuse : bool
        Ask twice between key slices, with the neighbour's mask and with the prior, and fuse the answers.
    prompt : {"box", "mask", "both"}
        What of the neighbouring mask is the prompt: its box, its box and logits, or one after the other.
    prior_weight : float
        Of the interpolated shape between key slices, beside the answers' predicted IoU.
    taper : float
        Where the areas of the two outermost key slices fall, go on so many times as far as the line through
        them takes to reach nothing, and beyond by confident answers no larger than the mask of their
        key slice; 0 for no such limit.
    """

    min_overlap: float = 0.5
    min_iou_prediction: float = 0.55
    min_stability: float = 0.0
    max_brightness_shift: float = 3.0
    max_divergence: float = 0.3
    max_growth: float = 2.5
    box_margin: float = 0.0
    follow_motion: bool = False
    use_hypotheses: bool = True
    stop_leaks: bool = True
    most_bridged: int = 1
    use_prior: bool = True
    fuse: bool = False
    prompt: PromptKind = "box"
    prior_weight: float = 0.35
    taper: float = 1.0

    def propagate(
        self,
        volume: Volume,
        objects: PromptedObjects,
        predictor: Predictor | None,
        *,
        window: Window = "auto",
        store: EmbeddingStore | None = None,
        crop: BodyBox | None = None,
        masks: Mapping[int, Mapping[SliceView, npt.ArrayLike]] | None = None,
        first_index: int | None = None,
        last_index: int | None = None,
        directions: Collection[str] = ("forward", "backward"),
        cache: PropagationCache | None = None,
        locked: npt.NDArray[np.bool_] | None = None,
        **changes: Any,
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
        crop : BodyBox, optional
            Show the model this part of each slice alone; whole slices where a key slice asks outside it.
        masks : mapping, optional
            ``object_id -> {view: (H, W) bool}``: key masks drawn by hand, taken as they are.
        first_index, last_index : int, optional
            Canonical indices, both inside the range that may be filled; the whole volume when left out.
        directions : collection of {"forward", "backward"}
            Which way to leave the outermost key slices; between key slices both are always walked.
        cache : PropagationCache, optional
            Gaps whose key slices did not change since they were filled come from here.
        locked : ndarray (z, y, x) of bool, optional
            Voxels that no object may take.
        **changes
            Parameters of this engine to be other than its own.

        Raises
        ------
        ModelError
            If there is no predictor.
        PromptError
            If the range neither holds a key slice nor lies beside one.
        """
        if predictor is None:
            raise ModelError("There is no model to carry masks with: give a predictor, or a video engine.")
        _check_range(objects, masks or {}, first_index, last_index)
        shared = store if store is not None else EmbeddingStore(None, memory_bytes=_SHARED_MEMORY_BYTES)
        run = Run(
            replace(self, **changes),
            volume,
            predictor,
            resolve_window(volume, window),
            shared,
            None if crop is None else crop.for_run(objects, masks),
            locked,
            cache,
        )
        limits = (first_index, last_index)
        n_done = 0
        n_ahead = sum(_span(volume, keys, *limits) for _, keys in objects.values())
        tracks: list[Track] = []
        for object_id, (class_id, prompted) in objects.items():
            track = Track(object_id, class_id, [], [])
            for view, prompts, drawn in _key_slices(prompted, (masks or {}).get(object_id, {})):
                key = run.key(view, prompts, drawn)
                track.keys.append(key)
                n_done += 1
                yield _as_slice(track, _of_key(key), Progress(n_done, max(n_ahead, n_done), "key slices"))
            run.plan(track, prompted, limits, directions)
            tracks.append(track)
        for track, found in run.fill(tracks):
            n_done += 1
            n_left = sum(gap.n_remaining for one in tracks for gap in one.gaps)
            yield _as_slice(track, found, Progress(n_done, n_done + n_left, "carrying"))


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


def _span(volume: Volume, keys: Mapping[SliceView, Prompts], first: int | None, last: int | None) -> int:
    """Slices that an object may fill at most (an estimate before its key slices are known)."""
    if not keys:
        return 1
    n_slices = volume.shape[next(iter(keys)).axis]
    return min(n_slices - 1, n_slices - 1 if last is None else last) - max(0, first or 0) + 1


def _of_key(key: Key) -> Found:
    return Found(key.view, key.mask, key.logits, key.quality, key.iou_prediction, "prompt", "key", key.reason)


def _as_slice(track: Track, found: Found, progress: Progress) -> PropagatedSlice:
    return PropagatedSlice(
        progress=progress,
        object_id=track.object_id,
        class_id=track.class_id,
        view=found.view,
        mask=found.mask,
        logits=found.logits,
        quality=found.quality,
        source=found.source,
        reason=found.reason,
        direction=found.direction,
        iou_prediction=found.iou_prediction,
    )
