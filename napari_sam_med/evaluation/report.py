"""Tables of a summary, for a terminal and for a Markdown page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "FINDINGS_NOTE",
    "INSTANCES_NOTE",
    "ResultTable",
    "comparison_notes",
    "comparison_tables",
    "instances_table",
    "interval_notes",
    "interval_of",
    "interval_table",
    "markdown_report",
    "measures_note",
    "measures_table",
    "result_tables",
]

_SHORT = {"inscribed_ellipse": "ellipse", "filled_box": "box"}

_MEASURE_WORDS = {
    "best of three": "Best of three: where a model answers with three masks, mean Dice over all answers of "
    "the best one, which only somebody who knows the truth could choose.",
    "single": "Single: the same of the one mask that it makes when asked for one.",
    "NSD": "NSD: normalised surface distance, the share of both outlines within 2 mm of the other.",
    "HD95 mm": "HD95: the distance in mm within which 95 % of both outlines lie of each other, over answers "
    "that are not empty.",
    "ECE": "ECE: expected calibration error of the predicted IoU, 0 where it is right.",
    "r": "r: Pearson correlation of predicted and true IoU.",
    "seconds": "Seconds: of an answer, without looking at the slice, which is done once.",
}
"""By the heading of their column."""
_PRECISIONS = {
    "AP": "ap",
    "AP50": "ap50",
    "AP75": "ap75",
    "small": "ap_small",
    "medium": "ap_medium",
    "large": "ap_large",
    "AR": "ar",
}
INSTANCES_NOTE = (
    "All detections as masks, on every chosen slice, as COCO scores them: average precision over the IoU "
    "thresholds 0.50 to 0.95, at 0.50 and at 0.75, of organs of up to 32 x 32 pixels, up to 96 x 96 and "
    "more; average recall; and AP where any organ is right. Empty where there is nothing of the kind."
)
FINDINGS_NOTE = (
    "Published values are of other scans and mostly of other models, so it is the order of the prompts that "
    "can be compared. A finding says that some prompts do better than others: it holds where every such pair "
    "that was measured does so here, in 3 of 9 where three of nine pairs do; differences may be small, and "
    "chance is not accounted for. Empty: not measured."
)
"""Of the tables of a protocol."""
_COMPARISONS_NOTE = (
    "Compared on the same slices. p: how often a mean difference of Dice as large as this one would come by "
    "chance if both were alike (signs flipped at random), adjusted for the number of comparisons (Benjamini "
    "and Hochberg); below 0.05 is commonly taken for a difference. Wilcoxon: p of the signed ranks, not "
    "adjusted."
)


@dataclass(frozen=True)
class ResultTable:
    """A table of text: headings, rows of cells, and which columns are numbers."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    text_columns: int = 1

    def markdown(self) -> str:
        """The table as Markdown."""
        marks = ["---"] * self.text_columns + ["---:"] * (len(self.headings) - self.text_columns)
        lines = [self.headings, tuple(marks), *self.rows]
        table = "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)
        return f"{table}\n"


def result_tables(summary: Mapping[str, Any], *, organs: bool = False) -> Iterator[ResultTable]:
    """The tables of a summary: all means, then by volume (and organ) for each model and strategy."""
    yield _overview(summary)
    baselines = summary["baselines"]
    for model, strategies in summary["models"].items():
        for strategy, means in strategies.items():
            title = f"{model}, {strategy}"
            if len(means["volumes"]) > 1:
                yield _volume_table(title, means, baselines)
            if organs:
                for volume in means["volumes"]:
                    yield _organ_table(f"{title}: {volume}", volume, means, baselines)


def interval_of(means: Mapping[str, Any], measure: str) -> tuple[float, float] | None:
    """The 95 % interval of a mean of a summary, such as ``mdice_volumes``; None where it has none."""
    span = means.get("ci95", {}).get(measure)
    return None if span is None or None in span else (float(span[0]), float(span[1]))


def interval_table(summary: Mapping[str, Any]) -> ResultTable | None:
    """The 95 % intervals over patients of the means of volumes; None where there are none."""
    rows: list[tuple[str, ...]] = []
    for model, strategies in summary["models"].items():
        for strategy, means in strategies.items():
            spans = [interval_of(means, measure) for measure in ("mdice_volumes", "miou_volumes")]
            shown = ["" if span is None else f"{span[0]:.3f} to {span[1]:.3f}" for span in spans]
            if any(shown):
                rows.append((model, strategy, str(means["patients"]), *shown))
    headings = ("model", "strategy", "patients", "Dice", "IoU")
    title = "95 % intervals of the mean of volumes, over patients"
    return ResultTable(title, headings, rows, text_columns=2) if rows else None


