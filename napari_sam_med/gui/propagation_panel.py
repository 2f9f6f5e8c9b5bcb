"""Section 5, Carry through slices: from the key slices through the volume, and what mends the result."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QCheckBox, QFileDialog, QSpinBox

from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import Section, button, combo, labelled, note, row
from napari_sam_med.gui.carrying import Extent
from napari_sam_med.gui.clean_up_menu import CleanUpMenu
from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.video_extra import is_available
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["PropagationPanel"]

_DIRECTIONS = {
    "both": ("Both directions", ("forward", "backward")),
    "forward": ("Forward (higher slices)", ("forward",)),
    "backward": ("Backward (lower slices)", ("backward",)),
}
_CHOOSE = "choose"
_VIDEO_MODELS = "Video models (*.pt *.safetensors config.json);;All files (*)"
_ENGINES = (
    "What carries the mask. Slice by slice: the model chosen above. Video: SAM 2.1 or MedSAM2,\n"
    "with a memory of the slices that it passed; after a correction it does all slices anew."
)
_NO_VIDEO = (
    "Masks are carried by the model chosen above. Carrying as through a video (SAM 2.1, MedSAM2)\n"
    "needs the package transformers, which is not installed:\n"
    'pip install "napari-sam-med[video]", then start napari again.'
)


class PropagationPanel(Section):
    """Start carrying, and read what came of it; the status line shows and cancels it."""

    def __init__(self, actions: Actions) -> None:
        super().__init__(5, "Carry through slices")
        self._actions = actions
        self._video = actions.carrying.video
        has_video = is_available()
        self.engines = combo(_ENGINES if has_video else _NO_VIDEO)
        self.engines.setEnabled(has_video)
        self.engines.activated.connect(self._on_engine)
        self.add(labelled("Engine", self.engines))
        self.directions = combo(
            "Which way to go from the key slices; between key slices it always goes both ways."
        )
        for key, (title, _) in _DIRECTIONS.items():
            self.directions.addItem(title, key)
        self.add(labelled("Direction", self.directions))
        self.all_objects = QCheckBox("All objects")
        self.all_objects.setToolTip("Carry every object that has a key slice and is not locked, in one pass.")
        self.limited = QCheckBox("Only slices")
        self.limited.setToolTip("Leave slices outside this range as they are.")
        self.first, self.last = _slice_box("First slice that may be filled"), _slice_box("Last slice")
        self.limited.toggled.connect(self._on_limited)
        self.add(self.all_objects)
        self.add(row(self.limited, self.first, self.last))
        self.start = button(
            "Carry through slices  G",
            "Carry the mask from slice to slice (G). A mask that is still proposed is accepted first, as an\n"
            "undo step of its own; in 3-D, where it cannot be seen, it has to be accepted before.",
            self.carry,
        )
        self.add(self.start)
        self.fill = button(
            "Fill between",
            "Fill the slices between two key slices by their shapes alone; no model is asked.",
            lambda: actions.carrying.fill(self.extent),
        )
        self.snap = button(
            "Snap",
            "Fill the slices between two key slices by their shapes, and let the model pull them to the "
            "borders in the image.",
            lambda: actions.carrying.snap(self.extent),
        )
        self.clean_up = button(
            "Clean up", "Put the shape in order, or erase; each is one undo step.", lambda: None
        )
        self.clean_up_menu = CleanUpMenu(actions, self.clean_up)
        self.clean_up.setMenu(self.clean_up_menu)
        self.add(row(self.fill, self.snap, self.clean_up))
        self.report = note()
        self.add(self.report)
        self._video.changed.connect(self._on_video)
        actions.progress.connect(self._on_progress)
        actions.carrying.carried.connect(self._on_carried)
        actions.bridge.view_changed.connect(self._on_view)
        actions.scans.opened.connect(lambda: self._on_carried(""))
        actions.session.events.volume.connect(lambda *_: self._on_progress(None))
        self._on_video()
        self._on_limited(False)
        self._on_progress(None)

    @property
    def extent(self) -> Extent:
        """The choices made here."""
        _, directions = _DIRECTIONS[self.directions.currentData()]
        first, last = sorted((self.first.value(), self.last.value()))
        is_limited = self.limited.isChecked()
        return Extent(
            directions,
            self.all_objects.isChecked(),
            first if is_limited else None,
            last if is_limited else None,
        )

    def carry(self) -> None:
        """Carry with the choices made here."""
        self._actions.carrying.carry(self.extent)

    def _on_engine(self, index: int) -> None:
        chosen = self.engines.itemData(index)
        if chosen == _CHOOSE:
            now = "" if self._video.path is None else str(self._video.path)
            chosen, _ = QFileDialog.getOpenFileName(self, "Open a video model", "", _VIDEO_MODELS)
            chosen = chosen or now
        self._video.choose(Path(chosen) if chosen else None)

    def _on_video(self) -> None:
        """List the engines, and remember a model that could be loaded."""
        video, settings = self._video, self._actions.settings
        path = "" if video.path is None else str(video.path)
        if video.engine is not None and path != settings.video_model:
            settings.remember(video_model=path)
        listed = path or settings.video_model
        entries = {listed: f"video: {Path(listed).name}"} if listed else {}
        entries = {"": "slice by slice", **entries, _CHOOSE: "video: choose a file…"}
        if [self.engines.itemData(i) for i in range(self.engines.count())] != list(entries):
            self.engines.clear()  # only then: the list may be open while a model loads
            for key, text in entries.items():
                self.engines.addItem(text, key)
        self.engines.setCurrentIndex(self.engines.findData(path))

    def _on_limited(self, is_limited: bool) -> None:
        self.first.setEnabled(is_limited)
        self.last.setEnabled(is_limited)

    def _on_view(self, view: SliceView | None) -> None:
        volume = self._actions.session.volume
        if view is None or volume is None or self.limited.isChecked():
            return
        n_slices = volume.shape[view.axis]
        for box in (self.first, self.last):
            box.setRange(0, n_slices - 1)
        self.first.setValue(0)
        self.last.setValue(n_slices - 1)

    def _on_progress(self, progress: Progress | None) -> None:
        has_scan = self._actions.session.volume is not None
        for made in (self.start, self.fill, self.snap):
            made.setEnabled(progress is None and has_scan)
        self.clean_up.setEnabled(has_scan)

    def _on_carried(self, report: str) -> None:
        self.report.setText(report)
        self.report.setVisible(bool(report))


def _slice_box(tip: str) -> QSpinBox:
    made = QSpinBox()
    made.setToolTip(tip)
    made.setRange(0, 0)
    return made
