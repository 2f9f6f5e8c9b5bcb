"""Records of a journal: what is written is read, and a damaged file gives all that came before the damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.session.journal_annotations import (
    NOTHING,
    apply_annotations,
    encode_annotations,
    is_unchanged,
)
from napari_sam_med.session.journal_records import (
    Blobs,
    FrameReader,
    apply_slice,
    encode_frame,
    encode_slice,
    pack_payload,
    unpack_payload,
)
from napari_sam_med.session.objects import AnnotatedObject, Annotations, SliceMask, Stop
from napari_sam_med.volume.labels import LabelChange
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.slice_view import PLANES, SliceView

PAYLOADS = [b"first", b"", b"x" * 100, b"\0\xff" * 20]


def frames(tmp_path: Path) -> tuple[Path, bytes, list[int]]:
    """A file of records, its content, and where each record ends."""
    path = tmp_path / "records"
    ends, content = [], b""
    for number, payload in enumerate(PAYLOADS):
        content += encode_frame(number, payload)
        ends.append(len(content))
    path.write_bytes(content)
    return path, content, ends


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    path, content, _ = frames(tmp_path)
    reader = FrameReader(path)
    assert list(reader) == PAYLOADS
    assert (reader.problem, reader.valid_bytes) == (None, len(content))


def test_s06_a_file_cut_at_any_byte_gives_every_record_before(tmp_path: Path) -> None:
    """Safety contract, statement 6."""
    path, content, ends = frames(tmp_path)
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        reader = FrameReader(path)
        whole = sum(end <= cut for end in ends)
        assert list(reader) == PAYLOADS[:whole]
        assert (reader.problem is None) == (cut in ends)


def test_s06_a_flipped_bit_anywhere_ends_the_file_there(tmp_path: Path) -> None:
    """Safety contract, statement 6."""
    path, content, ends = frames(tmp_path)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        reader = FrameReader(path)
        assert list(reader) == PAYLOADS[: sum(end <= place for end in ends)]
        assert "cannot be used" in reader.problem


def test_a_record_out_of_its_place_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "records"
    path.write_bytes(encode_frame(0, b"a") + encode_frame(2, b"c"))
    reader = FrameReader(path)
    assert list(reader) == [b"a"]
    assert reader.problem is not None


def test_a_payload_of_another_length_is_refused() -> None:
    blobs = Blobs()
    blobs.add(b"content")
    payload = pack_payload({"name": "lésion \ud800"}, blobs)
    fields, parts = unpack_payload(payload)
    assert fields == {"name": "lésion \ud800"}
    assert parts == blobs.parts
    for wrong in (payload[:-1], payload + b"x", b"ab"):
        with pytest.raises(ValueError):  # noqa: PT011  which one depends on where it is cut
            unpack_payload(wrong)


@st.composite
def differences(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, SliceView]:
    """Labels before and after a change of one slice."""
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    before = rng.integers(0, 3, (5, 6, 7)).astype(dtype)
    plane = draw(st.sampled_from(PLANES))
    view = SliceView(plane, draw(st.integers(0, 4)))
    after = before.copy()
    window = view.window_on(after)
    most = draw(st.sampled_from([1, 4, int(np.iinfo(dtype).max)]))
    touched = rng.random(window.shape) < draw(st.sampled_from([0.02, 0.3, 1.0]))
    window[touched] = rng.integers(0, most + 1, int(touched.sum()))
    return before, after, view


@given(differences())
def test_slice_differences_come_back_exactly(case: tuple[np.ndarray, np.ndarray, SliceView]) -> None:
    before, after, view = case
    was, now = view.extract(before), view.extract(after)
    indices = np.flatnonzero(was != now)
    if not len(indices):
        return
    change = LabelChange(view, indices, was.ravel()[indices], now.ravel()[indices])
    blobs = Blobs()
    row = encode_slice(change, was.shape, blobs)
    restored = before.copy()
    apply_slice(row, blobs.parts, restored)
    assert np.array_equal(restored, after)


def test_a_difference_outside_its_slice_is_refused() -> None:
    blobs = Blobs()
    view = SliceView("axial", 0)
    row = encode_slice(LabelChange(view, np.array([3]), np.array([0]), np.array([1])), (4, 4), blobs)
    with pytest.raises(ValueError, match="outside its slice"):
        apply_slice(row, blobs.parts, np.zeros((1, 2, 2), dtype=np.uint8))


def rich_annotations() -> Annotations:
    """Annotations with something in every field."""
    rng = np.random.default_rng(0)
    here, there = SliceView("axial", 3), SliceView("coronal", 11)
    logits = rng.normal(size=(1, 8, 8)).astype(np.float32)
    prompts = Prompts([(1.25, 2), (3, 4.1)], [1, 0], (0, 1, 9, 9.7), logits, [(0, 0), (5, 0), (5, 5.3)])
    mask = SliceMask.from_mask(rng.random((24, 31)) > 0.5, "prompt", 0.8125)
    item = AnnotatedObject(
        4, 6, "Leber, größte Läsion", {here: prompts, there: Prompts.from_points([(1, 1)])}
    )
    item = item.with_mask(here, mask)
    item = item.with_mask(there, SliceMask.from_mask(rng.random((8, 31)) > 0.99, "edited", None))
    item = item.with_stop("forward", Stop(SliceView("axial", 6), "the object ends"))
    ended = AnnotatedObject(
        9, 1, "spleen", masks={here: mask}, confirmed_ends=frozenset({there, SliceView("axial", 5)})
    )
    organs = OrganTable.btcv().locking(3, True)
    return Annotations(organs, {9: ended, 4: item}, 6, 4)


def assert_same(a: Annotations, b: Annotations) -> None:
    """Every field of two annotations is equal."""
    assert dict(a.organs) == dict(b.organs)
    assert (a.active_class_id, a.active_object_id) == (b.active_class_id, b.active_object_id)
    assert list(a.objects) == list(b.objects)
    for one, other in zip(a.objects.values(), b.objects.values(), strict=True):
        for name in ("object_id", "class_id", "name", "key_slices", "answered", "stops", "confirmed_ends"):
            assert getattr(one, name) == getattr(other, name), name
        assert {view: vars(mask) for view, mask in one.masks.items()} == {
            view: vars(mask) for view, mask in other.masks.items()
        }


def passed_on(old: Annotations, new: Annotations, known: Annotations) -> Annotations:
    """What a reader that knows ``known`` makes of the record of a change."""
    blobs = Blobs()
    payload = pack_payload(encode_annotations(old, new, blobs), blobs)
    return apply_annotations(*unpack_payload(payload), known)


def test_annotations_come_back_from_nothing() -> None:
    now = rich_annotations()
    assert_same(passed_on(NOTHING, now, NOTHING), now)


def test_annotations_come_back_from_a_chain_of_changes() -> None:
    first = rich_annotations()
    here = SliceView("axial", 3)
    changed = first.objects[4].with_mask(here, None).with_prompts(here, Prompts.from_box((1, 1, 2, 2)))
    second = Annotations(first.organs.locking(6, True), {**first.objects, 4: changed}, 6, None)
    third = Annotations(second.organs, {4: changed}, 1, None)
    known = NOTHING
    for old, new in ((NOTHING, first), (first, second), (second, third), (third, first)):
        known = passed_on(old, new, known)
        assert_same(known, new)


def test_a_record_says_only_what_changed() -> None:
    first = rich_annotations()
    item = first.objects[4].with_prompts(SliceView("axial", 0), Prompts.from_box((1, 1, 2, 2)))
    second = Annotations(first.organs, {**first.objects, 4: item}, 6, 4)
    blobs = Blobs()
    fields = encode_annotations(first, second, blobs)
    assert "organs" not in fields
    [changed] = fields["objects"]
    assert [entry[:2] for entry in changed["key_slices"]["set"]] == [["axial", 0]]
    assert not blobs.parts
    assert not is_unchanged(first, second)
    assert is_unchanged(first, first)
