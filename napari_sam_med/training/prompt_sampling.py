"""Prompts that a user or a propagation would give for a target: boxes, clicks, the mask of a neighbouring
slice.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from napari_sam_med.sam.architectures.nano_region import POINT_SIDES, RegionPrompts

__all__ = ["SampledPrompts", "correction_clicks", "mask_boxes", "sample_prompts"]

_KINDS = (
    "box",
    "box and points",
    "points",
    "point",
    "neighbour mask and box",
    "neighbour mask",
    "neighbour box",
)
_SHARES = torch.tensor([0.48, 0.07, 0.06, 0.10, 0.19, 0.07, 0.03])
_POINTS = 4
_GONE = 0.06


class SampledPrompts(NamedTuple):
    """Prompts with their targets.

    Attributes
    ----------
    prompts : RegionPrompts
    targets : tensor (P, S, S) float
        1 inside. Empty where the object of a neighbour's mask is gone on this slice.
    point_sides : tensor (P,)
        Side of the region for prompts without box and mask.
    kinds : tensor (P,)
        Index into the kinds of prompt, for reports.
    """

    prompts: RegionPrompts
    targets: torch.Tensor
    point_sides: torch.Tensor
    kinds: torch.Tensor


def mask_boxes(masks: torch.Tensor) -> torch.Tensor:
    """Tight boxes (P, 4) x_min, y_min, x_max, y_max of masks (P, S, S) bool; zeros for an empty mask."""
    columns, rows = masks.any(1), masks.any(2)
    last = masks.shape[-1] - 1
    box = torch.stack(
        [
            columns.float().argmax(1),
            rows.float().argmax(1),
            last - columns.flip(1).float().argmax(1),
            last - rows.flip(1).float().argmax(1),
        ],
        1,
    ).float()
    return torch.where(columns.any(1)[:, None], box, 0.0)


def sample_prompts(targets: torch.Tensor, generator: torch.Generator) -> SampledPrompts:
    """One prompt of random kind for each target (P, S, S) bool, none of them empty."""
    n, size = len(targets), targets.shape[-1]
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    kinds = torch.multinomial(_SHARES, n, replacement=True, generator=generator)
    tight = mask_boxes(targets)
    boxes = _jittered(tight, generator)
    has_box = (kinds == 0) | (kinds == 1) | (kinds == 4) | (kinds == 6)
    has_mask = (kinds == 4) | (kinds == 5)
    masks = torch.zeros(n, size, size)
    goals = targets.float()
    neighbours = torch.nonzero(kinds >= 4)[:, 0]
    if len(neighbours):
        moved, gone = _neighbour_masks(targets[neighbours], tight[neighbours], generator)
        gone &= has_mask[neighbours]
        found = moved.flatten(1).any(1)
        goals[neighbours[gone & found]] = 0
        boxes[neighbours] = torch.where(found[:, None], mask_boxes(moved), tight[neighbours])
        masks[neighbours] = _as_logits(moved, generator)
        has_mask[neighbours] &= found
        has_box[neighbours] |= ~found
    points = torch.zeros(n, _POINTS, 2)
    labels = torch.full((n, _POINTS), -1.0)
    for i in torch.nonzero((kinds >= 1) & (kinds <= 3))[:, 0].tolist():
        xy, label = _clicks(targets[i].numpy(), tight[i].numpy(), rng, lone=bool(kinds[i] == 3))
        points[i, : len(xy)], labels[i, : len(xy)] = torch.from_numpy(xy), torch.from_numpy(label)
    prompts = RegionPrompts(boxes, has_box, points, labels, masks, has_mask)
    return SampledPrompts(prompts, goals, _point_sides(tight, generator), kinds)


def _jittered(tight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A quarter of the boxes stay tight but for what resampling does to them; others are drawn by an unsteady
    hand, with small errors or with sides anywhere within a tenth of where they belong, or generously.
    """
    n = len(tight)
    side = (tight[:, 2:] - tight[:, :2] + 1).repeat(1, 2)
    outward = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    style = torch.rand(n, 1, generator=generator)
    hand = (0.06 * side * torch.randn(n, 4, generator=generator)).clamp(-0.12 * side, 0.12 * side)
    hand = hand + torch.rand(n, 4, generator=generator) * 2 - 1
    careless = 0.1 * side * (torch.rand(n, 4, generator=generator) * 2 - 1)
    loose = outward * torch.rand(n, 4, generator=generator) * (2 + 0.12 * side)
    # a predictor scales both corners of a box alike, which moves the far one by up to a pixel
    rounding = torch.tensor([0.25, 0.25, 0.5, 0.5]) * (torch.rand(n, 4, generator=generator) * 2 - 1)
    unsteady = torch.where(style < 0.5, hand, torch.where(style < 0.93, careless, loose))
    change = torch.where(style < 0.28, rounding, unsteady)
    boxes = tight + change
    return torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:] - 1), boxes[:, 2:]], 1)


