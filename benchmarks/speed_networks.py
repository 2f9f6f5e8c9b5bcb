"""The speed of encoders, of a click and of enlarging a mask beside SAM's own code, for `benchmarks.speed`.

Both ways have the same random weights, which take as long as real ones, and answer the same slice of 512 x
512 pixels in one process; what they answer is compared as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT, Sam
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.automatic import SIDE, slice_of_ct, with_lively_masks
from benchmarks.ratios import Ratio, seconds_in_turn
from napari_sam_med import Prompts, load_predictor
from napari_sam_med.sam.architectures.base import DecodedMasks
from napari_sam_med.sam.architectures.meta import (
    SamNetwork,
    build_mask_decoder,
    build_prompt_encoder,
    build_sam_vit,
)
from napari_sam_med.sam.architectures.tiny_vit import TinyVitEncoder, fuse_batch_norm
from napari_sam_med.sam.architectures.vit_attention import use_fast_attention
from napari_sam_med.sam.device import Precision, resolve_precision
from napari_sam_med.sam.embedding_store import as_kept
from napari_sam_med.sam.image_embedding import ImageEmbedding
from napari_sam_med.sam.mask_prediction import AnswerForm, mask_of_logits, masks_in_image
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sam.prompt_batch import batch_of
from napari_sam_med.sam.square import SquareFit

POINT = Prompts.from_points([[220, 250]])
BATCH_ON_GPU = 8
OTHER_SIZES = ((400, 300), (337, 512), (768, 768))
Way = Callable[[], Any]


class Layout(NamedTuple):
    """A network twice: Meta's `Sam` over plain modules, and ours over the same weights."""

    title: str
    model: str
    sam: Sam
    network: SamNetwork

    def predictor(self, device: str, precision: Precision) -> Predictor:
        """Ours."""
        return Predictor(
            self.network, MODELS[self.model], device=device, precision=precision, model_hash="random"
        )


class PlainTinyVit(nn.Module):
    """TinyViT as it is before anything is folded or laid out anew; attention by PyTorch's kernel."""

    def __init__(self, encoder: TinyVitEncoder, side: int) -> None:
        super().__init__()
        self.img_size = side
        self.encoder = encoder

    def forward(self, squares: torch.Tensor) -> torch.Tensor:
        """Features of normalised squares."""
        backbone = self.encoder.backbone
        features: torch.Tensor = self.encoder.neck(backbone.stages(backbone.patch_embed(squares)))
        return features


def rows(device: str, quick: bool) -> Iterator[Ratio]:
    """Encoders, clicks, previews and a loop over slices; with `quick` of networks small enough for a test."""
    vit, tiny = vit_layout(quick), tiny_vit_layout(quick)
    for layout in (vit, tiny):
        layout.sam.to(device)
    image = slice_of_ct(SIDE)
    if device == "cpu":
        yield from encodes_on_cpu(vit, image, {"fp32": 1.25, "bf16": 2.0}, 1 if quick else 2)
        yield from encodes_on_cpu(tiny, image, {"bf16": 1.8}, 1 if quick else 8)
    else:
        yield batch_on_gpu(vit, image, device, 8.0)
        yield batch_on_gpu(tiny, image, device, 1.8)
    turns = 1 if quick else 30
    yield sam_click(tiny, image, device, turns)
    yield nano_click(image, device, turns)
    yield preview(image, device, turns)
    yield loop(tiny, device, 2 if quick else 6, 1 if quick else 3)


def vit_layout(quick: bool) -> Layout:
    """ViT-B, or a ViT of two blocks."""
    torch.manual_seed(0)
    if quick:
        encoder = ImageEncoderViT(
            img_size=128,
            embed_dim=32,
            depth=2,
            num_heads=2,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=3,
            global_attn_indexes=(1,),
        )
        network = SamNetwork(encoder, build_prompt_encoder(128), build_mask_decoder()).eval()
    else:
        network = build_sam_vit("vit_b")
    layout = as_layout("SAM ViT-B", "sam_vit_b", network, copy.deepcopy(network.image_encoder))
    use_fast_attention(layout.network.image_encoder)
    return layout


def tiny_vit_layout(quick: bool) -> Layout:
    """MobileSAM, for a test over smaller squares."""
    torch.manual_seed(0)
    side = 256 if quick else 1024
    encoder = TinyVitEncoder()
    network = SamNetwork(encoder, build_prompt_encoder(side), build_mask_decoder()).eval()
    layout = as_layout("MobileSAM", "mobile_sam", network, PlainTinyVit(copy.deepcopy(encoder), side))
    fuse_batch_norm(layout.network.image_encoder)
    return layout


def as_layout(title: str, model: str, network: SamNetwork, plain: nn.Module) -> Layout:
    """Both networks; they share prompt encoder and decoder."""
    with_lively_masks(network)
    encoder: Any = plain
    sam = Sam(encoder, network.prompt_encoder, network.mask_decoder).eval()
    return Layout(title, model, sam, network)


