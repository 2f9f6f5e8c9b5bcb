"""Reading checkpoints: what they are, by their content; and never by running what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.model_registry import (
    MODELS,
    NANO_WEIGHTS,
    ModelRecord,
    model_folder,
    with_preprocessing,
)

__all__ = [
    "Checkpoint",
    "StateDict",
    "detect_architecture",
    "digests_of",
    "load_state_dict",
    "read_checkpoint",
    "sha256_of",
    "write_model_folder",
]

StateDict = dict[str, torch.Tensor]

FOLDER_WEIGHTS = "weights.safetensors"
FOLDER_RECORD = "model.json"
_FOLDER_VERSION = 1
_POSITIONS = "image_encoder.pos_embed"
_VIT_WIDTHS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_TINY_STEM = "image_encoder.patch_embed.seq.0.c.weight"
_TINY_STEM_OF_OURS = "image_encoder.backbone.patch_embed.conv1.conv.weight"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes
    ----------
    record : ModelRecord
        What it is: the registry's record where the file is a known one, else one made from its keys.
    state_dict : dict of str to tensor
        The weights, without wrappers and prefixes.
    sha256 : str
        Of the file.
    path : Path
    """

    record: ModelRecord
    state_dict: StateDict
    sha256: str
    path: Path


def read_checkpoint(name_or_path: str | os.PathLike[str], *, preprocessing: str | None = None) -> Checkpoint:
    """Read a model by name, or a checkpoint file or a folder written by `write_model_folder`.

    A file is matched to the registry by its SHA-256, never by its name. For an unknown file the architecture comes
    from its keys, and the preprocessing is SAM's unless `preprocessing` says otherwise.

    Raises
    ------
    ModelError
        When the model was not fetched yet, the file is damaged, or its layout is not understood.
    """
    path = _path_of(os.fspath(name_or_path))
    if path.is_dir():
        return _read_folder(path, preprocessing)
    digests = digests_of(path)
    record = _known_record(digests)
    if os.fspath(name_or_path) in MODELS and record is None and path != NANO_WEIGHTS:
        raise ModelError(_damaged(MODELS[os.fspath(name_or_path)], path, digests))
    state_dict = load_state_dict(path)
    if record is None:
        architecture = detect_architecture(state_dict)
        if path == NANO_WEIGHTS:
            record = MODELS["nano"]
        else:
            record = _record_of_unknown(path.name, architecture)
    return Checkpoint(with_preprocessing(record, preprocessing), state_dict, digests["sha256"], path)


