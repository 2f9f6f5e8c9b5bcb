"""``results.csv`` written and read back, whole and cut off."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam_med.errors import ImageError
from napari_sam_med.evaluation.measuring import SliceScore
from napari_sam_med.evaluation.results_file import (
    COLUMNS,
    read_results,
    whole_rows,
    write_header,
    write_scores,
)
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.slice_view import SliceView


def _score(**changes: Any) -> SliceScore:
    known: dict[str, Any] = {
        "volume": "a",
        "organ": 'a "new",\nodd organ',
        "label": 6,
        "view": SliceView("coronal", 12),
        "strategy": "bound_box",
        "model": "nano",
        "dice": 0.5,
        "iou": 0.25,
        "dice_oracle": 0.75,
        "iou_prediction": 0.125,
        "area_px": 30,
        "seconds": 0.5,
        "patient": "p1",
        "seed": 3,
        "nsd": 0.5,
        "hd95_mm": 2.5,
        "iou_oracle": 0.5,
        "dice_single": 0.25,
        "iou_single": 0.125,
        "prompts": Prompts([[3, 4], [0.1, 7]], [1, 0], [1 / 3, 2, 40, 50.5]),
        "replies": 1,
        "image": "scans/a.nii.gz",
    }
    assert known.keys() == {field.name for field in fields(SliceScore)}
    return SliceScore(**known | changes)


def _written(path: Path, *scores: SliceScore) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        write_header(file)
        write_scores(file, scores)
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    nothing = dict.fromkeys(
        ("dice_oracle", "nsd", "hd95_mm", "iou_oracle", "dice_single", "iou_single", "prompts")
    )
    scores = [
        _score(),
        _score(**nothing, replies=0),
        _score(prompts=Prompts.from_box([1, 2, 3, 4]), replies=0),
        _score(prompts=Prompts.from_points([[5, 6]]), replies=0),
    ]
    path = _written(tmp_path / "results.csv", *scores)
    assert read_results(path) == scores
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)


@given(st.floats(0, 4096, width=32))
def test_prompts_lose_nothing(tmp_path_factory: pytest.TempPathFactory, x: float) -> None:
    path = tmp_path_factory.mktemp("rows") / "results.csv"
    asked = Prompts.from_points([[x, x / 3]])
    (read,) = read_results(_written(path, _score(prompts=asked)))
    assert read.prompts is not None
    assert np.array_equal(read.prompts.points_xy, asked.points_xy)


def test_a_row_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = _written(tmp_path / "results.csv", _score(), _score(seed=4, organ="Größe, 肝臓"))
    content = path.read_bytes()
    header, one = content.index(b"\n") + 1, len(_written(tmp_path / "one.csv", _score()).read_bytes())
    for end in range(len(content)):
        whole = whole_rows(content[:end])
        assert whole == content[: one if end >= one else header if end >= header else 0]
    within_a_letter = content.rindex("肝".encode()) + 1
    for end in (len(content) - 3, within_a_letter):
        path.write_bytes(content[:end])
        assert read_results(path) == [_score()]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        read_results(tmp_path / "none.csv")
    for odd in ("image,labels\na,b\n", ",".join(COLUMNS) + "\n" + ",".join("x" * len(COLUMNS)) + "\n"):
        (tmp_path / "odd.csv").write_text(odd)
        with pytest.raises(ImageError, match=r"odd.csv is no table of results"):
            read_results(tmp_path / "odd.csv")
    (tmp_path / "odd.csv").write_bytes(b"\xff\xfe\n")
    with pytest.raises(ImageError, match="no table of results"):
        read_results(tmp_path / "odd.csv")
