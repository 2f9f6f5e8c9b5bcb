"""An experiment on workers: the rows, summary and resumption of one without them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from napari_sam_med.cluster.workers import Cluster, connected
from napari_sam_med.errors import ModelError
from napari_sam_med.evaluation.experiment import run_experiment
from napari_sam_med.evaluation.results_file import read_results
from napari_sam_med.evaluation.slice_scores import SliceScore
from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.sam.shared_model import SharedModel
from tests.dask_here import scheduler_here
from tests.evaluation.experiment_cases import small_experiment, write_cases

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def nano() -> Predictor:
    return load_predictor("nano", device="cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, nano: Predictor) -> Path:
    """A folder with the cases, and the experiment done in ``alone`` without workers."""
    folder = tmp_path_factory.mktemp("shared")
    write_cases(folder)
    list(
        run_experiment(
            small_experiment(folder, 2, "bound_box"), folder / "alone", load=lambda _: nano, pages=False
        )
    )
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two workers in this process."""
    with (
        scheduler_here(2) as here,
        connected(here.scheduler_address, device="cpu") as workers,
    ):
        yield workers


def _rows(folder: Path) -> list[SliceScore]:
    rows = [replace(row, seconds=0.0) for row in read_results(folder / "results.csv")]
    return sorted(rows, key=lambda row: row.volume)


def _summary(folder: Path) -> object:
    def timeless(value: object) -> object:
        if isinstance(value, dict):
            return {key: timeless(one) for key, one in value.items() if "seconds" not in key}
        return [timeless(one) for one in value] if isinstance(value, list) else value

    return timeless(json.loads((folder / "summary.json").read_text()))


def test_workers_measure_what_one_process_does(whole: Path, nano: Predictor, cluster: Cluster) -> None:
    list(
        run_experiment(
            small_experiment(whole, 2, "bound_box"),
            whole / "shared",
            load=lambda _: nano,
            pages=False,
            cluster=cluster,
        )
    )
    assert _rows(whole / "shared") == _rows(whole / "alone")
    assert _summary(whole / "shared") == _summary(whole / "alone")


def test_what_was_measured_before_is_carried_on_by_workers(
    whole: Path, nano: Predictor, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, out = small_experiment(whole, 2, "bound_box"), whole / "resumed"
    steps = run_experiment(experiment, out, load=lambda _: nano, pages=False)
    for _ in range(7):
        next(steps)
    steps.close()
    known = len(read_results(out / "results.csv"))
    embedded: list[int] = []
    embed = Predictor.embed
    monkeypatch.setattr(
        Predictor, "embed", lambda self, *given, **named: embedded.append(1) or embed(self, *given, **named)
    )
    steps = run_experiment(experiment, out, load=lambda _: nano, pages=False, cluster=cluster)
    new = [step for step in steps if step.is_new and step.view is not None]
    assert known > 0
    assert len(new) == len(embedded) == 16 - 5, "6 of 16 were measured, and the last may have been cut off"
    assert _rows(out) == _rows(whole / "alone")


def test_a_worker_with_other_weights_is_refused(nano: Predictor) -> None:
    shared = SharedModel.of_loaded("nano", nano, "cpu")
    assert shared.load().model_hash == nano.model_hash
    with pytest.raises(ModelError, match="other weights"):
        replace(shared, sha256="0" * 64).load()
