"""Section 6, Export: labels to a file that lies exactly on the scan."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary

from napari.layers import Layer
from qtpy.QtWidgets import QFileDialog, QMessageBox

import napari_sam_med
from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import Section, button, note
from napari_sam_med.volume.formats import dicom
from napari_sam_med.volume.writing import remarks

__all__ = ["ExportPanel"]

_SEGMENTATION_IN_DICOM = {".dcm": "DICOM segmentation, on the series it was drawn on (*.dcm)"}
_FILTERS = {
    ".nii.gz": "NIfTI, compressed (*.nii.gz)",
    ".nii": "NIfTI (*.nii)",
    ".seg.nrrd": "3D Slicer segmentation (*.seg.nrrd)",
    ".nrrd": "NRRD (*.nrrd)",
    ".mha": "MetaImage (*.mha)",
    ".ome.zarr": "OME-Zarr labels, a folder (*.ome.zarr)",
    **_SEGMENTATION_IN_DICOM,
    ".coco.json": "COCO masks, without the scan's geometry (*.coco.json)",
    ".stl": "Surfaces, STL (*.stl)",
    ".obj": "Surfaces, OBJ (*.obj)",
    ".ply": "Surfaces, PLY (*.ply)",
    ".vtk": "Surfaces, VTK (*.vtk)",
}
_OF_ANY_SIZE = (".ome.zarr", ".nii.gz", ".nii")
_SCAN_SUFFIXES = (
    ".ome.zarr",
    ".zarr",
    ".nii.gz",
    ".nii",
    ".seg.nrrd",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".dcm",
)


class ExportPanel(Section):
    """Write the labels; the folder and the format are remembered."""

    def __init__(self, actions: Actions) -> None:
        super().__init__(6, "Export")
        self._actions = actions
        self.export = button(
            "Export labels…",
            "Write all organs to one file on the scan's own grid; it is read again and compared.",
            self.ask,
        )
        self.add(self.export)
        self.written = note()
        self.add(self.written)
        self._written: WeakKeyDictionary[Layer, str] = WeakKeyDictionary()  # of each scan, what was said last
        actions.session.events.volume.connect(self.refresh)
        actions.scans.opened.connect(self.refresh)
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Exporting needs a scan; what was written is shown for the scan that is worked on."""
        image = None if self._actions.session.volume is None else self._actions.bridge.image_layer
        self.export.setEnabled(self._actions.session.volume is not None)
        text = "" if image is None else self._written.get(image, "")
        self.written.setText(text)
        self.written.setVisible(bool(text))

    def suggested_path(self) -> Path:
        """A name that is free, where the last export went or beside the scan, in the last format.

        Never among the package's own sample data, nor where nothing can be written: then in the home folder.
        """
        settings, volume = self._actions.settings, self._actions.session.volume
        source = None if volume is None else volume.path
        folder = Path(settings.export_folder) if settings.export_folder else None
        if folder is None or not _is_for_users(folder):
            folder = Path.home() if source is None else source.parent
            folder = folder if _is_for_users(folder) else Path.home()
        stem = "labels" if volume is None else _stem(volume.name if source is None else source.name)
        return _free(folder, f"{stem}_labels", self._suffix)

    @property
    def _suffix(self) -> str:
        """The last format; of a scan beyond memory the one that its labels are opened from again."""
        volume, last = self._actions.session.volume, self._actions.settings.export_suffix
        is_usual = last in self.filters and not (volume is not None and volume.is_lazy)
        return last if is_usual else next(iter(self.filters))

    @property
    def filters(self) -> dict[str, str]:
        """What the dialog offers, by ending; DICOM for a DICOM series, few for a scan beyond memory."""
        volume = self._actions.session.volume
        is_series = volume is not None and bool(dicom.files_of(volume.header))
        if volume is not None and volume.is_lazy:
            return {suffix: _FILTERS[suffix] for suffix in _OF_ANY_SIZE}
        return {s: title for s, title in _FILTERS.items() if is_series or s not in _SEGMENTATION_IN_DICOM}

    def ask(self, then: Callable[[], None] | None = None) -> None:
        """Let the user choose a file and write it; ``then`` is called once it is written."""
        path, chosen = QFileDialog.getSaveFileName(
            self,
            "Export labels",
            str(self.suggested_path()),
            ";;".join(self.filters.values()),
            self.filters[self._suffix],
        )
        if not path:
            return
        target = _with_suffix(Path(path), chosen)
        # the dialog asked about the name as it was typed, not about the one with its suffix
        if target == Path(path) or not target.exists() or self._may_replace(target):
            self.export_to(target, then)

    def _may_replace(self, path: Path) -> bool:
        question = f"{path.name} is there already. Replace it?"
        yes = QMessageBox.StandardButton.Yes
        return QMessageBox.question(self, "Export labels", question) == yes

    def export_to(self, path: Path, then: Callable[[], None] | None = None) -> None:
        """Write to a path and remember its folder and format."""
        session, image = self._actions.session, self._actions.bridge.image_layer
        n_organs = sum(session.voxel_count(class_id) > 0 for class_id in session.organs)

        def written(path: Path) -> None:
            self._on_written(path, image, n_organs)
            if then is not None:
                then()

        self._actions.export(path, written)

    def _on_written(self, path: Path, image: Layer | None, n_organs: int) -> None:
        suffix = next((s for s in _FILTERS if path.name.endswith(s)), ".nii.gz")
        self._actions.settings.remember(export_folder=str(path.parent), export_suffix=suffix)
        if image is not None:
            self._written[image] = "\n".join([f"Written: {path}", *remarks(path, n_organs)])
        self.refresh()  # another scan may be open by now


def _is_for_users(folder: Path) -> bool:
    own = Path(napari_sam_med.__file__).parent.resolve()
    return folder.is_dir() and os.access(folder, os.W_OK) and not folder.resolve().is_relative_to(own)


def _free(folder: Path, stem: str, suffix: str) -> Path:
    """The name, or the name and the first number from 2 on that no file has."""
    path, number = folder / f"{stem}{suffix}", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}_{number}{suffix}"
    return path


def _stem(name: str) -> str:
    for suffix in _SCAN_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _with_suffix(path: Path, chosen_filter: str) -> Path:
    """The name as typed where it says a format, else with the suffix of the chosen format."""
    if any(path.name.lower().endswith(suffix) for suffix in _FILTERS):
        return path
    suffix = next((s for s, title in _FILTERS.items() if title == chosen_filter), ".nii.gz")
    return path.with_name(path.name + suffix)
