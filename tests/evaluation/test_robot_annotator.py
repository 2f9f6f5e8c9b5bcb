"""The simulated annotator prompts what it says, learns nothing that a user would not see, and ends."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med.evaluation.propagation_baselines import PreviousMaskPropagator
from napari_sam_med.evaluation.robot_annotator import RobotAnnotator, RobotSettings, slices_to
from tests.evaluation.bright_rods import WINDOW, BrightPixels, ImageStore, rod, volume_of

STRICT = PreviousMaskPropagator("box", 0.8)


def two_parts():
    """A rod that is half as wide from slice 10 on: the strict engine ends there."""
    data = rod(range(2, 18))
    data[10:, 8:18, 14:] = 0
    return data


def work(data, *, engine=STRICT, truth=None, model=None, **settings):
    robot = RobotAnnotator(RobotSettings(**settings), engine, window=WINDOW)
    truth = data > 100 if truth is None else truth
    return list(robot.annotate(volume_of(data), truth, model or BrightPixels(), store=ImageStore()))


def test_one_box_on_the_largest_slice_is_enough_where_everything_follows():
    data = rod()
    data[7, 7, 8:20] = 200
    turns = work(data)
    assert [(turn.view.index, turn.why, turn.n_interactions) for turn in turns] == [(7, "first", 1)]
    assert turns[0].dice > 0.99
    assert np.array_equal(turns[0].mask.any(axis=(1, 2)), (data > 100).any(axis=(1, 2)))


def test_it_goes_where_propagation_broke_off():
    turns = work(two_parts(), enough=1.0)
    assert [turn.why for turn in turns[:2]] == ["first", "end"]
    assert turns[0].view.index == 2
    assert turns[1].view.index == 10
    assert turns[0].dice == pytest.approx(2 * 960 / (960 + 1440))
    # slices 7 to 9 are nearer to the narrow key slice, and lose 60 pixels each
    assert turns[1].dice == pytest.approx(2 * (1440 - 180) / (2 * 1440 - 180))
    assert turns[1].n_interactions == 2  # nothing was there to click on: a second box
    assert turns[1].progress.done == 2
    assert (slices_to(turns, 0.5), slices_to(turns, 0.85), slices_to(turns[:1], 0.85)) == (1, 2, None)


@pytest.mark.parametrize("order", ["even-found", "even-true"])
def test_the_control_halves_the_widest_gap(order):
    data = rod(range(3, 18))  # 3 to 17; the largest is the first
    turns = work(data, order=order, enough=1.1, max_slices=5)
    assert [turn.view.index for turn in turns] == [3, 10, 14, 6, 8]
    assert {turn.why for turn in turns[1:]} == {"even"}


def test_only_the_true_extent_leads_beyond_what_was_found():
    data = two_parts()
    assert work(data, order="even-found", enough=1.1, max_slices=2)[1].view.index == 6
    assert work(data, order="even-true", enough=1.1, max_slices=2)[1].view.index == 10


def test_clicks_mend_a_slice_as_a_user_would():
    # a second rod beside the first lies in every box, but does not belong to the truth
    data = rod(range(2, 18), columns=slice(4, 12))
    truth = data > 100
    data[6:, 8:18, 14:18] = 200
    data[6:12, 12, 12:14] = 0
    wide = PreviousMaskPropagator("box", 0.5, 1.5)
    turns = work(data, truth=truth, engine=wide, order="even-true", enough=0.99, max_slices=2)
    view = turns[1].view
    assert not np.array_equal(view.extract(turns[0].mask), view.extract(truth))
    assert np.array_equal(view.extract(turns[1].mask), view.extract(truth))
    assert turns[1].n_interactions == 2


def test_a_drawn_slice_is_the_truth():
    data = two_parts()
    truth = data > 100
    truth[:, 8:10] = False  # nothing in the image says so: clicks cannot
    turns = work(data, truth=truth, order="even-true", correction="mask", enough=0.99, max_slices=4)
    assert turns[0].view.index == 2
    for turn in turns[1:]:
        assert np.array_equal(turn.view.extract(turns[-1].mask), turn.view.extract(truth))
    assert [turn.n_interactions for turn in turns] == [1, 2, 3, 4]


def test_a_slice_without_the_object_is_cleared():
    data = rod(range(20))
    truth = data > 100
    truth[12:] = False  # the image goes on, the organ does not
    turns = work(data, truth=truth, order="suggested", enough=1.0, max_slices=4)
    assert turns[0].over_propagation == pytest.approx(8 / 20)
    beyond = [turn for turn in turns if turn.view.index >= 12]
    assert beyond
    assert not beyond[-1].view.extract(turns[-1].mask).any()
    assert turns[-1].over_propagation < turns[0].over_propagation


def test_a_model_without_points_is_given_boxes():
    model = BrightPixels(accepts=("box",))
    turns = work(two_parts(), order="even-true", model=model, enough=1.0, max_slices=3)
    assert all(prompts.kinds == {"box"} for prompts in model.asked)
    assert turns[0].dice < 0.85 < turns[1].dice


def test_noise_is_the_seeds():
    options = {"jitter": 0.2, "enough": 1.1, "max_slices": 3}
    first, again, other = (
        [turn.dice for turn in work(two_parts(), seed=seed, **options)] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_it_ends_when_nothing_is_left_to_suggest_or_allowed():
    assert len(work(two_parts(), enough=1.1, max_slices=1)) == 1
    full = work(rod(range(3, 7)), order="even-true", enough=1.1, max_slices=20)
    assert sorted(turn.view.index for turn in full) == [3, 4, 5, 6]


def test_it_is_a_job_that_can_be_left():
    robot = RobotAnnotator(RobotSettings(enough=1.1), STRICT, window=WINDOW)
    model = BrightPixels()
    data = two_parts()
    job = robot.annotate(volume_of(data), data > 100, model, store=ImageStore())
    next(job)
    asked = len(model.asked)
    job.close()
    assert len(model.asked) == asked
