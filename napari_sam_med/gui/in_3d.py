"""To 3-D and back: what is hidden there, and comes back with a plane.

What is hidden before napari turns is neither sliced nor sent to the graphics card for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from napari.layers import Labels, Layer

from napari_sam_med.gui import planes
from napari_sam_med.gui.coarse import coarsen_image, coarsen_labels, draws_in_software, leave_fine
from napari_sam_med.gui.slow_layers import drawn_in_parts

if TYPE_CHECKING:
    from napari_sam_med.gui.layer_bridge import LayerBridge, Tool

__all__ = ["In3d"]

_ORGANS = "Organs alone{}; scan and prompts come back with Axial, Coronal or Sagittal."
_SCAN = "The scan in 3-D{}; the prompts come back with Axial, Coronal or Sagittal."
_COARSER = ", drawn coarser"


class In3d:
    """What was seen, and which tool the user had, before 3-D.

    Parameters
    ----------
    bridge : LayerBridge
    """

    def __init__(self, bridge: LayerBridge) -> None:
        self._bridge = bridge
        self._is_wanted = self._is_there = False
        self._to_show: list[Layer] = []
        self._tool: Tool | None = None
        self._tool_in_2d: Tool | None = None
        self._point: tuple[float, ...] | None = None
        self._told = ""
        self._in_software: bool | None = None
        self._coarse: WeakSet[Layer] = WeakSet()
        self._opacity: tuple[Labels, float] | None = None

    def after_turn(self, event: Any) -> None:
        """Napari has turned, whoever asked for it; it hears of that before anybody else."""
        if event.source.ndisplay == 3:
            self.enter()
            if self._is_there:
                planes.keep_place_of_sliders(self._bridge.viewer, is_kept=True)
        elif self._is_there:
            self._come_to_point()
            self._back()

    def _come_to_point(self) -> None:
        viewer = self._bridge.viewer
        if self._point is not None and len(self._point) == viewer.dims.ndim:
            planes.come_back_to(viewer, self._point)

    def _back(self) -> None:
        self._is_there, self._point = False, None
        planes.keep_place_of_sliders(self._bridge.viewer, is_kept=False)
        self._let_scan_through()
        self._bridge.hint_over.emit(self._told)
        self._bridge.turns.add(self._coming_back())

    def go(self) -> None:
        """Turn to 3-D, a moment later."""
        self._is_wanted = True
        self._bridge.turns.add(self._going())

    def _going(self) -> Iterator[None]:
        if self._is_wanted:
            self.enter()
            yield  # hiding takes napari as long as turning
        if self._is_wanted:
            planes.show_in_3d(self._bridge.viewer, self._bridge.frame)
            yield from self._labels_after_scan()

    def _labels_after_scan(self) -> Iterator[None]:
        """The graphics card takes as long for the program of each, and labels without organs are not seen."""
        visual = planes.visual_of(self._bridge.viewer, self._bridge.labels_layer)
        node = getattr(visual, "node", None)
        if node is not None and node.visible and not self._has_organs:
            node.visible = False
            try:
                yield
            finally:
                if visual.node is node:  # else a plane came meanwhile, which has another
                    node.visible = visual.layer.visible

    def stay(self) -> None:
        """A plane is wanted, so that 3-D is not, if it is still to come."""
        self._is_wanted = False
        if self._is_there and self._bridge.viewer.dims.ndisplay == 2:
            self._back()
        elif self._is_there:
            self._come_to_point()

    def note_tool(self) -> None:
        """What the user has in hand on slices; napari takes it away before it tells of 3-D."""
        if not self._is_there and self._tool is None and self._bridge.viewer.dims.ndisplay == 2:
            self._tool_in_2d = self._bridge.tool

    def enter(self) -> None:
        """Hide the prompts, and the scan if it would cover organs."""
        bridge = self._bridge
        if self._is_there or bridge.frame is None:
            return
        self._is_there = True
        self._tool, self._point = self._tool or self._tool_in_2d, bridge.viewer.dims.point
        bridge.display.look_at(None)
        is_coarse, has_organs = self.coarsen(), self._has_organs
        for layer in (bridge.image_layer if has_organs else None, bridge.boxes_layer, bridge.points_layer):
            if layer is not None and layer.visible:
                layer.visible = False
                self._to_show.append(layer)
        if has_organs:
            self._draw_in_full_colour(bridge.labels_layer)
        self._told = (_ORGANS if has_organs else _SCAN).format(_COARSER if is_coarse else "")
        bridge.hint.emit(self._told)

    def _draw_in_full_colour(self, labels: Labels) -> None:
        """Nothing is behind organs but black, so that the share of it darkens them; napari's plain shading
        takes a surface for one of voxels.
        """
        self._opacity = labels, labels.opacity
        labels.opacity, labels.iso_gradient_mode = 1.0, "smooth"

    def _let_scan_through(self) -> None:
        """As before on slices, unless another opacity was chosen meanwhile."""
        if self._opacity is not None:
            labels, before = self._opacity
            self._opacity = None
            if labels.opacity == 1.0:
                labels.opacity = before

    def coarsen(self) -> bool:
        """Let the layers of the scan be coarse in 3-D; answers whether what is seen will be."""
        bridge = self._bridge
        if self._in_software is None:
            self._in_software = draws_in_software(bridge.canvas())
        image, labels, in_software = bridge.image_layer, bridge.labels_layer, bool(self._in_software)
        is_image = image is not None and coarsen_image(image, in_software=in_software)
        is_labels = labels is not None and coarsen_labels(
            labels, planes.visual_of(bridge.viewer, labels), in_software=in_software
        )
        self._coarse.update(layer for layer in (image, labels) if layer is not None)
        return is_labels if self._has_organs else is_image

    @property
    def _has_organs(self) -> bool:
        labels = self._bridge.labels_layer
        return labels is not None and labels.visible and self._bridge.session.has_labels

    @property
    def hides_scan(self) -> bool:
        """Whether it is still to be shown again."""
        return self._bridge.image_layer in self._to_show

    def _show(self, layer: Layer | None) -> None:
        if layer in self._to_show:
            self._to_show.remove(layer)
            if layer in self._bridge.viewer.layers and not layer.visible:
                layer.visible = True

    def _coming_back(self) -> Iterator[None]:
        bridge = self._bridge
        for layer in (bridge.image_layer, bridge.points_layer, bridge.boxes_layer):
            if not self._is_there:  # else 3-D was asked for again meanwhile
                is_hidden = layer in self._to_show
                self._show(layer)
                if is_hidden and layer is bridge.boxes_layer:
                    yield from drawn_in_parts(bridge.canvas(), layer)
                yield
        if not self._is_there:
            self._to_show.clear()  # of a scan that was left in 3-D
            self._take_tool()

    def _take_tool(self) -> None:
        """Into the user's hand again, out of which napari took it, unless there is another in it by now."""
        tool, self._tool = self._tool, None
        if tool is not None and self._bridge.tool == "pan":
            self._bridge.set_tool(tool)

    def choose_tool(self, tool: Tool) -> None:
        """What the user chose in 3-D is what comes back."""
        if self._tool is not None:
            self._tool = tool

    def forget(self) -> None:
        """Bring all back at once, and let the layers be."""
        self._is_there = False
        planes.keep_place_of_sliders(self._bridge.viewer, is_kept=False)
        self._let_scan_through()
        for layer in [*self._to_show]:
            self._show(layer)
        self._tool = self._point = None
        for layer in self._coarse:
            leave_fine(layer, planes.visual_of(self._bridge.viewer, layer))
        self._coarse.clear()
