"""The tables of the matching benchmark, from rows that are known."""

from __future__ import annotations

from benchmarks.matching import table, tables

ROWS = [
    {"query": "a", "organ": "x", "arm": "copied", "published_iou": "", "dice": 0.5, "iou": 0.25},
    {"query": "a", "organ": "x", "arm": "stitched", "published_iou": 0.002, "dice": 0.1, "iou": 0.0},
    {"query": "b", "organ": "x", "arm": "copied", "published_iou": "", "dice": 0.7, "iou": float("nan")},
]


def test_organs_stand_beside_each_other_with_their_mean() -> None:
    lines = table(ROWS, "dice", "iou").splitlines()
    assert lines[0] == "|  | a x | b x | mean | published IoU |"
    assert lines[2] == "| copied | 0.500 / 0.250 | 0.700 / - | 0.600 / 0.250 |  |"
    assert lines[3] == "| stitched | 0.100 / 0.000 |  | 0.100 / 0.000 | 0.002 |"


def test_measures_that_were_not_taken_are_left_out() -> None:
    assert tables(ROWS).count("| copied |  |  |  |  |") == 2