def interval_notes(summary: Mapping[str, Any]) -> list[str]:
    """What is to be known of the intervals of a summary."""
    every = (means for strategies in summary["models"].values() for means in strategies.values())
    said = dict.fromkeys(means.get("ci95_note") for means in every if means.get("ci95"))
    return [f"Note: {text}." for text in said if text]


def measures_table(summary: Mapping[str, Any]) -> ResultTable | None:
    """What else was measured, by model and strategy; columns that no answer has are left out."""
    columns: list[tuple[str, list[str]]] = [
        (heading, []) for heading in ("Dice over answers", "best of three", "single", "NSD", "HD95 mm")
    ]
    columns += [(heading, []) for heading in ("ECE", "r", "seconds")]
    keys = ("mdice_slices", "mdice_oracle_slices", "mdice_single_slices", "mnsd_volumes", "mhd95_mm_volumes")
    names = []
    for model, strategies in summary["models"].items():
        for strategy, means in strategies.items():
            names.append((model, strategy))
            agreement = means["iou_prediction"]
            values = [means.get(key) for key in keys]
            values += [agreement.get("ece"), agreement["pearson"], means["seconds"]]
            for (_, cells), value in zip(columns, values, strict=True):
                cells.append(_shown(value))
    filled = [(heading, cells) for heading, cells in columns if any(cells)]
    if not filled:
        return None
    rows = [(*name, *cells) for name, *cells in zip(names, *(cells for _, cells in filled), strict=True)]
    headings = ("model", "strategy", *(heading for heading, _ in filled))
    return ResultTable("Other measures", headings, rows, text_columns=2)


def measures_note(table: ResultTable) -> str:
    """What the columns of `measures_table` mean, those that are there."""
    return " ".join(words for heading, words in _MEASURE_WORDS.items() if heading in table.headings)


def instances_table(summary: Mapping[str, Any]) -> ResultTable | None:
    """How well masks from the boxes of detectors find the organs; None where none were asked."""
    rows = [
        (
            model,
            strategy,
            *(_shown(scores[key]) for key in _PRECISIONS.values()),
            _shown(scores["class_agnostic"]["ap"]),
            str(scores["instances"]["all"]),
            str(scores["detections"]),
        )
        for model, strategies in summary.get("instances", {}).items()
        for strategy, scores in strategies.items()
    ]
    headings = ("model", "strategy", *_PRECISIONS, "any organ", "instances", "detections")
    return ResultTable("Detections as instances", headings, rows, text_columns=2) if rows else None


def comparison_tables(summary: Mapping[str, Any]) -> Iterator[ResultTable]:
    """The paired comparisons of a summary that has them: of models, then of strategies."""
    compared = summary.get("comparisons", [])
    for between, within in (("models", "strategy"), ("strategies", "model")):
        rows: list[tuple[str, ...]] = [
            (
                one["within"],
                one["a"],
                one["b"],
                _shown(one["mean_a"]),
                _shown(one["mean_b"]),
                _shown(one["difference"]),
                f"{one['pairs']} {one['over']}",
                _chance(one["p_fdr"]),
                _chance(one["p_wilcoxon"]),
            )
            for one in compared
            if one["between"] == between
        ]
        if rows:
            headings = (within, "A", "B", "Dice of A", "Dice of B", "A - B", "pairs", "p", "Wilcoxon")
            yield ResultTable(f"Paired comparison of {between}", headings, rows, text_columns=3)


def comparison_notes(summary: Mapping[str, Any]) -> list[str]:
    """What is to be known of the comparisons, how p is meant first; empty where there are none."""
    compared = summary.get("comparisons", [])
    if not compared:
        return []
    return [_COMPARISONS_NOTE, *dict.fromkeys(f"Note: {one['note']}." for one in compared if one["note"])]


