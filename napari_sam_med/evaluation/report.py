"""Tables of a summary, for a terminal and for a Markdown page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ResultTable", "markdown_report", "result_tables"]


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
    for model, strategies in summary["models"].items():
        for strategy, means in strategies.items():
            if len(means["volumes"]) > 1:
                yield _volume_table(f"{model}, {strategy}", means, summary["baselines"])
            if organs:
                yield _organ_table(f"{model}, {strategy}, by organ", means, summary["baselines"])


def markdown_report(summary: Mapping[str, Any]) -> str:
    """A page of all tables."""
    run = summary["run"]
    planes = " and ".join(run["planes"])
    lines = [
        "# Evaluation",
        "",
        f"Prompts were simulated from the labels on the {planes} slices (1 of {run['every']}) with at least "
        f"{run['min_area']} pixels of the organ; seed {run['seed']}.",
        "Dice and IoU are means over the slices of an organ, then the organs of a volume, then the volumes.",
        "The inscribed ellipse and the filled box are what the tangent box says without a model.",
        "Pearson and Spearman: correlation of the predicted with the true IoU. Not for clinical use.",
        "",
    ]
    for table in result_tables(summary, organs=True):
        lines += [f"## {table.title}", "", table.markdown()]
    return "\n".join(lines)


def _overview(summary: Mapping[str, Any]) -> ResultTable:
    rows = []
    for model, strategies in summary["models"].items():
        for strategy, means in strategies.items():
            agreement = means["iou_prediction"]
            rows.append(
                (
                    model,
                    strategy,
                    *_overall(means),
                    _shown(agreement["pearson"]),
                    _shown(agreement["spearman"]),
                )
            )
    for name, means in summary["baselines"].items():
        rows.append((name.replace("_", " "), "bound_box", *_overall(means), "", ""))
    headings = (
        "model",
        "strategy",
        "slices",
        "Dice",
        "IoU",
        "by organ",
        "by slice",
        "Pearson",
        "Spearman",
    )
    return ResultTable("Mean of volumes", headings, rows, text_columns=2)


def _overall(means: Mapping[str, Any]) -> tuple[str, ...]:
    keys = ("mdice_volumes", "miou_volumes", "mdice_organs", "mdice_slices")
    return (str(means["slices"]), *(_shown(means[key]) for key in keys))


def _volume_table(title: str, means: Mapping[str, Any], baselines: Mapping[str, Any]) -> ResultTable:
    rows = [
        (
            name,
            str(len(volume["organs"])),
            str(volume["slices"]),
            _shown(volume["mdice_organs"]),
            _shown(volume["miou_organs"]),
            *(_shown(other["volumes"][name]["mdice_organs"]) for other in baselines.values()),
        )
        for name, volume in means["volumes"].items()
    ]
    last = (
        "mean of volumes",
        "",
        str(means["slices"]),
        _shown(means["mdice_volumes"]),
        _shown(means["miou_volumes"]),
        *(_shown(other["mdice_volumes"]) for other in baselines.values()),
    )
    return ResultTable(
        title, ("volume", "organs", "slices", "Dice", "IoU", *_names(baselines)), [*rows, last]
    )


def _organ_table(title: str, means: Mapping[str, Any], baselines: Mapping[str, Any]) -> ResultTable:
    rows = [
        (
            name,
            organ,
            str(own["slices"]),
            _shown(own["dice"]),
            _shown(own["iou"]),
            *(_shown(other["volumes"][name]["organs"][organ]["dice"]) for other in baselines.values()),
        )
        for name, volume in means["volumes"].items()
        for organ, own in volume["organs"].items()
    ]
    headings = ("volume", "organ", "slices", "Dice", "IoU", *_names(baselines))
    return ResultTable(title, headings, rows, text_columns=2)


def _names(baselines: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name.replace("_", " ") for name in baselines)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
