"""Weights of SAM 2 video models: a folder of transformers, or a file in the sam2 repository's layout.

Only this module knows how the two name the same tensors. The names on the left of the rules are those of
facebookresearch/sam2 (`SAM2Base`), those on the right of `transformers.Sam2VideoModel`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.checkpoints import FOLDER_CHECKPOINT, load_state_dict, sha256_of
from napari_sam_med.sam.layouts import StateDict
from napari_sam_med.sam.model_registry import ModelRecord
from napari_sam_med.sam.native_imports import hide_triton_beside_software_opengl
from napari_sam_med.segmentation.video_extra import is_available, model_path

__all__ = ["VideoWeights", "in_transformers_layout", "read_video_weights", "sam2_config"]

_PUBLISHED = {
    "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69": "SAM 2.1 Hiera-T",
    "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38": "SAM 2.1 Hiera-S",
    "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5": "SAM 2.1 Hiera-B+",
    "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318": "SAM 2.1 Hiera-L",
}
"""SHA-256 of Meta's files (dl.fbaipublicfiles.com/segment_anything_2/092824)."""
_SIDE = 1024
_MEDSAM2_SIDE = 512
_STRIDE = 16
_POSITIONS = "shared_image_embedding.positional_embedding"
_PROMPT_POSITIONS = "prompt_encoder.shared_embedding.positional_embedding"
_POINT_EMBEDDINGS = "sam_prompt_encoder.point_embeddings.{}.weight"
_TRUNK = "image_encoder.trunk."
_MOST_KEY_MEMORIES = 8
"""Key slices that a slice attends to at most, the nearest ones: a slice's time grows with them."""


@dataclass(frozen=True)
class _Hiera:
    """What the names and shapes in a file do not say of an image encoder (the sam2 repository's configs)."""

    name: str
    stages: tuple[int, ...]
    heads: tuple[int, ...]
    windows: tuple[int, ...]
    global_blocks: tuple[int, ...]


_HIERAS = {
    (96, 12): _Hiera("sam2_hiera_t", (1, 2, 7, 2), (1, 2, 4, 8), (8, 4, 14, 7), (5, 7, 9)),
    (96, 16): _Hiera("sam2_hiera_s", (1, 2, 11, 2), (1, 2, 4, 8), (8, 4, 14, 7), (7, 10, 13)),
    (112, 24): _Hiera("sam2_hiera_b+", (2, 3, 16, 3), (2, 4, 8, 16), (8, 4, 14, 7), (12, 16, 20)),
    (144, 48): _Hiera("sam2_hiera_l", (2, 6, 36, 4), (2, 4, 8, 16), (8, 4, 16, 8), (23, 33, 43)),
}
"""By width of the first stage and number of blocks."""

_MLP = {"0": "proj_in", "1": "proj_out"}
_DEEP_MLP = {"0": "proj_in", "1": "layers.0", "2": "proj_out"}
_MASK_EMBEDDING = {"0": "conv1", "1": "layer_norm1", "3": "conv2", "4": "layer_norm2", "6": "conv3"}
_UPSCALING = {"0": "upscale_conv1", "1": "upscale_layer_norm", "3": "upscale_conv2"}

_PARTS = (
    ("image_encoder.trunk.", "vision_encoder.backbone."),
    ("image_encoder.neck.", "vision_encoder.neck."),
    ("sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", _PROMPT_POSITIONS),
    ("sam_prompt_encoder.", "prompt_encoder."),
    ("sam_mask_decoder.", "mask_decoder."),
    ("memory_encoder.fuser.", "memory_encoder.memory_fuser."),
    ("memory_encoder.pix_feat_proj.", "memory_encoder.feature_projection."),
    ("memory_encoder.out_proj.", "memory_encoder.projection."),
    ("obj_ptr_tpos_proj.", "temporal_positional_encoding_projection_layer."),
    ("obj_ptr_proj.", "object_pointer_proj."),
    ("maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    ("no_obj_embed_spatial", "occlusion_spatial_embedding_parameter"),
    ("no_mem_embed", "no_memory_embedding"),
    ("no_mem_pos_enc", "no_memory_positional_encoding"),
    ("no_obj_ptr", "no_object_pointer"),
)
"""First match wins: what a name begins with."""


def _downsampler(match: re.Match[str]) -> str:
    """The mask downsampler is a row of convolution, norm, activation, and one more convolution."""
    place, index = match["place"], int(match["index"])
    if index == 12:
        return f"{place}final_conv"
    return f"{place}layers.{index // 3}.{('conv', 'layer_norm')[index % 3]}"


_INNER: tuple[tuple[re.Pattern[str], Any], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=\.patch_embed\.)proj(?=\.)", "projection"),
        (r"(?<=\.backbone\.blocks\.)(\d+)\.mlp\.layers\.(\d)", lambda m: f"{m[1]}.mlp.{_MLP[m[2]]}"),
        (r"(?<=\.transformer\.layers\.)(\d+)\.mlp\.layers\.(\d)", lambda m: f"{m[1]}.mlp.{_MLP[m[2]]}"),
        (
            r"(?P<head>output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head|object_pointer_proj)"
            r"\.layers\.(?P<index>\d)",
            lambda m: f"{m['head']}.{_DEEP_MLP[m['index']]}",
        ),
        (r"(?<=\.neck\.convs\.)(\d+)\.conv\.", r"\1."),
        (r"(?<=prompt_encoder\.)mask_downscaling\.(\d)", lambda m: f"mask_embed.{_MASK_EMBEDDING[m[1]]}"),
        (r"(?<=mask_decoder\.)output_upscaling\.(\d)", lambda m: _UPSCALING[m[1]]),
        (r"(?P<place>mask_downsampler\.)encoder\.(?P<index>\d+)", _downsampler),
        (r"\bdwconv\b", "depthwise_conv"),
        (r"\bpwconv(\d)", r"pointwise_conv\1"),
        (r"\bgamma\b", "scale"),
        (r"(?<=\.)norm(?=[\d_.])", "layer_norm"),
        (r"(?<=\.)out_proj(?=\.)", "o_proj"),
    )
)
"""All are applied, to names whose beginning is rewritten already."""


