"""Published comparisons: their tables with what was measured, and which of their findings hold."""

from __future__ import annotations

from typing import Any

import pytest

from napari_sam_med.errors import PromptError
from napari_sam_med.evaluation.measuring import SliceScore
from napari_sam_med.evaluation.prompt_strategies import parse_strategies
from napari_sam_med.evaluation.protocols import (
    PROTOCOLS,
    findings_table,
    named_protocol,
    protocol_table,
    protocol_tables,
    split_summaries,
)
from napari_sam_med.evaluation.report import ResultTable
from napari_sam_med.volume.slice_view import SliceView

POINTS, MARGINS, ORGANS = (named_protocol(name) for name in ("tumour-points", "box-margins", "btcv-prompts"))


def _summary(mean: str, **models: dict[str, float | None]) -> dict[str, Any]:
    return {
        "models": {
            model: {strategy: {mean: value} for strategy, value in means.items()}
            for model, means in models.items()
        }
    }


def _column(table: ResultTable, heading: str) -> list[str]:
    return [row[table.headings.index(heading)] for row in table.rows]


def _score(volume: str, strategy: str, iou: float, model: str = "nano") -> SliceScore:
    return SliceScore(
        volume,
        "tumour",
        1,
        SliceView("axial", 0),
        strategy,
        model,
        2 * iou / (1 + iou),
        iou,
        None,
        0.5,
        30,
        0.1,
    )


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda one: one.name)
def test_a_protocol_measures_what_it_tells_of(protocol: Any) -> None:
    names = [strategy.name for strategy in parse_strategies(protocol.strategies)]
    assert names == list(protocol.strategies)
    assert {name for finding in protocol.findings for pair in finding.pairs for name in pair} <= set(names)
    assert all(len(row.headings) == len(protocol.columns) for row in protocol.rows)


def test_an_unknown_protocol_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PromptError, match="tumour-points, box-margins, btcv-prompts"):
        named_protocol("tumours")


def test_the_table_of_the_tumour_study_is_laid_out_like_its_own() -> None:
    summaries = {
        "test": _summary(
            "miou_slices", nano={"random_box": 0.25, "center_mask": 0.5}, tuned={"random_box": 0.75}
        ),
        "train": _summary("miou_slices", nano={"bound_box": 0.875}),
    }
    table = protocol_table(POINTS, summaries)
    assert table.headings == (
        *("prompt", "where"),
        *("test: nano", "test: tuned", "published test: original", "published test: fine-tuned"),
        *("train: nano", "published train: original", "published train: fine-tuned"),
    )
    assert table.text_columns == 2
    assert [row[:2] for row in table.rows] == [
        ("random", "box"),
        ("", "mask"),
        ("", "gaussian"),
        ("center", "box"),
        ("", "mask"),
        ("", "gaussian"),
        ("background", ""),
        ("tangent box", ""),
    ]
    assert _column(table, "test: nano") == ["0.2500", "", "", "", "0.5000", "", "", ""]
    assert _column(table, "test: tuned")[0] == "0.7500"
    assert _column(table, "train: nano")[-1] == "0.8750"
    published = ["0.4612", "0.5308", "0.5703", "0.5827", "0.5905", "0.5911", "0.0815"]
    assert _column(table, "published test: original") == [*published, ""]
    tuned = ["0.4773", "0.4841", "0.4795", "0.6309", "0.6302", "0.6313", "0.0753"]
    assert _column(table, "published test: fine-tuned") == [*tuned, ""]
    assert "table I" in table.title


def test_scans_without_a_split_stand_beside_the_published_test_scans() -> None:
    measured = {"bound_box": 0.8, "random_3": None}
    table = protocol_table(ORGANS, {"": _summary("mdice_organs", nano=measured)})
    assert table.headings == ("prompt", "nano", "published test: original", "published test: fine-tuned")
    assert _column(table, "nano") == ["", "", "", "0.8000", ""]
    assert _column(table, table.headings[2]) == ["0.6124", "0.5929", "0.6437", "0.8649", "0.8267"]


def test_the_margins_have_a_curve_and_no_numbers() -> None:
    measured = {f"random_margin_box:{margin}": (margin + 20) / 100 for margin in range(-20, 41, 10)}
    table = protocol_table(MARGINS, {"": _summary("miou_slices", nano=measured)})
    assert table.rows == [(str(m), f"{(m + 20) / 100:.4f}") for m in range(-20, 41, 10)]
    assert table.headings == ("largest margin (px)", "nano")


def test_findings_hold_in_all_in_some_or_in_none_of_their_comparisons() -> None:
    rising = {f"random_margin_box:{margin}": margin / 100 for margin in range(-20, 41, 10)}
    level = dict.fromkeys(rising, 0.5) | {"random_margin_box:0": 0.6}
    table = findings_table(MARGINS, {"test": _summary("miou_slices", nano=rising, tuned=level, other={})})
    assert [row[0] for row in table.rows] == [finding.claim for finding in MARGINS.findings]
    assert _column(table, "test: nano") == ["holds in 2 of 6", "holds", "does not hold"]
    assert _column(table, "test: tuned") == ["holds", "holds in 1 of 2", "holds in 1 of 4"]
    assert _column(table, "test: other") == [""] * 3


def test_a_comparison_with_one_side_missing_is_left_out() -> None:
    measured = {"center_mask": 0.5, "random_mask": 0.4, "random_box": None}
    table = findings_table(POINTS, {"": _summary("miou_slices", nano=measured)})
    assert _column(table, "nano") == ["holds", "", "", ""]


def test_the_published_values_agree_with_what_is_said_of_them() -> None:
    for protocol in (POINTS, ORGANS):
        published = {row.strategy: row.published["test"].original for row in protocol.rows if row.published}
        table = findings_table(protocol, {"": _summary(protocol.mean, SAM=published)})
        assert set(_column(table, "SAM")) <= {"holds", ""}


def test_scores_are_parted_by_the_split_of_their_scan() -> None:
    scores = [_score("a", "random_box", 0.2), _score("b", "random_box", 0.6), _score("c", "random_box", 1.0)]
    baselines = [_score(volume, "", 0.5, "filled_box") for volume in "abc"]
    summaries = split_summaries(scores, baselines, {"a": "train", "b": "test"})
    assert list(summaries) == ["test", "", "train"]
    means = {split: one["models"]["nano"]["random_box"]["miou_slices"] for split, one in summaries.items()}
    assert means == {"test": 0.6, "": 1.0, "train": 0.2}
    assert all(one["baselines"]["filled_box"]["slices"] == 1 for one in summaries.values())
    tables = protocol_tables(POINTS, summaries)
    assert tables[0].rows[0][2] == "0.6000"
    assert "| random | box | 0.6000 | 0.4612 | 0.4773 | 1.0000 |" in tables[0].markdown()
