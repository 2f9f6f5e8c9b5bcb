"""How well organs are named on labelled volumes: the figures and pictures of docs/organ_classifier.

``python -m benchmarks.organ_classifier CASES.csv -o DIR [--samples FOLDER]`` asks the bundled classifier
about the labels of each case and about the model's own masks from their boxes. With the folder that
``napari_sam_med.training.train_organ_classifier`` wrote it grows the baseline, boosted trees on the geometry
alone, from the same samples.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.propagation_tables import markdown
from napari_sam_med.evaluation.cases import read_case, read_cases
from napari_sam_med.evaluation.prompt_strategies import PromptTarget, bound_box
from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.segmentation.organ_classifier import OrganClassifier, load_classifier
from napari_sam_med.segmentation.organ_features import ScanFrame, SliceObjects
from napari_sam_med.segmentation.organ_trees import TreesClassifier
from napari_sam_med.training.class_head import Measured, calibrated, measure
from napari_sam_med.training.class_head_calibration import reliability_of
from napari_sam_med.training.class_head_plots import draw_confusion, draw_reliability
from napari_sam_med.training.class_head_samples import Samples
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

FIRST, LAST = "<!-- results -->", "<!-- end of results -->"
_DRAWS = 4000


def asked(
    volume: Volume,
    labels: LabelVolume,
    predictor: Predictor,
    classifiers: dict[str, OrganClassifier],
    *,
    predicted: bool,
    patient: int,
) -> tuple[dict[str, npt.NDArray[np.float64]], Samples]:
    """What classifiers say of every labelled axial slice, and the masks as samples.

    Parameters
    ----------
    predicted : bool
        Ask about the model's masks from the boxes of the labels in place of the labels.
    """
    organs = next(iter(classifiers.values())).facts.organs
    class_of = {number: organs.index(labels.organs.name_of(number)) for number in labels.class_ids()}
    frame = ScanFrame.of(volume)
    said: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in classifiers}
    parts = []
    for z in range(labels.shape[0]):
        numbers = [number for number in class_of if (labels.data[z] == number).any()]
        if not numbers:
            continue
        view = SliceView("axial", z)
        masks = np.stack([labels.data[z] == number for number in numbers])
        objects = SliceObjects(volume, frame, view, masks, predictor)
        if predicted:
            rng = np.random.default_rng(0)
            prompts = [bound_box(PromptTarget(mask), rng) for mask in masks]
            answers = predictor.predict_batch(objects.embedding, prompts, multimask=False)
            masks = np.stack(
                [a.best_mask if a.best_mask.any() else m for a, m in zip(answers, masks, strict=True)]
            )
            objects = SliceObjects(volume, frame, view, masks, predictor)
        for name, classifier in classifiers.items():
            said[name].append(classifier.log_probabilities(objects))
        rows = len(numbers)
        parts.append(
            Samples(
                {"geometry": objects.geometry},
                np.array([class_of[number] for number in numbers]),
                np.full(rows, patient),
                np.array(numbers) + 1000 * patient,
                objects.areas_mm2,
                objects.qualities,
            )
        )
    objects_of = np.concatenate([part.objects for part in parts])
    joined = Samples.joined(parts)
    samples = Samples(
        joined.features, joined.classes, joined.patients, objects_of, joined.areas, joined.qualities
    )
    return {name: np.concatenate(tables) for name, tables in said.items()}, samples


def baseline(folder: Path, classifier: OrganClassifier) -> TreesClassifier:
    """Boosted trees on the geometry of the bundled classifier's own samples, calibrated as it was."""
    files = {
        path.stem.removeprefix("samples_"): Samples.load(path) for path in sorted(folder.glob("samples_*"))
    }
    facts = replace(classifier.facts, kind=TreesClassifier.KIND, training={})

    def grown(without: str = "-") -> TreesClassifier:
        joined = Samples.joined([part for name, part in files.items() if not name.startswith(without)])
        return TreesClassifier(facts, joined.features["geometry"], joined.classes)

    plain = {name.partition("_")[0]: part for name, part in files.items() if "_plain_" in name}
    logits = [grown(without=body).logits(part.features["geometry"]) for body, part in plain.items()]
    known, _, _ = calibrated(facts, np.concatenate(logits), Samples.joined(list(plain.values())))
    return replace(grown(), facts=known)


def expected_vote(accuracy: float, rho: float, sizes: Sequence[int], n_classes: int, seed: int = 0) -> float:
    """Share of objects that a plain majority of their slices names rightly, were errors only correlated.

    Slices of an object are right with a probability drawn from the beta distribution of mean `accuracy` and
    intraclass correlation `rho`; half of the errors go to one other organ, the rest anywhere.
    """
    rng = np.random.default_rng(seed)
    shares = []
    rho = float(np.clip(rho, 1e-3, 0.999))
    accuracy = float(np.clip(accuracy, 1e-3, 0.999))
    for n in sizes:
        right = rng.beta(accuracy * (1 - rho) / rho, (1 - accuracy) * (1 - rho) / rho, _DRAWS)
        votes = rng.binomial(n, right)
        wrong = n - votes
        confuser = rng.binomial(wrong, 0.5)
        rest = (wrong - confuser) / max(n_classes - 2, 1)
        most = np.maximum(confuser + rest, 1e-9)
        shares.append(float((votes > most).mean() + 0.5 * (votes == most).mean()))
    return float(np.mean(shares))


def majority(table: npt.NDArray[np.float64], samples: Samples) -> float:
    """Share of objects that the plain majority of their slices names rightly."""
    best = table.argmax(axis=1)
    right = []
    for number in np.unique(samples.objects):
        rows = samples.objects == number
        right.append(np.bincount(best[rows]).argmax() == samples.classes[rows][0])
    return float(np.mean(right))