def encodes_on_cpu(
    layout: Layout, image: np.ndarray, targets: dict[Precision, float], turns: int
) -> Iterator[Ratio]:
    """`Predictor.embed` in each precision beside `SamPredictor.set_image` in fp32."""
    theirs = SamPredictor(layout.sam)
    ours = {precision: layout.predictor("cpu", precision) for precision in targets}
    made: dict[Precision, ImageEmbedding] = {}

    def embed(precision: Precision) -> None:
        made[precision] = ours[precision].embed(image)

    ways: list[Way] = [lambda: theirs.set_image(image), *(partial(embed, p) for p in targets)]
    fewest, *seconds = seconds_in_turn(ways, turns, warm_up=turns > 2)
    gflop = gflop_of(layout)
    for (precision, target), taken in zip(targets.items(), seconds, strict=True):
        rate, peak = gflop / taken, peak_gflops("cpu", precision)
        yield Ratio(
            f"{layout.title}, one slice embedded, {precision}",
            "SamPredictor.set_image, fp32",
            taken,
            fewest,
            target,
            "faster",
            f"features differ by {difference(made[precision], theirs.features)}; {rate:.0f} GFLOP/s, "
            f"{rate / peak:.0%} of the {peak:.0f} of a product of matrices",
        )


def batch_on_gpu(layout: Layout, image: np.ndarray, device: str, target: float) -> Ratio:
    """`Predictor.embed_batch` in bf16 beside a loop of `SamPredictor.set_image` in fp32."""
    theirs, ours = SamPredictor(layout.sam), layout.predictor(device, "bf16")
    images = [np.roll(image, 8 * i, axis=1) for i in range(BATCH_ON_GPU)]
    made: list[ImageEmbedding] = []

    def one_by_one() -> None:
        for one in images:
            theirs.set_image(one)

    def together() -> None:
        made[:] = ours.embed_batch(images)

    fewest, taken = seconds_in_turn([synchronised(way, device) for way in (one_by_one, together)], 10)
    rate, peak = BATCH_ON_GPU * gflop_of(layout) / taken, peak_gflops(device, "bf16")
    return Ratio(
        f"{layout.title}, {BATCH_ON_GPU} slices embedded together, bf16",
        "a loop of SamPredictor.set_image, fp32",
        taken,
        fewest,
        target,
        "faster",
        f"features differ by {difference(made[-1], theirs.features)}; {rate:.0f} GFLOP/s, "
        f"{rate / peak:.0%} of the {peak:.0f} of a product of matrices",
    )


def sam_click(layout: Layout, image: np.ndarray, device: str, turns: int) -> Ratio:
    """A click as the widget asks it, on a kept embedding, beside Meta's prompt encoder and mask decoder."""
    predictor = layout.predictor(device, resolve_precision("auto", torch.device(device)))
    kept = as_kept(predictor.embed(image))
    features = predictor.features_of(kept)
    clicks = batch_of([POINT], kept, predictor.fit_of(kept), predictor.device)
    sam = layout.sam

    def raw() -> Any:
        with torch.inference_mode():
            sparse, dense = sam.prompt_encoder(
                points=(clicks.points_xy, clicks.point_labels), boxes=None, masks=None
            )
            return sam.mask_decoder(
                image_embeddings=features.image,
                image_pe=sam.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )

    apart = np.abs(raw()[0][0].float().cpu().numpy() - predictor.predict(kept, POINT).low_res_logits).max()
    return click_row(
        predictor, kept, raw, "Meta's prompt encoder and mask decoder", turns, f"logits differ by {apart:.1e}"
    )


def nano_click(image: np.ndarray, device: str, turns: int) -> Ratio:
    """The same of the bundled network, beside its own decoder."""
    predictor = load_predictor("nano", device=device)
    kept = as_kept(predictor.embed(image))
    features = predictor.features_of(kept)
    clicks = batch_of([POINT], kept, predictor.fit_of(kept), predictor.device)

    def raw() -> Any:
        with torch.inference_mode():
            return predictor.network.decode(features, clicks, True)

    return click_row(predictor, kept, raw, "its network's decoder", turns, "")


def click_row(
    predictor: Predictor, kept: ImageEmbedding, raw: Way, against: str, turns: int, note: str
) -> Ratio:
    """A click as `session.jobs.predict_preview` asks it, over and over on one slice: SAM's decoder keeps what
    no prompt changes from the click before.
    """

    def click() -> Any:
        return predictor.predict(kept, POINT, direct_upsampling=True, best_only=True)

    ways = [synchronised(way, str(predictor.device)) for way in (raw, click)]
    theirs, ours = seconds_in_turn(ways, turns)
    title = predictor.record.title.split()[0]
    return Ratio(
        f"{title}, a click on a kept slice after a first one there", against, ours, theirs, 1.15, "cost", note
    )


