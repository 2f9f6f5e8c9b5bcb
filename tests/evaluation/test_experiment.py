"""Experiments: what lies in the folder, cancelled, killed and carried on; and what is refused."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import SimpleITK

from napari_sam_med.errors import ExportError, ImageError, PromptError
from napari_sam_med.evaluation import experiment_folder
from napari_sam_med.evaluation.experiment import Experiment, model_titles, run_experiment
from napari_sam_med.evaluation.experiment_folder import locked_folder
from napari_sam_med.evaluation.measuring import SliceChoice, SliceScore
from napari_sam_med.evaluation.prompt_strategies import parse_strategies
from napari_sam_med.evaluation.results_file import read_results
from napari_sam_med.evaluation.running import Step
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.volume.replacement import Replacement
from tests.evaluation.experiment_cases import PROGRAM, small_experiment, write_cases

ROOT = Path(__file__).resolve().parents[2]
ROWS = 2 * (8 + 4) * 2 * 3  # cases, slices with an organ, seeds, strategies


@pytest.fixture(scope="module")
def nano() -> Predictor:
    return load_predictor("nano", device="cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, nano: Predictor) -> Path:
    """A folder with the cases, and the experiment done in ``out``."""
    folder = tmp_path_factory.mktemp("whole")
    write_cases(folder)
    list(run_experiment(small_experiment(folder), folder / "out", load=lambda _: nano))
    return folder


@pytest.fixture
def embedded(nano: Predictor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each slice that is embedded while measuring."""
    calls: list[int] = []
    embed = Predictor.embed

    def counting(self: Predictor, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return embed(self, *arguments, **options)

    monkeypatch.setattr(Predictor, "embed", counting)
    return calls


def _timeless(scores: list[SliceScore]) -> list[SliceScore]:
    return [replace(score, seconds=0.0) for score in scores]


def _results(folder: Path) -> list[SliceScore]:
    return _timeless(read_results(folder / "out" / "results.csv"))


def _run(experiment: Experiment, folder: Path, nano: Predictor, **options: Any) -> Iterator[Step]:
    return run_experiment(experiment, folder / "out", load=lambda _: nano, pages=False, **options)


def test_every_combination_has_one_row(whole: Path) -> None:
    scores = _results(whole)
    keys = {(s.volume, s.view, s.label, s.seed, s.strategy, s.model) for s in scores}
    assert len(scores) == len(keys) == ROWS
    assert {(s.patient, s.image) for s in scores} == {
        ("patient 0", "scan0.nii.gz"),
        ("patient 1", "scan1.nii.gz"),
    }
    assert all(s.nsd is not None and s.prompts is not None for s in scores)
    baselines = read_results(whole / "out" / "baselines.csv")
    assert len(baselines) == 2 * (8 + 4) * 2
    assert {s.model for s in baselines} == {"inscribed_ellipse", "filled_box"}
    assert {s.dice for s in baselines if s.model == "filled_box"} == {1.0}


def test_the_summary_says_what_can_be_concluded(whole: Path) -> None:
    summary = json.loads((whole / "out" / "summary.json").read_text())
    means = summary["models"]["nano"]["bound_box"]
    assert means["patients"] == 2
    low, high = means["ci95"]["mdice_volumes"]
    assert low <= means["mdice_volumes"] <= high
    assert sum(one["answers"] for one in means["iou_prediction"]["bins"]) == means["slices"] == 48
    assert 0 <= means["mnsd_volumes"] <= 1
    assert means["mdice_single_slices"] is None, "a box is answered with one mask"
    assert summary["models"]["nano"]["random_mask"]["mdice_single_slices"] is not None
    assert {one["between"] for one in summary["comparisons"]} == {"strategies"}
    assert {one["over"] for one in summary["comparisons"]} == {"slices"}
    assert summary["run"]["seeds"] == [0, 7]
    assert "<html" in (whole / "out" / "report.html").read_text()
    assert "# Evaluation" in (whole / "out" / "report.md").read_text()


def test_steps_bring_every_row_and_each_slice_is_embedded_once(
    whole: Path, tmp_path: Path, nano: Predictor, embedded: list[int]
) -> None:
    write_cases(tmp_path)
    steps = _run(small_experiment(tmp_path), tmp_path, nano)
    scores = []
    for step in steps:
        scores += step.scores
        if step.case.name == "case 1" and step.progress.done == 8:
            break
    assert len(embedded) == 16
    assert _timeless(scores) != []
    last = next(steps)
    assert last.summary is not None
    assert last.summary["models"]["nano"]["bound_box"]["slices"] == 48
    # what is on disk is rounded to six digits
    assert [round(s.dice, 6) for s in scores] == [s.dice for s in _results(tmp_path)]
    assert _results(tmp_path) == _results(whole)


def test_a_closed_run_is_carried_on(
    whole: Path, tmp_path: Path, nano: Predictor, embedded: list[int]
) -> None:
    write_cases(tmp_path)
    experiment = small_experiment(tmp_path)
    steps = _run(experiment, tmp_path, nano)
    for step in steps:
        if step.case.name == "case 1" and step.progress.done == 3:
            break
    steps.close()  # type: ignore[attr-defined]  # a generator
    assert len(embedded) == 8 + 3
    left = _results(tmp_path)
    assert left == _results(whole)[: len(left)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "baselines.csv",
        "experiment.json",
        "results.csv",
    ]
    embedded.clear()
    again = [step for step in _run(experiment, tmp_path, nano) if step.view is not None]
    assert [step.is_new for step in again if step.scores] == [False] * 10 + [True] * 6
    assert _results(tmp_path) == _results(whole)
    assert len(read_results(tmp_path / "out" / "baselines.csv")) == 48
    embedded.clear()
    done = list(_run(experiment, tmp_path, nano))
    assert not any(step.is_new for step in done if step.view is not None), "all was there"
    assert done[-1].summary is not None


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path, nano: Predictor) -> None:
    write_cases(tmp_path, 1)
    experiment = small_experiment(tmp_path, 1, "bound_box")
    steps = _run(experiment, tmp_path, nano)
    next(steps)
    with pytest.raises(ExportError, match=r"Another run writes its results into .* wait for it"):
        next(_run(experiment, tmp_path, nano, resume=False))
    rest = list(steps)
    assert rest[-1].summary is not None
    assert len(_results(tmp_path)) == 2 * (8 + 4), "the other run took nothing away"
    assert not (tmp_path / "out" / ".lock").exists()
    next(_run(experiment, tmp_path, nano))


