"""A model's prompt encoder and mask decoder as an ONNX file, checked against torch before it is kept.

The interface is that of segment_anything's own export (its scripts/export_onnx_model.py): one image, one
object, points and a box as points. So programs that run SAM's decoder run these files, too. `nano` reads
three feature maps instead of one, and its file has three inputs for them.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from napari_sam_med.errors import ExportError, ModelError
from napari_sam_med.sam.architectures.build import build_decoder, build_network
from napari_sam_med.sam.checkpoints import Checkpoint, read_checkpoint
from napari_sam_med.sam.model_registry import ModelRecord
from napari_sam_med.sam.native_imports import hide_triton_beside_software_opengl
from napari_sam_med.sam.onnx_decoders import NanoDecoder, OnnxPrompts, SamDecoder, nano_decoder, sam_decoder
from napari_sam_med.sam.onnx_reference import Case, answers_of_torch, cases, example_features

__all__ = ["LOWEST_OPSET", "OUTPUTS", "TOLERANCE", "OnnxFile", "export_decoder", "export_onnx"]

TOLERANCE = 1e-4
"""Largest difference to torch that is let pass, as a share of the largest value (at least 1)."""
LOWEST_OPSET = 18
"""Of the operators that torch's exporter writes."""
OUTPUTS = ("masks", "iou_predictions", "low_res_masks")


@dataclass(frozen=True)
class OnnxFile:
    """What was written.

    Attributes
    ----------
    path : Path
    model : str
    inputs, outputs : tuple of str
    masks : int
        How many masks it answers with.
    opset : int
    largest_difference : float
        To torch, as `TOLERANCE` counts it.
    checked : int
        Prompts that were compared.
    """

    path: Path
    model: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    masks: int
    opset: int
    largest_difference: float
    checked: int


def export_onnx(
    model: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    multimask: bool | None = None,
    opset: int | None = None,
    preprocessing: str | None = None,
) -> OnnxFile:
    """Write the decoder of a model as ONNX, run it with onnxruntime, and keep it if it answers as torch does.

    Parameters
    ----------
    model : str or path
        As in `load_predictor`.
    path : path
        Replaced as a whole, or not at all.
    multimask : bool, optional
        Four masks (the single one, then small, medium, large), or the best one only, as SAM's export has it.
        Four when left out, one for a model that was trained for one.
    opset : int, optional
        18 or more; torch's own choice when left out.
    preprocessing : str, optional
        As in `load_predictor`.

    Raises
    ------
    ModelError
        When a package is missing, the model cannot be loaded or exported so, or the file answers otherwise
        than torch.
    ExportError
        When the file cannot be written.
    """
    check_packages()
    checkpoint = read_checkpoint(model, preprocessing=preprocessing)
    network = _decoder_of(checkpoint)
    return export_decoder(
        network, checkpoint.record, path, multimask=multimask, opset=opset, sha256=checkpoint.sha256
    )


def check_packages() -> None:
    """Refuse to go on without the packages of the extra.

    Raises
    ------
    ModelError
        With what to install.
    """
    hide_triton_beside_software_opengl()
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it, and only says so halfway
    except ImportError as error:
        raise ModelError(
            f'ONNX export needs {error.name}, which is not installed; run pip install "napari-sam-med[onnx]".'
        ) from None
    del onnx, onnxruntime


