"""`Nano`, the bundled network: a small promptable segmenter that runs on a laptop's processor.

A convolutional pyramid reads the whole slice once, without knowing any prompt. For each prompt a U-shaped
decoder looks at a square region around it on a fixed grid (see `nano_region`) and answers with a correction
of what the prompt alone says: the ellipse inscribed in the box, the mask prompt, or a blob around the click.
Untrained, the answer is exactly that prior, so training can only add to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_sam_med.sam.architectures.base import DecodedMasks, PromptBatch
from napari_sam_med.sam.architectures.nano_region import (
    CELLS,
    INPUT_SIZE,
    LOGIT_LIMIT,
    N_MAPS,
    POINT_SIDES,
    Region,
    RegionPrompts,
    cell_maps,
    paste,
    resample,
)
from napari_sam_med.sam.device import on_one_core

__all__ = ["FITTED_CLICK_PASSES", "Nano", "NanoFeatures", "RegionMasks"]

_REACH_QUANTILES = (0.4, 0.8, 1.0)
_REACH_MARGIN = 1.15
_MOST_CLICK_PASSES = 10
FITTED_CLICK_PASSES = 3
"""Passes of weights that were fitted to clicks."""


class NanoFeatures(NamedTuple):
    """What the decoder needs of a slice.

    Attributes
    ----------
    embedding : tensor (B, 48, 64, 64)
    detail : tensor (B, 16, 128, 128)
    intensity : tensor (B, 1, 256, 256)
        The grey slice itself.
    """

    embedding: torch.Tensor
    detail: torch.Tensor
    intensity: torch.Tensor


class RegionMasks(NamedTuple):
    """Answer for P prompts on their regions' grids: ``logits`` (P, G, G), ``iou_logits`` (P,), ``tokens``
    (P, D).
    """

    logits: torch.Tensor
    iou_logits: torch.Tensor
    tokens: torch.Tensor


def _conv(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    """Two 3x3 convolutions around an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(self.first(x)))


