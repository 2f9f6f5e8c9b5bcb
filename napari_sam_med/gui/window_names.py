"""What windows are called: the one that a scan is shown in, and the one that is kept for the next scan."""

from __future__ import annotations

from napari_sam_med.volume.intensity import WINDOW_PRESETS
from napari_sam_med.volume.volume import Volume

__all__ = ["WINDOW_TITLES", "kept_window", "name_of_window", "said_of_window"]

WINDOW_TITLES = {
    "auto": "Automatic",
    "soft-tissue": "Soft tissue",
    "lung": "Lung",
    "bone": "Bone",
    "brain": "Brain",
    "liver": "Liver",
}


def kept_window(volume: Volume, chosen: str) -> tuple[float, float] | None:
    """The preset that was chosen last, for a scan that is opened; it means something on CT only."""
    return WINDOW_PRESETS.get(chosen) if volume.is_hounsfield else None


def name_of_window(volume: Volume, window: tuple[float, float], chosen: str) -> str | None:
    """The name of a window of a scan; None for one of the user's own.

    Two names may stand for the same window: the one that was chosen last, else the automatic one.
    """
    names = [name for name, preset in WINDOW_PRESETS.items() if preset == window]
    auto = WINDOW_PRESETS["soft-tissue"] if volume.is_hounsfield else volume.statistics.get("auto")
    if auto == window:
        names.insert(0, "auto")
    return chosen if chosen in names else next(iter(names), None)


def said_of_window(volume: Volume, window: tuple[float, float] | None, chosen: str) -> str:
    """What to say where a scan is opened in a preset that was chosen on another one; else nothing."""
    if window is None or window != kept_window(volume, chosen):
        return ""
    return f"window {WINDOW_TITLES[chosen]}, as you chose last"
