"""Classifiers of organs: one interface, three kinds, one file format that is never unpickled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from napari_sam_med.errors import ExportError, ModelError
from napari_sam_med.segmentation.organ_features import GEOMETRY, SliceObjects
from napari_sam_med.segmentation.organ_network import LateFusion
from napari_sam_med.volume.replacement import Replacement

__all__ = [
    "BUNDLED_CLASSIFIER",
    "CLASSIFIER_FILE",
    "ClassifierFacts",
    "LateFusionClassifier",
    "OrganClassifier",
    "check_model",
    "load_classifier",
    "log_softmax",
    "with_facts",
    "write_classifier",
]

BUNDLED_CLASSIFIER = Path(__file__).parent / "weights" / "organs_nano.safetensors"
CLASSIFIER_FILE = "classifier.safetensors"
"""Name of the file in a folder that `train-classifier` writes."""
_METADATA = "napari_sam_med_classifier"
_VERSION = 1

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassifierFacts:
    """What every classifier knows of itself; it is stored beside the weights.

    Attributes
    ----------
    kind : str
        ``late_fusion``, ``class_token`` or ``trees``.
    organs : tuple of str
        Names of the classes, in the order of the probabilities.
    model : str
        What to load the model by whose features are read.
    model_sha256 : str
        Of that model's weights.
    temperature : float
        Logits are divided by it: calibration on patients that were not trained on (Guo et al., ICML 2017).
    threshold : float
        Objects whose best probability is lower are abstained from.
    rho : float
        Correlation of the errors of two slices of one object, measured on the same patients.
    geometry : tuple of str
        Names of the geometry features, in order.
    training : dict
        How it was trained and what it reached, for people.
    """

    kind: str
    organs: tuple[str, ...]
    model: str
    model_sha256: str
    temperature: float = 1.0
    threshold: float = 0.6
    rho: float = 0.3
    geometry: tuple[str, ...] = GEOMETRY
    training: dict[str, Any] = field(default_factory=dict)


class OrganClassifier(Protocol):
    """Something that says which organ a mask on a slice is."""

    @property
    def facts(self) -> ClassifierFacts: ...

    def log_probabilities(self, objects: SliceObjects) -> Floats:
        """Calibrated log-probabilities (N, C) of the masks of a slice."""
        ...

    def tensors(self) -> dict[str, torch.Tensor]:
        """What `write_classifier` stores."""
        ...


@dataclass(frozen=True, eq=False)
class LateFusionClassifier:
    """A small network over geometry, pooled embedding and decoder tokens; the model itself stays as it is."""

    facts: ClassifierFacts
    network: LateFusion

    KIND: ClassVar[str] = "late_fusion"

    def log_probabilities(self, objects: SliceObjects) -> Floats:
        features = {
            group: torch.from_numpy(np.ascontiguousarray(getattr(objects, group)))
            for group in self.network.groups
        }
        with torch.inference_mode():
            logits = self.network.eval()(features)
        return log_softmax(logits.numpy(), self.facts.temperature)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}

    @classmethod
    def from_tensors(
        cls, facts: ClassifierFacts, tensors: Mapping[str, torch.Tensor]
    ) -> LateFusionClassifier:
        """Inverse of `tensors`."""
        sizes = {
            name.removesuffix("_mean"): len(tensor)
            for name, tensor in tensors.items()
            if name.endswith("_mean")
        }
        network = LateFusion(sizes, len(facts.organs))
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        return cls(facts, network.eval())


def log_softmax(logits: npt.ArrayLike, temperature: float) -> Floats:
    """Log-probabilities (N, C) of logits (N, C) divided by the temperature."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))


def check_model(facts: ClassifierFacts, model: str, model_hash: str) -> None:
    """Refuse a model that a classifier was not trained on.

    Raises
    ------
    ModelError
        With the way out.
    """
    if model_hash != facts.model_sha256:
        raise ModelError(
            f"The classifier reads the features of {facts.model}, not those of {model}; use "
            f"--model {facts.model}, or train one for {model} with train-classifier."
        )


def write_classifier(path: Path, classifier: OrganClassifier) -> Path:
    """Write a classifier as safetensors, whole or not at all; floats in half precision.

    Raises
    ------
    ExportError
        When the file cannot be written.
    """
    document = asdict(classifier.facts) | {"version": _VERSION}
    stored = {
        name: tensor.half() if tensor.dtype == torch.float32 and not _is_statistic(name) else tensor
        for name, tensor in classifier.tensors().items()
    }
    try:
        with Replacement(path, ".safetensors") as file:
            # not save_file, whose files nobody but their owner may read
            file.temporary.write_bytes(save(stored, metadata={_METADATA: json.dumps(document)}))
            file.flush_to_disk()
            file.put_in_place()
    except OSError as error:
        raise ExportError(
            f"{path} could not be written: {error}; choose a folder that exists, is writable and has space."
        ) from error
    return path


def _is_statistic(name: str) -> bool:
    return name.endswith(("_mean", "_deviation"))


def load_classifier(path: str | os.PathLike[str] | None = None) -> OrganClassifier:
    """The bundled classifier, or one from a folder of `train-classifier` or a file of it.

    Raises
    ------
    ModelError
        When it is missing, damaged, or of another kind or version.
    """
    where = BUNDLED_CLASSIFIER if path is None else Path(path)
    if where.is_dir():
        where = where / CLASSIFIER_FILE
    remedy = "give a folder that train-classifier wrote, or leave --classifier out for the bundled one."
    if not where.is_file():
        raise ModelError(f"There is no classifier {where}; {remedy}")
    try:
        with safe_open(where, framework="pt") as file:
            document = json.loads((file.metadata() or {})[_METADATA])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        version = document.pop("version")
        document |= {key: tuple(document[key]) for key in ("organs", "geometry")}
        facts = ClassifierFacts(**document)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{where} is no organ classifier ({error!r}); {remedy}") from error
    if version != _VERSION or facts.geometry != GEOMETRY:
        raise ModelError(
            f"{where} was written by another version of napari-sam-med; train it again with train-classifier."
        )
    try:
        return _of_kind(facts, tensors)
    except (RuntimeError, KeyError, IndexError) as error:
        raise ModelError(f"{where} does not hold what its kind needs ({error}); {remedy}") from error


def _of_kind(facts: ClassifierFacts, tensors: dict[str, torch.Tensor]) -> OrganClassifier:
    if facts.kind == LateFusionClassifier.KIND:
        return LateFusionClassifier.from_tensors(facts, tensors)
    if facts.kind == "class_token":
        from napari_sam_med.segmentation.organ_token import ClassTokenClassifier

        return ClassTokenClassifier.from_tensors(facts, tensors)
    if facts.kind == "trees":
        from napari_sam_med.segmentation.organ_trees import TreesClassifier

        return TreesClassifier.from_tensors(facts, tensors)
    raise KeyError(f"unknown kind {facts.kind!r}")


def with_facts(classifier: OrganClassifier, **changes: Any) -> OrganClassifier:
    """The classifier with other facts, such as its calibration."""
    kind: Any = classifier  # each is a dataclass
    changed: OrganClassifier = replace(kind, facts=replace(classifier.facts, **changes))
    return changed
