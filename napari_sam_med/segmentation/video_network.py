"""A SAM 2 video model over the slices of a volume: one slice and one object at a time, in bounded memory.

transformers keeps a whole video, the features of its frames and every mask it made. Here its session is given
frames that are made when they are asked for, features within a number of bytes, and outputs of the few frames
that the model looks back to; what it computes is unchanged.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from napari_sam_med.sam.device import Precision, network_runs
from napari_sam_med.sam.prompt_batch import check_prompt
from napari_sam_med.sam.square import SquareFit, normalised_square, upsample_logits
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.slice_view import Plane, SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.model_registry import ModelRecord
    from napari_sam_med.sam.prompts import Prompts
    from napari_sam_med.volume.volume import Volume

__all__ = ["FeatureCache", "Film", "KeyMemories", "Track", "VideoAnswer", "VideoNetwork"]

KeyMemories = dict[int, Any]
"""What the model remembers of one object's key slices, by index; shared by all directions."""

_OBJECT = 1
_BOX_CORNERS = (2, 3)
"""SAM's labels of a box given as two points."""


@dataclass(frozen=True, eq=False)
class VideoAnswer:
    """What the model says of one object on one slice.

    Attributes
    ----------
    mask : ndarray (H, W) of bool
        In the slice's own pixels.
    logits : ndarray (h, w) of float32
        On the model's grid, a quarter of its square.
    object_score : float
        Logit of the object being on the slice at all.
    iou_prediction : float
        The model's estimate of how well the mask fits, 0 to 1.
    """

    mask: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float32]
    object_score: float
    iou_prediction: float


class FeatureCache:
    """Image features of the frames used last, within a number of bytes, on the cpu; the newest one at hand.

    It takes the place of transformers' cache, which counts frames, drops the lowest number first and keeps
    the position encodings of every frame, which are larger than the features and all the same.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._kept: OrderedDict[int, list[torch.Tensor]] = OrderedDict()
        self._newest: tuple[int, list[torch.Tensor]] | None = None
        self._positions: list[torch.Tensor] = []

    def __len__(self) -> int:
        return len(self._kept)

    def cache_vision_features(self, frame_idx: int, features: dict[str, Any]) -> None:
        """Keep a frame's features; called by the model."""
        maps = list(features["vision_feats"])
        self._positions = list(features["vision_pos_embeds"][-1:])  # the model uses the last one only
        self._newest = (frame_idx, maps)
        self._kept[frame_idx] = [one.cpu() for one in maps]
        self.n_bytes += _n_bytes(self._kept[frame_idx])
        while self.n_bytes > self.max_bytes and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self.n_bytes -= _n_bytes(dropped)

    def get_vision_features(self, frame_idx: int) -> dict[str, Any] | None:
        """Features of a frame on the model's device, None when they must be made; called by the model."""
        if self._newest is None or self._newest[0] != frame_idx:
            kept = self._kept.get(frame_idx)
            if kept is None:
                return None
            self._newest = (frame_idx, [one.to(self._positions[0].device) for one in kept])
        if frame_idx in self._kept:
            self._kept.move_to_end(frame_idx)
        return {"vision_feats": self._newest[1], "vision_pos_embeds": self._positions}

    def clear_all(self) -> None:
        """Forget every frame."""
        self._kept.clear()
        self._newest, self.n_bytes = None, 0


class Film:
    """The slices of one plane as frames of a video. A frame is made when it is asked for, and not kept."""

    def __init__(
        self, volume: Volume, plane: Plane, window: tuple[float, float], side: int, feature_bytes: int
    ) -> None:
        view = SliceView(plane, 0)
        self.plane: Plane = plane
        self.features = FeatureCache(feature_bytes)
        self.fit = SquareFit.of(
            view.slice_shape(volume.shape), volume.pixel_spacing(view), side, stretch=True
        )
        self._volume = volume
        self._window = window
        self._n_slices = volume.shape[view.axis]

    def __len__(self) -> int:
        return self._n_slices

    def __getitem__(self, index: int) -> torch.Tensor:
        """Slice as (3, side, side) float32, stretched, normalised as SAM 2 was trained."""
        image = to_rgb(self._volume, SliceView(self.plane, index), self._window)
        return normalised_square(image, self.fit, "sam", torch.device("cpu"))


class Track:
    """What the model remembers of one object on its way in one direction."""

    def __init__(self, session: Any, reach: int, *, reverse: bool) -> None:
        self.session = session
        self.reverse = reverse
        self._reach = reach

    def forget(self, index: int) -> None:
        """Drop what the model no longer looks at after a slice: far slices, and masks of the near ones."""
        passed = self.session.output_dict_per_obj[0]["non_cond_frame_outputs"]
        for far in [frame for frame in passed if abs(frame - index) >= self._reach]:
            del passed[far]
        _drop_masks(passed[index])


