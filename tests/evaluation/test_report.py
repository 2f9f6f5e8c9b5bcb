"""Tables of what else was measured and compared, for a page of text and the report."""

from __future__ import annotations

from dataclasses import replace

from napari_sam_med.evaluation.report import (
    comparison_notes,
    comparison_tables,
    interval_of,
    markdown_report,
    measures_note,
    measures_table,
)
from napari_sam_med.evaluation.statistics import comparisons
from napari_sam_med.evaluation.summary import summarised
from tests.evaluation.made_up_scores import made_up_scores

RUN = {"run": {"planes": ["axial"], "every": 1, "min_area": 1, "seed": 0}}


def test_columns_that_no_answer_has_are_left_out() -> None:
    scores, baselines = made_up_scores(strategies=["bound_box", "center_mask"])
    bare = measures_table(summarised(scores, baselines))
    assert bare is not None
    assert bare.headings == ("model", "strategy", "Dice over answers", "ECE", "r", "seconds")
    some = [replace(row, hd95_mm=2.5 if row.strategy == "bound_box" else None) for row in scores]
    table = measures_table(summarised(some, baselines))
    assert table is not None
    assert [row[table.headings.index("HD95 mm")] for row in table.rows] == ["2.500", ""]
    assert "Best of three" not in measures_note(bare)
    assert "HD95" not in measures_note(bare)
    assert "HD95: the distance" in measures_note(table)
    assert measures_table(summarised([], [])) is None


def test_comparisons_are_shown_as_they_were_made() -> None:
    many = [str(number) for number in range(7)]
    scores, baselines = made_up_scores(["nano", "other"], ["bound_box", "center_mask"], volumes=many)
    compared = comparisons(scores)
    summary = summarised(scores, baselines) | {"comparisons": compared}
    models, strategies = comparison_tables(summary)
    assert [row[:3] for row in models.rows] == [
        ("bound_box", "nano", "other"),
        ("center_mask", "nano", "other"),
    ]
    assert {row[6] for row in models.rows} == {"7 patients"}
    assert strategies.rows[1][:3] == ("other", "bound_box", "center_mask")
    assert float(strategies.rows[1][5]) == round(compared[3]["difference"], 3)
    assert len(comparison_notes(summary)) == 1, "patients need no note"
    few = compared[0] | {"p_fdr": 0.0004, "p_wilcoxon": None, "note": "few of them"}
    (table,) = comparison_tables({"comparisons": [few]})
    assert table.rows[0][7:] == ("< 0.001", "")
    assert comparison_notes({"comparisons": [few, few]})[1:] == ["Note: few of them."]


def test_a_page_of_text_has_all_tables_with_their_notes() -> None:
    scores, baselines = made_up_scores(["nano", "other"], ["bound_box", "center_mask"])
    compared = {"comparisons": comparisons(scores)}
    page = markdown_report(RUN | summarised(scores, baselines) | compared)
    titles = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert titles[1:4] == ["Other measures", "Paired comparison of models", "Paired comparison of strategies"]
    assert "slices of one patient are not independent" in page
    without = markdown_report(RUN | summarised(scores, baselines))
    assert "Paired" not in without
    assert "95 % intervals" not in page, "one patient has none"


def test_what_a_protocol_compares_is_in_the_page_of_text() -> None:
    scores, baselines = made_up_scores(["nano"], ["bound_box"])
    table = {
        "title": "Published",
        "headings": ["prompt", "nano"],
        "rows": [["box", "0.7"]],
        "text_columns": 1,
    }
    page = markdown_report(RUN | summarised(scores, baselines) | {"protocol": {"tables": [table]}})
    assert "## Published\n\n| prompt | nano |" in page
    assert "in 3 of 9 where three of nine pairs do" in page


def test_an_interval_is_that_of_the_summary_or_none() -> None:
    scores, baselines = made_up_scores(strategies=["bound_box"], volumes=["a", "b"])
    means = summarised(scores, baselines)["models"]["nano"]["bound_box"]
    assert interval_of(means, "mdice_volumes") == tuple(means["ci95"]["mdice_volumes"])
    low, high = means["ci95"]["mdice_volumes"]
    page = markdown_report(RUN | summarised(scores, baselines))
    assert f"| nano | bound_box | 2 | {low:.3f} to {high:.3f} |" in page
    assert "\n\nNote: of 2 patients such an interval is too narrow" in page
    assert interval_of(means, "mdice_slices") is None
    assert interval_of({}, "mdice_volumes") is None
