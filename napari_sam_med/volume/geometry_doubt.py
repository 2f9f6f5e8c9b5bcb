"""What a file leaves open about where its voxels lie: told as a warning, or asked before it is opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

__all__ = ["NO_ORIENTATION_BUT_LPS", "GeometryDoubt"]


@dataclass(frozen=True)
class GeometryDoubt:
    """What is wrong or missing, and what was taken for the truth.

    Attributes
    ----------
    facts : tuple of str
        Clauses without a full stop, such as ``"its sform is damaged"``.
    used : str
        What places the voxels: ``"sform"``, ``"qform"``, ``"voxel sizes"`` or ``"matrix"`` (of a format that
        has one only).
    others : tuple of str
        What could be taken instead: ``("qform",)`` or ``("sform",)`` where both are sound and disagree.
    remark : str
        What becomes of the voxels, such as ``"with its slices shown straight"``.
    """

    facts: tuple[str, ...]
    used: str
    others: tuple[str, ...] = ()
    remark: str = ""

    def question(self, name: str) -> str:
        """One sentence about the file `name`, to be answered before it is opened."""
        said = f"{name}: {' and '.join(self.facts)}"
        if self.others:
            return f"{said}; which of the two is right?"
        by = "" if self.used == "matrix" else f" by its {self.used}"
        return f"{said}; open it{by}{self.remark and f' {self.remark}'}?"

    def with_fact(self, fact: str, remark: str) -> GeometryDoubt:
        """This and something more that is odd."""
        remarks = ", ".join(text for text in (self.remark, remark) if text)
        return replace(self, facts=(*self.facts, fact), remark=remarks)

    def to_json(self) -> dict[str, Any]:
        """For the sidecar: what was in doubt, and what was used."""
        return {"doubts": list(self.facts), "used": self.used}


#: Of a NRRD or MetaImage file whose header gives voxel sizes at most.
NO_ORIENTATION_BUT_LPS = GeometryDoubt(
    ("it has no orientation",),
    "voxel sizes",
    remark="alone, with its axes running to left, posterior, superior",
)
