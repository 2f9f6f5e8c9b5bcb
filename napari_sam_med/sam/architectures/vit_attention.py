"""A faster attention for SAM's ViT encoders, the same function as Meta's.

Meta adds a bias to the scores that depends on row and column distance, and writes the scores of all pairs of
patches out several times: 800 MB a layer for ViT-B. Two ways around that, by where the network runs:

On a processor the scores are made some rows of patches at a time, so few that they stay in its cache. Every
operation is Meta's, in Meta's order, so fp32 results are equal bit for bit.

Elsewhere: the bias is itself an inner product, of the query's biases by row and column with the key's row and
column written as unit vectors. Appended to query and key, it leaves plain attention, for which PyTorch has
kernels that never write the scores out. In fp32, which is for being equal to Meta's, Meta's own is kept.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from napari_sam_med.sam.device import side_by_side

__all__ = ["use_fast_attention"]

_SCORES_AT_ONCE = 2**20
"""4 MB in fp32."""


def use_fast_attention(encoder: nn.Module) -> None:
    """Make the blocks of a `segment_anything.modeling.ImageEncoderViT` attend the fast way, in place.

    Weights and their names stay as they are. For inference only.
    """
    blocks: Any = encoder.blocks
    for block in blocks:
        if block.attn.use_rel_pos:
            block.attn.forward = MethodType(_attend, block.attn)


def _attend(attention: Any, x: torch.Tensor) -> torch.Tensor:
    """Attention of tokens (B, H, W, C), as in Meta's `Attention.forward`."""
    on_cpu = x.device.type == "cpu"
    if not on_cpu and not torch.is_autocast_enabled(x.device.type):
        as_meta_does: torch.Tensor = type(attention).forward(attention, x)
        return as_meta_does
    batch, height, width, _ = x.shape
    qkv = attention.qkv(x).reshape(batch, height * width, 3, attention.num_heads, -1)
    # (B * heads, H * W, C / heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).flatten(1, 2).contiguous()
    grid = q.unflatten(1, (height, width))
    row_bias = torch.einsum("bhwc,hkc->bhwk", grid, _by_distance(attention.rel_pos_h, height).to(q.dtype))
    column_bias = torch.einsum("bhwc,wkc->bhwk", grid, _by_distance(attention.rel_pos_w, width).to(q.dtype))
    # a compiler would write every turn of the loop out
    way = _in_strips if on_cpu and not torch.compiler.is_compiling() else _folded
    out = way(q * attention.scale, k, v, row_bias, column_bias)
    out = out.view(batch, attention.num_heads, height, width, -1).permute(0, 2, 3, 1, 4)
    projected: torch.Tensor = attention.proj(out.reshape(batch, height, width, -1))
    return projected


def _in_strips(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, row_bias: torch.Tensor, column_bias: torch.Tensor
) -> torch.Tensor:
    """Attention (N, H * W, C) with biases (N, H, W, H) and (N, H, W, W), some heads and rows at a time.

    Each core has heads of its own: spread over the cores, operations this small wait for one another longer
    than they take as soon as another program wants a core.
    """
    heads, height, width, _ = row_bias.shape
    patches = height * width
    heads_at_once = max(1, _SCORES_AT_ONCE // patches**2)
    rows_at_once = max(1, _SCORES_AT_ONCE // (width * patches))
    out = torch.empty_like(q)
    for_inference = torch.is_inference_mode_enabled()  # of this thread alone

    def attend(first: int) -> None:
        some = slice(first, first + heads_at_once)
        with torch.inference_mode() if for_inference else torch.no_grad():
            for top in range(0, height, rows_at_once):
                rows = slice(top, top + rows_at_once)
                strip = slice(top * width, (top + rows_at_once) * width)
                scores = q[some, strip] @ k[some].transpose(1, 2)
                by_place = scores.view(len(scores), -1, width, height, width)
                by_place += row_bias[some, rows, :, :, None]
                by_place += column_bias[some, rows, :, None]
                out[some, strip] = torch.softmax(scores, dim=-1) @ v[some]

    side_by_side(attend, range(0, heads, heads_at_once))
    return out


def _folded(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, row_bias: torch.Tensor, column_bias: torch.Tensor
) -> torch.Tensor:
    """The same by one kernel, the biases as further channels of query and key."""
    _, height, width, _ = row_bias.shape
    query = torch.cat([q, row_bias.flatten(1, 2), column_bias.flatten(1, 2)], dim=-1)
    rows = torch.eye(height, dtype=q.dtype, device=q.device).repeat_interleave(width, dim=0)
    columns = torch.eye(width, dtype=q.dtype, device=q.device).repeat(height, 1)
    key = torch.cat([k, torch.cat([rows, columns], dim=-1).expand(len(k), -1, -1)], dim=-1)
    # kernels want query, key and value of one width, in steps of 8, and a batch of heads
    width_of_all = -(-query.shape[-1] // 8) * 8
    query, key, value = (F.pad(t, (0, width_of_all - t.shape[-1]))[None] for t in (query, key, v))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)[0, ..., : v.shape[-1]]


def _by_distance(table: torch.Tensor, size: int) -> torch.Tensor:
    """Biases (query, key, C) from a table by distance (2 * size - 1, C)."""
    place = torch.arange(size, device=table.device)
    return table[place[:, None] - place[None, :] + (size - 1)]
