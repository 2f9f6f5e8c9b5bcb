"""Fine-tuning from cases to a folder: it learns, goes on exactly after a kill, and makes nothing worse."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_sam_med.cluster.workers import Cluster
from napari_sam_med.errors import ExportError, LabelError, ModelError, PromptError
from napari_sam_med.evaluation.cases import Case
from napari_sam_med.sam.architectures.nano import Nano
from napari_sam_med.sam.checkpoints import read_checkpoint, write_checkpoint
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.training import finetuning, tuning_run
from napari_sam_med.training.own_models import discard_run
from napari_sam_med.training.recipes import RECIPES, Recipe, named_recipe
from napari_sam_med.training.team import Team
from napari_sam_med.training.tuner_checkpoint import TunerCheckpoint
from napari_sam_med.training.tuning_run import TuningRequest, TuningStep, embed_on_workers, tune_model
from tests.training.ring_cases import write_case

_BY_GREY = (("center_bilateral", 1.0),)
FAST = {"epochs": 2, "views": 0, "slices_per_step": 3}


@pytest.fixture(autouse=True, scope="module")
def _few_reported() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning_run, "REPORTED", ("bound_box", "center_distance"))
        yield


def _two_cases(folder: Path) -> list[Case]:
    return [write_case(folder, 1, depth=5), write_case(folder, 2, depth=3, split="val")]


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return _two_cases(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, _few_reported: None) -> Path:
    """The model of three epochs from beginning to end, with a store that had nothing to give."""
    folder = tmp_path_factory.mktemp("whole")
    request = _request(_two_cases(folder), folder / "model", epochs=3)
    _run(replace(request, earlier=EmbeddingStore(folder / "store")))
    return folder / "model"


def _run(request: TuningRequest) -> list[TuningStep]:
    return list(tune_model(request))


def _request(cases: list[Case], output: Path, **changes: Any) -> TuningRequest:
    recipe = named_recipe(changes.pop("recipe", "default"), **(FAST | changes))
    return TuningRequest(cases, output, recipe)


def test_a_model_learns_and_its_folder_is_accepted(cases: list[Case], tmp_path: Path) -> None:
    out = tmp_path / "model"
    steps = _run(_request(cases, out, epochs=4, views=1))
    card = steps[-1].card
    assert card is not None
    assert json.loads((out / "card.json").read_text()) == card
    assert sorted(path.name for path in out.iterdir()) == [
        "card.json",
        "curves.csv",
        "curves.png",
        "model.safetensors",
    ]
    assert card["improved"]
    assert card["base"]["model"] == "nano"
    assert card["recipe"]["name"] == "default"
    assert card["data"]["cases"] == [
        {"name": "scan1", "split": "train", "slices": 4, "background_slices_left_out": 1},
        {"name": "scan2", "split": "val", "slices": 2, "background_slices_left_out": 1},
    ]
    assert card["data"]["learned_slices"] == 3
    assert card["data"]["learned_views"] == 6
    before, after = card["scores"]["before"], card["scores"]["after"]
    assert list(before) == list(after) == ["bound_box", "center_distance"]
    assert before["bound_box"]["masks"] == 4
    assert after["bound_box"]["mdice_organs"] > before["bound_box"]["mdice_organs"] + 0.02
    rows = (out / "curves.csv").read_text().splitlines()
    assert rows[0].startswith("epoch,loss")
    assert len({path.stat().st_mode for path in out.iterdir()}) == 1
    assert len(rows) == 6
    tuned = load_predictor(out)
    assert tuned.record.architecture == "nano"
    assert tuned.record.name == "model"
    masks = tuned.predict(tuned.embed(np.zeros((64, 72, 3), np.uint8)), Prompts.from_points([(20, 20)])).masks
    assert masks.shape == (3, 64, 72)
    encoder = {k: v for k, v in load_file(out / "model.safetensors").items() if k.startswith("pyramid.")}
    base = read_checkpoint("nano").state_dict
    assert all(torch.equal(value, base[name]) for name, value in encoder.items())


def test_a_run_that_was_killed_goes_on_exactly(
    whole: Path, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statement 39."""
    out = tmp_path / "killed"
    for step in tune_model(_request(cases, out, epochs=3)):
        if step.progress.text == "epoch 3" and step.epoch is None:  # in the middle of an epoch
            break
    assert not (out / "model.safetensors").exists()
    embedded = []
    monkeypatch.setattr(
        Predictor, "embed", lambda *_, **__: embedded.append(1)
    )  # nothing may be embedded again
    steps = _run(_request(cases, out, epochs=3))
    assert not embedded
    assert [step.epoch.number for step in steps if step.epoch] == [3]
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, out))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_checkpoint_of_another_run_is_not_used(cases: list[Case], tmp_path: Path) -> None:
    out = tmp_path / "model"
    for step in tune_model(_request(cases, out)):
        if step.epoch is not None and step.epoch.number == 1:
            break
    assert (out / "training" / "checkpoint.pt").exists()
    steps = _run(replace(_request(cases, out, epochs=2), seed=5, hold_out_share=0.4))
    [warning] = [step.warning for step in steps if step.warning]
    assert "another one (seed 0, now 5; hold_out 0.2, now 0.4), so training begins anew" in warning
    assert [step.epoch.number for step in steps if step.epoch] == [0, 1, 2]
    (out / "model.safetensors").unlink()
    (out / "training").mkdir()
    (out / "training" / "checkpoint.pt").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(ModelError, match=r"damaged.*remove it"):
        _run(_request(cases, out))


