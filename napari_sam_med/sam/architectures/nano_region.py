"""Where `Nano` looks for the object of a prompt: a square region, and what the prompt says about its pixels.

The decoder works on a grid of G x G cells laid over a square region around the prompt, so that a small
adrenal and a large liver look alike to it. Everything here is cheap and has no weights: the geometry of the
region, resampling into it and back (triangle filters, written as matrices, hence exact adjoints and fast on
a CPU), and maps that state each cell's intensity relative to what the prompt marks as inside and as outside.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from napari_sam_med.sam.architectures.base import PromptBatch

__all__ = [
    "CELLS",
    "INPUT_SIZE",
    "N_MAPS",
    "Region",
    "RegionPrompts",
    "cell_maps",
    "paste",
    "prior_logits",
    "resample",
]

INPUT_SIZE = 256
CELLS = 48
"""Cells along a side of the region's grid."""
N_MAPS = 17
"""Channels of `cell_maps`."""
LOGIT_LIMIT = 16.0
"""Logits are clamped to +- this; it is also what lies outside the region."""
POINT_SIDES = (40.0, 96.0, 224.0)
"""Sides, in pixels, of the three regions tried for points without a box or a mask."""
_BOX_MARGIN = 1.5
_MASK_MARGIN = 1.7
_SMALLEST_SIDE = 12.0
_BINS = 16
_WIDEST = 8


class Region(NamedTuple):
    """Square regions of P prompts: ``centres`` (P, 2) x, y and ``sides`` (P,), in pixels of the input
    square.
    """

    centres: torch.Tensor
    sides: torch.Tensor


