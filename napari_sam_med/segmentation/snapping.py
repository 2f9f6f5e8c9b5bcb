"""Interpolation that a model pulls to the borders in the image ("snap")."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.interpolation import InterpolatingPropagator
from napari_sam_med.segmentation.propagation import PromptedObjects, PropagatedSlice
from napari_sam_med.segmentation.slicewise import (
    Window,
    box_of_mask,
    embed_slice,
    logits_of_mask,
    prompts_for_model,
)
from napari_sam_med.volume.intensity import resolve_window

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.volume.slice_view import SliceView
    from napari_sam_med.volume.volume import Volume

__all__ = ["SnappingPropagator"]

_MEMORY_BYTES = 512 * 1024**2
"""Bound of the embeddings kept for the objects of one call when no store is given."""


class SnappingPropagator:
    """Fills the slices between key slices by shape, then lets a model refine each of them.

    The model is prompted with the box and the logits of the interpolated mask. Its answer is taken where it
    agrees with the interpolation; elsewhere the interpolation stays. Which slices are filled, and in which
    order, is that of `InterpolatingPropagator`.
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
        directions: Collection[str] = (),
        min_overlap: float = 0.6,
        box_margin: float = 0.04,
    ) -> Iterator[PropagatedSlice]:
        """Fill between the key slices; see `napari_sam_med.propagate` for what is yielded.

        Parameters
        ----------
        volume, objects, predictor, masks, first_index, last_index, directions
            As in `InterpolatingPropagator.propagate`; the predictor is needed here.
        window : str or (low, high)
            What the model sees.
        store : EmbeddingStore, optional
            Embeddings are looked up and kept here; a bounded one in memory when left out.
        min_overlap : float
            Least IoU (0..1) of a refined mask with the interpolated one; chosen on volumes that no reported
            figure comes from.
        box_margin : float
            Share of its sides by which the interpolated mask's box is widened.

        Yields
        ------
        PropagatedSlice
            With the source "propagated" where the model's answer was taken, else "interpolated".

        Raises
        ------
        ModelError
            If there is no predictor, or it takes no box.
        """
        if predictor is None or "box" not in predictor.accepts:
            raise ModelError(
                "Snapping needs a model that takes boxes; choose one, or interpolate without it."
            )
        shared = store if store is not None else EmbeddingStore(None, memory_bytes=_MEMORY_BYTES)
        sight = _Sight(volume, predictor, resolve_window(volume, window), shared)
        filled = InterpolatingPropagator().propagate(
            volume,
            objects,
            predictor,
            window=sight.window,
            store=shared,
            masks=masks,
            first_index=first_index,
            last_index=last_index,
            directions=directions,
        )
        for done in filled:
            if done.source == "interpolated" and done.mask.any():
                yield sight.snapped(done, min_overlap, box_margin)
            else:
                yield done


@dataclass(frozen=True)
class _Sight:
    """What the model looks at."""

    volume: Volume
    predictor: Predictor
    window: tuple[float, float]
    store: EmbeddingStore

    def snapped(self, done: PropagatedSlice, min_overlap: float, box_margin: float) -> PropagatedSlice:
        embedding = embed_slice(self.volume, done.view, self.predictor, window=self.window, store=self.store)
        prompts = Prompts(
            box_xyxy=box_of_mask(done.mask, box_margin),
            mask_input=logits_of_mask(done.mask, embedding, self.predictor),
        )
        prompts = prompts_for_model(prompts, self.predictor)
        prediction = self.predictor.predict(embedding, prompts, multimask=False, direct_upsampling=True)
        mask = prediction.best_mask
        overlap = np.count_nonzero(mask & done.mask) / np.count_nonzero(mask | done.mask)
        if overlap < min_overlap:
            return done
        best = prediction.best_index
        iou_prediction = float(prediction.iou_predictions[best])
        trust = np.nan_to_num([iou_prediction, prediction.stability_scores[best], overlap]).clip(0.0, 1.0)
        return replace(
            done,
            mask=mask,
            logits=prediction.best_low_res_logits,
            quality=float(np.cbrt(trust.prod())),
            source="propagated",
            iou_prediction=iou_prediction,
        )
