"""Figures of an evaluation show the numbers of the summary."""

from __future__ import annotations

import io
import threading
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from napari_sam_med.evaluation.report_figures import (
    DARK,
    LIGHT,
    Theme,
    dice_against_clicks,
    in_theme,
    margin_sweep,
    organ_bars,
    reliability,
    score_spread,
    small_png,
    telling_series,
)
from napari_sam_med.evaluation.summary import summarised
from tests.evaluation.made_up_scores import STRATEGIES, made_up_scores


def _lines(axes: Axes) -> dict[str, list[list[float]]]:
    """Points x, y of each line, by its label, to six digits."""
    return {str(line.get_label()): _rounded(line.get_xydata()) for line in axes.get_lines()}


def _rounded(points: object) -> list[list[float]]:
    found: list[list[float]] = np.asarray(points, dtype=float).round(6).tolist()
    return found


def _drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def test_the_sweep_runs_through_the_means_of_its_margins() -> None:
    summary = summarised(*made_up_scores(["nano", "other"]))
    (axes,) = _drawn(margin_sweep(summary)).axes
    lines = _lines(axes)
    for model in ("nano", "other"):
        own = summary["models"][model]
        margins = (-10, 0, 10)
        means = [own[f"random_margin_box:{margin}"]["miou_volumes"] for margin in margins]
        assert lines[model] == _rounded(list(zip(margins, means, strict=True)))
        assert lines[f"{model}, tangent box"] == _rounded([(0, own["bound_box"]["miou_volumes"])])


def test_intervals_of_the_summary_stand_on_the_lines() -> None:
    summary = summarised(*made_up_scores())
    for means in summary["models"]["nano"].values():
        means["ci95"] = {"miou_volumes": [means["miou_volumes"] - 0.1, means["miou_volumes"] + 0.2]}
    (axes,) = _drawn(margin_sweep(summary)).axes
    mean = summary["models"]["nano"]["random_margin_box:-10"]["miou_volumes"]
    (upright,) = axes.collections
    first = upright.get_paths()[0].vertices
    assert np.allclose(first, [[-10, mean - 0.1], [-10, mean + 0.2]])


def test_clicks_after_a_box_begin_with_the_box() -> None:
    summary = summarised(*made_up_scores())
    own = summary["models"]["nano"]
    (axes,) = _drawn(dice_against_clicks(summary)).axes
    lines = _lines(axes)
    alone = [(clicks, own[f"corrective_clicks:{clicks}"]["mdice_volumes"]) for clicks in (1, 3)]
    assert lines["nano, clicks alone"] == _rounded(alone)
    strategies = ("bound_box", "bound_box+corrective_clicks:1")
    after = [(clicks, own[name]["mdice_volumes"]) for clicks, name in enumerate(strategies)]
    assert lines["nano, from bound_box"] == _rounded(after)


def test_a_lone_margin_or_number_of_clicks_is_no_curve() -> None:
    summary = summarised(*made_up_scores(strategies=["random_margin_box:10", "corrective_clicks:3"]))
    assert margin_sweep(summary) is None
    assert dice_against_clicks(summary) is None


def test_bars_are_as_long_as_the_means_of_organs_with_the_best_on_top() -> None:
    organs = [f"organ {number}" for number in range(40)]
    scores, baselines = made_up_scores(["nano", "other"], ["bound_box", "center_mask"], organs)
    scores = [replace(row, dice=row.dice * (1 - row.label / 100)) for row in scores]
    summary = summarised(scores, baselines)
    assert telling_series(summary) == [("nano", "bound_box"), ("other", "bound_box")]
    (axes,) = _drawn(organ_bars(summary)).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[-1] == "organ 0"
    for container, model in zip(axes.containers, ("nano", "other"), strict=True):
        means = summary["models"][model]["bound_box"]["organs"]
        assert [bar.get_width() for bar in container] == pytest.approx(
            [means[name]["dice"] for name in names]
        )
    (marks,) = _lines(axes).values()
    base = summary["baselines"]["filled_box"]["organs"]
    assert [x for x, _ in marks] == pytest.approx([base[name]["dice"] for name in names])


