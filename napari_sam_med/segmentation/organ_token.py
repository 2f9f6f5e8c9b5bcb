"""A class token in SAM's mask decoder, beside the mask and IoU tokens, with a transformer of its own.

The form of a term project on SAM and BTCV (0.8331 of the slices with point prompts and ViT-H): the token, the
two-way transformer and the head are trained, everything else stays as it is. The transformer is a copy, so
that the masks of the model do not change.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.architectures.meta import SamNetwork
from napari_sam_med.sam.native_imports import import_segment_anything
from napari_sam_med.sam.prompt_batch import batch_of
from napari_sam_med.segmentation.organ_classifier import ClassifierFacts, log_softmax
from napari_sam_med.segmentation.organ_features import SliceObjects

if TYPE_CHECKING:
    from napari_sam_med.sam.image_embedding import ImageEmbedding
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.sam.prompts import Prompts

__all__ = ["ClassTokenClassifier", "ClassTokenHead", "class_token_logits", "sam_network"]

_WIDTH = 256


class ClassTokenHead(nn.Module):
    """The trained part: ``token`` (1, 256), ``transformer``, and the ``head`` from 256 to the classes."""

    def __init__(self, transformer: nn.Module, n_classes: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, _WIDTH) * 0.02)
        self.transformer = transformer
        self.head = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, n_classes))

    @classmethod
    def beside(cls, network: SamNetwork, n_classes: int) -> ClassTokenHead:
        """Untrained, with a copy of the transformer of a model's mask decoder."""
        return cls(copy.deepcopy(network.mask_decoder.transformer), n_classes)


def sam_network(predictor: Predictor) -> SamNetwork:
    """The network of a predictor, if it has SAM's mask decoder.

    Raises
    ------
    ModelError
        When it has not.
    """
    network: Any = predictor.network
    if not isinstance(network, SamNetwork):
        raise ModelError(
            f"{predictor.record.name} has no mask decoder of SAM's, which a class token needs; use a SAM "
            "model such as --model mobile_sam, or --recipe late-fusion."
        )
    return network


def class_token_logits(
    head: ClassTokenHead, predictor: Predictor, embedding: ImageEmbedding, prompts: Sequence[Prompts]
) -> torch.Tensor:
    """Logits (P, C) of prompts of one structure on one image."""
    features = type(embedding.features)(*(t.to(predictor.device).float() for t in embedding.features))
    batch = batch_of(prompts, embedding, predictor.fit_of(embedding), predictor.device)
    out = sam_network(predictor).decode_class_token(features, batch, head.token, head.transformer)
    logits: torch.Tensor = head.head(out.float())
    return logits


def _transformer(mlp_width: int) -> nn.Module:
    """SAM's two-way transformer with a hidden layer of this width (2048 in all published models)."""
    import_segment_anything()
    from segment_anything.modeling import TwoWayTransformer

    transformer: nn.Module = TwoWayTransformer(depth=2, embedding_dim=_WIDTH, mlp_dim=mlp_width, num_heads=8)
    return transformer


@dataclass(frozen=True, eq=False)
class ClassTokenClassifier:
    """Asks the class token about the tangent box of each mask."""

    facts: ClassifierFacts
    head: ClassTokenHead

    KIND: ClassVar[str] = "class_token"

    def log_probabilities(self, objects: SliceObjects) -> npt.NDArray[np.float64]:
        """Calibrated log-probabilities (N, C) of the masks of a slice."""
        head = self.head.to(objects.predictor.device).eval()
        with torch.inference_mode():
            logits = class_token_logits(head, objects.predictor, objects.embedding, objects.prompts)
        return log_softmax(logits.cpu().numpy(), self.facts.temperature)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights of token, transformer and head."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self.head.state_dict().items()}

    @classmethod
    def from_tensors(
        cls, facts: ClassifierFacts, tensors: Mapping[str, torch.Tensor]
    ) -> ClassTokenClassifier:
        """Inverse of `tensors`."""
        head = ClassTokenHead(
            _transformer(len(tensors["transformer.layers.0.mlp.lin1.bias"])), len(facts.organs)
        )
        head.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        return cls(facts, head.eval())
