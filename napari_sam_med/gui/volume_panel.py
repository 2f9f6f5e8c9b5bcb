"""Section 1, Scan: which image, its facts, its planes."""

from __future__ import annotations

from pathlib import Path

from napari.layers import Image, Labels
from qtpy.QtWidgets import QFileDialog

from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import Section, labelled, narrow_button, note, press, tool_buttons
from napari_sam_med.gui.layer_combo import LayerCombo
from napari_sam_med.gui.window_panel import WindowPanel
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["VolumePanel"]

_SCANS = "Scans (*.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.dcm *.ima zarr.json .zattrs);;All files (*)"


class VolumePanel(Section):
    """Choose a scan and look at it."""

    def __init__(self, actions: Actions) -> None:
        super().__init__(1, "Scan")
        self._actions = actions
        bridge = actions.bridge
        self.images = LayerCombo(bridge, Image, "The image layer to work on; any plugin may have opened it.")
        self.images.chosen.connect(self._on_image_chosen)
        self.labels = LayerCombo(
            bridge,
            Labels,
            "Where masks are written: new labels, or a labels layer of the scan's shape to go on with.",
            "New labels",
        )
        self.labels.chosen.connect(self._on_labels_chosen)
        self.add(
            labelled(
                "Image",
                self.images,
                narrow_button("Open…", "Open a scan from a file.", self._open, 58),
                longest="Window",
            )
        )
        self.add_detail(
            labelled(
                "Labels",
                self.labels,
                narrow_button("Open…", "Go on with labels from a file; one undo step.", self._labels, 58),
                longest="Window",
            )
        )
        self.facts = note()
        self.add(self.facts)
        layout, self.planes = tool_buttons(
            [
                ("axial", "Axial", "Axial slices, anterior up, the patient's right on the left (Alt-1)"),
                ("coronal", "Coronal", "Coronal slices, head up (Alt-2)"),
                ("sagittal", "Sagittal", "Sagittal slices, head up (Alt-3)"),
                ("3d", "3-D", "All organs in three dimensions, seen from the front (Alt-4)"),
            ],
            self._on_plane,
            columns=4,
        )
        self.add(layout)
        self.window_panel = WindowPanel(actions)
        self.add_detail(self.window_panel)
        self.fold.setToolTip("Labels to go on with, the window, and folders of cases.")
        bridge.layers_changed.connect(self.refresh)
        bridge.view_changed.connect(self._on_view)
        actions.scans.opened.connect(self.refresh)
        self.refresh()
        self._on_view(bridge.current_view())

    def refresh(self) -> None:
        """Show the layers and the facts of the scan."""
        bridge = self._actions.bridge
        self.images.show_layers(bridge.image_layer)
        volume = self._actions.session.volume
        is_missing = volume is not None and bridge.labels_layer is None
        self.labels.first = "Bring the labels back" if is_missing else "New labels"
        self.labels.show_layers(bridge.labels_layer)
        self.labels.setEnabled(volume is not None)
        if volume is None:
            self.facts.setText("Open a scan, drop a file on the viewer, or choose an image layer.")
        else:
            z, y, x = volume.shape
            sz, sy, sx = volume.spacing
            lines = [f"{x} × {y} × {z} voxels, {sx:.2f} × {sy:.2f} × {sz:.2f} mm"]
            tilt = volume.grid.obliquity_deg
            if tilt >= 0.5:
                lines[0] += f", oblique {tilt:.0f}°"
            lines += [f"⚠ {warning}" for warning in volume.warnings]
            self.facts.setText("\n".join(lines))
        self.facts.setVisible(True)

    def _on_image_chosen(self, layer: Image | None) -> None:
        if layer is not None and layer is not self._actions.bridge.image_layer:
            self._actions.open_scan(layer, self._actions.bridge.labels_of_work(layer))

    def _on_labels_chosen(self, layer: Labels | None) -> None:
        bridge = self._actions.bridge
        if layer is None and bridge.labels_layer is None:
            bridge.show_labels_again()
            return
        if layer is bridge.labels_layer:
            return
        if bridge.image_layer is not None:
            self._actions.open_scan(bridge.image_layer, layer)

    def _on_plane(self, key: str) -> None:
        bridge = self._actions.bridge
        if bridge.frame is None:
            self._on_view(None)
        elif key == "3d":
            bridge.show_in_3d()
            self._on_view(bridge.current_view())  # 3-D may have been refused
        else:
            bridge.show_plane(key)

    def _on_view(self, view: SliceView | None) -> None:
        bridge, shown = self._actions.bridge, None if view is None else view.plane
        has_scan = bridge.frame is not None
        if view is None and bridge.viewer.dims.ndisplay == 3:  # else it is beside the scan
            shown = "3d"
        for made in self.planes.values():
            made.setEnabled(has_scan)
        press(self.planes, shown if has_scan else None)

    def _open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a scan", "", _SCANS)
        if path:
            self._actions.open_scan(Path(path))

    def _labels(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open labels", "", _SCANS)
        if path:
            self._actions.open_labels(Path(path))
