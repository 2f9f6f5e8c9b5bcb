"""Which volumes are measured: scans with their labels, alone or from a cases file."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from napari_sam_med.errors import ImageError, LabelError
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.reading import read_labels, read_volume
from napari_sam_med.volume.volume import Volume

__all__ = ["Case", "parse_names", "read_case", "read_cases"]


@dataclass(frozen=True)
class Case:
    """A scan with its labels.

    Attributes
    ----------
    name : str
        For people; no two cases of a run share it.
    image : str
        The scan as it was written, for the results.
    image_path, labels_path : Path
    names : str
        Organ names as `parse_names` takes them; empty for those of the label file.
    """

    name: str
    image: str
    image_path: Path
    labels_path: Path
    names: str = ""


def read_cases(path: Path, names: str = "") -> list[Case]:
    """The rows of a cases file.

    Parameters
    ----------
    path : Path
        CSV with the columns ``image,labels`` (absolute, or relative to the file), optionally ``name`` and
        ``names``; others are left alone.
    names : str
        Organ names of rows that name none.

    Raises
    ------
    ImageError
        When the file is missing or no CSV of this form, or a row leads to no file.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, restval="", skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ImageError(f"{path} is no CSV text ({error}); save it as comma-separated UTF-8.") from None
    except FileNotFoundError:
        raise ImageError(f"There is no cases file {path}; check the path.") from None
    if not rows or not {"image", "labels"} <= rows[0].keys():
        raise ImageError(f'{path.name} needs a header "image,labels" and at least one row; add them.')
    for number, row in enumerate(rows, start=1):
        for column, what in (("image", "scan"), ("labels", "label file")):
            if not row[column]:
                raise ImageError(f"Row {number} of {path.name} has no {column}; fill it in.")
            if not (path.parent / row[column]).is_file():
                raise ImageError(
                    f"Row {number} of {path.name}: there is no {what} {row[column]} (paths are absolute, or "
                    "relative to the cases file); correct it."
                )
    titles = _distinct([row.get("name") or "" for row in rows], [row["image"] for row in rows])
    return [
        Case(
            name=title,
            image=row["image"],
            image_path=path.parent / row["image"],
            labels_path=path.parent / row["labels"],
            names=_beside(row.get("names") or "", path.parent) or names,
        )
        for title, row in zip(titles, rows, strict=True)
    ]


def read_case(case: Case) -> tuple[Volume, LabelVolume]:
    """Scan and labels of a case, on one grid, the labels with the names that the case gives.

    Raises
    ------
    ImageError, LabelError
        As `read_volume` and `read_labels` do, and when `names` cannot be used.
    """
    volume = read_volume(case.image_path)
    labels = read_labels(case.labels_path, reference=volume)
    given = parse_names(case.names) if case.names else {}
    known = {class_id: organ.name for class_id, organ in labels.organs.items()}
    labels.organs = OrganTable.from_names(known | given).covering(labels.class_ids())
    return volume, labels


def parse_names(text: str) -> dict[int, str]:
    """Organ names by number, without 0, the background.

    Parameters
    ----------
    text : str
        ``btcv``; a JSON object such as ``{"1": "spleen"}``; or the path of a file that holds one.

    Raises
    ------
    LabelError
        On anything else.
    """
    if text.strip().lower() == "btcv":
        return {class_id: organ.name for class_id, organ in OrganTable.btcv().items()}
    remedy = 'write btcv, a JSON object such as {"1": "spleen"}, or the path of a file that holds one.'
    try:
        document = json.loads(
            text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8-sig")
        )
        return {int(number): str(name) for number, name in document.items() if int(number) != 0}
    except OSError:
        raise LabelError(f'There is no file of organ names "{text}"; {remedy}') from None
    except (AttributeError, ValueError) as error:
        raise LabelError(f'The organ names "{text}" cannot be read ({error}); {remedy}') from None


def _beside(names: str, folder: Path) -> str:
    """Organ names of a cases file: a path in it is relative to it."""
    is_path = names and names.lower() != "btcv" and not names.lstrip().startswith("{")
    return str(folder / names) if is_path else names


def _distinct(names: list[str], images: list[str]) -> list[str]:
    """A name for each case: its own, else its file's, with the folder's where files are called alike."""
    files = [Path(image).name for image in images]
    titles = [
        name or (file if files.count(file) == 1 else "/".join(Path(image).parts[-2:]))
        for name, file, image in zip(names, files, images, strict=True)
    ]
    counts = Counter(titles)
    return [
        title if counts[title] == 1 else f"{title} ({number})" for number, title in enumerate(titles, start=1)
    ]
