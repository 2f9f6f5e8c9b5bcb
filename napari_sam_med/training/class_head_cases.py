"""A classifier of organs from the user's own labelled volumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import LabelError, ModelError
from napari_sam_med.evaluation.cases import Case, read_case
from napari_sam_med.evaluation.prompt_strategies import PromptTarget, jittered_box
from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.organ_classifier import (
    CLASSIFIER_FILE,
    ClassifierFacts,
    LateFusionClassifier,
    OrganClassifier,
    with_facts,
    write_classifier,
)
from napari_sam_med.segmentation.organ_features import ScanFrame, SliceObjects
from napari_sam_med.segmentation.organ_token import ClassTokenClassifier, sam_network
from napari_sam_med.segmentation.organ_trees import TreesClassifier
from napari_sam_med.segmentation.report import write_json
from napari_sam_med.training.class_head import HeadRecipe, Measured, calibrated, logits_of, train_head
from napari_sam_med.training.class_head_calibration import reliability_of
from napari_sam_med.training.class_head_plots import draw_confusion, draw_reliability
from napari_sam_med.training.class_head_samples import Samples, samples_of_slices
from napari_sam_med.training.class_head_token import TokenRecipe, TokenSlice, token_logits, train_class_token
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor

__all__ = ["CLASS_RECIPES", "Trained", "train_on_cases", "write_trained"]

Floats = npt.NDArray[np.float64]
OnProgress = Callable[[Progress], None]

CLASS_RECIPES: dict[str, str] = {
    "late-fusion": "a small network over geometry, pooled embedding and decoder tokens",
    "trees": "boosted trees on the geometry alone, the baseline",
    "btcv-class": "a class token in SAM's mask decoder, trained with its transformer: Adam, 1e-5, 50 epochs",
}
_MOST_SLICES = 40
_REPEATS = 4
_FOLDS = 5
_JITTER = 0.1
_EPOCHS, _FEWEST_STEPS = 60, 250


@dataclass(frozen=True, eq=False)
class _Data:
    """What was read: samples, the organs' names, split and scan of each sample, for a class token the slices
    behind the samples, and what is odd about the files.
    """

    samples: Samples
    organs: tuple[str, ...]
    splits: npt.NDArray[np.str_]
    scans: npt.NDArray[np.int64]
    tokens: list[TokenSlice]
    warnings: list[str]


@dataclass(frozen=True, eq=False)
class Trained:
    """A classifier, how it does on patients that it was not trained on, and what was odd."""

    classifier: OrganClassifier
    measured: Measured
    log_probabilities: Floats
    classes: npt.NDArray[np.int64]
    warnings: tuple[str, ...] = ()


def train_on_cases(
    cases: Sequence[Case],
    predictor: Predictor,
    recipe: str = "late-fusion",
    *,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Trained:
    """Train on labelled volumes, and measure on patients that were held out.

    Cases of the split ``val`` are for calibration and measuring, those of ``test`` are left alone. Without a
    ``val`` every patient is held out in turn (up to five groups of patients; a class token: the last one
    only), and the classifier that is kept is trained on all of them.

    Raises
    ------
    ModelError
        On an unknown recipe, or a model that it does not suit.
    ImageError, LabelError
        When a case cannot be read, or there is nothing to tell apart.
    """
    if recipe not in CLASS_RECIPES:
        raise ModelError(f'There is no recipe "{recipe}"; use one of {", ".join(CLASS_RECIPES)}.')
    if recipe == "btcv-class":
        sam_network(predictor)  # refused now, not after minutes
    data = _read(cases, predictor, recipe, seed, on_progress)
    warnings = list(data.warnings)
    folds = _folds(data)
    if len(np.unique(data.samples.patients)) < 2:
        warnings.append(
            "there is one patient only: accuracy and calibration are measured on slices between the training "
            "slices, which flatters; add another patient"
        )
    learned = data.samples.classes[data.splits != "val"]
    unknown = [name for number, name in enumerate(data.organs) if number not in learned]
    if unknown:
        warnings.append(f"no case to learn from shows {', '.join(unknown)}: what is not shown is not learned")
    if recipe == "btcv-class":
        folds = folds[-1:]
    held_out, order = [], []
    facts = ClassifierFacts(
        recipe.replace("-", "_"), data.organs, predictor.record.name, predictor.model_hash
    )
    for number, fold in enumerate(folds):
        fit = _fit(
            recipe,
            data,
            np.flatnonzero(~fold),
            facts,
            predictor,
            seed,
            on_progress if recipe == "btcv-class" else None,
        )
        held_out.append(_logits(fit, data, np.flatnonzero(fold), predictor))
        order.append(np.flatnonzero(fold))
        if on_progress is not None:
            on_progress(Progress(number + 1, len(folds) + 1, "held-out patients"))
    has_val = bool((data.splits == "val").any())
    final = (
        fit
        if has_val or recipe == "btcv-class"
        else _fit(recipe, data, np.arange(len(data.samples)), facts, predictor, seed, None)
    )
    logits, rows = np.concatenate(held_out), np.concatenate(order)
    samples, scans = data.samples.where(rows), data.scans[rows]
    return _calibrated(final, logits, samples, scans, data, cases, recipe, seed, warnings)


def _calibrated(
    fit: OrganClassifier,
    logits: Floats,
    samples: Samples,
    scans: npt.NDArray[np.int64],
    data: _Data,
    cases: Sequence[Case],
    recipe: str,
    seed: int,
    warnings: list[str],
) -> Trained:
    facts, found, table = calibrated(fit.facts, logits, samples, scans)
    training = {
        "cases": [{"image": case.image, "labels": case.labels_path.name} for case in cases],
        "recipe": recipe,
        "about": CLASS_RECIPES[recipe],
        "settings": _settings(recipe, len(data.samples)),
        "seed": seed,
        "masks": len(data.samples),
        "patients": len(np.unique(data.samples.patients)),
        "held_out": found.summary() | {"masks": len(samples)},
        "warnings": warnings,
    }
    classifier = with_facts(fit, **asdict(replace(facts, training=training)))
    return Trained(classifier, found, table, samples.classes, tuple(warnings))


def write_trained(folder: Path, trained: Trained) -> list[Path]:
    """Write classifier, card and pictures into a folder, which is made when needed; the classifier last.

    Raises
    ------
    ExportError
        When a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    organs = trained.classifier.facts.organs
    paths = [
        folder / name for name in ("reliability.png", "confusion.png", "classifier.json", CLASSIFIER_FILE)
    ]
    title = "patients that were not trained on"
    draw_reliability(paths[0], reliability_of(trained.log_probabilities, trained.classes), title)
    draw_confusion(paths[1], trained.measured.true, trained.measured.guessed, organs, f"objects, {title}")
    write_json(paths[2], asdict(trained.classifier.facts))
    write_classifier(paths[3], trained.classifier)
    return paths


