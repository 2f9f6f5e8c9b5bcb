"""Files that answer as torch and as segment_anything's own export do, or are not written."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything.utils.onnx import SamOnnxModel

from napari_sam_med import Prompts, SliceView, load_predictor, read_volume, to_rgb
from napari_sam_med.errors import ExportError, ModelError
from napari_sam_med.sam import onnx_export
from napari_sam_med.sam.architectures.meta import SamNetwork
from napari_sam_med.sam.model_registry import MODELS, with_preprocessing
from napari_sam_med.sam.onnx_decoders import nano_decoder, sam_decoder
from napari_sam_med.sam.onnx_export import OUTPUTS, TOLERANCE, export_decoder
from napari_sam_med.sam.onnx_reference import answers_of_torch, cases, example_features
from napari_sam_med.sample_data import sample_volume
from tests.sam.micro_sam import MICRO_RECORD, MICRO_SIDE, build_micro_sam

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "onnx.md").read_text("utf-8")
MEDSAM = with_preprocessing(MICRO_RECORD, "medsam")
CASES = cases(MICRO_SIDE, MICRO_SIDE // 4)


@pytest.fixture(scope="module")
def sam():
    return build_micro_sam()


@pytest.fixture(scope="module")
def network(sam):
    return SamNetwork(sam.image_encoder, sam.prompt_encoder, sam.mask_decoder).eval()


@pytest.fixture(scope="module")
def features(network):
    return example_features(network)


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    return export_decoder(network, MICRO_RECORD, tmp_path_factory.mktemp("onnx") / "micro.onnx", sha256="abc")


def same(found, right):
    for name, one, other in zip(OUTPUTS, found, right, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert one.shape == other.shape, name
        assert np.abs(one - other).max() <= TOLERANCE * max(1.0, np.abs(other).max()), name


@pytest.mark.slow
def test_the_file_answers_as_the_export_of_segment_anything(exported, sam, features):
    meta = SamOnnxModel(sam, return_single_mask=False)
    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == list(exported.inputs)
    assert exported.inputs == (
        *("image_embeddings", "point_coords", "point_labels"),
        *("mask_input", "has_mask_input", "orig_im_size"),
    )
    rng = np.random.default_rng(0)
    for n_points, size in ((1, (90, 120)), (2, (128, 128)), (7, (77, 31))):
        given = {
            "image_embeddings": features[0].numpy(),
            "point_coords": rng.uniform(0, MICRO_SIDE, (1, n_points, 2)).astype(np.float32),
            "point_labels": rng.choice([-1, 0, 1, 2, 3], (1, n_points)).astype(np.float32),
            "mask_input": rng.normal(0, 3, (1, 1, 32, 32)).astype(np.float32),
            "has_mask_input": np.array([n_points % 2], dtype=np.float32),
            "orig_im_size": np.array(size, dtype=np.float32),
        }
        with torch.inference_mode():
            right = meta(*(torch.from_numpy(value) for value in given.values()))
        same(session.run(list(OUTPUTS), given), [tensor.numpy() for tensor in right])
        assert right[0].shape == (1, 4, *size)


@pytest.mark.slow
def test_the_file_is_one_and_says_what_it_is(exported):
    assert [path.name for path in exported.path.parent.iterdir()] == ["micro.onnx"]
    assert exported.masks == 4
    assert exported.largest_difference <= TOLERANCE
    assert exported.checked == len(CASES)
    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["napari_sam_med.model"] == "micro"
    assert facts["napari_sam_med.sha256"] == "abc"
    assert facts["napari_sam_med.note"] == "Not for clinical use."


def test_one_mask_is_chosen_as_segment_anything_chooses(sam, network, features):
    meta = SamOnnxModel(sam, return_single_mask=True)
    ours = sam_decoder(network, MICRO_RECORD, multimask=False)
    for case in CASES:
        prompts = case.prompts()
        with torch.inference_mode():
            same(ours(*features, *prompts), meta(*features, *prompts))


@pytest.mark.parametrize("record", [MICRO_RECORD, MEDSAM])
def test_what_is_exported_answers_as_predictions_do(record, network, features):
    wants = (True, False) if record.multimask else (False,)
    for multimask in wants:
        module = sam_decoder(network, record, multimask=multimask)
        for case in CASES:
            with torch.inference_mode():
                found = module(*features, *case.prompts())
            same(found, answers_of_torch(network, record, features, case, multimask=multimask))


def test_nano_takes_the_same_interface_with_its_own_features():
    predictor = load_predictor("nano", device="cpu")
    network, record = predictor.network, MODELS["nano"]
    features = example_features(network)
    for multimask in (True, False):
        module = nano_decoder(network, record, multimask=multimask)
        for case in cases(256, 256):
            with torch.inference_mode():
                found = module(*features, *case.prompts())
            same(found, answers_of_torch(network, record, features, case, multimask=multimask))


@pytest.mark.slow
def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict = {}
    exec(compile(block, "docs/onnx.md", "exec"), names)
    volume = read_volume(sample_volume())
    predictor = load_predictor("nano", device="cpu")
    embedding = predictor.embed(to_rgb(volume, SliceView("axial", 24)))
    right = predictor.predict(embedding, Prompts.from_box((30, 40, 90, 100)), multimask=False).best_mask
    assert right.any()
    assert (names["mask"] != right).mean() < 1e-3


class Stand:
    """Takes the place of the exporter: puts a file of a kind where the new one would be."""

    def __init__(self, source):
        self.source = source

    def __call__(self, module, features, case, path, *_):
        shutil.copy(self.source, path)
        return 20


@pytest.mark.slow
def test_a_file_that_answers_otherwise_is_not_kept(exported, network, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_write", Stand(exported.path))
    path = tmp_path / "old.onnx"
    path.write_text("earlier")
    monkeypatch.setattr(
        onnx_export,
        "answers_of_torch",
        lambda *arguments, **options: [one + 0.01 for one in answers_of_torch(*arguments, **options)],
    )
    with pytest.raises(ModelError, match=r"differs from torch by .* in iou_predictions|in masks"):
        export_decoder(network, MICRO_RECORD, path)
    assert path.read_text() == "earlier"
    assert [one.name for one in tmp_path.iterdir()] == ["old.onnx"]


def test_refusals(network, tmp_path, monkeypatch):
    path = tmp_path / "x.onnx"
    with pytest.raises(ModelError, match="one mask; export it with --single"):
        export_decoder(network, MEDSAM, path, multimask=True)
    with pytest.raises(ModelError, match="give 18 or more"):
        export_decoder(network, MICRO_RECORD, path, opset=11)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_export, "_write", full)
    with pytest.raises(ExportError, match="No space left"):
        export_decoder(network, MICRO_RECORD, path)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModelError, match=r"onnxscript.*napari-sam-med\[onnx\]"):
        export_decoder(network, MICRO_RECORD, path)
    assert list(tmp_path.iterdir()) == []


def test_models_trained_for_one_mask_are_exported_with_one(network, tmp_path, monkeypatch):
    asked = []

    def stop(module, *_):
        asked.append(module.multimask)
        raise OSError(28, "enough")

    monkeypatch.setattr(onnx_export, "_write", stop)
    for record in (MICRO_RECORD, replace(MEDSAM, name="own")):
        with pytest.raises(ExportError):
            export_decoder(network, record, tmp_path / "x.onnx")
    assert asked == [True, False]
