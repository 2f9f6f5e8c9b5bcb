"""What is said, and where."""

from __future__ import annotations

import re
import sys

import pytest

from napari_sam_med.cli.console import print_error, progress_bar, show_table, warn
from napari_sam_med.progress import Progress


def test_without_standard_error_nothing_goes_to_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with progress_bar("Working") as on_progress:
        on_progress(Progress(1, 2))
    assert warn(["odd", "odd"]) == ["odd"]
    print_error("bad")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("width", [None, 60])
def test_numbers_of_a_wide_table_are_whole_in_a_file_and_in_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int | None
) -> None:
    if width is not None:  # as a terminal of so many columns
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(width))
    numbers = [f"{n}.123" for n in range(1, 5)]
    headings = dict.fromkeys(["strategy"], "left") | {f"{n}.": "right" for n in range(4 if width else 30)}
    row = ["bound_box+background_corner+corrective_clicks:10", *numbers * 8]
    show_table("Wide", headings, [row[: len(headings)]])
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert all(number in printed for number in numbers)
    if width is None:
        assert row[0] in printed
    else:
        assert max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in printed.splitlines()) <= width


@pytest.mark.parametrize("is_terminal", [False, True])
def test_words_of_a_table_wrap_and_names_stay_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    words = "Needs no download; trained on invented scenes, outlines of real organs and a few real slices."
    show_table("Models", dict.fromkeys(["name", "note"], "left"), [["sam_vit_b_of_my_own_scans", words]])
    printed = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert max(map(len, printed.splitlines())) <= 80
    assert printed.count("sam_vit_b_of_my_own_scans") == 1
    assert set(words.split()) <= set(printed.split())
