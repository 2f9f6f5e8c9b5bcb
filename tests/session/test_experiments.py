"""The prompt laboratory without a window: choices, surveys, runs, one answer again, folders."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_sam_med.errors import ExportError, ImageError, LabelError, ModelError, PromptError
from napari_sam_med.evaluation.measuring import (
    Simulation,
    SliceChoice,
    SliceScore,
    labelled_slices,
    measure_model,
)
from napari_sam_med.evaluation.metrics import dice
from napari_sam_med.evaluation.prompt_strategies import parse_strategies
from napari_sam_med.evaluation.summary import summarised
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.predictor import load_predictor
from napari_sam_med.segmentation.body import BodyBox
from napari_sam_med.session import experiment_jobs, experiment_results
from napari_sam_med.session.experiment_results import SavedResults, slice_interval
from napari_sam_med.session.experiments import (
    NO_ORGAN,
    Choice,
    Laboratory,
    Shown,
    Source,
    mean_dice,
    named_models,
)
from napari_sam_med.session.jobs import LoadedModel
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume
from tests.session.measured_model import MeasuredPredictor, labels_of, loads


def outcome(job: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
    """What a job yields, and what it returns."""
    yielded = []
    while True:
        try:
            yielded.append(next(job))
        except StopIteration as stop:
            return yielded, stop.value


@pytest.fixture
def source(volume: Volume) -> Source:
    return Source(volume, labels_of(volume))


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> MeasuredPredictor:
    made = MeasuredPredictor()
    monkeypatch.setattr(experiment_jobs, "load_model", loads(made))
    return made


def measured(source: Source, choice: Choice) -> list[experiment_jobs.ExperimentStep]:
    return outcome(experiment_jobs.run(experiment_jobs.Request(source, choice, "cpu")))[0]


def scores_of(steps: list[experiment_jobs.ExperimentStep]) -> list[SliceScore]:
    return [score for step in steps for score in step.scores]


def test_the_catalogue_explains_every_strategy_and_knows_the_protocols() -> None:
    _, found = outcome(experiment_jobs.catalogue())
    kinds = {kind.name: kind for kind in found.kinds}
    assert all(len(kind.about) > 30 and "Parameters" not in kind.about for kind in found.kinds)
    assert kinds["random_margin_box"].parameters == ("-20", "-10", "0", "10", "20", "30", "40")
    assert {kind.group for kind in found.kinds} == {"Boxes", "Clicks", "Dialogues"}
    assert kinds["corrective_clicks"].group == "Dialogues"
    named = {name: strategies for (name, _), strategies in found.protocols.items()}
    assert "bound_box" in named["btcv-prompts"]
    for strategies in named.values():
        assert parse_strategies(strategies)


@pytest.mark.parametrize("organs", [(), (1,), (6,), (1, 6)])
@pytest.mark.parametrize("most", [0, 1, 2, 3, 50])
def test_the_estimate_is_what_is_measured(
    source: Source, predictor: MeasuredPredictor, organs: tuple[int, ...], most: int
) -> None:
    choice = Choice(frozenset(organs), ("bound_box", "corrective_clicks:1"), slices=most)
    _, survey = outcome(experiment_jobs.survey(source.labels, choice.planes, choice.min_area))
    plain = SliceChoice(("axial",), min_area=20, most=most, organs=tuple(map(str, organs)))
    assert survey.spread(choice) == labelled_slices(source.labels, plain)
    slices, rows, prompts = survey.count(choice, parse_strategies(choice.strategies))
    steps = measured(source, choice)
    assert len(scores_of(steps)) == rows == prompts
    assert len({score.view for score in scores_of(steps)}) == slices
    baselines = [score for step in steps for score in step.baselines]
    assert len(baselines) == rows  # two each, as there are two strategies
    assert steps[-1].progress.fraction == 1.0


def test_dialogues_are_counted_by_their_longest(source: Source) -> None:
    choice = Choice(strategies=("corrective_clicks",), models=("a", "b"), slices=1)
    _, survey = outcome(experiment_jobs.survey(source.labels, choice.planes, choice.min_area))
    assert survey.count(choice, parse_strategies(choice.strategies)) == (1, 2 * 3 * 2, 2 * 5 * 2)


def test_a_run_measures_what_evaluate_measures(source: Source, predictor: MeasuredPredictor) -> None:
    strategies = ("bound_box", "random_mask", "jittered_box", "corrective_clicks:2")
    scores = scores_of(measured(source, Choice(strategies=strategies, slices=0, seed=3)))
    simulation = Simulation(tuple(parse_strategies(strategies)), SliceChoice(min_area=20), seed=3)
    volume, labels = source.volume, source.labels
    steps = measure_model("volume", volume, labels, predictor, simulation, model="nano")
    expected = [score for step in steps for score in step.scores]

    def facts(score: SliceScore) -> tuple[Any, ...]:
        return score.view.index, score.label, score.strategy, score.dice, score.nsd, score.prompts

    assert sorted(map(facts, scores), key=str) == sorted(map(facts, expected), key=str)
    assert {score.patient for score in scores} == {"volume"}


def test_a_model_that_refuses_prompts_is_measured_on_the_others(
    source: Source, predictor: MeasuredPredictor
) -> None:
    predictor.accepts = frozenset({"box"})
    steps = measured(source, Choice(strategies=("bound_box", "center_mask"), slices=1))
    assert {score.strategy for score in scores_of(steps)} == {"bound_box"}
    warnings = [warning for step in steps for warning in step.warnings]
    assert warnings == ["nano takes no point prompts; center_mask was left out for it."]
    with pytest.raises(PromptError, match="tick another model"):
        measured(source, Choice(strategies=("center_mask",), slices=1))


def test_what_a_run_is_of_comes_with_its_first_answers(source: Source, predictor: MeasuredPredictor) -> None:
    steps = measured(source, Choice(slices=2, protocol="btcv-prompts"))
    (begun,) = [step for step in steps if step.begun is not None]
    assert begun is next(step for step in steps if step.scores)
    assert begun.begun.source is source
    assert begun.begun.run["protocol"] == "btcv-prompts"
    assert [len(step.baselines) for step in steps if step.baselines] == [len(scores_of(steps))]


def test_boxes_of_a_detector_are_checked_and_missed(
    source: Source, predictor: MeasuredPredictor, tmp_path: Path
) -> None:
    boxes = tmp_path / "boxes.csv"
    strategy = f"boxes:{boxes}"
    assert [one.name for one in parse_strategies([strategy], reads_files=False)] == [strategy]
    boxes.write_text("image,slice,organ,x0,y0,x1,y1\nvolume,0,liver,1,1,5,5\n", encoding="utf-8")
    steps = measured(source, Choice(frozenset({6}), (strategy,), slices=1))
    assert [score.dice for score in scores_of(steps)] == [0.0]
    assert "has no box of these organs on any slice" in steps[-1].warnings[0]
    boxes.write_text("image,slice,organ,x0,y0,x1,y1\nvolume,99,liver,1,1,5,5\n", encoding="utf-8")
    with pytest.raises(PromptError, match="slice 99 of volume"):
        measured(source, Choice(strategies=(strategy,), slices=1))


def test_the_mean_of_a_plot_is_that_of_the_table(make_score: Callable[..., SliceScore]) -> None:
    scores = [make_score(n, 1, 0.2) for n in range(5)]
    scores += [make_score(0, 2, 0.8), replace(make_score(0, 2, 0.4), volume="other")]
    assert mean_dice(scores) == pytest.approx((0.5 + 0.4) / 2)
    assert mean_dice(scores) == pytest.approx(
        summarised(scores, [])["models"]["nano"]["bound_box"]["mdice_volumes"]
    )


def test_closing_a_run_keeps_whole_slices_of_answers(source: Source, predictor: MeasuredPredictor) -> None:
    job = experiment_jobs.run(experiment_jobs.Request(source, Choice(slices=0), "cpu"))
    found = []
    for step in job:
        found += step.scores
        if found:
            job.close()
    assert len(found) in (2, 4)
    assert predictor.batches == 1


def test_what_measures_nothing_is_refused(source: Source, predictor: MeasuredPredictor) -> None:
    for choice, error in (
        (Choice(strategies=()), PromptError),
        (Choice(models=()), ModelError),
        (Choice(planes=()), ImageError),
        (Choice(organs=NO_ORGAN), LabelError),
    ):
        with pytest.raises(error):
            choice.check()
    with pytest.raises(LabelError, match="5000 or more pixels"):
        measured(source, Choice(min_area=5000))


def test_means_of_one_scan_have_intervals_over_its_slices(
    source: Source, predictor: MeasuredPredictor
) -> None:
    steps = measured(source, Choice(frozenset({6}), ("bound_box", "random_mask"), slices=0))
    rows = {(row.strategy, row.model): row for row in steps[-1].means.rows}
    assert set(rows) == {
        ("bound_box", "nano"),
        ("random_mask", "nano"),
        ("", "inscribed_ellipse"),
        ("", "filled_box"),
    }
    row = rows["bound_box", "nano"]
    scores = [score for score in scores_of(steps) if score.strategy == "bound_box"]
    assert row.dice == pytest.approx(np.mean([score.dice for score in scores]))
    assert (row.over, row.count) == ("slices", len(scores))
    assert row.low <= row.dice <= row.high


def test_the_interval_is_that_of_the_mean_of_organs(make_score: Callable[..., SliceScore]) -> None:
    rng = np.random.default_rng(1)
    scores = [make_score(index, label, rng.uniform()) for index in range(40) for label in (1, 2)]
    low, high = slice_interval(scores)
    dice = np.array([score.dice for score in scores])
    spread = 2 * 1.96 * dice.std() / np.sqrt(len(dice))
    assert low < dice.mean() < high
    assert high - low == pytest.approx(spread, rel=0.2)
    assert slice_interval(scores[:8]) is None  # four slices
    easy, hard = [[make_score(n, label, dice) for n in range(6)] for label, dice in ((1, 0.9), (2, 0.3))]
    uneven = [*easy, hard[0]]  # a third of the draws have the easy organ alone
    assert slice_interval(uneven)[0] < 0.6 < slice_interval(uneven)[1] < 0.85
    constant = [replace(score, dice=0.5) for score in scores]
    assert slice_interval(constant) == pytest.approx((0.5, 0.5))


@pytest.fixture
def make_score() -> Callable[..., SliceScore]:
    def make(index: int, label: int, dice: float, **others: Any) -> SliceScore:
        about = {"strategy": "bound_box", "model": "nano", "iou": dice / (2 - dice)} | others
        return SliceScore(
            volume="volume",
            organ=f"organ {label}",
            label=label,
            view=SliceView("axial", index),
            dice=dice,
            dice_oracle=None,
            iou_prediction=0.9,
            area_px=30,
            seconds=0.0,
            **about,
        )

    return make


@pytest.mark.parametrize(
    "strategy", ["bound_box", "random_3", "corrective_clicks:4", "bound_box+random_mask"]
)
def test_an_answer_is_drawn_again_from_its_prompts(
    source: Source, predictor: MeasuredPredictor, strategy: str
) -> None:
    lab = Laboratory()
    for score in scores_of(measured(source, Choice(strategies=(strategy,), slices=2))):
        sight = lab.look_at(score, source)
        assert lab.chosen is score
        assert sight.prediction is None
        loaded, again = outcome(experiment_jobs.look_again(sight, "nano", "cpu"))
        assert len(loaded) == 1  # the model, which was not at hand
        drawn, truth = again.prediction, again.truth
        assert 2 * (drawn & truth).sum() / (drawn.sum() + truth.sum()) == pytest.approx(score.dice)
        assert not again.is_changed
        sight = replace(sight, score=replace(score, dice=score.dice - 0.1))  # of other weights, say
        assert outcome(experiment_jobs.look_again(sight, "nano", "cpu"))[1].is_changed


def test_an_answer_that_was_given_on_the_body_alone_is_drawn_so() -> None:
    data = np.full((3, 96, 96), -1000, dtype=np.int16)
    data[:, 36:60, 36:60], data[:, 42:54, 44:52] = -80, 120
    volume = Volume(data, Grid.from_zyx(data.shape, (3.0, 3.0, 3.0)))
    labels = LabelVolume.like(volume)
    labels.data[...] = 6 * (data == 120)
    labels.data[2, 2, 2] = 6  # beside the body: this slice is shown whole
    crops: list[Any] = []

    class Watched(EmbeddingStore):
        def get_or_embed(self, *arguments: Any) -> Any:
            crops.append(arguments[3])
            return super().get_or_embed(*arguments)

    nano = load_predictor("nano")
    asked = Simulation(tuple(parse_strategies(["bound_box"])), SliceChoice(crop_to_body=True))
    lab, loaded = Laboratory(), LoadedModel(nano, Watched(None))
    lab.run = {"crop_to_body": True}
    for step in measure_model("volume", volume, labels, nano, asked, model="nano"):
        sight = lab.look_at(step.scores[0], Source(volume, labels))
        again = outcome(experiment_jobs.look_again(sight, "nano", "cpu", loaded))[1]
        assert dice(again.prediction, again.truth) == pytest.approx(step.scores[0].dice, abs=0.01)
    box = BodyBox.of(volume).on(SliceView("axial", 0))
    assert crops == [box, box, None]
    assert box is not None


def test_baselines_are_drawn_again_without_a_model(source: Source, predictor: MeasuredPredictor) -> None:
    steps = measured(source, Choice(slices=1))
    predictor.loaded.clear()
    for score in [one for step in steps for one in step.baselines]:
        _, again = outcome(experiment_jobs.look_again(Laboratory().look_at(score, source), "", "cpu"))
        drawn, truth = again.prediction, again.truth
        assert 2 * (drawn & truth).sum() / (drawn.sum() + truth.sum()) == pytest.approx(score.dice)
    assert not predictor.loaded


def test_answers_on_other_scans_and_labels_are_refused(
    source: Source, make_score: Callable[..., SliceScore]
) -> None:
    lab = Laboratory()
    lab.check_is_of(make_score(3, 6, 0.5), source)
    with pytest.raises(ImageError, match='on the scan "other"'):
        lab.look_at(replace(make_score(3, 6, 0.5), volume="other"), source)
    with pytest.raises(ImageError, match="axial slice 99"):
        lab.look_at(make_score(99, 6, 0.5), source)
    with pytest.raises(LabelError, match="show no organ 4"):
        lab.look_at(make_score(3, 4, 0.5), source)
    assert lab.chosen is None
    assert lab.sight is None


def test_the_laboratory_announces_answers_and_filters_them(make_score: Callable[..., SliceScore]) -> None:
    lab, heard = Laboratory(), []
    lab.added.connect(heard.append)
    lab.add([make_score(1, 1, 0.2), make_score(1, 2, 0.4)])
    lab.add([make_score(2, 1, 0.6, strategy="random_mask", model="other")])
    assert [len(scores) for scores in heard] == [2, 1]
    assert lab.choices() == (["bound_box", "random_mask"], ["nano", "other"], ["organ 1", "organ 2"])
    lab.shown = Shown(organ="organ 1")
    assert [score.dice for score in lab.shown_scores()] == [0.2, 0.6]
    lab.shown = Shown("bound_box", "nano", "organ 2")
    assert [score.dice for score in lab.shown_scores()] == [0.4]
    lab.chosen = lab.scores[0]
    lab.start(None, {}, {})
    assert not lab.scores
    assert lab.chosen is None
    assert lab.shown == Shown()


def test_models_are_called_by_the_last_part_of_their_path(tmp_path: Path) -> None:
    file = tmp_path / "a" / "mine.safetensors"
    file.parent.mkdir()
    file.touch()
    assert named_models(["nano", str(file), str(tmp_path / "b" / "nurse")]) == {
        "nano": "nano",
        "mine": str(file),
        "nurse": str(tmp_path / "b" / "nurse"),
    }
    twice = [str(tmp_path / "a"), str(tmp_path / "x" / "a")]
    assert named_models(twice) == dict(zip(twice, twice, strict=True))


def test_results_are_saved_and_read_back(
    source: Source, predictor: MeasuredPredictor, tmp_path: Path
) -> None:
    choice = Choice(strategies=("bound_box", "random_mask"), slices=2, protocol="btcv-prompts")
    steps = measured(source, choice)
    scores, baselines = scores_of(steps), [score for step in steps for score in step.baselines]
    models = {"nano": next(step.loaded[1] for step in steps if step.loaded is not None)}
    run = choice.facts({}) | {"model_sha256": {"nano": "measured with"}}
    results = SavedResults(scores, baselines, run, source, models, ("odd",))
    told, report = outcome(experiment_results.save_results(tmp_path, results))
    assert report == tmp_path / "report.html"
    assert [one.fraction for one in told] == pytest.approx([0, *(n / 7 for n in (1, 2, 3, 4, 5, 6, 6))])
    assert "Clicks and boxes on abdominal organs" in report.read_text(encoding="utf-8")
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(scores)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["run"]["model_sha256"] == {"nano": "measured with"}, "whatever is loaded now"
    assert summary["comparisons"]

    _, opened = outcome(experiment_results.open_results(tmp_path))
    assert [score.prompts for score in opened.scores] == [score.prompts for score in scores]
    assert [row.dice for row in opened.means.rows] == pytest.approx(
        [row.dice for row in steps[-1].means.rows], abs=1e-6
    )
    assert opened.run == summary["run"]
    assert opened.warnings == ("odd",)
    measures, findings = opened.means.study["tables"]
    assert measures["headings"] == [
        "prompt",
        "nano",
        "published test: original",
        "published test: fine-tuned",
    ]
    assert dict(findings["rows"])["a box beats clicks"] in ("holds", "does not hold")
    for title, kept in (("of test scans alone", True), (None, False)):
        measures["title"] = title
        summary["protocol"] = {"tables": [measures if kept else {"title": "damaged"}]}
        (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        _, opened = outcome(experiment_results.open_results(tmp_path))
        assert (opened.means.study["tables"][0]["title"] == title) is kept, "else made anew from the rows"


def test_folders_that_hold_no_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"has no results\.csv"):
        outcome(experiment_results.open_results(tmp_path))
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ExportError, match="choose another folder"):
        outcome(experiment_results.save_results(blocked, SavedResults([], [], {}, None, {})))
    (tmp_path / "results.csv").write_text("image,organ\n")
    with pytest.raises(ImageError, match="has no rows"):
        outcome(experiment_results.open_results(tmp_path))


def test_saving_on_a_full_disk_keeps_the_earlier_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_scores(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "results.csv").write_text("earlier\n")
    monkeypatch.setattr("napari_sam_med.evaluation.results_file.write_scores", write_scores)
    with pytest.raises(ExportError, match="No space left"):
        outcome(experiment_results.save_results(tmp_path, SavedResults([], [], {}, None, {})))
    assert (tmp_path / "results.csv").read_text() == "earlier\n"
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


@pytest.mark.parametrize("failing", ["baselines.csv", "summary.json"])
def test_saving_that_fails_half_way_leaves_no_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    for name in ("results.csv", "baselines.csv", "summary.json"):
        (tmp_path / name).write_text("earlier\n")
    calls: list[object] = []

    def write_scores(*_: object) -> None:
        calls.append(None)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    def write_json(path: Path, _: object) -> None:
        raise ExportError(f"{path} could not be written: No space left on device; choose another folder.")

    if failing == "summary.json":
        monkeypatch.setattr("napari_sam_med.segmentation.report.write_json", write_json)
    else:
        monkeypatch.setattr("napari_sam_med.evaluation.results_file.write_scores", write_scores)
    with pytest.raises(ExportError, match="No space left"):
        outcome(experiment_results.save_results(tmp_path, SavedResults([], [], {}, None, {})))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "baselines.csv",
        "results.csv",
        "summary.json",
    ]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"earlier\n"}


def test_the_labels_of_a_run_do_not_change_what_is_looked_at(volume: Volume) -> None:
    """A survey reads the labels as they are; names come from their table."""
    labels: LabelVolume = labels_of(volume)
    _, survey = outcome(experiment_jobs.survey(labels, ("axial", "coronal"), 20))
    assert survey.names == {1: "spleen", 6: "liver"}
    assert {labelled.view.plane for labelled in survey.slices} == {"axial", "coronal"}
    labels.data[:] = 0
    _, survey = outcome(experiment_jobs.survey(labels, ("axial",), 20))
    assert not survey.slices
