"""Objects, prompts and organ table in a journal: what changed since the last record, as JSON and blobs.

Annotations are frozen and replaced in part, so what is still the same object did not change: comparing takes
microseconds however many slices an object has.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.session.journal_records import Blobs
from napari_sam_med.session.objects import AnnotatedObject, Annotations, SliceMask, Stop
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["NOTHING", "apply_annotations", "encode_annotations", "is_unchanged"]

_V = TypeVar("_V")

NOTHING = Annotations(OrganTable(), {}, 0, None)
"""What the first record of a journal starts from."""


def is_unchanged(old: Annotations, new: Annotations) -> bool:
    """Whether a record would say nothing new."""
    return old.same_as(new) and (old.active_class_id, old.active_object_id) == (
        new.active_class_id,
        new.active_object_id,
    )


def encode_annotations(old: Annotations, new: Annotations, blobs: Blobs) -> dict[str, Any]:
    """What turns ``old`` into ``new``; inverse of `apply_annotations`."""
    fields: dict[str, Any] = {"active": [_int(new.active_class_id), _int(new.active_object_id)]}
    if new.organs is not old.organs:
        fields["organs"] = new.organs.to_json()
    if new.objects is not old.objects:
        fields["order"] = [int(object_id) for object_id in new.objects]
        fields["objects"] = [
            _encode_object(old.objects.get(object_id), item, blobs)
            for object_id, item in new.objects.items()
            if old.objects.get(object_id) is not item
        ]
    return fields


def apply_annotations(fields: Mapping[str, Any], blobs: Sequence[bytes], old: Annotations) -> Annotations:
    """Annotations after a record.

    Raises
    ------
    KeyError, TypeError, ValueError, zlib.error, SamMedError
        If the record says something impossible.
    """
    class_id, object_id = fields["active"]
    organs = OrganTable.from_json(fields["organs"]) if "organs" in fields else old.organs
    objects = dict(old.objects)
    for item in fields.get("objects", ()):
        objects[item["id"]] = _decode_object(item, blobs, old.objects.get(item["id"]))
    if "order" in fields:
        objects = {number: objects[number] for number in fields["order"]}
    return Annotations(organs, objects, class_id, object_id)


def _encode_object(old: AnnotatedObject | None, new: AnnotatedObject, blobs: Blobs) -> dict[str, Any]:
    if old is None:
        old = AnnotatedObject(new.object_id, new.class_id, new.name)

    def prompts(value: Prompts) -> dict[str, Any]:
        return _encode_prompts(value, blobs)

    def mask(value: SliceMask) -> dict[str, Any]:
        return _encode_mask(value, blobs)

    return {
        "id": int(new.object_id),
        "class_id": int(new.class_id),
        "name": new.name,
        "stops": {way: [*_key(stop.view), stop.reason] for way, stop in new.stops.items()},
        "ends": [_key(view) for view in sorted(new.confirmed_ends)],
        "key_slices": _encode_views(old.key_slices, new.key_slices, prompts),
        "answered": _encode_views(old.answered, new.answered, prompts),
        "masks": _encode_views(old.masks, new.masks, mask),
    }


def _decode_object(
    fields: Mapping[str, Any], blobs: Sequence[bytes], old: AnnotatedObject | None
) -> AnnotatedObject:
    if old is None:
        old = AnnotatedObject(fields["id"], fields["class_id"], fields["name"])

    def prompts(value: Mapping[str, Any]) -> Prompts:
        return _decode_prompts(value, blobs)

    def mask(value: Mapping[str, Any]) -> SliceMask:
        return _decode_mask(value, blobs)

    return AnnotatedObject(
        object_id=fields["id"],
        class_id=fields["class_id"],
        name=fields["name"],
        key_slices=_decode_views(fields["key_slices"], old.key_slices, prompts),
        masks=_decode_views(fields["masks"], old.masks, mask),
        stops={
            way: Stop(SliceView(plane, index), why) for way, (plane, index, why) in fields["stops"].items()
        },
        answered=_decode_views(fields["answered"], old.answered, prompts),
        confirmed_ends=frozenset(SliceView(plane, index) for plane, index in fields["ends"]),
    )


def _encode_views(
    old: Mapping[SliceView, _V], new: Mapping[SliceView, _V], encode: Callable[[_V], dict[str, Any]]
) -> dict[str, Any]:
    if new is old:
        return {}
    return {
        "set": [[*_key(view), encode(value)] for view, value in new.items() if old.get(view) is not value],
        "gone": [_key(view) for view in old if view not in new],
    }


def _decode_views(
    fields: Mapping[str, Any], old: Mapping[SliceView, _V], decode: Callable[[Mapping[str, Any]], _V]
) -> Mapping[SliceView, _V]:
    if not fields:
        return old
    gone = {SliceView(plane, index) for plane, index in fields["gone"]}
    now = {view: value for view, value in old.items() if view not in gone}
    for plane, index, value in fields["set"]:
        now[SliceView(plane, index)] = decode(value)
    return now


def _encode_mask(mask: SliceMask, blobs: Blobs) -> dict[str, Any]:
    right = mask.packed.rstrip(b"\0")
    content = right.lstrip(b"\0")  # most of a slice is empty, above and below the mask
    return {
        "shape": [int(n) for n in mask.shape],
        "source": mask.source,
        "quality": None if mask.quality is None else float(mask.quality),
        "model": mask.model,
        "from": len(right) - len(content),
        "blob": blobs.add(content),
    }


def _decode_mask(fields: Mapping[str, Any], blobs: Sequence[bytes]) -> SliceMask:
    height, width = fields["shape"]
    n_bytes = (height * width + 7) // 8
    first, content = fields["from"], zlib.decompress(blobs[fields["blob"]])
    n_after = n_bytes - first - len(content)
    if n_after < 0:
        raise ValueError("a mask of another size")
    packed = b"".join([bytes(first), content, bytes(n_after)])
    model = fields.get("model")  # none in journals of before it was kept
    return SliceMask(packed, (height, width), fields["source"], fields["quality"], model)


def _encode_prompts(prompts: Prompts, blobs: Blobs) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if len(prompts.points_xy):
        fields["points_xy"] = prompts.points_xy.tolist()
        fields["point_labels"] = prompts.point_labels.tolist()
    if prompts.box_xyxy is not None:
        fields["box_xyxy"] = prompts.box_xyxy.tolist()
    if prompts.outline_xy is not None:
        fields["outline_xy"] = prompts.outline_xy.tolist()
    if prompts.mask_input is not None:
        content = prompts.mask_input.astype("<f4").tobytes()
        fields["mask_input"] = {"shape": list(prompts.mask_input.shape), "blob": blobs.add(content)}
    return fields


def _decode_prompts(fields: Mapping[str, Any], blobs: Sequence[bytes]) -> Prompts:
    arguments = dict(fields)
    mask = arguments.get("mask_input")
    if mask is not None:
        content = zlib.decompress(blobs[mask["blob"]])
        arguments["mask_input"] = np.frombuffer(content, dtype="<f4").reshape(mask["shape"])
    return Prompts(**arguments)


def _key(view: SliceView) -> list[Any]:
    return [view.plane, view.index]


def _int(number: int | None) -> int | None:
    return None if number is None else int(number)
