"""Reading checkpoints: what they are, by their content; and never by running what is in them."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.digests import digests_of, sha256_of
from napari_sam_med.sam.fetching import fetch
from napari_sam_med.sam.layouts import StateDict, detect_architecture, unwrap
from napari_sam_med.sam.model_registry import (
    MODELS,
    NANO_WEIGHTS,
    ModelRecord,
    checkpoint_path,
    model_folder,
    with_preprocessing,
)

__all__ = [
    "Checkpoint",
    "StateDict",
    "detect_architecture",
    "fetch",
    "load_state_dict",
    "read_checkpoint",
    "sha256_of",
    "verify",
    "write_checkpoint",
]

FOLDER_CHECKPOINT = "model.safetensors"
_OWN_METADATA = "napari_sam_med"
_OWN_VERSION = 1
_WEB_PAGES = (b"<!doctype", b"<html", b"<?xml")
_TORCH_FILES = (b"PK\x03\x04", b"\x80")  # a zip archive, or the pickle of before torch 1.6


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes
    ----------
    record : ModelRecord
        The registry's record where the file is a known one, else one made from its content.
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
    """Read a model by name, or a checkpoint file, or a folder that holds a ``model.safetensors``.

    A file is matched to the registry by its digest, never by its name. For an unknown file the architecture
    comes from its keys; the preprocessing is what `write_checkpoint` noted in it, else SAM's, unless
    `preprocessing` says otherwise.

    Raises
    ------
    ModelError
        When the model was not fetched yet, the file is damaged, or its layout is not understood.
    """
    name = os.fspath(name_or_path)
    path = _path_of(name)
    sha256 = sha256_of(path)
    if name in MODELS:
        record: ModelRecord | None = MODELS[name]
        _check_digest(MODELS[name], path, sha256)
    else:
        record = _known_record(path, sha256)
    state_dict = load_state_dict(path)
    if record is None:
        record = _record_of(path, state_dict)
    return Checkpoint(with_preprocessing(record, preprocessing), state_dict, sha256, path)


def verify(name_or_path: str | os.PathLike[str]) -> Checkpoint:
    """Read a model as `read_checkpoint` does, and compare the bundled one with its digest too.

    Raises
    ------
    ModelError
        When it is missing, damaged, or not understood.
    """
    checkpoint = read_checkpoint(name_or_path)
    if checkpoint.path == NANO_WEIGHTS and checkpoint.sha256 != MODELS["nano"].sha256:
        raise ModelError(
            f"The bundled weights {NANO_WEIGHTS} are not those of this release: sha256 is "
            f"{checkpoint.sha256}, expected {MODELS['nano'].sha256}; install napari-sam-med again."
        )
    return checkpoint


def load_state_dict(path: str | os.PathLike[str]) -> StateDict:
    """Weights in a file, without wrappers and prefixes: safetensors, or a torch file that holds weights only.

    Raises
    ------
    ModelError
        When the file is neither, is damaged, or holds more than weights.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}); check its place and permissions."
        ) from error
    if not start:
        raise ModelError(f"{path.name} is empty; fetch or copy it again.")
    if start.lstrip().lower().startswith(_WEB_PAGES):
        raise ModelError(f"{path.name} is a web page, not a checkpoint; download the file itself.")
    content = _read_torch(path) if start.startswith(_TORCH_FILES) else _read_safetensors(path)
    return unwrap(content, path.name)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path.name} is damaged or no checkpoint: it is neither a torch file nor complete safetensors "
            f"({error}); fetch or copy it again."
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        with path.open("rb") as file:  # given a path, torch reads what is called .safetensors in another way
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path.name} is damaged, or holds more than weights, and code in checkpoints is never run; save "
            "its state dict alone with torch.save or as safetensors, and load that."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # of a damaged file torch raises whatever comes: assertions, too
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path.name} is damaged ({reason}); fetch or copy it again.") from error


