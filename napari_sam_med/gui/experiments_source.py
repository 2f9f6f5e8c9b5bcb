"""What an experiment is measured on: the image and labels that are chosen, and what the labels show."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from qtpy.QtCore import QObject, QTimer, Signal

from napari_sam_med.gui.experiments_layers import ExperimentLayers
from napari_sam_med.gui.scan_loading import labels_of_layer
from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.progress import Progress
from napari_sam_med.session import experiment_jobs
from napari_sam_med.session.experiment_jobs import ExperimentStep, Request
from napari_sam_med.session.experiments import Choice, Laboratory, Source, Survey
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import Plane
from napari_sam_med.volume.volume import Volume

if TYPE_CHECKING:
    from napari_sam_med.gui.actions import Actions
    from napari_sam_med.session.jobs import LoadedModel

__all__ = ["ExperimentSource", "measured"]

_SURVEY_MS = 500
"""Rest after a stroke before the labels are looked through again."""


@dataclass(frozen=True)
class _Wanted:
    """What a survey was made of."""

    image: Image | None
    labels: Labels | None
    planes: tuple[Plane, ...]
    min_area: int


class ExperimentSource(QObject):
    """The chosen layers; looks through the labels again when they, or what is wanted of them, change.

    Attributes
    ----------
    image, labels : layers or None
    source : Source or None
        They, once they were looked through and fit each other. The labels are the layer's own.

    Signals
    -------
    changed
    layers_changed
        The layers that can be chosen.
    status : str
    failed : Exception
    """

    changed = Signal()
    layers_changed = Signal()
    status = Signal(str)
    failed = Signal(object)

    def __init__(
        self,
        lab: Laboratory,
        layers: ExperimentLayers,
        workers: Workers,
        main_actions: Callable[[], Actions | None],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self.image: Image | None = None
        self.labels: Labels | None = None
        self.source: Source | None = None
        self._lab = lab
        self._layers = layers
        self._workers = workers
        self._main_actions = main_actions
        self._wanted: _Wanted | None = None
        self._watched: tuple[Labels, LabelVolume | None] | None = None
        self._surveying: Job | None = None
        self._follows = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SURVEY_MS)
        self._timer.timeout.connect(self._survey)
        layers.listen(self._on_layers)

    def choose_likely(self) -> None:
        """Take the open scan with its labels; else the topmost layers that go together."""
        self.choose_layers(*self._likely_layers())

    def _on_layers(self) -> None:
        viewer = self._layers.viewer
        if viewer is None:
            return
        if self._follows and self._open_image() not in (None, self.image):
            self.choose_likely()  # another scan was opened in the SAM Med widget
        there = list(viewer.layers)
        image = self.image if self.image in there else None
        labels = self.labels if self.labels in there else None
        if image is None or labels is None:
            likely_image, likely_labels = self._likely_layers()
            image = image or likely_image
            labels = labels or (likely_labels if image is likely_image else None)
        self.choose_layers(image, labels)
        self.layers_changed.emit()

    def choose_layers(self, image: Image | None, labels: Labels | None) -> None:
        """Take an image, and labels that are taken for the truth."""
        if (image, labels) != (self.image, self.labels):
            self.image, self.labels = image, labels
            self._watch(labels)
            self._resurvey()
            self.changed.emit()
        self._follows = image is not None and image is self._open_image()

    def _open_image(self) -> Image | None:
        """The scan that is worked on in the SAM Med widget."""
        actions = self._main_actions()
        return None if actions is None else actions.bridge.image_layer

    def _likely_layers(self) -> tuple[Image | None, Labels | None]:
        """The open scan with its labels; else the topmost layers that go together."""
        actions = self._main_actions()
        bridge = None if actions is None else actions.bridge
        image = None if bridge is None else bridge.image_layer
        worked_on = None if bridge is None else bridge.labels_layer
        if image is None:
            image = next((one for one in self._layers.layers_of_type(Image) if not one.rgb), None)
        if image is None:
            return None, None
        if worked_on is not None and bridge.session.has_labels:
            return image, worked_on
        others = [one for one in self._layers.layers_of_type(Labels) if one.data.shape == image.data.shape]
        return image, next((one for one in others if one is not worked_on), worked_on)

    def refresh(self) -> None:
        """Look through the labels again if something else is wanted of them."""
        if self._wanted is not None and self._wanted != self._now_wanted():
            self._resurvey()

    def _watch(self, labels: Labels | None) -> None:
        self._unwatch()
        if labels is not None:
            for event in _edits(labels):
                event.connect(self._on_painted)
            known = labels.metadata.get("sam_med")
            kept = known if isinstance(known, LabelVolume) else None
            if kept is not None:
                kept.changed.connect(self._on_painted)
            self._watched = (labels, kept)

    def _unwatch(self) -> None:
        if self._watched is not None:
            labels, kept = self._watched
            for event in _edits(labels):
                event.disconnect(self._on_painted)
            if kept is not None:
                kept.changed.disconnect(self._on_painted, missing_ok=True)
        self._watched = None

    def _on_painted(self, *_: object) -> None:
        self._timer.start()

    def _now_wanted(self) -> _Wanted:
        choice = self._lab.choice
        return _Wanted(self.image, self.labels, choice.planes, choice.min_area)

    def _resurvey(self) -> None:
        self.source, self._lab.survey = None, None
        self._survey()

    def _survey(self) -> None:
        """Look through the labels, in the place of an earlier look."""
        self._timer.stop()
        if self._surveying is not None:
            self._surveying.discard()
        self._surveying = None
        self._wanted = self._now_wanted()
        if self.image is None or self.labels is None or not self._wanted.planes:
            return
        job = self._workers.start(
            _surveyed(self._wanted),
            "survey",
            is_background=True,
            returned=self._on_survey,
            failed=self.failed.emit,
            finished=lambda: self._on_survey_ended(job),
        )
        self._surveying = job

    def _on_survey(self, found: tuple[Source, Survey]) -> None:
        self.source, self._lab.survey = found
        for warning in self.source.labels.warnings:
            self.status.emit(warning)

    def _on_survey_ended(self, job: Job) -> None:
        if job is self._surveying:
            self._surveying = None
            self.changed.emit()

    @property
    def is_surveying(self) -> bool:
        """Whether the labels are being looked through."""
        return self._surveying is not None

    def stop(self) -> None:
        """Listen no more, and let go of the layers."""
        self._timer.stop()
        self._unwatch()
        self.image = self.labels = self.source = self._wanted = None


def measured(
    image: Image, labels: Labels, choice: Choice, device: str, loaded: Mapping[str, LoadedModel]
) -> Generator[ExperimentStep, None, None]:
    """A run on a copy of the labels, as painting goes on meanwhile; a copy of a CT takes a second.

    Raises
    ------
    ImageError, LabelError
        When the layers cannot be used, or do not go together; others as `experiment_jobs.run`.
    """
    yield ExperimentStep(Progress(0, 0, "copying the labels"))
    volume = Volume.from_layer(image)
    own = labels_of_layer(labels, volume)
    copy = LabelVolume(own.data.copy(), own.grid, own.organs, header=own.header, path=own.path)
    copy.organs = copy.organs.covering(copy.class_ids())
    yield from experiment_jobs.run(Request(Source(volume, copy), choice, device, loaded))


def _surveyed(wanted: _Wanted) -> Generator[Progress, None, tuple[Source, Survey]]:
    yield Progress(0, 1, "looking at the layers")
    volume = Volume.from_layer(wanted.image)
    labels = labels_of_layer(wanted.labels, volume)
    source = Source(volume, labels)
    return source, (yield from experiment_jobs.survey(labels, wanted.planes, wanted.min_area))


def _edits(labels: Labels) -> tuple[Any, ...]:
    """Events of a layer after which its labels are others; napari tells of an undo by the second alone."""
    return labels.events.paint, labels.events.labels_update, labels.events.data