def figures(
    table: npt.NDArray[np.float64], samples: Samples, classifier: OrganClassifier
) -> tuple[Measured, dict[str, Any]]:
    """What stands in the table of the page, and the objects one by one."""
    facts = classifier.facts
    found = measure(table, samples, facts.organs, rho=facts.rho)
    freely = measure(table, samples, facts.organs, rho=facts.rho, each_once=False)
    sizes = np.unique(samples.objects, return_counts=True)[1]
    kept = found.confidence >= facts.threshold
    right = found.true == found.guessed
    numbers = found.summary() | {
        "masks": len(samples),
        "objects": len(found.true),
        "objects_right": int(right.sum()),
        "object_accuracy_repeats_allowed": round(freely.object_accuracy, 4),
        "majority_of_slices": round(majority(table, samples), 4),
        "majority_expected_from_rho": round(
            expected_vote(found.slice_accuracy, found.rho, sizes.tolist(), len(facts.organs)), 4
        ),
        "majority_expected_if_independent": round(
            expected_vote(found.slice_accuracy, 0.0, sizes.tolist(), len(facts.organs)), 4
        ),
        "answered": int(kept.sum()),
        "answered_right": int((kept & right).sum()),
        "by_organ": {
            facts.organs[c]: round(float((table[samples.classes == c].argmax(axis=1) == c).mean()), 3)
            for c in np.unique(samples.classes)
        },
        "wrong": {
            facts.organs[t]: f"{facts.organs[g]} ({p:.2f})"
            for t, g, p in zip(found.true, found.guessed, found.confidence, strict=True)
            if t != g
        },
    }
    return found, numbers


def results(document: dict[str, Any], classifier: OrganClassifier) -> str:
    """The tables of the page."""
    rows = [
        [
            name,
            f"{one['objects_right']} of {one['objects']}",
            f"{one['slice_accuracy']:.3f} ({one['masks']})",
            f"{one['ece']:.3f}",
            f"{one['nll']:.3f}",
            f"{one['answered_right']} of {one['answered']}",
        ]
        for name, one in document.items()
    ]
    head = ["classifier, masks", "objects right", "slices right", "ECE", "NLL", "right where sure"]
    text = markdown(head, rows)
    rows = [
        [
            name,
            f"{one['rho']:.2f}",
            f"{one['majority_of_slices']:.3f}",
            f"{one['majority_expected_from_rho']:.3f}",
            f"{one['majority_expected_if_independent']:.3f}",
            f"{one['object_accuracy_repeats_allowed']:.3f}",
            f"{one['object_accuracy']:.3f}",
        ]
        for name, one in document.items()
    ]
    head = [
        "classifier, masks",
        "rho",
        "plain majority",
        "expected from rho",
        "if independent",
        "vote",
        "vote, each once",
    ]
    text += "\n" + markdown(head, rows)
    organs = [
        organ
        for organ in classifier.facts.organs
        if any(organ in one["by_organ"] for one in document.values())
    ]
    rows = [
        [organ, *(f"{one['by_organ'].get(organ, float('nan')):.2f}" for one in document.values())]
        for organ in organs
    ]
    text += "\nSlices right, by organ:\n\n" + markdown(["organ", *document], rows)
    wrong = [
        f"- {name}: " + ("; ".join(f"{truth} as {said}" for truth, said in one["wrong"].items()) or "none")
        for name, one in document.items()
    ]
    return text + "\nObjects taken for others, with the probability given:\n\n" + "\n".join(wrong) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--samples", type=Path, help="folder of train_organ_classifier, for the baseline")
    parser.add_argument("--classifier", type=Path, help="another one than the bundled one")
    parser.add_argument("--page", type=Path, help="page whose results are written anew, between its marks")
    given = parser.parse_args(argv)
    predictor = load_predictor("nano", device="cpu")
    classifier = load_classifier(given.classifier)
    classifiers: dict[str, OrganClassifier] = {"bundled": classifier}
    if given.samples is not None:
        classifiers["trees on geometry"] = baseline(given.samples, classifier)
    given.output.mkdir(parents=True, exist_ok=True)
    volumes = [read_case(case) for case in read_cases(given.cases, "btcv")]
    document: dict[str, Any] = {}
    for source in ("labels", "predicted"):
        answers = [
            asked(volume, labels, predictor, classifiers, predicted=source == "predicted", patient=number)
            for number, (volume, labels) in enumerate(volumes)
        ]
        samples = Samples.joined([part for _, part in answers])
        for name, one in classifiers.items():
            table = np.concatenate([said[name] for said, _ in answers])
            found, document[f"{name}, {source}"] = figures(table, samples, one)
            if name != "bundled":
                continue
            organs, title = one.facts.organs, f"masks: {source}"
            draw_reliability(
                given.output / f"reliability_{source}.png", reliability_of(table, samples.classes), title
            )
            draw_confusion(
                given.output / f"confusion_{source}.png",
                samples.classes,
                table.argmax(axis=1),
                organs,
                f"slices, {title}",
            )
            draw_confusion(
                given.output / f"confusion_objects_{source}.png",
                found.true,
                found.guessed,
                organs,
                f"objects, {title}",
            )
    if given.page is not None:
        before, _, rest = given.page.read_text(encoding="utf-8").partition(FIRST)
        _, _, after = rest.partition(LAST)
        text = f"{before}{FIRST}\n{results(document, classifier)}\n{LAST}{after}"
        given.page.write_text(text, encoding="utf-8")
    (given.output / "figures.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
