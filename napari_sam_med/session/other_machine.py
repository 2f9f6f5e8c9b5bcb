"""Another machine that embeds images for one annotator: a scheduler's address, reached and left again."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING

from napari_sam_med.cluster.workers import Cluster, connect
from napari_sam_med.errors import ClusterError
from napari_sam_med.progress import Progress

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.segmentation.remote_predictor import RemotePredictor

__all__ = ["OtherMachine", "reach"]

_POLL_SECONDS = 0.1


class OtherMachine:
    """The workers of a scheduler, as long as they are there.

    Attributes
    ----------
    address, dashboard : str
        Of the scheduler; the dashboard's is empty where there is none.
    workers, gpus : int
        Workers when it was reached, and those that said that they have a GPU.
    """

    def __init__(self, cluster: Cluster, address: str) -> None:
        self._cluster = cluster
        self.address = address
        self.dashboard = cluster.dashboard
        self.workers, self.gpus = cluster.count()

    @property
    def is_connected(self) -> bool:
        """Whether the scheduler is there, as far as is known without asking it."""
        return self._cluster.is_connected

    def predictor_of(self, here: Predictor, model: str, on_lost: Callable[[str], object]) -> RemotePredictor:
        """A predictor, loaded by the name or path `model`, that embeds there; see `RemotePredictor`."""
        from napari_sam_med.segmentation.remote_predictor import RemotePredictor

        return RemotePredictor(here, model, self._cluster, on_lost)

    def close(self) -> threading.Thread:
        """Leave it, on a thread of its own, as a silent scheduler is waited for; returns the thread."""
        thread = threading.Thread(target=self._cluster.close, name="sam-med farewell", daemon=True)
        thread.start()
        return thread


def reach(address: str) -> Generator[Progress, None, OtherMachine]:
    """Connect to the scheduler at an address, a job; closing it leaves what is reached later.

    Raises
    ------
    ClusterError
        As from `connect`.
    """
    answers: queue.Queue[OtherMachine | Exception] = queue.Queue()
    is_abandoned = threading.Event()

    def leave_if_reached() -> None:
        with suppress(queue.Empty):
            answer = answers.get_nowait()
            if isinstance(answer, OtherMachine):
                answer.close()

    def run() -> None:
        try:
            cluster = connect(address)
            try:
                answers.put(OtherMachine(cluster, address))
            except ClusterError:
                cluster.close()
                raise
        except Exception as error:  # noqa: BLE001  it is raised again on the job's own thread
            answers.put(error)
        if is_abandoned.is_set():
            leave_if_reached()

    threading.Thread(target=run, name="sam-med connect", daemon=True).start()
    try:
        while True:
            yield Progress(0, 0, f"connecting to {address}")
            with suppress(queue.Empty):
                answer = answers.get(timeout=_POLL_SECONDS)
                if isinstance(answer, Exception):
                    raise answer
                return answer
    except GeneratorExit:
        is_abandoned.set()
        leave_if_reached()
        raise
