"""One image in, one mask out, without hidden state: embed once, prompt often, from any thread."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from napari_sam_med.errors import ImageError, ModelError, PromptError
from napari_sam_med.sam.architectures.base import Architecture, DecodedMasks, PromptBatch
from napari_sam_med.sam.checkpoints import Checkpoint, StateDict, read_checkpoint
from napari_sam_med.sam.device import (
    Precision,
    memory_errors_explained,
    resolve_device,
    resolve_precision,
)
from napari_sam_med.sam.model_registry import ModelRecord
from napari_sam_med.sam.native_imports import hide_triton_beside_software_opengl
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.sam.square import (
    PREPROCESSING_VERSION,
    SquareFit,
    checked_image,
    checked_spacing,
    normalised_square,
    upsample_logits,
)

__all__ = ["ImageEmbedding", "MaskPrediction", "Predictor", "load_predictor"]

MASK_THRESHOLD = 0.0
STABILITY_OFFSET = 1.0
# On two CPU cores 16 prompts at once take longer each than 4 (cache); a GPU wants many.
_PROMPTS_AT_ONCE = {"cpu": 4}
_PROMPTS_AT_ONCE_ON_GPU = 64
_IMAGES_AT_ONCE_ON_GPU = 8


@dataclass(frozen=True, eq=False)
class ImageEmbedding:
    """What a network made of one image; prompts are answered from it.

    Attributes
    ----------
    features : named tuple of tensors (1, C, h, w)
    original_size : tuple of int
        (H, W) of the image; prompts and masks are in its pixels, also with a crop.
    input_size : tuple of int
        (h, w) that the image, or its crop, takes up in the network's square.
    crop_xyxy : tuple of int or None
        The part that was embedded: x_min, y_min (inside), x_max, y_max (just outside).
    model_hash : str
        SHA-256 of the checkpoint.
    pixel_spacing : tuple of float
        (row, column) in mm.
    """

    features: Any
    original_size: tuple[int, int]
    input_size: tuple[int, int]
    crop_xyxy: tuple[int, int, int, int] | None
    model_hash: str
    pixel_spacing: tuple[float, float] = (1.0, 1.0)

    @property
    def nbytes(self) -> int:
        """Bytes that the features take in memory."""
        return sum(int(tensor.nbytes) for tensor in self.features)

    @property
    def crop_size(self) -> tuple[int, int]:
        """(H, W) of the part that was embedded."""
        if self.crop_xyxy is None:
            return self.original_size
        x_min, y_min, x_max, y_max = self.crop_xyxy
        return y_max - y_min, x_max - x_min


@dataclass(frozen=True, eq=False)
class MaskPrediction:
    """Masks of one object, C of them: one, or three of different extent for an ambiguous prompt.

    Attributes
    ----------
    masks : ndarray (C, H, W) bool
    iou_predictions : ndarray (C,) float32
        The network's own estimate of each mask's IoU with the truth.
    low_res_logits : ndarray (C, h, w) float32
        Over the padded square; one of them may be the `mask_input` of the next prompt.
    stability_scores : ndarray (C,) float32
        IoU of the masks at logits above 1 and above -1, in 0..1; 0 where both are empty.
    tokens : ndarray (C, D) float32
        The decoder's descriptor of each mask, for classifiers.
    """

    masks: npt.NDArray[np.bool_]
    iou_predictions: npt.NDArray[np.float32]
    low_res_logits: npt.NDArray[np.float32]
    stability_scores: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.float32] = field(repr=False)

    @property
    def best_index(self) -> int:
        """Index of the mask with the highest predicted IoU."""
        return int(np.argmax(self.iou_predictions))

    @property
    def best_mask(self) -> npt.NDArray[np.bool_]:
        """(H, W) bool, the mask with the highest predicted IoU."""
        best: npt.NDArray[np.bool_] = self.masks[self.best_index]
        return best

    @property
    def best_low_res_logits(self) -> npt.NDArray[np.float32]:
        """(h, w) float32, the logits of `best_mask`."""
        best: npt.NDArray[np.float32] = self.low_res_logits[self.best_index]
        return best


def load_predictor(
    model: str | os.PathLike[str] = "nano",
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    preprocessing: str | None = None,
) -> Predictor:
    """Load a model.

    Parameters
    ----------
    model : str or path
        A name (``nano``, ``mobile_sam``, ``sam_vit_b``, ``sam_vit_l``, ``sam_vit_h``, ``medsam``, ``medicosam``), a
        checkpoint file, or a folder written by fine-tuning. Files are never unpickled.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    precision : str
        ``auto`` (fp32 on cpu and mps, bf16 on cuda), ``fp32`` or ``bf16``.
    preprocessing : str, optional
        ``sam`` or ``medsam``, for a file that the registry does not know; SAM's when left out.

    Raises
    ------
    ModelError
        When the model is not there, or not understood.
    DeviceError
        When this machine does not have the device.
    """
    hide_triton_beside_software_opengl()
    where = resolve_device(device)
    exactness = resolve_precision(precision, where)
    checkpoint = read_checkpoint(model, preprocessing=preprocessing)
    with memory_errors_explained(where, checkpoint.record.title):
        network = _build(checkpoint)
        return Predictor(
            network, checkpoint.record, device=where, precision=exactness, model_hash=checkpoint.sha256
        )


class Predictor:
    """A network with its preprocessing; `embed` and `predict` keep nothing between calls.

    Parameters
    ----------
    network : nn.Module
        That satisfies `Architecture`; it is moved to `device` and set to eval mode.
    record : ModelRecord
    device : torch.device
    precision : str
        ``fp32`` or ``bf16``.
    model_hash : str
        SHA-256 of the weights, hexadecimal.
    """

    def __init__(
        self,
        network: nn.Module,
        record: ModelRecord,
        *,
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
        model_hash: str = "",
    ) -> None:
        self.record = record
        self.device = torch.device(device)
        self.precision = precision
        self.model_hash = model_hash
        self._module = network.to(self.device).eval()
        network_as_architecture: Any = self._module
        self.network: Architecture = network_as_architecture

    def __repr__(self) -> str:
        return f"Predictor({self.record.name!r}, device={str(self.device)!r}, precision={self.precision!r})"

    @property
    def accepts(self) -> frozenset[str]:
        """Kinds of prompt that the model takes: of ``point``, ``box``, ``mask``."""
        return self.record.accepts

    def embed(
        self,
        image: npt.ArrayLike,
        pixel_spacing: npt.ArrayLike = (1.0, 1.0),
        crop_xyxy: npt.ArrayLike | None = None,
    ) -> ImageEmbedding:
        """Run the image encoder, the slow part; the embedding then answers any number of prompts.

        Parameters
        ----------
        image : array-like (H, W, 3) uint8
        pixel_spacing : (row, column)
            Millimetres; the network sees physically square pixels (models registered as `stretch` do not).
        crop_xyxy : array-like (4,), optional
            Show the network only this part: x_min, y_min (inside), x_max, y_max (just outside), pixels. Prompts and
            masks stay in pixels of the whole image; masks are False outside the crop.

        Raises
        ------
        ImageError
            When the image, the spacing or the crop is not of this form.
        DeviceMemoryError
            When the device ran out of memory.
        """
        return self._embed([image], pixel_spacing, crop_xyxy)[0]

    def embed_batch(
        self, images: Sequence[npt.ArrayLike], pixel_spacing: npt.ArrayLike = (1.0, 1.0)
    ) -> list[ImageEmbedding]:
        """Embeddings of several images (each (H, W, 3) uint8) of one pixel spacing; faster on a GPU."""
        at_once = 1 if self.device.type == "cpu" else _IMAGES_AT_ONCE_ON_GPU
        embeddings: list[ImageEmbedding] = []
        for start in range(0, len(images), at_once):
            embeddings += self._embed(images[start : start + at_once], pixel_spacing, None)
        return embeddings

    def _embed(
        self, images: Sequence[npt.ArrayLike], pixel_spacing: npt.ArrayLike, crop_xyxy: npt.ArrayLike | None
    ) -> list[ImageEmbedding]:
        spacing = checked_spacing(pixel_spacing)
        squares, places = [], []
        for image in images:
            pixels = checked_image(image)
            height, width = pixels.shape[:2]
            crop = None if crop_xyxy is None else _checked_crop(crop_xyxy, (height, width))
            if crop is not None:
                pixels = pixels[crop[1] : crop[3], crop[0] : crop[2]]
            fit = self._fit(pixels.shape[:2], spacing)
            squares.append(normalised_square(pixels, fit, self.record.preprocessing, self.device))
            places.append(((height, width), fit.resized_size, crop))
        with (
            memory_errors_explained(self.device, self.record.title),
            torch.inference_mode(),
            self._autocast(),
        ):
            features = self.network.encode(torch.stack(squares))
        feature_type = type(features)
        return [
            ImageEmbedding(
                feature_type(*(tensor[i : i + 1].float() for tensor in features)),
                original_size,
                input_size,
                crop,
                self.model_hash,
                spacing,
            )
            for i, (original_size, input_size, crop) in enumerate(places)
        ]

    def predict(
        self,
        embedding: ImageEmbedding,
        prompts: Prompts,
        multimask: bool | None = None,
        *,
        direct_upsampling: bool = False,
    ) -> MaskPrediction:
        """Masks of one object.

        Parameters
        ----------
        embedding : ImageEmbedding
            Of this model.
        prompts : Prompts
            In pixels of the whole image.
        multimask : bool, optional
            Three masks or one; when left out three for a lone point, else one.
        direct_upsampling : bool
            Enlarge the logits in one step instead of Meta's two: faster, and the same up to single pixels.

        Raises
        ------
        PromptError
            When the model does not take such prompts, or they lie outside the image.
        ModelError
            When the embedding is another model's.
        DeviceMemoryError
            When the device ran out of memory.
        """
        return self.predict_batch(embedding, [prompts], multimask, direct_upsampling=direct_upsampling)[0]

    def predict_batch(
        self,
        embedding: ImageEmbedding,
        prompts: Sequence[Prompts],
        multimask: bool | None = None,
        *,
        direct_upsampling: bool = False,
    ) -> list[MaskPrediction]:
        """Masks of several objects of one image, in the order of `prompts`; prompts of one structure are run together.

        Parameters and errors are those of `predict`.
        """
        if embedding.model_hash != self.model_hash:
            raise ModelError(
                f"The embedding was made by another model than {self.record.name}; embed the image with this one."
            )
        fit = self._fit(embedding.crop_size, embedding.pixel_spacing)
        features = type(embedding.features)(*(tensor.to(self.device) for tensor in embedding.features))
        predictions: list[MaskPrediction | None] = [None] * len(prompts)
        for multi, indices in self._groups(embedding, prompts, multimask).items():
            at_once = _PROMPTS_AT_ONCE.get(self.device.type, _PROMPTS_AT_ONCE_ON_GPU)
            for start in range(0, len(indices), at_once):
                chunk = indices[start : start + at_once]
                batch = self._prompt_batch([prompts[i] for i in chunk], embedding, fit)
                with memory_errors_explained(self.device, self.record.title), torch.inference_mode():
                    with self._autocast():
                        decoded = self.network.decode(features, batch, multi[-1])
                    answers = _predictions(decoded, embedding, fit, direct_upsampling)
                for i, answer in zip(chunk, answers, strict=True):
                    predictions[i] = answer
        return [prediction for prediction in predictions if prediction is not None]

    def embedding_key(
        self,
        image: npt.ArrayLike,
        pixel_spacing: npt.ArrayLike = (1.0, 1.0),
        crop_xyxy: npt.ArrayLike | None = None,
    ) -> str:
        """Key of the embedding that `embed` would make of the same arguments: SHA-256, hexadecimal.

        Covers the pixels, spacing, crop, weights, precision and the version of the preprocessing.
        """
        pixels = checked_image(image)
        crop = None if crop_xyxy is None else _checked_crop(crop_xyxy, (pixels.shape[0], pixels.shape[1]))
        facts = (
            pixels.shape,
            checked_spacing(pixel_spacing),
            crop,
            self.model_hash,
            self.precision,
            self.record.preprocessing,
            self.record.stretch,
            PREPROCESSING_VERSION,
        )
        digest = hashlib.sha256(repr(facts).encode())
        digest.update(np.ascontiguousarray(pixels))
        return digest.hexdigest()

    def _fit(self, image_size: tuple[int, ...], spacing: tuple[float, float]) -> SquareFit:
        size = (image_size[0], image_size[1])
        return SquareFit.of(size, spacing, self.network.input_size, stretch=self.record.stretch)

    def _autocast(self) -> Any:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _groups(
        self, embedding: ImageEmbedding, prompts: Sequence[Prompts], multimask: bool | None
    ) -> dict[tuple[int, bool, bool, bool], list[int]]:
        """Indices of prompts by structure: number of points, box or not, mask or not, several masks or one."""
        groups: dict[tuple[int, bool, bool, bool], list[int]] = {}
        for i, prompt in enumerate(prompts):
            self._check(prompt, embedding.original_size)
            multi = prompt.is_lone_point if multimask is None else bool(multimask)
            structure = (len(prompt.points_xy), "box" in prompt.kinds, "mask" in prompt.kinds)
            groups.setdefault((*structure, multi and self.record.multimask), []).append(i)
        return groups

    def _check(self, prompt: Prompts, image_size: tuple[int, int]) -> None:
        refused = prompt.kinds - self.accepts
        if refused:
            taken = " and ".join("boxes" if kind == "box" else f"{kind}s" for kind in sorted(self.accepts))
            raise PromptError(
                f"{self.record.title} takes {taken} only, not {' or '.join(sorted(refused))} prompts; draw a box "
                "around the object, or choose another model."
            )
        _check_inside(prompt, image_size)
        side = self.network.mask_input_size
        if prompt.mask_input is not None and prompt.mask_input.shape != (side, side):
            raise PromptError(
                f"mask_input has shape {prompt.mask_input.shape}, but {self.record.title} takes ({side}, {side}) "
                "logits; pass `best_low_res_logits` of its own earlier prediction."
            )

    def _prompt_batch(
        self, prompts: Sequence[Prompts], embedding: ImageEmbedding, fit: SquareFit
    ) -> PromptBatch:
        """Prompts of one structure, scaled into the square, on the device."""
        origin = np.array((0, 0) if embedding.crop_xyxy is None else embedding.crop_xyxy[:2])
        first = prompts[0]
        points = labels = boxes = masks = None
        if len(first.points_xy):
            points = self._tensor(fit.to_square(np.stack([p.points_xy for p in prompts]) - origin))
            labels = self._tensor(np.stack([p.point_labels for p in prompts]))
        if first.box_xyxy is not None:
            corners = np.stack([p.box_xyxy for p in prompts if p.box_xyxy is not None]).reshape(-1, 2, 2)
            boxes = self._tensor(fit.to_square(corners - origin).reshape(-1, 4))
        if first.mask_input is not None:
            masks = self._tensor(
                np.stack([p.mask_input for p in prompts if p.mask_input is not None])[:, None]
            )
        return PromptBatch(points, labels, boxes, masks)

    def _tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _predictions(
    decoded: DecodedMasks, embedding: ImageEmbedding, fit: SquareFit, direct: bool
) -> list[MaskPrediction]:
    """What the decoder said, as masks in pixels of the whole image, one prediction a prompt."""
    low_res = decoded.low_res_logits.float()
    answers = []
    for i in range(len(low_res)):
        logits = upsample_logits(low_res[i : i + 1], fit, direct=direct)[0]
        masks = (logits > MASK_THRESHOLD).cpu().numpy()
        answers.append(
            MaskPrediction(
                _in_whole_image(masks, embedding),
                decoded.iou_predictions[i].float().cpu().numpy(),
                low_res[i].cpu().numpy(),
                _stability_scores(logits).cpu().numpy(),
                decoded.tokens[i].float().cpu().numpy(),
            )
        )
    return answers


def _stability_scores(logits: torch.Tensor) -> torch.Tensor:
    """SAM's stability score of logits (C, H, W)."""
    inner = (logits > MASK_THRESHOLD + STABILITY_OFFSET).flatten(1).sum(1)
    outer = (logits > MASK_THRESHOLD - STABILITY_OFFSET).flatten(1).sum(1)
    return inner / outer.clamp(min=1)


