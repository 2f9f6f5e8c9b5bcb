"""The video engine: where it goes and stops, what it keeps in memory; it computes what SAM 2 does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from napari_sam_med import Prompts, SliceView, Volume, propagate
from napari_sam_med.errors import ModelError, PromptError
from napari_sam_med.sam.model_registry import ModelRecord
from napari_sam_med.segmentation.propagation import PropagatedSlice
from napari_sam_med.segmentation.video_network import FeatureCache, Film, VideoAnswer, VideoNetwork
from napari_sam_med.segmentation.video_propagation import VideoPropagator, load_video_propagator
from napari_sam_med.session import jobs
from napari_sam_med.volume.grid import Grid
from tests.segmentation.tiny_sam2 import SIDE, tiny_video_model, write_folder

BOX = Prompts.from_box((4, 4, 20, 16))
WINDOW = (0.0, 255.0)


def volume_of(shape: tuple[int, int, int]) -> Volume:
    data = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    return Volume(data, Grid.from_zyx(shape, (3.0, 1.0, 1.0)))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class ScriptedNetwork:
    """Stands in for the model: it sees the object on the slices it is told to, with a given object score."""

    present: set[int]
    vanished: set[int] = field(default_factory=set)  # a positive score, but not a pixel
    asked: list[tuple[int, bool]] = field(default_factory=list)

    record = ModelRecord("scripted", "Scripted", "sam2_hiera_t", input_size=64)
    device = torch.device("cpu")
    precision = "fp32"

    def _answer(self, film: Film, index: int) -> VideoAnswer:
        here = index in self.present
        mask = np.zeros(film.fit.image_size, dtype=bool)
        mask[4:12, 4 : 8 + index % 4] = here
        score = 2.0 if here or index in self.vanished else -1.5
        return VideoAnswer(mask, np.zeros((16, 16), dtype=np.float32), score, 0.81)

    def answer_prompts(self, film: Film, index: int, prompts: Prompts) -> tuple[VideoAnswer, Any]:
        return self._answer(film, index), f"memory of {index}"

    def remember_mask(self, film: Film, index: int, mask: np.ndarray) -> Any:
        return f"memory of the mask on {index}"

    def track(self, film: Film, memories: dict[int, Any], *, reverse: bool) -> Any:
        return SimpleNamespace(memories=memories, reverse=reverse)

    def answer_next(self, film: Film, track: Any, index: int) -> VideoAnswer:
        self.asked.append((index, track.reverse))
        return self._answer(film, index)


def carried(
    present: set[int], keys: list[int], n: int = 20, **options: Any
) -> tuple[list[PropagatedSlice], ScriptedNetwork]:
    network = ScriptedNetwork(present, options.pop("vanished", set()))
    engine = VideoPropagator(network, "hash")  # type: ignore[arg-type]  # a stand-in
    objects = {1: (6, {SliceView("axial", z): BOX for z in keys})}
    return list(propagate(volume_of((n, 24, 32)), objects, engine=engine, window=WINDOW, **options)), network


def reasons(done: list[PropagatedSlice]) -> dict[int, str]:
    return {one.view.index: one.reason for one in done if one.reason}


def filled(done: list[PropagatedSlice]) -> list[int]:
    return sorted(one.view.index for one in done if one.mask.any())


def test_finds_the_object_where_it_is_nearest_first() -> None:
    done, _ = carried(set(range(4, 16)), [10])
    assert filled(done) == list(range(4, 16))
    assert [one.view.index for one in done if one.direction == "forward"] == [11, 12, 13, 14, 15, 16]
    assert [one.view.index for one in done if one.direction == "backward"] == [9, 8, 7, 6, 5, 4, 3]
    assert (done[0].source, done[0].direction) == ("prompt", "key")
    assert {one.source for one in done[1:]} == {"propagated"}
    assert {(one.object_id, one.class_id) for one in done} == {(1, 6)}
    assert done[-1].progress.done == done[-1].progress.total == len(done)
    # the geometric mean of the predicted IoU and the probability that the object is there
    assert done[1].quality == pytest.approx(np.sqrt(0.81 / (1 + np.exp(-2.0))))


def test_a_direction_ends_after_two_slices_without_the_object_and_says_why() -> None:
    done, network = carried(set(range(4, 16)), [10])
    text = "the object left the slice (object score -1.50, limit 0)"
    assert reasons(done) == {3: text, 16: text}
    assert not any(one.mask.any() or one.quality for one in done if one.reason)
    asked = {index for index, _ in network.asked}
    assert asked == set(range(2, 18)) - {10}  # one more than is yielded on either side, and no further
    vanished, _ = carried({5, 6}, [5], vanished={7, 8, 9})
    assert reasons(vanished)[7] == "the mask vanished"


def test_a_single_slice_without_the_object_is_bridged_and_comes_out_empty() -> None:
    done, _ = carried(set(range(4, 16)) - {12}, [10], directions=["forward"])
    assert [(one.view.index, bool(one.mask.any())) for one in done] == [
        *((z, z != 12) for z in range(10, 16)),
        (16, False),
    ]
    assert set(reasons(done)) == {16}
    assert next(one.quality for one in done if one.view.index == 12) == 0
    impatient, _ = carried(set(range(4, 16)) - {12}, [10], directions=["forward"], patience=1)
    assert set(reasons(impatient)) == {12}


def test_borders_of_the_volume_and_of_the_range_are_reasons() -> None:
    everywhere = set(range(8))
    done, _ = carried(everywhere, [3], n=8)
    assert reasons(done) == {0: "start of the volume", 7: "end of the volume"}
    assert filled(done) == list(range(8))
    done, network = carried(everywhere, [3], n=8, first_index=2, last_index=5)
    assert reasons(done) == {2: "start of the chosen range", 5: "end of the chosen range"}
    assert sorted(index for index, _ in network.asked) == [2, 4, 5]
    lost_at_the_end, _ = carried(set(range(7)), [3], n=8, directions=["forward"])
    assert reasons(lost_at_the_end) == {7: "the object left the slice (object score -1.50, limit 0)"}
    with pytest.raises(PromptError, match=r"The range 6 to 7 does not touch a key slice \(3\)"):
        carried(everywhere, [3], n=8, first_index=6, last_index=7)


def test_between_key_slices_the_nearer_one_decides_and_no_slice_is_computed_twice() -> None:
    done, network = carried(set(range(20)), [4, 11], directions=[])
    assert [one.view.index for one in done[:2]] == [4, 11]
    assert sorted(network.asked) == [(5, False), (6, False), (7, False), (8, True), (9, True), (10, True)]
    assert filled(done) == list(range(4, 12))
    assert reasons(done) == {}


def test_what_one_side_lost_is_left_to_the_other_side() -> None:
    done, network = carried({4, 7, 8, 9, 10, 11, 12}, [4, 12], directions=[])
    assert filled(done) == [4, 7, 8, 9, 10, 11, 12]
    assert reasons(done) == {6: "the object left the slice (object score -1.50, limit 0)"}
    assert [index for index, reverse in network.asked if not reverse] == [5, 6]
    assert len({one.view.index for one in done}) == len(done)


def test_all_key_slices_are_remembered_whether_drawn_or_prompted() -> None:
    volume = volume_of((10, 24, 32))
    network = ScriptedNetwork({2})  # the prompts on slice 8 give nothing
    tracks = []
    network.track = lambda film, memories, *, reverse: tracks.append(memories)  # type: ignore[method-assign]
    drawn = np.zeros((24, 32), dtype=bool)
    drawn[3:9, 3:9] = True
    masks = {1: {SliceView("axial", 5): drawn, SliceView("axial", 6): np.zeros((24, 32), dtype=bool)}}
    objects = {1: (6, {SliceView("axial", 2): BOX, SliceView("axial", 8): BOX})}
    job = VideoPropagator(network, "hash").propagate(volume, objects, masks=masks)  # type: ignore[arg-type]
    keys = [next(job) for _ in range(4)]
    network.asked.clear()
    with pytest.raises(AttributeError):  # the stand-in gives no track to go on with
        next(job)
    assert [one.view.index for one in keys] == [2, 5, 6, 8]
    assert np.array_equal(keys[1].mask, drawn)
    assert (keys[1].quality, keys[1].logits, keys[1].iou_prediction) == (1.0, None, None)
    assert [one.reason for one in keys] == [None, None, *["the prompts gave an empty mask"] * 2]
    # an empty drawn mask says that the object is not there, an empty answer says nothing
    assert set(tracks[0]) == {2, 5, 6}
    assert len(tracks) == 4  # two directions from each of the two slices that show the object


def test_keys_of_other_planes_are_answered_and_the_plane_with_most_keys_is_carried() -> None:
    network = ScriptedNetwork(set(range(40)))
    engine = VideoPropagator(network, "hash")  # type: ignore[arg-type]
    views = [SliceView("coronal", 5), SliceView("coronal", 9), SliceView("sagittal", 3)]
    done = list(propagate(volume_of((10, 24, 32)), {1: (6, dict.fromkeys(views, BOX))}, engine=engine))
    assert [one.view for one in done[:3]] == views
    assert {one.view.plane for one in done[3:]} == {"coronal"}
    assert {one.view.index for one in done if one.view.plane == "coronal"} == set(range(24))
    assert done[0].mask.shape == (10, 32)
    assert done[2].mask.shape == (10, 24)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_folder(folder, tiny_video_model())
    return folder


@pytest.fixture
def load(tiny: Path) -> Callable[..., VideoPropagator]:
    return lambda **options: load_video_propagator(tiny, device="cpu", **options)


def drawn_mask() -> np.ndarray:
    mask = np.zeros((40, 48), dtype=bool)
    mask[8:24, 10:30] = True
    return mask


def transformers_own(
    model: Any, frames: torch.Tensor, key: int, asked: Prompts | np.ndarray
) -> dict[int, Any]:
    """Logits of transformers' own loop over a whole video in memory, forward from a key frame."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    session = Sam2VideoInferenceSession(video=frames, dtype=torch.float32)
    index = session.obj_id_to_idx(1)
    if isinstance(asked, Prompts):
        box = [] if asked.box_xyxy is None else asked.box_xyxy.reshape(2, 2).tolist()
        xy = torch.tensor([*box, *asked.points_xy.tolist()]) * torch.tensor([SIDE / 48, SIDE / 40])
        labels = torch.tensor([*([2, 3] if box else []), *asked.point_labels.tolist()], dtype=torch.int32)
        points = {"point_coords": xy[None, None], "point_labels": labels[None, None]}
        session.add_point_inputs(index, key, points)
    else:
        mask = torch.from_numpy(asked)[None, None].float()
        resized = torch.nn.functional.interpolate(mask, (SIDE, SIDE), mode="bilinear", antialias=True)
        session.add_mask_inputs(index, key, (resized >= 0.5).float())
    session.obj_with_new_inputs = [1]
    loop = model.propagate_in_video_iterator(session, start_frame_idx=key)
    return {output.frame_idx: output.pred_masks[0, 0].numpy() for output in loop}