def markdown_report(summary: Mapping[str, Any]) -> str:
    """A page of all tables."""
    run = summary["run"]
    planes = " and ".join(run["planes"])
    lines = [
        "# Evaluation",
        "",
        f"Prompts were simulated from the labels on the {planes} slices (1 of {run['every']}) with at least "
        f"{run['min_area']} pixels of the organ; {_seeds(run)}.",
        *(["The models were shown the box of the body alone."] if run.get("crop_to_body") else []),
        "Dice and IoU are means over the slices of an organ, then the organs of a volume, then the volumes; "
        '"by organ": over the slices of an organ in all volumes, then the organs.',
        "Ellipse and box are what the tangent box says without a model: the ellipse inscribed in it, and all "
        "of it.",
        "r and rho: Pearson and Spearman correlation of the predicted with the true IoU.",
        "Not for clinical use.",
        "",
    ]
    overview, *others = result_tables(summary, organs=True)
    intervals, measures = interval_table(summary), measures_table(summary)
    noted: list[tuple[ResultTable, list[str]]] = []
    noted += [] if intervals is None else [(intervals, interval_notes(summary))]
    noted += [] if measures is None else [(measures, [measures_note(measures)])]
    instances = instances_table(summary)
    noted += [] if instances is None else [(instances, [INSTANCES_NOTE])]
    noted += [(table, comparison_notes(summary)) for table in comparison_tables(summary)]
    published = [ResultTable(**table) for table in (summary.get("protocol") or {"tables": []})["tables"]]
    first: list[tuple[ResultTable, list[str]]] = [(table, []) for table in (overview, *published[:-1])]
    first += [(table, [FINDINGS_NOTE]) for table in published[-1:]]
    for table, notes in [*first, *noted, *((table, []) for table in others)]:
        lines += [f"## {table.title}", "", table.markdown(), *(f"{note}\n" for note in notes)]
    return "\n".join(lines)


def _overview(summary: Mapping[str, Any]) -> ResultTable:
    rows = []
    slices = 0
    for model, strategies in summary["models"].items():
        for strategy, means in strategies.items():
            slices = max(slices, means["slices"])
            agreement = means["iou_prediction"]
            more = (_shown(agreement["pearson"]), _shown(agreement["spearman"]))
            rows.append((model, strategy, *_overall(means), *more))
    for name, means in summary["baselines"].items():
        rows.append((_SHORT[name], "bound_box", *_overall(means), "", ""))
    headings = ("model", "strategy", "Dice", "IoU", "by organ", "r", "rho")
    seeds = len(summary.get("run", {}).get("seeds", ())) or 1
    each = f" x {seeds} seeds" if seeds > 1 else ""
    title = f"Mean of volumes ({slices // seeds} slices with an organ{each})"
    return ResultTable(title, headings, rows, text_columns=2)


def _overall(means: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_shown(means[key]) for key in ("mdice_volumes", "miou_volumes", "mdice_organs"))


def _volume_table(title: str, means: Mapping[str, Any], baselines: Mapping[str, Any]) -> ResultTable:
    rows = [
        (
            name,
            str(len(volume["organs"])),
            str(volume["slices"]),
            _shown(volume["mdice_organs"]),
            *(_shown(other["volumes"][name]["mdice_organs"]) for other in baselines.values()),
        )
        for name, volume in means["volumes"].items()
    ]
    total = [_shown(one["mdice_volumes"]) for one in (means, *baselines.values())]
    rows.append(("mean of volumes", "", str(means["slices"]), *total))
    return ResultTable(title, ("volume", "organs", "slices", "Dice", *_names(baselines)), rows)


def _organ_table(
    title: str, volume: str, means: Mapping[str, Any], baselines: Mapping[str, Any]
) -> ResultTable:
    rows = [
        (
            organ,
            str(own["slices"]),
            _shown(own["dice"]),
            *(_shown(other["volumes"][volume]["organs"][organ]["dice"]) for other in baselines.values()),
        )
        for organ, own in means["volumes"][volume]["organs"].items()
    ]
    return ResultTable(title, ("organ", "slices", "Dice", *_names(baselines)), rows)


def _names(baselines: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_SHORT[name] for name in baselines)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _chance(p: float | None) -> str:
    return "< 0.001" if p is not None and p < 0.001 else _shown(p)


def _seeds(run: Mapping[str, Any]) -> str:
    seeds = run.get("seeds", [run["seed"]])
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _escaped(cell: str) -> str:
    return re.sub(r"\||<(?=\S)", r"\\\g<0>", cell)  # an organ may be called <b>; "< 0.001" is no tag