@dataclass(frozen=True, eq=False)
class VideoWeights:
    """A video model that was read.

    Attributes
    ----------
    model : transformers.Sam2VideoModel
        On the cpu, in fp32.
    record : ModelRecord
        ``input_size`` is the side of the square that slices are stretched to.
    sha256 : str
        Of the file with the weights.
    """

    model: Any
    record: ModelRecord
    sha256: str


def read_video_weights(path: str | os.PathLike[str], *, image_size: int | None = None) -> VideoWeights:
    """Read a SAM 2 video model from this machine; nothing is fetched, and no code in files is run.

    Parameters
    ----------
    path : path
        A folder as transformers writes it (``config.json`` and ``model.safetensors`` of a SAM 2.1 video
        model) or one of the two in it, or a file in the layout of the sam2 repository: Meta's
        ``sam2.1_hiera_*.pt``, MedSAM2's ``*.pt``, models fine-tuned from them.
    image_size : int, optional
        Side of the square that slices are shown as, a multiple of 32. It is not in a file: 1024 for Meta's
        (known by SHA-256) and for all but the smallest architecture, else 512 as for MedSAM2.

    Returns
    -------
    VideoWeights

    Raises
    ------
    ModelError
        When transformers is not installed, or the path is none of these.
    """
    if not is_available():
        raise ModelError(
            "Video models are run by the package transformers, which is not installed; install it with "
            'pip install "napari-sam-med[video]".'
        )
    if image_size is not None and (image_size < 64 or image_size % 32):
        raise ModelError(
            f"The side of a video model's image is a multiple of 32 from 64 on, got {image_size}."
        )
    hide_triton_beside_software_opengl()
    path = model_path(path)
    if path.is_dir():
        return _read_folder(path, image_size)
    if not path.is_file():
        raise ModelError(f"There is no video model {path}: give a folder of transformers, or a .pt file.")
    return _read_file(path, image_size)


def _read_folder(folder: Path, image_size: int | None) -> VideoWeights:
    from transformers import Sam2VideoConfig, Sam2VideoModel

    config_path, weights_path = folder / "config.json", folder / FOLDER_CHECKPOINT
    if not config_path.is_file() or not weights_path.is_file():
        raise ModelError(
            f"{folder.name} is no folder of a video model: it must hold config.json and {FOLDER_CHECKPOINT}."
        )
    try:
        described = json.loads(config_path.read_text(encoding="utf-8"))
        model_type = described["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder.name}/config.json cannot be read ({error}); copy it again.") from error
    if model_type != "sam2_video":
        raise ModelError(
            f'{folder.name} holds a model of type "{model_type}"; a SAM 2 video model has "sam2_video".'
        )
    try:
        config = Sam2VideoConfig.from_dict(described)
        side = _set_side(config, image_size or int(config.image_size))
        model = Sam2VideoModel(config)
    except Exception as error:  # broad: a damaged description leads transformers to errors of every kind
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{folder.name}/config.json describes no SAM 2 video model ({reason}); copy it again."
        ) from error
    return VideoWeights(
        _filled(model, load_state_dict(weights_path), folder.name),
        _record(folder.name, folder.name, "sam2_video", side),
        sha256_of(weights_path),
    )


def _read_file(path: Path, image_size: int | None) -> VideoWeights:
    from transformers import Sam2VideoModel

    weights = load_state_dict(path)
    if any(key.startswith("vision_encoder.") for key in weights):
        raise ModelError(
            f"{path.name} is in the layout of transformers; give its folder, with its config.json."
        )
    hiera = _hiera_of(weights, path.name)
    sha256 = sha256_of(path)
    title = _PUBLISHED.get(sha256)
    if image_size is None:
        image_size = _MEDSAM2_SIDE if title is None and hiera.name == "sam2_hiera_t" else _SIDE
    config = sam2_config(weights, image_size)
    return VideoWeights(
        _filled(Sam2VideoModel(config), in_transformers_layout(weights), path.name),
        _record(path.name, title or path.name, hiera.name, image_size),
        sha256,
    )


