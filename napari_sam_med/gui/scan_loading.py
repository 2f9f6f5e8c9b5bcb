"""Opening scans and labels: from files and from layers, off the main thread."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, Signal

from napari_sam_med.errors import ImageError, LabelError, SamMedError
from napari_sam_med.gui.arrival import Arrival
from napari_sam_med.gui.contributions import ask_time
from napari_sam_med.gui.geometry_question import ask_form
from napari_sam_med.gui.layer_bridge import LayerBridge
from napari_sam_med.gui.planes import Frame
from napari_sam_med.gui.settings import Settings
from napari_sam_med.gui.slow_layers import clear_away, prepare_dims, prepare_units
from napari_sam_med.gui.window_names import kept_window, said_of_window
from napari_sam_med.gui.work_of_scan import said_of_orphan
from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.progress import Progress
from napari_sam_med.session import jobs
from napari_sam_med.session.jobs import PreparedScan, ScanSeen
from napari_sam_med.session.journal import SessionJournal
from napari_sam_med.session.left_work import LeftWork, fingerprint, go_on, leave
from napari_sam_med.session.new_labels import NewLabels, compare
from napari_sam_med.session.objects import Annotations
from napari_sam_med.session.session import Session
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.lazy_array import fits_memory
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.volume import Volume

__all__ = ["ScanLoading", "labels_of_layer"]

_Scan = TypeVar("_Scan", PreparedScan, ScanSeen)


class _Left(NamedTuple):
    """Work that was left for another scan, and the image layer that it is of."""

    of: weakref.ref[Image]
    work: LeftWork


class ScanLoading(QObject):
    """Brings scans and labels into the session.

    Signals
    -------
    opened
        The session works on another scan, or on other labels.
    names_offered : OrganTable
        The organs that were there before labels of a file that names none.
    failed : Exception
    status : str
    """

    opened = Signal()
    names_offered = Signal(object)
    failed = Signal(object)
    status = Signal(str)

    def __init__(
        self, session: Session, bridge: LayerBridge, workers: Workers, settings: Settings, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._bridge = bridge
        self._workers = workers
        self._settings = settings
        self._job: Job | None = None
        self._arrival: Arrival | None = None
        self._clearing: Iterator[None] | None = None
        #: what keeps the work; set by whoever made both
        self.journal: SessionJournal | None = None
        self._left: WeakKeyDictionary[Labels, _Left] = WeakKeyDictionary()
        prepare_units()
        workers.start(_import_tables(), "imports")

    @property
    def is_loading(self) -> bool:
        """Whether a scan is on its way, or one before it still being cleared away."""
        return self._job is not None or self._arrival is not None or self._clearing is not None

    def open(self, source: Path | Image, labels: Labels | None = None) -> None:
        """Open a file, or work on a layer; with labels of the user's, or new ones.

        Raises
        ------
        ImageError
            When the file is no scan.
        """
        if isinstance(source, Image):
            self.give_up()  # where empty labels were about to go, they go before they are worked on
            if labels not in self._bridge.viewer.layers:
                labels = None
            left = None if labels is None else self._left.get(labels)
            if left is not None and left.of() is not source:
                left = None  # it was work on another scan

            def returned(read: tuple[PreparedScan, str | None]) -> None:
                scan, seen = read
                same = _is_same_array(labels, scan.labels)
                self.bring(scan, lambda: self._go_on(scan, left, seen), source, same)

            self.start(_layers_then_scan(source, labels, left), returned)
            return
        reading = jobs.read_scan(source, ask_time(source))
        self.start(reading, lambda scan: self._on_read(scan, source), seen=self._on_seen)
        self._bridge.turns.add(self._preparing())

    def _preparing(self) -> Iterator[None]:
        if self._job is not None:  # else it has failed already
            yield from prepare_dims(self._bridge.viewer)

    def _on_seen(self, scan: ScanSeen) -> None:
        """Let a first scan be looked at before its labels and the layers to draw on are there."""
        if self._session.volume is None and scan.volume.grid.doubt is None:
            self._arrival = Arrival(self._bridge.viewer)
            self._bridge.turns.add(self._showing_early(self._arrival, self._in_chosen_window(scan)))

    def _showing_early(self, arrival: Arrival, scan: ScanSeen) -> Iterator[None]:
        showing = arrival.show_image(scan)
        while self._arrival is arrival:  # else given up
            if next(showing, self) is self:
                self._bridge.show_plane("axial")
                return
            yield

    def _on_read(self, scan: PreparedScan, path: Path) -> None:
        """Go on with a file that was read, if need be by the other form of its header."""
        try:
            form = ask_form(scan.volume)
        except SamMedError as error:
            self.failed.emit(error)
            return
        if form is None:
            self.bring(scan, lambda: self._work_on(scan))
            return
        again = jobs.read_scan(path, scan.volume.time, form)
        self.start(again, lambda other: self.bring(other, lambda: self._work_on(other)))

    def start(
        self,
        generator: Generator[Progress, None, Any],
        returned: Callable[[Any], object],
        failed: Callable[[Exception], object] | None = None,
        seen: Callable[[ScanSeen], object] | None = None,
    ) -> None:
        """Run a job that reads a scan, in the place of one that is under way."""
        if self._job is not None:
            self._job.discard()
        self.give_up()

        def yielded(progress: Progress) -> None:
            self.status.emit(f"{progress.text}…")
            if seen is not None and isinstance(progress, ScanSeen):
                seen(progress)

        job = self._workers.start(
            generator,
            "open scan",
            yielded=yielded,
            returned=returned,
            failed=failed or self.failed.emit,
            finished=lambda: self._on_finished(job),
        )
        self._job = job

    def _on_finished(self, job: Job) -> None:
        if job is self._job:
            self._job = None
            self.give_up()  # of a scan that failed after it was seen
            if not self._bridge.viewer.layers:
                self._bridge.viewer.dims.ndim = 2  # as in any empty viewer

    def bring(
        self,
        scan: PreparedScan,
        then: Callable[[], object],
        image: Image | None = None,
        labels: Labels | None = None,
        failed: Callable[[Exception], object] | None = None,
        *,
        is_certain: bool = True,
    ) -> None:
        """Put the layers of a scan into the viewer, and go on with ``then``; until then, or `give_up`, the
        scan before is worked on. It is not certain that it will be left where ``then`` may ask the user.
        """
        self._job = None
        if self._arrival is None:
            self._arrival = Arrival(self._bridge.viewer, image, labels)
        bringing = self._bringing(self._arrival, scan, then, failed or self.failed.emit, is_certain)
        self._bridge.turns.add(bringing)

    def _bringing(
        self,
        arrival: Arrival,
        scan: PreparedScan,
        then: Callable[[], object],
        failed: Callable[[Exception], object],
        is_certain: bool,
    ) -> Iterator[None]:
        bridge = self._bridge
        before = None if bridge.image_layer is None else bridge.frame
        coming = arrival.come(self._in_chosen_window(scan), before, bridge.own_layers)
        try:
            while self._arrival is arrival:  # else given up
                if arrival.was_disturbed:
                    raise ImageError(
                        f"{scan.volume.name} was not opened, because a layer of it was removed before all of "
                        "them were there; open it again."
                    )
                if next(coming, self) is self and not (is_certain and self._takes_box(arrival)):
                    then()
                    return
                yield
        except Exception as error:  # noqa: BLE001  shown to the user; the scan before stays
            self.give_up()
            failed(error)

    def _takes_box(self, arrival: Arrival) -> bool:
        """Let boxes be drawn, as in the scan that is about to come, a turn before it where that goes."""
        bridge = self._bridge
        if not arrival.keeps_own or bridge.viewer.dims.ndisplay == 3 or bridge.tool == "box":
            return False
        if bridge.boxes_layer is None or bridge.prompts.is_half_drawn:  # napari would end a shape with it
            return False
        bridge.set_tool("box")
        return bridge.tool == "box"

    def give_up(self) -> None:
        """Leave no layer of a scan that was on its way, nor of one that was left for good."""
        arrival, self._arrival = self._arrival, None
        clearing, self._clearing = self._clearing, None
        if arrival is not None:
            arrival.go_again()
        for _ in clearing or ():
            pass

    def has_brought(self, scan: PreparedScan) -> bool:
        """Whether the layers of a scan are there, and wait for `show_case`."""
        arrival = self._arrival
        return arrival is not None and arrival.volume is scan.volume and not arrival.was_disturbed

    def show_case(self, scan: PreparedScan, *, replaces: bool) -> None:
        """Work on a case of a work list that was brought; the layers of the one before are removed, of
        another scan hidden.
        """
        bridge = self._bridge
        earlier = [layer for layer in (bridge.labels_layer, bridge.image_layer) if layer is not None]
        self._work_on(scan, earlier if replaces else ())

    def _go_on(self, scan: PreparedScan, left: _Left | None, seen: str | None) -> None:
        """Work on a scan of the viewer; on one that was left for another, as it was left."""
        orphans = self._work_on(scan)
        if left is None or self.journal is None:
            return
        is_as_left = seen == left.work.seen
        go_on(self._session, self.journal, left.work, is_as_left=is_as_left)
        what = (
            "labels, prompts and objects are as you left them."
            if is_as_left
            else "its labels were changed while another scan was open, and stay as they are now."
        )
        self.status.emit(" ".join([f"{scan.volume.name}: {what}", *orphans, *scan.volume.warnings]))

    def left_here(self, journal: Path) -> Image | None:
        """The image to be chosen to go on with the work of a journal, which was left for another scan."""
        for labels, left in self._left.items():
            image = left.of()
            if left.work.place.path == journal and image is not None and image in self._bridge.viewer.layers:
                return image if self._bridge.labels_of_work(image) is labels else None
        return None

    def _leave(self) -> _Left | None:
        """Keep the work on the scan that is open for when it is chosen again."""
        bridge = self._bridge
        if self.journal is None or self._session.labels is None or bridge.labels_layer is None:
            return None
        left = _Left(weakref.ref(bridge.image_layer), leave(self._session, self.journal))
        self._left[bridge.labels_layer] = left
        return left

    def _work_on(self, scan: PreparedScan, leaving: Sequence[Layer] = ()) -> list[str]:
        """Let the session work on a scan that was brought; answers what is said of labels hidden for it."""
        bridge, arrival = self._bridge, self._arrival
        before = None if bridge.image_layer is None else bridge.frame
        arrival.make_up(scan, before, bridge.own_layers)
        self._arrival = None
        scan = self._in_chosen_window(scan) if arrival.is_new else scan
        # of the scan before: an image below the new one costs time with every slice, one above covers it
        earlier = [bridge.labels_layer, bridge.image_layer]
        left = None if bridge.labels_layer in leaving else self._leave()
        self._left.pop(arrival.labels, None)
        bridge.let_go_of_image()
        self._session.close()
        self._session.open(scan.volume, scan.labels, scan.window, scan.counts, scan.copy)
        own, labels = bridge.show(scan, arrival)
        kept = (None, arrival.image, arrival.labels, *leaving)
        # labels whose image was removed would seem to be of this scan
        of_none = {one: said_of_orphan(one, bridge.viewer.layers) for one in bridge.layers_of_type(Labels)}
        orphans = [one for one, said in of_none.items() if said and one.visible and one not in kept]
        hidden = [one for one in dict.fromkeys([*earlier, *orphans]) if one not in kept]
        # labels before their image; the other way round, software OpenGL crashed
        if labels in (*leaving, arrival.labels):
            labels = None
        gone = clear_away(bridge.viewer, [*own, *leaving], labels)
        self._clearing = self._clear(hidden, gone, (scan, arrival), (earlier[0], left))
        bridge.turns.add(self._clearing)
        if arrival.is_new or bridge.current_view() is None:
            bridge.show_plane("axial")
        bridge.set_tool("box")
        self.opened.emit()
        told = [of_none[one] for one in orphans]
        said = said_of_window(scan.volume, scan.window, self._settings.window)
        ready = f"Scan ready{said and f' ({said})'}: draw a box on an organ."
        *warnings, last = scan.volume.warnings or (ready,)
        for warning in warnings:
            self.status.emit(warning)
        self.status.emit(" ".join([last, *told]))
        return told

    def _clear(
        self,
        hidden: Sequence[Layer],
        gone: Iterator[None],
        come: tuple[PreparedScan, Arrival],
        before: tuple[Labels | None, _Left | None],
    ) -> Iterator[None]:
        """Show what came; hide what is left of the scan before, since what is seen is what is exported, or
        remove it.
        """
        scan, arrival = come
        labels, left = before
        try:
            arrival.appear()
            yield
            for layer in hidden:
                layer.visible = False
                yield
            yield from gone
            arrival.name(scan)
            if left is not None and labels in self._bridge.viewer.layers:
                left.work.seen = yield from fingerprint(labels.data)
            elif left is not None:
                self._left.pop(labels, None)
        finally:
            self._clearing = None

    def _in_chosen_window(self, scan: _Scan) -> _Scan:
        """A scan in the preset that was chosen last, if that is for it."""
        window = kept_window(scan.volume, self._settings.window)
        return scan if window is None else replace(scan, window=window)

    def open_labels_file(self, path: Path, put: Callable[[NewLabels, str, Annotations], object]) -> None:
        """Read labels from a file, and let ``put`` put them in the place of those there are.

        Raises
        ------
        LabelError
            When there is no scan that they could belong to.
        """
        volume, labels = self._session.volume, self._session.labels
        if volume is None or labels is None:
            raise LabelError("Labels belong to a scan: open the scan first, then its labels.")

        def returned(read: tuple[LabelVolume, NewLabels]) -> None:
            self._job = None
            if self._session.labels is labels:  # else the scan was removed meanwhile
                self._on_labels_read(path, *read, put)

        self.start(_labels_then_compared(path, volume, labels), returned)

    def _on_labels_read(
        self,
        path: Path,
        read: LabelVolume,
        new: NewLabels,
        put: Callable[[NewLabels, str, Annotations], object],
    ) -> None:
        session = self._session
        former, active = session.organs, session.active_class_id
        if active not in read.organs:
            active = next(iter(read.organs), 1)
        put(new, f"Open {path.name}", Annotations(read.organs, {}, active, None))
        if self._bridge.labels_layer is None:
            self._bridge.show_labels_again()
        self.opened.emit()
        for warning in read.warnings:
            self.status.emit(warning)
        self.status.emit(f"{path.name} is open. Ctrl-Z brings the labels back that were there.")
        if any(i in former for i in read.organs) and all(
            organ.name == f"label {i}" for i, organ in read.organs.items()
        ):
            self.names_offered.emit(former)  # the file says no names, and these may be others'


def _import_tables() -> Generator[None, None, None]:
    """What napari imports for the first labels: 0.15 s."""
    importlib.import_module("pandas")
    yield


def _layers_then_scan(
    image: Image, labels: Labels | None, left: _Left | None
) -> Generator[Progress, None, tuple[PreparedScan, str | None]]:
    """The scan of a layer, and the fingerprint of its labels where it was left before."""
    yield Progress(0, 1, f"looking at {image.name}")
    volume = Volume.from_layer(image)
    # what the user sees is kept where it comes from here; napari's own guess of a window shows no organs
    is_ours = left is not None or isinstance(image.metadata.get("sam_med"), Volume)
    window = (float(image.contrast_limits[0]), float(image.contrast_limits[1])) if is_ours else None
    given = None if labels is None else labels_of_layer(labels, volume)
    scan = yield from jobs.prepare_scan(volume, given, window)
    return scan, None if left is None else (yield from fingerprint(scan.labels.data))


def _labels_then_compared(
    path: Path, volume: Volume, over: LabelVolume
) -> Generator[Progress, None, tuple[LabelVolume, NewLabels]]:
    labels = yield from jobs.open_labels(path, volume)
    labels.organs = labels.organs.covering(labels.class_ids())
    return labels, (yield from compare(labels.data, over))


def labels_of_layer(layer: Labels, volume: Volume) -> LabelVolume:
    """Labels of a layer on the grid of a scan; the layer's own array where its type allows it.

    Raises
    ------
    LabelError
        When they lie on another grid, or have numbers that are none of labels.
    """
    known = layer.metadata.get("sam_med")
    data = layer.data
    if tuple(data.shape) != volume.shape:
        raise LabelError(
            f"The labels {layer.name!r} have shape {tuple(data.shape)}, but the scan has {volume.shape}; "
            'open them with "Open labels", which places them by their geometry.'
        )
    if not _lies_on(layer, volume):
        raise LabelError(
            f"The labels {layer.name!r} lie elsewhere than the scan, or have other voxels; "
            'open them with "Open labels", which places them by their geometry.'
        )
    if isinstance(known, LabelVolume) and known.data is data and known.grid is volume.grid:
        return known
    organs = known.organs if isinstance(known, LabelVolume) else OrganTable.btcv()
    if not isinstance(data, np.ndarray) or data.dtype not in (np.uint8, np.uint16):
        if not fits_memory(2 * int(np.prod(data.shape, dtype=np.int64))):
            raise LabelError(
                f"The labels {layer.name!r} are larger than memory and read from the disk, where nothing can "
                'be written; export them as OME-Zarr and open that with "Open labels".'
            )
        array = np.asarray(data)
        highest = int(array.max(initial=0))
        if int(array.min(initial=0)) < 0 or highest > 65535:
            raise LabelError(f"The labels {layer.name!r} have numbers outside 0 to 65535; renumber them.")
        data = array.astype(np.uint8 if highest < 256 else np.uint16)
    return LabelVolume(data, volume.grid, organs, header=volume.header, path=volume.path)


def _lies_on(layer: Labels, volume: Volume) -> bool:
    """Whether a layer of a scan's shape shows each voxel where the scan has it, to a fifth of a voxel."""
    known = layer.metadata.get("sam_med")
    if isinstance(known, LabelVolume) and not known.grid.same_voxels_as(volume.grid):
        return False
    frame = Frame(volume.display_transform, volume.shape)
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(volume.shape) - 1)
    shown = np.array([layer.data_to_world(corner) for corner in corners])[:, -3:]
    allowed = 0.2 * np.linalg.norm(frame.world(np.eye(3)) - frame.world(np.zeros(3)), axis=1).min()
    return bool(np.linalg.norm(shown - frame.world(corners), axis=1).max() <= allowed)


def _is_same_array(layer: Labels | None, labels: LabelVolume) -> Labels | None:
    return layer if layer is not None and layer.data is labels.data else None
