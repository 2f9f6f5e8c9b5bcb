"""What the predictor does beside being SAM: crops, spacing, batches, refusals, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.testing as npt
import pytest
import torch

from napari_sam_med.errors import DeviceError, DeviceMemoryError, ImageError, ModelError, PromptError
from napari_sam_med.sam.architectures.base import DecodedMasks, PromptBatch
from napari_sam_med.sam.model_registry import MODELS, with_preprocessing
from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.sam.prompts import Prompts
from tests.sam.fresh_process import output_of
from tests.sam.micro_sam import MICRO_RECORD, build_micro_sam, predictor_over, random_image

BOX = Prompts.from_box((40, 50, 120, 140))
POINT = Prompts.from_points([[90, 80]])


def disc(height: int = 200, width: int = 260, x: int = 150, y: int = 90, r: int = 40) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 60, np.uint8)
    image[(rows - y) ** 2 + (columns - x) ** 2 < r * r] = 180
    return image


def test_shapes_and_types(micro: Predictor) -> None:
    embedding = micro.embed(random_image(200, 260))
    lone = micro.predict(embedding, POINT)
    assert lone.masks.shape == (3, 200, 260)
    assert lone.masks.dtype == bool
    assert lone.iou_predictions.shape == lone.stability_scores.shape == (3,)
    assert lone.low_res_logits.shape == (3, 32, 32)
    assert lone.low_res_logits.dtype == lone.iou_predictions.dtype == lone.tokens.dtype == np.float32
    assert lone.best_index == int(lone.iou_predictions.argmax())
    npt.assert_array_equal(lone.best_mask, lone.masks[lone.best_index])
    npt.assert_array_equal(lone.best_low_res_logits, lone.low_res_logits[lone.best_index])
    assert ((lone.stability_scores >= 0) & (lone.stability_scores <= 1)).all()
    assert len(micro.predict(embedding, BOX).masks) == 1
    assert len(micro.predict(embedding, Prompts.from_points([[90, 80], [20, 20]], [1, 0])).masks) == 1
    assert len(micro.predict(embedding, BOX, True).masks) == 3
    assert len(micro.predict(embedding, POINT, False).masks) == 1
    assert "200 x 260" in repr(embedding)
    assert "200 x 260" in repr(lone)


def test_a_decoder_can_be_trained_on_embeddings(micro: Predictor) -> None:
    features = micro.embed(random_image(60, 60)).features
    weight = torch.ones(256, requires_grad=True)
    torch.einsum("bchw,c->", features.image, weight).backward()
    assert weight.grad is not None


def test_best_logits_are_a_mask_prompt(micro: Predictor) -> None:
    embedding = micro.embed(random_image(200, 260))
    first = micro.predict(embedding, POINT)
    again = micro.predict(embedding, POINT.replace(mask_input=first.best_low_res_logits))
    assert again.masks.shape == (1, 200, 260)


def test_image_and_prompts_may_be_lists(nano: Predictor) -> None:
    image = disc(40, 50, 25, 20, 10)
    embedding = nano.embed(image.tolist(), [1, 1], crop_xyxy=[5, 5, 45, 40])
    assert embedding.crop_xyxy == (5, 5, 45, 40)
    assert nano.predict(embedding, Prompts([[25, 20]])).masks.shape == (3, 40, 50)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 1.0), (1.0, 2.5)], ids=str)
def test_nano_finds_a_disc(nano: Predictor, spacing: tuple[float, float]) -> None:
    truth = disc()[..., 0] > 100
    mask = nano.predict(nano.embed(disc(), spacing), Prompts.from_box((110, 50, 190, 130))).best_mask
    assert (truth & mask).sum() / (truth | mask).sum() > 0.8


def test_crop_keeps_pixels_of_the_whole_image(nano: Predictor) -> None:
    image = disc(400, 500, x=330, y=250, r=30)
    truth = image[..., 0] > 100
    box = Prompts.from_box((300, 220, 360, 280))
    embedding = nano.embed(image, crop_xyxy=(260, 180, 400, 320))
    prediction = nano.predict(embedding, box)
    assert embedding.original_size == (400, 500)
    assert prediction.masks.shape == (1, 400, 500)
    assert (truth & prediction.best_mask).sum() / (truth | prediction.best_mask).sum() > 0.8
    outside = np.ones((400, 500), bool)
    outside[180:320, 260:400] = False
    assert not prediction.masks[:, outside].any()


def test_crop_equals_embedding_the_part_alone(micro: Predictor) -> None:
    image = random_image(200, 260)
    x_min, y_min, x_max, y_max = crop = (30, 20, 190, 180)
    whole = micro.predict(micro.embed(image, crop_xyxy=crop), BOX, True)
    shifted = Prompts.from_box(np.array((40, 50, 120, 140)) - (x_min, y_min, x_min, y_min))
    part = micro.predict(micro.embed(image[y_min:y_max, x_min:x_max]), shifted, True)
    npt.assert_array_equal(whole.masks[:, y_min:y_max, x_min:x_max], part.masks)
    npt.assert_array_equal(whole.low_res_logits, part.low_res_logits)


@pytest.mark.parametrize(
    "crop", [(0, 0, 0, 10), (10, 10, 5, 20), (-1, 0, 10, 10), (0, 0, 261, 10), (1, 2, 3), (0, 0, np.nan, 9)]
)
def test_bad_crops_are_refused(micro: Predictor, crop: tuple[float, ...]) -> None:
    with pytest.raises(ImageError, match="clip it to the image"):
        micro.embed(random_image(200, 260), crop_xyxy=crop)


@pytest.mark.parametrize("spacing", [(0, 1), (-1, 1), (np.nan, 1), (1,), (1, 1, 1), (np.inf, 1)])
def test_bad_spacing_is_refused(micro: Predictor, spacing: tuple[float, ...]) -> None:
    with pytest.raises(ImageError, match="pixel spacing"):
        micro.embed(random_image(20, 26), spacing)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 3), np.float32),
        np.zeros((5, 5, 3), np.int64),
        np.full((5, 5, 3), 256).tolist(),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
    ],
    ids=["grey", "float", "integer", "list above 255", "RGBA", "empty"],
)
def test_other_images_are_refused(micro: Predictor, image: np.ndarray) -> None:
    with pytest.raises(ImageError, match="to_rgb"):
        micro.embed(image)


@pytest.mark.parametrize("name", ["micro", "nano"])
def test_batch_equals_one_by_one(name: str, request: pytest.FixtureRequest) -> None:
    predictor: Predictor = request.getfixturevalue(name)
    embedding = predictor.embed(random_image(200, 260))
    first = predictor.predict(embedding, BOX)
    prompts = [
        POINT,
        BOX,
        Prompts.from_box((10, 10, 60, 70)),
        Prompts([[90, 80], [30, 30]], [1, 0], (40, 50, 120, 140)),
        BOX.replace(mask_input=first.best_low_res_logits),
        Prompts.from_box((100, 90, 250, 190)),
        Prompts.from_points([[20, 150]]),
        Prompts.from_box((1, 2, 30, 40)),
        Prompts.from_box((3, 2, 30, 40)),
        Prompts.from_box((5, 2, 90, 40)).replace(mask_input=first.best_low_res_logits * 0.5),
    ]
    together = predictor.predict_batch(embedding, prompts)
    assert len(together) == len(prompts)
    for answer, prompt in zip(together, prompts, strict=True):
        alone = predictor.predict(embedding, prompt)
        npt.assert_allclose(answer.low_res_logits, alone.low_res_logits, rtol=1e-3, atol=1e-3)
        npt.assert_allclose(answer.iou_predictions, alone.iou_predictions, rtol=1e-3, atol=1e-4)
        npt.assert_allclose(answer.tokens, alone.tokens, rtol=1e-2, atol=1e-3)
        assert (answer.masks != alone.masks).mean() < 1e-3
    assert (together[1].masks != together[2].masks).any()
    assert predictor.predict_batch(embedding, []) == []


def test_prompts_of_one_structure_are_decoded_together(
    micro: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    decode = micro.network.decode

    def counting(features, prompts, multimask):  # type: ignore[no-untyped-def]
        sizes.append(len(prompts.boxes_xyxy if prompts.boxes_xyxy is not None else prompts.points_xy))
        return decode(features, prompts, multimask)

    monkeypatch.setattr(micro.network, "decode", counting)
    embedding = micro.embed(random_image(64, 64))
    micro.predict_batch(
        embedding, [Prompts.from_box((1, 1, 9, 9 + i)) for i in range(3)] + [Prompts([[5, 5]])]
    )
    assert sorted(sizes) == [1, 3]


@pytest.mark.parametrize("name", ["micro", "nano"])
def test_the_single_mask_stands_beside_three(name: str, request: pytest.FixtureRequest) -> None:
    model: Predictor = request.getfixturevalue(name)
    embedding = model.embed(disc(), crop_xyxy=(20, 10, 240, 190))
    asked = [POINT, BOX, Prompts.from_points([[150, 90]]), Prompts.from_points([[30, 20]])]
    with_single = model.predict_batch(embedding, asked, single_beside=True)
    for prompts, one, plain in zip(asked, with_single, model.predict_batch(embedding, asked), strict=True):
        npt.assert_array_equal(one.masks, plain.masks)
        npt.assert_array_equal(one.low_res_logits, plain.low_res_logits)
        assert plain.single_mask is None
        if prompts == BOX:
            assert one.single_mask is None
        else:
            assert one.single_mask is not None
            npt.assert_array_equal(one.single_mask, model.predict(embedding, prompts, False).masks[0])
    several = model.predict_batch(embedding, [BOX], True, single_beside=True)[0]
    assert several.single_mask is not None
    npt.assert_array_equal(several.single_mask, model.predict(embedding, BOX).masks[0])


@pytest.mark.parametrize("name", ["micro", "nano"])
def test_the_best_only_is_the_best_of_three(name: str, request: pytest.FixtureRequest) -> None:
    predictor: Predictor = request.getfixturevalue(name)
    embedding = predictor.embed(random_image(128, 128))
    three = predictor.predict(embedding, POINT)
    only = predictor.predict(embedding, POINT, best_only=True)
    assert (len(three.masks), len(only.masks)) == (3, 1)
    npt.assert_array_equal(only.masks[0], three.best_mask)
    npt.assert_array_equal(only.low_res_logits[0], three.best_low_res_logits)
    for values in ("iou_predictions", "stability_scores", "tokens"):
        npt.assert_array_equal(getattr(only, values)[0], getattr(three, values)[three.best_index])


def test_what_is_kept_of_the_last_image_is_seen_in_no_answer() -> None:
    first, second = (predictor_over(build_micro_sam()) for _ in range(2))
    one, other = first.embed(random_image(128, 128)), first.embed(random_image(128, 128, seed=5))
    fresh = second.predict(one, POINT).low_res_logits
    for embedding in (one, one, other, one):
        answer = first.predict(embedding, POINT).low_res_logits
    npt.assert_array_equal(answer, fresh)
    layer: Any = first.network
    with torch.no_grad():  # as an optimiser does
        layer.mask_decoder.transformer.layers[0].cross_attn_token_to_image.k_proj.weight.mul_(-2.0)
        changed = first.predict(one, POINT).low_res_logits
    assert np.abs(changed - fresh).max() > 0.01
    first.predict(other, POINT)
    npt.assert_array_equal(first.predict(one, POINT).low_res_logits, changed)


def test_embed_batch_equals_one_by_one(micro: Predictor) -> None:
    images = [random_image(60, 80, seed) for seed in range(3)]
    for embedding, image in zip(micro.embed_batch(images, (2.0, 1.0)), images, strict=True):
        alone = micro.embed(image, (2.0, 1.0))
        npt.assert_array_equal(embedding.features.image, alone.features.image)
        assert embedding.input_size == alone.input_size
    assert micro.embed_batch([]) == []


def test_medsam_takes_boxes_only_and_one_mask() -> None:
    record = replace(MODELS["medsam"], input_size=128)
    medsam = predictor_over(build_micro_sam(), record)
    embedding = medsam.embed(disc(), (3.0, 1.0))
    assert medsam.accepts == {"box"}
    assert embedding.input_size == (128, 128)
    with pytest.raises(PromptError, match="MedSAM takes boxes only"):
        medsam.predict(embedding, POINT)
    with pytest.raises(PromptError, match="MedSAM takes boxes only"):
        medsam.predict(embedding, BOX.replace(mask_input=np.zeros((32, 32))))
    assert medsam.predict(embedding, BOX, True).masks.shape == (1, 200, 260)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("preprocessing", ["sam", "medsam", "nano"])
def test_constant_images_give_finite_logits(nano: Predictor, preprocessing: str, value: int) -> None:
    """Statement 33."""
    image = np.full((50, 70, 3), value, np.uint8)
    if preprocessing == "nano":
        predictor = nano
    else:
        predictor = predictor_over(build_micro_sam(), with_preprocessing(MICRO_RECORD, preprocessing))
    prediction = predictor.predict(predictor.embed(image), Prompts.from_box((10, 10, 30, 40)))
    assert np.isfinite(prediction.low_res_logits).all()
    assert np.isfinite(prediction.iou_predictions).all()
    assert np.isfinite(prediction.stability_scores).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3)], ids=str)
def test_tiny_images_work(micro: Predictor, nano: Predictor, shape: tuple[int, int]) -> None:
    for predictor in (micro, nano):
        prediction = predictor.predict(predictor.embed(random_image(*shape)), Prompts([[0, 0]]))
        assert prediction.masks.shape[1:] == shape


def test_prompts_outside_the_image_are_refused(micro: Predictor) -> None:
    embedding = micro.embed(random_image(100, 60))
    with pytest.raises(PromptError, match=r"60 x 100 pixels.*x = column"):
        micro.predict(embedding, Prompts([[80, 50]]))
    with pytest.raises(PromptError, match="outside the image"):
        micro.predict(embedding, Prompts.from_box((70, 10, 90, 20)))
    assert micro.predict(embedding, Prompts.from_box((-5, -5, 70, 110))).masks.shape == (1, 100, 60)


def test_mask_prompts_of_another_grid_are_refused(micro: Predictor) -> None:
    with pytest.raises(PromptError, match=r"\(256, 256\).*\(32, 32\)"):
        micro.predict(micro.embed(random_image(60, 60)), Prompts(mask_input=np.zeros((256, 256))))


def test_embeddings_of_another_model_are_refused(micro: Predictor, nano: Predictor) -> None:
    with pytest.raises(ModelError, match="another model"):
        nano.predict(micro.embed(random_image(60, 60)), Prompts([[5, 5]]))


def test_embeddings_of_other_preprocessing_are_refused(micro: Predictor) -> None:
    medsam = predictor_over(build_micro_sam(), with_preprocessing(MICRO_RECORD, "medsam"))
    embedding = micro.embed(random_image(60, 60))
    with pytest.raises(ModelError, match="other preprocessing"):
        medsam.predict(embedding, BOX)
    with pytest.raises(ModelError, match=r"other preprocessing \(unknown\)"):
        micro.predict(replace(embedding, preprocessing=""), BOX)


@pytest.mark.parametrize("name", ["micro", "nano"])
def test_threads_do_not_disturb_each_other(name: str, request: pytest.FixtureRequest) -> None:
    predictor: Predictor = request.getfixturevalue(name)
    images = [random_image(60 + 10 * i, 90 - 7 * i, seed=i) for i in range(6)]
    box = Prompts.from_box((5, 5, 40, 40))

    def answer(image: np.ndarray) -> np.ndarray:
        return predictor.predict(predictor.embed(image), box, True).low_res_logits

    expected = [answer(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found, wanted in zip(pool.map(answer, images), expected, strict=True):
                npt.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(128, 128), (64, 64), (128, 64)], ids=str)
def test_direct_upsampling_is_the_same_for_the_side_of_the_square_and_half_of_it(
    micro: Predictor, size: tuple[int, int]
) -> None:
    embedding = micro.embed(random_image(*size))
    twice = micro.predict(embedding, Prompts([[30, 25]]))
    once = micro.predict(embedding, Prompts([[30, 25]]), direct_upsampling=True)
    npt.assert_array_equal(once.low_res_logits, twice.low_res_logits)
    npt.assert_array_equal(once.masks, twice.masks)


def test_direct_upsampling_is_close_for_other_sizes(micro: Predictor) -> None:
    embedding = micro.embed(random_image(300, 420), (1.0, 1.3))
    twice = micro.predict(embedding, POINT)
    once = micro.predict(embedding, POINT, direct_upsampling=True)
    assert once.masks.shape == twice.masks.shape
    assert (once.masks != twice.masks).mean() < 0.03


@pytest.mark.parametrize("crop", [None, (30, 20, 230, 170)], ids=str)
def test_a_mask_of_logits_is_where_they_are_above_0(
    nano: Predictor, crop: tuple[int, int, int, int] | None
) -> None:
    embedding = nano.embed(disc(), crop_xyxy=crop)
    answer = nano.predict(embedding, Prompts.from_box((110, 50, 190, 130)), direct_upsampling=True)
    logits = answer.best_low_res_logits
    whole = nano.upsample(embedding, logits[None])[0]
    npt.assert_array_equal(nano.mask_of_logits(embedding, logits), whole > 0)
    npt.assert_array_equal(answer.best_mask, whole > 0)
    assert answer.stability_scores[0] == np.float32((whole > 1).sum() / (whole > -1).sum())
    assert 3000 < answer.best_mask.sum() < 8000


def test_bf16_is_close_to_fp32() -> None:
    sam = build_micro_sam()
    image = random_image(200, 200)
    exact, rough = predictor_over(sam), predictor_over(sam, precision="bf16")
    box = Prompts.from_box((40, 50, 120, 140))
    wanted = exact.predict(exact.embed(image), box)
    embedding = rough.embed(image)
    found = rough.predict(embedding, box)
    assert embedding.features.image.dtype == torch.float32
    assert found.low_res_logits.dtype == np.float32
    assert (found.masks != wanted.masks).mean() < 0.1
    assert rough.embedding_key(image) != exact.embedding_key(image)


def test_embedding_key_covers_what_changes_the_embedding(micro: Predictor, nano: Predictor) -> None:
    """Statement 38."""
    image = random_image(40, 50)
    changed = image.copy()
    changed[3, 4, 1] ^= 1
    keys = [
        micro.embedding_key(image),
        micro.embedding_key(changed),
        micro.embedding_key(image.transpose(1, 0, 2)),
        micro.embedding_key(image, (2.0, 1.0)),
        micro.embedding_key(image, crop_xyxy=(0, 0, 20, 20)),
        nano.embedding_key(image),
        predictor_over(build_micro_sam(), with_preprocessing(MICRO_RECORD, "medsam")).embedding_key(image),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 64 and int(key, 16) >= 0 for key in keys)
    assert micro.embedding_key(np.asfortranarray(image), [1, 1]) == keys[0]


def test_out_of_memory_is_told_and_nothing_is_switched(
    micro: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statement 40."""
    embedding = micro.embed(random_image(60, 60))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(micro.network, "encode", full)
    monkeypatch.setattr(micro.network, "decode", full)
    with pytest.raises(DeviceMemoryError, match=r"smaller model such as \"nano\""):
        micro.embed(random_image(60, 60))
    with pytest.raises(DeviceMemoryError, match="prompts and finished slices are kept"):
        micro.predict(embedding, Prompts([[5, 5]]))
    assert micro.device.type == "cpu"
    assert micro.precision == "fp32"
    monkeypatch.undo()
    assert micro.predict(embedding, Prompts([[5, 5]])).masks.any()


