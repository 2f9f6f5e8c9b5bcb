"""Finding what was painted: the labels compared with a copy of what the session last knew.

napari announces brush strokes, but says nothing on its own undo or when another plugin writes; comparing one
slice costs well under a millisecond and sees them all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from napari_sam_med.volume.disk_labels import is_on_disk, labelled_planes
from napari_sam_med.volume.labels import LabelChange, LabelVolume, sparse_copy
from napari_sam_med.volume.slice_view import Plane, SliceView

__all__ = ["StrokeRecorder"]


class StrokeRecorder:
    """Turns direct edits of a label array into `LabelChange`.

    Parameters
    ----------
    labels : LabelVolume
        Watched through its ``changed`` signal, so that the session's own changes are not taken for strokes.
    known : ndarray (z, y, x), optional
        A copy of their data, written to from now on; made here when left out.
    """

    def __init__(self, labels: LabelVolume, known: npt.NDArray[Any] | None = None) -> None:
        self._labels = labels
        self._known: npt.NDArray[Any] = sparse_copy(labels.data) if known is None else known
        labels.changed.connect(self._on_changed)

    def _on_changed(self, view: SliceView | None) -> None:
        if self._known.dtype != self._labels.data.dtype:
            self._known = self._labels.data.copy()
        elif view is None and is_on_disk(self._known):
            for index in labelled_planes(self._known, self._labels.data):
                self._known[index] = self._labels.data[index]
        elif view is None:
            self._known[...] = self._labels.data  # ten times as fast as new memory
        else:
            view.window_on(self._known)[...] = view.window_on(self._labels.data)

    def capture(
        self, views: Collection[SliceView] | None, locked: Collection[int]
    ) -> tuple[list[LabelChange], list[LabelChange]]:
        """Changes made on the slices (None: anywhere) since the last call, and what was put back of them.

        Voxels that belonged to a locked class, or were painted with one, are put back first.
        """
        found: list[LabelChange] = []
        put_back: list[LabelChange] = []
        for view in self._changed_views() if views is None else views:
            self._capture_slice(view, locked, found, put_back)
        return found, put_back

    def _changed_views(self) -> Iterator[SliceView]:
        plane: Plane = get_args(Plane)[0]
        for index in labelled_planes(self._known, self._labels.data):
            if not np.array_equal(self._known[index], self._labels.data[index]):
                yield SliceView(plane, index)

    def _capture_slice(
        self,
        view: SliceView,
        locked: Collection[int],
        found: list[LabelChange],
        put_back: list[LabelChange],
    ) -> None:
        now = np.ascontiguousarray(view.extract(self._labels.data))
        known = np.ascontiguousarray(view.extract(self._known))
        differs = now != known
        if not differs.any():
            return
        if locked:
            refused = differs & (np.isin(known, list(locked)) | np.isin(now, list(locked)))
            if refused.any():
                indices = np.flatnonzero(refused)
                put_back.append(LabelChange(view, indices, now.ravel()[indices], known.ravel()[indices]))
                now[refused] = known[refused]
                view.insert(self._labels.data, now)
                differs &= ~refused
        view.insert(self._known, now)
        indices = np.flatnonzero(differs)
        if len(indices):
            found.append(LabelChange(view, indices, known.ravel()[indices], now.ravel()[indices]))
