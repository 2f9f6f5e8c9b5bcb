"""Which volumes are measured: scans with their labels, alone or from a cases file."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_sam_med.errors import ImageError, LabelError
from napari_sam_med.evaluation.picture_cases import is_picture, read_picture_case
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.reading import read_labels, read_volume
from napari_sam_med.volume.volume import Volume

__all__ = ["SPLITS", "Case", "is_file_of_names", "parse_names", "read_case", "read_case_folder", "read_cases"]

SPLITS = ("", "train", "val", "test")
_BTCV_IMAGE = re.compile(r"img(\d+)\.nii(\.gz)?")
_CHANNEL = re.compile(r"_\d{4}$")


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
    split : {"", "train", "val", "test"}
        What a training may use it for; empty where nothing is said.
    patient : str
        Whose scan it is: scans of one patient never lie on both sides of a split. The image when left out.
    """

    name: str
    image: str
    image_path: Path
    labels_path: Path
    names: str = ""
    split: str = ""
    patient: str = ""


def read_cases(path: Path, names: str = "") -> list[Case]:
    """The rows of a cases file, or the cases of a folder in one of the layouts of `read_case_folder`.

    Parameters
    ----------
    path : Path
        CSV with the columns ``image,labels`` (absolute, or relative to the file), optionally ``name``,
        ``names``, ``split`` and ``patient``; others are left alone.
    names : str
        Organ names of rows that name none.

    Raises
    ------
    ImageError
        When the file is missing or no CSV of this form, or a row leads to no file; when one patient's scans
        are on both sides of a split.
    """
    if path.is_dir():
        return read_case_folder(path, names)
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
            if not os.path.isfile(path.parent / row[column]):  # a Path takes ill a name that is too long
                raise ImageError(
                    f"Row {number} of {path.name}: there is no {what} {row[column]} (paths are absolute, or "
                    "relative to the cases file); correct it."
                )
        if (row.get("split") or "").strip().lower() not in SPLITS:
            raise ImageError(
                f'Row {number} of {path.name} has the split "{row["split"]}"; write train, val, test, or '
                "nothing."
            )
    titles = distinct_names([row.get("name") or "" for row in rows], [row["image"] for row in rows])
    cases = [
        Case(
            name=title,
            image=row["image"],
            image_path=path.parent / row["image"],
            labels_path=path.parent / row["labels"],
            names=_beside(row.get("names") or "", path.parent) or names,
            split=(row.get("split") or "").strip().lower(),
            patient=(row.get("patient") or "").strip() or row["image"],
        )
        for title, row in zip(titles, rows, strict=True)
    ]
    _check_patients(cases, path.name)
    return cases


def _check_patients(cases: Sequence[Case], file: str) -> None:
    splits: dict[str, str] = {}
    for case in cases:
        if (splits.setdefault(case.patient, case.split) or "train") != (case.split or "train"):
            raise ImageError(
                f'{file} has scans of the patient "{case.patient}" in the splits "{splits[case.patient]}" '
                f'and "{case.split}"; a model would be judged by whom it learned from: give them one split.'
            )


def read_case_folder(folder: Path, names: str = "") -> list[Case]:
    """The labelled cases of a data set that lies in a folder as it was published.

    Known are the layouts of nnU-Net (version 1 and 2) and of the Medical Segmentation Decathlon
    (``dataset.json`` beside ``imagesTr`` and ``labelsTr``), and of BTCV (``imagesTr/img0001.nii.gz`` and
    ``labelsTr/label0001.nii.gz``; also ``img`` and ``label``). Of several channels the first is taken.

    Parameters
    ----------
    folder : Path
    names : str
        Organ names; when left out those of ``dataset.json``, and the 13 organs for BTCV.

    Raises
    ------
    ImageError
        When the folder is none of these, or a case lacks its image or its labels.
    """
    for images, labels in (("imagesTr", "labelsTr"), ("img", "label")):
        if (folder / images).is_dir() and (folder / labels).is_dir():
            return _paired(folder, images, labels, names)
    raise ImageError(
        f"{folder.name} is a folder without imagesTr and labelsTr; give such a folder (nnU-Net, Decathlon, "
        "BTCV), or a CSV with the columns image,labels."
    )


def _paired(folder: Path, images: str, labels: str, names: str) -> list[Case]:
    given = names or _names_of_data_set(folder / "dataset.json")
    found: dict[str, Path] = {}
    for path in _volumes(folder / images):
        found[_stem(path)] = path
        found.setdefault(_CHANNEL.sub("", _stem(path)), path)
    cases = []
    for path in _volumes(folder / labels):
        stem = _stem(path)
        image = found.get(stem) or found.get(stem.replace("label", "img"))
        if image is None:
            raise ImageError(
                f"{folder.name}/{labels}/{path.name} has no image in {images}; put it there, or take the "
                "labels away."
            )
        is_btcv = _BTCV_IMAGE.fullmatch(image.name) is not None
        shown = f"{images}/{image.name}"
        cases.append(
            Case(_stem(image), shown, image, path, given or ("btcv" if is_btcv else ""), patient=shown)
        )
    if not cases:
        raise ImageError(f"{folder.name}/{labels} holds no label files; give a folder with labelled cases.")
    return cases


def _volumes(folder: Path) -> list[Path]:
    """Files of a folder, without hidden ones and the JSON that our exports and others put beside volumes."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.suffix.lower() != ".json"
    ]


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]


def _names_of_data_set(path: Path) -> str:
    """Organ names in a ``dataset.json``, as `parse_names` takes them; empty where there are none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        stated = document["labels"]
        pairs = list(stated.items())
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ImageError(f"{path} is no description of a data set ({error!r}); mend or remove it.") from None
    # the Decathlon and nnU-Net 1 write {"1": "liver"}, nnU-Net 2 {"liver": 1}, or a list for a region
    named = {str(key): str(value) for key, value in pairs if str(key).isdecimal()}
    if not named:
        named = {str(value): str(key) for key, value in pairs if str(value).isdecimal()}
    return json.dumps({number: name for number, name in named.items() if number != "0"})


def read_case(case: Case) -> tuple[Volume, LabelVolume]:
    """Scan and labels of a case, on one grid, the labels with the names that the case gives.

    Pictures (PNG, JPEG, TIFF, BMP) are scans of one slice.

    Raises
    ------
    ImageError, LabelError
        As `read_volume` and `read_labels` do, and when `names` cannot be used.
    """
    if is_picture(case.image_path):
        volume, labels = read_picture_case(case.image_path, case.labels_path)
    else:
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
    except (AttributeError, ValueError, RecursionError) as error:
        raise LabelError(f'The organ names "{text}" cannot be read ({error}); {remedy}') from None


def is_file_of_names(names: str) -> bool:
    """Whether organ names are given as the path of a file."""
    return bool(names) and names.strip().lower() != "btcv" and not names.lstrip().startswith("{")


def _beside(names: str, folder: Path) -> str:
    """Organ names of a cases file: a path in it is relative to it."""
    return str(folder / names) if is_file_of_names(names) else names


def distinct_names(names: list[str], images: list[str]) -> list[str]:
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
