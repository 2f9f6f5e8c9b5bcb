"""Free words: the CLIP models that are taken, the crops that they see, the ranking that comes of it."""

from __future__ import annotations

import json
import pickle
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from napari_sam_med.errors import ModelError, PromptError
from napari_sam_med.segmentation.automatic.clip_model import load_clip
from napari_sam_med.segmentation.automatic.clip_words import TEMPLATES, crop_of, rank_by_text, texts_for
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

open_clip = pytest.importorskip("open_clip")
from tests.segmentation.automatic.clip_folder import (  # noqa: E402  it needs the extra, too
    CONFIG,
    PREPROCESSING,
    biomed_clip,
    plain_clip,
)


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Nothing is fetched, silently or not."""

    def refuse(*_):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def picture(side=50):
    return np.random.default_rng(0).integers(0, 255, (side, side + 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("build", [plain_clip, biomed_clip])
def test_a_published_folder_answers_as_open_clip_does(build, tmp_path):
    network = build(tmp_path / "clip")
    clip = load_clip(tmp_path / "clip", device="cpu")
    from open_clip.transform import PreprocessCfg, image_transform_v2

    size = network.visual.image_size
    prepare = image_transform_v2(PreprocessCfg(**PREPROCESSING, size=size), is_train=False)
    with torch.inference_mode():
        seen = network.encode_image(prepare(Image.fromarray(picture()))[None], normalize=True)
        said = network.encode_text(clip.tokenize(["a liver", "the spleen"]), normalize=True)
    np.testing.assert_allclose(clip.of_pictures([picture()]), seen, atol=1e-6)
    np.testing.assert_allclose(clip.of_texts(["a liver", "the spleen"]), said, atol=1e-6)
    assert clip.scale == pytest.approx(float(network.logit_scale.detach().exp()))


def test_the_tokenizer_of_the_folder_is_used(tmp_path):
    biomed_clip(tmp_path / "clip")
    ids = load_clip(tmp_path / "clip", device="cpu").tokenize(["the Liver"])
    assert ids[0, :4].tolist() == [2, 6, 7, 3]
    assert ids.shape == (1, 32)
    (tmp_path / "clip" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer \(tokenizer.json or vocab.txt\)"):
        load_clip(tmp_path / "clip")


def test_a_file_of_weights_needs_a_config_beside_it_or_a_name(tmp_path):
    plain_clip(tmp_path / "clip")
    weights = tmp_path / "clip" / "open_clip_model.safetensors"
    assert load_clip(weights, device="cpu").name == weights.name
    (tmp_path / "clip" / CONFIG).unlink()
    with pytest.raises(ModelError, match="--text-architecture"):
        load_clip(weights)
    with pytest.raises(ModelError, match=r'no architecture "ViT"; give one of open_clip.list_models'):
        load_clip(weights, "ViT")


def test_refusals(tmp_path):
    with pytest.raises(ModelError, match=r"no CLIP model .*none"):
        load_clip(tmp_path / "none")
    with pytest.raises(ModelError, match=CONFIG):
        load_clip(tmp_path)
    plain_clip(tmp_path / "clip")
    (tmp_path / "clip" / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        load_clip(tmp_path / "clip")
    weights = tmp_path / "clip" / "weights.pt"
    weights.write_bytes(pickle.dumps(SimpleNamespace(a=1), protocol=2))
    with pytest.raises(ModelError, match="never run"):
        load_clip(tmp_path / "clip")
    torch.save({"visual.proj": torch.zeros(2, 2)}, weights)
    with pytest.raises(ModelError, match="no CLIP model of its config"):
        load_clip(tmp_path / "clip")
    (tmp_path / "clip" / CONFIG).write_text(json.dumps({"model_cfg": {}}))
    with pytest.raises(ModelError, match="cannot be read"):
        load_clip(tmp_path / "clip")


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
def test_a_program_is_not_run(tmp_path):
    plain_clip(tmp_path / "clip")
    (tmp_path / "clip" / "open_clip_model.safetensors").unlink()
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "clip" / "weights.pt"))
    with pytest.raises(ModelError, match=r"TorchScript.*never run"):
        load_clip(tmp_path / "clip")


SHAPE = (3, 40, 60)


@pytest.fixture
def scan():
    """Two bright squares of 12 and 18 mm on slices with pixels of 3 x 1.5 mm."""
    data = np.full(SHAPE, -1000, dtype=np.int16)
    data[1, 10:14, 8:16] = 100
    data[1, 24:30, 40:52] = 240
    return Volume(data, Grid.from_zyx(SHAPE, (5.0, 3.0, 1.5)))


def found(number, rows, columns):
    mask = np.zeros(SHAPE[1:], dtype=bool)
    mask[rows, columns] = True
    return FoundObject(number, {SliceView("axial", 1): FoundMask.of(mask, 1.0, 1.0)}, 1.0)


DIM, BRIGHT = found(1, slice(10, 14), slice(8, 16)), found(2, slice(24, 30), slice(40, 52))


def test_a_crop_has_square_pixels_and_the_object_in_its_middle(scan):
    crop = crop_of(scan, BRIGHT, (-160, 240))
    assert crop.shape == (18, 18, 3)  # 27 mm: 18 and a quarter on each side, in pixels of 1.5 mm
    inside = crop[..., 0] > 128
    rows, columns = np.nonzero(inside)
    assert abs(rows.mean() - 8.5) < 0.6
    assert abs(columns.mean() - 8.5) < 0.6
    assert 11 <= np.ptp(rows) + 1 <= 13
    assert 11 <= np.ptp(columns) + 1 <= 13


def test_beyond_the_slice_a_crop_is_black(scan):
    corner = found(3, slice(0, 4), slice(0, 4))
    crop = crop_of(scan, corner, (-1000, -999))
    assert crop.shape[0] == crop.shape[1]
    assert not crop[:4, :4].any()


class Brightness:
    """Says of pictures how bright their middle is, and of texts whether they ask for it."""

    name, scale = "brightness", 10.0

    def __init__(self):
        self.texts = []

    def of_pictures(self, pictures):
        values = np.array([p[len(p) // 2, len(p) // 2, 0] / 255 for p in pictures])
        return np.stack([values, np.sqrt(1 - values**2)], axis=1).astype(np.float32)

    def of_texts(self, texts):
        self.texts += texts
        return np.array([[1.0, 0.0] if "bright" in text else [0.0, 1.0] for text in texts], dtype=np.float32)


def test_the_object_that_fits_the_text_best_comes_first(scan):
    seen = []
    ranked = rank_by_text([DIM, BRIGHT], "bright  lesion", scan, Brightness(), on_progress=seen.append)
    assert [one.object.number for one in ranked] == [2, 1]
    assert sum(one.score for one in ranked) == pytest.approx(1)
    assert [progress.done for progress in seen] == [1, 2]
    dark = rank_by_text([DIM, BRIGHT], "dark lesion", scan, Brightness())
    assert [one.object.number for one in dark] == [1, 2]


def test_a_word_is_put_into_several_sentences(scan):
    clip = Brightness()
    rank_by_text([DIM], " bright   lesion ", scan, clip)
    assert clip.texts == texts_for("bright lesion", scan)
    assert len(set(clip.texts)) == len(TEMPLATES)
    assert "a CT image showing the bright lesion" in clip.texts
    assert rank_by_text([], "lesion", scan, clip) == []
    with pytest.raises(PromptError, match="no word"):
        rank_by_text([DIM], "  ", scan, clip)