def _hiera_of(weights: Mapping[str, torch.Tensor], name: str = "This file") -> _Hiera:
    blocks = {key.split(".")[3] for key in weights if key.startswith(f"{_TRUNK}blocks.")}
    stem = weights.get(f"{_TRUNK}patch_embed.proj.weight")
    hiera = None if stem is None else _HIERAS.get((stem.shape[0], len(blocks)))
    if hiera is None or "memory_encoder.out_proj.weight" not in weights:
        raise ModelError(
            f"{name} is no SAM 2 video model that is understood; supported are SAM 2 and 2.1 (Hiera-T, -S, "
            "-B+, -L), MedSAM2, and models fine-tuned from them."
        )
    return hiera


def sam2_config(weights: Mapping[str, torch.Tensor], image_size: int) -> Any:
    """Configuration of the model that weights in the sam2 repository's layout belong to, from their shapes.

    Parameters
    ----------
    weights : mapping of str to tensor
    image_size : int
        Side of the square, pixels.

    Returns
    -------
    transformers.Sam2VideoConfig
    """
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig

    hiera = _hiera_of(weights)
    width = int(weights[f"{_TRUNK}patch_embed.proj.weight"].shape[0])
    widths = [width * 2**stage for stage in range(len(hiera.stages))]
    backbone = Sam2HieraDetConfig(
        hidden_size=width,
        embed_dim_per_stage=widths,
        blocks_per_stage=list(hiera.stages),
        num_attention_heads_per_stage=list(hiera.heads),
        window_size_per_stage=list(hiera.windows),
        global_attention_blocks=list(hiera.global_blocks),
        window_positional_embedding_background_size=list(weights[f"{_TRUNK}pos_embed"].shape[-2:]),
    )
    layers = {key.split(".")[2] for key in weights if key.startswith("memory_attention.layers.")}
    config = Sam2VideoConfig(
        vision_config=Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=widths[::-1]),
        memory_attention_num_layers=len(layers),
        # these two came with 2.1
        enable_temporal_pos_encoding_for_object_pointers="obj_ptr_tpos_proj.weight" in weights,
        enable_occlusion_spatial_embedding="no_obj_embed_spatial" in weights,
    )
    _set_side(config, image_size)
    return config


def _set_side(config: Any, side: int) -> int:
    """Make a configuration one for squares of another side; no weight depends on it."""
    grid = side // _STRIDE
    config.image_size = side
    config.prompt_encoder_config.image_size = side
    config.vision_config.backbone_config.image_size = [side, side]
    config.vision_config.backbone_feature_sizes = [[4 * grid] * 2, [2 * grid] * 2, [grid] * 2]
    config.memory_attention_rope_feat_sizes = [grid, grid]
    if config.max_cond_frame_num == -1:
        config.max_cond_frame_num = _MOST_KEY_MEMORIES
    return side


def in_transformers_layout(weights: Mapping[str, torch.Tensor]) -> StateDict:
    """Weights of the sam2 repository under the names of transformers; the tensors are the same ones."""
    points = [_POINT_EMBEDDINGS.format(index) for index in range(4)]
    renamed = {_renamed(key): value for key, value in weights.items() if key not in points}
    if all(key in weights for key in points):
        renamed["prompt_encoder.point_embed.weight"] = torch.cat([weights[key] for key in points])
    return renamed


def _renamed(key: str) -> str:
    for beginning, replacement in _PARTS:
        if key.startswith(beginning):
            key = replacement + key.removeprefix(beginning)
            break
    for pattern, inner in _INNER:
        key = pattern.sub(inner, key)
    return key


def _filled(model: Any, state_dict: StateDict, name: str) -> Any:
    """The model with these weights, all of them and no others."""
    # one tensor under two names; files hold it under one of them
    for key, other in ((_POSITIONS, _PROMPT_POSITIONS), (_PROMPT_POSITIONS, _POSITIONS)):
        if key not in state_dict and other in state_dict:
            state_dict[key] = state_dict[other]
    try:
        missing, unexpected = model.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:  # its text lists every tensor whose shape differs
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(f"The weights in {name} do not fit SAM 2: {reason}") from error
    wrong = [f"{missing[0]} is missing"] if missing else [f"{key} is unknown" for key in unexpected[:1]]
    if wrong:
        raise ModelError(
            f"The weights in {name} are not those of a SAM 2 video model: {wrong[0]}; supported are SAM 2 "
            "and 2.1, MedSAM2, and models fine-tuned from them."
        )
    return model.eval().requires_grad_(False)


def _record(name: str, title: str, architecture: str, side: int) -> ModelRecord:
    return ModelRecord(
        name=name,
        title=title,
        architecture=architecture,
        input_size=side,
        accepts=frozenset({"point", "box"}),
        stretch=True,
        note="A video model: carries masks through slices.",
    )
