"""What napari finds in the manifest besides the widget: reader, writer, sample data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
from napari.utils.notifications import show_warning

from napari_sam_med.errors import ImageError, SamMedError
from napari_sam_med.gui.appearance import window_to_ask_in
from napari_sam_med.gui.geometry_question import ask_form
from napari_sam_med.gui.label_colors import organ_colormap
from napari_sam_med.gui.settings import Settings
from napari_sam_med.sample_data import sample_labels, sample_volume
from napari_sam_med.volume.formats import dicom
from napari_sam_med.volume.intensity import WINDOW_PRESETS, contrast_warning, resolve_window
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.reading import read_labels, read_volume, volume_times
from napari_sam_med.volume.volume import Volume
from napari_sam_med.volume.writing import write_labels

__all__ = [
    "abdomen_phantom",
    "abdomen_phantom_with_labels",
    "ask_time",
    "get_reader",
    "read_files",
    "write_labels_layer",
]

LayerData = tuple[Any, dict[str, Any], str]

_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".ima")
_NIFTI_LABEL_INTENT = 1002


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """npe2 reader for NIfTI, NRRD, MetaImage and DICOM, also of a folder; None for anything else."""
    paths = [path] if isinstance(path, str) else path
    if all(str(p).lower().endswith(_SUFFIXES) or _is_series(Path(p)) for p in paths):
        return read_files
    return None


def read_files(path: str | list[str]) -> list[LayerData]:
    """Layers of one file or of several; label files become Labels layers.

    Raises
    ------
    SamMedError
        When a file cannot be opened; napari shows its text.
    """
    layers: list[LayerData] = []
    read: set[Path] = set()  # files of one DICOM series are one layer
    for file in map(Path, [path] if isinstance(path, str) else path):
        if file not in read:
            layers.append(_labels_layer(read_labels(file)) if _holds_labels(file) else _image_layer(file))
            read.update(dicom.files_of(layers[-1][1]["metadata"]["sam_med"].header))
    return layers


def _is_series(path: Path) -> bool:
    """Whether a folder has DICOM files in it; False where it cannot be listed."""
    try:
        return path.is_dir() and bool(dicom.find_files(path)[0])
    except (ImageError, OSError):
        return False


def _image_layer(file: Path) -> LayerData:
    volume = read_volume(file, time=ask_time(file))
    form = ask_form(volume)
    if form is not None:
        volume = read_volume(file, time=volume.time, form=form)
    if odd := contrast_warning(volume):  # there may be no widget that tells of it
        show_warning(odd)
    return _layer_of_volume(volume, _window_of(volume))


def _window_of(volume: Volume) -> tuple[float, float]:
    """The window that was chosen last; it means something on CT only."""
    chosen = Settings.load().window
    is_meant = volume.is_hounsfield and chosen in WINDOW_PRESETS
    return WINDOW_PRESETS[chosen] if is_meant else resolve_window(volume, "auto")


def _layer_of_volume(volume: Volume, window: tuple[float, float]) -> LayerData:
    options = {
        "name": volume.name,
        "colormap": "gray",
        "contrast_limits": window,
        "metadata": {"sam_med": volume},
        **volume.display_transform,
    }
    return volume.data, options, "image"


def _labels_layer(labels: LabelVolume, name: str | None = None) -> LayerData:
    grid = labels.grid
    options = {
        "name": name or "labels",
        "opacity": 0.55,
        "colormap": organ_colormap(labels.organs),
        "metadata": {"sam_med": labels},
        "scale": grid.spacing_zyx,
        "translate": grid.translate_zyx,
        "units": ("mm", "mm", "mm"),
        "axis_labels": ("S", "P", "L"),
    }
    return labels.data, options, "labels"


def _holds_labels(file: Path) -> bool:
    """Whether a file says that it holds labels: by its format, its header, or our sidecar beside it."""
    name = file.name.lower()
    if name.endswith((".seg.nrrd", ".seg.nhdr")):
        return True
    if name.endswith(".dcm") and file.is_file():
        return dicom.is_label_file(file)
    stem = next((file.name[: -len(s)] for s in (".nii.gz", *_SUFFIXES) if name.endswith(s)), file.stem)
    if file.with_name(f"{stem}.sam-med.json").is_file():
        return True
    if not name.endswith((".nii", ".nii.gz")):
        return False
    try:
        return int(nib.load(file).header["intent_code"]) == _NIFTI_LABEL_INTENT
    except Exception:  # noqa: BLE001  whatever is wrong with the file, reading it says so properly
        return False


def ask_time(file: Path, parent: Any = None) -> int | None:
    """Which volume of a file that holds several; asks where there is somebody to ask.

    Returns
    -------
    int or None
        0 for a file with one volume. None, the reader's own default, where nobody can be asked.

    Raises
    ------
    SamMedError
        When the user would rather not open the file.
    """
    count = volume_times(file)
    if count <= 1:
        return 0
    from qtpy.QtWidgets import QApplication, QInputDialog

    if QApplication.instance() is None:
        return None
    question = f"{file.name} holds {count} volumes. Which one? (1 to {count})"
    window = window_to_ask_in() if parent is None else parent
    number, is_chosen = QInputDialog.getInt(window, "SAM Med", question, 1, 1, count)
    if not is_chosen:
        raise SamMedError(f"{file.name} was not opened: no volume was chosen.")
    return number - 1


def write_labels_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """npe2 writer: a Labels layer onto the grid of the scan that it belongs to.

    Raises
    ------
    SamMedError
        When the labels cannot be written; the previous file is intact.
    """
    kept = (attributes.get("metadata") or {}).get("sam_med")
    if isinstance(kept, LabelVolume) and kept.data.shape == np.shape(data):
        grid, organs, header, source = kept.grid, kept.organs, kept.header, kept.path
    else:
        layer = SimpleNamespace(data=data, rgb=False, multiscale=False, source=None, **_transform(attributes))
        volume = Volume.from_layer(layer)
        grid, organs, header, source = volume.grid, OrganTable.btcv(), volume.header, None
    array = np.asarray(data)
    array = array[None] if array.ndim == 2 else array
    if array.dtype not in (np.uint8, np.uint16):
        highest = int(array.max(initial=0))
        if int(array.min(initial=0)) < 0 or highest > 65535:
            raise SamMedError("Labels are 0 to 65535 in a file; renumber those of this layer first.")
        array = array.astype(np.uint8 if highest < 256 else np.uint16)
    labels = LabelVolume(np.array(array), grid, organs, header=header, path=source)
    return [str(write_labels(path, labels))]


def _transform(attributes: dict[str, Any]) -> dict[str, Any]:
    names = ("name", "scale", "translate", "rotate", "shear", "affine", "units", "axis_labels", "metadata")
    return {name: attributes.get(name) for name in names}


def abdomen_phantom() -> list[LayerData]:
    """Sample data: an invented abdominal CT."""
    volume = read_volume(sample_volume())
    return [_layer_of_volume(volume, _window_of(volume))]


def abdomen_phantom_with_labels() -> list[LayerData]:
    """Sample data: the abdominal CT and the organs that are truly in it."""
    volume = read_volume(sample_volume())
    labels = read_labels(sample_labels(), reference=volume)
    image = _layer_of_volume(volume, _window_of(volume))
    return [image, _labels_layer(labels, "abdomen phantom labels")]
