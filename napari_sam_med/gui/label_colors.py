"""Colours of the organ table as napari colormaps."""

from __future__ import annotations

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

from napari_sam_med.volume.organs import OrganTable, default_color

__all__ = ["organ_colormap", "preview_colormap", "same_colors"]

_CLEAR = (0.0, 0.0, 0.0, 0.0)
_UNKNOWN = (0.75, 0.75, 0.75, 1.0)


def organ_colormap(organs: OrganTable) -> DirectLabelColormap:
    """Each organ in its colour; hidden ones clear."""
    colors = {
        class_id: (*organ.color, 1.0) if organ.visible else _CLEAR for class_id, organ in organs.items()
    }
    return DirectLabelColormap(color_dict={None: _UNKNOWN, 0: _CLEAR, **colors})


def preview_colormap(organs: OrganTable, class_id: int) -> DirectLabelColormap:
    """A proposed mask: the organ's colour, half way to white, so that it stands off accepted voxels."""
    color = organs[class_id].color if class_id in organs else default_color(class_id)
    bright = tuple(0.5 + 0.5 * value for value in color)
    return DirectLabelColormap(color_dict={None: _CLEAR, 0: _CLEAR, 1: (*bright, 1.0)})


def same_colors(one: object, other: DirectLabelColormap) -> bool:
    """Whether a layer's colormap shows every label the way another one does."""
    if not isinstance(one, DirectLabelColormap) or one.color_dict.keys() != other.color_dict.keys():
        return False
    return all(np.array_equal(one.color_dict[label], color) for label, color in other.color_dict.items())
