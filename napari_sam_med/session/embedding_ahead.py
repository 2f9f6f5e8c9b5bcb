"""The slices of the plane that the user looks at, embedded ahead: the nearest first, then the whole stack."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from napari_sam_med.errors import CancelledError
from napari_sam_med.progress import Progress
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.slice_view import PLANES, Plane, SliceView

if TYPE_CHECKING:
    from napari_sam_med.session.jobs import ModelView

__all__ = ["EmbeddedStack", "EmbeddingAhead", "by_distance"]

_SHARE = 0.5
"""Of what the store keeps; the rest is for what else is asked for, so that this pushes out nothing nearer."""
_NEAREST_OF_LARGE = 6
"""Slices of a scan that is larger than memory: each is read from the disk."""

_NEAR = 32
"""Slices on either side that stay in memory; others lie on disk, a few milliseconds away."""


@dataclass(frozen=True)
class EmbeddedStack:
    """How far the slices of a plane are embedded.

    Attributes
    ----------
    plane : {"axial", "coronal", "sagittal"}
    n_slices : int
    ready : frozenset of int
        Indices of those that are known to be in the store.
    air : frozenset of int
        Indices of those that are known to show nothing; they are left out.
    room : int
        Slices that are embedded ahead at most: the store has room for them.
    """

    plane: Plane
    n_slices: int
    ready: frozenset[int]
    air: frozenset[int]
    room: int

    @property
    def progress(self) -> Progress:
        """Slices that are ready, of those that are to be."""
        total = min(self.n_slices - len(self.air), self.room)
        return Progress(min(len(self.ready), total), total, f"embedding {self.plane} slices ahead")


class EmbeddingAhead:
    """Embeds slices ahead of one user, in an order that follows where the user looks.

    One thread runs `run`; another one looks, interrupts and lets go on.

    Parameters
    ----------
    sight : ModelView
        The volume through a window, the model, and the store that is filled.
    view : SliceView
        The slice at hand.
    """

    def __init__(self, sight: ModelView, view: SliceView) -> None:
        self.sight = sight
        self._view = view
        self._has_moved = True
        self._is_interrupted = False
        self._spared: SliceView | None = None
        self._keys: dict[SliceView, str] = {}
        self._ready: dict[Plane, set[int]] = {plane: set() for plane in PLANES}
        self._air: dict[Plane, set[int]] = {plane: set() for plane in PLANES}
        self._most = self._room = _NEAREST_OF_LARGE if sight.volume.is_lazy else max(sight.volume.shape)

    @property
    def has_moved(self) -> bool:
        """Whether the user has moved since `run` has looked last; where it has ended, it is to run again."""
        return self._has_moved

    def look_at(self, view: SliceView) -> None:
        """From now on, what is near this slice comes first; in any plane."""
        self._view = view
        self._has_moved = True

    def interrupt(self, spared: SliceView | None = None) -> None:
        """Give up the slice that is being embedded, until `go_on`; but not the spared one: it is needed."""
        self._spared = spared
        self._is_interrupted = True

    def go_on(self) -> None:
        """End `interrupt`."""
        self._is_interrupted = False

    def run(self) -> Generator[EmbeddedStack, None, None]:
        """Embed what the store does not have, be it in memory or on disk since an earlier session.

        Yields before each slice, and at the end where the user has moved. Slices of air are left out. Ends
        where nothing is left that there is room for; closing it between two slices ends it at once, and
        `interrupt` within one.

        Raises
        ------
        DeviceMemoryError
            When the device ran out of memory.
        """
        while True:
            self._follow()
            yield self._state()
            has_moved = self._follow()  # the user may have moved while this was paused
            at = self._view  # once: the user may move at any time
            ready = self._ready[at.plane]
            index = next((index for index in islice(self._stack(at), self._room) if index not in ready), None)
            if index is None:
                if has_moved:
                    yield self._state()  # all is there, which nobody was told
                return
            with suppress(CancelledError):
                self._embed(SliceView(at.plane, index))

    def _state(self) -> EmbeddedStack:
        at = self._view
        ready, air = frozenset(self._ready[at.plane]), frozenset(self._air[at.plane])
        return EmbeddedStack(at.plane, self.sight.volume.shape[at.axis], ready, air, self._room)

    def _stack(self, at: SliceView) -> Iterator[int]:
        """The slices of a slice's plane that are not known to be air, the nearest to it first."""
        air = self._air[at.plane]
        return (i for i in by_distance(at.index, self.sight.volume.shape[at.axis]) if i not in air)

    def _follow(self) -> bool:
        """Where the user has moved, see what the store still has, and use it in an order in which the nearest
        is last: the store drops first what was not used for longest. Answers whether the user has moved.
        """
        if not self._has_moved:
            return False
        self._has_moved = False  # first: whoever moves from here on is followed the next time
        at = self._view
        ready = self._ready[at.plane]
        for place, index in reversed(list(enumerate(self._stack(at)))):
            view = SliceView(at.plane, index)
            key = self._keys.get(view)
            if key is None:
                continue
            is_kept = self._use(key, view) if place < self._room else key in self.sight.store
            (ready.add if is_kept else ready.discard)(index)
        return True

    def _embed(self, view: SliceView) -> None:
        from napari_sam_med.sam.interruption import interruptible
        from napari_sam_med.segmentation.body import is_air

        volume, window = self.sight.volume, self.sight.window
        predictor, store = self.sight.predictor, self.sight.store
        key = self._keys.get(view)
        if key is None and is_air(volume, view, window):
            self._air[view.plane].add(view.index)
            return
        image, spacing = to_rgb(volume, view, window), volume.pixel_spacing(view)
        if key is None:
            key = self._keys[view] = predictor.embedding_key(image, spacing)
        if not self._use(key, view):
            with interruptible(lambda: self._is_interrupted and self._spared != view):
                store.get_or_embed(predictor, image, spacing)
        if self._use(key, view):
            self._ready[view.plane].add(view.index)
        else:
            self._room = 0  # the store keeps nothing, so there is nothing to be done ahead

    def _use(self, key: str, view: SliceView) -> bool:
        """Use the entry of a slice, so that it goes last; whether there is one. Finds out for how many there
        is room.
        """
        store, at = self.sight.store, self._view
        limit, size = store.disk_bytes, store.keep(key)
        if not size:  # no folder, or a full disk
            kept = store.get(key)
            limit, size = store.memory_bytes, 0 if kept is None else kept.nbytes
        elif view.plane != at.plane or abs(view.index - at.index) > _NEAR:
            store.release(key)
        if size:
            self._room = min(self._most, max(1, int(limit * _SHARE) // size))
        return size > 0


def by_distance(index: int, n_slices: int) -> Iterator[int]:
    """Indices 0..n_slices-1 from the nearest to `index` to the furthest, the higher one of two first."""
    for step in range(max(index, n_slices - 1 - index) + 1):
        for one in dict.fromkeys((index + step, index - step)):
            if 0 <= one < n_slices:
                yield one