def _neighbour_masks(
    targets: torch.Tensor, tight: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The targets as a neighbouring slice may show them (P, S, S) bool, and which objects are gone (P,)."""
    n, size = len(targets), targets.shape[-1]
    centre = (tight[:, :2] + tight[:, 2:] + 1) / size - 1
    extent = (tight[:, 2:] - tight[:, :2] + 1) / size
    # from slices of 1 mm, hardly different, to slices of 10 mm
    change = 0.1 + 0.9 * torch.rand(n, 1, generator=generator) ** 2
    scale = torch.exp(change * (torch.rand(n, 2, generator=generator) * 0.5 - 0.25))
    shift = (torch.rand(n, 2, generator=generator) * 2 - 1) * torch.minimum(
        0.4 * extent, torch.tensor(12.0 / size)
    )
    shift = change * shift
    gone = torch.rand(n, generator=generator) < _GONE
    away = (
        torch.randn(n, 2, generator=generator).sign() * (2.2 + torch.rand(n, 2, generator=generator)) * extent
    )
    shift = torch.where(gone[:, None], away, shift)
    line = (torch.arange(size) + 0.5) * 2 / size - 1
    x = (line[None, None, :] - centre[:, 0, None, None] - shift[:, 0, None, None]) * scale[:, 0, None, None]
    y = (line[None, :, None] - centre[:, 1, None, None] - shift[:, 1, None, None]) * scale[:, 1, None, None]
    grid = torch.stack(
        [
            (x + centre[:, 0, None, None]).expand(n, size, size),
            (y + centre[:, 1, None, None]).expand(n, size, size),
        ],
        -1,
    )
    bend = (
        torch.randn(n, 2, 12, 12, generator=generator)
        * 0.12
        * (change[:, 0] * extent.amax(1))[:, None, None, None]
    )
    bend = torch.nn.functional.interpolate(bend, size=(size, size), mode="bilinear", align_corners=False)
    moved = torch.nn.functional.grid_sample(
        targets[:, None].float(), grid + bend.permute(0, 2, 3, 1), mode="bilinear", align_corners=False
    )
    return moved[:, 0] > 0.5, gone


def _as_logits(masks: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Masks (P, S, S) bool as logits of one strength each, half of them with soft borders."""
    strength = 2 + 8 * torch.rand(len(masks), 1, 1, generator=generator)
    hard = masks.float() * 2 - 1
    soft = torch.nn.functional.avg_pool2d(hard[:, None], 5, 1, 2, count_include_pad=False)[:, 0]
    use_soft = torch.rand(len(masks), 1, 1, generator=generator) < 0.5
    return strength * torch.where(use_soft, soft, hard)


def _clicks(
    target: npt.NDArray[np.bool_], box: npt.NDArray[np.float32], rng: np.random.Generator, lone: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Positive clicks inside the target, mostly deep, and negative ones just outside; x, y and labels."""
    x0, y0, x1, y1 = box.astype(int)
    inside = np.pad(target[y0 : y1 + 1, x0 : x1 + 1], 1)
    depth = ndimage.distance_transform_edt(inside)
    n_positive = 1 if lone else int(rng.integers(1, 4))
    n_negative = 0 if lone else int(rng.integers(0 if n_positive > 1 else 1, _POINTS - n_positive + 1))
    rows, columns = np.nonzero(inside)
    weight = depth[rows, columns] ** (2 if rng.random() < 0.7 else 0)
    picks = rng.choice(len(rows), n_positive, p=weight / weight.sum())
    xy = [np.stack([columns[picks], rows[picks]], 1)]
    if n_negative:
        near = max(2.0, 0.15 * max(inside.shape))
        outside = ~np.pad(inside, int(near) + 1)
        gap = ndimage.distance_transform_edt(outside)
        rows, columns = np.nonzero((gap > 1) & (gap <= near + 1))
        picks = rng.choice(len(rows), n_negative)
        xy.append(np.stack([columns[picks], rows[picks]], 1) - int(near) - 1)
    points = np.concatenate(xy).astype(np.float32) + np.array([x0 - 1, y0 - 1], dtype=np.float32)
    labels = np.concatenate([np.ones(n_positive), np.zeros(n_negative)]).astype(np.float32)
    return points, labels


def _point_sides(tight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Regions for clicks: mostly of a side that suits the target, else one of those tried on use."""
    n = len(tight)
    longest = (tight[:, 2:] - tight[:, :2] + 1).amax(1)
    fitting = longest * torch.exp(torch.rand(n, generator=generator) * 1.2 + 0.25)
    tried = torch.tensor(POINT_SIDES)[torch.randint(len(POINT_SIDES), (n,), generator=generator)]
    use_fitting = torch.rand(n, generator=generator) < 0.65
    return torch.where(use_fitting, fitting, tried).clamp(16, 320)


def correction_clicks(
    logits: torch.Tensor, targets: torch.Tensor, cells_to_xy: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The click (P, 2) and its label (P,) that a user would set next: deep in the largest wrong patch.

    Parameters
    ----------
    logits, targets : tensor (P, G, G)
        Prediction and target on the regions' grids.
    cells_to_xy : tensor (P, 2, G)
        Pixel x and y of the cells.

    Returns
    -------
    points, labels
        Label -1 where nothing is wrong.
    """
    predicted, wanted = logits.numpy() > 0, targets.numpy() > 0.5
    points, labels = torch.zeros(len(predicted), 2), torch.full((len(predicted),), -1.0)
    for i, (have, want) in enumerate(zip(predicted, wanted, strict=True)):
        patches, count = ndimage.label(have != want)
        if not count:
            continue
        largest = np.bincount(patches.ravel())[1:].argmax() + 1
        depth = ndimage.distance_transform_edt(np.pad(patches == largest, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        points[i, 0], points[i, 1] = cells_to_xy[i, 0, column], cells_to_xy[i, 1, row]
        labels[i] = float(want[row, column])
    return points, labels
