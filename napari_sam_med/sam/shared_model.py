"""A model that several processes or machines load for themselves, and that is the same for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.checkpoints import read_checkpoint
from napari_sam_med.sam.device import resolve_device, resolve_precision
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.predictor import Predictor, load_predictor

__all__ = ["SharedModel"]


@dataclass(frozen=True)
class SharedModel:
    """A model by name, with the digest of its weights.

    Attributes
    ----------
    model : str
        A name, or the absolute path of a file or folder that all of them see.
    device : str
        As for `load_predictor`, on the machine that loads it.
    precision : str
        ``fp32`` or ``bf16``: the same everywhere, so that answers and stored embeddings are.
    sha256 : str
        Of the weights.
    preprocessing : str or None
    """

    model: str
    device: str
    precision: str
    sha256: str
    preprocessing: str | None = None

    @classmethod
    def of(
        cls,
        model: str,
        device: str = "auto",
        precision: str = "auto",
        preprocessing: str | None = None,
        *,
        here: str = "auto",
    ) -> SharedModel:
        """The model as this machine has it; the precision ``auto`` is what it is with its device ``here``.

        Raises
        ------
        ModelError, DeviceError
            When it is not here, or there is no such precision.
        """
        sha256 = read_checkpoint(model, preprocessing=preprocessing).sha256
        exactness = resolve_precision(precision, resolve_device(here))
        return cls(_everywhere(model), device, exactness, sha256, preprocessing)

    @classmethod
    def of_loaded(cls, model: str, predictor: Predictor, device: str) -> SharedModel:
        """A model that is loaded here, by the name it was loaded by, for another device."""
        return cls(_everywhere(model), device, predictor.precision, predictor.model_hash)

    def load(self) -> Predictor:
        """The model, loaded once a process.

        Raises
        ------
        ModelError
            When it is not on this machine, or has other weights.
        DeviceError
            When this machine does not have the device.
        """
        return _loaded(self)


def _everywhere(model: str) -> str:
    return model if model in MODELS else str(Path(model).absolute())


@lru_cache(maxsize=4)
def _loaded(shared: SharedModel) -> Predictor:
    predictor = load_predictor(
        shared.model,
        device=shared.device,
        precision=shared.precision,
        preprocessing=shared.preprocessing,
    )
    if predictor.model_hash != shared.sha256:
        raise ModelError(
            f"A worker's {shared.model} has other weights (sha256 {predictor.model_hash[:12]}, not "
            f"{shared.sha256[:12]}); give all machines the same file."
        )
    return predictor
