"""The layers that belong to a scan, as they are when nothing is drawn on them yet.

Clearing a layer takes napari milliseconds, making one 0.1 s: those of ours go from one scan to the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from napari.components import LayerList
from napari.layers import Image, Labels, Layer, Points

from napari_sam_med.gui.labels_display import thin_array
from napari_sam_med.gui.planes import Frame
from napari_sam_med.gui.slow_layers import with_tools, without_tools
from napari_sam_med.gui.whole_slices import Shapes
from napari_sam_med.session.jobs import PreparedScan, ScanSeen
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView

__all__ = [
    "BOXES_NAME",
    "LABELS_NAME",
    "POINTS_NAME",
    "PREVIEW_NAME",
    "OwnLayers",
    "boxes_layer",
    "image_layer",
    "labels_layer",
    "points_layer",
    "preview_layer",
]

POINTS_NAME = "SAM Med points"
BOXES_NAME = "SAM Med boxes"
LABELS_NAME = "SAM Med labels"
PREVIEW_NAME = "SAM Med preview"
_OWN = {"sam_med_own": True}
_MOVED = {"scale", "translate"}


def image_layer(scan: PreparedScan | ScanSeen, frame: Frame, *, visible: bool = True) -> Image:
    """The layer that shows the scan."""
    return Image(
        scan.volume.pyramid,
        name=scan.volume.name,
        visible=visible,
        colormap="gray",
        contrast_limits=scan.window,
        metadata={"sam_med": scan.volume},
        **frame.layer_arguments,
    )


def labels_layer(labels: LabelVolume, frame: Frame, *, visible: bool = True) -> Labels:
    """The layer whose data is the labels' array."""
    layer = Labels(
        labels.data,
        name=LABELS_NAME,
        opacity=0.55,
        visible=visible,
        metadata={"sam_med": labels},
        **frame.layer_arguments,
    )
    with_tools(without_tools(layer))
    return layer


def preview_layer(frame: Frame) -> Labels:
    """Made with the scan already: making a layer takes napari longer than showing a mask may take."""
    view = SliceView("axial", 0)
    return without_tools(
        Labels(
            thin_array(frame.shape_zyx, view),
            name=PREVIEW_NAME,
            opacity=0.6,
            visible=False,
            metadata=dict(_OWN),
            **frame.slice_arguments(view),
        )
    )


def points_layer(frame: Frame) -> Points:
    """Where points are set."""
    return Points(
        np.empty((0, 3)),
        name=POINTS_NAME,
        size=_point_size(frame),
        border_color="white",
        border_width=0.12,
        metadata=dict(_OWN),
        **frame.layer_arguments,
    )


def boxes_layer(frame: Frame) -> Shapes:
    """Where boxes and outlines are drawn."""
    return Shapes(
        None,
        ndim=3,
        name=BOXES_NAME,
        edge_color="#ffd23f",
        face_color=[0, 0, 0, 0],
        edge_width=_box_width(frame),
        metadata=dict(_OWN),
        **frame.layer_arguments,
    )


class OwnLayers(NamedTuple):
    """The layers of the proposal and the prompts; None where there is none.

    Attributes
    ----------
    preview, points, boxes : Layer or None
    """

    preview: Labels | None
    points: Points | None
    boxes: Shapes | None

    def fit(self, layers: LayerList, before: Frame, now: Frame, shown: Iterable[Layer | None]) -> bool:
        """Whether all are there, lie over what is shown, and can be moved to where the next scan lies."""
        if any(one is None or one not in layers or not one.metadata.get("sam_med_own") for one in self):
            return False
        if self.boxes._is_creating:  # a shape is half drawn
            return False
        lowest = self.lowest(layers)
        if any(layer is not None and layers.index(layer) > lowest for layer in shown):
            return False
        old, new = before.layer_arguments, now.layer_arguments
        return old.keys() == new.keys() and all(
            name in _MOVED or np.array_equal(value, new[name]) for name, value in old.items()
        )

    def lowest(self, layers: LayerList) -> int:
        """Place of the lowest of them in the list; above all where none of them is there."""
        return min((layers.index(layer) for layer in self if layer in layers), default=len(layers))

    def clear(self, frame: Frame, seen: SliceView | None) -> None:
        """Make them empty, and put them where a scan lies; the proposal's where the user will look, if
        that is known.
        """
        view = SliceView("axial", 0) if seen is None else seen
        shape = thin_array(frame.shape_zyx, view).shape
        if self.preview.data.shape != shape or self.preview.data.any():
            self.preview.data = thin_array(frame.shape_zyx, view)
        if len(self.points.data):
            self.points.data = np.empty((0, 3))
        if len(self.boxes.data):
            self.boxes.data = []
        for layer, arguments in (
            (self.preview, frame.slice_arguments(view)),
            (self.points, frame.layer_arguments),
            (self.boxes, frame.layer_arguments),
        ):
            is_visible = layer is not self.preview or (layer.visible and seen is not None)
            if layer.visible != is_visible:  # napari takes its time even where nothing changes
                layer.visible = is_visible
            for name in _MOVED & arguments.keys():
                if not np.allclose(getattr(layer, name), arguments[name]):
                    setattr(layer, name, arguments[name])
        self.points.current_size = _point_size(frame)
        self.boxes.current_edge_width = _box_width(frame)


def _point_size(frame: Frame) -> float:
    """Width of a point, in voxels."""
    return max(frame.shape_zyx[1:]) / 45


def _box_width(frame: Frame) -> float:
    """Width of a box's edge, in voxels."""
    return max(frame.shape_zyx[1:]) / 200
