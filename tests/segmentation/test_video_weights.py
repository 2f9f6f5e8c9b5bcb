"""Weights of video models: every tensor finds its place in either layout; what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from napari_sam_med.errors import ModelError
from napari_sam_med.segmentation import video_extra
from napari_sam_med.segmentation.video_extra import is_available, model_path
from napari_sam_med.segmentation.video_weights import in_transformers_layout, read_video_weights, sam2_config
from tests.segmentation.tiny_sam2 import SIDE, meta_shapes, tiny_video_model, write_folder

pytest.importorskip("transformers")


def numbered(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A tensor for every name, filled with a number of its own; it takes one number of memory."""
    return {
        name: torch.tensor(float(i)).reshape(1).expand(shape)
        for i, (name, shape) in enumerate(shapes.items())
    }


def test_every_tensor_of_metas_file_is_loaded(tmp_path: Path) -> None:
    weights = numbered(meta_shapes())
    torch.save({"model": weights}, tmp_path / "MedSAM2.pt")
    read = read_video_weights(
        tmp_path / "MedSAM2.pt", image_size=SIDE
    )  # raises if one is missing or left over
    loaded = read.model.state_dict()
    values = {float(tensor.flatten()[0]) for tensor in loaded.values()}
    points = [float(row[0]) for row in loaded["prompt_encoder.point_embed.weight"]]
    assert values | set(points) == set(map(float, range(len(weights))))
    for ours, metas in {
        "vision_encoder.backbone.blocks.3.mlp.proj_in.bias": "image_encoder.trunk.blocks.3.mlp.layers.0.bias",
        "vision_encoder.neck.convs.2.weight": "image_encoder.neck.convs.2.conv.weight",
        "memory_attention.layers.1.cross_attn_image.o_proj.weight": (
            "memory_attention.layers.1.cross_attn_image.out_proj.weight"
        ),
        "memory_encoder.mask_downsampler.layers.2.layer_norm.bias": (
            "memory_encoder.mask_downsampler.encoder.7.bias"
        ),
        "memory_encoder.memory_fuser.layers.1.scale": "memory_encoder.fuser.layers.1.gamma",
        "mask_decoder.iou_prediction_head.layers.0.weight": (
            "sam_mask_decoder.iou_prediction_head.layers.1.weight"
        ),
        "mask_decoder.transformer.layer_norm_final_attn.weight": (
            "sam_mask_decoder.transformer.norm_final_attn.weight"
        ),
        "object_pointer_proj.proj_in.weight": "obj_ptr_proj.layers.0.weight",
        "shared_image_embedding.positional_embedding": (
            "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
        ),
    }.items():
        assert float(loaded[ours].flatten()[0]) == float(weights[metas].flatten()[0]), ours


def test_medsam2_is_shown_squares_of_512_pixels_unless_told_otherwise(tmp_path: Path) -> None:
    torch.save({"model": numbered(meta_shapes())}, tmp_path / "weights.pt")
    read = read_video_weights(tmp_path / "weights.pt")
    assert read.record.input_size == read.model.config.image_size == 512
    assert read.model.config.memory_attention_rope_feat_sizes == [32, 32]
    assert read.record.architecture == "sam2_hiera_t"
    with pytest.raises(ModelError, match="multiple of 32 from 64 on, got 100"):
        read_video_weights(tmp_path / "weights.pt", image_size=100)


@pytest.mark.parametrize(
    ("stages", "width", "heads"),
    [
        ((1, 2, 11, 2), 96, [1, 2, 4, 8]),
        ((2, 3, 16, 3), 112, [2, 4, 8, 16]),
        ((2, 6, 36, 4), 144, [2, 4, 8, 16]),
    ],
)
def test_the_architecture_is_told_from_names_and_shapes(
    stages: tuple[int, ...], width: int, heads: list[int]
) -> None:
    from transformers import Sam2VideoModel

    weights = numbered(meta_shapes(stages, width))
    config = sam2_config(weights, 1024)
    assert config.vision_config.backbone_config.num_attention_heads_per_stage == heads
    with torch.device("meta"):
        expected = {key: value.shape for key, value in Sam2VideoModel(config).state_dict().items()}
    found = {key: value.shape for key, value in in_transformers_layout(weights).items()}
    del expected["shared_image_embedding.positional_embedding"]  # a second name of the prompt encoder's
    assert found == expected