def preview(image: np.ndarray, device: str, turns: int) -> Ratio:
    """The best of three masks of an organ, enlarged once, beside SAM's three in two steps.

    Each is enlarged after a run of the decoder, as in use.
    """
    nano = load_predictor("nano", device=device)
    embedding = nano.embed(image)
    box = Prompts.from_box((180, 200, 300, 310))
    with torch.inference_mode():
        batch = batch_of([box], embedding, nano.fit_of(embedding), nano.device)

    @torch.inference_mode()
    def decode() -> Any:
        return nano.network.decode(embedding.features, batch, True)

    organ = decode()
    organ = organ._replace(low_res_logits=organ.low_res_logits.float())
    ours, answer, theirs = three_previews(organ, (SIDE, SIDE))
    differing = int((ours() != theirs()[int(organ.iou_predictions.argmax())]).sum())
    apart = []
    for size in OTHER_SIZES:
        one, _, three = three_previews(organ, size)
        mask, other = one(), three()[int(organ.iou_predictions.argmax())]
        apart.append(f"{size[0]} x {size[1]} {(mask & other).sum() / (mask | other).sum():.4f}")
    ways = [synchronised(way, device) for way in (theirs, ours, answer)]
    slow, fast, whole = seconds_in_turn(ways, 10 * turns, before=decode)
    everywhere = organ._replace(low_res_logits=torch.randn_like(organ.low_res_logits))
    ways = [synchronised(way, device) for way in three_previews(everywhere, (SIDE, SIDE))]
    fast_full, _, slow_full = seconds_in_turn(ways, 10 * turns, before=decode)
    return Ratio(
        "The best mask of a preview, enlarged and cut off",
        "SAM's postprocess_masks of three",
        fast,
        slow,
        10.0,
        "faster",
        f"{differing} pixels differ; IoU at {', '.join(apart)}; of a mask all over the slice "
        f"{slow_full / fast_full:.0f} times as fast; {slow / whole:.1f} times with the scores of the answer",
    )


def three_previews(decoded: DecodedMasks, size: tuple[int, int]) -> tuple[Way, Way, Way]:
    """Our mask (H, W), our answer with its scores, and SAM's masks (3, H, W), from logits over the square."""
    fit = SquareFit.of(size, (1.0, 1.0), 1024, stretch=False)
    embedding = ImageEmbedding((), size, fit.resized_size, None, "")
    holder = nn.Module()
    holder.image_encoder = nn.Module()
    holder.image_encoder.img_size = fit.side  # type: ignore[assignment]  # all that the method reads

    def theirs() -> Any:
        whole = Sam.postprocess_masks(holder, decoded.low_res_logits, fit.resized_size, size)
        return (whole > 0.0)[0].cpu().numpy()

    def ours() -> Any:
        return mask_of_logits(decoded.best().low_res_logits[0, 0].cpu(), embedding, fit)

    def answer() -> Any:
        return masks_in_image(decoded, embedding, fit, AnswerForm(direct=True, best_only=True))[0]

    return ours, answer, theirs


def loop(layout: Layout, device: str, n_slices: int, turns: int) -> Ratio:
    """Slice after slice embedded and clicked on, beside `SamPredictor` with its three masks."""
    theirs, ours = SamPredictor(layout.sam), layout.predictor(device, "bf16")
    image = slice_of_ct(SIDE)
    images = [np.roll(image, 8 * i, axis=1) for i in range(n_slices)]

    def naive() -> None:
        for one in images:
            theirs.set_image(one)
            theirs.predict(POINT.points_xy.copy(), POINT.point_labels.copy(), multimask_output=True)

    def fast() -> None:
        for embedding in ours.embed_batch(images):
            ours.predict(embedding, POINT, direct_upsampling=True, best_only=True)

    slow, taken = seconds_in_turn([synchronised(way, device) for way in (naive, fast)], turns)
    return Ratio(
        f"{layout.title}, {n_slices} slices embedded and clicked on, bf16",
        "a loop of SamPredictor, fp32",
        taken,
        slow,
        1.8,
        "faster",
    )


def difference(embedding: ImageEmbedding, features: torch.Tensor) -> str:
    """Root mean square of the difference as a share of the features' own."""
    apart = (embedding.features.image - features).square().mean().sqrt() / features.square().mean().sqrt()
    return f"{float(apart):.1e}"


def gflop_of(layout: Layout) -> float:
    """Of one slice, counted on Meta's modules without running them."""
    encoder = copy.deepcopy(layout.sam.image_encoder).to("meta")
    side = encoder.img_size
    with FlopCounterMode(display=False) as counter:
        encoder(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops() / 1e9


def peak_gflops(device: str, precision: Precision) -> float:
    """GFLOP/s of a product of two matrices of 2048 x 2048."""
    side = 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    (seconds,) = seconds_in_turn([synchronised(lambda: matrix @ matrix, device)], 10)
    return 2 * side**3 / seconds / 1e9


def synchronised(way: Way, device: str) -> Way:
    """The same until the device has done it."""
    if not device.startswith("cuda"):
        return way

    def waited() -> Any:
        done = way()
        torch.cuda.synchronize(device)
        return done

    return waited
