"""Statements 35 and 37: a checkpoint of the user's own in the widget."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from napari_sam_med.sam.checkpoints import load_state_dict
from napari_sam_med.sam.model_registry import NANO_WEIGHTS
from tests.gui.desk import Desk


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.sentinel),)


def test_an_unknown_file_says_what_is_assumed_and_runs_no_code(
    make_desk: Callable[[], Desk], volume, tmp_path: Path
) -> None:
    """A malicious file is refused in one line; a sound one is loaded, and both leave the scan alone."""
    desk = make_desk()
    desk.open(volume)
    torch.save({"x": Trap(tmp_path / "was run")}, tmp_path / "bad.pth")
    desk.widget.model_panel.choose(str(tmp_path / "bad.pth"))
    assert "of your own" in desk.widget.model_panel.about.text()
    assert "preprocessing" in desk.widget.model_panel.about.text()
    desk.wait(lambda: any("never run" in text for text in desk.said))
    assert not (tmp_path / "was run").exists()
    assert desk.actions.model.model is None
    weights = load_state_dict(NANO_WEIGHTS)
    weights["pyramid.lateral4.weight"] += 0.1
    torch.save(weights, tmp_path / "mine.pth")
    desk.widget.model_panel.choose(str(tmp_path / "mine.pth"))
    desk.wait(lambda: desk.actions.model.model is not None, timeout=60_000)
    assert desk.actions.model.model.predictor.record.name == "mine.pth"
    assert desk.session.volume is volume
