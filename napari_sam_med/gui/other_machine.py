"""The machine at the other end: reaching it, embedding images there, and coming back when it is lost."""

from __future__ import annotations

from collections.abc import Generator

from qtpy.QtCore import QObject, QTimer, Signal

from napari_sam_med.errors import SamMedError
from napari_sam_med.gui.live_model import LiveModel
from napari_sam_med.gui.settings import Settings
from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.progress import Progress
from napari_sam_med.session import other_machine
from napari_sam_med.session.other_machine import OtherMachine

__all__ = ["ComputingElsewhere"]

_LOOK_MS = 2000
"""How often it is looked whether the connection still stands, which costs nothing."""
_FAREWELL_SECONDS = 1.0


class ComputingElsewhere(QObject):
    """One scheduler at a time, whose workers embed the images of this widget's model.

    Signals
    -------
    changed
        Of `machine`, `is_connecting` or `trouble`.
    status : str
        What is happening, for people.
    lost : str
        That images are embedded here again, and why; to be said aloud.
    failed : Exception
        It could not be reached.
    """

    changed = Signal()
    status = Signal(str)
    lost = Signal(str)
    failed = Signal(object)
    _found_lost = Signal(object, str)

    def __init__(
        self, workers: Workers, model: LiveModel, settings: Settings, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._workers = workers
        self._model = model
        self._settings = settings
        self._connecting: Job | None = None
        self.machine: OtherMachine | None = None
        #: why it was not reached, or lost; empty where nothing is to be said
        self.trouble = ""
        self._found_lost.connect(self._on_lost)  # found by a thread that embeds, handled on this one
        self._look_timer = QTimer(self)
        self._look_timer.setInterval(_LOOK_MS)
        self._look_timer.timeout.connect(self._look)

    @property
    def is_connecting(self) -> bool:
        """Whether an answer of a scheduler is waited for."""
        return self._connecting is not None

    def reach(self, address: str) -> None:
        """Connect to the scheduler at an address, and embed there once its workers are known."""
        self.leave()
        self._settings.remember(scheduler=address)
        self.status.emit(f"connecting to {address}…")
        reached: list[OtherMachine] = []

        def connecting() -> Generator[Progress, None, OtherMachine]:
            reached.append((yield from other_machine.reach(address)))
            return reached[0]

        self._connecting = job = self._workers.start(
            connecting(),
            "connect",
            returned=self._on_reached,
            failed=self._on_failed,
            finished=lambda: self._on_ended(job, reached),
        )
        self.changed.emit()

    def leave(self) -> None:
        """Embed here from now on; a connection, or the attempt at one, is given up."""
        if self._connecting is not None:
            self._connecting.discard()
            self._connecting = None
            self.status.emit("Cancelled")
        elif self.machine is not None:
            self._let_go()
            self.status.emit("Computing on this machine.")
        self.trouble = ""
        self.changed.emit()

    def _on_reached(self, machine: OtherMachine) -> None:
        self.machine = machine
        self._look_timer.start()
        self._model.embed_on(machine, lambda text: self._found_lost.emit(machine, text))
        self.status.emit(f"Connected to {machine.address}: slices are embedded there.")

    def _on_failed(self, error: Exception) -> None:
        self.trouble = str(error) if isinstance(error, SamMedError) else ""
        self.failed.emit(error)

    def _on_ended(self, job: Job, reached: list[OtherMachine]) -> None:
        for machine in reached:
            if machine is not self.machine:  # the attempt was given up when it had just succeeded
                machine.close()
        if job is self._connecting:
            self._connecting = None
            self.changed.emit()

    def _look(self) -> None:
        if self.machine is not None and not self.machine.is_connected:
            address = self.machine.address
            self._on_lost(self.machine, f"The connection to {address} was lost; computing on this machine.")

    def _on_lost(self, machine: OtherMachine, text: str) -> None:
        if machine is self.machine:
            self._let_go()
            self.trouble = text
            self.lost.emit(text)
            self.changed.emit()

    def _let_go(self) -> None:
        self._look_timer.stop()
        machine, self.machine = self.machine, None
        self._model.embed_on(None)
        if machine is not None:
            machine.close()

    def stop(self) -> None:
        """Leave for the end of the widget; what embeds must have ended."""
        self._look_timer.stop()
        if self.machine is not None:
            self.machine.close().join(_FAREWELL_SECONDS)
            self.machine = None
