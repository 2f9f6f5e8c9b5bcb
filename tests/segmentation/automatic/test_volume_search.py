"""A volume searched slice by slice: what streams, what is linked, filled and named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_sam_med.errors import CancelledError, ImageError, ModelError, PromptError
from napari_sam_med.sam.predictor import load_predictor
from napari_sam_med.sample_data import sample_volume
from napari_sam_med.segmentation.automatic import volume_search
from napari_sam_med.segmentation.automatic.everything import EverythingOptions
from napari_sam_med.segmentation.automatic.gap_filling import FILLING
from napari_sam_med.segmentation.automatic.linking import LinkRules
from napari_sam_med.segmentation.automatic.prompt_area import BODY
from napari_sam_med.segmentation.automatic.volume_search import VolumeSearch, search_volume, usual_options
from napari_sam_med.segmentation.organ_classifier import load_classifier
from napari_sam_med.volume.reading import read_volume
from napari_sam_med.volume.slice_view import SliceView
from tests.segmentation.automatic.searchable import ImageStore, RodFinder, RodModel, rods

WINDOW = (0.0, 255.0)


@pytest.fixture
def finder(monkeypatch):
    instead = RodFinder()
    monkeypatch.setattr(volume_search, "find_masks", instead)
    return instead


def run(volume, search=None, model=None, **options):
    """All slices that a search yields, and the objects that it returns."""
    steps = search_volume(volume, model or RodModel(), search, window=WINDOW, store=ImageStore(), **options)
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


def drawn(one, volume):
    mask = np.zeros(volume.shape, dtype=bool)
    one.written_into(mask)
    return mask


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_rods_are_found_whole_in_every_plane(finder, plane):
    volume = rods()
    _, found = run(volume, VolumeSearch(plane, links=LinkRules(min_voxels=1)))
    assert len(found) == 2
    both = np.asarray(volume.data) == 200
    assert np.array_equal(drawn(found[0], volume) | drawn(found[1], volume), both)


def test_slices_stream_and_each_holds_a_partial_result(finder):
    search = VolumeSearch(links=LinkRules(min_voxels=1))
    steps = search_volume(rods(), RodModel(), search, window=WINDOW, store=ImageStore())
    for index in range(5):
        done = next(steps)
        assert (done.progress.done, done.progress.total) == (index + 1, 9)
        assert done.view == SliceView("axial", index)
    assert len(done.masks) == 2
    so_far = done.objects_so_far()
    steps.close()
    assert sorted(len(one.masks) for one in so_far) == [3, 4]
    assert len(finder.calls) == 5


def as_records(objects):
    """All that there is of objects, to be compared."""
    return [
        (one.number, one.score, [(v, m.corner, m.pixels.tobytes(), m.predicted_iou) for v, m in one])
        for one in objects
    ]


@pytest.mark.parametrize("filling", ["propagate", "interpolate"])
@pytest.mark.parametrize(("every", "missing"), [(1, ()), (1, (4,)), (2, ()), (2, (4,)), (3, ())])
def test_a_search_from_the_middle_finds_the_same(finder, every, missing, filling):
    volume = rods(missing)
    search = VolumeSearch(every=every, filling=filling, links=LinkRules(min_voxels=1))
    seen, ascending = run(volume, search)
    assert ascending
    for middle in (0, 3, 4, 8):
        other, found = run(volume, replace(search, begin_at=middle))
        distances = [abs(step.view.index - middle) for step in other]
        assert distances == sorted(distances)
        assert {step.view for step in other} == {step.view for step in seen}
        assert as_records(found) == as_records(ascending)


def test_slices_from_the_middle_hold_a_partial_result_with_its_gaps_filled(finder):
    search = VolumeSearch(every=2, begin_at=4, links=LinkRules(min_voxels=1))
    steps = search_volume(rods(), RodModel(), search, window=WINDOW, store=ImageStore())
    assert [next(steps).view.index for _ in range(2)] == [4, 6]
    done = next(steps)
    assert done.view.index == 2
    steps.close()
    slices = [[view.index for view in one.masks] for one in done.objects_so_far()]
    assert slices == [[2, 3, 4, 5, 6], [2, 3, 4, 5, 6]]


@pytest.mark.parametrize("filling", ["propagate", "interpolate"])
def test_slices_between_searched_ones_are_filled(finder, filling):
    volume, model = rods(), RodModel()
    seen, found = run(volume, VolumeSearch(every=3, filling=filling, links=LinkRules(min_voxels=1)), model)
    assert [step.view.index for step in seen] == [0, 3, 6, 8]
    assert len(found) == 2
    for one in found:
        assert [view.index for view in one.masks] == [3, 4, 5, 6]
        assert np.array_equal(drawn(one, volume)[4], drawn(one, volume)[3])
    assert bool(model.prompts) == (filling == "propagate")


def test_a_model_without_masks_interpolates(finder):
    model = RodModel(accepts=("point",))
    _, found = run(rods(), VolumeSearch(every=3), model)
    assert model.prompts == []
    assert [len(one.masks) for one in found] == [4, 4]


def test_a_slice_without_the_object_is_bridged_and_filled(finder):
    volume = rods(missing=[4])
    _, found = run(volume, VolumeSearch(filling="interpolate"))
    assert sorted([view.index for view in one.masks] for one in found) == [
        [1, 2, 3, 4, 5, 6, 7],
        [*range(2, 8)],
    ]
    _, found = run(volume, VolumeSearch(filling="interpolate", links=LinkRules(most_bridged=0)))
    assert len(found) == 3


def test_the_score_of_an_object_does_not_know_of_filled_slices(finder):
    _, whole = run(rods())
    _, thinned = run(rods(), VolumeSearch(every=3, links=LinkRules(min_voxels=1)))
    assert whole[0].score == pytest.approx(0.9 * 0.95 * 7 / 8)  # found on 7 slices
    assert thinned[0].score == pytest.approx(0.9 * 0.95 * 2 / 3)  # found on 2


def test_the_range_and_the_body_say_where_is_asked(finder):
    volume = rods()
    run(volume, VolumeSearch(first=3, last=3, values=(150, 255)))
    assert np.array_equal(finder.calls[-1].where, np.asarray(volume.data)[3] == 200)
    run(volume, VolumeSearch(first=3, last=3))
    assert not finder.calls[-1].where[0].any()
    run(volume, VolumeSearch(first=3, last=3, body_only=False))
    assert finder.calls[-1].where.all()
    n_calls = len(finder.calls)
    seen, found = run(volume, VolumeSearch(values=(1000, 2000)))
    assert (len(seen), found, len(finder.calls)) == (9, [], n_calls)


def test_points_lie_as_far_apart_as_asked_in_millimetres(finder):
    volume = rods()  # 2 x 1 x 1 mm
    run(volume, VolumeSearch("coronal", first=10, last=10, point_spacing_mm=4.0))
    ((grid,)) = finder.options.point_grids
    x, y = (np.unique(grid[:, i]) for i in range(2))
    assert np.allclose(np.diff(x) * 32 * 1.0, 4.0)
    assert np.allclose(np.diff(y) * 9 * 2.0, 4.0, rtol=0.15)  # 18 mm have no whole number of steps
    crops = EverythingOptions(crop_n_layers=1, crop_n_points_downscale_factor=2)
    search = VolumeSearch(first=3, last=3, point_spacing_mm=4.0, options=crops)
    run(volume, search)
    assert [len(layer) for layer in finder.options.point_grids] == [64, 16]


def test_what_the_model_sees_is_told(finder):
    points = []
    run(rods(), VolumeSearch(first=3, last=3), on_points=points.append)
    assert finder.calls[-1].on_progress == points.append
    assert finder.calls[-1].pixel_spacing == (1.0, 1.0)


@pytest.mark.parametrize("filling", ["propagate", "interpolate"])
def test_the_search_for_the_body_and_fillings_are_told(finder, filling):
    parts = []
    run(rods(), VolumeSearch(every=3, filling=filling, links=LinkRules(min_voxels=1)), on_points=parts.append)
    assert parts[0].text == BODY
    fillings = [one for one in parts if one.text == FILLING]
    assert [one.fraction for one in fillings if one.fraction == 1.0], "each gap to its end"
    assert {one.total for one in fillings} == {4}, "two rods, two slices between"


def test_a_filling_ends_where_it_is_told_to(finder):
    def leave(part):
        if part.text == FILLING:
            raise CancelledError("enough")

    with pytest.raises(CancelledError):
        run(rods(), VolumeSearch(every=3), on_points=leave)
    assert len(finder.calls) == 3, "the gap before the third searched slice was the first to fill"


def test_refusals_come_before_any_work(finder):
    volume = rods()
    with pytest.raises(PromptError, match="takes no points"):
        run(volume, model=RodModel(accepts=("box",)))
    with pytest.raises(ImageError, match="0 to 8"):
        run(volume, VolumeSearch(last=9))
    with pytest.raises(ImageError, match="0-th"):
        run(volume, VolumeSearch(every=0))
    with pytest.raises(PromptError, match="apart"):
        run(volume, VolumeSearch(point_spacing_mm=0.0))
    with pytest.raises(PromptError, match="holds no value"):
        run(volume, VolumeSearch(values=(3.0, 3.0)))
    with pytest.raises(ModelError, match="classifier reads the features of nano"):
        run(volume, classifier=load_classifier())
    assert finder.calls == []


def test_sam_keeps_its_own_thresholds_and_nano_has_lower_ones():
    assert usual_options(RodModel()) == EverythingOptions()
    nano = RodModel()
    nano.record.architecture = "nano"
    assert usual_options(nano).pred_iou_thresh < EverythingOptions().pred_iou_thresh
    lower = {"pred_iou_thresh": 0.88, "stability_score_thresh": 0.95}
    assert replace(usual_options(nano), **lower) == EverythingOptions()


def test_nano_finds_and_names_the_kidneys_of_the_sample():
    search = VolumeSearch(first=24, last=24, point_spacing_mm=35.0, values=(60.0, 200.0))
    steps = search_volume(
        read_volume(sample_volume()), load_predictor("nano"), search, classifier=load_classifier()
    )
    while True:
        try:
            next(steps)
        except StopIteration as end:
            names = {one.organ.name for one in end.value if not one.organ.abstained}
            break
    assert names & {"right kidney", "left kidney"}
