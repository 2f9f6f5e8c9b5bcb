"""The layers of a scan on their way into the viewer."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from napari_sam_med.gui.planes import Frame, canvas_of
from napari_sam_med.gui.scan_layers import (
    BOXES_NAME,
    LABELS_NAME,
    POINTS_NAME,
    PREVIEW_NAME,
    OwnLayers,
    boxes_layer,
    image_layer,
    labels_layer,
    points_layer,
    preview_layer,
)
from napari_sam_med.gui.slow_layers import drawn_in_parts, insert_unselected, inserted_in_parts
from napari_sam_med.session.jobs import PreparedScan, ScanSeen
from napari_sam_med.volume.volume import Volume

__all__ = ["Arrival"]


class Arrival:
    """Layers that are put into the viewer one in a turn, since each takes napari up to 60 ms; nobody works on
    any of them before all are there, and the scan before is worked on until then.

    Parameters
    ----------
    viewer : ViewerModel
    image : Image or None
        The user's layer that shows the scan already. None makes one.
    labels : Labels or None
        The user's layer whose data is the array of the labels already. None makes one.

    Attributes
    ----------
    image, labels, own
        What is there by now.
    volume : Volume or None
        Of the scan whose layers are all to come.
    keeps_own : bool
        Whether the own layers are those of the scan before.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        image: Image | None = None,
        labels: Labels | None = None,
    ) -> None:
        self._viewer, self._layers = viewer, viewer.layers
        self._put: list[Layer] = []
        self.image, self.labels = image, labels
        self.own = OwnLayers(None, None, None)
        self.volume: Volume | None = None
        self.keeps_own = False

    @property
    def is_new(self) -> bool:
        """Whether the image is not a layer of the user's."""
        return self.image is None or self.image in self._put

    @property
    def was_disturbed(self) -> bool:
        """Whether somebody took one of the layers away."""
        there = (self.image, self.labels, *self._put)
        return any(layer is not None and layer not in self._layers for layer in there)

    def show_image(self, scan: ScanSeen) -> Iterator[None]:
        """Have the image of a scan before the rest of it is ready, in steps."""
        frame = Frame(scan.volume.display_transform, scan.volume.shape)
        self.image = yield from self._put_in(image_layer(scan, frame))

    def come(self, scan: PreparedScan, before: Frame | None, own: OwnLayers) -> Iterator[None]:
        """Put in what is missing, in steps; over a scan that is worked on, image and labels come unseen.

        Parameters
        ----------
        scan : PreparedScan
        before : Frame or None
            Of the scan that is worked on.
        own : OwnLayers
            Its own layers, which are kept where that goes.
        """
        self.volume = scan.volume
        frame = Frame(scan.volume.display_transform, scan.volume.shape)
        self.keeps_own = before is not None and own.fit(
            self._layers, before, frame, (self.image, self.labels)
        )
        if self.keeps_own:
            self.own = own
        if self.image is None:
            self.image = yield from self._put_in(image_layer(scan, frame, visible=before is None))
            yield
        if self.labels is None:
            self.labels = yield from self._put_in(labels_layer(scan.labels, frame, visible=before is None))
            yield
        for name, make in (("preview", preview_layer), ("points", points_layer), ("boxes", boxes_layer)):
            if getattr(self.own, name) is None:
                layer = yield from self._put_in(make(frame))
                self.own = self.own._replace(**{name: layer})
                yield from drawn_in_parts(canvas_of(self._viewer), layer)

    def make_up(self, scan: PreparedScan, before: Frame | None, own: OwnLayers) -> None:
        """Make own layers after all where those of the scan before cannot be kept any more: they were let
        go of, or moved, or are drawn on.
        """
        if self.keeps_own:
            self.own = OwnLayers(None, None, None)
            for _ in self.come(scan, before, own):
                pass

    def appear(self) -> None:
        """Show what came unseen, or was hidden as another scan covered it."""
        for layer in (self.image, self.labels):
            if not layer.visible:
                layer.visible = True

    def name(self, scan: PreparedScan) -> None:
        """Give them their own names, which layers of the scan before may have had."""
        names = (scan.volume.name, LABELS_NAME, PREVIEW_NAME, POINTS_NAME, BOXES_NAME)
        for layer, name in zip((self.image, self.labels, *self.own), names, strict=True):
            if layer in self._put and layer in self._layers and layer.name != name:
                layer.name = name

    def go_again(self) -> None:
        """Take back what was put in."""
        for layer in reversed(self._put):
            if layer in self._layers:
                self._layers.remove(layer)
        self._put.clear()

    def _put_in(self, layer: Layer) -> Generator[None, None, Any]:
        yield from inserted_in_parts(self._viewer, layer, lambda: self._add(layer))
        return layer

    def _add(self, layer: Layer) -> None:
        """Under the own layers that are kept, else above all others."""
        place = self.own.lowest(self._layers) if self.keeps_own else len(self._layers)
        self._put.append(layer)
        insert_unselected(self._layers, place, layer)
