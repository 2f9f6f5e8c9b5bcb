"""How far a search without a hand is, in words for a bar: "finding the body", "slice 3 of 29"."""

from __future__ import annotations

from dataclasses import replace

from napari_sam_med.progress import Progress
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["SearchProgress", "counted"]

_STEPS_PER_SLICE = 1000
"""Points within a slice count, too."""
_FILLING_SHARE = 0.4
"""Of the time of a slice, where those between are filled; measured on a CT, each fourth slice searched."""


class SearchProgress:
    """Of the body that is looked for first, then slice by slice.

    Parameters
    ----------
    view : SliceView
        The slice, where it is but one.
    n_slices : int
        To be searched.
    fills : bool
        Whether slices between those are filled.
    """

    def __init__(self, view: SliceView, n_slices: int, *, fills: bool = False) -> None:
        self._view, self._n_slices, self._n_done = view, n_slices, 0
        self._filling = _FILLING_SHARE if fills else 0.0

    def within(self, part: Progress) -> Progress:
        """A part of the slice that is next: its points, or the masks that are filled in before it."""
        from napari_sam_med.segmentation.automatic.gap_filling import FILLING  # torch is loaded with it

        share = part.fraction * (1.0 - self._filling)
        if part.text == FILLING:
            share = 1.0 - self._filling * (1.0 - part.fraction)
        return _of_body(part) or self._at(self._n_done + share)

    def of_all(self, part: Progress) -> Progress:
        """A part of all slices."""
        return _of_body(part) or self._at(part.fraction * self._n_slices)

    def slice_done(self) -> Progress:
        """One more is done."""
        self._n_done += 1
        return self._at(self._n_done)

    def _at(self, slices: float) -> Progress:
        now = min(self._n_slices, int(slices) + 1)
        text = f"slice {self._view.index}" if self._n_slices == 1 else f"slice {now} of {self._n_slices}"
        return Progress(round(slices * _STEPS_PER_SLICE), self._n_slices * _STEPS_PER_SLICE, text)


def counted(progress: Progress, doing: str) -> Progress:
    """Progress in the words "doing 3 of 29"."""
    return replace(progress, text=f"{doing} {progress.done} of {progress.total}")


def _of_body(part: Progress) -> Progress | None:
    """The search for the body, which looks through the volume; None where that is over."""
    from napari_sam_med.segmentation.automatic.prompt_area import BODY  # torch is loaded with it

    return replace(part, text="finding the body") if part.text == BODY else None
