"""What is known of a mask on a slice, as numbers: where it lies in the body, how bright it is, what a model
made of it.

The number and the name of the label are no part of it, and no mask says anything about another one, so that
renumbering labels changes nothing. Millimetres and the body's own box take the place of pixels, so that a
scan of another resolution or field of view looks alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from skimage import measure

from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.slicewise import box_of_mask, embed_slice
from napari_sam_med.volume.intensity import resolve_window
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.image_embedding import ImageEmbedding
    from napari_sam_med.sam.mask_prediction import MaskPrediction
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.volume.volume import Volume

__all__ = [
    "COUCH_MM",
    "GEOMETRY",
    "Body",
    "ScanFrame",
    "SliceObjects",
    "body_of",
    "geometry_of",
    "not_air",
    "pooled_embedding",
]

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

_AIR_BELOW_HU = -300.0
_AIR_SHARE = 0.10
"""Scans without Hounsfield units: what is darker than this share of the window is air."""
COUCH_MM = 6.0
"""Things thinner than this are not the body: couch, blankets, tubes."""
_RING_MM = 6.0
_GAS_HU, _BONE_HU, _LUNG_HU = -300.0, 180.0, -500.0
_LARGEST = 5.0

GEOMETRY: tuple[str, ...] = (
    *("centre_x", "centre_y", "left", "top", "right", "bottom"),  # in the body's box, 0..1
    *("log_area", "area_of_body", "log_width", "log_height", "compactness", "filled_share"),
    *("eccentricity", "slant_cos", "slant_sin", "log_pieces"),
    *("z_fraction", "scan_length", "slice_spacing", "pixel_spacing"),
    *("body_width", "body_height", "body_cut_x", "body_cut_y", "lung_share"),
    *("hounsfield", "mean", "deviation", "p10", "p90", "ring_mean", "ring_deviation", "contrast"),
    *("gas_inside", "gas_around", "bone_around"),
)
"""Names of the columns of `geometry_of`."""


@dataclass(frozen=True, eq=False)
class ScanFrame:
    """What the slices of a scan are measured against.

    Attributes
    ----------
    is_hounsfield : bool
    window : tuple of float
        Low and high value that the model sees.
    n_slices : int
        Axial slices.
    spacing : tuple of float
        Millimetres along z, y, x.
    """

    is_hounsfield: bool
    window: tuple[float, float]
    n_slices: int
    spacing: tuple[float, float, float]

    @classmethod
    def of(cls, volume: Volume) -> ScanFrame:
        """Frame of a volume."""
        return cls(volume.is_hounsfield, resolve_window(volume), volume.shape[0], volume.spacing)

    @property
    def air_below(self) -> float:
        """Values below this are air."""
        if self.is_hounsfield:
            return _AIR_BELOW_HU
        low, high = self.window
        return low + _AIR_SHARE * (high - low)

    def scaled(self, values: npt.NDArray[Any]) -> Floats:
        """Values as the features have them: soft tissue near 0, 1 for 100 HU or for a third of the window."""
        low, high = self.window
        middle, unit = (40.0, 100.0) if self.is_hounsfield else ((low + high) / 2, max(high - low, 1e-6) / 3)
        # wide values first: a half-precision or damaged scan must not overflow
        pixels = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=low, posinf=high, neginf=low)
        return np.asarray(((pixels - middle) / unit).clip(-_LARGEST, _LARGEST), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Body:
    """The patient on a slice: ``mask`` (H, W) and its ``box`` x_min, y_min, x_max, y_max, pixels inside."""

    mask: Mask
    box: tuple[int, int, int, int]


def body_of(pixels: npt.NDArray[Any], frame: ScanFrame) -> Body:
    """The largest piece of a slice (H, W) that is brighter than air; the whole slice where there is none.

    Inner air belongs to it; what is thinner than a couch top does not.
    """
    pieces, count = ndimage.label(not_air(pixels, frame))
    if not count:
        return Body(np.ones(pixels.shape, dtype=bool), (0, 0, pixels.shape[1] - 1, pixels.shape[0] - 1))
    largest = int(np.argmax(np.bincount(pieces.ravel())[1:])) + 1
    mask = ndimage.binary_fill_holes(pieces == largest)
    x0, y0, x1, y1 = (int(v) for v in box_of_mask(mask))
    return Body(np.asarray(mask, dtype=bool), (x0, y0, x1, y1))


def not_air(pixels: npt.NDArray[Any], frame: ScanFrame) -> Mask:
    """Where a slice (H, W) is brighter than air, without what is thinner than a couch top."""
    bright = np.nan_to_num(np.asarray(pixels, dtype=np.float32), nan=-np.inf) > frame.air_below
    row_mm, column_mm = frame.spacing[1:]
    radius = max(1, round(COUCH_MM / 2 / max(row_mm, column_mm)))
    # a body that the field of view cuts goes on beyond it
    opened = ndimage.binary_opening(np.pad(bright, radius, mode="edge"), iterations=radius)
    return np.asarray(opened[radius:-radius, radius:-radius], dtype=bool)


@dataclass(frozen=True, eq=False)
class SliceObjects:
    """Masks on one axial slice, and what describes them; what needs the model is made when it is asked for.

    Attributes
    ----------
    volume : Volume
    frame : ScanFrame
        Of the volume.
    view : SliceView
        Axial.
    masks : ndarray (N, H, W) bool
        None of them empty.
    predictor : Predictor
    store : EmbeddingStore, optional
        Where the slice's embedding may lie already.
    """

    volume: Volume
    frame: ScanFrame
    view: SliceView
    masks: Mask
    predictor: Predictor
    store: EmbeddingStore | None = None

    @cached_property
    def pixels(self) -> npt.NDArray[Any]:
        """The slice (H, W) in the volume's own values."""
        return self.view.extract(self.volume.data)

    @cached_property
    def embedding(self) -> ImageEmbedding:
        """The model's embedding of the slice."""
        return embed_slice(self.volume, self.view, self.predictor, window=self.frame.window, store=self.store)

    @cached_property
    def prompts(self) -> list[Prompts]:
        """The tangent box of each mask."""
        return [Prompts.from_box(box_of_mask(mask)) for mask in self.masks]

    @cached_property
    def answers(self) -> list[MaskPrediction]:
        """What the model says to the boxes."""
        return self.predictor.predict_batch(
            self.embedding, self.prompts, multimask=False, direct_upsampling=True
        )

    @cached_property
    def geometry(self) -> Floats:
        """(N, len(GEOMETRY)), see `geometry_of`."""
        return geometry_of(self.pixels, self.masks, self.frame, self.view.index)

    @cached_property
    def pooled(self) -> Floats:
        """(N, 3 C), see `pooled_embedding`."""
        return pooled_embedding(self.embedding, self.masks, self.predictor.network.input_size)

    @cached_property
    def tokens(self) -> Floats:
        """(N, D): the decoder's descriptor of the mask that it finds in each box."""
        return np.stack([answer.tokens[answer.best_index] for answer in self.answers]).astype(np.float32)

    @cached_property
    def qualities(self) -> Floats:
        """(N,): the IoU that the model predicts for its own mask in each box, 0..1."""
        best = [answer.iou_predictions[answer.best_index] for answer in self.answers]
        return np.clip(np.array(best, dtype=np.float32), 0.0, 1.0)

    @cached_property
    def areas_mm2(self) -> Floats:
        """(N,): areas of the masks."""
        row_mm, column_mm = self.frame.spacing[1:]
        counts = np.count_nonzero(self.masks, axis=(1, 2))
        return np.asarray(counts * row_mm * column_mm, dtype=np.float32)


