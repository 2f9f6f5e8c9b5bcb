"""Networks with the inputs and outputs of SAM's ONNX export, written so that a graph can hold them.

A graph has no branches on what was asked: boxes are points labelled 2 and 3, what is left out is a point
labelled -1, and whether a mask is given is a number.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional as F

from napari_sam_med.sam.architectures.meta import SamNetwork
from napari_sam_med.sam.architectures.nano import Nano, NanoFeatures
from napari_sam_med.sam.architectures.nano_region import CELLS, Region, RegionPrompts, paste
from napari_sam_med.sam.model_registry import ModelRecord

__all__ = ["NanoDecoder", "OnnxPrompts", "SamDecoder", "nano_decoder", "sam_decoder"]

_NEGATIVE, _POSITIVE, _BOX_FROM, _BOX_TO = 0, 1, 2, 3
_MANY_POINTS = 1000.0
_AMBIGUOUS_BELOW = 2.5


class OnnxPrompts(NamedTuple):
    """Prompts of one object.

    Attributes
    ----------
    point_coords : tensor (1, N, 2) float32
        x, y in pixels of the network's square.
    point_labels : tensor (1, N) float32
        1 foreground, 0 background, 2 and 3 the first and the last corner of a box, -1 no point.
    mask_input : tensor (1, 1, h, w) float32
        Logits; zeros where there are none.
    has_mask_input : tensor (1,) float32
        1 or 0.
    orig_im_size : tensor (2,) float32
        Height and width of the image.
    """

    point_coords: torch.Tensor
    point_labels: torch.Tensor
    mask_input: torch.Tensor
    has_mask_input: torch.Tensor
    orig_im_size: torch.Tensor


Answer = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def sam_decoder(network: nn.Module, record: ModelRecord, *, multimask: bool) -> SamDecoder:
    """Of a `SamNetwork`."""
    return SamDecoder(cast("SamNetwork", network), record, multimask).eval()


def nano_decoder(network: nn.Module, record: ModelRecord, *, multimask: bool) -> NanoDecoder:
    """Of a `Nano`."""
    return NanoDecoder(cast("Nano", network), record, multimask).eval()


class SamDecoder(nn.Module):
    """SAM's prompt encoder and mask decoder, over Meta's modules."""

    feature_names = ("image_embeddings",)

    def __init__(self, network: SamNetwork, record: ModelRecord, multimask: bool) -> None:
        super().__init__()
        self.prompt_encoder = network.prompt_encoder
        self.mask_decoder = network.mask_decoder
        self.register_buffer("image_pe", network.image_pe, persistent=False)
        self.input_size, self.mask_input_size = network.input_size, network.mask_input_size
        self.stretch, self.multimask, self.is_ambiguous = record.stretch, multimask, record.multimask

    def forward(
        self,
        image_embeddings: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        mask_input: torch.Tensor,
        has_mask_input: torch.Tensor,
        orig_im_size: torch.Tensor,
    ) -> Answer:
        prompts = OnnxPrompts(point_coords, point_labels, mask_input, has_mask_input, orig_im_size)
        logits, iou = self.mask_decoder.predict_masks(
            image_embeddings=image_embeddings,
            image_pe=self.image_pe,
            sparse_prompt_embeddings=self._points(prompts),
            dense_prompt_embeddings=self._mask(prompts),
        )
        if not self.multimask:
            logits, iou = self._chosen(logits, iou, point_labels)
        masks = enlarged(logits, prompts.orig_im_size, self.input_size, stretch=self.stretch)
        return masks, iou, logits

    def _points(self, prompts: OnnxPrompts) -> torch.Tensor:
        encoder = self.prompt_encoder
        places = encoder.pe_layer._pe_encoding((prompts.point_coords + 0.5) / self.input_size)
        labels = prompts.point_labels[..., None]
        embedded = torch.where(labels == -1, encoder.not_a_point_embed.weight, places)
        for number, kind in enumerate(encoder.point_embeddings):
            embedded = embedded + kind.weight * (labels == number)
        return embedded

    def _mask(self, prompts: OnnxPrompts) -> torch.Tensor:
        encoder = self.prompt_encoder
        given: torch.Tensor = encoder.mask_downscaling(prompts.mask_input)
        none: torch.Tensor = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return prompts.has_mask_input * given + (1 - prompts.has_mask_input) * none

    def _chosen(
        self, logits: torch.Tensor, iou: torch.Tensor, point_labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The single mask for three points or more, else the best of the three: Meta's rule."""
        if not self.is_ambiguous:
            return logits[:, :1], iou[:, :1]
        # counted in the graph: a number of points that is a symbol sends the exporter into minutes of algebra
        n_points = torch.ones_like(point_labels).sum(1, keepdim=True)
        single = (n_points - _AMBIGUOUS_BELOW) * _MANY_POINTS
        best = torch.cat([single, iou[:, 1:]], 1).argmax(1, keepdim=True)
        return _picked(logits, iou, best)