def load_state_dict(path: str | os.PathLike[str]) -> StateDict:
    """Weights in a file, without wrappers and prefixes; safetensors, or a torch file read with ``weights_only``.

    Raises
    ------
    ModelError
        When the file is neither, is damaged, or holds more than weights.
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise ModelError(f"{path.name} is empty; fetch or copy it again.")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ModelError(
            f"{path.name} is a web page, not a checkpoint; download the file itself and try again."
        )
    content = _read_torch(path) if _looks_like_torch(start) else _read_safetensors(path)
    return _unwrap(content, path.name)


def _looks_like_torch(start: bytes) -> bool:
    return start.startswith((b"PK\x03\x04", b"\x80"))


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path.name} is not a checkpoint: it is neither a torch file nor complete safetensors ({error}); "
            "fetch or copy it again."
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path.name} holds more than weights, and code in checkpoints is never run; "
            "save its state dict alone with torch.save or as safetensors, and load that."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path.name} is damaged ({reason}); fetch or copy it again.") from error


def _unwrap(content: Any, name: str) -> StateDict:
    """The state dict inside training checkpoints: ``model_state`` (micro-sam), ``model``, ``state_dict``, prefixes."""
    for wrapper in ("model_state", "model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{name} holds no weights by name; save the model's state_dict() and load that.")
    weights = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if len(weights) < len(content):
        raise ModelError(
            f"{name} holds other things than weights; save the model's state_dict() and load that."
        )
    for prefix in ("module.", "sam.", "model."):
        weights = _without_prefix(weights, prefix)
    return weights


def _without_prefix(weights: StateDict, prefix: str) -> StateDict:
    if not all(key.startswith(prefix) for key in weights):
        return weights
    return {key.removeprefix(prefix): value for key, value in weights.items()}


def detect_architecture(state_dict: Mapping[str, torch.Tensor]) -> str:
    """Architecture that weights belong to, by their names and shapes.

    Returns
    -------
    str
        ``vit_b``, ``vit_l``, ``vit_h``, ``tiny_vit`` or ``nano``.

    Raises
    ------
    ModelError
        When they belong to a known model that is not supported, or to an unknown one; the text says which.
    """
    refusal = _why_refused(state_dict)
    if refusal:
        raise ModelError(
            f"{refusal} Supported are SAM ViT-B, -L and -H, MobileSAM and models fine-tuned from them."
        )
    if _TINY_STEM in state_dict or _TINY_STEM_OF_OURS in state_dict:
        return "tiny_vit"
    if _POSITIONS in state_dict:
        return _VIT_WIDTHS[state_dict[_POSITIONS].shape[-1]]
    return "nano"


def _why_refused(state_dict: Mapping[str, torch.Tensor]) -> str | None:
    if any(key.startswith("vision_encoder.layers.") for key in state_dict):
        return "This is a SAM checkpoint in the layout of Hugging Face transformers; use Meta's own file."
    if "mask_decoder.hf_token.weight" in state_dict:
        return "This is a SAM-HQ checkpoint, which needs another decoder."
    if any(".Adapter." in key for key in state_dict):
        return "This is a SAM-Med2D checkpoint with adapters."
    if any(key.startswith(("memory_attention.", "image_encoder.trunk.")) for key in state_dict):
        return "This is a SAM 2 checkpoint."
    if _TINY_STEM in state_dict:
        if tuple(state_dict[_TINY_STEM].shape) == (32, 3, 3, 3):
            return None
        return "This is a LiteMedSAM checkpoint, whose stem differs from MobileSAM's."
    if _POSITIONS in state_dict:
        shape = tuple(state_dict[_POSITIONS].shape)
        if shape[:3] == (1, 64, 64) and shape[-1] in _VIT_WIDTHS:
            return None
        return f"This is a SAM of an unknown size: its position embedding has shape {shape}."
    if _TINY_STEM_OF_OURS in state_dict or _is_nano(state_dict):
        return None
    return f"These weights are of an unknown model (first name: {min(state_dict, default='none')!r})."


def _is_nano(state_dict: Mapping[str, torch.Tensor]) -> bool:
    """Whether the names are exactly the bundled model's."""
    if not NANO_WEIGHTS.is_file():
        return False
    from safetensors import safe_open

    with safe_open(NANO_WEIGHTS, framework="pt") as bundled:
        return set(bundled.keys()) == set(state_dict)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, hexadecimal."""
    return digests_of(path, ("sha256",))["sha256"]


def digests_of(
    path: str | os.PathLike[str], algorithms: Iterable[str] = ("sha256", "md5", "xxh128")
) -> dict[str, str]:
    """Digests of a file, hexadecimal, by algorithm, in one pass; ``xxh128`` only where xxhash is installed."""
    hashers = {name: hasher for name in algorithms if (hasher := _hasher(name)) is not None}
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            for hasher in hashers.values():
                hasher.update(chunk)
    return {name: hasher.hexdigest() for name, hasher in hashers.items()}


def _hasher(algorithm: str) -> Any:
    if algorithm != "xxh128":
        return hashlib.new(algorithm, usedforsecurity=False)
    try:
        import xxhash
    except ImportError:
        return None
    return xxhash.xxh128()


def _known_record(digests: Mapping[str, str]) -> ModelRecord | None:
    for record in MODELS.values():
        if record.digest is not None and digests.get(record.digest[0]) == record.digest[1]:
            return record
    return None


def _record_of_unknown(name: str, architecture: str) -> ModelRecord:
    record = ModelRecord(
        name=name, title=name, architecture=architecture, note="Not in the registry; preprocessing assumed."
    )
    if architecture == "nano":
        record = replace(record, preprocessing="nano", input_size=MODELS["nano"].input_size)
    return record


def _path_of(name: str) -> Path:
    if name == "nano":
        if not NANO_WEIGHTS.is_file():
            raise ModelError("The bundled weights of nano are missing; install napari-sam-med again.")
        return NANO_WEIGHTS
    if name in MODELS:
        path = model_folder() / MODELS[name].file_name
        if not path.is_file():
            raise ModelError(
                f'The model "{name}" is not on this machine; fetch it with "napari-sam-med models fetch {name}", '
                f"or put the file into {model_folder()} as {path.name}."
            )
        return path
    path = Path(name).expanduser()
    if not path.exists():
        raise ModelError(
            f'There is no model "{name}": give one of {", ".join(MODELS)}, or the path of a checkpoint.'
        )
    return path


def _damaged(record: ModelRecord, path: Path, digests: Mapping[str, str]) -> str:
    algorithm, expected = record.digest or ("sha256", "?")
    found = digests.get(algorithm)
    if found is None:
        return (
            f'{path.name} cannot be verified without the package {algorithm[:2]}hash; "pip install xxhash".'
        )
    return (
        f"{path.name} is damaged or another file: its {algorithm} is {found}, expected {expected}; fetch it again "
        f'with "napari-sam-med models fetch {record.name}", or put a good copy into {path.parent}.'
    )


def write_model_folder(
    folder: str | os.PathLike[str], state_dict: StateDict, record: ModelRecord, **details: Any
) -> Path:
    """Write a fine-tuned model as a folder that `read_checkpoint` takes; each file is replaced whole.

    Parameters
    ----------
    folder : path
        Made when it does not exist.
    state_dict : dict of str to tensor
        With SAM's or nano's own names.
    record : ModelRecord
        Of the model that it was made from; architecture and preprocessing are kept.
    **details
        Anything else worth keeping, as JSON.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / FOLDER_WEIGHTS
    partial = weights.with_suffix(".partial")
    save_file({key: value.detach().cpu().contiguous() for key, value in state_dict.items()}, partial)
    content = {
        "version": _FOLDER_VERSION,
        "base": record.name,
        "architecture": record.architecture,
        "preprocessing": record.preprocessing,
        "licence": record.licence,
        "sha256": sha256_of(partial),
        **details,
    }
    text = folder / f"{FOLDER_RECORD}.partial"
    text.write_text(json.dumps(content, indent=2), encoding="utf-8")
    os.replace(partial, weights)
    os.replace(text, folder / FOLDER_RECORD)
    return folder


def _read_folder(folder: Path, preprocessing: str | None) -> Checkpoint:
    remedy = f"give a folder written by napari-sam-med finetune ({FOLDER_RECORD} and {FOLDER_WEIGHTS})"
    weights = folder / FOLDER_WEIGHTS
    try:
        content = json.loads((folder / FOLDER_RECORD).read_text(encoding="utf-8"))
        version, sha256 = int(content["version"]), str(content["sha256"])
        kind, licence = str(content["preprocessing"]), str(content.get("licence", "unknown"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} is not a model folder ({error}); {remedy}.") from error
    if version > _FOLDER_VERSION:
        raise ModelError(f"{folder} was written by a newer version; update napari-sam-med.")
    if not weights.is_file() or sha256_of(weights) != sha256:
        raise ModelError(f"{weights} is missing or damaged; restore it, or {remedy}.")
    state_dict = load_state_dict(weights)
    record = replace(
        _record_of_unknown(folder.name, detect_architecture(state_dict)), licence=licence, note=""
    )
    kind_given = preprocessing if preprocessing is not None else (None if kind == "nano" else kind)
    return Checkpoint(with_preprocessing(record, kind_given), state_dict, sha256, weights)
