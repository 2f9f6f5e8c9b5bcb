"""One undoable step: what the user did, the voxels it changed, and the annotations before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sam_med.session.objects import Annotations
    from napari_sam_med.volume.labels import LabelChange

__all__ = ["Change"]


@dataclass(frozen=True, eq=False)
class Change:
    """One step of the undo stack; its voxels already stand in the labels when it is committed.

    Attributes
    ----------
    label : str
        What the user did, for people: "Accept liver on slice 40".
    voxels : tuple of LabelChange
        In the order in which they were applied.
    before, after : Annotations
        Objects, prompts and organ table on either side of the step.
    """

    label: str
    voxels: tuple[LabelChange, ...]
    before: Annotations
    after: Annotations

    @property
    def nbytes(self) -> int:
        """Memory of the voxel differences in bytes."""
        return sum(change.nbytes for change in self.voxels)
