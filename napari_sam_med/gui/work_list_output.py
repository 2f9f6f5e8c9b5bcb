"""Where the labels of a work list are saved: as it was the last time, or as the user says."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog

from napari_sam_med.gui.appearance import window_to_ask_in
from napari_sam_med.gui.settings import Settings
from napari_sam_med.session.work_list import WorkList
from napari_sam_med.session.work_list_cases import default_output

__all__ = ["ask_output", "remember_output"]

_MOST_OUTPUTS = 50
"""Folders of which is remembered where their labels go."""


def remember_output(settings: Settings, work_list: WorkList) -> None:
    """Note which folder is worked through, and where its labels go if not to their usual place."""
    outputs = {k: v for k, v in settings.work_list_outputs.items() if k != str(work_list.folder)}
    if work_list.output != default_output(work_list.folder):
        outputs[str(work_list.folder)] = str(work_list.output)
    kept = dict(list(outputs.items())[-_MOST_OUTPUTS:])
    settings.remember(work_list_folder=str(work_list.folder), work_list_outputs=kept)


def ask_output(place: Path) -> Path | None:
    """Ask for a folder for the labels where ``place`` cannot be written; modal."""
    chosen = QFileDialog.getExistingDirectory(
        window_to_ask_in(), f"{place} cannot be written: choose a folder for the labels"
    )
    return Path(chosen) if chosen else None
