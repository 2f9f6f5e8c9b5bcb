"""Embedding on workers: the same bits under the same keys, and here when they are lost, said once."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from napari_sam_med.cluster import workers
from napari_sam_med.cluster.workers import Cluster, connected
from napari_sam_med.errors import CancelledError, DeviceMemoryError, ImageError, ModelError
from napari_sam_med.sam.embedding_store import EmbeddingStore, as_kept
from napari_sam_med.sam.image_embedding import ImageEmbedding
from napari_sam_med.sam.interruption import interruptible
from napari_sam_med.sam.model_registry import NANO_WEIGHTS
from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.sam.shared_model import SharedModel
from napari_sam_med.segmentation.remote_predictor import RemotePredictor
from tests.dask_here import scheduler_here

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def here() -> Predictor:
    return load_predictor("nano", device="cpu")


@pytest.fixture
def machine():
    """A scheduler and a worker in this process, whose tasks can be watched."""
    with scheduler_here(1) as there:
        yield there


@pytest.fixture
def cluster(machine) -> Iterator[Cluster]:
    with connected(machine.scheduler_address) as found:
        yield found


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models that the worker was asked for, one for each task."""
    asked: list[str] = []
    load = SharedModel.load

    def counted(model: SharedModel) -> Predictor:
        asked.append(model.model)
        return load(model)

    monkeypatch.setattr(SharedModel, "load", counted)
    return asked


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 48, 3)).astype(np.uint8)


def same(one: ImageEmbedding, other: ImageEmbedding) -> bool:
    facts = [
        (e.original_size, e.input_size, e.crop_xyxy, e.model_hash, e.pixel_spacing, e.preprocessing)
        for e in (one, other)
    ]
    pairs = zip(one.features, other.features, strict=True)
    return facts[0] == facts[1] and all(a.dtype == b.dtype and bool((a == b).all()) for a, b in pairs)


def test_a_worker_makes_what_is_made_here_under_the_same_key(here, cluster, loads) -> None:
    lost: list[str] = []
    there = RemotePredictor(here, "nano", cluster, lost.append)
    for spacing, crop in (((1.0, 1.0), None), ((2.0, 0.7), (4, 6, 44, 30))):
        assert there.embedding_key(picture(0), spacing, crop) == here.embedding_key(picture(0), spacing, crop)
        kept_here, kept_there = EmbeddingStore(None), EmbeddingStore(None)
        assert same(
            kept_here.get_or_embed(here, picture(0), spacing, crop),
            kept_there.get_or_embed(there, picture(0), spacing, crop),
        )
    assert len(loads) == 2
    with pytest.raises(ImageError):
        there.embed(picture(0), (0.0, 1.0))
    assert lost == []


@pytest.mark.parametrize(("resources", "n_tasks"), [({}, 5), ({"GPU": 1}, 2)])
def test_images_are_sent_together_to_a_gpu_alone(here, loads, resources: dict, n_tasks: int) -> None:
    images = [picture(seed) for seed in range(5)]
    lost: list[str] = []
    with (
        scheduler_here(1, resources) as machine,
        connected(machine.scheduler_address) as cluster,
    ):
        found = RemotePredictor(here, "nano", cluster, lost.append).embed_batch(images, (1.0, 2.0))
    both = zip(found, here.embed_batch(images, (1.0, 2.0)), strict=True)
    assert all(same(as_kept(one), as_kept(other)) for one, other in both)
    assert len(loads) == n_tasks
    assert lost == []


def test_a_model_of_ones_own_is_sent_once_to_workers_that_do_not_have_it(
    machine, cluster, loads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(NANO_WEIGHTS, folder / "model.safetensors")
    load = SharedModel.load

    def hidden(model: SharedModel) -> Predictor:
        if model.model == str(folder):
            raise ModelError("There is no such folder.")
        return load(model)

    monkeypatch.setattr(SharedModel, "load", hidden)
    lost: list[str] = []
    own = load_predictor(folder, device="cpu")
    there = RemotePredictor(own, str(folder), cluster, lost.append)
    for seed in (0, 1):
        assert same(as_kept(there.embed(picture(seed))), as_kept(own.embed(picture(seed))))
    assert lost == []
    assert len(loads) == 1, "the file was read from what was sent, once"

    machine.scale(0)  # and once more to a worker that takes the place of one that died
    while there._cluster.holds(there._weights):
        time.sleep(0.01)
    machine.scale(1)
    assert same(as_kept(there.embed(picture(2))), as_kept(own.embed(picture(2))))
    assert lost == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ModelError("nano is not on this machine."),
            "{} does not have nano with these weights (napari-sam-med models fetch nano, there)",
        ),
        (DeviceMemoryError("It is full.\nMore."), "A worker at {} failed (It is full)"),
    ],
)
def test_what_fails_there_is_done_here(
    here, cluster, error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: SharedModel) -> Predictor:
        raise error

    monkeypatch.setattr(SharedModel, "load", fail)
    lost: list[str] = []
    there = RemotePredictor(here, "nano", cluster, lost.append)
    for _ in range(2):
        assert same(there.embed(picture(0)), here.embed(picture(0)))
    assert lost == [reason.format(cluster.address) + "; computing on this machine."]


@pytest.mark.parametrize("end", ["scheduler", "worker"])
def test_a_request_under_way_is_answered_here_when_the_other_machine_goes(
    here, machine, cluster, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_WITHOUT_WORKERS_S", {"scheduler": 30, "worker": 0.3}[end])
    is_asked, may_go_on = threading.Event(), threading.Event()
    load = SharedModel.load

    def held(model: SharedModel) -> Predictor:
        is_asked.set()
        may_go_on.wait(30)
        return load(model)

    monkeypatch.setattr(SharedModel, "load", held)
    lost: list[str] = []
    there = RemotePredictor(here, "nano", cluster, lost.append)
    found: list[ImageEmbedding] = []
    asking = threading.Thread(target=lambda: found.append(there.embed(picture(0))))
    asking.start()
    assert is_asked.wait(20)
    leave = {"scheduler": machine.close, "worker": lambda: machine.scale(0)}[end]
    leaving = threading.Thread(target=leave)
    leaving.start()
    if end == "scheduler":  # which leaves after its workers, and those only after their tasks
        while machine.scheduler.workers:
            time.sleep(0.01)
        may_go_on.set()
    asking.join(20)
    may_go_on.set()
    leaving.join(20)
    assert same(found[0], here.embed(picture(0)))
    what = {"scheduler": "The connection to {} was lost", "worker": "No worker is left at {}"}[end]
    assert lost == [what.format(cluster.address) + "; computing on this machine."]
    assert same(there.embed(picture(1)), here.embed(picture(1)))
    assert len(lost) == 1


def test_a_slice_under_way_there_is_given_up_for_something_more_urgent(
    here, cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_asked, may_go_on = threading.Event(), threading.Event()
    load = SharedModel.load

    def held(model: SharedModel) -> Predictor:
        is_asked.set()
        may_go_on.wait(30)
        return load(model)

    monkeypatch.setattr(SharedModel, "load", held)
    lost: list[str] = []
    there = RemotePredictor(here, "nano", cluster, lost.append)
    with pytest.raises(CancelledError), interruptible(is_asked.is_set):
        there.embed(picture(0))
    may_go_on.set()
    assert same(as_kept(there.embed(picture(1))), as_kept(here.embed(picture(1))))
    assert lost == []
