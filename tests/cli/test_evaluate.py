"""``evaluate``: the bundled phantom measured, files as the contract has them, clean refusals and ends."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med.cli import main
from napari_sam_med.evaluation.experiment_folder import ExperimentFolder
from napari_sam_med.evaluation.prompt_strategies import STRATEGIES
from napari_sam_med.sam.model_registry import NANO_WEIGHTS
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sample_data import sample_labels, sample_volume
from tests.cli.cli_scan import Run, Scan, in_wide_field, make_scan

Runner = Callable[..., Run]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
COLUMNS = (
    "image,organ,label,plane,slice,strategy,model,dice,iou,dice_oracle,iou_prediction,area_px,seconds,seed,"
    "patient,case,nsd,hd95_mm,iou_oracle,dice_single,iou_single,prompts"
)


@pytest.fixture
def _no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reports take most of the time of a small evaluation; for tests of rows and messages alone."""
    monkeypatch.setattr(ExperimentFolder, "write_pages", lambda *_: None)


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_phantom_is_measured(run: Runner, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    answer = run(
        "evaluate",
        *("--image", sample_volume(), "--labels", sample_labels(), "--every", "8", "-o", out),
        *("--strategies", "bound_box,corrective_clicks", "--models", "nano", "--min-area", "30", "--json"),
    )
    assert answer.status == 0, answer.err
    assert answer.err == ""
    summary = json.loads(answer.out)
    assert json.loads((out / "summary.json").read_text()) == summary
    assert (out / "results.csv").read_text().splitlines()[0] == COLUMNS
    rows = _rows(out)
    strategies = ["bound_box", *(f"corrective_clicks:{n}" for n in (1, 3, 5))]
    assert list(summary["models"]["nano"]) == strategies
    for strategy, means in summary["models"]["nano"].items():
        own = [row for row in rows if row["strategy"] == strategy]
        assert means["slices"] == len(own) == len(rows) / 4
        assert means["mdice_slices"] == pytest.approx(np.mean([float(row["dice"]) for row in own]), abs=1e-6)
        liver = [float(row["iou"]) for row in own if row["organ"] == "liver"]
        assert means["organs"]["liver"]["iou"] == pytest.approx(np.mean(liver), abs=1e-6)
    assert {int(row["slice"]) % 8 for row in rows} == {0}
    assert min(int(row["area_px"]) for row in rows) >= 30
    assert {row["dice_oracle"] != "" for row in rows if row["strategy"] == "corrective_clicks:1"} == {True}
    assert {row["dice_oracle"] for row in rows if row["strategy"] != "corrective_clicks:1"} == {""}
    assert {(row["image"], row["plane"], row["model"], row["seed"]) for row in rows} == {
        (str(sample_volume()), "axial", "nano", "0")
    }
    dice = {name: means["mdice_organs"] for name, means in summary["models"]["nano"].items()}
    assert dice["bound_box"] > summary["baselines"]["inscribed_ellipse"]["mdice_organs"] > 0.6
    assert dice["corrective_clicks:5"] > dice["corrective_clicks:1"]
    assert "# Evaluation" in (out / "report.md").read_text()


def _evaluate(run: Runner, scan: Scan, out: Path, *more: str | Path) -> Run:
    return run("evaluate", "--image", scan.volume, "--labels", scan.labels, "-o", out, *more)


def test_models_are_shown_the_body_alone_but_for_slices_with_labels_outside_it(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_wide_field(scan)
    file = nib.load(scan.labels)
    labels = np.asarray(file.dataobj).copy()
    labels[2:5, 2:5, 3] = 6  # in the air
    nib.save(nib.Nifti1Image(labels, file.affine), scan.labels)
    crops = []
    embed = Predictor.embed

    def watched(self: Predictor, image: Any, spacing: Any, crop_xyxy: Any = None) -> Any:
        crops.append(crop_xyxy)
        return embed(self, image, spacing, crop_xyxy)

    monkeypatch.setattr(Predictor, "embed", watched)
    out = tmp_path / "cropped"
    answer = _evaluate(run, scan, out, "--crop-to-body", "--json")
    assert answer.status == 0, answer.err
    measured, pictures = crops[:9], crops[9:]
    assert len(set(measured) - {None}) == 1
    assert measured.count(None) == 1
    assert set(pictures) <= set(measured)
    assert json.loads(answer.out)["run"]["crop_to_body"] is True
    assert "shown the box of the body alone" in (out / "report.md").read_text()
    assert "drawn is another answer" not in (out / "report.html").read_text()
    assert "other crop_to_body" in _evaluate(run, scan, out, "--resume").error


@pytest.mark.usefixtures("_no_pages")
def test_the_same_seed_gives_the_same_rows_and_another_one_others(
    run: Runner, scan: Scan, tmp_path: Path
) -> None:
    def measured(seed: int) -> list[dict[str, str]]:
        out = tmp_path / f"seed{seed}"
        assert _evaluate(run, scan, out, "-s", "jittered_box:0.2", "--seed", str(seed)).status == 0
        return [{key: row[key] for key in row if key not in ("seconds", "seed")} for row in _rows(out)]

    assert measured(1) == measured(1)
    assert measured(1) != measured(2)


def test_tables_and_names_are_printed(run: Runner, scan: Scan, tmp_path: Path) -> None:
    cases = tmp_path / "cases.csv"
    cases.write_text("name,image,labels\nA,ct.nii.gz,truth.nii.gz\nB,ct.nii.gz,truth.nii.gz\n")
    answer = run("evaluate", "-c", cases, "--names", "btcv", "--organs", "-o", tmp_path / "out")
    assert answer.status == 0, answer.err
    for word in ("mean of volumes", "ellipse", "liver", "report.md"):
        assert word in answer.out
    assert {(row["image"], row["organ"], row["label"]) for row in _rows(tmp_path / "out")} == {
        ("ct.nii.gz", "liver", "6")
    }


@pytest.mark.usefixtures("_no_pages")
def test_other_planes_and_checkpoint_files(run: Runner, scan: Scan, tmp_path: Path) -> None:
    shutil.copy(NANO_WEIGHTS, tmp_path / "step_100.safetensors")
    answer = _evaluate(
        run,
        scan,
        tmp_path / "out",
        *("--planes", "coronal,sagittal", "--every", "5", "--models"),
        f"{tmp_path / 'step_100.safetensors'},nano",
    )
    assert answer.status == 0, answer.err
    rows = _rows(tmp_path / "out")
    assert {row["plane"] for row in rows} == {"coronal", "sagittal"}
    assert {row["model"] for row in rows} == {"step_100", "nano"}
    by_model = [[row["dice"] for row in rows if row["model"] == name] for name in ("step_100", "nano")]
    assert by_model[0] == by_model[1]


def test_an_interrupted_run_leaves_whole_rows_and_nothing_of_an_earlier_run(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert _evaluate(run, scan, out).status == 0
    whole = (out / "results.csv").read_text()
    answers = Predictor.predict_batch
    calls = []

    def impatient(self: Predictor, embedding: Any, prompts: Sequence[Any], **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answers(self, embedding, prompts, **options)

    monkeypatch.setattr(Predictor, "predict_batch", impatient)
    answer = _evaluate(run, scan, out)
    assert answer.status == 130
    assert answer.err.splitlines() == [
        f"warning: replaces the earlier results in {out}",
        "error: interrupted; the same command with --resume carries on where this one stopped.",
    ]
    left_files = {path.name for path in out.iterdir() if path.is_file()}
    assert left_files == {"results.csv", "baselines.csv", "experiment.json"}

    def timeless(text: str) -> list[list[str]]:
        return [line.split(",")[:12] for line in text.splitlines()]

    left = (out / "results.csv").read_text()
    assert timeless(left) == timeless(whole)[:3]
    assert left.endswith("\n")


def _files(folder: Path) -> dict[str, bytes]:
    """What every file in a folder holds."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _no_embedding(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished experiment."""
    folder = tmp_path_factory.mktemp("earlier")
    measured, out = make_scan(folder), folder / "out"
    files = ("-i", measured.volume, "-l", measured.labels, "-o", out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_SAM_MED_HOME", str(folder / "home"))
        assert main(["evaluate", *map(str, files), "--every", "4"]) == 0
    return out


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-i", "ct.nii.gz", "-l", "ct.nii.gz"], "Give its label file"),
        (["-c", "cases.csv"], "Give its label file"),
        (["-i", "ct.nii.gz", "-l", "prompts.json"], "prompts.json"),
        (["-i", "ct.nii.gz", "-l", "truth.nii.gz", "--only", "spleen"], "pixels of spleen"),
        (["-i", "ct.nii.gz", "-l", "truth.nii.gz", "-m", "giant"], "nano"),
    ],
)
def test_a_refused_run_leaves_the_folder_as_it_was(
    run: Runner,
    scan: Scan,
    earlier: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    says: str,
    there: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cases.csv").write_text("image,labels\nct.nii.gz,ct.nii.gz\nct.nii.gz,truth.nii.gz\n")
    out = Path("new") / "out"
    if there:
        shutil.copytree(earlier, out)
    answer = run("evaluate", *options, "-o", out)
    assert says in answer.error
    assert "replaces" not in answer.err
    if there:
        assert _files(out) == _files(earlier)
    else:
        assert not Path("new").exists()


def test_what_is_stopped_before_the_first_answer_leaves_the_folder_as_it_was(
    run: Runner, scan: Scan, earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, new = tmp_path / "out", tmp_path / "new"
    shutil.copytree(earlier, out)
    monkeypatch.setattr(Predictor, "embed", _no_embedding)
    for folder in (out, new):
        assert _evaluate(run, scan, folder).status == 130
    assert _files(out) == _files(earlier)
    assert not new.exists()


@pytest.mark.usefixtures("_no_pages")
def test_that_earlier_results_are_replaced_is_said(
    run: Runner, scan: Scan, earlier: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(earlier, out)
    again = _evaluate(run, scan, out, "--every", "4", "--resume")
    assert "another experiment" in again.error, "its scan lies elsewhere"
    assert _files(out) == _files(earlier)
    answer = _evaluate(run, scan, out, "-s", "random_mask", "--every", "3", "--json")
    assert answer.status == 0
    assert answer.err == f"warning: replaces the earlier results in {out}\n"
    assert json.loads(answer.out)["warnings"] == []
    assert {row["strategy"] for row in _rows(out)} == {"random_mask"}
    again = _evaluate(run, scan, out, "-s", "random_mask", "--every", "3", "--resume")
    assert (again.status, again.err) == (0, "")
    new = _evaluate(run, scan, tmp_path / "new", "--every", "4")
    assert (new.status, new.err) == (0, "")


def test_an_interrupted_run_is_resumed_and_another_one_refused(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("-s", "bound_box,random_mask", "--seeds", "2", "--only", "6", "--most-slices", "4")
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert _evaluate(run, scan, whole, *options).status == 0
    embed, calls = Predictor.embed, []

    def impatient(self: Predictor, *arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed(self, *arguments, **more)

    monkeypatch.setattr(Predictor, "embed", impatient)
    assert _evaluate(run, scan, out, *options, "--resume").status == 130
    assert len(_rows(out)) == 2 * 4
    refused = _evaluate(run, scan, out, *options, "--resume", "--seed", "1")
    assert "another experiment (other seed and seeds)" in refused.error
    calls.clear()
    calls += [1] * 3
    assert _evaluate(run, scan, out, *options, "--resume").status == 0

    def timeless(folder: Path) -> list[dict[str, str]]:
        return [row | {"seconds": ""} for row in _rows(folder)]

    assert timeless(out) == timeless(whole)
    assert len(timeless(out)) == 4 * 2 * 2
    assert {row["seed"] for row in _rows(out)} == {"0", "1"}
    assert (out / "report.html").exists()


def test_a_protocol_is_measured_and_stands_beside_what_was_published(
    run: Runner, scan: Scan, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    answer = _evaluate(run, scan, out, "--protocol", "btcv-prompts", "--every", "4")
    assert answer.status == 0, answer.err
    for text in ("one central point", "0.8649", "a box beats clicks"):
        assert text in answer.out
        assert text in (out / "report.html").read_text()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["protocol"]["name"] == "btcv-prompts"
    assert {"bound_box", "larger_box:5", "random_3"} <= set(summary["models"]["nano"])
    assert 'no protocol "btcv"' in _evaluate(run, scan, out, "--protocol", "btcv").error


@pytest.mark.usefixtures("_no_pages")
def test_strategies_that_a_model_does_not_take_are_left_out(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "accepts", property(lambda _: frozenset({"box"})))
    answer = _evaluate(run, scan, tmp_path / "out", "-s", "center_distance,bound_box,corrective_clicks:2")
    assert answer.status == 0
    assert answer.err.splitlines() == [
        "warning: nano takes no point prompts; center_distance is left out for it",
        "warning: nano takes no mask and no point prompts; corrective_clicks:2 is left out for it",
    ]
    assert {row["strategy"] for row in _rows(tmp_path / "out")} == {"bound_box"}
    assert "bound_box" in _evaluate(run, scan, tmp_path / "out", "-s", "center_distance").err.splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["-s", "boxes"], "corrective_clicks:CLICKS"),
        (["-s", ","], "at least one"),
        (["-m", "giant"], "nano"),
        (["-m", ","], "--models"),
        (["--planes", "oblique"], "axial, coronal or sagittal"),
        (["--names", "btvc"], "btcv"),
        (["--min-area", "0"], "--min-area"),
        (["--min-area", "5000"], "lower --min-area"),
        (["--seed", "-1"], "--seed"),
        (["--seeds", "0"], "--seeds"),
        (["--only", "spleen"], "pixels of spleen"),
        (["--cases", "cases.csv"], "either --image"),
    ],
)
def test_refusals(run: Runner, scan: Scan, tmp_path: Path, more: list[str], says: str) -> None:
    assert says in _evaluate(run, scan, tmp_path / "out", *more).error
    assert not (tmp_path / "out" / "summary.json").exists()


def test_help_names_the_strategies(run: Runner) -> None:
    answer = run("evaluate", "--help")
    assert answer.status == 0
    for family in STRATEGIES:
        assert family in answer.out


def test_refusals_of_what_is_measured(run: Runner, scan: Scan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "--output" in run("evaluate").error
    assert "either --image" in run("evaluate", "-o", out).error
    assert "give both" in run("evaluate", "--image", scan.volume, "-o", out).error
    assert "none.csv" in run("evaluate", "--cases", tmp_path / "none.csv", "-o", out).error
    assert "leave it out" in run("evaluate", "-c", scan.prompts, "-l", scan.labels, "-o", out).error
    assert "no label file" in run("evaluate", "-i", scan.volume, "-l", tmp_path / "no.nii", "-o", out).error
    assert "cannot be made" in _evaluate(run, scan, scan.volume / "out").error
    cases = tmp_path / "results.csv"
    cases.write_text("image,labels\nct.nii.gz,truth.nii.gz\n")
    assert "overwritten" in run("evaluate", "-c", cases, "-o", tmp_path).error
    assert cases.read_text().startswith("image,labels\nct")


def test_what_the_page_shows_is_so(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(sample_volume(), tmp_path / "ct.nii.gz")
    shutil.copy(sample_labels(), tmp_path / "labels.nii.gz")
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"^```csv\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        (tmp_path / "cases.csv").write_text(block)
    commands = re.findall(r"^napari-sam-med (evaluate .*)$", PAGE, flags=re.MULTILINE)
    assert len(commands) >= 2
    for command in commands:
        assert run(*command.split(), "--every", "12").status == 0, command
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    (means,) = (next(iter(strategies.values())) for strategies in summary["models"].values())
    for key in (*means, *summary):
        assert f"`{key}`" in PAGE, key
    for name in (*COLUMNS.split(","), *summary["baselines"]):
        assert f"`{name}`" in PAGE, name
    (python,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(python, "evaluation.md", "exec"), names)
    assert names["summary"]["models"]["nano"]["bound_box"]["slices"] > 10