def _read(
    cases: Sequence[Case], predictor: Predictor, recipe: str, seed: int, on_progress: OnProgress | None
) -> _Data:
    """Features of every case that is not for testing."""
    used = [case for case in cases if case.split != "test"]
    patients = {
        name: number
        for number, name in enumerate(dict.fromkeys((case.patient or case.image) for case in used))
    }
    names: dict[str, int] = {}
    parts, splits, scans, tokens, warnings = [], [], [], [], []
    for done, case in enumerate(used, start=1):
        volume, labels = read_case(case)
        warnings += [f"{case.name}: {text}" for text in (*volume.warnings, *labels.warnings)]
        class_of = {
            label: names.setdefault(_spelt(labels.organs.name_of(label)), len(names))
            for label in labels.class_ids()
        }
        rng = np.random.default_rng([seed, done])
        slices = [z for z in range(labels.shape[0]) if labels.data[z].any()]
        chosen = slices[:: -(-len(slices) // _MOST_SLICES)] if slices else []
        patient = patients[(case.patient or case.image)]
        if recipe == "btcv-class":
            found, own = _token_samples(volume, labels.data, chosen, class_of, predictor, rng, patient)
            tokens += own
        else:
            found = samples_of_slices(
                volume, labels.data, chosen, class_of, predictor, rng, patient=patient, repeats=_REPEATS
            )
        if found is not None:
            parts.append(found)
            splits += [case.split] * len(found)
            scans += [done] * len(found)
        if on_progress is not None:
            on_progress(Progress(done, len(used), case.name))
    if splits and all(split == "val" for split in splits):
        raise LabelError(
            "All cases have the split val or test, so there is nothing to learn from; give some the split "
            "train."
        )
    if not parts or len(names) < 2:
        raise LabelError(
            f"The cases show {len(names)} kinds of organ that can be found on their slices; a classifier "
            "needs two or more: give volumes with more labels."
        )
    return _Data(Samples.joined(parts), tuple(names), np.array(splits), np.array(scans), tokens, warnings)


def _token_samples(
    volume: Any,
    truth: npt.NDArray[Any],
    slices: Sequence[int],
    class_of: dict[int, int],
    predictor: Predictor,
    rng: np.random.Generator,
    patient: int,
) -> tuple[Samples | None, list[TokenSlice]]:
    """Boxes and what they show; of the features only what the vote needs."""
    frame = ScanFrame.of(volume)
    parts, tokens = [], []
    for z in slices:
        view = SliceView("axial", z)
        numbers = [number for number in class_of if (truth[z] == number).any()]
        masks = np.stack([truth[z] == number for number in numbers])
        objects = SliceObjects(volume, frame, view, masks, predictor)
        classes = np.array([class_of[number] for number in numbers], dtype=np.int64)
        tokens.append(
            TokenSlice(
                objects.embedding,
                [jittered_box(PromptTarget(mask), rng, _JITTER) for mask in masks],
                classes,
            )
        )
        parts.append(
            Samples(
                {"geometry": objects.geometry},
                classes,
                np.full(len(numbers), patient),
                np.array(numbers),
                objects.areas_mm2,
                np.ones(len(numbers), dtype=np.float32),
            )
        )
    if not parts:
        return None, tokens
    joined = Samples.joined(parts)
    # of one volume: equal numbers are one object
    return replace(joined, objects=np.concatenate([part.objects for part in parts])), tokens


def _folds(data: _Data) -> list[npt.NDArray[np.bool_]]:
    """Which samples are held out each time, whole patients where there are two or more."""
    samples = data.samples
    if (data.splits == "val").any():
        return [data.splits == "val"]
    patients = np.unique(samples.patients)
    if len(patients) < 2:
        # masks lie slice by slice; of a class token, a slice is on one side as a whole
        place = np.arange(len(samples)) * 12 // len(samples)
        if data.tokens:
            place = np.repeat(np.arange(len(data.tokens)), [len(one.classes) for one in data.tokens])
        thirds = [place % 3 == fold for fold in range(3)]
        folds = [fold for fold in thirds if fold.any() and not fold.all()]
        if not folds:
            raise LabelError(
                "One labelled slice alone cannot be learned from and measured by; give more slices, or "
                "another patient."
            )
        return folds
    n = min(_FOLDS, len(patients))
    return [np.isin(samples.patients, patients[fold::n]) for fold in range(n)]


def _fit(
    recipe: str,
    data: _Data,
    rows: npt.NDArray[np.intp],
    facts: ClassifierFacts,
    predictor: Predictor,
    seed: int,
    on_progress: OnProgress | None,
) -> OrganClassifier:
    samples, n_classes = data.samples.where(rows), len(data.organs)
    if recipe == "trees":
        known = replace(facts, kind=TreesClassifier.KIND)
        return TreesClassifier(known, samples.features["geometry"], samples.classes)
    if recipe == "btcv-class":
        known = replace(facts, kind=ClassTokenClassifier.KIND)
        head = train_class_token(
            list(_token_slices(data, rows)),
            n_classes,
            predictor,
            TokenRecipe(),
            seed=seed,
            on_progress=on_progress,
        )
        return ClassTokenClassifier(known, head)
    return LateFusionClassifier(facts, train_head(samples, n_classes, _head_recipe(len(samples)), seed=seed))


def _settings(recipe: str, n_samples: int) -> dict[str, Any]:
    """What decides a training beside data and seed, for the card."""
    if recipe == "trees":
        return {}
    return asdict(TokenRecipe() if recipe == "btcv-class" else _head_recipe(n_samples))


def _head_recipe(n_samples: int) -> HeadRecipe:
    """The usual recipe, cut short where it would show each of a few masks hundreds of times."""
    usual = HeadRecipe()
    return replace(usual, steps=int(np.clip(n_samples * _EPOCHS / usual.batch, _FEWEST_STEPS, usual.steps)))


def _token_slices(data: _Data, rows: npt.NDArray[np.intp]) -> Iterator[TokenSlice]:
    """The slices whose samples are among the rows; a slice is on one side of a split as a whole."""
    first, wanted = 0, set(rows.tolist())
    for one in data.tokens:
        if first in wanted:
            yield one
        first += len(one.classes)


def _logits(fit: OrganClassifier, data: _Data, rows: npt.NDArray[np.intp], predictor: Predictor) -> Floats:
    samples = data.samples.where(rows)
    if isinstance(fit, TreesClassifier):
        return fit.logits(samples.features["geometry"])
    if isinstance(fit, ClassTokenClassifier):
        return token_logits(fit.head, predictor, list(_token_slices(data, rows)))
    assert isinstance(fit, LateFusionClassifier)
    return logits_of(fit.network, samples)


def _spelt(name: str) -> str:
    """The name as the organ table spells it, where it is one of its organs."""
    plain = {organ.name.casefold(): organ.name for organ in OrganTable.btcv().values()}
    return plain.get(name.strip().casefold().replace("_", " "), name)