def test_one_model_is_shown_with_its_best_strategy_of_each_family() -> None:
    summary = summarised(*made_up_scores())
    # random_margin_box:0 is the tangent box again, -10 comes before 10
    assert telling_series(summary) == [
        ("nano", "bound_box"),
        ("nano", "random_margin_box:-10"),
        ("nano", "center_mask"),
        ("nano", "corrective_clicks:1"),
    ]


def test_boxes_hold_the_answers_of_a_strategy_and_the_means_of_organs() -> None:
    scores, _ = made_up_scores(strategies=["bound_box", "center_mask"], organs=["a", "b", "c"], slices=5)
    left, right = _drawn(score_spread(scores)).axes
    own = [row.dice for row in scores if row.strategy == "center_mask"]
    organs = [float(np.mean(own[start : start + 5])) for start in (0, 5, 10)]
    for axes, values in ((left, own), (right, organs)):
        low, high = np.quantile(values, (0.25, 0.75))
        box = axes.patches[1].get_path().vertices[:, 0]
        assert (box.min(), box.max()) == pytest.approx((low, high))
    assert [label.get_text() for label in left.get_yticklabels()] == ["bound_box", "center_mask"]


def test_reliability_counts_each_answer_once_and_states_the_error() -> None:
    scores, baselines = made_up_scores(strategies=["bound_box"], organs=["a"], slices=4)
    predicted, true = (0.15, 0.15, 0.55, 1.0), (0.1, 0.3, 0.51, 0.8)
    rows = [replace(row, iou_prediction=p, iou=t) for row, p, t in zip(scores, predicted, true, strict=True)]
    top, bottom = _drawn(reliability(rows)).axes
    label, points = list(_lines(top).items())[1]
    assert label == "nano, ECE 0.085"  # (2 * .05 + .04 + .2) / 4
    assert points == [[0.15, 0.2], [0.55, 0.51], [1.0, 0.8]]
    counts = [(round(bar.get_x(), 3), bar.get_height()) for bar in bottom.patches]
    assert counts == [(0.105, 2), (0.505, 1), (0.905, 1)]
    assert reliability(baselines) is None


def test_names_with_signs_are_drawn_as_they_are() -> None:
    scores, baselines = made_up_scores(["a $x_1$ <b>"], ["bound_box"], ["$l$ & r", "5 $"])
    figure = _drawn(organ_bars(summarised(scores, baselines)))
    shown = {label.get_text() for label in figure.axes[0].get_yticklabels()}
    # as matplotlib wants dollars that begin no formula
    assert shown == {r"\$l\$ & r", r"5 \$"}
    assert small_png(figure)


def test_long_names_leave_room_for_the_data() -> None:
    long = "boxes:" + "/a folder of many" * 20 + "/boxes.csv"
    scores, baselines = made_up_scores([long], [long, "bound_box"], [long])
    for figure in (organ_bars(summarised(scores, baselines)), score_spread(scores), reliability(scores)):
        small_png(_drawn(figure))
        for axes in _drawn(figure).axes:
            assert axes.get_position().width > 0.2
            for label in axes.get_yticklabels():
                assert len(label.get_text()) <= 44
    first = _drawn(score_spread(scores)).axes[0].get_yticklabels()[0].get_text()
    assert first.startswith("boxes:/a folder")
    assert first.endswith("/boxes.csv")


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_theme_colours_paper_and_ink(theme: Theme) -> None:
    figure = _drawn(margin_sweep(summarised(*made_up_scores())))
    in_theme(figure, theme)
    picture = Image.open(io.BytesIO(small_png(figure))).convert("RGB")
    assert to_hex(np.array(picture.getpixel((1, 1))) / 255) == theme.paper
    assert figure.axes[0].title.get_color() == theme.ink


def test_figures_may_be_drawn_in_a_thread() -> None:
    done = []
    summary = summarised(*made_up_scores(strategies=STRATEGIES[:4]))
    thread = threading.Thread(target=lambda: done.append(small_png(_drawn(margin_sweep(summary)))))
    thread.start()
    thread.join()
    assert done[0] == small_png(_drawn(margin_sweep(summary)))


def test_nothing_to_draw() -> None:
    empty = summarised([], [])
    assert organ_bars(empty) is None
    assert score_spread([]) is None
    assert reliability([]) is None