def geometry_of(
    pixels: npt.NDArray[Any], masks: Sequence[Mask] | Mask, frame: ScanFrame, index: int
) -> Floats:
    """Place, shape and brightness of masks on a slice.

    Parameters
    ----------
    pixels : ndarray (H, W)
        The slice in the volume's own values.
    masks : ndarray (N, H, W) bool
        None of them empty.
    frame : ScanFrame
    index : int
        Of the axial slice, from below.

    Returns
    -------
    ndarray (N, len(GEOMETRY)) float32
    """
    body = body_of(pixels, frame)
    shared = _of_slice(pixels, body, frame, index)
    rows = [shared | _of_mask(pixels, mask, body, frame) for mask in masks]
    return np.array([[row[name] for name in GEOMETRY] for row in rows], dtype=np.float32).reshape(
        -1, len(GEOMETRY)
    )


def _of_slice(pixels: npt.NDArray[Any], body: Body, frame: ScanFrame, index: int) -> dict[str, float]:
    z_mm, row_mm, column_mm = frame.spacing
    x0, y0, x1, y1 = body.box
    height, width = body.mask.shape
    values = pixels[body.mask]
    is_lung = values < (_LUNG_HU if frame.is_hounsfield else frame.air_below)
    return {
        "z_fraction": (index + 0.5) / frame.n_slices,
        "scan_length": frame.n_slices * z_mm / 300.0,
        "slice_spacing": np.log(z_mm),
        "pixel_spacing": np.log(max(row_mm, column_mm)),
        "body_width": (x1 - x0 + 1) * column_mm / 350.0,
        "body_height": (y1 - y0 + 1) * row_mm / 250.0,
        "body_cut_x": float(x0 == 0) - float(x1 == width - 1),
        "body_cut_y": float(y0 == 0) - float(y1 == height - 1),
        "lung_share": float(is_lung.mean()) if values.size else 0.0,
        "hounsfield": float(frame.is_hounsfield),
    }


def _of_mask(pixels: npt.NDArray[Any], mask: Mask, body: Body, frame: ScanFrame) -> dict[str, float]:
    row_mm, column_mm = frame.spacing[1:]
    reach = [max(2, int(np.ceil(_RING_MM / mm)) + 1) for mm in (row_mm, column_mm)]
    left, top, right, bottom = (int(v) for v in box_of_mask(mask))
    window = (
        slice(max(top - reach[0], 0), bottom + reach[0] + 1),
        slice(max(left - reach[1], 0), right + reach[1] + 1),
    )
    near, inside = pixels[window], mask[window]
    gap = ndimage.distance_transform_edt(~inside, sampling=(row_mm, column_mm))
    ring = (gap > 0) & (gap <= max(_RING_MM, 1.01 * max(row_mm, column_mm)))
    return _placed(mask, body) | _shaped(inside, frame, body) | _bright(near, inside, ring, frame)


