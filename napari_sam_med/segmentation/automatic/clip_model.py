"""A CLIP model of the user's own, through open_clip: pictures and texts as unit vectors of one space.

Nothing is fetched: the model is a folder as open_clip's models are published in, with
``open_clip_config.json`` and the weights (BiomedCLIP's is one), or a file of weights with the name of its
architecture. Weights are read as all checkpoints are here, never unpickled.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021;
Zhang et al., BiomedCLIP, https://arxiv.org/abs/2303.00915
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.checkpoints import StateDict, load_state_dict
from napari_sam_med.sam.device import resolve_device
from napari_sam_med.sam.native_imports import hide_triton_beside_software_opengl

__all__ = ["ClipModel", "load_clip"]

CONFIG = "open_clip_config.json"
_TOKENIZER = ("tokenizer.json", "vocab.txt")
_ENDINGS = (".safetensors", ".bin", ".pt", ".pth")
_REMEDY = (
    f"give a folder with {CONFIG} and the weights, as open_clip's models are published, or the file of the "
    "weights with --text-architecture."
)
_BERT = "text.transformer.embeddings.word_embeddings.weight"
_BERT_HEAD = 64
"""Width of an attention head, in all published BERT models of base and large size."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ClipModel:
    """A CLIP model, ready to be asked.

    Attributes
    ----------
    name : str
        Of its folder or file.
    network : torch.nn.Module
        open_clip's.
    prepare : callable
        From a picture to the tensor that the network sees.
    tokenize : callable
        From texts to the tensor that the network sees.
    scale : float
        What cosines are multiplied by before a softmax.
    """

    name: str
    network: Any
    prepare: Callable[[Image.Image], torch.Tensor]
    tokenize: Callable[[list[str]], torch.Tensor]
    scale: float

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = next(self.network.parameters()).device
        return device

    def of_pictures(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> Floats:
        """Unit vectors (N, D) of pictures (h, w, 3) uint8 of any sizes."""
        with torch.inference_mode():
            vectors = [
                self.network.encode_image(self.prepare(Image.fromarray(picture))[None].to(self.device))
                for picture in pictures
            ]
        return _unit(torch.cat(vectors))

    def of_texts(self, texts: Sequence[str]) -> Floats:
        """Unit vectors (N, D) of texts."""
        with torch.inference_mode():
            return _unit(self.network.encode_text(self.tokenize(list(texts)).to(self.device)))


def load_clip(
    path: str | os.PathLike[str], architecture: str | None = None, *, device: str = "auto"
) -> ClipModel:
    """Load a CLIP model from this machine.

    Parameters
    ----------
    path : path
        A folder with ``open_clip_config.json`` and weights, or a file of weights, beside such a config or of
        a named architecture.
    architecture : str, optional
        One of ``open_clip.list_models()``, such as ``ViT-B-32-quickgelu``, for weights without a config.
    device : str
        As in `load_predictor`.

    Raises
    ------
    ModelError
        When open_clip is not installed, something is missing or damaged, or the weights do not fit.
    """
    hide_triton_beside_software_opengl()
    try:
        import open_clip
    except ImportError:
        raise ModelError(
            "Free words need open_clip, which is not installed; run "
            'pip install "napari-sam-med[text]", or give the name of an organ.'
        ) from None
    where = Path(path).expanduser()
    weights, config_file = _files(where, architecture)
    config = _config_of(config_file, architecture, open_clip)
    state = _state_of(weights)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            network = _network(config["model_cfg"], state, Path(scratch), open_clip)
        tokenize = _tokenizer(config["model_cfg"].get("text_cfg", {}), weights.parent, open_clip)
        prepare = _preprocessing(config.get("preprocess_cfg", {}), network, open_clip)
    except ModelError:
        raise
    except Exception as error:  # a config of another version fails anywhere: open_clip, timm, transformers
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"{weights.name} is no CLIP model of its config ({reason}); {_REMEDY}") from error
    network = network.to(resolve_device(device)).eval()
    scale = float(network.logit_scale.detach().float().exp().mean())
    return ClipModel(where.name, network, prepare, tokenize, scale)


def _unit(vectors: torch.Tensor) -> Floats:
    found: Floats = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
    return found


def _files(where: Path, architecture: str | None) -> tuple[Path, Path | None]:
    """The weights, and the config if there is one."""
    if not where.exists():
        raise ModelError(f"There is no CLIP model {where}; {_REMEDY}")
    folder = where if where.is_dir() else where.parent
    config = folder / CONFIG if (folder / CONFIG).is_file() and architecture is None else None
    if config is None and architecture is None:
        raise ModelError(f"{where} has no {CONFIG}, which tells the architecture; {_REMEDY}")
    if where.is_file():
        return where, config
    found = sorted(
        (path for path in where.iterdir() if path.suffix in _ENDINGS and path.is_file()),
        key=lambda path: (_ENDINGS.index(path.suffix), not path.name.startswith("open_clip"), path.name),
    )
    if not found:
        raise ModelError(f"{where} holds no weights ({', '.join(_ENDINGS)}); {_REMEDY}")
    return found[0], config


