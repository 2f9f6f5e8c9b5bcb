"""``finetune``: a data set as it was published in, a model that other commands take out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from napari_sam_med.sam.checkpoints import write_checkpoint
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.training import tuning_run
from tests.cli.cli_scan import Run
from tests.training.ring_cases import write_case

Runner = Callable[..., Run]


@pytest.fixture
def btcv(tmp_path: Path) -> Path:
    """Two cases in BTCV's layout, a labelled slice each."""
    folder = tmp_path / "BTCV"
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    for number, depth in ((1, 2), (2, 2)):
        case = write_case(tmp_path / "raw", number, depth)
        shutil.move(case.image_path, folder / "imagesTr" / f"img000{number}.nii.gz")
        shutil.move(case.labels_path, folder / "labelsTr" / f"label000{number}.nii.gz")
    return folder


def test_a_data_set_in_a_model_out(run: Runner, btcv: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    answer = run("finetune", "-c", btcv, "-o", out, "--epochs", "1", "--views", "0", "--hold-out", "0")
    assert answer.status == 0, answer.err
    assert "bound_box" in answer.out
    assert "mean of organs" in answer.out
    assert "spleen" in answer.out  # BTCV's own names
    assert "Not for clinical use" in answer.out
    image, labels = btcv / "imagesTr" / "img0001.nii.gz", btcv / "labelsTr" / "label0001.nii.gz"
    measured = run(
        "evaluate", "-i", image, "-l", labels, "--models", f"nano,{out}", "-o", tmp_path / "e", "--json"
    )
    assert measured.status == 0, measured.err
    assert list(json.loads(measured.out)["models"]) == ["nano", "model"]
    again = run("finetune", "-c", btcv, "-o", out)
    assert again.status == 2
    [line] = again.err.splitlines()
    assert "finished model" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--recipe", "best"), "default, btcv"),
        (("--hold-out", "2"), "from 0 to 0.9"),
        (("--trains", "all"), "mask_decoder"),
        (("--planes", "oblique"), "axial"),
        (("--names", "{"), "organ names"),
        (("--model", "no.pth"), "no.pth"),
        (("--devices", "3"), "give --devices 2"),  # slices a step of the default recipe
    ],
)
def test_bad_calls_end_with_one_line(
    arguments: tuple[str, ...], says: str, run: Runner, btcv: Path, tmp_path: Path
) -> None:
    answer = run("finetune", "-c", btcv, "-o", tmp_path / "model", *arguments)
    assert answer.status == 2
    [line] = answer.err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert not (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_the_whole_way_with_vit_b(
    run: Runner, btcv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights in SAM's layout: end to end, not good."""
    from napari_sam_med.sam.architectures.meta import build_sam_vit

    record = replace(MODELS["sam_vit_b"], name="random")
    base = write_checkpoint(tmp_path / "vit_b", build_sam_vit("vit_b").state_dict(), record)
    monkeypatch.setattr(tuning_run, "REPORTED", ("bound_box",))
    out = tmp_path / "model"
    answer = run(
        *("finetune", "-c", btcv, "-o", out, "-m", base, "--recipe", "btcv", "--epochs", "1"),
        *("--views", "0", "--hold-out", "0", "--json"),
    )
    assert answer.status == 0, answer.err
    card = json.loads(answer.out)
    assert card["base"]["model"] == "random" or card["base"]["sha256"]
    assert card["data"]["learned_views"] == 2
    assert card["seconds"]["embeddings_made"] == 2
    assert (out / "model.safetensors").stat().st_size == pytest.approx(base.stat().st_size, rel=0.01)
