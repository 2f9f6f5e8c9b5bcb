"""``models export-onnx``: what is passed on, said and refused; the files are tested where they are made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from napari_sam_med.sam.onnx_export import OnnxFile
from tests.cli.cli_scan import Run

Runner = Callable[..., Run]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What the export was asked for; it writes nothing."""
    calls: list[tuple] = []

    def export(model: str, path: Path, **options: object) -> OnnxFile:
        calls.append((model, path, options))
        masks = 1 if options["multimask"] is False else 4
        return OnnxFile(path, model, ("image_embeddings", "point_coords"), ("masks",), masks, 20, 2e-6, 6)

    monkeypatch.setattr("napari_sam_med.sam.onnx_export.export_onnx", export)
    return calls


def test_what_is_written_is_said(run: Runner, asked: list[tuple], tmp_path: Path) -> None:
    path = tmp_path / "decoder.onnx"
    answer = run("models", "export-onnx", "nano", "-o", path)
    assert answer.status == 0, answer.err
    assert "nano with four masks, opset 20" in answer.out
    assert "image_embeddings, point_coords" in answer.out
    assert "at most 2.0e-06" in answer.out
    more = ("--single", "--opset", "18", "--preprocessing", "medsam", "--json")
    document = json.loads(run("models", "export-onnx", "own.pth", "-o", path, *more).out)
    assert document["masks"] == 1
    assert document["path"] == str(path)
    assert asked == [
        ("nano", path, {"multimask": None, "opset": None, "preprocessing": None}),
        ("own.pth", path, {"multimask": False, "opset": 18, "preprocessing": "medsam"}),
    ]


def test_refusals(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "decoder.onnx"
    assert "written as .onnx" in run("models", "export-onnx", "nano", "-o", tmp_path / "x.pt").error
    assert "does not exist" in run("models", "export-onnx", "nano", "-o", tmp_path / "no" / "x.onnx").error
    assert 'no model "none"' in run("models", "export-onnx", "none", "-o", path).error
    assert "models fetch sam_vit_b" in run("models", "export-onnx", "sam_vit_b", "-o", path).error
    assert list(tmp_path.glob("*.onnx")) == []
