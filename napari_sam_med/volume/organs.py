"""The organ table: which number stands for what, in which colour, locked or not."""

from __future__ import annotations

import colorsys
import operator
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from napari_sam_med.errors import LabelError

__all__ = ["MAX_CLASS_ID", "Organ", "OrganTable", "default_color"]

MAX_CLASS_ID = 65535  # uint16 is the widest type that label files are written in

Color = tuple[float, float, float]

# Spread in hue and lightness so that neighbours in the abdomen do not look alike.
_BTCV: tuple[tuple[str, Color], ...] = (
    ("spleen", (0.62, 0.35, 0.85)),
    ("right kidney", (0.98, 0.55, 0.12)),
    ("left kidney", (1.00, 0.84, 0.25)),
    ("gallbladder", (0.25, 0.70, 0.28)),
    ("esophagus", (0.80, 0.62, 0.48)),
    ("liver", (0.78, 0.22, 0.18)),
    ("stomach", (0.98, 0.62, 0.75)),
    ("aorta", (1.00, 0.10, 0.35)),
    ("inferior vena cava", (0.18, 0.42, 0.95)),
    ("portal and splenic veins", (0.20, 0.82, 0.90)),
    ("pancreas", (0.75, 0.90, 0.30)),
    ("right adrenal", (0.00, 0.58, 0.52)),
    ("left adrenal", (0.85, 0.25, 0.80)),
)


def default_color(class_id: int) -> Color:
    """Colour (r, g, b) in 0..1 of a class that nobody has coloured; the same for the same number."""
    # the golden ratio keeps hues of neighbouring numbers far apart
    hue = (class_id * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75 if class_id % 2 else 0.5, 0.95)
    return round(red, 4), round(green, 4), round(blue, 4)


@dataclass(frozen=True)
class Organ:
    """A row of the organ table.

    Attributes
    ----------
    class_id : int
        Its number in the label volume, 1 to 65535.
    name : str
        Free text; control characters, which no label format can hold, become spaces.
    color : tuple of float
        (r, g, b) in 0..1.
    locked : bool
        A locked organ is neither overwritten nor changed.
    visible : bool
        Whether it is shown.

    Raises
    ------
    LabelError
        On a number outside 1..65535 or a colour outside 0..1.
    """

    class_id: int
    name: str
    color: Color
    locked: bool = False
    visible: bool = True

    def __post_init__(self) -> None:
        try:
            class_id = operator.index(self.class_id)
        except TypeError:
            raise LabelError(f"An organ's number is an integer, got {self.class_id!r}.") from None
        if not 1 <= class_id <= MAX_CLASS_ID:
            raise LabelError(
                f"Organ number {class_id} does not fit: use 1 to {MAX_CLASS_ID} (0 is background)."
            )
        color = tuple(float(value) for value in self.color)
        if len(color) != 3 or not all(0.0 <= value <= 1.0 for value in color):
            raise LabelError(f"The colour of {self.name!r} is {self.color}: give r, g, b in 0..1.")
        object.__setattr__(self, "class_id", class_id)
        object.__setattr__(self, "name", _writable_name(str(self.name)) or f"label {class_id}")
        object.__setattr__(self, "color", color)


def _writable_name(name: str) -> str:
    """The name in one line, without characters that XML, NRRD or UTF-8 cannot hold."""
    return "".join(
        " " if unicodedata.category(letter) in ("Cc", "Cs", "Cn", "Zl", "Zp") else letter for letter in name
    ).strip()


