"""Figures of an evaluation, for the report and for a panel: drawn from scores and their summary.

None of them touches pyplot, so they may be drawn in any thread. Means are those of the summary; what lacks
the strategies for a figure gets None. Colours tell models apart for colour-blind readers too (Okabe and Ito,
Color Universal Design, 2008), and markers do without colour.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from napari_sam_med.evaluation.report import interval_of
from napari_sam_med.evaluation.slice_scores import SliceScore
from napari_sam_med.evaluation.statistics import calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "DARK",
    "LIGHT",
    "Theme",
    "dice_against_clicks",
    "in_theme",
    "margin_sweep",
    "organ_bars",
    "reliability",
    "score_spread",
    "small_png",
    "telling_series",
]

_Key = TypeVar("_Key")

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GREY = "#808080"  # is seen on white and on black
_COLOURS_OF_PNG = 128
_LONGEST = 44  # letters of a name; more would leave no room for the data
_MOST_SERIES = 4  # bars side by side that can still be told apart
_MARGIN = re.compile(r"random_margin_box:(-?\d+)")
_CLICKS = re.compile(r"(?:(.+)\+)?corrective_clicks:(\d+)")


@dataclass(frozen=True)
class Theme:
    """Colours of what is not data: paper and ink."""

    paper: str
    ink: str


LIGHT = Theme("#ffffff", "#1b1b1b")
DARK = Theme("#1c1f24", "#e4e6e9")


@dataclass(frozen=True)
class _Line:
    """Means of one model along an axis; ``means`` of a summary by position."""

    name: str
    means: dict[int, Mapping[str, Any]]

    def values(self, measure: str) -> list[tuple[int, float]]:
        found = ((x, self.means[x][measure]) for x in sorted(self.means))
        return [(x, value) for x, value in found if value is not None]


def margin_sweep(summary: Mapping[str, Any]) -> Figure | None:
    """IoU against the largest random margin of a box, a line for each model; the tangent box is a star.

    Parameters
    ----------
    summary : dict
        As `summarised` makes it.

    Returns
    -------
    Figure or None
        None unless a model was asked with two margins (``random_margin_box:PIXELS``).
    """
    lines, tangent = [], {}
    for model, strategies in summary["models"].items():
        found = ((_MARGIN.fullmatch(name), means) for name, means in strategies.items())
        line = _Line(model, {int(match[1]): means for match, means in found if match})
        if len(line.means) > 1:
            lines.append(line)
            tangent[model] = strategies.get("bound_box", {}).get("miou_volumes")
    if not lines:
        return None
    figure, axes = _single(6.4, 4.2)
    _draw_lines(axes, lines, "miou_volumes")
    for number, line in enumerate(lines):
        if tangent[line.name] is not None:
            star: dict[str, Any] = {"color": _colour(number), "markeredgecolor": _GREY, "markersize": 14}
            axes.plot(0, tangent[line.name], "*", label=_plain(f"{line.name}, tangent box"), **star)
    axes.axvline(0, color=_GREY, linewidth=0.8, linestyle=":")
    axes.set(ylabel="IoU", title="Boxes that are too small or too large")
    axes.set_xlabel("largest margin in pixels: inwards (below 0), outwards (above 0)")
    axes.set_xticks(sorted({x for line in lines for x in line.means}))
    return _finished(figure, axes)


def dice_against_clicks(summary: Mapping[str, Any]) -> Figure | None:
    """Dice against the number of corrective clicks, a line for each model and what the dialogue started from.

    What was also measured without clicks, such as ``bound_box``, stands at 0.

    Returns
    -------
    Figure or None
        None unless a dialogue was scored after two numbers of clicks.
    """
    lines: dict[tuple[str, str], _Line] = {}
    for model, strategies in summary["models"].items():
        for name, means in strategies.items():
            if match := _CLICKS.fullmatch(name):
                start = match[1] or ""
                label = f"{model}, from {start}" if start else f"{model}, clicks alone"
                line = lines.setdefault((model, start), _Line(label, {}))
                line.means[int(match[2])] = means
                if start in strategies:
                    line.means[0] = strategies[start]
    drawn = [line for line in lines.values() if len(line.means) > 1]
    if not drawn:
        return None
    figure, axes = _single(6.4, 4.2)
    _draw_lines(axes, drawn, "mdice_volumes")
    axes.set(xlabel="clicks", ylabel="Dice", title="What another click brings")
    axes.set_xticks(sorted({x for line in drawn for x in line.means}))
    return _finished(figure, axes)


def telling_series(summary: Mapping[str, Any], most: int = _MOST_SERIES) -> list[tuple[str, str]]:
    """The (model, strategy) that tell most in few bars.

    Parameters
    ----------
    summary : dict
    most : int
        How many at most.

    Returns
    -------
    list of (str, str)
        Of several models the strategy with the best mean Dice of those that all have; of one model its best
        strategies, of each family (the name before ``:``) one.
    """
    models = summary["models"]

    def dice(model: str, strategy: str) -> float:
        return float(models[model][strategy]["mdice_volumes"] or 0.0)

    if len(models) > 1:
        common = set.intersection(*(set(strategies) for strategies in models.values()))
        if common:
            first = next(iter(models))
            order = [name for name in models[first] if name in common]
            best = max(order, key=lambda name: sum(dice(model, name) for model in models))
            return [(model, best) for model in models][:most]
    pairs = [(model, name) for model, strategies in models.items() for name in strategies]
    pairs.sort(key=lambda pair: -dice(*pair))
    families: dict[tuple[str, str], tuple[str, str]] = {}
    for model, name in pairs:
        family = "bound_box" if name == "random_margin_box:0" else re.sub(r":[^+]*", "", name)
        families.setdefault((model, family), (model, name))
    return list(families.values())[:most]


def organ_bars(
    summary: Mapping[str, Any], series: Sequence[tuple[str, str]] | None = None, measure: str = "dice"
) -> Figure | None:
    """Mean Dice or IoU of every organ, a bar for each model and strategy; baselines are grey marks.

    Parameters
    ----------
    summary : dict
    series : sequence of (model, strategy), optional
        `telling_series` when left out.
    measure : {"dice", "iou"}

    Returns
    -------
    Figure or None
        None when there is nothing to draw.
    """
    chosen = telling_series(summary) if series is None else series
    found = [summary["models"][model][strategy]["organs"] for model, strategy in chosen]
    organs = {organ: None for own in found for organ in own}
    if not organs:
        return None
    order = sorted(organs, key=lambda organ: max(_known(own, organ, measure, -1.0) for own in found))
    thick = 0.8 / len(found)
    figure, axes = _single(6.8, 1.6 + len(order) * (0.14 + 0.11 * len(found)))
    rows = np.arange(len(order))
    for number, (own, (model, strategy)) in enumerate(zip(found, chosen, strict=True)):
        # the first series on top
        height = rows + 0.4 - thick * (number + 0.5)
        values = [_known(own, organ, measure, 0.0) for organ in order]
        name = _plain(f"{model}, {strategy}")
        axes.barh(height, values, thick * 0.92, color=_colour(number), label=name)
    for marker, (name, means) in zip("os", summary["baselines"].items(), strict=False):
        values = [_known(means["organs"], organ, measure, np.nan) for organ in order]
        label = f"{name.replace('_', ' ')}, no model"
        # white with a black rim is seen on any bar and on any paper
        axes.plot(values, rows, marker, color="white", markeredgecolor="black", markersize=5, label=label)
    axes.set_yticks(rows, [_plain(organ) for organ in order])
    axes.set(xlim=(0, 1), ylim=(-0.6, len(order) - 0.4), xlabel=f"mean {_word(measure)} over its slices")
    axes.set_title("Organ by organ")
    return _finished(figure, axes, grid="x")


def score_spread(scores: Sequence[SliceScore], measure: str = "dice") -> Figure | None:
    """Boxes and whiskers for each strategy and model: over answers, and over means of organs.

    A box spans the middle half with the median in it, whiskers reach to the 5th and the 95th percentile.

    Parameters
    ----------
    scores : sequence of SliceScore
        Of models.
    measure : {"dice", "iou"}

    Returns
    -------
    Figure or None
        None without scores.
    """
    models = list(dict.fromkeys(row.model for row in scores))
    groups = _grouped(scores, lambda row: (row.strategy, row.model))
    if not groups:
        return None
    strategies = list(dict.fromkeys(strategy for strategy, _ in groups))
    single = len({row.organ for row in scores}) == 1
    figure = _figure(7.2, 1.3 + len(strategies) * (0.16 + 0.17 * len(models)))
    panels = figure.subplots(1, 1 if single else 2, sharey=True, squeeze=False)[0]
    thick = 0.8 / len(models)
    for number, model in enumerate(models):
        at, answers, organs = [], [], []
        for row, strategy in enumerate(strategies):
            own = groups.get((strategy, model), [])
            if own:
                at.append(row - 0.4 + thick * (number + 0.5))
                answers.append([getattr(one, measure) for one in own])
                means = _grouped(own, lambda one: one.organ).values()
                organs.append([float(np.mean([getattr(one, measure) for one in organ])) for organ in means])
        for axes, data in zip(panels, (answers, organs), strict=False):
            _draw_boxes(axes, data, at, thick * 0.75, _colour(number))
        panels[0].plot([], [], "s", color=_colour(number), label=_plain(model))
    panels[0].set_yticks(range(len(strategies)), [_plain(name) for name in strategies])
    panels[0].set(title="all answers", xlabel=_word(measure), ylim=(len(strategies) - 0.4, -0.6))
    if not single:
        panels[1].set(title="means of organs", xlabel=_word(measure))
    for axes in panels:
        axes.set_xlim(-0.02, 1.02)
        axes.grid(axis="x", color=_GREY, alpha=0.3)
        axes.set_axisbelow(True)
    if len(models) > 1:
        figure.legend(loc="outside lower center", ncols=min(len(models), 4), frameon=False)
    return in_theme(figure, LIGHT)


def reliability(scores: Sequence[SliceScore]) -> Figure | None:
    """Mean true IoU against predicted IoU, in ten bins, a line for each model; below, how many answers.

    The legend has the expected calibration error (ECE): the mean distance of the two over bins, weighted by
    answers (Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015).

    Returns
    -------
    Figure or None
        None where no model predicts an IoU.
    """
    rows = [row for row in scores if np.isfinite(row.iou_prediction) and np.isfinite(row.iou)]
    if not rows:
        return None
    figure = _figure(5.6, 5.4)
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    top.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", label="as good as predicted")
    groups = _grouped(rows, lambda row: row.model)
    for number, (model, own) in enumerate(groups.items()):
        found = calibration([row.iou_prediction for row in own], [row.iou for row in own])
        bins = found["bins"]
        x, y = [one["predicted"] for one in bins], [one["true"] for one in bins]
        style = {"color": _colour(number), "marker": _MARKERS[number % len(_MARKERS)]}
        top.plot(x, y, label=_plain(f"{model}, ECE {found['ece']:.3f}"), **style)
        left = [one["from"] + (one["to"] - one["from"]) * (0.05 + 0.9 * number / len(groups)) for one in bins]
        wide = [(one["to"] - one["from"]) * 0.9 / len(groups) for one in bins]
        bottom.bar(left, [one["answers"] for one in bins], wide, align="edge", color=_colour(number))
    top.set(ylim=(0, 1.02), ylabel="mean true IoU", title="Does the model know how good it is?")
    bottom.set(xlim=(0, 1.02), xlabel="IoU that the model predicts", ylabel="answers")
    top.legend(frameon=False, loc="upper left")
    for axes in (top, bottom):
        axes.grid(color=_GREY, alpha=0.3)
        axes.set_axisbelow(True)
    return in_theme(figure, LIGHT)


def in_theme(figure: Figure, theme: Theme) -> Figure:
    """The figure itself, with paper and ink (text, axes, ticks) of a theme; data keep their colours."""
    from matplotlib.text import Text

    figure.set_facecolor(theme.paper)
    for text in figure.findobj(Text):
        text.set_color(theme.ink)
    for axes in figure.axes:
        axes.set_facecolor(theme.paper)
        axes.tick_params(colors=theme.ink, which="both")
        for spine in axes.spines.values():
            spine.set_color(theme.ink)
    return figure


def small_png(figure: Figure, dpi: int | None = None) -> bytes:
    """A figure as PNG with 128 colours: a third of the size, and the eye sees no difference."""
    from PIL import Image

    drawn = io.BytesIO()
    # as TIFF, which is not packed: these bytes are read again at once
    figure.savefig(drawn, format="tiff", dpi="figure" if dpi is None else dpi, facecolor="auto")
    small = io.BytesIO()
    Image.open(drawn).convert("RGB").quantize(_COLOURS_OF_PNG).save(small, "PNG", optimize=True)
    return small.getvalue()


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _single(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _figure(width, height)
    return figure, figure.subplots()


def _finished(figure: Figure, axes: Axes, grid: Literal["both", "x"] = "both") -> Figure:
    axes.grid(axis=grid, color=_GREY, alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return in_theme(figure, LIGHT)


def _draw_lines(axes: Axes, lines: Sequence[_Line], measure: str) -> None:
    """Lines with 95 % intervals where the summary has them."""
    for number, line in enumerate(lines):
        points = line.values(measure)
        xs, ys = [x for x, _ in points], [y for _, y in points]
        marker = _MARKERS[number % len(_MARKERS)]
        axes.plot(xs, ys, color=_colour(number), marker=marker, label=_plain(line.name))
        spans = {x: interval_of(line.means[x], measure) for x in xs}
        known = [(x, *span) for x, span in spans.items() if span is not None]
        if known:
            axes.vlines(*zip(*known, strict=True), color=_colour(number), alpha=0.6)
    axes.set_ylim(0, 1)


def _draw_boxes(axes: Axes, data: list[list[float]], at: Sequence[float], thick: float, colour: str) -> None:
    axes.boxplot(
        data,
        positions=at,
        widths=thick,
        whis=(5, 95),
        orientation="horizontal",
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": colour, "alpha": 0.35, "edgecolor": colour},
        medianprops={"color": colour, "linewidth": 3},
        whiskerprops={"color": colour},
        capprops={"color": colour},
        flierprops={"marker": ".", "markersize": 2, "markeredgecolor": colour, "alpha": 0.4},
    )


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _known(organs: Mapping[str, Mapping[str, Any]], organ: str, measure: str, otherwise: float) -> float:
    value = organs.get(organ, {}).get(measure)
    return otherwise if value is None else float(value)


def _word(measure: str) -> str:
    return {"dice": "Dice", "iou": "IoU"}[measure]


def _plain(text: str) -> str:
    """Text that is drawn as it is: a dollar sign begins no formula; of a long path both ends."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2 - 1]}…{text[-_LONGEST // 2 :]}"
    return text.replace("$", r"\$")


def _grouped(rows: Iterable[SliceScore], key: Callable[[SliceScore], _Key]) -> dict[_Key, list[SliceScore]]:
    groups: dict[_Key, list[SliceScore]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
