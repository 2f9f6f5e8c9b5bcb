"""The network of the late-fusion classifier: groups of features side by side, then two hidden layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

__all__ = ["GROUPS", "LateFusion"]

GROUPS = ("geometry", "pooled", "tokens")
"""Groups of features, as `SliceObjects` calls them."""
_WIDTHS = {"geometry": 96, "pooled": 48, "tokens": 48}
_HIDDEN = (256, 128)
_DROPOUT = 0.3
_FARTHEST = 6.0
"""Standardised features are clipped here: a scan unlike all others must not drown the rest."""


class LateFusion(nn.Module):
    """Features of masks (N, D) by group -> logits (N, C).

    Each group is standardised, projected to a width of its own and normalised, so that the hundreds of
    numbers of an embedding do not outweigh the few of the geometry. In training a group is left out now and
    then, which keeps the head from leaning on one of them.

    Parameters
    ----------
    sizes : mapping of str to int
        Number of features of each group.
    n_classes : int
    leave_out : float
        Share of the training samples that lack a group other than the geometry.
    """

    def __init__(self, sizes: Mapping[str, int], n_classes: int, leave_out: float = 0.3) -> None:
        super().__init__()
        self.groups = tuple(group for group in GROUPS if group in sizes)
        self.leave_out = leave_out
        for group in self.groups:
            self.register_buffer(f"{group}_mean", torch.zeros(sizes[group]))
            self.register_buffer(f"{group}_deviation", torch.ones(sizes[group]))
        self.projections = nn.ModuleDict(
            {group: nn.Linear(sizes[group], _WIDTHS[group]) for group in self.groups}
        )
        self.norms = nn.ModuleDict({group: nn.LayerNorm(_WIDTHS[group]) for group in self.groups})
        layers: list[nn.Module] = []
        width = sum(_WIDTHS[group] for group in self.groups)
        for hidden in _HIDDEN:
            layers += [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(_DROPOUT)]
            width = hidden
        self.head = nn.Sequential(*layers, nn.Linear(width, n_classes))

    def standardise_by(self, features: Mapping[str, torch.Tensor]) -> None:
        """Take mean and deviation of each feature from training samples (N, D)."""
        for group in self.groups:
            getattr(self, f"{group}_mean").copy_(features[group].mean(0))
            getattr(self, f"{group}_deviation").copy_(features[group].std(0).clamp(min=1e-3))

    def forward(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        parts = []
        for group in self.groups:
            mean, deviation = getattr(self, f"{group}_mean"), getattr(self, f"{group}_deviation")
            standard = ((features[group] - mean) / deviation).clamp(-_FARTHEST, _FARTHEST)
            part = self.norms[group](self.projections[group](standard))
            if self.training and group != "geometry":
                kept = torch.rand(len(part), 1, device=part.device) >= self.leave_out
                part = part * kept
            parts.append(part)
        logits: torch.Tensor = self.head(torch.cat(parts, 1))
        return logits
