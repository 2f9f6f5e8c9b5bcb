"""MobileSAM's checkpoint layout written out by hand, and what its encoder computes from those weights.

An independent second account to hold the encoder and its key map against.
"""

from __future__ import annotations

from itertools import product

import torch
from torch.nn import functional as F

StateDict = dict[str, torch.Tensor]

WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)
WINDOWS = (7, 7, 14, 7)


def random_encoder_weights(seed: int = 0) -> StateDict:
    """The 302 tensors of `image_encoder` as mobile_sam.pt names them, random, batch statistics included."""
    generator = torch.Generator().manual_seed(seed)
    weights: StateDict = {}

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(shape, generator=generator)

    def conv(name: str, out: int, inner: int, kernel: int) -> None:
        weights[f"{name}.c.weight"] = normal(out, inner, kernel, kernel, scale=(inner * kernel**2) ** -0.5)
        weights[f"{name}.bn.weight"] = 1 + normal(out, scale=0.2)
        weights[f"{name}.bn.bias"] = normal(out, scale=0.2)
        weights[f"{name}.bn.running_mean"] = normal(out, scale=0.2)
        weights[f"{name}.bn.running_var"] = 0.5 + torch.rand(out, generator=generator)
        weights[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)

    def affine(name: str, out: int, inner: int | None = None) -> None:
        weight = 1 + normal(out, scale=0.2) if inner is None else normal(out, inner, scale=inner**-0.5)
        weights[f"{name}.weight"] = weight
        weights[f"{name}.bias"] = normal(out, scale=0.2)

    conv("patch_embed.seq.0", 32, 3, 3)
    conv("patch_embed.seq.2", 64, 32, 3)
    for i, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            if i == 0:
                conv(f"{block}.conv1", 4 * width, width, 1)
                conv(f"{block}.conv2", 4 * width, 1, 3)
                conv(f"{block}.conv3", width, 4 * width, 1)
                continue
            affine(f"{block}.attn.norm", width)
            affine(f"{block}.attn.qkv", 3 * width, width)
            affine(f"{block}.attn.proj", width, width)
            weights[f"{block}.attn.attention_biases"] = normal(HEADS[i], WINDOWS[i] ** 2)
            affine(f"{block}.mlp.norm", width)
            affine(f"{block}.mlp.fc1", 4 * width, width)
            affine(f"{block}.mlp.fc2", width, 4 * width)
            conv(f"{block}.local_conv", width, 1, 3)
        if i < 3:
            conv(f"layers.{i}.downsample.conv1", WIDTHS[i + 1], width, 1)
            conv(f"layers.{i}.downsample.conv2", WIDTHS[i + 1], 1, 3)
            conv(f"layers.{i}.downsample.conv3", WIDTHS[i + 1], WIDTHS[i + 1], 1)
    affine("norm_head", 320)
    affine("head", 1000, 320)
    weights["neck.0.weight"] = normal(256, 320, 1, 1, scale=320**-0.5)
    affine("neck.1", 256)
    weights["neck.2.weight"] = normal(256, 256, 3, 3, scale=(9 * 256) ** -0.5)
    affine("neck.3", 256)
    return {f"image_encoder.{name}": value for name, value in weights.items()}


def encode(weights: StateDict, x: torch.Tensor) -> torch.Tensor:
    """What MobileSAM's encoder makes of squares (B, 3, S, S)."""
    w = {name.removeprefix("image_encoder."): value for name, value in weights.items()}
    x = F.gelu(_conv_bn(w, "patch_embed.seq.0", x, stride=2))
    x = _conv_bn(w, "patch_embed.seq.2", x, stride=2)
    for i, depth in enumerate(DEPTHS):
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            x = (
                _mobile_block(w, block, x)
                if i == 0
                else _transformer_block(w, block, x, HEADS[i], WINDOWS[i])
            )
        if i < 3:
            # the width of the last stage is one of those before which MobileSAM keeps the grid
            stride = 1 if WIDTHS[i + 1] == 320 else 2
            x = F.gelu(_conv_bn(w, f"layers.{i}.downsample.conv1", x))
            x = F.gelu(_conv_bn(w, f"layers.{i}.downsample.conv2", x, stride=stride))
            x = _conv_bn(w, f"layers.{i}.downsample.conv3", x)
    x = _channel_norm(w, "neck.1", F.conv2d(x, w["neck.0.weight"]))
    return _channel_norm(w, "neck.3", F.conv2d(x, w["neck.2.weight"], padding=1))


def _conv_bn(w: StateDict, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    kernel = w[f"{name}.c.weight"]
    groups = x.shape[1] // kernel.shape[1]
    x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)
    statistics = (w[f"{name}.bn.running_mean"], w[f"{name}.bn.running_var"])
    return F.batch_norm(x, *statistics, w[f"{name}.bn.weight"], w[f"{name}.bn.bias"], eps=1e-5)


def _channel_norm(w: StateDict, name: str, x: torch.Tensor) -> torch.Tensor:
    x = x.permute(0, 2, 3, 1)
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6).permute(0, 3, 1, 2)


def _mobile_block(w: StateDict, name: str, x: torch.Tensor) -> torch.Tensor:
    y = F.gelu(_conv_bn(w, f"{name}.conv1", x))
    y = F.gelu(_conv_bn(w, f"{name}.conv2", y))
    return F.gelu(x + _conv_bn(w, f"{name}.conv3", y))


def _transformer_block(w: StateDict, name: str, x: torch.Tensor, heads: int, window: int) -> torch.Tensor:
    batch, channels, height, width = x.shape
    rows, columns = -(-height // window), -(-width // window)
    padded = F.pad(x, (0, columns * window - width, 0, rows * window - height))
    tiles = padded.reshape(batch, channels, rows, window, columns, window).permute(0, 2, 4, 3, 5, 1)
    out = _attention(w, f"{name}.attn", tiles.reshape(-1, window * window, channels), heads, window)
    out = out.reshape(batch, rows, columns, window, window, channels).permute(0, 5, 1, 3, 2, 4)
    x = x + out.reshape(batch, channels, rows * window, columns * window)[:, :, :height, :width]
    x = _conv_bn(w, f"{name}.local_conv", x)
    y = _layer_norm(w, f"{name}.mlp.norm", x.permute(0, 2, 3, 1))
    y = _linear(w, f"{name}.mlp.fc2", F.gelu(_linear(w, f"{name}.mlp.fc1", y)))
    return x + y.permute(0, 3, 1, 2)


def _attention(w: StateDict, name: str, x: torch.Tensor, heads: int, window: int) -> torch.Tensor:
    batch, count, channels = x.shape
    qkv = _linear(w, f"{name}.qkv", _layer_norm(w, f"{name}.norm", x))
    q, k, v = qkv.view(batch, count, heads, 3, channels // heads).permute(3, 0, 2, 1, 4)
    offsets: dict[tuple[int, int], int] = {}
    cells = list(product(range(window), repeat=2))
    index = [offsets.setdefault((abs(a - c), abs(b - d)), len(offsets)) for a, b in cells for c, d in cells]
    bias = w[f"{name}.attention_biases"][:, torch.tensor(index)].view(heads, count, count)
    attention = (q @ k.transpose(-1, -2) * (channels // heads) ** -0.5 + bias).softmax(-1)
    return _linear(w, f"{name}.proj", (attention @ v).transpose(1, 2).reshape(batch, count, channels))


def _linear(w: StateDict, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def _layer_norm(w: StateDict, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)
