"""An encoder in bf16 leads to the masks of one in fp32, on real slices."""

from __future__ import annotations

import pytest

from napari_sam_med import Prompts, SliceView, load_predictor, read_volume, to_rgb
from napari_sam_med.segmentation.slicewise import box_of_mask
from napari_sam_med.volume.reading import read_labels
from tests.shared_data import OPEN, needs_open

CASES = {
    "ct_abdomen_ts/label_btcv13": (1, 2, 6, 10),
    "ct_spleen_msd/label": (1,),
    "mr_cardiac_acdc_001_frame01/label": (1, 2, 3),
}


@needs_open
@pytest.mark.parametrize("case", CASES)
def test_masks_are_those_of_fp32(case: str) -> None:
    folder, labels_name = case.split("/")
    volume = read_volume(OPEN / folder / "image.nii.gz")
    labels = read_labels(OPEN / folder / f"{labels_name}.nii.gz").data
    exact, rough = (load_predictor("nano", device="cpu", precision=p) for p in ("fp32", "bf16"))
    for label in CASES[case]:
        view = SliceView("axial", int((labels == label).sum((1, 2)).argmax()))
        truth = view.extract(labels) == label
        left, top, right, bottom = box_of_mask(truth)
        prompts = [
            Prompts.from_box((left, top, right, bottom)),
            Prompts.from_points([[(left + right) / 2, (top + bottom) / 2]]),
        ]
        image, spacing = to_rgb(volume, view), volume.pixel_spacing(view)
        given = (one.predict_batch(one.embed(image, spacing), prompts) for one in (exact, rough))
        for wanted, found in zip(*given, strict=True):
            mask, other = wanted.best_mask, found.masks[wanted.best_index]
            assert (mask & other).sum() >= 0.99 * (mask | other).sum()
