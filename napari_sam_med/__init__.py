"""Promptable segmentation of medical volumes with SAM, in napari, on the command line and in Python.

Importing it loads neither torch nor napari nor Qt; each name below loads what it needs on first use.
Not for clinical use.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("napari-sam-med")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import ImageEmbedding, MaskPrediction, Predictor, load_predictor
    from napari_sam_med.sam.prompts import Prompts
    from napari_sam_med.segmentation.automatic.everything import segment_everything
    from napari_sam_med.segmentation.propagation import PropagatedSlice, propagate
    from napari_sam_med.volume.intensity import to_rgb
    from napari_sam_med.volume.labels import LabelVolume
    from napari_sam_med.volume.reading import read_labels, read_volume
    from napari_sam_med.volume.slice_view import SliceView
    from napari_sam_med.volume.volume import Volume
    from napari_sam_med.volume.writing import write_labels

_HOMES = {
    "ImageEmbedding": "sam.predictor",
    "LabelVolume": "volume.labels",
    "MaskPrediction": "sam.predictor",
    "Predictor": "sam.predictor",
    "Prompts": "sam.prompts",
    "PropagatedSlice": "segmentation.propagation",
    "SliceView": "volume.slice_view",
    "Volume": "volume.volume",
    "load_predictor": "sam.predictor",
    "propagate": "segmentation.propagation",
    "read_labels": "volume.reading",
    "read_volume": "volume.reading",
    "segment_everything": "segmentation.automatic.everything",
    "to_rgb": "volume.intensity",
    "write_labels": "volume.writing",
}

__all__ = [
    "ImageEmbedding",
    "LabelVolume",
    "MaskPrediction",
    "Predictor",
    "Prompts",
    "PropagatedSlice",
    "SliceView",
    "Volume",
    "load_predictor",
    "propagate",
    "read_labels",
    "read_volume",
    "segment_everything",
    "to_rgb",
    "write_labels",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