class OrganTable(Mapping[int, Organ]):
    """Organs by number, in ascending order; immutable.

    Parameters
    ----------
    organs : iterable of Organ
        Two of the same number are refused.

    Raises
    ------
    LabelError
        If a number occurs twice.
    """

    def __init__(self, organs: Iterable[Organ] = ()) -> None:
        rows = sorted(organs, key=lambda organ: organ.class_id)
        self._rows = {organ.class_id: organ for organ in rows}
        if len(self._rows) != len(rows):
            raise LabelError("Two organs have the same number; give each its own.")

    @classmethod
    def btcv(cls) -> OrganTable:
        """The 13 abdominal organs of the BTCV challenge, numbered 1 to 13 as its label files are."""
        return cls(Organ(class_id, name, color) for class_id, (name, color) in enumerate(_BTCV, start=1))

    @classmethod
    def from_names(cls, names: Mapping[int, str]) -> OrganTable:
        """Table of names by number, in default colours (BTCV's where number and name are BTCV's)."""
        known = cls.btcv()
        return cls(
            known[class_id]
            if class_id in known and known[class_id].name == name
            else Organ(class_id, name, default_color(class_id))
            for class_id, name in names.items()
        )

    def __getitem__(self, class_id: int) -> Organ:
        return self._rows[class_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __hash__(self) -> int:
        return hash(tuple(self._rows.values()))

    def __repr__(self) -> str:
        return (
            f"OrganTable({', '.join(f'{class_id}: {organ.name}' for class_id, organ in self._rows.items())})"
        )

    @property
    def locked_ids(self) -> tuple[int, ...]:
        """Numbers of the locked organs."""
        return tuple(organ.class_id for organ in self._rows.values() if organ.locked)

    def with_organ(self, organ: Organ) -> OrganTable:
        """Copy with `organ` added, or in the place of the one of its number."""
        return OrganTable((self._rows | {organ.class_id: organ}).values())

    def without(self, class_id: int) -> OrganTable:
        """Copy without an organ; the same table where it has none of that number."""
        return OrganTable(organ for organ in self._rows.values() if organ.class_id != class_id)

    def covering(self, class_ids: Iterable[int]) -> OrganTable:
        """Copy in which every number above 0 has a row; new ones are called ``label N``."""
        new = {int(i) for i in class_ids} - {0} - self._rows.keys()
        return OrganTable(
            [*self._rows.values(), *(Organ(i, f"label {i}", default_color(i)) for i in sorted(new))]
        )

    def name_of(self, class_id: int) -> str:
        """Name of a number: ``label N`` where the table has none, ``background`` for 0."""
        if class_id == 0:
            return "background"
        return self._rows[class_id].name if class_id in self._rows else f"label {class_id}"

    def next_free_id(self) -> int:
        """Smallest number that no organ has.

        Raises
        ------
        LabelError
            If all 65535 are taken.
        """
        for class_id in range(1, MAX_CLASS_ID + 1):
            if class_id not in self._rows:
                return class_id
        raise LabelError(f"All {MAX_CLASS_ID} organ numbers are taken; remove an organ first.")

    def locking(self, class_id: int, locked: bool) -> OrganTable:
        """Copy with an organ locked or unlocked."""
        return self.with_organ(replace(self._rows[class_id], locked=locked))

    def to_json(self) -> list[dict[str, Any]]:
        """The table as plain values for JSON; inverse of `from_json`."""
        return [
            {
                "label": organ.class_id,
                "name": organ.name,
                "color": list(organ.color),
                "locked": organ.locked,
                "visible": organ.visible,
            }
            for organ in self._rows.values()
        ]

    @classmethod
    def from_json(cls, rows: Iterable[Mapping[str, Any]]) -> OrganTable:
        """Table of what `to_json` gave; ``color``, ``locked`` and ``visible`` may be missing.

        Raises
        ------
        LabelError
            If a row lacks ``label`` or ``name`` or a value is out of range.
        """
        organs = []
        for position, row in enumerate(rows):
            try:
                class_id = operator.index(row["label"])
                color = row.get("color") or default_color(class_id)
                organs.append(
                    Organ(
                        class_id,
                        str(row["name"]),
                        tuple(color),
                        bool(row.get("locked", False)),
                        bool(row.get("visible", True)),
                    )
                )
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise LabelError(
                    f"Row {position} of the organ table cannot be read ({error!r}): it needs a whole number "
                    '"label" and a "name".'
                ) from error
        return cls(organs)
