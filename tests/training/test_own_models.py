"""The list of cases, plans of runs and own models, as they lie in the user's folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from napari_sam_med.errors import ExportError
from napari_sam_med.evaluation.cases import read_cases
from napari_sam_med.training.own_models import (
    Plan,
    RunLock,
    case_list_path,
    clear_learning,
    clear_models,
    discard_run,
    finished_models,
    forget_plan,
    free_name,
    learning_bytes,
    model_folder,
    models_bytes,
    read_case_list,
    state_folder,
    unfinished_plan,
    write_case_list,
    write_plan,
)
from tests.training.ring_cases import write_case


def test_the_list_is_a_cases_file_and_keeps_what_is_on_a_drive_that_is_gone(tmp_path: Path) -> None:
    cases = [write_case(tmp_path, 1, depth=2), write_case(tmp_path, 2, depth=2, split="val")]
    write_case_list(case_list_path(), cases)
    assert case_list_path().read_text(encoding="utf-8").startswith("image,labels,split,names")
    [first, second] = read_cases(case_list_path())
    assert (first.image_path, first.names, second.split) == (cases[0].image_path, cases[0].names, "val")
    cases[0].image_path.unlink()
    assert [case.name for case in read_case_list(case_list_path())] == ["scan1", "scan2"]
    case_list_path().write_bytes(b"\xff\xfe\x00no csv")
    assert read_case_list(case_list_path()) == []
    assert read_case_list(tmp_path / "none.csv") == []


def test_a_plan_comes_back_as_it_was_until_its_model_is_finished(tmp_path: Path) -> None:
    cases = (write_case(tmp_path, 1, depth=2),)
    assert unfinished_plan() is None
    plan = Plan(cases, model_folder("mine"), recipe="btcv", epochs=3, views=0)
    write_plan(plan)
    found = unfinished_plan()
    assert found is not None
    assert replace(found, cases=()) == replace(plan, cases=())
    assert [case.image_path for case in found.cases] == [cases[0].image_path]
    (plan.output / "model.safetensors").touch()
    assert unfinished_plan() is None
    assert finished_models() == [plan.output]
    with pytest.raises(ExportError, match="finished model"):
        discard_run(plan.output)
    forget_plan(plan.output)
    assert [path.name for path in plan.output.iterdir()] == ["model.safetensors"]


def test_a_run_is_discarded_whole_and_its_name_is_free_again(tmp_path: Path) -> None:
    plan = Plan((write_case(tmp_path, 1, depth=2),), model_folder(free_name("nano")))
    write_plan(plan)
    (plan.output / "training").mkdir()
    (plan.output / "training" / "checkpoint.pt").touch()
    assert free_name("nano") == "my nano 2"
    discard_run(plan.output)
    assert free_name("nano") == "my nano"
    (plan.output).mkdir()
    (plan.output / "plan.json").write_text(json.dumps({"model": "nano"}), encoding="utf-8")
    assert unfinished_plan() is None  # a damaged plan is none


@pytest.mark.parametrize("name", ["", " ", "a/b", "..", "a\nb", "x:y"])
def test_names_that_are_no_folder_are_refused(name: str) -> None:
    with pytest.raises(ExportError, match="cannot be called"):
        model_folder(name)


def test_models_and_what_is_kept_to_learn_from_are_counted_and_cleared_apart(tmp_path: Path) -> None:
    done, stopped, busy = (model_folder(name) for name in ("done", "stopped", "busy"))
    for folder, n_bytes in ((done, 100), (stopped, 20), (busy, 3)):
        state_folder(folder).mkdir(parents=True)
        (state_folder(folder) / "checkpoint.pt").write_bytes(bytes(n_bytes))
    (done / "model.safetensors").write_bytes(bytes(4000))
    write_case_list(case_list_path(), [write_case(tmp_path, 1, depth=2)])
    listed = case_list_path().stat().st_size
    assert (models_bytes(), learning_bytes()) == (4000, 123 + listed)
    with RunLock(busy):
        assert clear_learning() == 120 + listed
        assert busy.is_dir()
    assert [folder.exists() for folder in (done, state_folder(done), stopped)] == [True, False, False]
    assert clear_models() == ([done], 4000)
    assert (models_bytes(), learning_bytes()) == (0, 3)
