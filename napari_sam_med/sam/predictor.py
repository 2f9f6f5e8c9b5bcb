"""One image in, masks out, without hidden state: embed once, prompt often, from any thread."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from napari_sam_med.errors import DeviceMemoryError, ModelError
from napari_sam_med.sam.architectures.base import Architecture
from napari_sam_med.sam.architectures.build import build_network
from napari_sam_med.sam.checkpoints import read_checkpoint
from napari_sam_med.sam.device import (
    Precision,
    network_runs,
    resolve_device,
    resolve_precision,
    side_by_side,
)
from napari_sam_med.sam.image_embedding import ImageEmbedding, checked_crop
from napari_sam_med.sam.interruption import encoding
from napari_sam_med.sam.mask_prediction import (
    AnswerForm,
    MaskPrediction,
    mask_of_logits,
    masks_in_image,
)
from napari_sam_med.sam.mask_prompts import outline_as_box_and_mask
from napari_sam_med.sam.model_registry import ModelRecord
from napari_sam_med.sam.native_imports import hide_triton_beside_software_opengl
from napari_sam_med.sam.prepared_image import PreparedImage
from napari_sam_med.sam.prompt_batch import PromptStructure, batch_of, check_prompt, group_by_structure
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

_OUTSIDE_CROP = 32.0
"""Logits where a crop says nothing are minus this."""
_FEWEST_PROMPTS_AT_ONCE = 4
"""Fewer are not worth a thread of their own."""
# a GPU wants many
_PROMPTS_AT_ONCE_ON_GPU = 64
_IMAGES_AT_ONCE_ON_GPU = 4


def load_predictor(
    model: str | os.PathLike[str] = "nano",
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    preprocessing: str | None = None,
    compile_encoder: bool = False,
) -> Predictor:
    """Load a model.

    Parameters
    ----------
    model : str or path
        A name (``nano``, ``mobile_sam``, ``sam_vit_b``, ``sam_vit_l``, ``sam_vit_h``, ``medsam``,
        ``medicosam``), a checkpoint file, or a folder written by fine-tuning. Files are never unpickled.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    precision : str
        Of the image encoder: ``auto`` (fp32 on cpu and mps, bf16 on cuda), ``fp32`` or ``bf16``. Prompts are
        answered in fp32.
    preprocessing : str, optional
        ``sam`` or ``medsam``, for a file that the registry does not know; SAM's when left out.
    compile_encoder : bool
        Have `torch.compile` translate the image encoder, and wait until it has. MobileSAM in bf16 on one
        core: 30 seconds of the processor, the C++ compiler's own on top, and then 0.91 s a slice instead of
        1.15 s, so it pays from some hundred slices on. The ViT encoders lose by it on a processor.

    Raises
    ------
    ModelError
        When the model is not there, or not understood.
    DeviceError
        When this machine does not have the device, or the encoder cannot be compiled.
    """
    hide_triton_beside_software_opengl()
    where = resolve_device(device)
    exactness = resolve_precision(precision, where)
    checkpoint = read_checkpoint(model, preprocessing=preprocessing)
    with network_runs(where, checkpoint.record.title):
        predictor = Predictor(
            build_network(checkpoint, for_inference=True),
            checkpoint.record,
            device=where,
            precision=exactness,
            model_hash=checkpoint.sha256,
        )
    if compile_encoder:
        from napari_sam_med.sam.compiling import compile_encoder_of

        compile_encoder_of(predictor)
    return predictor


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
        self.precision: Precision = precision
        self.model_hash = model_hash
        self.is_compiled = False
        self._prepared = PreparedImage()
        module: Any = network.to(self.device).eval()
        self.network: Architecture = module

    def __repr__(self) -> str:
        return f"Predictor({self.record.name!r}, device={str(self.device)!r}, precision={self.precision!r})"

    @property
    def accepts(self) -> frozenset[str]:
        """Kinds of prompt that the model takes: of ``point``, ``box``, ``mask``."""
        return self.record.accepts

    @property
    def preprocessing(self) -> str:
        """Name and version of how images are prepared; embeddings of another one are refused."""
        stretched = " stretched" if self.record.stretch else ""
        return f"{self.record.preprocessing}{stretched} {PREPROCESSING_VERSION}"

    @property
    def prompts_at_once(self) -> int:
        """Prompts that are decoded together."""
        return self.network.prompts_at_once if self.device.type == "cpu" else _PROMPTS_AT_ONCE_ON_GPU

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
            Show the network only this part: x_min, y_min (inside), x_max, y_max (just outside), pixels.
            Prompts and masks stay in pixels of the whole image; masks are False outside the crop.

        Raises
        ------
        ImageError
            When the image, the spacing or the crop is not of this form.
        DeviceMemoryError
            When the device ran out of memory.
        """
        return self._embed([image], pixel_spacing, crop_xyxy)[0]

    def embed_batch(
        self,
        images: Sequence[npt.ArrayLike],
        pixel_spacing: npt.ArrayLike = (1.0, 1.0),
        crop_xyxy: npt.ArrayLike | None = None,
    ) -> list[ImageEmbedding]:
        """Embeddings of images (each (H, W, 3) uint8) of one pixel spacing and crop; faster on a GPU."""
        at_once = 1 if self.device.type == "cpu" else _IMAGES_AT_ONCE_ON_GPU
        embeddings: list[ImageEmbedding] = []
        while len(embeddings) < len(images):
            chunk = images[len(embeddings) : len(embeddings) + at_once]
            try:
                embeddings += self._embed(chunk, pixel_spacing, crop_xyxy)
            except DeviceMemoryError:
                if len(chunk) == 1:
                    raise
                at_once = len(chunk) // 2  # the same embeddings, fewer at once
        return embeddings

    def _embed(
        self,
        images: Sequence[npt.ArrayLike],
        pixel_spacing: npt.ArrayLike,
        crop_xyxy: npt.ArrayLike | None,
    ) -> list[ImageEmbedding]:
        spacing = checked_spacing(pixel_spacing)
        with network_runs(self.device, self.record.title), torch.inference_mode():
            squares, places = [], []
            for image in images:
                pixels = checked_image(image)
                size = (pixels.shape[0], pixels.shape[1])
                crop = None if crop_xyxy is None else checked_crop(crop_xyxy, size)
                if crop is not None:
                    pixels = pixels[crop[1] : crop[3], crop[0] : crop[2]]
                fit = self._fit((pixels.shape[0], pixels.shape[1]), spacing)
                squares.append(normalised_square(pixels, fit, self.record.preprocessing, self.device))
                places.append((size, fit.resized_size, crop))
            # a compiled encoder is one operation, and cannot be watched
            with self.autocast(), nullcontext() if self.is_compiled else encoding():
                features = self.network.encode(torch.stack(squares))
        return [
            ImageEmbedding(
                _one_of(features, i), size, resized_size, crop, self.model_hash, spacing, self.preprocessing
            )
            for i, (size, resized_size, crop) in enumerate(places)
        ]

    def predict(
        self,
        embedding: ImageEmbedding,
        prompts: Prompts,
        multimask: bool | None = None,
        *,
        direct_upsampling: bool = False,
        best_only: bool = False,
    ) -> MaskPrediction:
        """Masks of one object.

        Parameters
        ----------
        embedding : ImageEmbedding
            Of this model.
        prompts : Prompts
            In pixels of the whole image. An outline is asked as its tangent box and, where the model takes
            masks, its area; a box or a mask given as well stands for the outline's own.
        multimask : bool, optional
            Three masks or one; when left out three for a lone point, else one.
        direct_upsampling : bool
            Enlarge the logits in one step instead of Meta's two: faster, and the same up to single pixels.
        best_only : bool
            Of three masks only the one with the highest predicted IoU: the others are not enlarged.

        Raises
        ------
        PromptError
            When the model does not take such prompts, or they lie outside the image.
        ModelError
            When the embedding is another model's, or was made with other preprocessing.
        DeviceMemoryError
            When the device ran out of memory.
        """
        return self.predict_batch(
            embedding, [prompts], multimask, direct_upsampling=direct_upsampling, best_only=best_only
        )[0]

    def predict_batch(
        self,
        embedding: ImageEmbedding,
        prompts: Sequence[Prompts],
        multimask: bool | None = None,
        *,
        direct_upsampling: bool = False,
        best_only: bool = False,
        single_beside: bool = False,
    ) -> list[MaskPrediction]:
        """Masks of several objects of one image, in the order of `prompts`.

        Prompts of one structure are decoded together, which is faster than one by one. Parameters and errors
        are those of `predict`; with `single_beside` answers of three masks have a `single_mask`, too.
        """
        self.check_embedding(embedding)
        prompts = [outline_as_box_and_mask(prompt, embedding, self) for prompt in prompts]
        for prompt in prompts:
            check_prompt(prompt, self.record, embedding.original_size, self.network.mask_input_size)
        groups = group_by_structure(prompts, multimask, self.record)
        parts = [(how, part) for how, indices in groups.items() for part in self._parts(indices)]
        if not parts:
            return []
        features = self._features_for(embedding, any(not structure.has_mask for structure in groups))
        form = AnswerForm(direct_upsampling, best_only)

        at_most = len(prompts)

        def answer(part: tuple[PromptStructure, Sequence[int]]) -> list[MaskPrediction]:
            # not by calling itself: a circle of references would keep the embedding for a while
            nonlocal at_most
            structure, indices = part
            found: list[MaskPrediction] = []
            while len(found) < len(indices):
                some = indices[len(found) : len(found) + at_most]
                try:
                    found += self._decode(
                        features,
                        embedding,
                        [prompts[i] for i in some],
                        structure.multimask,
                        form._replace(single_beside=single_beside and structure.multimask),
                    )
                except DeviceMemoryError:
                    if len(some) == 1:
                        raise
                    at_most = len(some) // 2  # the same answers, fewer at once
            return found

        on_cpu = self.device.type == "cpu"
        answers = side_by_side(answer, parts) if on_cpu else [answer(part) for part in parts]
        predictions: dict[int, MaskPrediction] = {}
        for (_, indices), given in zip(parts, answers, strict=True):
            predictions.update(zip(indices, given, strict=True))
        return [predictions[i] for i in range(len(prompts))]

    def _parts(self, indices: Sequence[int]) -> list[Sequence[int]]:
        """Prompts of one structure in parts that are decoded together; on a processor equal ones for all
        cores.
        """
        count, size = len(indices), _PROMPTS_AT_ONCE_ON_GPU
        if self.device.type == "cpu":
            cores, most = torch.get_num_threads(), self.network.prompts_at_once
            rounds = -(-count // (most * cores))
            size = max(-(-count // (rounds * cores)), min(most, _FEWEST_PROMPTS_AT_ONCE))
        return [indices[start : start + size] for start in range(0, count, size)]

    def _features_for(self, embedding: ImageEmbedding, without_mask: bool) -> Any:
        """Features for the decoder; prepared ones serve prompts without a mask."""
        with network_runs(self.device, self.record.title), torch.inference_mode():
            if not without_mask:
                return self.features_of(embedding)
            return self._prepared.of(embedding, self.network, lambda: self.features_of(embedding))

    def _decode(
        self,
        features: Any,
        embedding: ImageEmbedding,
        prompts: Sequence[Prompts],
        multimask: bool,
        form: AnswerForm,
    ) -> list[MaskPrediction]:
        fit = self.fit_of(embedding)
        with network_runs(self.device, self.record.title), torch.inference_mode():
            batch = batch_of(prompts, embedding, fit, self.device)
            # not in bf16: nano's masks on real slices then had an IoU down to 0.97 with those of fp32
            if form.single_beside:
                decoded, single = self.network.decode_both(features, batch)
            else:
                decoded, single = self.network.decode(features, batch, multimask), None
            return masks_in_image(decoded, embedding, fit, form, single)

    def upsample(
        self, embedding: ImageEmbedding, low_res_logits: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Low-resolution logits (N, h, w) as logits (N, H, W) in pixels of the whole image, in one step.

        Outside a crop they are strongly negative.
        """
        fit = self.fit_of(embedding)
        logits = upsample_logits(torch.from_numpy(low_res_logits)[None], fit, direct=True)[0].numpy()
        if embedding.crop_xyxy is None:
            return logits
        x_min, y_min, x_max, y_max = embedding.crop_xyxy
        whole = np.full((len(logits), *embedding.original_size), -_OUTSIDE_CROP, dtype=np.float32)
        whole[:, y_min:y_max, x_min:x_max] = logits
        return whole

    def mask_of_logits(
        self, embedding: ImageEmbedding, low_res_logits: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.bool_]:
        """Where low-resolution logits (h, w) are above 0: a mask (H, W) in pixels of the whole image.

        As `upsample` says, and cheaper, since only what may be above 0 is enlarged.
        """
        return mask_of_logits(torch.from_numpy(low_res_logits), embedding, self.fit_of(embedding))

    def check_embedding(self, embedding: ImageEmbedding) -> None:
        """Refuse an embedding of another model.

        Raises
        ------
        ModelError
            When it is another model's, or was made with other preprocessing.
        """
        if embedding.model_hash != self.model_hash:
            raise ModelError(
                f"The embedding was made by another model than {self.record.name}; embed the image with it."
            )
        if embedding.preprocessing != self.preprocessing:
            raise ModelError(
                f"The embedding was made with other preprocessing ({embedding.preprocessing or 'unknown'}) "
                f"than this predictor's ({self.preprocessing}); embed the image with it."
            )

    def features_of(self, embedding: ImageEmbedding) -> Any:
        """Features of an embedding as the network takes them, on its device."""
        # moved first, widened there: stored features are in half precision, the network's weights are not
        return type(embedding.features)(*(t.to(self.device).float() for t in embedding.features))

    def fit_of(self, embedding: ImageEmbedding) -> SquareFit:
        """How the image of an embedding, or its crop, lies in the network's square."""
        return self._fit(embedding.crop_size, embedding.pixel_spacing)

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
        crop = None if crop_xyxy is None else checked_crop(crop_xyxy, (pixels.shape[0], pixels.shape[1]))
        facts = (
            pixels.shape,
            checked_spacing(pixel_spacing),
            crop,
            self.model_hash,
            self.precision,
            self.preprocessing,
        )
        digest = hashlib.sha256(repr(facts).encode())
        digest.update(np.ascontiguousarray(pixels).tobytes())
        return digest.hexdigest()

    def _fit(self, image_size: tuple[int, int], spacing: tuple[float, float]) -> SquareFit:
        return SquareFit.of(image_size, spacing, self.network.input_size, stretch=self.record.stretch)

    def autocast(self) -> Any:
        """A context in which the network computes in this predictor's precision."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def _one_of(features: Any, index: int) -> Any:
    """Features of one image of a batch, as tensors of their own: a decoder can be trained on them."""
    return type(features)(*(tensor[index : index + 1].float().clone() for tensor in features))
