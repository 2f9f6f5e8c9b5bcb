"""Crops of an image, against SAM's own."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.utils.amg import generate_crop_boxes

from napari_sam_med.segmentation.automatic.crop_layers import crops_of

SIDES = st.integers(40, 700)


@given(SIDES, SIDES, st.integers(0, 3), st.floats(0, 0.6))
def test_crops_are_sams(height, width, n_layers, overlap):
    boxes, layers = generate_crop_boxes((height, width), n_layers, overlap)
    crops = crops_of((height, width), n_layers, overlap)
    # where many crops share few pixels SAM's last ones lie outside the image
    inside = [
        (layer, tuple(b)) for b, layer in zip(boxes, layers, strict=True) if b[0] < b[2] and b[1] < b[3]
    ]
    assert [(crop.layer, crop.xyxy) for crop in crops] == inside


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 3))
def test_every_layer_covers_the_image_with_parts_inside_it(height, width, n_layers):
    crops = crops_of((height, width), n_layers, 512 / 1500)
    for layer in range(n_layers + 1):
        covered = np.zeros((height, width), dtype=bool)
        for crop in crops:
            x0, y0, x1, y1 = crop.xyxy
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
            assert crop.size == (y1 - y0, x1 - x0)
            if crop.layer == layer:
                covered[y0:y1, x0:x1] = True
        assert covered.all()
