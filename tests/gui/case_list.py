"""Looking at the work list of a desk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_sam_med.gui.work_list_panel import WorkListPanel
from napari_sam_med.session.work_list import WorkList
from napari_sam_med.volume.reading import read_labels
from tests.gui.desk import Desk


def at(desk: Desk, position: int) -> None:
    """Wait until a case is open, and its journal is looked through."""
    control, keeping = desk.actions.work_list, desk.actions.keeping
    with desk.nothing_drawn():
        desk.wait(lambda: control.current is not None and control.current.case == cases(desk)[position])
        desk.wait(lambda: keeping.is_kept or keeping.trouble is not None)
        desk.wait(lambda: not keeping.is_reading and not desk.actions.workers.running)
    desk.settle()


def work_list(desk: Desk) -> WorkList:
    return desk.actions.work_list.work_list


def cases(desk: Desk) -> tuple:
    return work_list(desk).cases


def panel(desk: Desk) -> WorkListPanel:
    return desk.widget.work_list_panel


def saved(folder: Path, number: int) -> np.ndarray:
    return read_labels(folder / "labels" / f"ct_{number}_labels.nii.gz").data
