"""What every command has in common: dispatch, exit status, one line an error, clean ends."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from napari_sam_med import __version__
from napari_sam_med.cli import viewer
from napari_sam_med.errors import CancelledError
from tests.cli.cli_scan import Run, Scan, write_prompts

Runner = Callable[..., Run]


def test_help_names_every_command(run: Runner) -> None:
    for flag in ("--help", "-h"):
        answer = run(flag)
        assert answer.status == 0
        assert answer.err == ""
        for word in ("demo", "segment", "convert", "models", "cache", "[VOLUME]", "Not for clinical use"):
            assert word in answer.out


@pytest.mark.parametrize("command", ["demo", "segment", "convert", "models", "cache", "open"])
def test_every_command_has_help(run: Runner, command: str) -> None:
    answer = run(command, "--help")
    assert answer.status == 0
    assert "Usage:" in answer.out
    assert "<bool>" not in answer.out
    assert "{" not in answer.out


def test_help_shows_the_options_of_the_bare_command(run: Runner) -> None:
    for option in ("--labels", "--model", "--device"):
        assert f"│ {option} " in run("--help").out


def test_version(run: Runner) -> None:
    assert run("--version").out.strip() == f"napari-sam-med {__version__}"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["segment"], "Missing argument"),
        (["segment", "ct.nii.gz"], "--prompts"),
        (["segment", "ct.nii.gz", "--prompts", "p.json"], "--output"),
        (["segment", "a", "b", "--prompts", "p.json", "-o", "l.nii.gz"], "extra argument"),
        (["segment", "a", "--prompts", "p.json", "-o", "l.nii.gz", "--precision", "fp8"], "fp32"),
        (["segment", "a", "--prompts", "p.json", "-o", "l.nii.gz", "--preprocessing", "x"], "medsam"),
        (["segment", "a", "--prompts", "p.json", "-o", "l.nii.gz", "--quick"], "--quick"),
        (["convert"], "Missing argument"),
        (["models", "remove"], "remove"),
        (["models", "fetch"], "Missing argument"),
        (["cache", "fill"], "fill"),
        (["--quick"], "--quick"),
        (["a.nii", "b.nii"], "extra argument"),
        (["segmant", "a.nii"], '"segment"'),
        (["segment", "a", "-p", "p.json", "-o", "a.nii", "-o", "b.nii"], "'-o': given 2 times"),
        (["segment", "a", "-p", "p.json", "-o", "l.nii", "--output=b.nii"], "'-o': given 2 times"),
        (["segment", "a", "-p", "p.json", "-o", "l.nii", "--propagate", "--no-propagate"], "given 2 times"),
        (["a.nii", "-l", "b.nii", "-l", "c.nii"], "given 2 times"),
    ],
)
def test_usage_errors_are_one_line(run: Runner, argv: list[str], says: str) -> None:
    assert says in run(*argv).error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{missing}", "--prompts", "{prompts}", "-o", "{out}"], "no volume"),
        (["{folder}", "--prompts", "{prompts}", "-o", "{out}"], "is a folder"),
        (["{prompts}", "--prompts", "{prompts}", "-o", "{out}"], "prompts.json"),
        (["{volume}", "--prompts", "{missing}", "-o", "{out}"], "no prompts file"),
        (["{volume}", "--prompts", "{folder}", "-o", "{out}"], "is a folder"),
        (["{volume}", "--prompts", "{volume}", "-o", "{out}"], "not text"),
        (["{volume}", "--prompts", "{bad}", "-o", "{out}"], "line 1"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{folder}/none/l.nii.gz"], "does not exist"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{folder}"], ".nii.gz"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{folder}/l.png"], ".seg.nrrd"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{volume}"], "overwritten"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{out}", "--report", "{out}"], "another name"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{out}", "--report", "{prompts}"], "overwritten"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{out}", "--report", "{folder}"], "is a folder"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{out}", "--report", os.devnull], "is a device"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{out}", "--window", "wide"], "soft-tissue"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{out}", "--window", "5,5"], "5"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{out}", "--model", "giant"], "mobile_sam"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{out}", "--model", "sam_vit_b"], "fetch sam_vit_b"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{out}", "--model", "{prompts}"], "prompts.json"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{out}", "--model", "{folder}"], "finetune"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{out}", "--device", "tpu"], "cuda:N"),
        (["{volume}", "--prompts", "{prompts}", "-o", "{out}", "--preprocessing", "sam"], "nano"),
    ],
)
def test_user_errors_are_one_line(
    run: Runner, scan: Scan, tmp_path: Path, arguments: list[str], says: str
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    places = {
        "volume": scan.volume,
        "prompts": scan.prompts,
        "missing": tmp_path / "missing.nii.gz",
        "folder": tmp_path,
        "bad": bad,
        "out": tmp_path / "out.nii.gz",
    }
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert says in run("segment", *(argument.format_map(places) for argument in arguments)).error
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_missing_gpu_is_a_user_error(run: Runner, scan: Scan, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    answer = run("segment", scan.volume, "-p", scan.prompts, "-o", tmp_path / "o.nii", "--device", "cuda")
    assert "cuda" in answer.error
    assert "cpu" in answer.error


def test_refusals_in_prompts_name_their_place(run: Runner, scan: Scan, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.json", {"label": 1, "points": [{"at": [1, 2, 99]}]})
    answer = run("segment", scan.volume, "--prompts", prompts, "-o", tmp_path / "out.nii.gz")
    assert "objects[0].points[0].at" in answer.error


def _raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("end", [KeyboardInterrupt(), CancelledError("cancelled")])
def test_interruption_ends_cleanly(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    monkeypatch.setattr("napari_sam_med.segmentation.from_prompts.propagate", _raising(end))
    answer = run("segment", scan.volume, "--prompts", scan.prompts, "-o", tmp_path / "out.nii.gz")
    assert answer.status == 130
    assert answer.err.splitlines()[-1].startswith("error: interrupted")
    assert "Traceback" not in answer.err
    assert not (tmp_path / "out.nii.gz").exists()


def test_defects_keep_their_traceback(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_sam_med.segmentation.from_prompts.propagate", _raising(RuntimeError("oops")))
    answer = run("segment", scan.volume, "--prompts", scan.prompts, "-o", tmp_path / "out.nii.gz")
    assert answer.status == 1
    assert "RuntimeError: oops" in answer.err
    assert answer.err.splitlines()[-1].startswith("error: this is a defect")


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left"), PermissionError(errno.EACCES, "Denied", "x.nii"), MemoryError()],
)
def test_the_machines_limits_are_no_defects(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr("napari_sam_med.segmentation.from_prompts.propagate", _raising(error))
    assert run("segment", scan.volume, "--prompts", scan.prompts, "-o", tmp_path / "out.nii.gz").error


def test_full_disk_leaves_the_previous_files(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, report = tmp_path / "out.nii.gz", tmp_path / "report.json"
    out.write_bytes(b"previous labels")
    report.write_bytes(b"previous report")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr("napari_sam_med.volume.replacement.Replacement.flush_to_disk", _raising(full))
    arguments = (
        "segment",
        scan.volume,
        "--prompts",
        scan.prompts,
        "--no-propagate",
        "-o",
        out,
        "--report",
        report,
    )
    assert "No space left" in run(*arguments).error
    assert out.read_bytes() == b"previous labels"
    assert report.read_bytes() == b"previous report"
    assert not list(tmp_path.glob("*partial*"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Calls that would open a viewer, on a machine with a display."""
    calls: list[dict[str, object]] = []
    launch = types.ModuleType("launch")
    launch.open_viewer = lambda **arguments: calls.append(arguments)  # type: ignore[attr-defined]
    napari = types.ModuleType("napari")
    napari.run = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "napari_sam_med.gui.launch", launch)
    monkeypatch.setitem(sys.modules, "napari", napari)
    monkeypatch.setattr(viewer, "has_display", lambda: True)
    return calls


