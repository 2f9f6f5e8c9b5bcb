"""What a report says in words and tables: plain values of a summary, ready to be laid out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from napari_sam_med.evaluation.report import interval_notes, interval_of
from napari_sam_med.evaluation.slice_scores import SliceScore
from napari_sam_med.wording import number_of

__all__ = [
    "STRATEGY_WORDS",
    "WORDS",
    "Cell",
    "OrganTable",
    "Overview",
    "OverviewRow",
    "at_a_glance",
    "extent",
    "organ_tables",
    "overview",
    "run_facts",
    "strategy_words",
]

_BASELINES = {
    "inscribed_ellipse": "ellipse in the tangent box, no model",
    "filled_box": "all of the tangent box, no model",
}
_WITHOUT_MODEL = {
    "inscribed_ellipse": "an ellipse drawn into that box without a model",
    "filled_box": "that box filled without a model",
}
_RUN_TERMS = {
    "every": "one slice of",
    "min_area": "least pixels of an organ",
    "crop_to_body": "shown the box of the body alone",
    "most_slices": "at most so many slices of a plane",
    "model_sha256": "checkpoints, SHA-256",
}
_HASH_SHOWN = 12
_MOST_COLUMNS = 12

WORDS = (
    ("Dice, IoU", "how well an answer and the label overlap, from 0 (not at all) to 1 (the same pixels)"),
    (
        "mean",
        "over the slices of an organ, then the organs of a volume, then the volumes, so that large organs "
        "and long scans do not outweigh others; mDice is the mean Dice",
    ),
    (
        "95 % interval",
        "where the mean would lie had other patients been measured, found by drawing patients anew "
        "(bootstrap); small print below a mean. A few patients say little, whatever their number of slices",
    ),
    ("predicted IoU", "the model's own estimate of its IoU, made without knowing the label"),
    (
        "ECE",
        "expected calibration error: how far predicted and true IoU are apart on average, over ten ranges of "
        "the prediction; 0 is a model that knows exactly how good it is",
    ),
    ("tangent box", "the smallest box round the organ on the slice (bound_box)"),
    (
        "answer",
        "what a model drew for one organ on one slice: the mask that it trusts most where it offers several",
    ),
)
"""Terms of the report, explained."""

STRATEGY_WORDS = {
    "bound_box": "the tangent box",
    "jittered_box": "the tangent box, each side moved at random by up to this share of it",
    "larger_box": "the tangent box, each side moved out by so many pixels",
    "random_margin_box": "the tangent box, each side moved by a random number of pixels up to this margin, "
    "outwards, or inwards where it is negative",
    "random_box": "one click anywhere in the tangent box",
    "random_mask": "one click anywhere on the organ",
    "random_gaussian": "one click on the organ, at random, rather near the middle of the tangent box",
    "random_3": "three clicks anywhere on the organ",
    "center_box": "one click in the middle of the tangent box",
    "center_mask": "one click in the organ's centre of mass",
    "center_gaussian": "one click in the centre of mass, pixels near the middle of the box counting more",
    "center_bilateral": "one click in the centre of mass, pixels near the middle of the box and of the "
    "organ's usual grey value counting more",
    "center_distance": "one click as far from the organ's border as can be",
    "background_corner": "one click on background, in a corner of the tangent box, marked as not the organ",
    "scribble": "so many clicks along the middle line of the organ",
    "corrective_clicks": "so many clicks, each in the largest error of the answer before",
    "boxes": "a box that a detector found",
}
"""What is asked by a strategy, by its name without parameters."""


@dataclass(frozen=True)
class Cell:
    """A mean as it is shown, its 95 % interval or nothing, and whether it is the best of its column."""

    value: str
    span: str = ""
    best: bool = False


@dataclass(frozen=True)
class OverviewRow:
    """A strategy: for each model its IoU, then its Dice."""

    strategy: str
    cells: tuple[Cell, ...]
    answers: str


@dataclass(frozen=True)
class BaselineRow:
    """What the tangent box says without a model."""

    name: str
    iou: Cell
    dice: Cell
    answers: int


@dataclass(frozen=True)
class Overview:
    """Strategies by models."""

    models: tuple[str, ...]
    rows: tuple[OverviewRow, ...]
    baselines: tuple[BaselineRow, ...]
    caption: str
    note: str


@dataclass(frozen=True)
class OrganCell:
    """A mean as it is shown and as a share for its colour."""

    value: str
    share: float


@dataclass(frozen=True)
class OrganRow:
    """An organ: slices, and its Dice with each strategy."""

    organ: str
    slices: str
    cells: tuple[OrganCell, ...]


@dataclass(frozen=True)
class OrganTable:
    """Organs by the strategies of one model, then the baselines."""

    caption: str
    strategies: tuple[str, ...]
    rows: tuple[OrganRow, ...]


def overview(summary: Mapping[str, Any], scores: Sequence[SliceScore]) -> Overview:
    """The table of strategies by models, with baselines.

    Parameters
    ----------
    summary : dict
        As `summarised` makes it.
    scores : sequence of SliceScore
        That the summary is of.
    """
    models = summary["models"]
    strategies = dict.fromkeys(name for own in models.values() for name in own)
    best = {
        (model, measure): _best(own, measure)
        for model, own in models.items()
        for measure in ("miou_volumes", "mdice_volumes")
    }
    rows = []
    for name in strategies:
        cells = [
            _mean_cell(models[model].get(name), measure, highest=best[model, measure] == name)
            for model, measure in best
        ]
        counts = sorted({own[name]["slices"] for own in models.values() if name in own})
        rows.append(OverviewRow(name, tuple(cells), " / ".join(map(str, counts))))
    baselines = tuple(
        BaselineRow(
            _BASELINES.get(name, name),
            _mean_cell(means, "miou_volumes"),
            _mean_cell(means, "mdice_volumes"),
            means["slices"],
        )
        for name, means in summary["baselines"].items()
    )
    has_spans = any(cell.span for row in rows for cell in row.cells)
    note = "Bold: the best strategy of a model. "
    note += "Small print: 95 % intervals over patients." if has_spans else "No intervals: one patient only."
    note = " ".join([note, *interval_notes(summary)])
    caption = (
        f"Means of volumes over {extent(scores)}. Grey rows do without a model: what is not above them needs "
        "none."
    )
    return Overview(tuple(models), tuple(rows), baselines, caption, note)


def at_a_glance(summary: Mapping[str, Any]) -> Iterator[str]:
    """Sentences of what was found: the best and the worst of each model, and boxes against the baselines."""
    for model, own in summary["models"].items():
        known = {name: means["mdice_volumes"] for name, means in own.items()}
        known = {name: value for name, value in known.items() if value is not None}
        if not known:
            continue
        best, worst = max(known, key=lambda name: known[name]), min(known, key=lambda name: known[name])
        text = f"{model} answers best to {best}: mean Dice {_said(own[best])}"
        if worst != best:
            text += f"; worst to {worst}: {known[worst]:.3f}"
        yield text + "."
        if "bound_box" in known:
            yield from _against_baselines(model, known["bound_box"], summary["baselines"])


def organ_tables(summary: Mapping[str, Any]) -> Iterator[OrganTable]:
    """For each model the mean Dice of every organ with every strategy, and of the baselines.

    Many strategies are spread over several tables, so that each fits a page.
    """
    baselines = {_BASELINES.get(name, name): means for name, means in summary["baselines"].items()}
    for model, own in summary["models"].items():
        columns = list({**own, **baselines}.items())
        organs = dict.fromkeys(organ for means in own.values() for organ in means["organs"])
        for start in range(0, len(columns), _MOST_COLUMNS):
            some = dict(columns[start : start + _MOST_COLUMNS])
            rows = tuple(_organ_row(organ, some, own) for organ in organs)
            yield OrganTable(
                f"{model}: mean Dice of each organ over its slices in all volumes; the stronger the colour, "
                "the better.",
                tuple(some),
                rows,
            )


def run_facts(run: Mapping[str, Any], scores: Sequence[SliceScore]) -> Iterator[tuple[str, str]]:
    """How it was measured, as terms and texts; keys of the run that are not known are shown as they are."""
    yield "measured", extent(scores)
    volumes = list(dict.fromkeys(row.volume for row in scores))
    yield "volumes", ", ".join(volumes)
    told = dict(run)
    if "seeds" in run:
        told.pop("seed", None)
    if not run.get("most_slices"):
        told.pop("most_slices", None)
    for key, value in told.items():
        text = _listed(value)
        if text:
            yield _RUN_TERMS.get(key, key.replace("_", " ")), text


def strategy_words(scores: Sequence[SliceScore]) -> Iterator[tuple[str, str]]:
    """The strategies of scores in words, each part of a combination on its own."""
    parts = (part for row in scores for part in row.strategy.split("+"))
    for name in dict.fromkeys(part.split(":")[0] for part in parts):
        if name in STRATEGY_WORDS:
            yield name, STRATEGY_WORDS[name]
    if any(":snap" in row.strategy for row in scores):
        yield ":snap", "a click that falls beside the organ is moved onto it"
    if any("+" in row.strategy for row in scores):
        yield "+", "given at once, or clicks that go on from what stands before"


def extent(scores: Sequence[SliceScore]) -> str:
    """What scores were taken on: ``12 answers (3 organs, 4 slices, 1 patient)``."""
    counts = (
        (len({row.organ for row in scores}), "organ"),
        (len({(row.volume, row.view) for row in scores}), "slice"),
        (len({row.patient or row.volume for row in scores}), "patient"),
    )
    return f"{number_of(len(scores), 'answer')} ({', '.join(number_of(*one) for one in counts)})"


def _against_baselines(model: str, value: float, baselines: Mapping[str, Any]) -> Iterator[str]:
    """How a model with the tangent box compares with the best that the box says alone."""
    known = {name: means["mdice_volumes"] for name, means in baselines.items()}
    known = {name: mean for name, mean in known.items() if mean is not None}
    if known:
        name = max(known, key=lambda one: known[one])
        verb = "beats" if value > known[name] else "does not beat"
        words = _WITHOUT_MODEL.get(name, name)
        means = f"mean Dice {value:.3f} against {known[name]:.3f}"
        yield f"Given the tangent box, {model} {verb} {words}: {means}."


def _best(own: Mapping[str, Any], measure: str) -> str | None:
    """The strategy with the highest mean, when there are several."""
    known = {name: means[measure] for name, means in own.items() if means[measure] is not None}
    return max(known, key=lambda name: known[name]) if len(known) > 1 else None


def _mean_cell(means: Mapping[str, Any] | None, measure: str, *, highest: bool = False) -> Cell:
    if means is None or means[measure] is None:
        return Cell("–")
    span = interval_of(means, measure)
    return Cell(f"{means[measure]:.3f}", "" if span is None else f"{span[0]:.3f}–{span[1]:.3f}", highest)


def _organ_row(organ: str, columns: Mapping[str, Any], own: Mapping[str, Any]) -> OrganRow:
    found = [means["organs"].get(organ) for means in own.values()]
    counts = sorted({one["slices"] for one in found if one is not None})
    cells = tuple(_organ_cell(means["organs"].get(organ)) for means in columns.values())
    return OrganRow(organ, " / ".join(map(str, counts)), cells)


def _organ_cell(means: Mapping[str, Any] | None) -> OrganCell:
    value = None if means is None else means["dice"]
    return OrganCell("–", 0.0) if value is None else OrganCell(f"{value:.3f}", round(value, 3))


def _said(means: Mapping[str, Any]) -> str:
    span = interval_of(means, "mdice_volumes")
    text = f"{means['mdice_volumes']:.3f}"
    return text if span is None else f"{text} (95 % interval {span[0]:.3f} to {span[1]:.3f})"


def _listed(value: Any) -> str:
    """A value of the run as text; of a hash the beginning."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_listed(one)}" for key, one in value.items())
    if isinstance(value, str):
        return value[:_HASH_SHOWN] if len(value) == 64 and value.isalnum() else value
    if isinstance(value, Sequence):
        return ", ".join(_listed(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
