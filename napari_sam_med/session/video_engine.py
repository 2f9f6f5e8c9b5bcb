"""Long work with a video model, as plain generators like those of `jobs`: loading it, carrying with it."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sam_med.progress import Progress
from napari_sam_med.session.blank_slices import refuse_blank
from napari_sam_med.session.preloading import preload_torch_libraries

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_sam_med.segmentation.propagation import PromptedObjects, PropagatedSlice
    from napari_sam_med.segmentation.video_propagation import VideoPropagator
    from napari_sam_med.volume.slice_view import SliceView
    from napari_sam_med.volume.volume import Volume

__all__ = ["carry_as_video", "load_video_engine"]


def load_video_engine(path: Path, device: str) -> Generator[Progress, None, VideoPropagator]:
    """Load a video model; imports torch, so never run it on the main thread."""
    yield Progress(0, 1, f"loading {path.name}")
    preload_torch_libraries()
    from napari_sam_med.segmentation.video_propagation import load_video_propagator

    return load_video_propagator(path, device=device)


def carry_as_video(
    volume: Volume,
    window: tuple[float, float],
    engine: VideoPropagator,
    objects: PromptedObjects,
    masks: Mapping[int, Mapping[SliceView, npt.NDArray[np.bool_]]],
    *,
    directions: Collection[str] = ("forward", "backward"),
    first_index: int | None = None,
    last_index: int | None = None,
) -> Generator[PropagatedSlice, None, None]:
    """Carry objects from their key slices with a video model, a slice at a time; no other model is asked.

    Raises
    ------
    PromptError
        If no voxel of a prompted slice has a number; or as `propagate` does.
    """
    from napari_sam_med.segmentation.propagation import propagate

    refuse_blank(volume, objects)
    yield from propagate(
        volume,
        objects,
        engine=engine,
        window=window,
        masks=masks,
        directions=directions,
        first_index=first_index,
        last_index=last_index,
    )
