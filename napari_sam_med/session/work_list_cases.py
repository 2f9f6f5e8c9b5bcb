"""The cases of a folder: scans are told from labels by place and name, and none is read."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.exporting import safe_name
from napari_sam_med.volume.formats import dicom, ome_zarr

__all__ = [
    "STATUS_FILE_NAME",
    "Case",
    "FoundCases",
    "default_output",
    "find_cases",
    "is_folder_of_cases",
    "natural_order",
]

#: Name of the file, in the folder that labels are saved in, that says which cases are done.
STATUS_FILE_NAME = "sam-med-work-list.json"

_DEEPEST = 4  # patient / study / series / one more
_SCANS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr")
_LABEL_ENDINGS = (".seg.nrrd", ".seg.nhdr", ".seg.dcm")
_SIDECAR = ".sam-med.json"
_SEPARATORS = re.compile(r"[_\-. ]+")
_LABEL = r"labels?|labelmaps?|seg|segs|segmentations?|masks?|gt|groundtruth|annotations?|preds?|predictions?"
_IMAGE = r"images?|imgs?|imaging|scans?|volumes?"
_PART = r"tr|ts|te|val|train|training|test|testing"
_TRAINING_PARTS = ("", "tr", "train", "training")
_LABEL_TOKEN = re.compile(rf"(?:{_LABEL})(?:{_PART})?\d*", re.IGNORECASE)
_IMAGE_FOLDER = re.compile(rf"(?:{_IMAGE})[_\-. ]?(?P<part>{_PART})?", re.IGNORECASE)
_LABEL_FOLDER = re.compile(rf"(?:{_LABEL})[_\-. ]?(?P<part>{_PART})?", re.IGNORECASE)
_ROLE_TOKEN = re.compile(rf"(?:{_LABEL}|{_IMAGE})(\d*)")
_CHANNEL = re.compile(r"_(\d{4})$")


@dataclass(frozen=True)
class Case:
    """One scan of a work list.

    Attributes
    ----------
    key : str
        Path of the scan below the folder, with ``/``; names the case in files.
    name : str
        Short, for people; no two of a folder are the same.
    image : Path
        The scan: a file, or the folder of a DICOM series.
    labels_name : str
        File name under which its labels are saved; no two of a folder are the same.
    given : tuple of Path
        Label files that were there before and belong to it by their names.
    """

    key: str
    name: str
    image: Path
    labels_name: str
    given: tuple[Path, ...] = ()


@dataclass(frozen=True)
class FoundCases:
    """Cases in natural order, and what could not be looked at, one line each."""

    cases: tuple[Case, ...]
    warnings: tuple[str, ...]


@dataclass
class _Listing:
    """What one folder holds."""

    path: Path
    scans: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    series: list[str] = field(default_factory=list)
    files: set[str] = field(default_factory=set)

    @cached_property
    def has_channels(self) -> bool:
        """Whether scans end in the number of a channel, as nnU-Net names them: ``case_0000``."""
        role = _IMAGE_FOLDER.fullmatch(self.path.name)
        if role is None or not role["part"] or not (self.path.parent / "dataset.json").is_file():
            return False
        stems = {_stem(name) for name in self.scans}
        return all(_CHANNEL.search(stem) and f"{_CHANNEL.sub('', stem)}_0000" in stems for stem in stems)

    @property
    def images(self) -> list[Path]:
        """Scans: of several channels the first, of a DICOM series its folder."""
        names = self.scans
        if self.has_channels:
            names = [name for name in names if _stem(name).endswith("_0000")]
        images = [self.path / name for name in names]
        is_one_seg = len(self.series) == 1 and dicom.is_label_file(self.path / self.series[0])
        return [*images, self.path] if self.series and not is_one_seg else images

    @cached_property
    def given(self) -> dict[str, list[Path]]:
        """Label files here, in label folders within, and in those beside that fit, by what they are of."""
        found: dict[str, list[Path]] = {}
        for path in _label_files_of(self):
            found.setdefault(_identity(_stem(path.name)), []).append(path)
        return found

    def stem_of(self, image: Path) -> str:
        """File name of a scan without ending and channel."""
        stem = _stem(image.name)
        return _CHANNEL.sub("", stem) if self.has_channels else stem


def find_cases(folder: Path, *, without: Iterable[Path] = ()) -> FoundCases:
    """Every scan in a folder and the folders in it, four deep, in natural order.

    One folder may hold all scans, or there may be one for each; of nnU-Net, Decathlon and BTCV folders
    (``imagesTr``, ``labelsTr``) the images are the cases, of several channels the first. Files and folders
    that are called as labels are (``ct_seg.nii.gz``, ``labels``), and files with a sidecar of ours, are none.

    Parameters
    ----------
    folder : Path
    without : iterable of Path
        Folders to leave out, such as the one that labels are saved in.

    Raises
    ------
    ImageError
        If the folder cannot be listed, or holds no scan.
    """
    left_out = {path.resolve() for path in without}
    warnings: list[str] = []
    listings = [_listed(folder)]
    found: list[tuple[Path, _Listing]] = []
    depths = {folder: 0}
    n_label_files = 0
    for listing in listings:  # grows while it is gone through
        found += [(image, listing) for image in listing.images]
        n_label_files += len(listing.labels)
        if depths[listing.path] == _DEEPEST:
            continue
        for name in listing.folders:
            inner = listing.path / name
            if is_label_folder(name) or (left_out and inner.resolve() in left_out):
                continue
            try:
                listings.append(_listed(inner))
                depths[inner] = depths[listing.path] + 1
            except ImageError as error:
                warnings.append(str(error))
    if not found:
        labels = f"; {n_label_files} files are called as labels are" if n_label_files else ""
        raise ImageError(
            f"{folder} holds no scan to work on{labels}. Choose a folder of NIfTI, NRRD or MHA files, or of "
            "DICOM series."
        )
    return FoundCases(_cases(folder, found), tuple(warnings))


def default_output(folder: Path) -> Path:
    """Where labels are saved unless the user says otherwise: ``labels`` beside the images.

    Of ``images`` or ``imagesTr`` that is beside the folder itself; of other parts of a set it bears their
    name (``labels_ts``), as scans of several parts may be called alike. Where that name is taken by labels of
    somebody else, it is ``labels_sam_med`` instead.
    """
    role = _IMAGE_FOLDER.fullmatch(folder.name) if folder.name.lower().startswith("im") else None
    part = "" if role is None or _part(role) in _TRAINING_PARTS else f"_{_part(role)}"
    beside = folder if role is None else folder.parent
    output = beside / f"labels{part}"
    try:
        names = set(os.listdir(output))
    except OSError:  # not there yet, or not to be listed: saving there tells
        return output
    is_of_others = any(_scan_ending(name) for name in names) and STATUS_FILE_NAME not in names
    return beside / f"labels_sam_med{part}" if is_of_others else output


def is_folder_of_cases(path: Path) -> bool:
    """Whether a path is a folder, and not that of a DICOM series or of OME-Zarr, which is one scan."""
    return path.is_dir() and ome_zarr.root_of(path) is None and not dicom.find_files(path)[0]


def is_label_folder(name: str) -> bool:
    """Whether a folder is called as those of labels are."""
    tokens = _SEPARATORS.split(name)
    return bool(_LABEL_TOKEN.fullmatch(tokens[-1])) or tokens[0].lower() in ("label", "labels")


def natural_order(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which ``ct_2`` comes before ``ct_10``."""
    parts = re.split(r"(\d+)", text.casefold())
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part)