def _in_whole_image(masks: npt.NDArray[np.bool_], embedding: ImageEmbedding) -> npt.NDArray[np.bool_]:
    if embedding.crop_xyxy is None:
        return masks
    x_min, y_min, x_max, y_max = embedding.crop_xyxy
    whole = np.zeros((len(masks), *embedding.original_size), dtype=bool)
    whole[:, y_min:y_max, x_min:x_max] = masks
    return whole


def _checked_crop(crop_xyxy: npt.ArrayLike, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    crop = np.asarray(crop_xyxy)
    height, width = image_size
    if crop.shape == (4,) and np.isfinite(crop).all():
        x_min, y_min, x_max, y_max = (int(value) for value in crop)
        if 0 <= x_min < x_max <= width and 0 <= y_min < y_max <= height:
            return x_min, y_min, x_max, y_max
    raise ImageError(
        f"A crop is x_min, y_min, x_max, y_max with 0 <= min < max <= ({width}, {height}), got {crop.tolist()}; "
        "clip it to the image."
    )


def _check_inside(prompt: Prompts, image_size: tuple[int, int]) -> None:
    height, width = image_size
    limits = np.array((width, height))
    outside = ((prompt.points_xy < -1) | (prompt.points_xy > limits)).any(axis=1)
    if outside.any():
        raise PromptError(
            f"The point {prompt.points_xy[outside][0].tolist()} lies outside the image of {width} x {height} pixels; "
            "points are x = column, y = row."
        )
    box = prompt.box_xyxy
    if box is not None and ((box[:2] > limits).any() or (box[2:] < -1).any()):
        raise PromptError(
            f"The box {box.tolist()} lies outside the image of {width} x {height} pixels; boxes are x_min, y_min, "
            "x_max, y_max with x = column, y = row."
        )


def _build(checkpoint: Checkpoint) -> nn.Module:
    """The network of a checkpoint with its weights, in eval mode."""
    architecture = checkpoint.record.architecture
    if architecture == "nano":
        from napari_sam_med.sam.architectures.nano import Nano

        return _with_weights(Nano(), checkpoint.state_dict, checkpoint)
    if architecture == "tiny_vit":
        from napari_sam_med.sam.architectures.tiny_vit import build_mobile_sam, from_mobile_sam_keys

        network: Any = build_mobile_sam()
        _with_weights(network, from_mobile_sam_keys(checkpoint.state_dict), checkpoint)
        network.image_encoder.fuse()
        return network  # type: ignore[no-any-return]
    from napari_sam_med.sam.architectures.meta import build_sam_vit

    return _with_weights(build_sam_vit(architecture), checkpoint.state_dict, checkpoint)


def _with_weights(network: nn.Module, state_dict: StateDict, checkpoint: Checkpoint) -> nn.Module:
    try:
        network.load_state_dict(state_dict, strict=True)
    except RuntimeError as error:
        raise ModelError(
            f"{checkpoint.path.name} does not fit {checkpoint.record.architecture}: "
            f"{' '.join(str(error).split())[:300]}; use an unchanged checkpoint of that architecture."
        ) from error
    return network.eval()
