"""Two processes train one model together and come to what one of them would have come to."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from napari_sam_med.errors import DeviceError, ModelError
from napari_sam_med.evaluation.cases import Case
from napari_sam_med.training import tuning_run
from napari_sam_med.training.recipes import named_recipe
from napari_sam_med.training.team import Team, train_together
from napari_sam_med.training.tuning_run import TuningRequest, tune_model
from tests.training.ring_cases import write_case
from tests.training.team_ends import be_killed, fail_in_the_second


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return [write_case(tmp_path, 1, depth=5)]


def _request(cases: list[Case], output: Path) -> TuningRequest:
    # 3 slices a step, which two processes cannot share evenly
    return TuningRequest(cases, output, named_recipe("btcv", epochs=2, views=1, slices_per_step=3))


def _train(team: Team, request: TuningRequest, epochs: int) -> None:
    """Train; stopped in the middle of the epoch after ``epochs``."""
    tuning_run.REPORTED = ("bound_box",)
    for step in tune_model(request, team):
        if step.epoch is None and step.progress.text == f"epoch {epochs + 1}":
            return


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_come_to_what_one_comes_to_also_where_that_was_stopped(
    cases: list[Case], tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train_together(_train, 1, "cpu", "auto", _request(cases, one), 2)
    train_together(_train, 1, "cpu", "auto", _request(cases, two), 1)
    assert not (two / "model.safetensors").exists()
    assert (two / "training" / "checkpoint.pt").exists()
    train_together(_train, 2, "cpu", "auto", _request(cases, two), 2)
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in one.iterdir())
    weights, same = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    assert weights.keys() == same.keys()
    difference = max(float((weights[name] - same[name]).abs().max()) for name in weights)
    assert difference < 1e-5
    cards = [json.loads((folder / "card.json").read_text()) for folder in (one, two)]
    assert [card["devices"] for card in cards] == [1, 2]
    assert cards[0]["improved"]
    assert [card["seconds"]["embeddings_made"] for card in cards] == [7, 0]
    assert cards[0]["data"] == cards[1]["data"]
    for card in cards:
        assert card["scores"]["after"]["bound_box"]["masks"] == 2
    assert (one / "curves.csv").read_text() == (two / "curves.csv").read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_error_of_any_process_is_that_of_the_call() -> None:
    with pytest.raises(ModelError, match="weights of the second"):
        train_together(fail_in_the_second, 2, "cpu", "auto")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGKILL")
def test_a_process_that_is_killed_is_said_and_those_of_others_live_on() -> None:
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(300,))
    other.start()
    try:
        with pytest.raises(DeviceError, match=r"SIGKILL.*want of memory.*fewer --devices"):
            train_together(be_killed, 2, "cpu", "auto")
        assert other.is_alive()
    finally:
        other.terminate()
        other.join()


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match=r"3 GPUs.*has 2; give --devices 2"):
        train_together(_train, 3, "cuda", "auto")
    with pytest.raises(DeviceError, match=r'"cuda:1" is one, and 2'):
        train_together(_train, 2, "cuda:1", "auto")