def _listed(folder: Path) -> _Listing:
    listing = _Listing(folder)
    unknown: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                listing.files.add(entry.name)
                if entry.is_dir():
                    listing.folders.append(entry.name)
                else:
                    _sort_in(entry.name, listing, unknown)
    except OSError as error:
        raise ImageError(
            f"{folder} cannot be read: {error.strerror or error}; check the folder and its permissions."
        ) from error
    if not listing.series and not listing.scans and unknown:
        unknown.sort()
        if dicom.has_dicom_mark(folder / unknown[0]):  # series often have no endings; one file tells
            listing.series = unknown
    pairs = {name for name in listing.scans if name.lower().endswith(".hdr")}
    halves = {name for name in pairs if not {f"{name[:-4]}.img", f"{name[:-4]}.IMG"} & listing.files}
    listing.scans = [name for name in listing.scans if name not in halves]
    ours = {name for name in listing.scans if f"{_stem(name)}{_SIDECAR}" in listing.files}
    listing.labels += sorted(ours)
    listing.scans = sorted((n for n in listing.scans if n not in ours), key=natural_order)
    listing.folders.sort(key=natural_order)
    return listing


def _sort_in(name: str, listing: _Listing, unknown: list[str]) -> None:
    lower = name.lower()
    if lower.endswith(_LABEL_ENDINGS):
        listing.labels.append(name)
    elif _scan_ending(name):
        (listing.labels if _is_called_labels(_stem(name)) else listing.scans).append(name)
    elif lower.endswith((".dcm", ".ima")):
        listing.series.append(name)
    elif lower != "dicomdir" and ("." not in name or name.rpartition(".")[2].isdecimal()):
        unknown.append(name)