@pytest.mark.slow
def test_a_killed_run_is_carried_on_without_a_double_or_a_missing_row(
    whole: Path, tmp_path: Path, nano: Predictor
) -> None:
    write_cases(tmp_path)
    results = tmp_path / "out" / "results.csv"
    for rows_before_the_kill in (12, 60):
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            seen = 0
            while seen < rows_before_the_kill:
                seen += int(process.stdout.readline())
            process.kill()  # SIGKILL: nothing is cleaned up
        assert process.returncode == -9
        assert not (tmp_path / "out" / "summary.json").exists()
        with results.open("a", encoding="utf-8") as file:
            file.write(results.read_text().splitlines()[-1][:40])  # a row that was being written
    list(_run(small_experiment(tmp_path), tmp_path, nano))
    assert _results(tmp_path) == _results(whole)


def test_wherever_the_file_ends_the_rest_is_measured(tmp_path: Path, nano: Predictor) -> None:
    write_cases(tmp_path)
    experiment = replace(small_experiment(tmp_path), cases=small_experiment(tmp_path).cases[1:])
    list(_run(experiment, tmp_path, nano))
    complete = _results(tmp_path)
    path = tmp_path / "out" / "results.csv"
    for cut in (3, 30, 190, 400):
        (tmp_path / "out" / "summary.json").unlink()
        path.write_bytes(path.read_bytes()[:-cut])
        list(_run(experiment, tmp_path, nano))
        assert _results(tmp_path) == complete, cut


