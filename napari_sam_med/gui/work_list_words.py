"""What the status line says of a case of a work list."""

from __future__ import annotations

from napari_sam_med.session.work_list import OpenedCase

__all__ = ["said_of_case"]


def said_of_case(opened: OpenedCase, number: int, n_cases: int, window: str) -> str:
    """Which case was opened, number 1 and up of all, with which labels and window, and what is odd about it.

    Parameters
    ----------
    window : str
        As `said_of_window` puts it; may be empty.
    """
    case, scan = opened.case, opened.scan
    said = [f"{case.name} ({number} of {n_cases})"]
    if opened.start is None and len(case.given) > 1:
        names = ", ".join(path.name for path in case.given[:3])
        said.append(f"it has several label files ({names}), of which none was opened")
    elif opened.start is not None:
        said.append(f"labels from {opened.start.name}")
    said += [window] if window else []
    return "; ".join([*said, *scan.labels.warnings, *scan.volume.warnings])