def _picked(logits: torch.Tensor, iou: torch.Tensor, best: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One of the masks (1, C, h, w) and its predicted IoU, by its place (1, 1)."""
    return logits.index_select(1, best[0]), iou.index_select(1, best[0])


class NanoDecoder(nn.Module):
    """`Nano` without its pyramid; all prompts take the same way, and what does not apply is not chosen."""

    feature_names = ("image_embeddings", "image_detail", "image_intensity")

    def __init__(self, network: Nano, record: ModelRecord, multimask: bool) -> None:
        super().__init__()
        self.network = network
        self.passes = network.click_rounds
        self.input_size = self.mask_input_size = network.input_size
        self.multimask = multimask
        self.stretch = record.stretch

    def forward(
        self,
        image_embeddings: torch.Tensor,
        image_detail: torch.Tensor,
        image_intensity: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        mask_input: torch.Tensor,
        has_mask_input: torch.Tensor,
        orig_im_size: torch.Tensor,
    ) -> Answer:
        prompts = OnnxPrompts(point_coords, point_labels, mask_input, has_mask_input, orig_im_size)
        features = NanoFeatures(image_embeddings, image_detail, image_intensity)
        wanted = _region_prompts(prompts, self.input_size).repeat(3)
        is_sized = wanted.has_box | wanted.has_mask
        sides = self.network.point_sides
        known = wanted.region()
        factors = torch.tensor([0.9, 1.0, 1.25])  # as Nano varies a known region
        region = Region(
            known.centres, torch.where(is_sized, known.sides * factors, wanted.region(sides).sides)
        )
        for _ in range(self.passes - 1):
            found = self.network.decode_regions(features, wanted, region)
            given: Any = wanted.masks
            wanted = wanted._replace(
                masks=torch.where(is_sized[:, None, None], given, paste(found.logits, region)),
                has_mask=wanted.has_mask | ~is_sized,
            )
            again = wanted.region(sides)
            region = Region(
                torch.where(is_sized[:, None], region.centres, again.centres),
                torch.where(is_sized, region.sides, again.sides),
            )
        answer = self.network.decode_regions(features, wanted, region)
        iou = torch.sigmoid(answer.iou_logits)[None]
        logits = paste(answer.logits.view(3, CELLS, CELLS), region)[None]
        # of a prompt that tells the size the answer for its own region, else the best one
        best = torch.where(is_sized[:1], torch.ones_like(iou[:, 0], dtype=torch.int64), iou.argmax(1))[
            :, None
        ]
        single, single_iou = _picked(logits, iou, best)
        if self.multimask:
            logits, iou = torch.cat([single, logits], 1), torch.cat([single_iou, iou], 1)
        else:
            logits, iou = single, single_iou
        return enlarged(logits, prompts.orig_im_size, self.input_size, stretch=self.stretch), iou, logits


def _region_prompts(prompts: OnnxPrompts, side: int) -> RegionPrompts:
    """Of points that may be corners of a box, or none."""
    coords, labels = prompts.point_coords, prompts.point_labels
    height, width = prompts.orig_im_size.unbind(0)
    scale = side / torch.maximum(height, width)
    sizes = torch.stack([width, height])
    # pixel centres at integers, and a box reaches to the outer edges of its corner pixels
    scale_xy = torch.floor(scale * sizes + 0.5) / sizes
    corners = [((labels == kind)[..., None] * coords).sum(1) for kind in (_BOX_FROM, _BOX_TO)]
    box = torch.cat([corners[0], corners[1] + scale_xy - 1], 1)
    is_point = (labels == _POSITIVE) | (labels == _NEGATIVE)
    # a place that is no point is put where a point is, so that it widens nothing
    first = is_point.to(torch.int64).argmax(1)[:, None, None].expand(-1, 1, 2)
    points = torch.where(is_point[..., None], coords, coords.gather(1, first)) + (scale_xy - 1) / 2
    return RegionPrompts(
        boxes=box,
        has_box=(labels == _BOX_FROM).any(1),
        points=points,
        labels=torch.where(is_point, labels, -torch.ones_like(labels)),
        masks=prompts.mask_input[:, 0],
        has_mask=prompts.has_mask_input > 0,
    )


def enlarged(logits: torch.Tensor, size: torch.Tensor, side: int, *, stretch: bool) -> torch.Tensor:
    """Logits (1, C, h, w) over the square as logits (1, C, H, W) of an image of `size` (H, W), Meta's way.

    First to the square, and then from the part of it that the image takes up; both bilinear.
    """
    if logits.shape[-1] != side:
        logits = F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)
    taken = torch.full_like(size, side) if stretch else torch.floor(side / size.max() * size + 0.5)
    for axis in (0, 1):
        count = size[axis].to(torch.int64).item()
        torch._check(count > 0)
        last = taken[axis] - 1
        place = (torch.arange(count, dtype=torch.float32) + 0.5) * (taken[axis] / size[axis]) - 0.5
        place = torch.minimum(place.clamp(min=0.0), last)
        lower = torch.floor(place)
        upper = torch.minimum(lower + 1, last)
        weight = place - lower
        if axis == 0:
            weight = weight[:, None]
        low, high = (logits.index_select(axis + 2, at.to(torch.int64)) for at in (lower, upper))
        logits = low + (high - low) * weight
    return logits
