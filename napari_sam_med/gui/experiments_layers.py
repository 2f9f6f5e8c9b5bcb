"""One answer in the viewer: its prompt, its mask and the truth, as layers that go with the panel."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels, Layer, Points
from napari.utils.colormaps import DirectLabelColormap

from napari_sam_med.gui import planes
from napari_sam_med.gui.labels_display import thin_array
from napari_sam_med.gui.planes import Frame
from napari_sam_med.gui.whole_slices import Shapes
from napari_sam_med.session.experiments import Sight
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["BOX_NAME", "MARK", "POINTS_NAME", "PREDICTION_NAME", "TRUTH_NAME", "ExperimentLayers"]

MARK = "sam_med_experiment"
"""In the metadata of our layers."""
TRUTH_NAME = "Experiment truth"
PREDICTION_NAME = "Experiment prediction"
BOX_NAME = "Experiment box"
POINTS_NAME = "Experiment points"

# those of the report: Okabe and Ito's orange and sky blue
_TRUTH = (0.90, 0.62, 0.0, 1.0)
_PREDICTION = (0.34, 0.71, 0.91, 1.0)
_POINTS = {1: (0.10, 0.85, 0.25, 1.0), 0: (0.95, 0.15, 0.15, 1.0)}
_BOX = "#ffffff"
_OPACITY = {TRUTH_NAME: 1.0, PREDICTION_NAME: 0.5}


class ExperimentLayers:
    """Layers of a viewer, ours apart from the user's.

    Parameters
    ----------
    viewer : ViewerModel
        Not kept alive.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._listeners: list[tuple[Any, Callable[..., None]]] = []

    @property
    def viewer(self) -> ViewerModel | None:
        """The viewer; None when it is gone."""
        return self._viewer()

    def listen(self, changed: Callable[[], None]) -> None:
        """Call back when layers come, go or are renamed."""
        events = self.viewer.layers.events

        def on_event(event: Any = None) -> None:
            changed()

        for emitter in (events.inserted, events.removed, events.renamed):
            emitter.connect(on_event)
            self._listeners.append((emitter, on_event))

    def layers_of_type(self, kind: type[Layer]) -> list[Layer]:
        """The user's layers of a type, topmost first, and the labels that are worked on."""
        viewer = self.viewer
        found = [] if viewer is None else [layer for layer in viewer.layers if isinstance(layer, kind)]
        return [
            layer
            for layer in reversed(found)
            if not (layer.metadata.get(MARK) or layer.metadata.get("sam_med_own"))
        ]

    def show(self, sight: Sight) -> None:
        """Go to the slice of an answer and show it there, in the place of the one before."""
        viewer = self.viewer
        if viewer is None:
            return
        frame = Frame(sight.volume.display_transform, sight.volume.shape)
        if planes.current_view(viewer, frame) != sight.view:
            planes.go_inside(viewer, frame)
            planes.go_to(viewer, frame, sight.view)
        with self._keeping_active(viewer):
            self._show_mask(viewer, frame, sight.view, PREDICTION_NAME, sight.prediction, _PREDICTION)
            self._show_mask(viewer, frame, sight.view, TRUTH_NAME, sight.truth, _TRUTH)
            self._show_box(viewer, frame, sight)
            self._show_points(viewer, frame, sight)

    def remove(self) -> None:
        """Take our layers away."""
        viewer = self.viewer
        for layer in [] if viewer is None else [one for one in viewer.layers if one.metadata.get(MARK)]:
            viewer.layers.remove(layer)

    def detach(self) -> None:
        """Take our layers away and stop listening."""
        for emitter, callback in self._listeners:
            emitter.disconnect(callback)
        self._listeners.clear()
        self.remove()

    def _own(self, viewer: ViewerModel, name: str) -> Layer | None:
        return next((one for one in viewer.layers if one.metadata.get(MARK) == name), None)

    def _show_mask(
        self,
        viewer: ViewerModel,
        frame: Frame,
        view: SliceView,
        name: str,
        mask: np.ndarray | None,
        color: tuple[float, ...],
    ) -> None:
        layer = self._own(viewer, name)
        array = thin_array(frame.shape_zyx, view)
        if mask is not None:
            SliceView(view.plane, 0).insert(array, mask)
        where = frame.slice_arguments(view)
        if layer is not None and not _fits(layer, frame):  # of another scan
            viewer.layers.remove(layer)
            layer = None
        if layer is None:
            layer = viewer.add_labels(
                array,
                name=name,
                opacity=_OPACITY[name],
                colormap=DirectLabelColormap(color_dict={0: (0, 0, 0, 0), 1: color, None: (0, 0, 0, 0)}),
                metadata={MARK: name, "sam_med_frame": frame.layer_arguments},
                **where,
            )
            layer.editable = False
            if name == TRUTH_NAME:
                layer.contour = 1  # a line, so that the mask below it is seen
            return
        layer.data = array
        layer.translate = where["translate"]
        layer.visible = True

    def _show_box(self, viewer: ViewerModel, frame: Frame, sight: Sight) -> None:
        corners = np.empty((0, 4, 3))
        if sight.prompts is not None and sight.prompts.box_xyxy is not None:
            left, top, right, bottom = sight.prompts.box_xyxy.tolist()
            around = [(left, top), (right, top), (right, bottom), (left, bottom)]
            corners = np.array([[sight.view.index_zyx(xy, frame.shape_zyx) for xy in around]])
        layer = self._fitting(viewer, frame, BOX_NAME)
        if not len(corners):
            if layer is not None:
                layer.visible = False
            return
        if layer is None:
            layer = viewer.add_layer(
                Shapes(
                    None,
                    ndim=3,
                    name=BOX_NAME,
                    edge_color=_BOX,
                    face_color=[0, 0, 0, 0],
                    edge_width=max(frame.shape_zyx[1:]) / 250,
                    metadata={MARK: BOX_NAME, "sam_med_frame": frame.layer_arguments},
                    **frame.layer_arguments,
                )
            )
            layer.editable = False
        layer.data = []
        layer.add(list(corners), shape_type="rectangle")
        layer.selected_data = set()
        layer.visible = True

    def _show_points(self, viewer: ViewerModel, frame: Frame, sight: Sight) -> None:
        prompts = sight.prompts
        layer = self._fitting(viewer, frame, POINTS_NAME)
        if prompts is None or not len(prompts.points_xy):
            if layer is not None:
                layer.visible = False
            return
        places = np.array([sight.view.index_zyx(xy, frame.shape_zyx) for xy in prompts.points_xy])
        colors = np.array([_POINTS[int(label)] for label in prompts.point_labels])
        if layer is None:
            layer = viewer.add_points(
                np.empty((0, 3)),
                name=POINTS_NAME,
                size=max(frame.shape_zyx[1:]) / 45,
                border_color="white",
                border_width=0.12,
                metadata={MARK: POINTS_NAME, "sam_med_frame": frame.layer_arguments},
                **frame.layer_arguments,
            )
            layer.editable = False
        layer.selected_data = set()
        layer.data = places
        layer.face_color = colors
        layer.selected_data = set()
        layer.visible = True

    def _fitting(self, viewer: ViewerModel, frame: Frame, name: str) -> Points | Shapes | None:
        layer = self._own(viewer, name)
        if layer is not None and not _fits(layer, frame):
            viewer.layers.remove(layer)
            return None
        return layer

    @contextmanager
    def _keeping_active(self, viewer: ViewerModel) -> Iterator[None]:
        """Adding a layer makes it the active one; the tool in the user's hand stays."""
        active = viewer.layers.selection.active
        yield
        if active is None or active in viewer.layers:
            viewer.layers.selection.active = active


def _fits(layer: Layer, frame: Frame) -> bool:
    """Whether a layer of ours was made for this scan."""
    made_for = layer.metadata["sam_med_frame"]
    now = frame.layer_arguments
    if made_for.keys() != now.keys():
        return False
    same = all(np.array_equal(np.asarray(made_for[key]), np.asarray(now[key])) for key in now)
    if not same or not isinstance(layer, Labels):
        return same
    shown, wanted = layer.data.shape, frame.shape_zyx
    return all(have in (1, want) for have, want in zip(shown, wanted, strict=True))
