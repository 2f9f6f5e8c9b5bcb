"""The contact sheet in the model card."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from napari_sam_med.training.synthetic.__main__ import main


def test_the_sheet_has_the_size_asked_for_and_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    main(["-o", str(path), "--rows", "1", "--columns", "2", "--tile", "96"])
    with Image.open(path) as sheet:
        assert sheet.size == (192, 96)
    assert path.stat().st_size < 40_000
