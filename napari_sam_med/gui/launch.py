"""napari with the plugin docked: what the bare command and the demo open."""

from __future__ import annotations

import os
from pathlib import Path

import napari

from napari_sam_med.gui.widget import DOCK_NAME, SamMedWidget
from napari_sam_med.session.work_list_cases import is_folder_of_cases

__all__ = ["open_viewer"]

_SIZE = (1400, 900)


def open_viewer(
    volume_path: str | os.PathLike[str] | None = None,
    labels_path: str | os.PathLike[str] | None = None,
    model: str | None = None,
    device: str | None = None,
) -> napari.Viewer:
    """A napari window with the plugin docked; the caller runs napari.

    Parameters
    ----------
    volume_path : path, optional
        Scan to open, or folder of cases to work through; what is wrong with it is told in the window.
    labels_path : path, optional
        Labels of that scan to go on with.
    model : str, optional
        Name or path; the model of the last time when left out.
    device : str, optional
        Where it runs; the device of the last time when left out.

    Returns
    -------
    napari.Viewer
    """
    viewer = napari.Viewer(title="SAM Med")
    viewer.window.resize(*_SIZE)
    widget = SamMedWidget(viewer)
    viewer.window.add_dock_widget(widget, name=DOCK_NAME, area="right")
    actions = widget.actions_
    if device is not None:
        actions.session.device = device
    if model is not None:
        actions.session.model = model
    if volume_path is not None and is_folder_of_cases(Path(volume_path)):
        actions.work_list.open_folder(Path(volume_path))
    elif volume_path is not None:
        if labels_path is not None:
            _open_labels_after_the_scan(widget, Path(labels_path))
        actions.open_scan(Path(volume_path))
    return viewer


def _open_labels_after_the_scan(widget: SamMedWidget, labels: Path) -> None:
    scans = widget.actions_.scans

    def open_labels() -> None:
        scans.opened.disconnect(open_labels)  # opening labels emits it again
        widget.actions_.open_labels(labels)

    scans.opened.connect(open_labels)