@pytest.mark.parametrize(
    "asked",
    [
        Prompts.from_box((10, 8, 29, 23)),
        Prompts.from_points([(12, 10), (20, 20), (40, 35)], [1, 1, 0]),
        drawn_mask(),
    ],
    ids=["box", "points", "mask"],
)
def test_the_answers_are_those_of_transformers_own_video_loop(load: Any, asked: Prompts | np.ndarray) -> None:
    engine, volume, key = load(), volume_of((9, 40, 48)), 3
    view = SliceView("axial", key)
    is_drawn = isinstance(asked, np.ndarray)
    masks = {1: {view: asked}} if is_drawn else {}
    objects = {1: (1, {} if is_drawn else {view: asked})}
    done = propagate(volume, objects, engine=engine, window=WINDOW, masks=masks)
    ours = {one.view.index: one.logits for one in done if one.direction in ("key", "forward")}
    film = Film(volume, "axial", WINDOW, SIDE, 1)
    frames = torch.stack([film[z] for z in range(9)])
    theirs = transformers_own(engine._network._model, frames, key, asked)
    assert sorted(ours) == sorted(theirs) == list(range(key, 9))
    for index, logits in ours.items():
        if index != key or not is_drawn:  # a drawn mask has no logits
            np.testing.assert_allclose(logits, theirs[index], atol=1e-4)