def test_the_parts_that_came_with_2_1_may_be_missing() -> None:
    shapes = meta_shapes()
    for name in ("no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias"):
        del shapes[name]
    config = sam2_config(numbered(shapes), 1024)
    assert not config.enable_occlusion_spatial_embedding
    assert not config.enable_temporal_pos_encoding_for_object_pointers


def test_a_folder_of_transformers_is_read(tmp_path: Path) -> None:
    model = tiny_video_model()
    write_folder(tmp_path / "tiny", model)
    read = read_video_weights(tmp_path / "tiny")
    assert (read.record.name, read.record.input_size) == ("tiny", SIDE)
    loaded = read.model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_of_the_folder_stands_for_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_folder(tmp_path / "tiny", tiny_video_model())
    monkeypatch.chdir(tmp_path / "tiny")
    assert model_path(name) == model_path(tmp_path / "tiny" / name) == tmp_path / "tiny"
    assert read_video_weights(name).record.name == "tiny"
    (tmp_path / "tiny" / "config.json").unlink()
    assert model_path(tmp_path / "tiny" / name) == tmp_path / "tiny" / name


@pytest.mark.parametrize(
    "odd",
    [
        {"image_size": "wide"},
        {"vision_config": {"backbone_config": {"model_type": "nope"}}},
        {"mask_decoder_config": {"hidden_size": 7}},
        {"num_maskmem": -3},
    ],
)
def test_a_description_that_makes_no_sense_is_refused_in_one_line(tmp_path: Path, odd: dict) -> None:
    write_folder(tmp_path / "odd", tiny_video_model())
    config = json.loads((tmp_path / "odd" / "config.json").read_text())
    (tmp_path / "odd" / "config.json").write_text(json.dumps(config | odd))
    with pytest.raises(ModelError, match=r"odd/config\.json describes no SAM 2 video model") as refused:
        read_video_weights(tmp_path / "odd")
    assert "\n" not in str(refused.value)


def test_a_tensor_that_is_missing_or_left_over_is_named(tmp_path: Path) -> None:
    weights = numbered(meta_shapes())
    del weights["mask_downsample.bias"]
    torch.save({"model": weights}, tmp_path / "less.pt")
    with pytest.raises(ModelError, match=r"less\.pt .* mask_downsample\.bias is missing"):
        read_video_weights(tmp_path / "less.pt", image_size=SIDE)
    more = numbered(meta_shapes()) | {"boundary.weight": torch.zeros(1)}
    torch.save({"model": more}, tmp_path / "more.pt")
    with pytest.raises(ModelError, match=r"boundary\.weight is unknown"):
        read_video_weights(tmp_path / "more.pt", image_size=SIDE)


def test_other_models_are_refused(tmp_path: Path) -> None:
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}, tmp_path / "sam.pth")
    with pytest.raises(ModelError, match=r"sam\.pth is no SAM 2 video model"):
        read_video_weights(tmp_path / "sam.pth")
    write_folder(tmp_path / "image", tiny_video_model())
    config = json.loads((tmp_path / "image" / "config.json").read_text())
    (tmp_path / "image" / "config.json").write_text(json.dumps(config | {"model_type": "sam2"}))
    with pytest.raises(ModelError, match='model of type "sam2"; a SAM 2 video model has "sam2_video"'):
        read_video_weights(tmp_path / "image")
    with pytest.raises(ModelError, match=r"must hold config\.json and model\.safetensors"):
        read_video_weights(tmp_path)
    with pytest.raises(ModelError, match="There is no video model"):
        read_video_weights(tmp_path / "nothing.pt")
    (tmp_path / "image" / "config.json").unlink()
    with pytest.raises(ModelError, match="give its folder"):
        read_video_weights(tmp_path / "image" / "model.safetensors")


class Exploit:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    torch.save({"model": numbered(meta_shapes()), "extra": Exploit(trap)}, tmp_path / "bad.pt")
    with pytest.raises(ModelError, match="code in checkpoints is never run"):
        read_video_weights(tmp_path / "bad.pt")
    assert not trap.exists()


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert is_available()
    monkeypatch.setattr(video_extra.importlib.util, "find_spec", lambda name: None)
    assert not is_available()
    with pytest.raises(ModelError, match=r'pip install "napari-sam-med\[video\]"'):
        read_video_weights(tmp_path)
