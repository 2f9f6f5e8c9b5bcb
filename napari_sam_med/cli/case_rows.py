"""CSV files whose rows are cases of a command, and what becomes of each."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_sam_med.errors import ImageError

__all__ = ["CaseRow", "read_rows"]


@dataclass(frozen=True)
class CaseRow:
    """A row of a cases file.

    Attributes
    ----------
    name : str
        The scan as it was written.
    paths : dict of str to Path
        Absolute, by column.
    """

    name: str
    paths: dict[str, Path]


def read_rows(path: Path, inputs: Sequence[str], outputs: Sequence[str] = ()) -> list[CaseRow]:
    """The rows of a CSV file with a column ``image``; its paths are absolute, or relative to the file.

    Parameters
    ----------
    path : Path
    inputs, outputs : sequence of str
        Columns of paths; what lies at those of `inputs` must be there.

    Raises
    ------
    ImageError
        When the file is missing or no CSV of this form, or a row leads to no file.
    """
    columns = (*inputs, *outputs)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, restval="", skipinitialspace=True))
    except FileNotFoundError:
        raise ImageError(f"There is no cases file {path}; check the path.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ImageError(f"{path} is no CSV text ({error}); save it as comma-separated UTF-8.") from None
    if not rows or not set(columns) <= rows[0].keys():
        raise ImageError(
            f'{path.name} needs a header with "{",".join(columns)}" and at least one row; add them.'
        )
    for number, row in enumerate(rows, start=1):
        for column in columns:
            if not row[column]:
                raise ImageError(f"Row {number} of {path.name} has no {column}; fill it in.")
        for column in inputs:
            if not (path.parent / row[column]).exists():
                raise ImageError(
                    f"Row {number} of {path.name}: there is no {column} {row[column]} (paths are absolute, "
                    "or relative to the cases file); correct it."
                )
    folder = path.parent.absolute()
    return [CaseRow(row["image"], {column: folder / row[column] for column in columns}) for row in rows]