def _cases(folder: Path, found: list[tuple[Path, _Listing]]) -> tuple[Case, ...]:
    keys = [image.relative_to(folder).as_posix() for image, _ in found]
    names = _names(folder, found)
    twice = {name for name, count in Counter(name.casefold() for name in names).items() if count > 1}
    names = [key if name.casefold() in twice else name for key, name in zip(keys, names, strict=True)]
    files = [safe_name(name.replace("/", "_")) for name in names]
    counts = Counter(name.casefold() for name in files)
    cases = []
    for (image, listing), key, name, file in zip(found, keys, names, files, strict=True):
        if counts[file.casefold()] > 1:
            file = f"{file}-{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"
        given = _given(image, listing, is_root=listing.path == folder)
        cases.append(Case(key, name, image, f"{file}_labels.nii.gz", given))
    return tuple(sorted(cases, key=lambda case: (natural_order(case.name), case.key)))


def _names(folder: Path, found: list[tuple[Path, _Listing]]) -> list[str]:
    """File stem in a folder of many scans, else the folder; image folders only where there are several."""
    image_folders = {listing.path for _, listing in found if _IMAGE_FOLDER.fullmatch(listing.path.name)}
    n_of = Counter(listing.path for _, listing in found)
    names = []
    for image, listing in found:
        parts = list(listing.path.relative_to(folder).parts)
        if parts and image_folders == {listing.path}:
            parts = parts[:-1]
        is_series = image == listing.path
        if is_series and not parts:
            parts = [folder.resolve().name]
        is_alone = n_of[listing.path] == 1 and parts and listing.path not in image_folders
        if not is_series and not is_alone:
            parts.append(listing.stem_of(image))
        names.append("/".join(parts))
    return names


# labels that were there before


def _label_files_of(listing: _Listing) -> list[Path]:
    files = [listing.path / name for name in listing.labels]
    folders = [listing.path / name for name in listing.folders if is_label_folder(name)]
    role = _IMAGE_FOLDER.fullmatch(listing.path.name)
    if role is not None:
        folders += _label_folders_beside(listing.path, _part(role))
    for inner in folders:
        try:
            held = _listed(inner)
        except ImageError:  # no folder, or one that cannot be listed: nothing to start from
            continue
        if STATUS_FILE_NAME not in held.files:  # what a work list saved is no given start
            files += [inner / name for name in (*held.scans, *held.labels)]
    return files


def _label_folders_beside(images: Path, part: str) -> list[Path]:
    """Folders for labels of the same part: ``labelsTr`` beside ``imagesTr``, never beside ``imagesTs``."""
    try:
        names = sorted(os.listdir(images.parent))
    except OSError:
        return []
    roles = {name: role for name in names if (role := _LABEL_FOLDER.fullmatch(name))}
    return [images.parent / name for name, role in roles.items() if _part(role) == part]


def _part(role: re.Match[str]) -> str:
    return (role["part"] or "").lower()


def _given(image: Path, listing: _Listing, *, is_root: bool) -> tuple[Path, ...]:
    if image == listing.path:
        files = [path for of_one in listing.given.values() for path in of_one]
        return () if listing.scans else tuple(files)
    exact = listing.given.get(_identity(listing.stem_of(image)), [])
    if exact or is_root or _IMAGE_FOLDER.fullmatch(listing.path.name):
        return tuple(exact)
    # one folder for each patient, with several scans and one label file for all of them
    if len(listing.labels) != 1:
        scans = {_identity(listing.stem_of(listing.path / name)) for name in listing.scans}
        of_no_scan = [name for name in listing.labels if _identity(_stem(name)) not in scans]
        return tuple(listing.path / name for name in of_no_scan) if len(of_no_scan) > 1 else ()
    label = listing.path / listing.labels[0]
    start = _identity(_stem(label.name))
    fits = (f"{_identity(_stem(name))}_".startswith(f"{start}_") or not start for name in listing.scans)
    return (label,) if all(fits) else ()


def _identity(stem: str) -> str:
    """What is left of a name without the words that say whether it is a scan or labels."""
    tokens = []
    for token in _SEPARATORS.split(stem.casefold()):
        role = _ROLE_TOKEN.fullmatch(token)
        kept = token if role is None else role[1]
        if kept:
            tokens.append(kept)
    return "_".join(tokens)


def _is_called_labels(stem: str) -> bool:
    """Whether a file is called as labels are: ``ct_seg``, ``label0001``, ``mask_3``, ``ct_labels_2``."""
    tokens = _SEPARATORS.split(stem)
    ends = [tokens[0], tokens[-1], *(tokens[-2:-1] if tokens[-1].isdecimal() else ())]
    return any(_LABEL_TOKEN.fullmatch(token) for token in ends)


def _scan_ending(name: str) -> str | None:
    lower = name.lower()
    return next((ending for ending in _SCANS if lower.endswith(ending) and len(name) > len(ending)), None)


def _stem(name: str) -> str:
    lower = name.lower()
    ending = next((e for e in (*_LABEL_ENDINGS, *_SCANS) if lower.endswith(e) and len(name) > len(e)), "")
    return name[: len(name) - len(ending)]
