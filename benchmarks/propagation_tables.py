"""Tables of the propagation benchmark: means over volumes, in Markdown."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

TARGETS = (0.85, 0.9)


def report(rows: Sequence[dict[str, Any]], robot: Sequence[dict[str, Any]], most: int) -> str:
    """All tables, in Markdown."""
    parts = [
        f"## {protocol}\n\n{dice_table([row for row in rows if row['protocol'] == protocol])}"
        for protocol in dict.fromkeys(row["protocol"] for row in rows)
    ]
    if rows:
        parts.append(f"## All\n\n{summary_table(rows)}")
    if robot:
        parts.append(f"## Robot annotator\n\n{robot_tables(robot, most)}")
    return "\n".join(parts)


def dice_table(rows: Sequence[dict[str, Any]]) -> str:
    """Dice by organ and engine, of the rows of one protocol."""
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    organs = list(dict.fromkeys((row["case"], row["organ"]) for row in rows))
    by_key = {(row["case"], row["organ"], row["engine"]): row["dice"] for row in rows}
    lines = [
        [f"{case} {organ}", *(f"{by_key[case, organ, e]:.3f}" for e in engines)] for case, organ in organs
    ]
    means = [macro_mean([row for row in rows if row["engine"] == e], "dice") for e in engines]
    lines.append(["**mean over volumes**", *(f"**{mean:.3f}**" for mean in means)])
    return markdown(["Dice", *engines], lines)


def summary_table(rows: Sequence[dict[str, Any]]) -> str:
    """All measures by protocol and engine, mean over volumes."""
    measures = ("dice", "nsd", "hd95_mm", "over_propagation", "seconds")
    lines = []
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        for engine in dict.fromkeys(row["engine"] for row in rows):
            own = [row for row in rows if (row["protocol"], row["engine"]) == (protocol, engine)]
            if own:
                lines.append([f"{protocol}: {engine}", *(f"{macro_mean(own, m):.3f}" for m in measures)])
    return markdown(["mean over volumes", "Dice", "NSD 2 mm", "HD95 mm", "over-propagated", "seconds"], lines)


def robot_tables(rows: Sequence[dict[str, Any]], most: int) -> str:
    """What each engine and order needs, and Dice against prompted slices.

    An organ that never reaches a target counts as the most slices there may be; Dice after an organ's last
    slice stays what it was.
    """
    arms = list(dict.fromkeys((row["engine"], row["order"]) for row in rows))
    summary, curves = [], []
    steps = [n for n in (1, 2, 3, 4, 5, 7, 10, 15, 20) if n <= most]
    for arm in arms:
        runs = runs_of([row for row in rows if (row["engine"], row["order"]) == arm])
        finals = [run[-1] for run in runs]
        line = [" / ".join(arm)]
        for target in TARGETS:
            needed = [first_reaching(run, target) for run in runs]
            counted = [
                {**run[-1], "n": most if n is None else n} for run, n in zip(runs, needed, strict=True)
            ]
            line += [f"{macro_mean(counted, 'n'):.2f}", f"{needed.count(None)} of {len(runs)}"]
        line += [f"{macro_mean(finals, m):.3f}" for m in ("dice", "nsd", "hd95_mm", "over_propagation")]
        line += [f"{macro_mean(finals, 'interactions'):.1f}"]
        line += [f"{np.mean([sum(row['seconds'] for row in run) for run in runs]):.2f}"]
        summary.append(line)
        curves.append(
            [" / ".join(arm)]
            + [f"{macro_mean([run[min(n, len(run)) - 1] for run in runs], 'dice'):.3f}" for n in steps]
        )
    head = ["mean over volumes"] + [t for target in TARGETS for t in (f"slices to {target}", "never")]
    head += ["last Dice", "NSD 2 mm", "HD95 mm", "over-propagated", "interactions", "seconds"]
    by_organ = organ_needs(rows, arms, most)
    return f"{markdown(head, summary)}\nDice after so many prompted slices\n\n" + "\n".join(
        [markdown(["mean over volumes", *map(str, steps)], curves), "Slices to 0.85\n", by_organ]
    )


def organ_needs(rows: Sequence[dict[str, Any]], arms: Sequence[tuple[str, str]], most: int) -> str:
    """Slices to the first target by organ."""
    lines = []
    for case, organ in dict.fromkeys((row["case"], row["organ"]) for row in rows):
        own = [row for row in rows if (row["case"], row["organ"]) == (case, organ)]
        runs = [[row for row in own if (row["engine"], row["order"]) == arm] for arm in arms]
        needed = [first_reaching(run, TARGETS[0]) for run in runs]
        cells = (
            f"{run[-1]['dice']:.3f} at {len(run)}" if n is None else str(n)
            for run, n in zip(runs, needed, strict=True)
        )
        lines.append([f"{case} {organ}", *cells])
    return markdown([f"at most {most}", *(" / ".join(arm) for arm in arms)], lines)


def runs_of(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of one engine and order, by organ."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        runs.setdefault((row["case"], row["label"]), []).append(row)
    return list(runs.values())


def first_reaching(run: Sequence[dict[str, Any]], target: float) -> int | None:
    return next((row["slices_prompted"] for row in run if row["dice"] >= target), None)


def macro_mean(rows: Sequence[dict[str, Any]], column: str) -> float:
    """Mean over volumes of the mean over organs; infinite distances are left out."""
    cases = dict.fromkeys(row["case"] for row in rows)
    means = []
    for case in cases:
        values = [row[column] for row in rows if row["case"] == case and np.isfinite(row[column])]
        if values:
            means.append(float(np.mean(values)))
    return float(np.mean(means)) if means else float("nan")


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines)) + "\n"


def write_csv(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.5f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )
