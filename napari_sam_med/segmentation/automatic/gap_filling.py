"""Slices between two masks of an object: filled with the model where it takes masks, else interpolated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.automatic.found_objects import FoundMask
from napari_sam_med.segmentation.interpolation import ShapePrior
from napari_sam_med.segmentation.propagation import propagate
from napari_sam_med.segmentation.slicewise import Window
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.segmentation.automatic.linking import Chain
    from napari_sam_med.volume.volume import Volume

__all__ = ["FILLING", "Filling", "GapFiller"]

Filling = Literal["propagate", "interpolate"]

FILLING = "filling slices between"
"""Text of the progress of that."""

_CLASS = 1
"""The propagator gives a pixel to one of several classes; here objects nest, so all are of one."""
_INTERPOLATED = 0.2
"""Quality of a mask that no model saw."""


@dataclass(frozen=True, eq=False)
class GapFiller:
    """Fills what lies between the last two found masks of chains.

    Attributes
    ----------
    volume : Volume
    predictor : Predictor
    window : str or (low, high)
    store : EmbeddingStore
        Of the slices searched, and of those between them.
    filling : {"propagate", "interpolate"}
        A model that takes no boxes or no masks interpolates in any case.
    on_progress : callable, optional
        Told after each mask that is filled in, with the text `FILLING`; an error that it raises ends it.
    """

    volume: Volume
    predictor: Predictor
    window: Window
    store: EmbeddingStore
    filling: Filling = "propagate"
    on_progress: Callable[[Progress], None] | None = None

    def fill(self, chains: Mapping[Chain, SliceView], view: SliceView) -> None:
        """Fill chains up to a slice that each of them has a found mask on.

        Parameters
        ----------
        chains : mapping
            Chain to the slice of its found mask before that.
        view : SliceView
        """
        by_start: dict[SliceView, list[Chain]] = {}
        for chain, start in chains.items():
            if view.index - start.index > 1:
                by_start.setdefault(start, []).append(chain)
        total = sum(view.index - start.index - 1 for start in chains.values())
        tell = _counted(self.on_progress, max(0, total))
        propagates = self.filling == "propagate" and {"box", "mask"} <= self.predictor.accepts
        for start, together in by_start.items():
            if propagates:
                self._propagate(together, start, view, tell)
            else:
                for chain in together:
                    self._interpolate(chain, start, view, tell)

    def _propagate(
        self, chains: list[Chain], start: SliceView, end: SliceView, tell: Callable[[], None]
    ) -> None:
        keys = {
            number: {view: chain.found[view].mask for view in (start, end)}
            for number, chain in enumerate(chains, start=1)
        }
        filled = propagate(
            self.volume,
            {number: (_CLASS, {}) for number in keys},
            self.predictor,
            masks=keys,
            directions=(),
            window=self.window,
            store=self.store,
        )
        for done in filled:
            if done.source == "prompt":
                continue
            if done.mask.any():
                mask = FoundMask.of(done.mask, done.quality, done.quality)
                chains[done.object_id - 1].filled[done.view] = mask
            tell()

    def _interpolate(self, chain: Chain, start: SliceView, end: SliceView, tell: Callable[[], None]) -> None:
        shape = ShapePrior(chain.found[start].mask, chain.found[end].mask, self.volume.pixel_spacing(start))
        for index in range(start.index + 1, end.index):
            inside = shape.at((index - start.index) / (end.index - start.index)) < 0
            if inside.any():
                mask = FoundMask.of(inside, _INTERPOLATED, _INTERPOLATED)
                chain.filled[SliceView(start.plane, index)] = mask
            tell()


def _counted(on_progress: Callable[[Progress], None] | None, total: int) -> Callable[[], None]:
    """Called after each of so many masks."""
    done = 0

    def tell() -> None:
        nonlocal done
        done = min(done + 1, total)  # a mask that is doubted is given twice
        if on_progress is not None:
            on_progress(Progress(done, total, FILLING))

    return tell
