"""Carrying masks from prompted key slices through a volume.

`propagate` is the one entry; engines behind the `Propagator` protocol do the work. The slice-wise engine uses
any promptable 2-D model: what the neighbouring slices show is the next slice's prompt. The video engine,
`load_video_propagator`, uses SAM 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ModelError, PromptError
from napari_sam_med.progress import Progress

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.sam.prompts import Prompts
    from napari_sam_med.volume.slice_view import SliceView
    from napari_sam_med.volume.volume import Volume

__all__ = ["Direction", "PromptedObjects", "PropagatedSlice", "Propagator", "Source", "propagate"]

Source = Literal["prompt", "propagated", "interpolated"]
Direction = Literal["key", "forward", "backward"]
PromptedObjects = Mapping[int, tuple[int, Mapping["SliceView", "Prompts"]]]


@dataclass(frozen=True, eq=False)
class PropagatedSlice:
    """One object's mask on one slice, as soon as it is known.

    Attributes
    ----------
    progress : Progress
        Slices done and expected, over all objects.
    object_id, class_id : int
        Which object, and the label number of its organ.
    view : SliceView
        Plane and canonical index.
    mask : ndarray (H, W) of bool
        In the slice's own pixels. Empty on the slice where a direction stopped because the object ended.
    logits : ndarray (h, w) of float32 or None
        The model's low-resolution logits; None where the mask is interpolated, empty, drawn by hand (in some
        engines) or comes from a cache.
    quality : float
        0 (worthless) to 1 (sure).
    source : {"prompt", "propagated", "interpolated"}
    reason : str or None
        Why propagation ended here, in words; None on every slice after which it went on.
    direction : {"key", "forward", "backward"}
        Forward counts towards higher canonical indices.
    iou_prediction : float or None
        The model's own estimate.
    """

    progress: Progress
    object_id: int
    class_id: int
    view: SliceView
    mask: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float32] | None
    quality: float
    source: Source
    reason: str | None
    direction: Direction = "key"
    iou_prediction: float | None = None


class Propagator(Protocol):
    """An engine that turns prompted key slices into masks of a volume."""

    @property
    def propagate(self) -> Callable[..., Iterator[PropagatedSlice]]:
        """Called with ``(volume, objects, predictor, **options)``; yields slices as they are done.

        Closing the iterator stops the work and loses nothing that was yielded.
        """
        ...


def propagate(
    volume: Volume,
    objects: PromptedObjects,
    predictor: Predictor | None = None,
    *,
    engine: Propagator | None = None,
    **options: Any,
) -> Iterator[PropagatedSlice]:
    """Carry every object from its key slices through the volume.

    Parameters
    ----------
    volume : Volume
    objects : mapping
        ``object_id -> (class_id, {view: prompts})``; one or several key slices an object.
    predictor : Predictor, optional
        What the slice-wise engine segments slices with; a video engine needs none.
    engine : Propagator, optional
        The slice-wise engine when left out.
    **options
        Passed to the engine. The slice-wise engine takes ``window``, ``store``, ``crop``, ``masks`` (drawn
        key masks, ``object_id -> {view: (H, W) bool}``), ``first_index``, ``last_index``, ``directions``,
        ``cache``, ``locked`` and its own parameters, such as ``min_overlap`` and ``taper``; see
        `SlicewisePropagator`.

    Yields
    ------
    PropagatedSlice
        Key slices first, then the slices nearest to them. What was yielded so far is a correct partial
        result, and closing the generator ends the work.

    Raises
    ------
    PromptError
        When no object has a key slice, a key slice lies outside the volume, or a class id is below 1.
    ModelError
        When there is neither a predictor nor an engine.

    Examples
    --------
    >>> for done in propagate(volume, {1: (6, {view: prompts})}, predictor):    # doctest: +SKIP
    ...     labels.assign(done.view, done.mask, done.class_id)
    """
    chosen = _slicewise(predictor) if engine is None else engine
    _check(volume, objects, options.get("masks") or {})
    return chosen.propagate(volume, objects, predictor, **options)


def _slicewise(predictor: Predictor | None) -> Propagator:
    if predictor is None:
        raise ModelError("There is no model to carry masks with: give a predictor, or a video engine.")
    from napari_sam_med.segmentation.slicewise_propagation import SlicewisePropagator

    return SlicewisePropagator()


def _check(volume: Volume, objects: PromptedObjects, masks: Mapping[int, Mapping[SliceView, Any]]) -> None:
    if not objects:
        raise PromptError("There is nothing to carry: give at least one object with a prompted slice.")
    for object_id, (class_id, key_slices) in objects.items():
        if class_id < 1:
            raise PromptError(
                f"Object {object_id} has class {class_id}; classes count from 1 because 0 is background."
            )
        views = {*key_slices, *masks.get(object_id, {})}
        if not views:
            raise PromptError(f"Object {object_id} has no key slice; prompt at least one slice of it.")
        for view in views:
            n_slices = volume.shape[view.axis]
            if not 0 <= view.index < n_slices:
                raise PromptError(
                    f"Object {object_id} has a key slice {view.plane} {view.index}, but the volume has "
                    f"{view.plane} slices 0 to {n_slices - 1}; move the prompt into the volume."
                )
        for view, mask in masks.get(object_id, {}).items():
            if view in key_slices:
                _check_points(view, key_slices[view], view.slice_shape(volume.shape))
            if np.shape(mask) != view.slice_shape(volume.shape):
                raise PromptError(
                    f"Object {object_id} has a drawn mask of {np.shape(mask)}, but {view.plane} slices are "
                    f"{view.slice_shape(volume.shape)} (H, W); draw it on the slice's own pixels."
                )


def _check_points(view: SliceView, prompts: Prompts, shape: tuple[int, int]) -> None:
    """Refuse points outside a drawn slice of shape (H, W), which no model is asked about."""
    height, width = shape
    for x, y in prompts.points_xy.tolist():
        if not (-1 <= x <= width and -1 <= y <= height):  # as `Predictor` takes them
            raise PromptError(
                f"The point [{x:g}, {y:g}] lies outside {view.plane} slice {view.index} of {width} x "
                f"{height} pixels; points are x = column, y = row, in pixels of the slice."
            )