class VideoNetwork:
    """A SAM 2 video model on a device.

    Parameters
    ----------
    model : transformers.Sam2VideoModel
    record : ModelRecord
        Its input size and name.
    device : torch.device
    precision : {"fp32", "bf16"}
    """

    def __init__(self, model: Any, record: ModelRecord, device: torch.device, precision: Precision) -> None:
        self.record = record
        self.device = device
        self.precision = precision
        self._model = model.to(device).eval()
        self._lock = threading.Lock()

    def answer_prompts(self, film: Film, index: int, prompts: Prompts) -> tuple[VideoAnswer, Any]:
        """Answer a prompted slice, an outline by its box; also what the model remembers of it.

        Raises
        ------
        PromptError
            When there is neither point nor box, or one lies outside the slice.
        """
        prompts = prompts.replace(box_xyxy=prompts.extent_within(film.fit.image_size), outline_xy=None)
        if prompts.mask_input is not None and len(prompts.kinds) > 1:
            prompts = prompts.replace(mask_input=None)  # of another model, and points and box say it too
        check_prompt(prompts, self.record, film.fit.image_size, film.fit.side // 4)
        coords, labels = [prompts.points_xy], [prompts.point_labels]
        if prompts.box_xyxy is not None:
            coords.insert(0, prompts.box_xyxy.reshape(2, 2))
            labels.insert(0, np.array(_BOX_CORNERS))
        points = torch.from_numpy(film.fit.to_square(np.concatenate(coords)))[None, None]
        session = self._session(film)
        session.add_point_inputs(
            0,
            index,
            {
                "point_coords": points,
                "point_labels": torch.from_numpy(np.concatenate(labels)).to(torch.int32)[None, None],
            },
        )
        return self._answer_key(film, session, index)

    def remember_mask(self, film: Film, index: int, mask: npt.NDArray[np.bool_]) -> Any:
        """What the model remembers of a slice whose mask (H, W) is given."""
        side = (film.fit.side, film.fit.side)
        drawn = torch.from_numpy(mask.astype(np.float32))[None, None]
        if drawn.shape[-2:] != side:
            drawn = F.interpolate(drawn, side, mode="bilinear", align_corners=False, antialias=True)
        session = self._session(film)
        session.add_mask_inputs(0, index, (drawn >= 0.5).float())
        return self._answer_key(film, session, index)[1]

    def track(self, film: Film, memories: KeyMemories, *, reverse: bool) -> Track:
        """Set out in one direction with what is remembered of the key slices."""
        session = self._session(film)
        session.output_dict_per_obj[0]["cond_frame_outputs"] = memories
        config = self._model.config
        reach = max(config.num_maskmem, config.max_object_pointers_in_encoder)
        return Track(session, reach, reverse=reverse)

    def answer_next(self, film: Film, track: Track, index: int) -> VideoAnswer:
        """Find the object on the next slice of its way."""
        answer = self._run(film, track.session, index, reverse=track.reverse)
        track.forget(index)
        return answer

    def _session(self, film: Film) -> Any:
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        height, width = film.fit.image_size
        session = Sam2VideoInferenceSession(
            video_height=height,
            video_width=width,
            inference_device=self.device,
            inference_state_device=self.device,
            dtype=torch.float32,
        )
        session.processed_frames = film
        session.cache = film.features
        session.obj_id_to_idx(_OBJECT)
        return session

    def _answer_key(self, film: Film, session: Any, index: int) -> tuple[VideoAnswer, Any]:
        session.obj_with_new_inputs = [_OBJECT]
        answer = self._run(film, session, index, reverse=False)
        memory = session.output_dict_per_obj[0]["cond_frame_outputs"][index]
        _drop_masks(memory)
        return answer, memory

    def _run(self, film: Film, session: Any, index: int, *, reverse: bool) -> VideoAnswer:
        """One slice; the predicted IoU is caught on its way, as the model's output leaves it out."""
        autocast = (
            nullcontext()
            if self.precision == "fp32"
            else torch.autocast(self.device.type, dtype=torch.bfloat16)
        )
        ious: list[torch.Tensor] = []
        with self._lock, network_runs(self.device, self.record.name), autocast:
            handle = self._model.mask_decoder.register_forward_hook(
                lambda _module, _inputs, output: ious.append(output[1])
            )
            try:
                output = self._model(session, frame_idx=index, reverse=reverse)
            finally:
                handle.remove()
        low_res = output.pred_masks.float().reshape(1, *output.pred_masks.shape[-2:])
        mask = upsample_logits(low_res, film.fit, direct=True)[0] > 0
        return VideoAnswer(
            mask=mask.cpu().numpy(),
            logits=low_res[0].cpu().numpy(),
            object_score=float(output.object_score_logits),
            iou_prediction=float(ious[-1].max()),  # of several masks the model takes the best one
        )


def _drop_masks(memory: dict[str, Any]) -> None:
    """Drop what the memory encoder was fed with; 4 MB a slice at 1024 pixels."""
    memory.pop("high_res_masks", None)
    memory.pop("pred_masks", None)


def _n_bytes(tensors: list[torch.Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)