def test_bare_command_opens_a_viewer(run: Runner, scan: Scan, opened: list[dict[str, object]]) -> None:
    assert run().status == 0
    assert run(scan.volume).status == 0
    assert run(scan.volume, "--labels", scan.labels, "--model", "mobile_sam").status == 0
    assert run("--model", "nano", "--device", "cpu", scan.volume).status == 0
    nothing = {"volume_path": None, "labels_path": None, "model": None, "device": None}
    assert opened == [
        nothing,
        nothing | {"volume_path": scan.volume},
        nothing | {"volume_path": scan.volume, "labels_path": scan.labels, "model": "mobile_sam"},
        nothing | {"volume_path": scan.volume, "model": "nano", "device": "cpu"},
    ]


def test_bare_command_opens_a_folder_of_cases(
    run: Runner, scan: Scan, tmp_path: Path, opened: list[dict[str, object]]
) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    assert "holds no scan" in run(folder).error
    (folder / "ct.nii.gz").write_bytes(scan.volume.read_bytes())
    assert "holds many" in run(folder, "--labels", scan.labels).error
    assert run(folder).status == 0
    assert [call["volume_path"] for call in opened] == [folder]


def test_bare_command_refuses_what_is_not_there(
    run: Runner, scan: Scan, tmp_path: Path, opened: list[dict[str, object]]
) -> None:
    assert "no volume" in run(tmp_path / "none.nii").error
    assert "no label file" in run(scan.volume, "--labels", tmp_path / "none.nii").error
    assert "give the volume" in run("--labels", scan.labels).error
    assert "mobile_sam" in run(scan.volume, "--model", "giant").error
    assert "abacus" in run(scan.volume, "--device", "abacus").error
    assert "prompts.json" in run(scan.prompts).error
    assert opened == []


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("segmnt", 'There is no command or volume "segmnt"; did you mean "segment"?'),
        ("train", 'There is no command or volume "train"; did you mean "train-classifier"?'),
        ("xyz", 'There is no command or volume "xyz"; "napari-sam-med --help" lists the commands.'),
        ("segmnt.nii", "There is no volume segmnt.nii; check the path."),
        ("cases/segmnt", "There is no volume cases/segmnt; check the path."),
    ],
)
def test_a_mistyped_command_is_told_from_a_volume_that_is_not_there(
    run: Runner, opened: list[dict[str, object]], written: str, said: str
) -> None:
    answer = run(written)
    assert answer.status == 2
    assert answer.error.endswith(said)
    assert opened == []


