"""What is said, and where."""

from __future__ import annotations

import sys

import pytest

from napari_sam_med.cli.console import print_error, progress_bar, warn
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
