"""The review bar: always in sight below the panels, with the strip and the way through doubtful slices."""

from __future__ import annotations

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import button, row
from napari_sam_med.gui.review_strip import ReviewStrip, StripContent, StripSlice
from napari_sam_med.segmentation.review import NATURAL_ENDS
from napari_sam_med.session.objects import AnnotatedObject, SliceMask
from napari_sam_med.session.review import plane_of
from napari_sam_med.volume.slice_view import PLANES, SliceView

__all__ = ["ReviewBar"]

_REDRAW_MS = 50
_SOURCES = {
    "prompt": "key slice, accepted",
    "edited": "key slice, painted or taken for right",
    "propagated": "carried",
    "interpolated": "filled between key slices",
}


class ReviewBar(QWidget):
    """Quality of the active object's slices, the next doubtful one, and the word that one is right."""

    def __init__(self, actions: Actions) -> None:
        super().__init__()
        self._session = actions.session
        self._bridge = actions.bridge
        self.strip = ReviewStrip()
        self.strip.chosen.connect(self._go_to)
        self.next = button(
            "Next doubtful  N",
            "Go to the slice where the largest error is expected (N); again: the one after it.\n"
            "Expected error: the area of a mask times its doubt, 1 – quality, over a run of slices. So a\n"
            "large slice of fair quality may come before a small one that the strip shows in red.",
            actions.reviewing.go_to_next,
        )
        self.right = button(
            "This slice is right",
            "Take the mask on this slice for right as it is (Shift-N): it becomes a key slice.\n"
            "Where carrying stopped: the object ends here.",
            actions.reviewing.accept_slice,
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 6, 0)
        layout.setSpacing(3)
        layout.addWidget(self.strip)
        layout.addLayout(row(self.next, self.right))
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REDRAW_MS)
        self._timer.timeout.connect(self.refresh)
        events = actions.session.events
        for signal in (events.objects, events.active_object_id, events.volume):
            signal.connect(self._later)
        actions.bridge.view_changed.connect(self._later)
        self.refresh()

    def _later(self, *_: object) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def refresh(self) -> None:
        """Show the active object as it is."""
        item = self._session.active_object
        has_masks = item is not None and bool(item.masks)
        self.strip.show_content(self._content(item) if has_masks else _nothing(item))
        self.next.setEnabled(has_masks)
        self.right.setEnabled(has_masks)

    def _content(self, item: AnnotatedObject) -> StripContent:
        plane, volume, here = plane_of(item), self._session.volume, self._bridge.current_view()
        ends = {}
        for direction, stop in item.stops.items():
            if stop.view.plane == plane:
                is_sure = stop.reason in NATURAL_ENDS or stop.view in item.confirmed_ends
                ends[stop.view.index] = (direction, is_sure, f"Carrying ended here: {stop.reason}")
        return StripContent(
            n_slices=0 if volume is None else volume.shape[PLANES.index(plane)],
            slices={view.index: _shown(mask) for view, mask in item.masks.items() if view.plane == plane},
            ends=ends,
            caption=f"{item.name}, {plane}",
            current=here.index if here is not None and here.plane == plane else None,
        )

    def _go_to(self, index: int) -> None:
        item = self._session.active_object
        plane = None if item is None else plane_of(item)
        if plane is not None:
            self._bridge.go_to(SliceView(plane, index))


def _shown(mask: SliceMask) -> StripSlice:
    source = _SOURCES[mask.source]
    quality = None if mask.is_key else mask.quality
    text = source if quality is None else f"quality {quality:.2f}, {source}"
    return StripSlice(quality, mask.is_key, text)


def _nothing(item: AnnotatedObject | None) -> StripContent:
    return StripContent(caption="no object chosen" if item is None else f"{item.name}: nothing accepted yet")
