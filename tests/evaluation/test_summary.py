"""Means over slices, organs and volumes, computed by hand; and the tables made of them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from napari_sam_med.evaluation.measuring import SliceScore
from napari_sam_med.evaluation.report import markdown_report, result_tables
from napari_sam_med.evaluation.summary import summarised
from napari_sam_med.volume.slice_view import SliceView


def _score(volume: str, organ: str, dice: float, predicted: float = 0.5, **changes: Any) -> SliceScore:
    fields: dict[str, Any] = {
        "volume": volume,
        "organ": organ,
        "label": 1,
        "view": SliceView("axial", 0),
        "strategy": "bound_box",
        "model": "nano",
        "dice": dice,
        "iou": dice / (2 - dice),
        "dice_oracle": None,
        "iou_prediction": predicted,
        "area_px": 30,
        "seconds": 0.25,
    }
    return SliceScore(**fields | changes)


# a: liver .8 .8 .8 .4 and cyst .1; b: liver .5
SCORES = [
    *(_score("a", "liver", dice) for dice in (0.8, 0.8, 0.8, 0.4)),
    _score("a", "cyst", 0.1),
    _score("b", "liver", 0.5),
]
BASELINES = [_score(s.volume, s.organ, 0.25, model="filled_box", strategy="") for s in SCORES]


def test_each_mean_counts_what_it_says() -> None:
    means = summarised(SCORES, BASELINES)["models"]["nano"]["bound_box"]
    assert means["mdice_slices"] == pytest.approx(3.4 / 6)
    assert means["mdice_organs"] == pytest.approx((3.3 / 5 + 0.1) / 2)
    assert means["mdice_volumes"] == pytest.approx(((0.7 + 0.1) / 2 + 0.5) / 2)
    assert means["slices"] == 6
    assert means["organs"]["liver"] == {
        "dice": pytest.approx(0.66),
        "iou": pytest.approx((3 * 0.8 / 1.2 + 0.4 / 1.6 + 0.5 / 1.5) / 5),
        "nsd": None,
        "hd95_mm": None,
        "slices": 5,
    }
    assert means["miou_organs"] == pytest.approx((means["organs"]["liver"]["iou"] + 0.1 / 1.9) / 2)
    assert means["volumes"]["a"]["mdice_organs"] == pytest.approx(0.4)
    assert means["volumes"]["a"]["organs"]["cyst"]["slices"] == 1
    assert means["seconds"] == 0.25


def test_baselines_have_the_same_means() -> None:
    filled = summarised(SCORES, BASELINES)["baselines"]["filled_box"]
    for key in ("mdice_volumes", "mdice_organs", "mdice_slices"):
        assert filled[key] == pytest.approx(0.25)
    assert filled["slices"] == 6


def test_many_slices_of_a_large_organ_do_not_outweigh_a_small_one() -> None:
    scores = [_score("v", "large", 0.8)] * 9 + [_score("v", "small", 0.4)]
    assert summarised(scores, [])["models"]["nano"]["bound_box"]["mdice_volumes"] == pytest.approx(0.6)


def test_predicted_iou_is_compared_with_the_true_one() -> None:
    dices, predictions = (0.2, 0.5, 0.8, 0.9), (0.1, 0.2, 0.3, 0.9)
    scores = [_score("v", "liver", d, p) for d, p in zip(dices, predictions, strict=True)]
    agreement = summarised(scores, [])["models"]["nano"]["bound_box"]["iou_prediction"]
    ious = [d / (2 - d) for d in dices]
    x = [p - sum(predictions) / 4 for p in predictions]
    y = [i - sum(ious) / 4 for i in ious]
    by_hand = sum(a * b for a, b in zip(x, y, strict=True)) / math.sqrt(
        sum(a * a for a in x) * sum(b * b for b in y)
    )
    assert agreement["pearson"] == pytest.approx(by_hand)
    assert agreement["spearman"] == pytest.approx(1.0)
    assert agreement["mean"] == pytest.approx(0.375)


def test_the_best_of_three_is_averaged_where_all_answers_have_three() -> None:
    def mean(*oracles: float | None) -> float | None:
        scores = [_score("v", "liver", 0.5, dice_oracle=oracle) for oracle in oracles]
        return summarised(scores, [])["models"]["nano"]["bound_box"]["mdice_oracle_slices"]

    assert mean(0.6, 0.8) == pytest.approx(0.7)
    assert mean(None, None) is None
    assert mean(None, 1.0) is None, "a dialogue that ended at its first click"


def test_outlines_are_averaged_where_they_were_measured() -> None:
    known = [(0.5, 2.0), (0.7, 4.0), (0.0, None)]
    scores = [_score("v", "liver", 0.5, nsd=nsd, hd95_mm=hd95) for nsd, hd95 in known]
    means = summarised([*scores, _score("w", "liver", 0.5)], [])["models"]["nano"]["bound_box"]
    assert means["mnsd_volumes"] == pytest.approx(0.4)
    assert means["mhd95_mm_volumes"] == means["mhd95_mm_slices"] == pytest.approx(3.0)
    assert means["hd95_missing"] == 2


def test_intervals_need_more_than_one_patient() -> None:
    means = summarised(SCORES, BASELINES)["models"]["nano"]["bound_box"]
    assert means["patients"] == 2
    assert means["ci95"]["mdice_volumes"] == pytest.approx([0.4, 0.5])
    assert means["ci95_note"].startswith("of 2 patients such an interval is too narrow")
    many = summarised([_score(str(number), "liver", 0.5 + number / 100) for number in range(6)], [])
    assert many["models"]["nano"]["bound_box"]["ci95_note"] == ""
    same = [_score(name, "liver", 0.5, patient="one") for name in "ab"]
    alone = summarised(same, [])["models"]["nano"]["bound_box"]
    assert (alone["patients"], alone["ci95"]) == (1, {})
    assert "one patient" in alone["ci95_note"]


def test_what_cannot_be_said_is_null() -> None:
    lone = summarised([_score("v", "liver", 0.5)], [])["models"]["nano"]["bound_box"]
    assert lone["iou_prediction"]["pearson"] is None
    assert lone["mdice_oracle_slices"] is None
    diverged = summarised([_score("v", "liver", 0.5, float("nan")), _score("v", "liver", 0.6, 0.3)], [])
    json.dumps(diverged, allow_nan=False)


def test_tables_show_the_means_and_survive_odd_names() -> None:
    odd = [_score("a|b", "<b>", 0.5), _score("c", "liver", 0.7)]
    summary = {
        "run": {"planes": ["axial"], "every": 2, "min_area": 20, "seed": 3},
        **summarised(odd, [_score(s.volume, s.organ, 0.25, model="filled_box", strategy="") for s in odd]),
    }
    overview, by_volume, *by_organ = result_tables(summary, organs=True)
    assert overview.rows[0][:3] == ("nano", "bound_box", "0.600")
    assert "2 slices" in overview.title
    assert [row[3] for row in by_volume.rows] == ["0.500", "0.700", "0.600"]
    assert [table.title for table in by_organ] == ["nano, bound_box: a|b", "nano, bound_box: c"]
    assert by_organ[1].rows == [("liver", "1", "0.700", "0.250")]
    page = markdown_report(summary)
    assert "| a\\|b | 1 | 1 | 0.500 |" in page
    assert "| \\<b> | 1 | 0.500 |" in page
    assert "1 of 2" in page
    assert "the organ; seed 3." in page
    twice = summary | {"run": summary["run"] | {"seeds": [3, 4]}}
    assert next(result_tables(twice)).title == "Mean of volumes (1 slices with an organ x 2 seeds)"
    assert "the organ; seeds 3, 4." in markdown_report(twice)
    tables = [line for line in page.replace("\\|", "").splitlines() if line.startswith("|")]
    assert [line.count("|") for line in tables[:4]] == [8] * 4


def test_tables_of_usual_names_fit_a_narrow_terminal() -> None:
    names = [f"mr_cardiac_acdc_{i:03}_frame01" for i in (1, 2)]
    scores = [_score(name, "portal and splenic veins", 0.5, strategy="corrective_clicks:3") for name in names]
    baselines = [
        _score(name, "portal and splenic veins", 0.5, model=model, strategy="")
        for name in names
        for model in ("inscribed_ellipse", "filled_box")
    ]
    for table in result_tables(summarised(scores, baselines), organs=True):
        widths = [max(map(len, column)) for column in zip(table.headings, *table.rows, strict=True)]
        # two spaces in front, three between columns
        assert sum(widths) + 3 * len(widths) + 1 <= 80, table.title