def test_an_outline_is_asked_as_its_box(load: Any) -> None:
    engine, volume, view = load(), volume_of((5, 40, 48)), SliceView("axial", 2)
    outline = Prompts.from_outline([(10, 8), (29, 12), (20, 23)])
    by_outline, by_box = (
        list(propagate(volume, {1: (1, {view: asked})}, engine=engine, window=WINDOW))
        for asked in (outline, Prompts.from_box((10, 8, 29, 23)))
    )
    for one, other in zip(by_outline, by_box, strict=True):
        assert one.view == other.view
        assert np.array_equal(one.mask, other.mask)


def test_objects_do_not_influence_each_other_and_runs_repeat(load: Any) -> None:
    engine, volume = load(), volume_of((8, 40, 48))
    first = {SliceView("axial", 2): Prompts.from_box((10, 8, 29, 23))}
    second = {SliceView("axial", 5): Prompts.from_points([(30, 30)])}

    def run(objects: Any) -> dict[tuple[int, int], np.ndarray]:
        return {
            (one.object_id, one.view.index): one.mask
            for one in propagate(volume, objects, engine=engine, window=WINDOW)
        }

    together = run({1: (6, first), 2: (7, second)})
    alone = run({1: (6, first)}) | run({2: (7, second)})
    assert set(together) == set(alone) == {(o, z) for o in (1, 2) for z in range(8)}
    assert all(np.array_equal(together[one], alone[one]) for one in alone)


