"""A faster attention for SAM's ViT encoders, the same function as Meta's.

Meta adds a bias to the scores that depends on row and column distance. With it the scores of all pairs of
patches must be written out: 400 MB a layer for ViT-B in half precision. But the bias is itself an inner
product, of the query's biases by row and column with the key's row and column written as unit vectors.
Appended to query and key, it leaves plain attention, for which PyTorch has kernels that never write them out.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["use_fused_attention"]


def use_fused_attention(encoder: nn.Module) -> None:
    """Make the blocks of a `segment_anything.modeling.ImageEncoderViT` attend the fast way, in place.

    Weights and their names stay as they are.
    """
    blocks: Any = encoder.blocks
    for block in blocks:
        if block.attn.use_rel_pos:
            block.attn.forward = MethodType(_attend, block.attn)


def _attend(attention: Any, x: torch.Tensor) -> torch.Tensor:
    """Attention of tokens (B, H, W, C), as in Meta's `Attention.forward`."""
    batch, height, width, _ = x.shape
    qkv = attention.qkv(x).reshape(batch, height * width, 3, attention.num_heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)

    grid = q.unflatten(2, (height, width))
    row_bias = torch.einsum("bnhwc,hkc->bnhwk", grid, _by_distance(attention.rel_pos_h, height).to(q.dtype))
    column_bias = torch.einsum("bnhwc,wkc->bnhwk", grid, _by_distance(attention.rel_pos_w, width).to(q.dtype))
    query = torch.cat([q * attention.scale, row_bias.flatten(2, 3), column_bias.flatten(2, 3)], dim=-1)

    rows = torch.eye(height, dtype=q.dtype, device=q.device).repeat_interleave(width, dim=0)
    columns = torch.eye(width, dtype=q.dtype, device=q.device).repeat(height, 1)
    units = torch.cat([rows, columns], dim=-1).expand(*k.shape[:2], -1, -1)
    key = torch.cat([k, units], dim=-1)

    # kernels want query, key and value of one width, in steps of 8
    width_of_all = -(-query.shape[-1] // 8) * 8
    query, key, value = (F.pad(t, (0, width_of_all - t.shape[-1])) for t in (query, key, v))
    out = F.scaled_dot_product_attention(query, key, value, scale=1.0)[..., : v.shape[-1]]
    projected: torch.Tensor = attention.proj(out.transpose(1, 2).reshape(batch, height, width, -1))
    return projected


def _by_distance(table: torch.Tensor, size: int) -> torch.Tensor:
    """Biases (query, key, C) from a table by distance (2 * size - 1, C)."""
    place = torch.arange(size, device=table.device)
    return table[place[:, None] - place[None, :] + (size - 1)]
