"""The bare command: napari with the plugin docked."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from napari_sam_med.errors import DeviceError, ImageError
from napari_sam_med.sam.model_registry import get_record
from napari_sam_med.session.work_list_cases import find_cases, is_folder_of_cases
from napari_sam_med.volume.reading import volume_times

__all__ = ["has_display", "open_in_napari"]

_PROBE = "from qtpy.QtWidgets import QApplication; QApplication([])"
_PROBE_SECONDS = 60
_WINDOWLESS = ("offscreen", "minimal")
_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")


def open_in_napari(volume: Path | None, labels: Path | None, model: str | None, device: str | None) -> int:
    """Open a viewer and run it until it is closed; returns the exit status."""
    for path, what in ((volume, "volume"), (labels, "label file")):
        if path is not None and not path.exists():
            raise ImageError(f"There is no {what} {path}; check the path.")
    if labels is not None and volume is None:
        raise ImageError("Labels alone cannot be opened: they lie on a volume; give the volume as well.")
    if volume is not None and is_folder_of_cases(volume):
        find_cases(volume)  # a folder without scans is refused here, not in a window
        if labels is not None:
            raise ImageError("Labels belong to one scan, and a folder of cases holds many; leave them out.")
    elif volume is not None:
        volume_times(volume)  # reads the header: a file that is no scan is refused here, not in a window
    if model is not None and not Path(model).exists():
        get_record(model)
    if device not in (None, "auto"):
        from napari_sam_med.sam.device import resolve_device  # loads torch

        resolve_device(device)
    if not has_display():
        raise DeviceError(
            f"{_why_no_window()}, or work without a window with "
            '"napari-sam-med segment" or "napari-sam-med demo --headless".'
        )
    # imported by name, so that the command line and the GUI stay apart: everything else runs without napari
    importlib.import_module("napari_sam_med.gui.launch").open_viewer(
        volume_path=volume, labels_path=labels, model=model, device=device
    )
    importlib.import_module("napari").run()
    return 0


def has_display() -> bool:
    """Whether Qt can open a window here; asked in a process of its own, since Qt aborts where it cannot."""
    if _is_displayless() or os.environ.get("QT_QPA_PLATFORM") in _WINDOWLESS:
        return False
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return probe.returncode == 0


def _is_displayless() -> bool:
    on_x11 = sys.platform.startswith(("linux", "freebsd"))
    return on_x11 and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _why_no_window() -> str:
    """What `has_display` found missing, and what to do about it."""
    if _is_displayless():
        return (
            "There is no display: neither DISPLAY nor WAYLAND_DISPLAY is set; start it from a desktop session"
        )
    platform = os.environ.get("QT_QPA_PLATFORM")
    if platform in _WINDOWLESS:
        return f"QT_QPA_PLATFORM={platform} keeps Qt from opening windows; unset it"
    if not any(importlib.util.find_spec(name) for name in _BINDINGS):
        return 'Qt is not installed, which draws the window; run pip install "napari[pyqt6]"'
    return (
        "Qt is installed but cannot open a window; check the display, and on Linux Qt's system libraries "
        "(such as libxcb-cursor0)"
    )