def test_a_batch_that_is_too_large_for_the_device_is_halved(
    micro: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statement 40: the same answers, fewer at once."""
    embedding = micro.embed(random_image(60, 60))
    prompts = [Prompts([[5 + i, 5 + 2 * i]]) for i in range(4)]
    expected = micro.predict_batch(embedding, prompts)
    asked: list[int] = []
    whole = micro.network.decode

    def small(features: object, batch: PromptBatch, multimask: bool) -> DecodedMasks:
        assert batch.points_xy is not None
        asked.append(len(batch.points_xy))
        if asked[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(features, batch, multimask)

    monkeypatch.setattr(micro.network, "decode", small)
    found = micro.predict_batch(embedding, prompts)
    assert asked == [4, 2, 1, 1, 1, 1]
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one.low_res_logits, other.low_res_logits, atol=1e-4)


def test_load_predictor_refuses_what_is_not_there(home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="models fetch mobile_sam"):
        load_predictor("mobile_sam")
    with pytest.raises(ModelError, match="There is no model"):
        load_predictor("no_such_model")
    with pytest.raises(ModelError, match="own preprocessing"):
        load_predictor("nano", preprocessing="medsam")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no CUDA GPU"):
        load_predictor("nano", device="cuda")


def test_nano_loads_without_the_libraries_of_sam() -> None:
    loaded = output_of(
        "import sys, numpy as np\n"
        "from napari_sam_med import load_predictor, Prompts\n"
        "p = load_predictor('nano', device='cpu')\n"
        "p.predict(p.embed(np.zeros((20, 20, 3), np.uint8)), Prompts([[5, 5]]))\n"
        "names = {'torchvision', 'timm', 'segment_anything', 'triton', 'torch._dynamo', 'skimage'}\n"
        "print(names & set(sys.modules))\n"
    )
    assert loaded == "set()\n"