def _placed(mask: Mask, body: Body) -> dict[str, float]:
    x0, y0, x1, y1 = body.box
    width, height = x1 - x0 + 1, y1 - y0 + 1
    rows, columns = np.nonzero(mask)
    return {
        "centre_x": (columns.mean() + 0.5 - x0) / width,
        "centre_y": (rows.mean() + 0.5 - y0) / height,
        "left": (columns.min() - x0) / width,
        "top": (rows.min() - y0) / height,
        "right": (columns.max() + 1 - x0) / width,
        "bottom": (rows.max() + 1 - y0) / height,
    }


def _shaped(inside: Mask, frame: ScanFrame, body: Body) -> dict[str, float]:
    row_mm, column_mm = frame.spacing[1:]
    rows, columns = np.nonzero(inside)
    pixel_mm2 = row_mm * column_mm
    area = rows.size * pixel_mm2
    height, width = (np.ptp(rows) + 1) * row_mm, (np.ptp(columns) + 1) * column_mm
    y, x = (rows - rows.mean()) * row_mm, (columns - columns.mean()) * column_mm
    # a pixel has an extent of its own
    yy, xx, xy = (y * y).mean() + row_mm**2 / 12, (x * x).mean() + column_mm**2 / 12, (x * y).mean()
    spread = np.hypot((xx - yy) / 2, xy)
    middle = (xx + yy) / 2
    eccentricity = np.sqrt(1 - max(middle - spread, 0.0) / (middle + spread))
    angle = np.arctan2(2 * xy, xx - yy)
    perimeter = max(measure.perimeter(np.pad(inside, 1)), 2.0) * np.sqrt(pixel_mm2)
    pieces = ndimage.label(inside)[1]
    return {
        "log_area": np.log(area) - 6.5,
        "area_of_body": area / max(np.count_nonzero(body.mask) * pixel_mm2, pixel_mm2) * 10,
        "log_width": np.log(width) - 3.5,
        "log_height": np.log(height) - 3.5,
        "compactness": min(perimeter / (2 * np.sqrt(np.pi * area)), _LARGEST),
        "filled_share": area / (height * width),
        "eccentricity": eccentricity,
        "slant_cos": eccentricity * np.cos(angle),
        "slant_sin": eccentricity * np.sin(angle),
        "log_pieces": min(np.log(pieces), 3.0),
    }


def _bright(near: npt.NDArray[Any], inside: Mask, ring: Mask, frame: ScanFrame) -> dict[str, float]:
    scaled = frame.scaled(near)
    own = scaled[inside]
    around = scaled[ring] if ring.any() else own
    is_ct = float(frame.is_hounsfield)
    gas, bone = ((level - 40.0) / 100.0 for level in (_GAS_HU, _BONE_HU))
    p10, p90 = np.percentile(own, (10, 90))
    return {
        "mean": float(own.mean()),
        "deviation": float(own.std()),
        "p10": p10,
        "p90": p90,
        "ring_mean": float(around.mean()),
        "ring_deviation": float(around.std()),
        "contrast": float(own.mean() - around.mean()),
        "gas_inside": is_ct * float((own < gas).mean()),
        "gas_around": is_ct * float((around < gas).mean()),
        "bone_around": is_ct * float((around > bone).mean()),
    }


def pooled_embedding(embedding: ImageEmbedding, masks: Mask, input_size: int) -> Floats:
    """Mean embedding inside each mask, in a ring of one cell around it, and over the slice.

    Parameters
    ----------
    embedding : ImageEmbedding
        Of the whole slice (no crop).
    masks : ndarray (N, H, W) bool
    input_size : int
        Side of the model's square, pixels.

    Returns
    -------
    ndarray (N, 3 C) float32
    """
    image: torch.Tensor = embedding.features[0].float().cpu()[0]  # (C, h, w)
    cells = image.shape[-1]
    rows, columns = (max(1, round(size / input_size * cells)) for size in embedding.input_size)
    seen = image[:, :rows, :columns].flatten(1)
    covered = torch.nn.functional.adaptive_avg_pool2d(
        torch.from_numpy(np.ascontiguousarray(masks)).float()[:, None], (rows, columns)
    )
    grown = torch.nn.functional.max_pool2d(covered, 3, 1, 1)
    inside, ring = covered.flatten(1), (grown - covered).flatten(1)
    parts = [weights @ seen.T / weights.sum(1, keepdim=True).clamp(min=1e-6) for weights in (inside, ring)]
    whole = seen.mean(1).expand(len(masks), -1)
    pooled: Floats = torch.cat([*parts, whole], 1).numpy().astype(np.float32)
    return pooled
