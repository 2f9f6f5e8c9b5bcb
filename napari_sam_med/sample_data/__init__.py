"""The bundled sample: an invented abdominal CT, its organ labels, and prompts for five organs."""

from __future__ import annotations

from pathlib import Path

__all__ = ["LABELS_NAME", "PROMPTS_NAME", "VOLUME_NAME", "sample_labels", "sample_prompts", "sample_volume"]

VOLUME_NAME = "abdomen_phantom.nii.gz"
LABELS_NAME = "abdomen_phantom_labels.nii.gz"
PROMPTS_NAME = "abdomen_phantom_prompts.json"

_FOLDER = Path(__file__).parent


def sample_volume() -> Path:
    """Path of the sample volume, NIfTI, Hounsfield values."""
    return _FOLDER / VOLUME_NAME


def sample_labels() -> Path:
    """Path of the true labels of the sample volume, organs numbered as in BTCV."""
    return _FOLDER / LABELS_NAME


def sample_prompts() -> Path:
    """Path of a prompts file with one box for each of five organs of the sample volume."""
    return _FOLDER / PROMPTS_NAME
