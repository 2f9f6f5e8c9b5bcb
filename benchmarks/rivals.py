"""What rivals and we do with the same weights and the same scan, each in its own environment.

A rival runs in another Python, because its dependencies are none of ours: a process that loads the model
once, does a job when it is told to, and times it itself (`rival_serving`). How to make that environment, and
what was found: docs/rivals.md.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.rival_serving import Answer, Job, timed
from napari_sam_med import Predictor, Prompts, SliceView, Volume, propagate, read_volume, to_rgb
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sample_data import sample_volume
from napari_sam_med.segmentation.slicewise import embed_slice, predict_slice
from napari_sam_med.segmentation.volume_embedding import embed_volume
from napari_sam_med.volume.grid import Grid

__all__ = [
    "ENVIRONMENT",
    "HOW_TO",
    "NO_LIMITS",
    "Ours",
    "Rival",
    "Scan",
    "in_turn",
    "made_up_scan",
    "relative_difference",
]

ENVIRONMENT = "NAPARI_SAM_MED_RIVALS"
HOW_TO = (
    f"No rival is measured: make an environment (python -m venv rivals; rivals/bin/pip install micro-sam "
    f"napari-sam) and set {ENVIRONMENT}=rivals/bin/python; see docs/rivals.md."
)
NO_LIMITS: dict[str, float] = {
    "min_overlap": 0.0,
    "min_iou_prediction": 0.0,
    "max_brightness_shift": float("inf"),
    "max_divergence": float("inf"),
    "max_growth": float("inf"),
}
"""Settings with which no direction is ended by what is found: as `iou_threshold` 0 is for micro-sam."""
_WINDOW = (0.0, 255.0)
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Scan:
    """A scan of pixels of 1 mm, no slice like another, and an object's masks on two key slices of any.

    Attributes
    ----------
    data : ndarray (z, y, x) of uint8
    masks : ndarray (2, y, x) of bool
    """

    data: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]

    def written(self, folder: Path) -> dict[str, Path]:
        """Files for a rival: ``volume`` and ``masks``."""
        files = {"volume": folder / "volume.npy", "masks": folder / "masks.npy"}
        np.save(files["volume"], self.data)
        np.save(files["masks"], self.masks)
        return files

    def of(self, indices: Sequence[int]) -> Volume:
        """The volume of these slices, in this order."""
        data = self.data[list(indices)]
        return Volume(data, Grid.from_zyx(data.shape))


def made_up_scan(n_slices: int, side: int) -> Scan:
    """Slices of the bundled phantom around its middle, enlarged to `side` x `side` pixels; two discs.

    Every slice has a pixel of 0 and one of 255, so that a rival that stretches each slice and we, who do not,
    show the network the same but for rounding.
    """
    phantom = read_volume(sample_volume())
    first = (phantom.shape[0] - n_slices) // 2
    images = [to_rgb(phantom, SliceView("axial", first + index))[..., 0] for index in range(n_slices)]
    size, how = (side, side), Image.Resampling.BILINEAR
    data = np.stack([np.asarray(Image.fromarray(image).resize(size, how)) for image in images])
    data[:, 0, 0], data[:, -1, -1] = 0, 255
    rows, columns = np.indices(size) / side
    discs = [np.hypot(rows - 0.5, columns - 0.5) < 0.15, np.hypot(rows - 0.55, columns - 0.45) < 0.12]
    return Scan(data, np.stack(discs))


class Ours:
    """Our own functions, by the names of the rivals' jobs."""

    def __init__(self, predictor: Predictor, scan: Scan) -> None:
        self._predictor = predictor
        self._scan = scan
        self._volume = scan.of(range(len(scan.data)))
        self._store = EmbeddingStore(None)

    def embed(self, n_slices: int, store: Path) -> Answer:
        """`embed_volume` into a folder that is not there yet, as `napari-sam-med embed` does."""
        volume = self._scan.of(range(n_slices))
        kept = EmbeddingStore(store, memory_bytes=0)
        _, facts = timed(lambda: list(embed_volume(volume, self._predictor, kept, window=_WINDOW)))
        self._store = EmbeddingStore(store)  # looked up there from now on
        return facts | {"bytes": kept.size_bytes(), "slices": len(kept)}

    def embed_in_memory(self, n_slices: int) -> Answer:
        """`embed_slice` of every slice, kept in memory."""
        self._store = EmbeddingStore(None)
        views = [SliceView("axial", index) for index in range(n_slices)]
        _, facts = timed(
            lambda: [
                embed_slice(self._volume, view, self._predictor, window=_WINDOW, store=self._store)
                for view in views
            ]
        )
        return facts | {"slices": len(self._store)}

    def carry(self, n_slices: int, n_embedded: int, keys: Sequence[int], **changes: float) -> Answer:
        """`propagate` from key masks over the first slices, over and over; embeddings are at hand."""
        volume = self._scan.of([index % n_embedded for index in range(n_slices)])
        for index in range(n_embedded):
            embed_slice(volume, SliceView("axial", index), self._predictor, window=_WINDOW, store=self._store)
        return self._carried(volume, keys, self._store, changes)

    def embed_and_carry(self, n_slices: int, keys: Sequence[int], store: Path) -> Answer:
        """`propagate` from key masks, from a store on disk that is empty."""
        return self._carried(self._scan.of(range(n_slices)), keys, EmbeddingStore(store), {})

    def click(self, index: int, x: float, y: float) -> Answer:
        """`predict_slice` with one point on an embedded slice: three masks, of which one is the best."""
        view, prompts = SliceView("axial", index), Prompts.from_points([[x, y]])
        embed_slice(self._volume, view, self._predictor, window=_WINDOW, store=self._store)
        found, facts = timed(
            lambda: predict_slice(
                self._volume, view, prompts, self._predictor, window=_WINDOW, store=self._store
            )
        )
        return facts | {"pixels": int(np.count_nonzero(found.best_mask))}

    def features(self, index: int) -> npt.NDArray[np.float32]:
        """The image embedding (1, C, h, w) of an embedded slice, widened."""
        view = SliceView("axial", index)
        kept = embed_slice(self._volume, view, self._predictor, window=_WINDOW, store=self._store)
        first: npt.NDArray[np.float32] = kept.features[0].float().numpy()
        return first

    def _carried(
        self, volume: Volume, keys: Sequence[int], store: EmbeddingStore, changes: dict[str, float]
    ) -> Answer:
        masks = {SliceView("axial", key): mask for key, mask in zip(keys, self._scan.masks, strict=False)}
        found, facts = timed(
            lambda: list(
                propagate(
                    volume,
                    {1: (1, {})},
                    self._predictor,
                    masks={1: masks},
                    window=_WINDOW,
                    store=store,
                    **changes,
                )
            )
        )
        by_source = [one.source for one in found if one.mask.any()]
        filled = len({one.view.index for one in found if one.mask.any()})
        return facts | {"filled": filled, "interpolated": by_source.count("interpolated")}


