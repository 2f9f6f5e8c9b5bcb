"""Free words: objects ranked by how well crops of them fit a text, by a CLIP model of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_sam_med.errors import PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.automatic.words import RankedObject
from napari_sam_med.volume.intensity import resolve_window, to_rgb

if TYPE_CHECKING:
    from napari_sam_med.segmentation.automatic.clip_model import ClipModel
    from napari_sam_med.segmentation.automatic.found_objects import FoundObject
    from napari_sam_med.segmentation.slicewise import Window
    from napari_sam_med.volume.volume import Volume

__all__ = ["CLEAR_SHARE", "TEMPLATES", "crop_of", "rank_by_text", "texts_for"]

CLEAR_SHARE = 0.5
"""Probability that a winner by text needs: more than all other objects together."""
TEMPLATES = (
    "{word}",
    "a photo of the {word}",
    "a {scan} image showing the {word}",
    "a {scan} slice through the {word}",
    "this is a {scan} scan of the {word}",
)
"""Several wordings, whose vectors are averaged, do better than one (CLIP, section 3.1.4)."""
_MARGIN = 0.25
"""Share of the longer side that is shown on each side of an object."""
_LEAST_MM = 24.0
"""Side of the smallest crop: less shows no surroundings."""


def rank_by_text(
    objects: Sequence[FoundObject],
    text: str,
    volume: Volume,
    clip: ClipModel,
    *,
    window: Window = "auto",
    on_progress: Callable[[Progress], None] | None = None,
) -> list[RankedObject]:
    """All objects, the one whose crop fits a text best first.

    Parameters
    ----------
    objects : sequence of FoundObject
    text : str
        Any words, put into `TEMPLATES`.
    volume : Volume
    clip : ClipModel
    window : str or (low, high)
        What the model sees.
    on_progress : callable, optional
        Called after each object; raise `CancelledError` in it to cancel.

    Returns
    -------
    list of RankedObject
        Scores add up to 1: the probability that the text was said of this object rather than of another one.
        They say nothing of whether it fits any of them.

    Raises
    ------
    PromptError
        When there are no words.
    """
    word = " ".join(text.split())
    if not word:
        raise PromptError("There is no word; type what to look for.")
    if not objects:
        return []
    said = clip.of_texts(texts_for(word, volume)).mean(axis=0)
    said /= max(float(np.linalg.norm(said)), 1e-12)
    seen_through = resolve_window(volume, window)
    cosines = []
    for done, one in enumerate(objects, start=1):
        cosines.append(float(clip.of_pictures([crop_of(volume, one, seen_through)])[0] @ said))
        if on_progress is not None:
            on_progress(Progress(done, len(objects), f"object {one.number}"))
    logits = clip.scale * np.array(cosines)
    scores = np.exp(logits - logits.max())
    scores /= scores.sum()
    ranked = [RankedObject(one, float(score)) for one, score in zip(objects, scores, strict=True)]
    return sorted(ranked, key=lambda one: (-one.score, one.object.number))


def texts_for(word: str, volume: Volume) -> list[str]:
    """The wordings of a word for a scan."""
    scan = "CT" if volume.is_hounsfield else "medical"
    return [template.format(word=word, scan=scan) for template in TEMPLATES]


def crop_of(volume: Volume, found: FoundObject, window: Window = "auto") -> npt.NDArray[np.uint8]:
    """Square picture (s, s, 3) of an object on its best slice, with its surroundings, in square pixels.

    What lies beyond the slice is black.
    """
    view = found.best_view
    image = to_rgb(volume, view, window)
    row_mm, column_mm = volume.pixel_spacing(view)
    left, top, right, bottom = found.masks[view].box_xyxy
    width, height = (right - left + 1) * column_mm, (bottom - top + 1) * row_mm
    side = max(max(width, height) * (1 + 2 * _MARGIN), _LEAST_MM)
    x, y = (left + right + 1) / 2 * column_mm, (top + bottom + 1) / 2 * row_mm
    edges_mm = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    pixels = max(1, round(side / min(row_mm, column_mm)))
    box = tuple(edge / mm for edge, mm in zip(edges_mm, (column_mm, row_mm) * 2, strict=True))
    picture = Image.fromarray(image).transform(
        (pixels, pixels), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR
    )
    return np.asarray(picture)
