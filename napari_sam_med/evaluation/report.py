"""Tables of a summary, for a terminal and for a Markdown page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ResultTable", "interval_of", "markdown_report", "result_tables"]

_SHORT = {"inscribed_ellipse": "ellipse", "filled_box": "box"}


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


def markdown_report(summary: Mapping[str, Any]) -> str:
    """A page of all tables."""
    run = summary["run"]
    planes = " and ".join(run["planes"])
    lines = [
        "# Evaluation",
        "",
        f"Prompts were simulated from the labels on the {planes} slices (1 of {run['every']}) with at least "
        f"{run['min_area']} pixels of the organ; seed {run['seed']}.",
        "Dice and IoU are means over the slices of an organ, then the organs of a volume, then the volumes; "
        '"by organ": over the slices of an organ in all volumes, then the organs.',
        "Ellipse and box are what the tangent box says without a model: the ellipse inscribed in it, and all "
        "of it.",
        "r and rho: Pearson and Spearman correlation of the predicted with the true IoU.",
        "Not for clinical use.",
        "",
    ]
    for table in result_tables(summary, organs=True):
        lines += [f"## {table.title}", "", table.markdown()]
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
    return ResultTable(f"Mean of volumes ({slices} slices with an organ)", headings, rows, text_columns=2)


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


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