def export_decoder(
    network: nn.Module,
    record: ModelRecord,
    path: str | os.PathLike[str],
    *,
    multimask: bool | None = None,
    opset: int | None = None,
    sha256: str = "",
) -> OnnxFile:
    """Write the decoder of a network on the cpu; parameters and errors as in `export_onnx`."""
    check_packages()
    wanted = record.multimask if multimask is None else multimask
    if wanted and not record.multimask:
        raise ModelError(
            f"{record.name} was trained to answer with one mask; export it with --single, or choose another "
            "model."
        )
    if opset is not None and opset < LOWEST_OPSET:
        raise ModelError(
            f"Opset {opset} is older than torch's exporter writes; give {LOWEST_OPSET} or more, or leave "
            "it out."
        )
    module: SamDecoder | NanoDecoder
    if record.architecture == "nano":
        module = nano_decoder(network, record, multimask=wanted)
    else:
        module = sam_decoder(network, record, multimask=wanted)
    features = example_features(network)
    asked = cases(module.input_size, module.mask_input_size)
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _quiet_exporter():
            written = _write(module, features, asked[1], partial, record, sha256, opset)
        worst = _compare(partial, module, network, record, features, asked, wanted)
        os.replace(partial, path)
    except OSError as error:
        raise ExportError(
            f"{path} could not be written: {error.strerror}; choose a folder that exists, is writable and "
            "has space."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    inputs = (*module.feature_names, *OnnxPrompts._fields)
    masks = 4 if wanted else 1
    return OnnxFile(path, record.name, inputs, OUTPUTS, masks, written, worst, len(asked))


def _decoder_of(checkpoint: Checkpoint) -> nn.Module:
    """nano whole, as its features are those of a picture; of SAM the decoder alone."""
    if checkpoint.record.architecture == "nano":
        return build_network(checkpoint)
    return build_decoder(checkpoint)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns of its own insides, on standard error and in the log."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _write(
    module: SamDecoder | NanoDecoder,
    features: Sequence[torch.Tensor],
    case: Case,
    path: Path,
    record: ModelRecord,
    sha256: str,
    opset: int | None,
) -> int:
    """Write the file; returns its opset."""
    prompts = case.prompts()
    names = (*module.feature_names, *OnnxPrompts._fields)
    points = torch.export.Dim("num_points", min=1, max=1024)
    free = {"point_coords": {1: points}, "point_labels": {1: points}}
    try:
        # with gradients, as some networks take a way without them that no graph can follow
        with torch.enable_grad():
            program = torch.onnx.export(
                module,
                (*features, *prompts),
                input_names=names,
                output_names=OUTPUTS,
                opset_version=opset,
                dynamo=True,
                dynamic_shapes={name: free.get(name) for name in names},
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises classes of its own for whatever it cannot follow
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise ModelError(
            f"torch could not export {record.name} as ONNX ({reason}); use the torch of constraints.txt, or "
            "another opset."
        ) from error
    if program is None:  # by its types, though not with these arguments
        raise ModelError(f"torch exported nothing of {record.name}; use the torch of constraints.txt.")
    program.model.metadata_props.update(_facts(record, sha256))
    program.save(path, external_data=False)
    return int(program.model.opset_imports[""])


def _facts(record: ModelRecord, sha256: str) -> dict[str, str]:
    """What the file says of itself."""
    return {
        "napari_sam_med.model": record.name,
        "napari_sam_med.sha256": sha256,
        "napari_sam_med.preprocessing": record.preprocessing,
        "napari_sam_med.input_size": str(record.input_size),
        "napari_sam_med.accepts": ",".join(sorted(record.accepts)),
        "napari_sam_med.licence": record.licence,
        "napari_sam_med.note": "Not for clinical use.",
    }


def _compare(
    path: Path,
    module: SamDecoder | NanoDecoder,
    network: nn.Module,
    record: ModelRecord,
    features: Sequence[torch.Tensor],
    asked: Sequence[Case],
    multimask: bool,
) -> float:
    """Largest difference between the file in onnxruntime and the network in torch.

    Raises
    ------
    ModelError
        When it is above `TOLERANCE`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for case in asked:
        prompts = case.prompts()
        given = dict(zip((*module.feature_names, *OnnxPrompts._fields), (*features, *prompts), strict=True))
        answers = session.run(list(OUTPUTS), {name: value.numpy() for name, value in given.items()})
        expected = answers_of_torch(network, record, features, case, multimask=multimask)
        for name, answer, right in zip(OUTPUTS, answers, expected, strict=True):
            difference = _difference(answer, right)
            worst = max(worst, difference)
            if not difference <= TOLERANCE:
                raise ModelError(
                    f"The ONNX file of {record.name} differs from torch by {difference:.1e} in {name} for "
                    f"{case.name}, more than {TOLERANCE:.0e}, and was not kept; use the versions of "
                    "constraints.txt, or another opset."
                )
    return worst


def _difference(answer: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    if answer.shape != right.shape:
        return float("inf")
    return float(np.abs(answer - right).max() / max(1.0, float(np.abs(right).max())))
