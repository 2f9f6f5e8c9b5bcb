"""What the annotator made: objects with their own prompts, and a packed mask for every slice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from napari_sam_med.wording import number_of

if TYPE_CHECKING:
    from napari_sam_med.sam.prompts import Prompts
    from napari_sam_med.volume.organs import OrganTable
    from napari_sam_med.volume.slice_view import SliceView

__all__ = ["AnnotatedObject", "Annotations", "Origin", "SliceMask", "Stop"]

_K = TypeVar("_K")
_V = TypeVar("_V")

Origin = Literal["prompt", "propagated", "interpolated", "edited"]
"""Where a mask comes from; ``edited`` is a slice that the user painted on, or took for right as it stands."""


@dataclass(frozen=True, eq=False)
class SliceMask:
    """One object's mask on one slice, eight pixels a byte.

    Attributes
    ----------
    packed : bytes
        `numpy.packbits` of the mask in C order.
    shape : (int, int)
        Height and width of the slice.
    source : {"prompt", "propagated", "interpolated", "edited"}
    quality : float or None
        0 (worthless) to 1 (sure); None where the user drew it.
    model : str or None
        Name of the model that gave it; None where none did.
    """

    packed: bytes
    shape: tuple[int, int]
    source: Origin
    quality: float | None = None
    model: str | None = None

    @classmethod
    def from_mask(
        cls,
        mask: npt.NDArray[np.bool_],
        source: Origin,
        quality: float | None = None,
        model: str | None = None,
    ) -> SliceMask:
        """Pack a mask (H, W) of bool."""
        height, width = mask.shape
        return cls(np.packbits(mask).tobytes(), (height, width), source, quality, model)

    def unpack(self) -> npt.NDArray[np.bool_]:
        """The mask (H, W) of bool; a new array."""
        n_pixels = self.shape[0] * self.shape[1]
        bits = np.unpackbits(np.frombuffer(self.packed, dtype=np.uint8), count=n_pixels)
        return bits.astype(bool).reshape(self.shape)

    @property
    def area_px(self) -> int:
        """Pixels of the mask."""
        return int(np.bitwise_count(np.frombuffer(self.packed, dtype=np.uint8)).sum())

    @property
    def is_key(self) -> bool:
        """Whether the user prompted or painted it: propagation starts from such slices and leaves them."""
        return self.source in ("prompt", "edited")


@dataclass(frozen=True)
class Stop:
    """Where a propagation ended, and why in words."""

    view: SliceView
    reason: str

    @property
    def text(self) -> str:
        """For people."""
        return f"stopped at slice {self.view.index}: {self.reason}"


@dataclass(frozen=True, eq=False)
class AnnotatedObject:
    """One annotated thing: two lesions of one class are two objects with prompts of their own.

    Attributes
    ----------
    object_id, class_id : int
    name : str
    key_slices : mapping
        ``{view: prompts}`` that the user gave, accepted or not.
    masks : mapping
        ``{view: SliceMask}``, what of this object stands in the labels.
    stops : mapping
        ``{"forward" | "backward": where the last propagation ended, and why}``.
    answered : mapping
        The prompts for which the mask of a slice was accepted; others are still open.
    confirmed_ends : frozenset of SliceView
        Slices where propagation ended, and the user said that the object does end there.
    """

    object_id: int
    class_id: int
    name: str
    key_slices: Mapping[SliceView, Prompts] = field(default_factory=dict)
    masks: Mapping[SliceView, SliceMask] = field(default_factory=dict)
    stops: Mapping[str, Stop] = field(default_factory=dict)
    answered: Mapping[SliceView, Prompts] = field(default_factory=dict)
    confirmed_ends: frozenset[SliceView] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a prompt nor a mask."""
        return not self.key_slices and not self.masks

    def with_prompts(self, view: SliceView, prompts: Prompts | None) -> AnnotatedObject:
        """Copy with the prompts of one slice set, or taken away (None)."""
        return replace(self, key_slices=_with(self.key_slices, view, prompts))

    def with_mask(self, view: SliceView, mask: SliceMask | None) -> AnnotatedObject:
        """Copy with the mask of one slice set, or taken away (None)."""
        answered: Mapping[SliceView, Prompts] = self.answered
        if mask is None:
            answered = _with(answered, view, None)
        elif mask.source == "prompt":
            answered = _with(answered, view, self.key_slices.get(view))
        return replace(self, masks=_with(self.masks, view, mask), answered=answered)

    def with_shape(self, view: SliceView, mask: SliceMask | None) -> AnnotatedObject:
        """Copy with another mask (None: none) on one slice, that is no answer to its prompts."""
        answered = self.answered if mask is not None else _with(self.answered, view, None)
        return replace(self, masks=_with(self.masks, view, mask), answered=answered)

    def with_stop(self, direction: str, stop: Stop | None) -> AnnotatedObject:
        """Copy that remembers where propagation ended in a direction (None: forget it)."""
        return replace(self, stops=_with(self.stops, direction, stop))

    @property
    def stop_reasons(self) -> dict[str, str]:
        """Where the last propagation ended and why, by direction, in words."""
        return {direction: stop.text for direction, stop in self.stops.items()}

    def mask(self, view: SliceView) -> npt.NDArray[np.bool_] | None:
        """This object's mask (H, W) on a slice, or None where it has none."""
        packed = self.masks.get(view)
        return None if packed is None else packed.unpack()

    def voxels(self, shape_zyx: tuple[int, int, int], *, keys_only: bool = False) -> npt.NDArray[np.bool_]:
        """Its slice masks together (or those of key slices alone), in a new array (z, y, x) of bool."""
        together = np.zeros(shape_zyx, dtype=bool)
        for view, packed in self.masks.items():
            if packed.is_key or not keys_only:
                view.window_on(together)[...] |= packed.unpack()
        return together

    def mask_to_correct(self, view: SliceView) -> npt.NDArray[np.bool_] | None:
        """The mask (H, W) that the clicks on a slice put right, or None where the prompts start anew.

        They start anew where the object has nothing yet, and with a box or an outline drawn since its mask
        was accepted.
        """
        prompts = self.key_slices.get(view)
        if prompts is None or not len(prompts.points_xy):
            return None
        answered = self.answered.get(view)
        for kind in ("box_xyxy", "outline_xy"):
            drawn, old = getattr(prompts, kind), getattr(answered, kind, None)
            if drawn is not None and (old is None or not np.array_equal(old, drawn)):
                return None
        return self.mask(view)

    def waits_for_acceptance(self, view: SliceView) -> bool:
        """Whether the clicks on a slice put its carried mask right, and that was not accepted yet."""
        here = self.masks.get(view)
        return here is not None and not here.is_key and self.mask_to_correct(view) is not None

    def has_newer_prompts(self, view: SliceView) -> bool:
        """Whether a key slice was prompted anew since its mask was accepted."""
        here = self.masks.get(view)
        if here is None or here.source != "prompt" or view not in self.key_slices:
            return False
        return self.answered.get(view) != self.key_slices[view]

    @property
    def made_by(self) -> dict[str, int]:
        """How many of its slices each model made, and how many were drawn or filled without one."""
        without: Mapping[str, str] = {"edited": "drawn by hand", "interpolated": "filled between slices"}
        return dict(Counter(m.model or without.get(m.source, "unknown") for m in self.masks.values()))

    @property
    def lowest(self) -> tuple[SliceView, float] | None:
        """The carried slice of lowest quality and that quality; None when nothing was carried.

        Slices that the user prompted or painted are the user's own decision, not in doubt.
        """
        judged = [
            (view, mask.quality)
            for view, mask in self.masks.items()
            if mask.quality is not None and not mask.is_key
        ]
        return min(judged, key=lambda item: item[1]) if judged else None

    @property
    def quality_text(self) -> str:
        """For people, short enough for a row of the list: "12 slices, lowest 0.61 at 40"."""
        if not self.masks:
            return "not accepted yet" if self.key_slices else "empty"
        n_slices = len(self.masks)
        text = number_of(n_slices, "slice")
        if n_slices == 1:
            [only] = self.masks.values()
            return text if only.quality is None else f"{text}, quality {only.quality:.2f}"
        lowest = self.lowest
        return text if lowest is None else f"{text}, lowest {lowest[1]:.2f} at {lowest[0].index}"


@dataclass(frozen=True, eq=False)
class Annotations:
    """Everything besides the voxels that an undo step brings back."""

    organs: OrganTable
    objects: Mapping[int, AnnotatedObject]
    active_class_id: int
    active_object_id: int | None

    def same_as(self, other: Annotations) -> bool:
        """Whether nothing that counts differs; which object is active does not."""
        return self.organs is other.organs and self.objects is other.objects

    def with_object(self, item: AnnotatedObject) -> Annotations:
        """With an object put in, active; or without it where it is empty."""
        objects, active = dict(self.objects), self.active_object_id
        if item.is_empty:
            objects.pop(item.object_id, None)
            active = None if active == item.object_id else active
        else:
            objects[item.object_id] = item
            active = item.object_id
        return replace(self, objects=objects, active_object_id=active)


def _with(mapping: Mapping[_K, _V], key: _K, value: _V | None) -> dict[_K, _V]:
    copy = {k: v for k, v in mapping.items() if k != key}
    if value is not None:
        copy[key] = value
    return copy
