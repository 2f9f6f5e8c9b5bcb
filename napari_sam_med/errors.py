"""Errors a user can cause or mend.

Each message is one line that states the fact, the rule and the remedy. The command line prints it as
``error: <message>`` and ends with status 2; the widget shows it as a notification. Anything that is not a
`SamMedError` is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

__all__ = [
    "CancelledError",
    "ClusterError",
    "DeviceError",
    "DeviceMemoryError",
    "ExportError",
    "ImageError",
    "JournalError",
    "LabelError",
    "LockedError",
    "ModelError",
    "PromptError",
    "SamMedError",
]


class SamMedError(Exception):
    """Base of every error that a user can cause or mend."""


class ImageError(SamMedError):
    """A file is not a scan that can be opened, or its geometry cannot be trusted."""


class JournalError(SamMedError):
    """Earlier work cannot be brought back here, or another window is at work on the same image."""


class LabelError(SamMedError):
    """Labels do not fit: values, grid, or organ table."""


class LockedError(LabelError):
    """A locked organ would have been changed."""


class PromptError(SamMedError):
    """A prompt lies outside the slice, is empty, or is of a kind that the model does not take."""


class ModelError(SamMedError):
    """A checkpoint is missing, damaged, or of an unknown layout; or it could not be fetched."""


class ClusterError(SamMedError):
    """Workers cannot be had, differ from this machine, or were lost; what was finished is kept."""


class DeviceError(SamMedError):
    """The device asked for does not exist on this machine."""


class DeviceMemoryError(DeviceError):
    """The device ran out of memory; what was done so far is kept, and nothing was switched silently."""


class ExportError(SamMedError):
    """Labels could not be written; the previous file is intact."""


class CancelledError(SamMedError):
    """The user cancelled; what was done so far is kept."""
