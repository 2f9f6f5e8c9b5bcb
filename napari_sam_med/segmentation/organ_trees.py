"""Boosted trees on the geometry alone: the baseline that a head with a model's features has to beat.

Trees are not stored, since their own file format is a pickle: the training features are, and the trees are
grown again when the classifier is loaded, which takes a second and gives the same trees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from napari_sam_med.errors import ModelError
from napari_sam_med.segmentation.organ_classifier import ClassifierFacts, log_softmax
from napari_sam_med.segmentation.organ_features import SliceObjects

__all__ = ["TreesClassifier"]

_LEAST = 1e-6


@dataclass(frozen=True, eq=False)
class TreesClassifier:
    """Gradient-boosted trees on geometry features.

    Attributes
    ----------
    facts : ClassifierFacts
    features : ndarray (N, len(GEOMETRY)) float32
        Of the training masks.
    classes : ndarray (N,) int64
    """

    facts: ClassifierFacts
    features: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    KIND: ClassVar[str] = "trees"

    @cached_property
    def _trees(self) -> Any:
        try:
            from sklearn.ensemble import HistGradientBoostingClassifier
        except ImportError:
            raise ModelError(
                "This classifier is of boosted trees, which need scikit-learn; install it, or use the "
                "bundled classifier."
            ) from None
        trees = HistGradientBoostingClassifier(
            max_iter=120, learning_rate=0.08, max_leaf_nodes=15, class_weight="balanced", random_state=0
        )
        return trees.fit(self.features, self.classes)

    def logits(self, geometry: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Log-probabilities (N, C) before calibration; classes never seen are next to impossible."""
        table = np.full((len(geometry), len(self.facts.organs)), np.log(_LEAST))
        table[:, self._trees.classes_] = np.log(np.maximum(self._trees.predict_proba(geometry), _LEAST))
        return table

    def log_probabilities(self, objects: SliceObjects) -> npt.NDArray[np.float64]:
        """Calibrated log-probabilities (N, C) of the masks of a slice."""
        return log_softmax(self.logits(objects.geometry), self.facts.temperature)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Training features and classes."""
        return {
            "features": torch.from_numpy(self.features).half(),
            "classes": torch.from_numpy(self.classes).to(torch.uint8),
        }

    @classmethod
    def from_tensors(cls, facts: ClassifierFacts, tensors: Mapping[str, torch.Tensor]) -> TreesClassifier:
        """Inverse of `tensors`."""
        features = tensors["features"].float().numpy()
        return cls(facts, features, tensors["classes"].numpy().astype(np.int64))