def test_a_folder_opens_though_it_is_called_nearly_as_a_command(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[dict[str, object]]
) -> None:
    (tmp_path / "segmnt").mkdir()
    shutil.copy(scan.volume, tmp_path / "segmnt" / "ct.nii.gz")
    monkeypatch.chdir(tmp_path)
    assert run("segmnt").status == 0
    assert [call["volume_path"] for call in opened] == [Path("segmnt")]


def test_without_a_display_the_bare_command_says_so(
    run: Runner, scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    message = run(scan.volume).error
    assert "no display" in message
    assert "segment" in message
    assert "install" not in message
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    assert "QT_QPA_PLATFORM=offscreen" in run(scan.volume).error
    monkeypatch.delenv("QT_QPA_PLATFORM")
    monkeypatch.setattr(viewer, "_PROBE", "raise ImportError")
    assert "cannot open a window" in run(scan.volume).error
    monkeypatch.setattr(viewer, "_BINDINGS", ())
    assert 'install "napari[pyqt6]"' in run(scan.volume).error


@pytest.mark.parametrize(
    "argv",
    [
        ["cache", "info", "--json", "--json"],
        ["segment", "-h", "-h"],
        ["segment", "-o", "a.nii", "-o", "b.nii", "--help"],
    ],
)
def test_what_is_lost_by_no_repetition_is_taken(run: Runner, argv: list[str]) -> None:
    assert run(*argv).status == 0


def test_a_reader_that_leaves_is_no_error() -> None:
    """As `napari-sam-med models list | head -0` does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_sam_med.cli", "models", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    "command", [["models", "list", "--json"], ["cache", "info"], ["cache", "clear"], ["segment", "--help"]]
)
def test_loads_neither_torch_nor_napari_to_answer(command: list[str]) -> None:
    code = (
        f"import sys; from napari_sam_med.cli import main; assert main({command}) == 0; "
        "assert not {'torch', 'scipy', 'numpy', 'napari', 'qtpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
