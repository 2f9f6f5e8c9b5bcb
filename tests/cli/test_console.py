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
