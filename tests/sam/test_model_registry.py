"""The models on offer, and where their files are looked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.model_registry import (
    MODELS,
    checkpoint_path,
    get_record,
    is_available,
    model_folder,
    user_folder,
    with_preprocessing,
)
from tests.sam.fresh_process import output_of

NAMES = ["nano", "mobile_sam", "sam_vit_b", "sam_vit_l", "sam_vit_h", "medsam", "medicosam"]


def test_the_models_of_the_contract() -> None:
    assert list(MODELS) == NAMES
    for name, record in MODELS.items():
        assert record.name == name
        assert record.licence in ("Apache-2.0", "MIT")
        assert record.preprocessing in ("sam", "medsam", "nano")
        assert record.accepts <= {"point", "box", "mask"}
        assert get_record(name) is record


@pytest.mark.parametrize("name", NAMES[1:])
def test_what_can_be_fetched_can_be_verified(name: str) -> None:
    record = MODELS[name]
    assert record.url is not None
    assert record.url.startswith("https://")
    assert record.digest is not None
    algorithm, value = record.digest
    assert re.fullmatch(r"[0-9a-f]+", value)
    assert len(value) == {"sha256": 64, "md5": 32, "xxh128": 32}[algorithm]
    assert not re.search(r"[/\\]", record.file_name)


def test_digests_are_all_different() -> None:
    digests = [record.digest for record in MODELS.values()]
    assert len(set(digests)) == len(digests)


def test_registry_loads_no_torch() -> None:
    code = "import sys, napari_sam_med.sam.model_registry; print('torch' in sys.modules)"
    assert output_of(code) == "False\n"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ModelError, match=r"give one of nano, mobile_sam, .*path of a checkpoint"):
        get_record("mobilesam")


def test_preprocessing_of_unknown_files() -> None:
    sam = MODELS["sam_vit_b"]
    assert with_preprocessing(sam, None) is sam
    assert with_preprocessing(sam, "sam") is sam
    medsam = with_preprocessing(sam, "medsam")
    assert (medsam.stretch, medsam.multimask, medsam.accepts) == (True, False, {"box"})
    back = with_preprocessing(MODELS["medsam"], "sam")
    assert (back.stretch, back.multimask, back.accepts) == (False, True, {"point", "box", "mask"})
    with pytest.raises(ModelError, match="give sam or medsam"):
        with_preprocessing(sam, "nano")


def test_folders(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_folder() == home / "models"
    assert user_folder("cache") == home / "cache"
    monkeypatch.delenv("NAPARI_SAM_MED_HOME")
    assert "napari-sam-med" in str(model_folder())
    assert model_folder() != user_folder("cache")


def test_where_checkpoints_are_found(home: Path) -> None:
    assert is_available("nano")
    assert not is_available("mobile_sam")
    assert not is_available("no_such_model")
    (home / "models").mkdir(parents=True)
    assert checkpoint_path("mobile_sam") is None
    by_size = home / "models" / "renamed.bin"
    with by_size.open("wb") as file:
        file.truncate(MODELS["mobile_sam"].size_bytes)
    assert checkpoint_path("mobile_sam") == by_size
    published = home / "models" / "mobile_sam.pt"
    published.touch()
    assert checkpoint_path("mobile_sam") == published
    ours = home / "models" / "mobile_sam.pth"
    ours.touch()
    assert checkpoint_path("mobile_sam") == ours
    assert is_available("mobile_sam")