class Rival:
    """A rival's process: started on entering, ended on leaving.

    Parameters
    ----------
    command : sequence of str
    settings : dict
        What it is told to load.
    log : Path
        Where what it prints goes.

    Attributes
    ----------
    version : str or None
        None where the rival is not installed in that environment.
    """

    def __init__(self, command: Sequence[str], settings: Answer, log: Path) -> None:
        self._command = list(command)
        self._settings = settings
        self._log = log
        self.version: str | None = None

    @classmethod
    def called(cls, name: str, settings: Answer, log: Path) -> Rival:
        """``micro_sam`` or ``napari_sam`` in the environment that NAPARI_SAM_MED_RIVALS names."""
        return cls([os.environ[ENVIRONMENT], "-m", f"benchmarks.rival_{name}"], settings, log)

    def __enter__(self) -> Rival:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=_ROOT,
                env=os.environ | {"QT_QPA_PLATFORM": "offscreen"},
            )
        self.version = self._told(self._settings).get("version")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._process.communicate()  # the end of its lines ends it

    def __getattr__(self, job: str) -> Job:
        if job.startswith("_"):
            raise AttributeError(job)
        return partial(self._done, job)

    def _done(self, job: str, **arguments: Any) -> Answer:
        return self._told({"job": job, **arguments})

    def _told(self, what: Answer) -> Answer:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # both are pipes
        assert stdout is not None
        try:
            stdin.write(json.dumps(what, default=str) + "\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # it may have answered before it ended
        line = stdout.readline()
        if not line:
            self._process.communicate()
            raise RuntimeError(f"{self._command} ended:\n{self._log.read_text()[-2000:]}")
        answer: Answer = json.loads(line)
        return answer


def in_turn(ours: Job, theirs: Job, turns: int) -> tuple[Answer, Answer]:
    """Both do a job in turn; of each the answer with the least seconds."""
    answers: tuple[list[Answer], list[Answer]] = ([], [])
    for _ in range(turns):
        answers[0].append(ours())
        answers[1].append(theirs())
    mine, its = (min(some, key=lambda one: float(one["seconds"])) for some in answers)
    return mine, its


def relative_difference(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Root mean square of the difference, as a share of that of `b`."""
    return float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))
