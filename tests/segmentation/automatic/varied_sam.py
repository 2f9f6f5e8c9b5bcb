"""Random SAMs whose answers to clicks differ: in place, in size, in what they believe of themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import ndimage
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam
from torch import nn

from napari_sam_med.segmentation.automatic.everything import segment_everything


def vary_clicks(sam: Sam, offset: float = 4.0) -> Sam:
    """Make clicks matter more, and masks smaller by an offset of their weights."""
    with torch.no_grad():
        for layer in sam.mask_decoder.transformer.layers:
            layer.cross_attn_image_to_token.v_proj.weight.mul_(4.0)
        for mlp in sam.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].bias.sub_(offset)
        sam.mask_decoder.iou_prediction_head.layers[-1].bias.add_(0.5)  # a limit of 0 or less is none
    return sam


class EncodedOnce(nn.Module):
    """An image encoder that takes its time for the first image only, and is asked about no other."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.img_size = encoder.img_size
        self.answers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, squares: torch.Tensor) -> torch.Tensor:
        if not self.answers:
            self.answers.append((squares, self.encoder(squares)))
        (seen, features), *_ = self.answers
        assert torch.equal(squares, seen), "both generators must show the encoder the same"
        return features


def meta_records(sam: Sam, image: Any, **options: Any) -> list[dict[str, Any]]:
    """What SAM's own generator answers."""
    return SamAutomaticMaskGenerator(sam, **options).generate(image)


def assert_same_records(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Same masks, boxes, clicks and crops in the same order; scores to 1e-4."""
    assert len(ours) == len(theirs)
    for mine, its in zip(ours, theirs, strict=True):
        assert list(mine) == list(its)
        for exact in ("area", "bbox", "point_coords", "crop_box"):
            assert mine[exact] == its[exact], exact
        for score in ("predicted_iou", "stability_score"):
            np.testing.assert_allclose(mine[score], its[score], rtol=1e-4)
        np.testing.assert_equal(mine["segmentation"], its["segmentation"])


def assert_equal_to_meta(sam: Sam, predictor: Any, image: Any, at_least: int, **options: Any) -> None:
    """Both generators on one image; the comparison must not be about too few masks."""
    theirs = meta_records(sam, image, **options)
    assert len(theirs) >= at_least, "the test is blind when too few masks survive"
    assert_same_records(segment_everything(image, predictor, **options), theirs)


def connected_components_with_stats(mask: Any, connectivity: int) -> tuple[int, Any, Any, None]:
    """What Meta's generator asks of OpenCV, which is not installed: labels, and areas in the last column."""
    assert connectivity == 8
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    return count + 1, labels, np.bincount(labels.ravel(), minlength=count + 1)[:, None], None
