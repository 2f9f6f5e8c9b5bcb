"""Statement 33: volumes with NaN, infinities or one value alone load and predict; no logit is NaN."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med import Prompts, SliceView, load_predictor, read_volume, to_rgb
from napari_sam_med.sam.predictor import Predictor


def _with(*values: float) -> np.ndarray:
    data = np.random.default_rng(0).normal(0, 50, (24, 20, 6)).astype(np.float32)
    data.ravel()[: 4 * len(values)] = np.repeat(values, 4)
    return data


ODD = {
    "a NaN patch and infinities": _with(np.nan, np.inf, -np.inf),
    "nothing but NaN": np.full((24, 20, 6), np.nan, np.float32),
    "nothing but infinity": np.full((24, 20, 6), np.inf, np.float32),
    "both infinities": np.where(_with() > 0, np.inf, -np.inf).astype(np.float32),
    "nothing but zeros": np.zeros((24, 20, 6), np.int16),
    "one huge value": _with(3e38),
    "the largest and the smallest float": _with(3.4e38, -3.4e38),
    "float64 beyond float32": _with().astype(np.float64) * 1e300,
    "denormal numbers": (_with() * 1e-42).astype(np.float32),
    "one bright voxel": np.eye(1, 24 * 20 * 6, 99, dtype=np.int16).reshape(24, 20, 6),
    "the whole range of int16": np.linspace(-32768, 32767, 2880).astype(np.int16).reshape(24, 20, 6),
}


@pytest.fixture(scope="module")
def nano_in_bf16() -> Predictor:
    return load_predictor("nano", device="cpu", precision="bf16")


@pytest.mark.parametrize("name", ODD)
def test_odd_values_load_and_predict(
    nano: Predictor, nano_in_bf16: Predictor, tmp_path: Path, name: str
) -> None:
    nib.save(nib.Nifti1Image(ODD[name], np.eye(4)), tmp_path / "scan.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    assert volume.data.shape == (6, 20, 24)
    assert np.isfinite(volume.value_range).all()
    for view in (SliceView("axial", 5), SliceView("coronal", 0), SliceView("sagittal", 23)):
        image = to_rgb(volume, view)
        assert image.dtype == np.uint8
        for predictor in (nano, nano_in_bf16):
            embedding = predictor.embed(image, volume.pixel_spacing(view))
            for prompts in (Prompts.from_box((1, 1, 12, 4)), Prompts.from_points([[3, 3], [5, 1]], [1, 0])):
                prediction = predictor.predict(embedding, prompts)
                assert np.isfinite(prediction.low_res_logits).all()
                assert np.isfinite(prediction.iou_predictions).all()
                assert np.isfinite(prediction.stability_scores).all()
                assert prediction.best_mask.shape == image.shape[:2]
