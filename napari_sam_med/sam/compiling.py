"""Compiling an image encoder with `torch.compile`, on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_med.errors import DeviceError

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor

__all__ = ["compile_encoder_of"]

_BACKEND = "inductor"


def compile_encoder_of(predictor: Predictor) -> None:
    """Compile the encoder of a predictor for squares of its size, in place, and wait until that is done.

    The weights and their names stay as they are; results are the same up to rounding.

    Raises
    ------
    DeviceError
        When it cannot be compiled here.
    """
    network: Any = predictor.network
    encoder = network.get_submodule(network.parts["image_encoder"].removesuffix("."))
    encoder.compile(backend=_BACKEND, dynamic=False)
    from torch._dynamo.exc import TorchDynamoException  # loaded by the line before, and long in coming

    predictor.is_compiled = True
    side = predictor.network.input_size
    try:
        predictor.embed(np.zeros((side, side, 3), dtype=np.uint8))
    except (TorchDynamoException, RuntimeError) as error:
        inner = getattr(error, "inner_exception", error)  # torch wraps what the compiler said
        reason = next((line for line in str(inner).splitlines() if line.strip()), type(inner).__name__)
        raise DeviceError(
            f"The encoder of {predictor.record.title} cannot be compiled here ({reason}); torch.compile "
            "needs a C++ compiler such as g++, and on a GPU Triton as well: install them, or do without."
        ) from error
