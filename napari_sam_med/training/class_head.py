"""Training the head that names organs, on features that are computed beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.organ_classifier import ClassifierFacts, log_softmax
from napari_sam_med.segmentation.organ_features import GEOMETRY
from napari_sam_med.segmentation.organ_network import GROUPS, LateFusion
from napari_sam_med.segmentation.organ_vote import assign_once, put_on_own_side, vote
from napari_sam_med.training.class_head_calibration import (
    calibration_error,
    error_correlation,
    fitted_temperature,
    negative_log_likelihood,
    selective_threshold,
)
from napari_sam_med.training.class_head_samples import Samples

__all__ = ["HeadRecipe", "Measured", "calibrated", "logits_of", "measure", "train_head"]

Floats = npt.NDArray[np.float64]
_CENTRE_X = GEOMETRY.index("centre_x")


@dataclass(frozen=True)
class HeadRecipe:
    """How the late-fusion head is trained.

    Attributes
    ----------
    groups : tuple of str
        Groups of features that it reads.
    steps, batch : int
    learning_rate, weight_decay : float
        Of AdamW; the rate falls to 0 along half a cosine.
    smoothing : float
        Of the labels.
    noise : float
        Added to the features, in standard deviations of each.
    leave_out : float
        See `LateFusion`.
    """

    groups: tuple[str, ...] = GROUPS
    steps: int = 1500
    batch: int = 256
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    smoothing: float = 0.05
    noise: float = 0.3
    leave_out: float = 0.3


def train_head(
    samples: Samples,
    n_classes: int,
    recipe: HeadRecipe,
    *,
    seed: int = 0,
    drawn: Mapping[int, float] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> LateFusion:
    """A head in evaluation mode; every class that occurs is drawn equally often, but for those in `drawn`.

    The same samples and seed give the same head on one machine.

    Parameters
    ----------
    samples : Samples
    n_classes : int
    recipe : HeadRecipe
    seed : int
    drawn : mapping of int to float, optional
        How often a class is drawn; 1 for all others.
    on_progress : callable, optional
    """
    features = samples.tensors(recipe.groups)
    classes = torch.from_numpy(samples.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LateFusion(
            {group: values.shape[1] for group, values in features.items()}, n_classes, recipe.leave_out
        )
        network.standardise_by(features)
        order = torch.argsort(classes, stable=True)
        present, counts = torch.unique(classes, return_counts=True)
        shares = torch.tensor([(drawn or {}).get(int(c), 1.0) for c in present])
        first = torch.cumsum(counts, 0) - counts
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
        loss_of = torch.nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
        network.train()
        for step in range(1, recipe.steps + 1):
            kinds = torch.multinomial(shares, recipe.batch, replacement=True)
            rows = order[first[kinds] + (torch.rand(recipe.batch) * counts[kinds]).long()]
            batch = {
                group: _noisy(network, group, values[rows], recipe.noise)
                for group, values in features.items()
            }
            loss = loss_of(network(batch), classes[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if on_progress is not None and (step % 50 == 0 or step == recipe.steps):
                on_progress(Progress(step, recipe.steps, f"loss {float(loss.detach()):.2f}"))
    return network.eval()


def _noisy(network: LateFusion, group: str, values: torch.Tensor, noise: float) -> torch.Tensor:
    deviation: torch.Tensor = getattr(network, f"{group}_deviation")
    return values + noise * deviation * torch.randn_like(values)


@dataclass(frozen=True, eq=False)
class Measured:
    """What a classifier reaches on samples with known classes.

    Attributes
    ----------
    slice_accuracy, object_accuracy : float
        Share of the masks, and of the objects after the vote, that are named rightly.
    nll, ece : float
        Of the masks, see `class_head_calibration`.
    rho : float
        Correlation of the errors of two masks of one object.
    true, guessed : ndarray (K,)
        Classes of the objects.
    confidence : ndarray (K,)
        Probabilities of the guesses.
    """

    slice_accuracy: float
    object_accuracy: float
    nll: float
    ece: float
    rho: float
    true: npt.NDArray[np.int64]
    guessed: npt.NDArray[np.int64]
    confidence: Floats

    def summary(self) -> dict[str, float]:
        """The figures, rounded."""
        figures = {
            "slice_accuracy": self.slice_accuracy,
            "object_accuracy": self.object_accuracy,
            "ece": self.ece,
            "nll": self.nll,
            "rho": self.rho,
        }
        return {name: round(value, 4) for name, value in figures.items()}


def measure(
    log_probabilities: Floats,
    samples: Samples,
    organs: Sequence[str],
    *,
    rho: float,
    each_once: bool = True,
    scans: npt.NDArray[np.int64] | None = None,
) -> Measured:
    """Masks one by one, and objects by the vote over their masks.

    Parameters
    ----------
    log_probabilities : ndarray (N, C)
        Calibrated.
    samples : Samples
        The N masks.
    organs : sequence of str
        Names of the C classes.
    rho : float
        For the vote.
    each_once : bool
        No organ twice in a scan.
    scans : ndarray (N,), optional
        Which scan each mask is of; one of each patient when left out.
    """
    right = log_probabilities.argmax(axis=1) == samples.classes
    true: list[int] = []
    guessed: list[int] = []
    confidence: list[float] = []
    scans = samples.patients if scans is None else scans
    for scan in np.unique(scans):
        here = scans == scan
        numbers = np.unique(samples.objects[here])
        table = []
        for number in numbers:
            rows = np.flatnonzero(here & (samples.objects == number))
            areas = samples.areas[rows]
            voted = vote(log_probabilities[rows], areas, samples.qualities[rows], rho=rho)
            centre = np.average(samples.features["geometry"][rows, _CENTRE_X], weights=areas)
            table.append(put_on_own_side(voted, organs, float(centre)))
            true.append(int(samples.classes[rows[0]]))
        votes = np.array(table)
        found = assign_once(votes, organs) if each_once else votes.argmax(axis=1).tolist()
        guessed += found
        confidence += np.exp(votes[np.arange(len(found)), found]).tolist()
    known, said = np.array(true), np.array(guessed)
    return Measured(
        float(right.mean()),
        float((known == said).mean()),
        negative_log_likelihood(log_probabilities, samples.classes),
        calibration_error(log_probabilities, samples.classes),
        error_correlation(right, samples.objects),
        known,
        said,
        np.array(confidence),
    )


def logits_of(network: LateFusion, samples: Samples) -> Floats:
    """Logits (N, C) of samples, uncalibrated."""
    with torch.inference_mode():
        logits: Floats = network.eval()(samples.tensors(network.groups)).double().numpy()
    return logits


def calibrated(
    facts: ClassifierFacts,
    logits: Floats,
    samples: Samples,
    scans: npt.NDArray[np.int64] | None = None,
) -> tuple[ClassifierFacts, Measured, Floats]:
    """Facts with temperature, threshold and correlation from patients that were not trained on.

    Parameters
    ----------
    facts : ClassifierFacts
    logits : ndarray (N, C)
        What heads trained without these patients say of them.
    samples : Samples
        The N masks.
    scans : ndarray (N,), optional
        See `measure`.

    Returns
    -------
    facts, measured, log_probabilities
        The latter two calibrated.
    """
    temperature = fitted_temperature(logits, samples.classes)
    table = log_softmax(logits, temperature)
    rho = error_correlation(table.argmax(axis=1) == samples.classes, samples.objects)
    found = measure(table, samples, facts.organs, rho=rho, scans=scans)
    threshold = selective_threshold(found.confidence, found.true == found.guessed)
    known = replace(
        facts, temperature=round(temperature, 4), threshold=round(threshold, 3), rho=round(rho, 4)
    )
    return known, found, table
