"""Checkpoints are recognised by content, and never run."""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.testing as npt
import pytest
import torch
from safetensors.torch import save_file

from napari_sam_med.errors import ModelError
from napari_sam_med.sam import checkpoints
from napari_sam_med.sam.checkpoints import (
    detect_architecture,
    load_state_dict,
    read_checkpoint,
    sha256_of,
    verify,
    write_checkpoint,
)
from napari_sam_med.sam.model_registry import MODELS, NANO_DIGEST, NANO_WEIGHTS, get_record
from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.sam.prompts import Prompts
from tests.sam.micro_sam import random_image


def keys(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}


def vit_keys(width: int = 768, grid: int = 64) -> dict[str, torch.Tensor]:
    return keys(image_encoder__pos_embed=(1, grid, grid, width), mask_decoder__iou_token__weight=(1, 256))


def tiny_keys(kernel: int = 3) -> dict[str, torch.Tensor]:
    return keys(image_encoder__patch_embed__seq__0__c__weight=(32, 3, kernel, kernel))


def test_architecture_is_told_by_the_keys() -> None:
    """Statement 37."""
    assert detect_architecture(vit_keys(768)) == "vit_b"
    assert detect_architecture(vit_keys(1024)) == "vit_l"
    assert detect_architecture(vit_keys(1280)) == "vit_h"
    assert detect_architecture(tiny_keys()) == "tiny_vit"
    assert detect_architecture(load_state_dict(NANO_WEIGHTS)) == "nano"


@pytest.mark.parametrize(
    ("state_dict", "reason"),
    [
        (tiny_keys(kernel=1), "LiteMedSAM"),
        (vit_keys() | keys(mask_decoder__hf_token__weight=(1, 256)), "SAM-HQ"),
        (vit_keys(grid=16) | keys(image_encoder__blocks__0__Adapter__channel__0__weight=(1,)), "SAM-Med2D"),
        (vit_keys(grid=16), "another size"),
        (vit_keys(width=384), "another size"),
        (keys(vision_encoder__layers__0__attn__qkv__weight=(1,)), "transformers"),
        (keys(image_encoder__trunk__pos_embed=(1,), memory_attention__norm__weight=(1,)), "SAM 2"),
        (keys(conv1__weight=(64, 3, 7, 7), fc__weight=(10, 5)), r"unknown model \(first name \"conv1"),
        ({}, "unknown model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_relatives_of_sam_are_refused_by_name(state_dict: dict[str, torch.Tensor], reason: str) -> None:
    """Statement 37: what is not understood is refused, and by its name."""
    with pytest.raises(ModelError, match=f"{reason}.*supported are SAM ViT-B"):
        detect_architecture(state_dict)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {
            "model": weights,
            "epoch": 3,
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        },
        lambda weights: {"model_state": {f"sam.{k}": v for k, v in weights.items()}},
        lambda weights: {f"module.{k}": v for k, v in weights.items()},
        lambda weights: {"model": {f"module.{k}": v for k, v in weights.items()}},
        lambda weights: {"state_dict": {f"model.{k}": v for k, v in weights.items()}},
    ],
    ids=["plain", "training", "micro-sam", "DDP", "training DDP", "Lightning"],
)
def test_wrappers_are_taken_off(tmp_path: Path, wrap: Any) -> None:
    weights = vit_keys()
    torch.save(wrap(weights), tmp_path / "some.pth")
    found = load_state_dict(tmp_path / "some.pth")
    assert set(found) == set(weights)
    record = read_checkpoint(tmp_path / "some.pth").record
    assert (record.architecture, record.preprocessing, record.name) == ("vit_b", "sam", "some.pth")


def test_safetensors_and_old_torch_files_are_read(tmp_path: Path) -> None:
    save_file(vit_keys(1024), tmp_path / "any name")
    assert get_record(tmp_path / "any name").architecture == "vit_l"
    torch.save(vit_keys(1280), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert get_record(str(tmp_path / "old.pth")).architecture == "vit_h"


def test_preprocessing_of_an_unknown_file_is_as_told(tmp_path: Path) -> None:
    """Statement 37."""
    torch.save(vit_keys(), tmp_path / "medsam_vit_b.pth")
    assert read_checkpoint(tmp_path / "medsam_vit_b.pth").record.preprocessing == "sam", "names tell nothing"
    told = read_checkpoint(tmp_path / "medsam_vit_b.pth", preprocessing="medsam").record
    assert (told.preprocessing, told.stretch, told.accepts) == ("medsam", True, {"box"})


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.sentinel),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("new_format", [True, False])
def test_malicious_checkpoints_run_no_code(tmp_path: Path, new_format: bool) -> None:
    """Statement 35."""
    sentinel = tmp_path / "was run"
    file = tmp_path / "bad.pth"
    torch.save(vit_keys() | {"x": Bomb(sentinel)}, file, _use_new_zipfile_serialization=new_format)
    for load in (load_state_dict, read_checkpoint, load_predictor):
        with pytest.raises(ModelError, match=r"bad.pth.*never run"):
            load(file)
    assert not sentinel.exists()
    file.write_bytes(pickle.dumps(Bomb(sentinel)))
    with pytest.raises(ModelError):
        load_state_dict(file)
    assert not sentinel.exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_truncated_files_are_told(tmp_path: Path, suffix: str) -> None:
    """Statement 35: a damaged file is an error, no crash."""
    file = tmp_path / f"cut.{suffix}"
    save = torch.save if suffix == "pth" else save_file
    save({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}, file)
    content = file.read_bytes()
    for length in (0, 1, 7, 100, 1000, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(ModelError, match=f"cut.{suffix}"):
            read_checkpoint(file)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_damaged_byte_is_no_defect_of_ours(tmp_path: Path, new_format: bool) -> None:
    """Statement 35: torch raises assertions and type errors of what is damaged."""
    file = tmp_path / "damaged.pth"
    torch.save({"a.weight": torch.zeros(3)}, file, _use_new_zipfile_serialization=new_format)
    content = file.read_bytes()
    refused = 0
    for position in range(2, len(content), 3):
        for value in b"x\x00\xff":
            file.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
            try:
                load_state_dict(file)
            except ModelError:
                refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b"\n  <html>", "web page"),
        (b"", "empty"),
        (b"hello, I am text", "damaged or no checkpoint"),
        (bytes(range(256)) * 20, "damaged"),
    ],
)
def test_other_files_are_told(tmp_path: Path, content: bytes, reason: str) -> None:
    """Statement 35."""
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(ModelError, match=f"file.pth .*{reason}"):
        read_checkpoint(tmp_path / "file.pth")