def test_another_experiment_is_refused_or_replaced(whole: Path, tmp_path: Path, nano: Predictor) -> None:
    write_cases(tmp_path, 1)
    first = small_experiment(tmp_path, 1, "bound_box")
    list(_run(first, tmp_path, nano))
    before = (tmp_path / "out" / "results.csv").read_text()
    others = {
        "seeds": replace(first, seeds=(0, 8)),
        "strategies": replace(first, strategies=tuple(parse_strategies(["larger_box"]))),
        "min_area": replace(first, choice=SliceChoice(min_area=6)),
        "organs": replace(first, organs=("liver",)),
        "cases": replace(first, cases=(replace(first.cases[0], name="other"),)),
    }
    for differs, other in others.items():
        with pytest.raises(ExportError, match=rf"another experiment \(other {differs}\).*another folder"):
            list(_run(other, tmp_path, nano))
    assert (tmp_path / "out" / "results.csv").read_text() == before
    assert (tmp_path / "out" / "summary.json").exists()
    (tmp_path / "out" / "experiment.json").unlink()
    with pytest.raises(ExportError, match=r"no experiment\.json"):
        list(_run(first, tmp_path, nano))
    list(_run(others["organs"], tmp_path, nano, resume=False))
    assert {score.organ for score in _results(tmp_path)} == {"liver"}


def test_other_labels_of_the_same_size_are_another_experiment(tmp_path: Path, nano: Predictor) -> None:
    write_cases(tmp_path, 1)
    labels = SimpleITK.ReadImage(str(tmp_path / "labels0.nii.gz"))
    first = small_experiment(tmp_path, 1, "bound_box")
    others = []
    for name, drawn in (("a.nii", labels), ("b.nii", labels == 1)):
        SimpleITK.WriteImage(SimpleITK.Cast(drawn, SimpleITK.sitkUInt8), str(tmp_path / name))
        others.append(replace(first, cases=(replace(first.cases[0], labels_path=tmp_path / name),)))
    assert (tmp_path / "a.nii").stat().st_size == (tmp_path / "b.nii").stat().st_size
    list(_run(others[0], tmp_path, nano))
    with pytest.raises(ExportError, match=r"\(other cases\)"):
        list(_run(others[1], tmp_path, nano))


def test_rows_of_an_experiment_that_is_replaced_are_never_those_of_the_new_one(
    tmp_path: Path, nano: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cases(tmp_path, 1)
    first = small_experiment(tmp_path, 1, "bound_box")
    list(_run(first, tmp_path, nano))
    put_in_place = Replacement.put_in_place

    def stopped_before_the_rows(self: Replacement) -> None:
        if self.target.name == "results.csv":
            raise KeyboardInterrupt
        put_in_place(self)

    monkeypatch.setattr(Replacement, "put_in_place", stopped_before_the_rows)
    with pytest.raises(KeyboardInterrupt):
        list(_run(replace(first, seeds=(0, 8)), tmp_path, nano, resume=False))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["baselines.csv", "experiment.json"]


def test_earlier_results_are_replaced_by_the_first_answers_and_one_step_before_says_so(
    tmp_path: Path, nano: Predictor
) -> None:
    write_cases(tmp_path, 1)
    first = small_experiment(tmp_path, 1, "bound_box")
    out = tmp_path / "out"
    list(_run(first, tmp_path, nano))

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}

    before = files()
    steps = _run(replace(first, seeds=(0, 8)), tmp_path, nano, resume=False)
    said = next(step for step in steps if step.warnings)
    assert said.warnings == (f"replaces the earlier results in {out}",)
    assert (said.scores, said.view, said.is_new) == ([], None, False)
    assert files() == before
    assert next(steps).scores != []
    assert sorted(files()) == ["baselines.csv", "experiment.json", "results.csv"]
    assert {score.seed for score in _results(tmp_path)} == {0, 8}
    assert len(read_results(out / "baselines.csv")) == 2 * (8 + 4)
    *_, last = steps
    assert last.summary is not None
    assert last.summary["warnings"] == []