class RegionPrompts(NamedTuple):
    """P prompts of any mixture of structures, padded to the same number of points.

    Attributes
    ----------
    boxes : tensor (P, 4), has_box : tensor (P,) bool
        x_min, y_min, x_max, y_max in pixels, both corners inside.
    points : tensor (P, N, 2), labels : tensor (P, N)
        1 foreground, 0 background, -1 padding.
    masks : tensor (P, S, S) or None, has_mask : tensor (P,) bool
        Logits over the input square.
    """

    boxes: torch.Tensor
    has_box: torch.Tensor
    points: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor | None
    has_mask: torch.Tensor

    @classmethod
    def from_batch(cls, batch: PromptBatch) -> RegionPrompts:
        """Prompts of one structure as the predictor hands them."""
        # The predictor scales pixel indices (Meta's convention); here pixel centres lie at integers and a
        # box reaches to the outer edges of its corner pixels, which matters when a small scan is enlarged 4
        # times.
        scale = torch.tensor(batch.scale_xy)
        given = [t for t in (batch.boxes_xyxy, batch.points_xy, batch.mask_inputs) if t is not None]
        if not given:
            raise ValueError("A prompt batch needs points, boxes or mask inputs.")
        n, device = len(given[0]), given[0].device
        boxes, points = batch.boxes_xyxy, batch.points_xy
        labels = batch.point_labels
        if points is None:
            points = torch.zeros(n, 0, 2, device=device)
        if labels is None:
            labels = torch.ones(points.shape[:2], device=device)
        scale = scale.to(device)
        points = points.float() + (scale - 1) / 2
        if boxes is not None:
            boxes = torch.cat([boxes[:, :2].float(), boxes[:, 2:].float() + scale - 1], 1)
        return cls(
            boxes=torch.zeros(n, 4, device=device) if boxes is None else boxes,
            has_box=torch.full((n,), boxes is not None, device=device),
            points=points,
            labels=labels.float(),
            masks=None if batch.mask_inputs is None else batch.mask_inputs[:, 0].float(),
            has_mask=torch.full((n,), batch.mask_inputs is not None, device=device),
        )

    def repeat(self, times: int) -> RegionPrompts:
        """Each prompt ``times`` times in a row."""
        repeated: dict[str, Any] = {
            name: None if tensor is None else tensor.repeat_interleave(times, 0)
            for name, tensor in self._asdict().items()
        }
        return RegionPrompts(**repeated)

    def extents(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Bounding box (P, 4) of box, mask and positive points, and (P,) whether a box or a mask gives the
        size.
        """
        far = torch.full_like(self.boxes, torch.inf)
        empty = torch.cat([far[:, :2], -far[:, 2:]], 1)
        found = torch.where(self.has_box[:, None], self.boxes, empty)
        sized = self.has_box
        if self.masks is not None:
            inside, mask_box = _mask_boxes(self.masks, empty)
            use = self.has_mask & inside
            found = torch.where(use[:, None], _union(found, mask_box), found)
            sized = sized | use
        if self.points.shape[1]:
            positive = (self.labels == 1)[..., None]
            low = torch.where(positive, self.points, torch.inf).amin(1)
            high = torch.where(positive, self.points, -torch.inf).amax(1)
            found = _union(found, torch.cat([low, high], 1))
            # only negative points: look around them, for want of anything better
            around = torch.cat([self.points.amin(1), self.points.amax(1)], 1)
            found = torch.where(torch.isfinite(found), found, around)
        whole = torch.tensor([0.0, 0.0, INPUT_SIZE - 1.0, INPUT_SIZE - 1.0], device=found.device)
        return torch.where(torch.isfinite(found), found, whole), sized

    def region(self, point_sides: torch.Tensor | None = None) -> Region:
        """Region of each prompt; ``point_sides`` (P,) pixels is the side for prompts without box and mask."""
        box, sized = self.extents()
        longest = (box[:, 2:] - box[:, :2]).amax(1) + 1
        margin = torch.where(self.has_mask, _MASK_MARGIN, _BOX_MARGIN)
        sides = longest * margin + 4
        if point_sides is not None:
            sides = torch.where(sized, sides, torch.maximum(point_sides.to(sides), longest * _BOX_MARGIN))
        return Region((box[:, :2] + box[:, 2:]) / 2, sides.clamp(min=_SMALLEST_SIDE))


def _union(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.minimum(a[:, :2], b[:, :2]), torch.maximum(a[:, 2:], b[:, 2:])], 1)


def _mask_boxes(masks: torch.Tensor, empty: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether a mask has foreground (P,), and its bounding box (P, 4) in pixels of the input square."""
    inside = masks > 0
    scale = INPUT_SIZE / masks.shape[-1]
    position = (torch.arange(masks.shape[-1], device=masks.device) + 0.5) * scale - 0.5
    columns, rows = inside.any(1), inside.any(2)
    box = torch.stack(
        [
            torch.where(columns, position, torch.inf).amin(1),
            torch.where(rows, position, torch.inf).amin(1),
            torch.where(columns, position, -torch.inf).amax(1),
            torch.where(rows, position, -torch.inf).amax(1),
        ],
        1,
    )
    found = columns.any(1)
    return found, torch.where(found[:, None], box, empty)


def _cell_positions(region: Region, cells: int) -> torch.Tensor:
    """Pixel coordinates (P, 2, cells) of the cell centres, x then y."""
    unit = (torch.arange(cells, device=region.sides.device) + 0.5) / cells - 0.5
    return region.centres[:, :, None] + region.sides[:, None, None] * unit


def _triangle_weights(position: torch.Tensor, width: torch.Tensor, span: tuple[int, int]) -> torch.Tensor:
    """Weights (..., n, m) of the m samples of a span (the first, and past the last) around positions
    (..., n); ``width`` (..., 1, 1) samples.

    The weights of a position sum to 1 over all integers: samples beyond the ends count as zeros.
    """
    width = width.clamp(1.0, float(_WIDEST))
    sample = torch.arange(span[0] - _WIDEST, span[1] + _WIDEST, device=position.device)
    weight = (1 - (position[..., None] - sample).abs() / width).clamp(min=0)
    # outside the extended line all weights are 0, and so they stay
    total = weight.sum(-1, keepdim=True).clamp(min=0.5)
    return weight[..., _WIDEST:-_WIDEST] / total


def resample(maps: torch.Tensor, region: Region, cells: int) -> torch.Tensor:
    """Maps (B, C, s, s) over the input square -> (P, C, cells, cells); prompts lie image by image, P = B * n.

    The filter is as wide as a cell where cells are coarser than pixels, so that large regions do not alias.
    """
    stride = INPUT_SIZE / maps.shape[-1]
    position = (_cell_positions(region, cells) + 0.5) / stride - 0.5
    width = region.sides / (cells * stride)
    if maps.device.type == "cpu" and not torch.is_grad_enabled():
        return _resample_parts(maps, position, width)
    return _resample_whole(maps, position, width)


def _resample_whole(maps: torch.Tensor, position: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """All prompts of one image share one matrix product, so nothing is gathered or copied per prompt."""
    batch, channels, size, _ = maps.shape
    n, cells = len(position) // batch, position.shape[-1]
    x, y = _triangle_weights(position, width[:, None, None, None], (0, size)).to(maps.dtype).unbind(1)
    x = x.reshape(batch, n * cells, size).transpose(1, 2)
    narrowed = torch.bmm(maps.reshape(batch, channels * size, size), x)
    narrowed = narrowed.reshape(batch, channels, size, n, cells).permute(0, 3, 2, 4, 1)
    sampled = torch.bmm(y, narrowed.reshape(batch * n, size, cells * channels))
    return sampled.reshape(batch * n, cells, cells, channels).permute(0, 3, 1, 2)


def _resample_parts(maps: torch.Tensor, position: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """The same prompt by prompt from the part of the map that its filters reach: a fraction of the
    products.
    """
    (batch, channels, size, _), (prompts, _, cells) = maps.shape, position.shape
    reach = width.clamp(1.0, _WIDEST)[:, None]
    # a prompt may be NaN, and so is then its answer
    lows = (position[..., 0] - reach).floor().nan_to_num().clamp(0, size - 1).int()
    highs = (position[..., -1] + reach).ceil().nan_to_num().clamp(0, size - 1).int() + 1
    first, last = int(lows.min()), int(highs.max())
    weights = _triangle_weights(position, width[:, None, None, None], (first, last)).to(maps.dtype)
    sampled = []
    for i, ((left, top), (right, bottom)) in enumerate(zip(lows.tolist(), highs.tolist(), strict=True)):
        part = maps[i * batch // prompts, :, top:bottom, left:right]
        x, y = weights[i, 0, :, left - first : right - first], weights[i, 1, :, top - first : bottom - first]
        narrowed = torch.mm(part.reshape(-1, right - left), x.T).view(channels, bottom - top, cells)
        sampled.append(torch.mm(y, narrowed.permute(1, 2, 0).reshape(bottom - top, -1)))
    return torch.stack(sampled).view(prompts, cells, cells, channels).permute(0, 3, 1, 2)


def paste(cell_logits: torch.Tensor, region: Region) -> torch.Tensor:
    """Logits (P, G, G) of regions -> (P, S, S) over the input square, -`LOGIT_LIMIT` outside the region."""
    cells = cell_logits.shape[-1]
    pixel = torch.arange(INPUT_SIZE, device=cell_logits.device)
    unit = (pixel - region.centres[:, :, None]) / region.sides[:, None, None]
    width = (cells / region.sides)[:, None, None, None]
    x, y = _triangle_weights((unit + 0.5) * cells - 0.5, width, (0, cells)).to(cell_logits.dtype).unbind(1)
    raised = cell_logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT) + LOGIT_LIMIT
    return torch.bmm(torch.bmm(y, raised), x.transpose(1, 2)) - LOGIT_LIMIT


class _Geometry(NamedTuple):
    """Per cell (P, G, G): elliptic radius in the box, box distance, click maps, mask logits."""

    radius: torch.Tensor
    box_depth: torch.Tensor
    positive: torch.Tensor
    negative: torch.Tensor
    mask: torch.Tensor


def _geometry(prompts: RegionPrompts, region: Region, cells: int) -> _Geometry:
    x, y = _cell_positions(region, cells).unbind(1)
    x, y = x[:, None, :], y[:, :, None]
    centre = (prompts.boxes[:, :2] + prompts.boxes[:, 2:]) / 2
    half = (prompts.boxes[:, 2:] - prompts.boxes[:, :2] + 1) / 2
    dx, dy = (x - centre[:, 0, None, None]).abs(), (y - centre[:, 1, None, None]).abs()
    half_x, half_y = half[:, 0, None, None], half[:, 1, None, None]
    radius = torch.sqrt((dx / half_x) ** 2 + (dy / half_y) ** 2 + 1e-12)
    # depth below the nearest side, in units of a sixteenth of the region
    depth = torch.minimum(half_x - dx, half_y - dy) / (region.sides[:, None, None] / 16)
    sigma = (0.05 * region.sides).clamp(min=1.0)[:, None, None, None]
    squared = (x[:, None] - prompts.points[:, :, 0, None, None]) ** 2 + (
        y[:, None] - prompts.points[:, :, 1, None, None]
    ) ** 2
    bump = torch.exp(-squared / (2 * sigma**2))
    labels = prompts.labels[..., None, None]
    zero = torch.zeros_like(radius)
    positive = (bump * (labels == 1)).amax(1) if bump.shape[1] else zero
    negative = (bump * (labels == 0)).amax(1) if bump.shape[1] else zero
    mask = zero
    if prompts.masks is not None:
        mask = resample(prompts.masks[:, None], region, cells)[:, 0].clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        mask = torch.where(prompts.has_mask[:, None, None], mask, 0.0)
    return _Geometry(radius, depth, positive, negative, mask)


def _blob(positive: torch.Tensor) -> torch.Tensor:
    """Elliptic radius of a disc about a seventh of the region wide round the nearest positive click."""
    return torch.sqrt(-2 * torch.log(positive.clamp(min=1e-30))) / 3.0


def _prior(prompts: RegionPrompts, g: _Geometry) -> torch.Tensor:
    has_box, has_mask = prompts.has_box[:, None, None], prompts.has_mask[:, None, None]
    radius = torch.where(has_box, g.radius, _blob(g.positive))
    blob = 4 * (1 - radius).clamp(-1.5, 1.0)
    return torch.where(has_mask, g.mask.clamp(-6, 6), blob)


def prior_logits(prompts: RegionPrompts, region: Region, cells: int = CELLS) -> torch.Tensor:
    """What the untrained network answers (P, G, G): the mask prompt, else the box's ellipse, else the
    click's blob.
    """
    return _prior(prompts, _geometry(prompts, region, cells))


def _relative_intensity(
    intensity: torch.Tensor, core: torch.Tensor, ring: torch.Tensor, rim: torch.Tensor
) -> list[torch.Tensor]:
    """Z-scores against core, ring and rim; log-likelihood ratios of core to ring (Gaussian, histogram) and,
    by histogram, of rim to ring and of rim to core; all (P, G, G).
    """
    z, log_sigma = [], []
    for weight in (core, ring, rim):
        total = weight.sum((1, 2), keepdim=True) + 1e-3
        mean = (weight * intensity).sum((1, 2), keepdim=True) / total
        variance = (weight * (intensity - mean) ** 2).sum((1, 2), keepdim=True) / total + 0.02**2
        z.append((intensity - mean) / variance.sqrt())
        log_sigma.append(0.5 * variance.log())
    gaussian = 0.5 * (z[1] ** 2 - z[0] ** 2).clamp(-40, 40) + log_sigma[1] - log_sigma[0]
    # the histogram sees what a Gaussian cannot: an object of several unlike parts
    low, high = intensity.amin((1, 2), keepdim=True), intensity.amax((1, 2), keepdim=True)
    level = (intensity - low) / (high - low + 1e-3) * (_BINS - 1)
    bins = torch.arange(_BINS, device=intensity.device)[None, :, None]
    share = (1 - (level.flatten(1)[:, None] - bins).abs()).clamp(min=0)
    histograms = torch.bmm(share, torch.stack([w.flatten(1) for w in (core, ring, rim)], 2))
    histograms = (histograms / (histograms.sum(1, keepdim=True) + 1e-3) + 0.01).log()
    core_bins, ring_bins, rim_bins = histograms.unbind(2)
    ratios = torch.stack([core_bins - ring_bins, rim_bins - ring_bins, rim_bins - core_bins], 1)
    by_core, by_rim, rim_to_core = torch.bmm(ratios, share).view(-1, 3, *intensity.shape[1:]).unbind(1)
    return [
        torch.tanh(z[0] / 3),
        torch.tanh(z[1] / 3),
        torch.tanh(gaussian / 4),
        by_core / 4,
        torch.tanh(z[2] / 3),
        by_rim / 4,
        rim_to_core / 4,
    ]


def _rim(radius: torch.Tensor, inside: torch.Tensor, prompts: RegionPrompts) -> torch.Tensor:
    """Weight (P, G, G) of the band just inside the border that the prompt draws.

    A tight box is touched by its object on all four sides, so what lies just inside the ellipse is the
    object, while what lies in the middle may be a cavity that does not belong to it.
    """
    band = torch.sigmoid((radius - 0.75) * 25) * torch.sigmoid((1.0 - radius) * 25)
    eroded = -torch.nn.functional.max_pool2d(-inside[:, None], 5, 1, 2)[:, 0]
    return torch.where(prompts.has_mask[:, None, None], inside - eroded, band)


def cell_maps(
    intensity: torch.Tensor, prompts: RegionPrompts, region: Region
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decoder input (P, `N_MAPS`, G, G) and prior logits (P, G, G) of cells with the given intensity (P, G,
    G).
    """
    g = _geometry(prompts, region, intensity.shape[-1])
    prior = _prior(prompts, g)
    has_box, has_mask = prompts.has_box[:, None, None], prompts.has_mask[:, None, None]
    radius = torch.where(has_box, g.radius, _blob(g.positive) * 1.5)
    inside = torch.sigmoid(g.mask)
    core = torch.where(has_mask, inside, torch.sigmoid((0.7 - radius) * 20))
    ring = torch.where(has_mask, 1 - inside, torch.sigmoid((radius - 1.1) * 20))
    core, ring = core + g.positive, ring + g.negative
    relative = _relative_intensity(intensity, core, ring, _rim(radius, inside, prompts))
    one = torch.ones_like(prior)
    maps = [
        intensity,
        *relative[:4],
        torch.tanh(prior / 3),
        torch.where(has_box, torch.sigmoid(4 * g.box_depth), 0.0),
        torch.where(has_box, torch.exp(-(g.box_depth**2)), 0.0),
        g.positive,
        g.negative,
        torch.tanh(g.mask / 4),
        one * has_mask,
        one * has_box,
        one * (torch.log2(region.sides / 64) / 2)[:, None, None],
        *relative[4:],
    ]
    return torch.stack(maps, 1), prior
