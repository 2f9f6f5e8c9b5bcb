"""Statements 35 and 37: code in a file never runs, whichever way the file is loaded."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import napari_sam_med
from napari_sam_med.cli import main
from napari_sam_med.errors import ModelError
from napari_sam_med.sam import checkpoints
from napari_sam_med.sam.checkpoints import load_state_dict, read_checkpoint, verify
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.predictor import load_predictor

PACKAGE = Path(napari_sam_med.__file__).parent

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.sentinel),)


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    return tmp_path / "was run"


def _zipped(file: Path, trap: Trap) -> None:
    torch.save({"model": {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768), "x": trap}}, file)


def _old(file: Path, trap: Trap) -> None:
    torch.save({"x": trap}, file, _use_new_zipfile_serialization=False)


def _bare(file: Path, trap: Trap) -> None:
    file.write_bytes(pickle.dumps(trap))


def _first_protocol(file: Path, trap: Trap) -> None:
    file.write_bytes(pickle.dumps(trap, protocol=0))


WRITERS = [_zipped, _old, _bare, _first_protocol]


@pytest.fixture(params=WRITERS, ids=lambda writer: writer.__name__.strip("_"))
def malicious(request: pytest.FixtureRequest, sentinel: Path) -> Callable[[Path], Path]:
    """Writes a malicious checkpoint to a path."""

    def write(file: Path) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        request.param(file, Trap(sentinel))
        return file

    return write


def test_the_trap_works(tmp_path: Path, sentinel: Path) -> None:
    for writer in WRITERS:
        writer(tmp_path / "bad.pth", Trap(sentinel))
        torch.load(tmp_path / "bad.pth", weights_only=False) if writer in (_zipped, _old) else pickle.loads(  # noqa: S301  our own bytes: the trap must be one
            (tmp_path / "bad.pth").read_bytes()
        )
        assert sentinel.exists()
        sentinel.rmdir()


@pytest.mark.parametrize("name", ["bad.pth", "bad.safetensors", "bad", "bad.ckpt"])
def test_a_users_file_runs_no_code(
    malicious: Callable[[Path], Path], sentinel: Path, tmp_path: Path, name: str
) -> None:
    file = malicious(tmp_path / name)
    for load in (load_state_dict, read_checkpoint, verify, load_predictor):
        with pytest.raises(ModelError, match=re.escape(name)):
            load(file)
    assert not sentinel.exists()


def test_a_folder_of_fine_tuning_runs_no_code(
    malicious: Callable[[Path], Path], sentinel: Path, tmp_path: Path
) -> None:
    malicious(tmp_path / "tuned" / "model.safetensors")
    with pytest.raises(ModelError):
        load_predictor(tmp_path / "tuned")
    assert not sentinel.exists()


def test_a_registered_file_runs_no_code_even_where_the_digest_fits(
    malicious: Callable[[Path], Path], sentinel: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = malicious(home / "models" / "sam_vit_b.pth")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "load_state_dict", lambda path: pytest.fail("the file was parsed"))
        with pytest.raises(ModelError, match="damaged or another file"):
            load_predictor("sam_vit_b")
    digest = checkpoints.sha256_of(file)
    monkeypatch.setitem(MODELS, "sam_vit_b", replace(MODELS["sam_vit_b"], sha256=digest))
    with pytest.raises(ModelError):
        load_predictor("sam_vit_b")
    assert not sentinel.exists()


def test_a_video_model_runs_no_code(
    malicious: Callable[[Path], Path], sentinel: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    from napari_sam_med.segmentation.video_weights import read_video_weights

    with pytest.raises(ModelError):
        read_video_weights(malicious(tmp_path / "MedSAM2_latest.pt"))
    malicious(tmp_path / "folder" / "model.safetensors")
    malicious(tmp_path / "folder" / "pytorch_model.bin")  # what transformers would unpickle
    (tmp_path / "folder" / "modeling_evil.py").write_text(f"import os; os.mkdir({str(sentinel)!r})")
    described = {"model_type": "sam2_video", "auto_map": {"AutoModel": "modeling_evil.Evil"}}
    (tmp_path / "folder" / "config.json").write_text(json.dumps(described))
    with pytest.raises(ModelError):
        read_video_weights(tmp_path / "folder")
    (tmp_path / "folder" / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        read_video_weights(tmp_path / "folder")
    assert not sentinel.exists()


def test_going_on_with_training_runs_no_code(
    malicious: Callable[[Path], Path], sentinel: Path, tmp_path: Path
) -> None:
    from napari_sam_med.training.train_nano import main as train

    command = ["-o", str(tmp_path), "--images", "1", "--prompts", "2", "--replicas", "1", "--scenes", "2"]
    malicious(tmp_path / "checkpoint.pt")
    with pytest.raises((pickle.UnpicklingError, RuntimeError)):
        train([*command, "--steps", "1"])
    (tmp_path / "checkpoint.pt").rename(tmp_path / "other.pt")
    with pytest.raises((pickle.UnpicklingError, RuntimeError)):
        train([*command, "--steps", "1", "--start-from", str(tmp_path / "other.pt")])
    assert not sentinel.exists()


def test_an_entry_of_the_store_runs_no_code(
    malicious: Callable[[Path], Path], sentinel: Path, tmp_path: Path
) -> None:
    malicious(tmp_path / f"{'ab' * 32}.safetensors")
    assert EmbeddingStore(tmp_path).get("ab" * 32) is None
    assert not sentinel.exists()


def test_commands_run_no_code(
    malicious: Callable[[Path], Path], sentinel: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = malicious(tmp_path / "bad.pth")
    assert main(["models", "verify", str(file)]) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("error: bad.pth")
    assert not sentinel.exists()


def _calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_nothing_in_the_package_unpickles() -> None:
    """Statement 35, by looking at every module: `weights_only=True` is nowhere left out."""
    unpicklers = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for file in PACKAGE.rglob("*.py"):
        place = file.relative_to(PACKAGE).as_posix()
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found = unpicklers & {name.split(".")[0] for name in names}
            assert not found or place == "sam/checkpoints.py", place
        for name, call in _calls(tree):
            assert name not in ("eval", "exec", "torch.hub.load", "torch.jit.load"), place
            assert not name.startswith("pickle."), place
            keywords = {
                keyword.arg: ast.unparse(keyword.value)
                for keyword in call.keywords
                if keyword.arg in ("allow_pickle", "trust_remote_code", "weights_only")
            }
            assert keywords.get("allow_pickle", "False") == "False", place
            assert keywords.get("trust_remote_code", "False") == "False", place
            if name == "torch.load":
                assert keywords.get("weights_only") == "True", place
            # the state of a training run alone; weights are written as safetensors
            runs = ("training/train_nano.py", "training/tuner_checkpoint.py")
            assert name != "torch.save" or place in runs, place


def test_torch_is_new_enough_for_weights_only() -> None:
    """Statement 35: before 2.10 even `weights_only=True` could be made to run code (CVE-2026-24747)."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    [torch_range] = [line for line in project["project"]["dependencies"] if re.match(r"torch\b", line)]
    least = re.search(r">=\s*(\d+)\.(\d+)", torch_range)
    assert least is not None
    assert (int(least[1]), int(least[2])) >= (2, 10)