def test_another_recipe_or_other_cases_are_named_as_such(cases: list[Case], tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    request = _request(cases, tmp_path, recipe="btcv")
    base = read_checkpoint("nano")
    tuner = tuning_run.made_tuner(request, base, Team.alone())
    tuner.close_epoch(0.5, 0.5, 0.5)
    TunerCheckpoint(path, tuning_run._facts(request, base)).save(tuner)

    def changes(other: TuningRequest) -> list[str]:
        return TunerCheckpoint(path, tuning_run._facts(other, base)).changes

    assert changes(request) == []
    assert changes(replace(request, output=tmp_path / "moved", device="cuda")) == []
    assert changes(_request(cases, tmp_path, recipe="btcv", epochs=7)) == ["epochs 2, now 7"]
    assert changes(_request(cases, tmp_path, recipe="sam")) == ["recipe btcv, now sam"]
    assert changes(replace(request, cases=cases[:1])) == ["cases"]
    nib.save(nib.load(cases[0].labels_path), cases[0].labels_path)  # written again: may have been corrected
    assert changes(request) == ["cases"]


def test_two_runs_in_one_folder_at_once_are_refused(cases: list[Case], tmp_path: Path) -> None:
    out = tmp_path / "model"
    run = tune_model(_request(cases, out))
    next(step for step in run if step.epoch is not None)
    with pytest.raises(ExportError, match=r"is being trained in .*; wait for it, stop it, or choose another"):
        next(tune_model(_request(cases, out)))
    with pytest.raises(ExportError, match="is being trained in"):
        discard_run(out)
    assert (out / "training").is_dir()
    run.close()
    discard_run(out)
    assert not out.exists()


def test_weights_that_are_not_finite_never_take_the_place_of_good_ones(
    cases: list[Case], tmp_path: Path
) -> None:
    """Statement 39."""
    out = tmp_path / "model"
    steps = _run(_request(cases, out, recipe="sam", learning_rate=9.0, warm_up=0.0))
    card = steps[-1].card
    assert card is not None
    weights = load_file(out / "model.safetensors")
    assert all(bool(value.isfinite().all()) for value in weights.values())
    scores = card["scores"]
    assert scores["after"]["bound_box"]["mdice_organs"] >= scores["before"]["bound_box"]["mdice_organs"]
    if not card["improved"]:
        base = read_checkpoint("nano").state_dict
        assert all(torch.equal(weights[name], value) for name, value in base.items())


def test_steps_without_a_finite_gradient_are_not_taken(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finetuning.mask_loss

    def broken(*arguments: Any) -> Any:
        terms = whole(*arguments)
        return terms._replace(loss=terms.loss * float("nan"))

    monkeypatch.setattr(finetuning, "mask_loss", broken)
    steps = _run(_request(cases, tmp_path / "model", epochs=5))
    epochs = [step.epoch for step in steps if step.epoch]
    assert [epoch.number for epoch in epochs] == [0, 1]  # and it is not tried on and on
    assert epochs[1].skipped > 0
    card = steps[-1].card
    assert card is not None
    weights, base = load_file(tmp_path / "model" / "model.safetensors"), read_checkpoint("nano").state_dict
    assert all(torch.equal(weights[name].float(), value.float()) for name, value in base.items())


def test_the_encoder_is_not_loaded_when_embeddings_are_there(
    whole: Path, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EmbeddingStore(tmp_path / "store")
    request = replace(_request(cases, tmp_path / "b", epochs=3), earlier=store)
    first = json.loads((whole / "card.json").read_text())
    assert first["seconds"]["embeddings_made"] == 6
    from napari_sam_med.training.training_slices import read_training_slices

    predictor = load_predictor("nano")
    for _, found, _ in read_training_slices(cases, request.choice):
        for one in found:
            store.get_or_embed(predictor, one.image, one.pixel_spacing)
    monkeypatch.setattr(Nano, "encode", None)
    card = _run(request)[-1].card
    assert card is not None
    assert card["seconds"]["embeddings_made"] == 0
    assert card["scores"] == first["scores"]


def test_mixed_precision(cases: list[Case], tmp_path: Path) -> None:
    request = _request(cases[:1], tmp_path / "model", epochs=1)
    request = replace(request, precision="bf16", hold_out_share=0.0)
    card = _run(request)[-1].card
    assert card is not None
    assert card["precision"] == "bf16"
    assert "learned from" in card["scored_on"]
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert all(bool(value.isfinite().all()) for value in weights.values())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs(name: str, cases: list[Case], tmp_path: Path) -> None:
    card = _run(_request(cases[:1], tmp_path / name, recipe=name, epochs=1))[-1].card
    assert card is not None
    assert RECIPES[name].source
    assert Recipe.from_json(json.loads(json.dumps(card["recipe"]))) == named_recipe(
        name, **(FAST | {"epochs": 1})
    )
    assert card["scored_on"] == "slices held out of the training cases"


def test_sam_models_are_tuned_without_their_encoder(tmp_path: Path) -> None:
    """The decoder of MobileSAM with random weights: its encoder's weights are copied through."""
    from napari_sam_med.sam.architectures.tiny_vit import build_mobile_sam

    torch.manual_seed(3)
    record = replace(MODELS["mobile_sam"], preprocessing="medsam", name="own")
    network = build_mobile_sam()
    base = write_checkpoint(tmp_path / "base.safetensors", network.state_dict(), record)
    few = [write_case(tmp_path, 1, depth=3)]  # a slice to learn from and one held out
    request = replace(_request(few, tmp_path / "tuned", epochs=1, slices_per_step=2), model=str(base))
    card = _run(request)[-1].card
    assert card is not None
    tuned, before = load_file(tmp_path / "tuned" / "model.safetensors"), load_file(base)
    assert tuned.keys() == before.keys()
    changed = {name for name in tuned if not torch.equal(tuned[name], before[name])}
    assert all(name.startswith("mask_decoder.") for name in changed)
    assert bool(changed) == card["improved"]
    assert load_predictor(tmp_path / "tuned").record.preprocessing == "medsam"


def test_bad_requests_are_refused_in_one_line(cases: list[Case], tmp_path: Path) -> None:
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "model.safetensors").touch()
    with pytest.raises(ExportError, match="finished model"):
        _run(_request(cases, tmp_path / "done"))
    with pytest.raises(LabelError, match="nothing to learn from"):
        _run(_request(cases[1:], tmp_path / "none"))
    with pytest.raises(ModelError, match="ViT encoders"):
        _run(_request(cases, tmp_path / "lora", trains=("lora",)))
    grey = replace(_request(cases, tmp_path / "grey"), recipe=replace(RECIPES["gentle"], prompts=_BY_GREY))
    with pytest.raises(PromptError, match="center_bilateral looks at grey values"):
        _run(grey)
    with pytest.raises(ModelError, match=r'no recipe "best".*default, btcv'):
        named_recipe("best")
    with pytest.raises(ModelError, match="epochs is at least 1"):
        named_recipe("btcv", epochs=0)
    with pytest.raises(ModelError, match="learning rate"):
        named_recipe("btcv", learning_rate=0.0)
    with pytest.raises(ModelError, match='no part "encoder"'):
        named_recipe("btcv", trains=("encoder",))


def test_a_run_that_was_stopped_after_its_last_epoch_ends(cases: list[Case], tmp_path: Path) -> None:
    out = tmp_path / "model"
    for step in tune_model(_request(cases, out)):
        if step.epoch is not None and step.epoch.number == 2:
            break
    steps = _run(_request(cases, out))
    assert [step.epoch for step in steps if step.epoch] == []
    assert steps[-1].card is not None
    assert (out / "model.safetensors").exists()


class _InTurn(Cluster):
    """Workers of which there are none: tasks are pickled, as on their way to one, and done here."""

    def __init__(self) -> None:
        self.device = "cpu"

    def each(self, function: Any, items: Any) -> Any:
        for number, item in enumerate(items):
            sent = pickle.loads(pickle.dumps(item))  # noqa: S301  what was just pickled here
            yield number, function(sent)


def test_nothing_is_embedded_again_that_workers_have_embedded(cases: list[Case], tmp_path: Path) -> None:
    request = _request(cases, tmp_path / "model", views=1, epochs=1)
    request = replace(request, device="cpu")
    steps = list(embed_on_workers(request, _InTurn()))
    assert steps[-1].progress.fraction == 1
    card = _run(request)[-1].card
    assert card is not None
    assert card["data"]["learned_views"] > card["data"]["learned_slices"] > 0
    assert card["seconds"]["embeddings_made"] == 0
