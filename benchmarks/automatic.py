"""Automatic masks of one slice beside `segment_anything.SamAutomaticMaskGenerator`, with the same weights.

``python -m benchmarks.automatic [--models vit_b tiny_vit nano] [--points-per-side 16] [--repeats 1]
[--believed 0.5] [--threads 2]``: both generators answer one slice of 512 x 512 pixels in turn, encoder and
all included, and their records are compared. Weights are random, which takes as long as the real ones, so
the limit of predicted IoU is laid where it leaves a share of the masks, and that of stability where it leaves
half of them; with ``--believed 1`` no mask is dropped early. Beside wall time stands the time on the
processor, which other programs disturb less. ``nano``, which SAM's generator does not know, is timed alone,
with its own weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_sam_med import load_predictor, read_volume, segment_everything, to_rgb
from napari_sam_med.sam.architectures.meta import SamNetwork, build_sam_vit
from napari_sam_med.sam.architectures.tiny_vit import build_mobile_sam, fuse_batch_norm
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sample_data import sample_volume
from napari_sam_med.volume.slice_view import SliceView

TITLES = {"vit_b": "SAM ViT-B's layout", "tiny_vit": "MobileSAM's layout"}
SIDE = 512
Records = list[dict[str, Any]]


class Measured(NamedTuple):
    """A generator's records and its seconds: on the clock, and on the processor."""

    records: Records
    wall: float
    processor: float


def main() -> None:
    """Measure and print."""
    import torch  # after the package, which tells its threads how to wait

    parser = argparse.ArgumentParser(prog="python -m benchmarks.automatic", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["vit_b", "tiny_vit", "nano"])
    parser.add_argument("--points-per-side", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--believed", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    image = slice_of_ct(SIDE)
    for model in options.models:
        if model == "nano":
            time_nano(image, options.points_per_side, options.repeats)
        else:
            compare(model, image, options.points_per_side, options.repeats, options.believed)


def slice_of_ct(side: int) -> npt.NDArray[np.uint8]:
    """An axial slice of the bundled phantom, enlarged to `side` x `side` pixels."""
    volume = read_volume(sample_volume())
    image = to_rgb(volume, SliceView("axial", volume.shape[0] // 2))
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def compare(
    model: str, image: npt.NDArray[np.uint8], points_per_side: int, repeats: int, believed: float
) -> tuple[Records, Records]:
    """Measure a layout in both generators, print times and ratios, and return the records of both."""
    from segment_anything import SamAutomaticMaskGenerator
    from segment_anything.modeling import Sam

    network = random_network(model)
    predictor = Predictor(network, MODELS["sam_vit_b" if model == "vit_b" else "mobile_sam"])
    sam = Sam(network.image_encoder, network.prompt_encoder, network.mask_decoder).eval()
    settings = thresholds(predictor, image, believed) | {"points_per_side": points_per_side}
    generator = SamAutomaticMaskGenerator(sam, **settings)
    theirs, ours = (
        fastest(run, repeats)
        for run in (
            lambda: generator.generate(image),
            lambda: segment_everything(image, predictor, **settings),
        )
    )
    differing = pixels_that_differ(ours.records, theirs.records)
    print(
        f"{TITLES[model]}, {points_per_side} x {points_per_side} points, {len(ours.records)} masks: "
        f"segment_everything {ours.wall:.1f} s, SamAutomaticMaskGenerator {theirs.wall:.1f} s, ratio "
        f"{theirs.wall / ours.wall:.2f}; on the processor {ours.processor:.1f} s, {theirs.processor:.1f} s, "
        f"ratio {theirs.processor / ours.processor:.2f}; {differing}",
        flush=True,
    )
    return ours.records, theirs.records


def time_nano(image: npt.NDArray[np.uint8], points_per_side: int, repeats: int) -> None:
    """Measure nano and print its times."""
    predictor = load_predictor("nano", device="cpu")
    loose = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.5, "points_per_side": points_per_side}
    measured = fastest(lambda: segment_everything(image, predictor, **loose), repeats)
    print(
        f"nano, {points_per_side} x {points_per_side} points, {len(measured.records)} masks: "
        f"segment_everything {measured.wall:.1f} s; on the processor {measured.processor:.1f} s",
        flush=True,
    )


def random_network(model: str) -> SamNetwork:
    """A layout of SAM with random weights whose masks differ from click to click."""
    import torch

    torch.manual_seed(0)
    network = build_sam_vit("vit_b") if model == "vit_b" else build_mobile_sam()
    if model == "tiny_vit":
        fuse_batch_norm(network.image_encoder)  # as a loaded checkpoint is; in both generators
    return with_lively_masks(network)


def with_lively_masks(network: SamNetwork) -> SamNetwork:
    """A network of random weights after changing some, so that its masks differ from click to click."""
    import torch

    decoder = network.mask_decoder
    with torch.no_grad():
        decoder.mask_tokens.weight.normal_()
        for point in network.prompt_encoder.point_embeddings:
            point.weight.normal_()
        for layer in decoder.transformer.layers:
            layer.cross_attn_image_to_token.v_proj.weight.mul_(4.0)
        for mlp in decoder.output_hypernetworks_mlps:
            for part in mlp.layers:
                part.weight.mul_(4.0)
            mlp.layers[-1].bias.sub_(4.0)  # masks of a part of the slice
        decoder.iou_prediction_head.layers[-1].bias.add_(0.5)  # a limit of 0 or less is none
    return network


def thresholds(predictor: Predictor, image: npt.NDArray[np.uint8], believed: float) -> dict[str, float]:
    """Limits that leave a share of the masks by predicted IoU, and half of those by stability."""
    records = segment_everything(
        image,
        predictor,
        points_per_side=4,
        pred_iou_thresh=0.0,  # which stands for no limit
        stability_score_thresh=0.0,
        box_nms_thresh=1.0,
    )
    ious = [record["predicted_iou"] for record in records]
    stable = [record["stability_score"] for record in records if record["area"]]
    return {
        "pred_iou_thresh": float(np.quantile(ious, 1 - believed)) if believed < 1 else 0.0,
        "stability_score_thresh": float(np.median(stable)),
        "box_nms_thresh": 1.0,  # random masks reach over the whole slice: their boxes are alike
    }


def fastest(run: Callable[[], Records], repeats: int) -> Measured:
    """The fastest of some runs."""
    measured = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        records = run()
        measured.append(Measured(records, time.perf_counter() - wall, time.process_time() - processor))
    return min(measured, key=lambda one: one.wall)


def pixels_that_differ(ours: Records, theirs: Records) -> str:
    """In words: how many pixels of all masks differ."""
    if len(ours) != len(theirs):
        return f"{len(theirs)} masks of SAM's generator"
    pairs = zip(ours, theirs, strict=True)
    return f"{sum(int((a['segmentation'] != b['segmentation']).sum()) for a, b in pairs)} pixels differ"


if __name__ == "__main__":
    main()
