"""Organ tables as text of other programs: ITK-SNAP label descriptions and FreeSurfer colour tables."""

from __future__ import annotations

import re
from pathlib import Path

from napari_sam_med.errors import LabelError
from napari_sam_med.volume.organs import MAX_CLASS_ID, Organ, OrganTable

__all__ = ["TABLE_ENDINGS", "read_table", "table_content"]

_SNAP_ROW = re.compile(
    r'(?P<id>\d+)\s+(?P<r>\d+)\s+(?P<g>\d+)\s+(?P<b>\d+)\s+[\d.eE+-]+\s+(?P<visible>\d+)\s+\d+\s+"(?P<name>.*)"'
)
_LUT_ROW = re.compile(r"(?P<id>-?\d+)\s+(?P<name>\S.*?)\s+(?P<r>\d+)\s+(?P<g>\d+)\s+(?P<b>\d+)(?:\s+\d+)?")
_SNAP_HEAD = (
    "# ITK-SNAP Label Description File",
    "# Columns: IDX  R  G  B  A  VIS  MSH  LABEL",
    '    0     0    0    0        0  0  0    "Clear Label"',
)
_LUT_HEAD = ("#No. Label Name:                      R   G   B   A", "0 Unknown 0 0 0 0")


def read_table(path: Path) -> OrganTable:
    """Names and colours of an ITK-SNAP label description or a FreeSurfer colour table.

    What is inside decides, not the name; 3D Slicer's .ctbl is written like FreeSurfer's. Background, and
    numbers that label files here cannot have, are left out.

    Raises
    ------
    LabelError
        If the file is missing, or a line is of neither format.
    """
    remedy = (
        'give an ITK-SNAP label description (rows such as 6 200 56 46 1 1 1 "liver") or a FreeSurfer colour '
        "table (rows such as 6 liver 200 56 46 0)."
    )
    try:
        text = _decoded(path.read_bytes())
    except OSError as error:
        raise LabelError(f"{path} cannot be read: {error.strerror or error}; {remedy}") from error
    pattern: re.Pattern[str] | None = None
    organs = []
    for number, line in enumerate(text.splitlines(), start=1):
        row = line.strip()
        if not row or row.startswith("#"):
            continue
        pattern = pattern or (_SNAP_ROW if _SNAP_ROW.fullmatch(row) else _LUT_ROW)
        match = pattern.fullmatch(row)
        if match is None or max(int(match[part]) for part in "rgb") > 255:
            raise LabelError(f"Line {number} of {path.name} is no row of organ names; {remedy}")
        class_id = int(match["id"])
        if not 1 <= class_id <= MAX_CLASS_ID:
            continue
        red, green, blue = (int(match[part]) / 255 for part in "rgb")
        is_visible = "visible" not in match.groupdict() or match["visible"] != "0"
        organs.append(Organ(class_id, match["name"], (red, green, blue), visible=is_visible))
    if not organs:
        raise LabelError(f"{path.name} names no organ; {remedy}")
    try:
        return OrganTable(organs)
    except LabelError as error:
        raise LabelError(f"{path.name}: {error}") from error


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:  # ITK-SNAP writes what the system speaks
        return content.decode("latin-1")


def _snap_row(organ: Organ) -> str:
    red, green, blue = _bytes_of(organ)
    name = organ.name.replace('"', "'")  # a quote would end the name
    return f'{organ.class_id:5d} {red:5d} {green:4d} {blue:4d}     1.00 {organ.visible:2d}  1    "{name}"'


def _lut_row(organ: Organ) -> str:
    red, green, blue = _bytes_of(organ)
    name = re.sub(r"\s", "_", organ.name)  # a space would end the name
    return f"{organ.class_id:<4d} {name:34s} {red:3d} {green:3d} {blue:3d} 0"


def _bytes_of(organ: Organ) -> tuple[int, int, int]:
    red, green, blue = (round(value * 255) for value in organ.color)
    return red, green, blue


_WRITERS = {".label": (_SNAP_HEAD, _snap_row), ".lut.txt": (_LUT_HEAD, _lut_row)}

#: Endings of tables: ITK-SNAP label description, FreeSurfer colour table.
TABLE_ENDINGS: tuple[str, ...] = tuple(_WRITERS)


def table_content(ending: str, organs: OrganTable) -> bytes:
    """The table as UTF-8 text; colours have 8 bits, locks have no place.

    Parameters
    ----------
    ending : str
        ``.label`` (ITK-SNAP; double quotes in names become single ones) or ``.lut.txt`` (FreeSurfer; spaces
        in names become underscores).
    organs : OrganTable
    """
    head, row = _WRITERS[ending]
    return "\n".join([*head, *map(row, organs.values()), ""]).encode()
