"""Training of nano: it learns, it goes on exactly where it stopped, its weights are worth bundling."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import napari_sam_med
from napari_sam_med.sam.architectures.nano import Nano
from napari_sam_med.training.nano_batches import ScenePool
from napari_sam_med.training.train_nano import (
    VALIDATION_SEED,
    NanoRecipe,
    NanoTrainer,
    main,
    run,
    validate,
    write_weights,
)

RECIPE = NanoRecipe(
    steps=40, images=1, prompts=4, replicas=1, scenes=2, seed=3, warm_up=2, decay=0, correction_share=0.0
)
WEIGHTS = Path(napari_sam_med.__file__).parent / "sam" / "weights" / "nano.safetensors"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """The tensors are small: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pool() -> ScenePool:
    return ScenePool(RECIPE.scenes, RECIPE.seed)


def test_some_steps_on_one_batch_lower_its_loss(pool: ScenePool) -> None:
    trainer = NanoTrainer(replace(RECIPE, bf16=False), pool)
    batch = pool.batch(0, 1, 4)
    losses = [float(trainer.train_step([batch]).loss) for _ in range(12)]
    assert sum(losses[-3:]) / 3 < 0.9 * losses[0]


def test_a_stopped_run_goes_on_exactly(pool: ScenePool, tmp_path: Path) -> None:
    recipe = replace(RECIPE, replicas=2, correction_share=0.5)
    straight = NanoTrainer(recipe, pool)
    for _ in range(4):
        straight.train_step()
    stopped = NanoTrainer(recipe, pool)
    for _ in range(2):
        stopped.train_step()
    stopped.save(tmp_path / "checkpoint.pt")
    resumed = NanoTrainer(recipe, pool)
    resumed.load(tmp_path / "checkpoint.pt")
    for _ in range(2):
        resumed.train_step()
    assert resumed.step == straight.step == 4
    for network in ("network", "averaged"):
        a, b = getattr(straight, network).state_dict(), getattr(resumed, network).state_dict()
        for name in a:
            torch.testing.assert_close(a[name], b[name], msg=name)


def test_learning_rate_rises_stays_and_falls() -> None:
    recipe = NanoRecipe(steps=100, warm_up=10, decay=20, learning_rate=1.0)
    rates = [recipe.learning_rate_at(step) for step in (0, 9, 50, 90, 99)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.05])


def test_a_run_logs_reports_and_writes_weights(pool: ScenePool, tmp_path: Path) -> None:
    trainer = NanoTrainer(replace(RECIPE, steps=2), pool)
    progress = list(run(trainer, tmp_path, save_every=1, log_every=1))
    assert [p.done for p in progress] == [1, 2]
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["1", "2"]
    Nano.from_state_dict(load_file(tmp_path / "nano.safetensors"))


def test_the_command_trains_and_goes_on(tmp_path: Path) -> None:
    command = ["-o", str(tmp_path), "--images", "1", "--prompts", "2", "--replicas", "1", "--scenes", "2"]
    main([*command, "--steps", "1"])
    main([*command, "--steps", "2"])
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == 2


def test_weights_name_their_architecture(tmp_path: Path) -> None:
    write_weights(Nano(), tmp_path / "w.safetensors", "2 steps")
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata()["architecture"] == "nano"
        assert file.metadata()["licence"] == "Apache-2.0"


def test_variances_beyond_half_precision_are_kept(tmp_path: Path) -> None:
    network = Nano().eval()
    with torch.no_grad():
        network.pyramid.merge8[1].running_var.fill_(3e6)
    write_weights(network, tmp_path / "w.safetensors")
    kept = load_file(tmp_path / "w.safetensors")
    assert float(kept["pyramid.merge8.1.running_var"].max()) == 3e6
    assert kept["region_net.head.weight"].dtype == torch.float16


def test_weights_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    network = Nano()
    with torch.no_grad():
        network.region_net.head.bias.fill_(1e6)
    with pytest.raises(ValueError, match="too large for half precision"):
        write_weights(network, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_bundled_weights_are_finite() -> None:
    assert all(bool(value.isfinite().all()) for value in load_file(WEIGHTS).values())


def test_bundled_weights_are_small_and_beat_the_ellipse_on_unseen_images() -> None:
    assert WEIGHTS.stat().st_size <= 12_000_000
    with safe_open(WEIGHTS, "pt") as file:
        assert file.metadata()["architecture"] == "nano"
    unseen = ScenePool(10, seed=VALIDATION_SEED + 1)
    torch.manual_seed(0)
    # an untrained network answers with the ellipse, the blob or the neighbour's mask
    ellipse = validate(Nano(), unseen, n_batches=2)
    bundled = validate(Nano.from_state_dict(load_file(WEIGHTS)), unseen, n_batches=2)
    assert bundled["iou_box"] > ellipse["iou_box"] + 0.05
    assert bundled["iou_click"] > ellipse["iou_click"] + 0.05
    assert bundled["iou_error"] < 0.25