def test_frames_and_memories_do_not_pile_up(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing grows with the number of slices: sessions hold what the model looks back to, and no masks."""
    from napari_sam_med.segmentation import video_propagation

    one_frame = 4 * (128 * 4 * 4 + 32 * 8 * 8 + 16 * 16 * 16)
    monkeypatch.setattr(video_propagation, "FEATURE_BYTES", 5 * one_frame)
    tracks, films, made = [], [], []
    of_network, frame_of = VideoNetwork.track, Film.__getitem__

    def track(self: VideoNetwork, film: Film, memories: Any, *, reverse: bool) -> Any:
        films.append(film)
        tracks.append(of_network(self, film, memories, reverse=reverse))
        return tracks[-1]

    monkeypatch.setattr(VideoNetwork, "track", track)
    monkeypatch.setattr(Film, "__getitem__", lambda self, z: made.append(z) or frame_of(self, z))
    volume = volume_of((60, 40, 48))
    done = list(propagate(volume, {1: (6, {SliceView("axial", 30): BOX})}, engine=load(), window=WINDOW))
    assert sorted(made) == list(range(60))  # each slice was prepared once
    assert len(done) == 60
    for one in tracks:
        outputs = one.session.output_dict_per_obj[0]["non_cond_frame_outputs"]
        assert len(outputs) == 16  # as many object pointers as the model attends to
        for memory in (*outputs.values(), *one.session.output_dict_per_obj[0]["cond_frame_outputs"].values()):
            assert not {"high_res_masks", "pred_masks"} & set(memory)
    assert films[0].features is films[1].features
    assert films[0].features.n_bytes <= 5 * one_frame
    assert len(films[0].features) == 5


def test_features_used_last_are_kept_within_bytes() -> None:
    cache = FeatureCache(max_bytes=3 * 40)
    for index in range(4):
        cache.cache_vision_features(
            index,
            {"vision_feats": [torch.full((10,), float(index))], "vision_pos_embeds": [torch.zeros(9)] * 3},
        )
        cache.get_vision_features(0)
    kept = [index for index in range(4) if cache.get_vision_features(index) is not None]
    assert kept == [0, 2, 3]
    found = cache.get_vision_features(2)
    assert found is not None
    assert float(found["vision_feats"][0][0]) == 2
    assert len(found["vision_pos_embeds"]) == 1
    assert cache.n_bytes == 120
    cache.clear_all()
    assert cache.get_vision_features(3) is None


def test_closing_ends_the_work_at_once(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load()
    calls: list[int] = []
    forward = engine._network._model.forward
    monkeypatch.setattr(
        engine._network._model, "forward", lambda *a, **k: calls.append(k["frame_idx"]) or forward(*a, **k)
    )
    job = propagate(volume_of((12, 40, 48)), {1: (6, {SliceView("axial", 5): BOX})}, engine=engine)
    indices = [next(job).view.index for _ in range(3)]
    job.close()
    assert calls == indices
    assert next(job, None) is None


def test_an_absent_object_is_said_to_have_left(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    write_folder(tmp_path / "blind", tiny_video_model(object_score=-2.0))
    engine = load_video_propagator(tmp_path / "blind", device="cpu")
    masks = {1: {SliceView("axial", 5): drawn_mask()}}
    done = list(propagate(volume_of((12, 40, 48)), {1: (6, {})}, engine=engine, masks=masks))
    assert [(one.view.index, one.direction) for one in done] == [(5, "key"), (4, "backward"), (6, "forward")]
    assert done[1].reason == "the object left the slice (object score -2.00, limit 0)"


def test_bf16_gives_finite_masks_too(load: Any) -> None:
    engine = load(precision="bf16")
    assert (engine.precision, str(engine.device), engine.record.name) == ("bf16", "cpu", "tiny")
    done = list(propagate(volume_of((4, 40, 48)), {1: (6, {SliceView("axial", 1): BOX})}, engine=engine))
    assert [one.view.index for one in done] == [1, 0, 2, 3]
    assert all(np.isfinite(one.logits).all() and 0 < one.quality <= 1 for one in done)


def test_prompts_that_a_video_model_does_not_take_are_refused(load: Any) -> None:
    view, volume = SliceView("axial", 1), volume_of((4, 40, 48))
    logits = np.zeros((16, 16))
    with pytest.raises(PromptError, match="takes boxes and points only, and a mask was given"):
        list(propagate(volume, {1: (6, {view: Prompts(mask_input=logits)})}, engine=load()))
    with pytest.raises(PromptError, match="lies outside the image of 48 x 40 pixels"):
        list(propagate(volume, {1: (6, {view: Prompts.from_points([(60, 5)])})}, engine=load()))
    box = {view: Prompts(box_xyxy=(4, 4, 20, 16), mask_input=logits)}  # another model's logits are left out
    assert next(propagate(volume, {1: (6, box)}, engine=load())).mask.shape == (40, 48)


def test_there_must_be_something_to_carry_with() -> None:
    with pytest.raises(ModelError, match="give a predictor, or a video engine"):
        propagate(volume_of((4, 24, 32)), {1: (6, {SliceView("axial", 1): BOX})})


def test_the_session_carries_with_a_video_engine(load: Any) -> None:
    sight = jobs.ModelView(volume_of((4, 40, 48)), WINDOW, None, None)  # type: ignore[arg-type]  # not used by it
    job = jobs.carry(sight, {1: (6, {SliceView("axial", 1): BOX})}, {}, engine=load(), last_index=2)
    assert [one.view.index for one in job] == [1, 0, 2]