def test_a_full_disk_takes_no_earlier_results_away(
    tmp_path: Path, nano: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cases(tmp_path, 1)
    first = small_experiment(tmp_path, 1, "bound_box")
    list(_run(first, tmp_path, nano))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(experiment_folder, "write_header", Mock(side_effect=full))
    with pytest.raises(ExportError, match="No space left on device"):
        list(_run(replace(first, seeds=(0, 8)), tmp_path, nano, resume=False))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_folder_goes_again_when_nothing_is_written_into_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for folder in (tmp_path / "mine", tmp_path / "mine" / "new" / "out"):
        with locked_folder(folder):
            assert folder.is_dir()
    assert (tmp_path / "mine").is_dir()
    assert list((tmp_path / "mine").iterdir()) == []
    with locked_folder(tmp_path / "mine" / "new" / "out"):
        (tmp_path / "mine" / "new" / "kept").touch()
    assert [path.name for path in (tmp_path / "mine" / "new").iterdir()] == ["kept"]
    too_long = tmp_path / "mine" / "other" / ("x" * 300)
    with pytest.raises(ExportError, match="cannot be made"), locked_folder(too_long):
        pass
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["new"]


def test_an_organ_whose_name_two_labels_have_is_there(tmp_path: Path, nano: Predictor) -> None:
    write_cases(tmp_path, 1)
    first = small_experiment(tmp_path, 1, "bound_box")
    odd = replace(first.cases[0], names='{"1": "kidney", "2": "Kidney"}')
    same = replace(first.cases[0], names='{"1": "kidney", "2": "kidney"}')
    for one, organ, labels in (
        (odd, "kidney ", {1, 2}),
        (same, "Kidney", {1, 2}),
        (same, "kidney (2)", {2}),
    ):
        *_, last = _run(replace(first, cases=(one,), organs=(organ,)), tmp_path, nano, resume=False)
        assert last.warnings == ()
        assert {score.label for score in _results(tmp_path)} == labels


def test_a_file_that_was_changed_is_refused(tmp_path: Path, nano: Predictor) -> None:
    write_cases(tmp_path, 1)
    experiment = small_experiment(tmp_path, 1, "bound_box")
    list(_run(experiment, tmp_path, nano))
    path = tmp_path / "out" / "results.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3] + lines[4:]))
    with pytest.raises(ExportError, match="a file that was changed cannot be carried on"):
        list(_run(experiment, tmp_path, nano))


def test_models_strategies_and_organs_that_do_not_fit_are_told(
    tmp_path: Path, nano: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cases(tmp_path, 1)
    experiment = replace(small_experiment(tmp_path, 1), organs=("Liver", "spleen"))
    monkeypatch.setattr(Predictor, "accepts", property(lambda _: frozenset({"box"})))
    steps = list(_run(experiment, tmp_path, nano))
    assert steps[0].warnings == (
        "nano takes no point prompts; random_mask is left out for it",
        "nano takes no mask and no point prompts; corrective_clicks:2 is left out for it",
    )
    assert steps[-1].warnings == ("no slice shows the organ spleen",)
    assert steps[-1].summary is not None
    assert steps[-1].summary["warnings"] == [*steps[0].warnings, *steps[-1].warnings]
    with pytest.raises(ImageError, match=r"pixels of spleen; .* its labels have liver \(1\)"):
        list(_run(replace(experiment, organs=("spleen",)), tmp_path, nano, resume=False))
    clicks = replace(experiment, strategies=tuple(parse_strategies(["random_mask"])))
    with pytest.raises(PromptError, match="bound_box"):
        list(_run(clicks, tmp_path, nano, resume=False))
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be made"):
        list(run_experiment(experiment, tmp_path / "file" / "out", load=lambda _: nano))


def test_embeddings_are_taken_from_a_store(tmp_path: Path, nano: Predictor, embedded: list[int]) -> None:
    write_cases(tmp_path, 1)
    experiment = small_experiment(tmp_path, 1, "bound_box")
    store = EmbeddingStore(tmp_path / "store")
    measured = []
    for _ in range(2):
        steps = _run(experiment, tmp_path, nano, store=store, resume=False)
        measured.append([score for step in steps if step.summary is None for score in step.scores])
        assert len(store) == 8
    assert _timeless(measured[0]) == _timeless(measured[1])


def test_models_are_called_by_the_last_part_of_their_path(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tuned.safetensors").touch()
    first, second = (str(tmp_path / folder / "tuned.safetensors") for folder in "ab")
    assert model_titles(["nano", first, "nano"]) == {"nano": "nano", "tuned": first}
    assert model_titles([first, second]) == {first: first, second: second}
