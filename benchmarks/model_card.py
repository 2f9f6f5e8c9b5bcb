"""The results in docs/model_card.md, from what `napari-sam-med evaluate` measured::

    python -m benchmarks.model_card NANO_REPORT NANO_SELECTION

puts the tables between the card's two marks. The arguments are the folders that its two commands wrote.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.propagation_tables import markdown

CARD = Path(__file__).parents[1] / "docs" / "model_card.md"
FIRST, LAST = "<!-- results -->", "<!-- end of results -->"
STRATEGIES = {
    "bound_box": "true box",
    "jittered_box:0.05": "box, sides moved by up to 5 %",
    "jittered_box:0.1": "box, sides moved by up to 10 %",
    "center_distance": "one click (largest distance to the background)",
    "corrective_clicks:3": "three clicks, each in the largest error",
    "corrective_clicks:5": "five clicks",
}
_NAMES = {
    "mr_brain_tumour_brain1": {"label 1": "lesion"},
    "mr_brats_0006": {
        "label 1": "necrosis",
        "label 2": "oedema",
        "label 3": "non-enhancing",
        "label 4": "enhancing",
    },
    "mr_cardiac_acdc": {
        "label 1": "right ventricle",
        "label 2": "wall of the left ventricle",
        "label 3": "left ventricle",
    },
    "ct_spleen_msd": {"label 1": "spleen"},
    "ct_abdomen_ts": {
        f"label {number}": name
        for number, name in enumerate(
            (
                "spleen", "right kidney", "left kidney", "gallbladder", "oesophagus", "liver", "stomach",
                "aorta", "inferior vena cava", "portal and splenic veins", "pancreas", "right adrenal",
                "left adrenal",
            ),
            start=1,
        )
    },
}  # fmt: skip


def organ_name(volume: str, organ: str) -> str:
    """What a label without a name is, as the data's own description says."""
    return next((names.get(organ, organ) for case, names in _NAMES.items() if volume.startswith(case)), organ)


def prompts_table(report: dict[str, Any], selection: dict[str, Any]) -> str:
    """Dice by way to prompt, on both sets of volumes."""
    lines = []
    for strategy, title in STRATEGIES.items():
        found = model_of(report).get(strategy)
        if found is None:
            continue
        chosen = model_of(selection)[strategy]["mdice_volumes"]
        rho = found["iou_prediction"]["spearman"]
        lines.append([title, f"{found['mdice_volumes']:.3f}", f"{chosen:.3f}", f"{rho:.2f}"])
    for baseline, title in (
        ("inscribed_ellipse", "ellipse in the true box"),
        ("filled_box", "filled true box"),
    ):
        dice = (baseline_of(s, baseline)["mdice_volumes"] for s in (report, selection))
        lines.append([f"no model: {title}", *(f"{d:.3f}" for d in dice), ""])
    head = [
        "prompt",
        "report volumes",
        "selection volumes",
        "rank correlation of predicted and true IoU (report)",
    ]
    return markdown(head, lines)


def volumes_table(summary: dict[str, Any]) -> str:
    """Dice with the true box by volume, with the baselines."""
    model, (ellipse, box) = (
        model_of(summary)["bound_box"],
        (baseline_of(summary, b) for b in ("inscribed_ellipse", "filled_box")),
    )
    lines = [
        [name, str(len(found["organs"])), str(found["slices"]), f"{found['mdice_organs']:.3f}"]
        + [f"{other['volumes'][name]['mdice_organs']:.3f}" for other in (ellipse, box)]
        for name, found in model["volumes"].items()
    ]
    means = [f"{m['mdice_volumes']:.3f}" for m in (model, ellipse, box)]
    lines.append(["**mean of volumes**", "", str(model["slices"]), f"**{means[0]}**", *means[1:]])
    return markdown(["volume", "organs", "slices", "model", "ellipse", "filled box"], lines)


def organs_table(summary: dict[str, Any]) -> str:
    """Dice with the true box by organ, with the ellipse."""
    model, ellipse = model_of(summary)["bound_box"], baseline_of(summary, "inscribed_ellipse")
    lines = [
        [
            volume,
            organ_name(volume, organ),
            str(scores["slices"]),
            f"{scores['dice']:.3f}",
            f"{ellipse['volumes'][volume]['organs'][organ]['dice']:.3f}",
        ]
        for volume, found in model["volumes"].items()
        for organ, scores in found["organs"].items()
    ]
    return markdown(["volume", "organ", "slices", "model", "ellipse"], lines)


def believed(summary: dict[str, Any]) -> str:
    """One line on the predicted IoU with the true box."""
    iou = model_of(summary)["bound_box"]["iou_prediction"]
    return (
        f"Predicted IoU {iou['mean']:.3f} on average, true {iou['true_mean']:.3f}; correlation "
        f"{iou['pearson']:.2f}, rank correlation {iou['spearman']:.2f}."
    )


def model_of(summary: dict[str, Any]) -> dict[str, Any]:
    """The strategies of the only model that was measured."""
    [strategies] = summary["models"].values()
    found: dict[str, Any] = strategies
    return found


def baseline_of(summary: dict[str, Any], name: str) -> dict[str, Any]:
    """What a baseline says of the true boxes."""
    found: dict[str, Any] = summary["baselines"][name]
    return found


def results(report: dict[str, Any], selection: dict[str, Any]) -> str:
    """Everything between the marks."""
    boxes = [
        s["bound_box"]["mdice_volumes"]
        for s in (model_of(report), {"bound_box": baseline_of(report, "inscribed_ellipse")})
    ]
    ratio = (1 - boxes[0]) / (1 - boxes[1])
    return "\n".join(
        [
            prompts_table(report, selection),
            f"With the true box the mean error on the report volumes is {ratio:.3f} times the ellipse's. "
            "By volume, with the true box:\n",
            volumes_table(report),
            believed(report) + "\n\nBy organ:\n",
            organs_table(report),
            "Selection volumes, with the true box:\n",
            volumes_table(selection),
            believed(selection),
        ]
    )


def main(given: Sequence[str] | None = None) -> None:
    """Write the results into the model card."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_card", description=__doc__)
    parser.add_argument("report", type=Path, help="folder of `evaluate` on the report volumes")
    parser.add_argument("selection", type=Path, help="folder of `evaluate` on the selection volumes")
    parser.add_argument("--card", type=Path, default=CARD)
    arguments = parser.parse_args(given)
    report, selection = (
        json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        for folder in (arguments.report, arguments.selection)
    )
    before, _, rest = arguments.card.read_text(encoding="utf-8").partition(FIRST)
    _, _, after = rest.partition(LAST)
    text = f"{before}{FIRST}\n{results(report, selection)}\n{LAST}{after}"
    arguments.card.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
