"""Run lengths of masks, against SAM's and COCO's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_masks
from segment_anything.utils.amg import coco_encode_rle, mask_to_rle_pytorch

from napari_sam_med.segmentation.automatic.mask_encoding import coco_rle, mask_of_rle, uncompressed_rle

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


@given(MASKS, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_run_lengths_of_a_part_are_those_of_the_whole(pixels, above, below, left, right):
    whole = np.pad(pixels, ((above, below), (left, right)))
    rle = uncompressed_rle(pixels, (above, left), whole.shape)
    assert rle == mask_to_rle_pytorch(torch.from_numpy(whole)[None])[0]
    np.testing.assert_array_equal(mask_of_rle(rle), whole)


# pycocotools' own decoder is older than numpy 2
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@given(MASKS)
def test_compressed_run_lengths_are_sams_and_readable_by_coco(mask):
    rle = uncompressed_rle(mask, (0, 0), mask.shape)
    assert coco_rle(rle) == coco_encode_rle(rle)
    np.testing.assert_array_equal(coco_masks.decode(coco_rle(rle)), mask)


def test_a_mask_of_no_pixels_is_one_run_of_background():
    assert uncompressed_rle(np.zeros((0, 0), dtype=bool), (0, 0), (3, 4)) == {"size": [3, 4], "counts": [12]}