def _path_of(name: str) -> Path:
    if name in MODELS:
        path = checkpoint_path(name)
        if path is not None:
            return path
        if name == "nano":
            raise ModelError("The bundled weights of nano are missing; install napari-sam-med again.")
        raise ModelError(
            f'The model "{name}" is not on this machine; fetch it with "napari-sam-med models fetch {name}", '
            f"or put its file into {model_folder()} as {MODELS[name].file_name}."
        )
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / FOLDER_CHECKPOINT
        if not path.is_file():
            raise ModelError(
                f"{name} is a folder without {FOLDER_CHECKPOINT}; give a folder that napari-sam-med finetune "
                "wrote, or a checkpoint file."
            )
    if not path.exists():
        raise ModelError(
            f'There is no model "{name}": give one of {", ".join(MODELS)}, or the path of a checkpoint.'
        )
    return path


def _check_digest(record: ModelRecord, path: Path, sha256: str) -> None:
    """Refuse a file that is not the published one, before anything parses it."""
    if path == NANO_WEIGHTS:  # came with this package, and holds no code; `verify` compares it
        return
    algorithm, expected = record.digest or ("sha256", "unknown")
    found = sha256 if algorithm == "sha256" else digests_of(path, (algorithm,))[algorithm]
    if found != expected:
        raise ModelError(
            f"{path} is damaged or another file: {algorithm} is {found}, expected {expected}; fetch it again "
            f'with "napari-sam-med models fetch {record.name}", or put a good copy there. A checkpoint of '
            "your own is loaded by its path."
        )


def _known_record(path: Path, sha256: str) -> ModelRecord | None:
    if path == NANO_WEIGHTS:
        return MODELS["nano"]
    digests = {"sha256": sha256}
    for record in MODELS.values():
        if record.digest is None:
            continue
        algorithm, expected = record.digest
        if algorithm not in digests:
            digests |= digests_of(path, (algorithm,))
        if digests[algorithm] == expected:
            return record
    return None


def _record_of(path: Path, state_dict: StateDict) -> ModelRecord:
    """Record of a file that the registry does not know."""
    name = path.parent.name if path.name == FOLDER_CHECKPOINT else path.name
    architecture = detect_architecture(state_dict)
    record = ModelRecord(name=name, title=name, architecture=architecture, note="Not in the registry.")
    own = _own_metadata(path)
    if architecture == "nano":
        return replace(record, preprocessing="nano", input_size=MODELS["nano"].input_size)
    return with_preprocessing(record, own.get("preprocessing"))


def write_checkpoint(
    path: str | os.PathLike[str], state_dict: StateDict, record: ModelRecord, **details: Any
) -> Path:
    """Write weights so that `read_checkpoint` understands them without being told more; replaced as a whole.

    Parameters
    ----------
    path : path
        A ``.safetensors`` file, or a folder, in which ``model.safetensors`` is written.
    state_dict : dict of str to tensor
        With the names of the published checkpoints, or nano's.
    record : ModelRecord
        Of the model that it was made from; its architecture and preprocessing are noted in the file.
    **details
        Anything else worth keeping, as JSON.

    Returns
    -------
    Path
        Of the file.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        path = path / FOLDER_CHECKPOINT
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {
        "version": _OWN_VERSION,
        "base": record.name,
        "architecture": record.architecture,
        "preprocessing": record.preprocessing,
        "licence": record.licence,
        **details,
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in state_dict.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.touch()
        rights = (
            partial.stat().st_mode
        )  # those that files get here: safetensors lets nobody but the owner read
        save_file(tensors, partial, metadata={_OWN_METADATA: json.dumps(own)})
        partial.chmod(rights)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _own_metadata(path: Path) -> Mapping[str, Any]:
    """What `write_checkpoint` noted in a file; empty for files of others."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_OWN_METADATA)
    except (SafetensorError, OSError):
        return {}
    if text is None:
        return {}
    try:
        own = json.loads(text)
        version = int(own["version"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ModelError(f"{path.name} is damaged: its notes cannot be read; copy it again.") from error
    if version > _OWN_VERSION:
        raise ModelError(f"{path.name} was written by a newer version; update napari-sam-med.")
    notes: Mapping[str, Any] = own
    return notes