def _config_of(config_file: Path | None, architecture: str | None, open_clip: Any) -> dict[str, Any]:
    """Config as open_clip writes it: ``model_cfg`` and ``preprocess_cfg``."""
    if config_file is None:
        known = open_clip.get_model_config(architecture) if architecture in open_clip.list_models() else None
        if known is None:
            raise ModelError(
                f'open_clip has no architecture "{architecture}"; give one of open_clip.list_models(), '
                "such as ViT-B-32-quickgelu."
            )
        return {"model_cfg": known}
    try:
        config = json.loads(config_file.read_text("utf-8"))
        if not isinstance(config["model_cfg"]["vision_cfg"], Mapping):
            raise TypeError("vision_cfg")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{config_file} cannot be read ({error!r}); {_REMEDY}") from error
    return dict(config)


def _state_of(weights: Path) -> StateDict:
    if zipfile.is_zipfile(weights) and any("/code/" in name for name in zipfile.ZipFile(weights).namelist()):
        raise ModelError(
            f"{weights.name} is a program (TorchScript), and code in checkpoints is never run; give the same "
            "model's weights as safetensors, or its state dict."
        )
    return load_state_dict(weights)


def _network(config: Mapping[str, Any], state: StateDict, scratch: Path, open_clip: Any) -> Any:
    """open_clip's network with these weights; nothing is looked up anywhere else."""
    wanted = deepcopy(dict(config))
    text, vision = wanted["text_cfg"], wanted["vision_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    custom = wanted.pop("custom_text", False) or "hf_model_name" in text
    if "hf_model_name" in text:
        text |= {"hf_model_pretrained": False, "hf_model_name": str(_text_config(state, scratch))}
    simple = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    network = (open_clip.CoCa if "multimodal_cfg" in wanted else simple)(**wanted)
    network.load_state_dict(_renamed(state, network))
    return network


def _renamed(state: StateDict, network: Any) -> StateDict:
    """Weights by the names of today's open_clip."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    renamed = dict(convert_state_dict(network, state))
    if "positional_embedding" in renamed and not hasattr(network, "positional_embedding"):
        renamed = dict(convert_to_custom_text_state_dict(renamed))
    for scalar in ("logit_scale", "logit_bias"):
        if scalar in renamed and getattr(network, scalar, None) is not None:
            renamed[scalar] = renamed[scalar].reshape(getattr(network, scalar).shape)
    stale = "text.transformer.embeddings.position_ids"  # a buffer that transformers 4.31 dropped
    return {name: value for name, value in renamed.items() if name != stale}


def _text_config(state: StateDict, scratch: Path) -> Path:
    """Folder with the config of a BERT text encoder, which published models name but do not hold.

    Raises
    ------
    ModelError
        When the text encoder is of another kind.
    """
    words = state.get(_BERT)
    part = "text.transformer."
    types, places = (
        state.get(f"{part}embeddings.{name}_embeddings.weight") for name in ("token_type", "position")
    )
    widened = state.get(f"{part}encoder.layer.0.intermediate.dense.weight")
    if words is None or types is None or places is None or widened is None:
        raise ModelError(
            "The text encoder of this CLIP model is not open_clip's own and not a BERT; give a model whose "
            "text encoder is one of these, such as BiomedCLIP."
        )
    layers = {name.split(".")[4] for name in state if name.startswith(f"{part}encoder.layer.")}
    width = words.shape[1]
    (scratch / "config.json").write_text(
        json.dumps(
            {
                "model_type": "bert",
                "vocab_size": words.shape[0],
                "hidden_size": width,
                "num_hidden_layers": len(layers),
                "num_attention_heads": max(1, width // _BERT_HEAD),
                "intermediate_size": widened.shape[0],
                "max_position_embeddings": places.shape[0],
                "type_vocab_size": types.shape[0],
            }
        )
    )
    return scratch


def _tokenizer(text: Mapping[str, Any], folder: Path, open_clip: Any) -> Callable[[list[str]], torch.Tensor]:
    length = int(text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH))
    if not text.get("hf_tokenizer_name"):
        simple: Callable[[list[str]], torch.Tensor] = open_clip.SimpleTokenizer(context_length=length)
        return simple
    if not any((folder / name).is_file() for name in _TOKENIZER):
        raise ModelError(
            f"{folder} has no tokenizer ({' or '.join(_TOKENIZER)}), which this model needs; copy it there "
            "from where the weights were published."
        )
    from open_clip.tokenizer import HFTokenizer

    found: Callable[[list[str]], torch.Tensor] = HFTokenizer(
        str(folder),
        context_length=length,
        tokenizer_mode=text.get("tokenizer_mode"),
        local_files_only=True,
        **text.get("tokenizer_kwargs", {}),
    )
    return found


def _preprocessing(
    config: Mapping[str, Any], network: Any, open_clip: Any
) -> Callable[[Image.Image], torch.Tensor]:
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    wanted = merge_preprocess_dict(PreprocessCfg(), dict(config)) | {"size": network.visual.image_size}
    transform: Callable[[Image.Image], torch.Tensor] = image_transform_v2(
        PreprocessCfg(**wanted), is_train=False
    )
    return transform
