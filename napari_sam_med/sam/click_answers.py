"""Many lone clicks on one image: of each click's three masks, those that the model believes itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from napari_sam_med.errors import DeviceMemoryError, PromptError
from napari_sam_med.sam.architectures.base import ClickDecoder, PlainClickDecoder, PromptBatch
from napari_sam_med.sam.device import network_runs, side_by_side
from napari_sam_med.sam.square import upsample_logits

if TYPE_CHECKING:
    from napari_sam_med.sam.image_embedding import ImageEmbedding
    from napari_sam_med.sam.predictor import Predictor

__all__ = ["ClickAnswers", "answer_clicks", "check_takes_points", "enlarged"]


@dataclass(frozen=True, eq=False)
class ClickAnswers:
    """Masks of some clicks, M of them, in the order of clicks and then of masks.

    Attributes
    ----------
    n_clicks : int
        Clicks that were answered, those without a believed mask included.
    clicks : ndarray (M,) int64
        Index of the click that each mask answers.
    iou_predictions : ndarray (M,) float32
    low_res_logits : tensor (M, h, w) float32
        On the predictor's device, over the padded square.
    """

    n_clicks: int
    clicks: npt.NDArray[np.int64]
    iou_predictions: npt.NDArray[np.float32]
    low_res_logits: torch.Tensor


def answer_clicks(
    predictor: Predictor,
    embedding: ImageEmbedding,
    points_xy: npt.NDArray[np.float64],
    *,
    iou_above: float = -np.inf,
    at_once: int | None = None,
) -> Iterator[ClickAnswers]:
    """Ask for each point on its own, some at a time; masks of lower predicted IoU are never made.

    Parameters
    ----------
    predictor : Predictor
    embedding : ImageEmbedding
        Of this model.
    points_xy : ndarray (N, 2) float64
        x = column, y = row, in pixels of what was embedded: the image, or the crop of it.
    iou_above : float
        Predicted IoU that a mask must exceed.
    at_once : int, optional
        Clicks that are decoded together; when left out as many as suit the model and the device.

    Yields
    ------
    ClickAnswers
        Of the next clicks.

    Raises
    ------
    PromptError
        When the model takes no points.
    ModelError
        When the embedding is another model's, or was made with other preprocessing.
    DeviceMemoryError
        When the device ran out of memory.
    """
    check_takes_points(predictor)
    predictor.check_embedding(embedding)
    fit = predictor.fit_of(embedding)
    squares = points_xy.astype(np.float64) * fit.scale_xy
    size = at_once or predictor.prompts_at_once
    with network_runs(predictor.device, predictor.record.title), torch.inference_mode():
        decoder = _decoder_of(predictor, predictor.features_of(embedding))
    cores = torch.get_num_threads() if predictor.device.type == "cpu" else 1
    start = 0
    while start < len(squares):
        ends = range(start + size, start + (cores + 1) * size, size)
        chunks = [part for end in ends if len(part := squares[end - size : end])]
        try:
            given = side_by_side(
                lambda part: _answer(predictor, decoder, part, fit.scale_xy, iou_above), chunks
            )
        except DeviceMemoryError:
            if len(chunks[0]) == 1:
                raise
            size = len(chunks[0]) // 2  # the same answers, fewer at once
            continue
        for answers in given:
            yield replace(answers, clicks=answers.clicks + start)
            start += answers.n_clicks


def check_takes_points(predictor: Predictor) -> None:
    """Refuse a model that was not trained for points.

    Raises
    ------
    PromptError
    """
    if "point" not in predictor.accepts:
        raise PromptError(
            f"{predictor.record.title.split()[0]} takes no points, and finding masks without a hand asks "
            "a grid of points; choose another model, such as nano, mobile_sam or sam_vit_b."
        )


def _decoder_of(predictor: Predictor, features: Any) -> ClickDecoder:
    network: Any = predictor.network
    make = getattr(network, "click_decoder", None)
    with predictor.autocast():
        decoder: ClickDecoder = PlainClickDecoder(network, features) if make is None else make(features)
    return decoder


def _answer(
    predictor: Predictor,
    decoder: ClickDecoder,
    squares_xy: npt.NDArray[np.float64],
    scale_xy: tuple[float, float],
    iou_above: float,
) -> ClickAnswers:
    device = predictor.device
    with network_runs(device, predictor.record.title), torch.inference_mode():
        # Meta's generator embeds the grid in double precision; Apple's GPUs have none
        points = torch.from_numpy(squares_xy)
        points = points.float().to(device) if device.type == "mps" else points.to(device)
        labels = torch.ones((len(points), 1), dtype=torch.int64, device=device)
        batch = PromptBatch(points[:, None], labels, scale_xy=scale_xy)
        with predictor.autocast():
            found = decoder.decode(batch, iou_above)
        return ClickAnswers(
            len(points),
            found.prompts.cpu().numpy(),
            found.iou_predictions.float().cpu().numpy(),
            found.low_res_logits.float(),
        )


def enlarged(predictor: Predictor, embedding: ImageEmbedding, low_res_logits: torch.Tensor) -> torch.Tensor:
    """Logits (M, h, w) over the square as logits (M, H, W) of what was embedded, in Meta's two steps."""
    with network_runs(predictor.device, predictor.record.title), torch.inference_mode():
        return upsample_logits(low_res_logits[None], predictor.fit_of(embedding), direct=False)[0]