@pytest.mark.parametrize(
    "content", [[1, 2], {}, {"a": 1}, {"a": torch.zeros(1), "b": "text"}, torch.zeros(3)], ids=str
)
def test_files_without_plain_weights_are_told(tmp_path: Path, content: Any) -> None:
    """Statement 37."""
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ModelError, match=r"odd.pth holds .*state_dict\(\) alone"):
        load_state_dict(tmp_path / "odd.pth")


def test_weights_that_do_not_fit_are_told(tmp_path: Path) -> None:
    torch.save(vit_keys(), tmp_path / "few.pth")
    with pytest.raises(ModelError, match=r"few.pth does not fit vit_b .*Missing key"):
        load_predictor(tmp_path / "few.pth", device="cpu")


def test_a_wrong_digest_keeps_the_parser_away(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statement 35."""
    file = home / "models" / "sam_vit_b.pth"
    file.parent.mkdir(parents=True)
    torch.save(vit_keys(), file)
    monkeypatch.setattr(checkpoints, "load_state_dict", lambda path: pytest.fail("the file was parsed"))
    with pytest.raises(ModelError, match=r"expected ec2df.*models fetch sam_vit_b"):
        read_checkpoint("sam_vit_b")
    file.rename(file.with_name("medsam.pth"))
    with pytest.raises(ModelError, match=r"md5 is .*expected 3bb6"):
        read_checkpoint("medsam")
    file.with_name("medsam.pth").rename(file.with_name("medicosam.pth"))
    with pytest.raises(ModelError, match=r"xxh128 is .*expected 4016"):
        read_checkpoint("medicosam")


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "xxh128"])
def test_files_are_matched_by_digest_not_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    """Statement 37."""
    file = tmp_path / "whatever.bin"
    torch.save(vit_keys(), file)
    digest = checkpoints.digests_of(file, (algorithm,))[algorithm]
    digests = dict.fromkeys(("sha256", "md5", "xxh128")) | {algorithm: digest}
    known = replace(MODELS["medsam"], **digests)
    monkeypatch.setitem(MODELS, "medsam", known)
    assert read_checkpoint(file).record is known
    assert verify(file).record is known
    assert read_checkpoint(file).sha256 == sha256_of(file)


def test_nano_is_verified_and_known_by_path_or_digest(tmp_path: Path) -> None:
    assert verify("nano").record is MODELS["nano"]
    assert verify(NANO_WEIGHTS).record is MODELS["nano"]
    assert verify(shutil.copy(NANO_WEIGHTS, tmp_path / "copy.bin")).record is MODELS["nano"]


def test_the_bundled_weights_have_the_digest_beside_them() -> None:
    """After new weights: write their SHA-256 into the file beside them."""
    assert NANO_DIGEST.read_text(encoding="ascii") == f"{sha256_of(NANO_WEIGHTS)}\n"


def test_other_bundled_weights_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "nano", replace(MODELS["nano"], sha256="0" * 64))
    with pytest.raises(ModelError, match=r"not those of this release.*install"):
        verify("nano")


@pytest.mark.parametrize("name", ["tuned", "tuned.safetensors"])
def test_a_fine_tuned_nano_is_loaded_again(nano: Predictor, tmp_path: Path, name: str) -> None:
    weights = load_state_dict(NANO_WEIGHTS)
    changed = "pyramid.lateral4.weight"  # no batch normalisation follows: it is not folded when loaded
    weights[changed] += 0.25
    file = write_checkpoint(tmp_path / name, weights, nano.record, epochs=3)
    assert file.is_file()
    again = load_predictor(tmp_path / name, device="cpu")
    assert again.record.architecture == again.record.preprocessing == "nano"
    assert again.record.name == name
    assert again.model_hash not in ("", nano.model_hash)
    again_network: Any = again.network
    npt.assert_array_equal(again_network.state_dict()[changed], weights[changed])
    assert again.predict(again.embed(random_image(30, 30)), Prompts([[9, 9]])).masks.shape == (3, 30, 30)
    assert [entry.name for entry in file.parent.iterdir()] == [file.name], "nothing half-written stays"


def test_a_fine_tuned_medsam_keeps_its_preprocessing(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "mine", vit_keys(), MODELS["medsam"])
    record = read_checkpoint(tmp_path / "mine").record
    assert (record.name, record.preprocessing, record.stretch) == ("mine", "medsam", True)
    assert read_checkpoint(tmp_path / "mine", preprocessing="sam").record.preprocessing == "sam"


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_checkpoint(tmp_path / "mine", vit_keys(), MODELS["sam_vit_b"])
    before = sha256_of(file)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path / "mine", vit_keys(1024), MODELS["sam_vit_l"])
    assert sha256_of(file) == before
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


def test_folders_and_notes_that_are_not_ours_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"folder without model.safetensors"):
        read_checkpoint(tmp_path)
    for notes, reason in (
        ("{", "damaged"),
        ('{"version": 99}', "newer version"),
        ("[]", "damaged"),
        ('{"version": 1e400}', "damaged"),
    ):
        save_file(vit_keys(), tmp_path / "model.safetensors", metadata={"napari_sam_med": notes})
        with pytest.raises(ModelError, match=reason):
            read_checkpoint(tmp_path)


def test_missing_models_say_how_to_get_them(home: Path) -> None:
    with pytest.raises(ModelError, match=r"models fetch medsam.*put its file into .*models as medsam.pth"):
        read_checkpoint("medsam")
    with pytest.raises(ModelError, match="There is no model"):
        read_checkpoint("nowhere/file.pth")
