"""The jobs behind the section Find: what streams, what is returned, and how they end early."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import numpy as np
import pytest

from napari_sam_med import SliceView, Volume
from napari_sam_med.errors import CancelledError, PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.interruption import is_given_up
from napari_sam_med.segmentation.automatic import prompt_area, volume_search
from napari_sam_med.segmentation.matching import volume_matching
from napari_sam_med.segmentation.matching.matcher import MatchedMask
from napari_sam_med.session import finding_jobs
from napari_sam_med.session.finding_jobs import (
    FindingPlan,
    FindingStep,
    GivenExample,
    edges,
    everything,
    example,
    linked,
    proposals,
    word,
)
from napari_sam_med.session.jobs import ModelView
from napari_sam_med.volume.grid import Grid
from tests.segmentation.automatic.point_model import NoStore, PointModel
from tests.segmentation.automatic.searchable import ImageStore, RodFinder, RodModel, rods

WINDOW = (0.0, 255.0)
HERE = SliceView("axial", 3)


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> RodFinder:
    made = RodFinder()
    monkeypatch.setattr(volume_search, "find_masks", made)
    return made


def run(steps: Generator[FindingStep, None, list]) -> tuple[list[FindingStep], list]:
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as stop:
            return seen, stop.value


def sight(model: object, volume: Volume, store: object) -> ModelView:
    return ModelView(volume, WINDOW, model, store)


def test_everything_on_a_slice_or_in_the_volume(finder: RodFinder) -> None:
    view = sight(RodModel(), rods(), ImageStore())
    _, objects = run(everything(view, FindingPlan(HERE)))
    assert [one.masks.keys() for one in objects] == [{HERE}, {HERE}]
    seen, objects = run(everything(view, FindingPlan(HERE, whole=True, every=2, grid_mm=4)))
    assert sorted(one.voxels for one in objects) == [5 * 4 * 5, 5 * 8 * 8]
    shown = [step for step in seen if step.view is not None]
    assert [step.view.index for step in shown] == [4, 2, 6, 0, 8], "from slice 3 outwards"
    assert shown[-1].progress.fraction == 1.0
    assert finder.options.points_per_side is None
    assert [len(step.so_far()) for step in shown] == [2] * 5, "the search is over by now"


def test_a_search_ends_within_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, finder = threading.Event(), RodFinder()

    def slow(*args: object, on_progress, **options: object) -> list:
        if len(finder.calls) == 3:
            try:
                while True:
                    on_progress(Progress(1, 2, "points"))
            finally:
                ended.set()
        return finder(*args, on_progress=on_progress, **options)

    monkeypatch.setattr(volume_search, "find_masks", slow)
    steps = everything(sight(RodModel(), rods(), ImageStore()), FindingPlan(HERE, whole=True))
    searched = [SliceView("axial", index) for index in (3, 4, 2)]
    step = next(step for step in steps if step.view == searched[-1])
    steps.close()
    assert ended.wait(10)
    _, objects = run(linked(step.so_far))
    assert [one.masks.keys() for one in objects] == [{*searched}]


def test_a_search_ends_while_the_body_is_looked_for(
    finder: RodFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, ended, gate = [], threading.Event(), threading.Event()

    def not_air(pixels, frame):
        looked.append(pixels)
        if len(looked) == 3:
            gate.wait(60)
        elif len(looked) > 3:
            ended.set()
        return np.ones(pixels.shape, dtype=bool)

    monkeypatch.setattr(prompt_area, "not_air", not_air)
    steps = everything(sight(RodModel(), rods(), ImageStore()), FindingPlan(HERE))
    step = next(step for step in steps if step.progress.text == "finding the body")
    assert step.progress.total == 2 * 9
    while len(looked) < 3:
        next(steps)
    monkeypatch.setattr(finding_jobs, "_LEAVE_SECONDS", 0.0)
    steps.close()
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "sam-med find":
            thread.join(10)
    assert not ended.is_set(), "no slice more was looked at"
    assert not finder.calls


def test_a_search_is_given_up_within_an_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, given_up = threading.Event(), threading.Event()

    def embed(*args: object, **options: object) -> None:
        begun.set()
        while not is_given_up():
            time.sleep(0.001)
        given_up.set()
        raise CancelledError("given up")

    monkeypatch.setattr(volume_search, "embed_slice", embed)
    steps = everything(sight(RodModel(), rods(), ImageStore()), FindingPlan(HERE))
    while not begun.is_set():
        next(steps)
    next(steps)  # goes on telling, so that a job looks whether it is still wanted
    steps.close()
    assert given_up.wait(10)


def test_progress_is_told_no_faster_than_it_is_read(
    finder: RodFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding_jobs, "_TOLD_EVERY_SECONDS", 1000.0)
    seen, _ = run(everything(sight(RodModel(), rods(), ImageStore()), FindingPlan(HERE, whole=True)))
    assert len({step.view for step in seen if step.view is not None}) == 9, "every slice that is done is told"
    assert sum(step.progress.text == "finding the body" for step in seen if step.view is None) <= 1


def test_a_model_without_points_is_refused(finder: RodFinder) -> None:
    with pytest.raises(PromptError, match="points"):
        run(everything(sight(RodModel(("box",)), rods(), ImageStore()), FindingPlan(HERE)))


def test_edges_and_proposals_of_slices() -> None:
    data = np.zeros((2, 40, 48), dtype=np.uint8)
    data[1, 10:30, 12:36] = 200
    view = sight(PointModel(), Volume(data, Grid.from_zyx(data.shape)), NoStore())
    here = SliceView("axial", 1)
    seen, nothing = run(edges(view, FindingPlan(here)))
    assert nothing == []
    [step] = [step for step in seen if step.view is not None]
    assert step.view == here
    assert step.edges[9, 20] > 0
    assert step.edges[20, 20] == 0
    seen, _ = run(proposals(view, FindingPlan(here)))
    [step] = [step for step in seen if step.view is not None]
    assert [box.box_xyxy for box in step.boxes] == [(12, 10, 35, 29)]


class Matcher:
    """What is as bright as the example."""

    def __init__(self, shown, predictor, matching) -> None:
        self.shown = shown
        self.matching = matching

    def find(self, query) -> list[MatchedMask]:
        found = RodFinder()(
            query.image,
            None,
            None,
            pixel_spacing=None,
            embedding=None,
            where=np.ones(query.image.shape[:2], dtype=bool),
            on_progress=None,
        )
        return [MatchedMask(one, 0.8) for one in found]


def test_one_example_on_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Matcher] = []
    monkeypatch.setattr(volume_matching, "matcher_of", lambda *args: made.append(Matcher(*args)) or made[-1])
    volume = rods()
    mask = HERE.extract(volume.data) > 150
    given = GivenExample("rod", 6, mask=mask, engine="stitching", design="grid")
    _, objects = run(example(sight(RodModel(), volume, ImageStore()), FindingPlan(HERE), given))
    assert [(one.number, list(one.masks)) for one in objects] == [(1, [HERE]), (2, [HERE])]
    assert np.array_equal(made[0].shown.slices[0].mask, mask)
    assert (made[0].matching.engine, made[0].matching.design) == ("stitching", "grid")


def test_one_example_ends_while_its_slice_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, looking = threading.Event(), threading.Event()

    class Slow(Matcher):
        def find(self, query) -> list[MatchedMask]:
            looking.set()
            gate.wait(60)
            return []

    monkeypatch.setattr(volume_matching, "matcher_of", Slow)
    monkeypatch.setattr(finding_jobs, "_LEAVE_SECONDS", 0.0)
    given = GivenExample("rod", 6, mask=HERE.extract(rods().data) > 150)
    steps = example(sight(RodModel(), rods(), ImageStore()), FindingPlan(HERE), given)
    while not looking.is_set():
        next(steps)
    next(steps)  # goes on telling, so that a job looks whether it is still wanted
    steps.close()
    gate.set()


def test_a_word_that_means_nothing_is_refused_before_the_search(
    finder: RodFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "napari_sam_med.session.finding_jobs.classifier_and_model", lambda model: (_Classifier(), model)
    )
    with pytest.raises(PromptError, match="no organ that the classifier knows"):
        run(word(sight(RodModel(), rods(), ImageStore()), FindingPlan(HERE), "teapot"))
    assert not finder.calls


class _Classifier:
    class facts:  # noqa: N801  an attribute of the real one
        organs = ("liver", "spleen", "other")
