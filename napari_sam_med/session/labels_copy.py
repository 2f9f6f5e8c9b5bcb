"""A copy of the labels to write, made on another thread while work on them goes on."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from napari_sam_med.progress import Progress
from napari_sam_med.volume.labels import LabelChange, LabelVolume, sparse_copy
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.session.journal import SessionJournal
    from napari_sam_med.session.session import Session
    from napari_sam_med.volume.organs import OrganTable

__all__ = ["LabelsCopy"]


class LabelsCopy:
    """Copies the labels of a session: 512 x 512 x 300 take 0.15 s, for which no window is to stand still.

    `make` runs on another thread. What changes meanwhile is copied again by `finish`, so that the copy is
    what the labels are then. Everything but `make` belongs on the session's thread.

    Parameters
    ----------
    session : Session
        With a scan open.
    journal : SessionJournal
        Of this session: it finds what others write.
    """

    def __init__(self, session: Session, journal: SessionJournal) -> None:
        assert session.labels is not None  # there is something to copy on an open scan alone
        self.of: LabelVolume = session.labels
        self._session, self._journal = session, journal
        self._data: npt.NDArray[Any] | None = None
        self._is_outdated = False
        self._outdated: set[SliceView] = set()
        self.of.changed.connect(self._on_changed)
        session.voxels_changed.connect(self._on_voxels)
        session.stroke_refused.connect(self._on_voxels)
        journal.edited_outside.connect(self._on_edited_outside)

    def make(self) -> Generator[Progress, None, None]:
        """Job: copy what is there."""
        yield Progress(0, 1, "copying the labels")
        self._data = sparse_copy(self.of.data)

    def finish(self, organs: OrganTable) -> LabelVolume:
        """The copy, as the labels are now, with their organs; `make` has ended."""
        self.give_up()
        labels = self.of
        if self._is_outdated or self._data is None or self._data.dtype != labels.data.dtype:
            self._data = sparse_copy(labels.data)
        else:
            for view in self._outdated:
                view.insert(self._data, view.extract(labels.data))
        return LabelVolume(self._data, labels.grid, organs, header=labels.header, path=labels.path)

    def give_up(self) -> None:
        """Follow the labels no more."""
        self.of.changed.disconnect(self._on_changed, missing_ok=True)
        self._session.voxels_changed.disconnect(self._on_voxels, missing_ok=True)
        self._session.stroke_refused.disconnect(self._on_voxels, missing_ok=True)
        self._journal.edited_outside.disconnect(self._on_edited_outside, missing_ok=True)

    def _on_changed(self, view: SliceView | None) -> None:
        if view is None:
            self._is_outdated = True
        else:
            self._outdated.add(view)

    def _on_voxels(self, change: LabelChange, *_: bool) -> None:
        if self._session.labels is self.of:
            self._outdated.add(change.view)

    def _on_edited_outside(self, indices: tuple[int, ...]) -> None:
        if self._session.labels is self.of:
            self._outdated.update(SliceView("axial", index) for index in indices)