class _Pyramid(nn.Module):
    """Slice (B, 1, 256, 256) -> embedding at stride 4 with context from strides 8 and 16, and detail at
    stride 2.
    """

    def __init__(self, width: int = 48, detail: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(1, detail, stride=2), _conv(detail, detail))
        self.stage4 = nn.Sequential(_conv(detail, width, stride=2), _Residual(width))
        self.stage8 = nn.Sequential(_conv(width, 2 * width, stride=2), _Residual(2 * width))
        self.stage16 = nn.Sequential(_conv(2 * width, 160, stride=2), _Residual(160), _Residual(160))
        self.lateral8 = nn.Conv2d(160, 2 * width, 1)
        self.lateral4 = nn.Conv2d(2 * width, width, 1)
        self.merge8 = _conv(2 * width, 2 * width)
        self.merge4 = _conv(width, width)

    def forward(self, grey: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        detail = self.stem(grey - 0.4)
        fine = self.stage4(detail)
        middle = self.stage8(fine)
        coarse = self.stage16(middle)
        middle = self.merge8(middle + _twice(self.lateral8(coarse)))
        return self.merge4(fine + _twice(self.lateral4(middle))), detail


def _twice(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


class _RegionNet(nn.Module):
    """U-shaped network on a region's grid: maps and sampled features -> logits, IoU logit, tokens."""

    def __init__(self, width: int = 48, detail: int = 16, top: int = 32) -> None:
        super().__init__()
        self.top = _conv(N_MAPS + 2 + detail, top)
        self.down32 = _conv(top, 64, stride=2)
        self.join32 = _conv(64 + width, 64)
        self.block32 = _Residual(64)
        self.down16 = nn.Sequential(_conv(64, 96, stride=2), _Residual(96))
        self.down8 = nn.Sequential(_conv(96, 160, stride=2), _Residual(160), _Residual(160))
        self.up16 = nn.Conv2d(160, 96, 1)
        self.merge16 = _Residual(96)
        self.up32 = nn.Conv2d(96, 64, 1)
        self.merge32 = _Residual(64)
        self.up64 = nn.Conv2d(64, top, 1)
        self.merge64 = _conv(top, top)
        self.head = nn.Conv2d(top, 1, 1)
        self.quality = nn.Sequential(
            nn.Linear(160 + 2 * 64 + 1, 128), nn.ReLU(inplace=True), nn.Linear(128, 1)
        )
        # the last convolution starts at zero: the untrained answer is the prior itself
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(
        self, maps: torch.Tensor, detail: torch.Tensor, embedding: torch.Tensor, prior: torch.Tensor
    ) -> RegionMasks:
        cells = maps.shape[-1]
        ramp = torch.linspace(-1, 1, cells, device=maps.device).expand(len(maps), 1, cells, cells)
        top = self.top(torch.cat([maps, ramp, ramp.transpose(2, 3), detail], 1))
        x32 = self.block32(self.join32(torch.cat([self.down32(top), embedding], 1)))
        x16 = self.down16(x32)
        x8 = self.down8(x16)
        x16 = self.merge16(x16 + _twice(self.up16(x8)))
        x32 = self.merge32(x32 + _twice(self.up32(x16)))
        x64 = self.merge64(top + _twice(self.up64(x32)))
        correction = self.head(x64)[:, 0].float()
        logits = (prior + correction).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        tokens = _tokens(logits.detach(), x32.float(), x8.float())
        return RegionMasks(logits, self.quality(tokens)[:, 0].float(), tokens)


def _tokens(logits: torch.Tensor, x32: torch.Tensor, x8: torch.Tensor) -> torch.Tensor:
    """Descriptor (P, D) of a mask: coarse features averaged, fine ones averaged inside and outside,
    certainty.
    """
    inside = torch.sigmoid(nn.functional.avg_pool2d(logits[:, None], 2))
    weights = torch.cat([inside, 1 - inside], 1).flatten(2)
    # a product of matrices, which is several times as fast as multiplying and adding up
    sums = torch.bmm(weights, x32.flatten(2).transpose(1, 2))
    parts = (sums / (weights.sum(2, keepdim=True) + 1)).flatten(1)
    probability = torch.sigmoid(logits).flatten(1)
    certain = (probability - 0.5).abs().mul(2)
    sure = (certain * probability).sum(1) / (probability.sum(1) + 1)
    return torch.cat([x8.mean((2, 3)), parts, sure[:, None]], 1)


class Nano(nn.Module):
    """Promptable segmenter of grey 256 x 256 squares with values 0..1; see `base.Architecture`.

    Boxes, any number of positive and negative points, mask prompts (logits on the 256 x 256 grid) and any
    combination. Points alone do not tell how large the object is, so three regions of growing side are
    tried: ``multimask=True`` returns the three masks (small, medium, large), ``False`` the one with the
    highest predicted IoU.
    """

    input_size = INPUT_SIZE
    mask_input_size = INPUT_SIZE
    prompts_at_once = 16
    parts: Mapping[str, str] = MappingProxyType({"image_encoder": "pyramid.", "mask_decoder": "region_net."})

    point_sides: torch.Tensor
    """Sides (3,), in pixels, of the regions tried for points without a box or a mask."""
    click_passes: torch.Tensor
    """How often (scalar) such prompts are answered; from the second time on the answer is a mask prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = _Pyramid()
        self.region_net = _RegionNet()
        self.register_buffer("point_sides", torch.tensor(POINT_SIDES))
        self.register_buffer("click_passes", torch.tensor(1))
        fill_in: Any = self.register_load_state_dict_pre_hook  # torch leaves it untyped
        fill_in(_with_plain_clicks)

    @property
    def click_rounds(self) -> int:
        """`click_passes` within reason: it comes from a file."""
        return min(int(self.click_passes), _MOST_CLICK_PASSES)

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, torch.Tensor]) -> Nano:
        """Network in evaluation mode with these weights (stored in any float precision)."""
        network = cls()
        network.load_state_dict(state_dict)
        return network.eval()

    def fuse(self) -> Nano:
        """Fold batch normalisation into the convolutions: the same function, faster; for inference only."""
        for module in self.modules():
            if not isinstance(module, nn.Sequential) or len(module) < 2:
                continue
            convolution, norm = module[0], module[1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[0] = fuse_conv_bn_eval(convolution, norm)
                module[1] = nn.Identity()
        return self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def fit_clicks(self, reaches: torch.Tensor) -> None:
        """Choose the three regions tried for a click by the objects that clicks are to find, and look again.

        Parameters
        ----------
        reaches : tensor (N,)
            From a click to the farthest pixel of its object along x or y, in pixels of the input square.
        """
        sides = torch.quantile(2 * _REACH_MARGIN * reaches.float().cpu(), torch.tensor(_REACH_QUANTILES))
        self.point_sides.copy_(sides.clamp(16.0, 2.0 * INPUT_SIZE))
        self.click_passes.fill_(FITTED_CLICK_PASSES)

    def encode(self, squares: torch.Tensor) -> NanoFeatures:
        """Features of squares (B, 3, 256, 256) or (B, 1, 256, 256), values 0..1, padded with 0."""
        grey = squares.mean(1, keepdim=True)
        embedding, detail = self.pyramid(grey.contiguous(memory_format=torch.channels_last))
        # the decoder samples maps row by row: laid out so once here, not anew for every prompt
        return NanoFeatures(embedding.contiguous(), detail.contiguous(), grey)

    def decode_regions(self, features: NanoFeatures, prompts: RegionPrompts, region: Region) -> RegionMasks:
        """Masks on the regions' grids; P = B * n prompts lie image by image, n on each of the B images."""
        intensity = resample(features.intensity.float(), region, CELLS)[:, 0]
        maps, prior = cell_maps(intensity, prompts, region)
        detail = resample(features.detail, region, CELLS)
        embedding = resample(features.embedding, region, CELLS // 2)
        maps = maps.contiguous(memory_format=torch.channels_last).to(detail.dtype)
        return RegionMasks(*self.region_net(maps, detail, embedding, prior))

    def decode(self, features: NanoFeatures, prompts: PromptBatch, multimask: bool) -> DecodedMasks:
        """Masks of P prompts; features of one image, or of B images with the prompts lying image by image."""
        asked = RegionPrompts.from_batch(prompts)
        n = len(asked.boxes)
        points_only = prompts.boxes_xyxy is None and prompts.mask_inputs is None
        tries = 3 if points_only or multimask else 1
        repeated = asked.repeat(tries)
        factors = self.point_sides.to(asked.boxes).repeat(n)[: n * tries]
        region = repeated.region(point_sides=factors if tries == 3 else None)
        if tries == 3 and not points_only:
            region = _varied(region, n)
        for _ in range(self.click_rounds - 1 if points_only else 0):
            with torch.no_grad():
                found = self.decode_regions(features, repeated, region)
                repeated = repeated._replace(
                    masks=paste(found.logits, region), has_mask=torch.ones_like(repeated.has_mask)
                )
                region = repeated.region(point_sides=factors)
        # one region is some 300 operations of microseconds each
        is_small = n * tries == 1 and features.intensity.device.type == "cpu"
        with on_one_core() if is_small else nullcontext():
            masks = self.decode_regions(features, repeated, region)
        iou = torch.sigmoid(masks.iou_logits).view(n, tries)
        logits = masks.logits.view(n, tries, CELLS, CELLS)
        sides, centres = region.sides.view(n, tries), region.centres.view(n, tries, 2)
        tokens = masks.tokens.view(n, tries, -1)
        if not multimask and tries == 3:
            best = iou.argmax(1, keepdim=True)
            logits = logits.take_along_dim(best[..., None, None], 1)
            sides, centres = sides.take_along_dim(best, 1), centres.take_along_dim(best[..., None], 1)
            tokens, iou = tokens.take_along_dim(best[..., None], 1), iou.take_along_dim(best, 1)
        count = logits.shape[1]
        pasted = paste(logits.flatten(0, 1), Region(centres.flatten(0, 1), sides.flatten(0, 1)))
        return DecodedMasks(pasted.view(n, count, INPUT_SIZE, INPUT_SIZE), iou, tokens)

    def decode_both(self, features: NanoFeatures, prompts: PromptBatch) -> tuple[DecodedMasks, DecodedMasks]:
        """The three masks and the single one of P prompts; of points the single one is the best of three."""
        three = self.decode(features, prompts, multimask=True)
        if prompts.boxes_xyxy is not None or prompts.mask_inputs is not None:
            return three, self.decode(features, prompts, multimask=False)
        return three, three.best()


def _with_plain_clicks(_: nn.Module, state_dict: dict[str, torch.Tensor], prefix: str, *__: object) -> None:
    """Checkpoints that were not fitted to clicks do not say how these are answered."""
    state_dict.setdefault(f"{prefix}point_sides", torch.tensor(POINT_SIDES))
    state_dict.setdefault(f"{prefix}click_passes", torch.tensor(1))


def _varied(region: Region, n: int) -> Region:
    """Three masks for a prompt whose size is known: regions a little smaller and larger than its own."""
    factors = torch.tensor([0.9, 1.0, 1.25], device=region.sides.device).repeat(n)
    return Region(region.centres, region.sides * factors)
