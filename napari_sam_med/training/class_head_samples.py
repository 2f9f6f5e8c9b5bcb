"""What a class head is trained on: features of masks that the model itself predicts from unsteady prompts.

True masks are never used as such: on use, the head sees masks with the model's own errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from napari_sam_med.evaluation.prompt_strategies import PromptTarget, center_distance, jittered_box
from napari_sam_med.segmentation.organ_features import ScanFrame, SliceObjects
from napari_sam_med.segmentation.organ_network import GROUPS
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.sam.prompts import Prompts
    from napari_sam_med.volume.volume import Volume

__all__ = ["Samples", "predicted_objects", "samples_of_slices"]

Mask = npt.NDArray[np.bool_]

_JITTER = 0.10
_CLICKS = 0.15
"""Share of the masks that come from a click in place of a box."""
_MIN_PIXELS = 6
_LEAST_DICE = 0.5
"""Masks that miss the organ by more than this show something else."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Features of N masks and what they show.

    Attributes
    ----------
    features : dict of str to ndarray (N, D) float32
        By the groups of `LateFusion`.
    classes : ndarray (N,) int64
        Index into the organs of the head.
    patients : ndarray (N,) int64
        Masks of one patient are never on both sides of a split.
    objects : ndarray (N,) int64
        Masks of one organ of one scan share a number.
    areas, qualities : ndarray (N,) float32
        For the vote, see `SliceObjects`.
    """

    features: dict[str, npt.NDArray[np.float32]]
    classes: npt.NDArray[np.int64]
    patients: npt.NDArray[np.int64]
    objects: npt.NDArray[np.int64]
    areas: npt.NDArray[np.float32]
    qualities: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.classes)

    def where(self, chosen: npt.NDArray[Any]) -> Samples:
        """Those chosen by index or mask (N,)."""
        return Samples(
            {group: values[chosen] for group, values in self.features.items()},
            *(values[chosen] for values in self._columns()),
        )

    def tensors(self, groups: Sequence[str] = GROUPS) -> dict[str, torch.Tensor]:
        """The features as tensors."""
        return {group: torch.from_numpy(self.features[group]) for group in groups}

    def _columns(self) -> tuple[npt.NDArray[Any], ...]:
        return self.classes, self.patients, self.objects, self.areas, self.qualities

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        """Several as one; numbers of objects are made distinct."""
        offset, moved = 0, []
        for part in parts:
            moved.append(part.objects + offset)
            offset += int(part.objects.max(initial=-1)) + 1
        columns = [
            np.concatenate(values) for values in zip(*(part._columns() for part in parts), strict=True)
        ]
        columns[2] = np.concatenate(moved)
        features = {
            group: np.concatenate([part.features[group] for part in parts]) for group in parts[0].features
        }
        return cls(features, *columns)

    def save(self, path: Any) -> None:
        """Keep them in an ``.npz`` file."""
        names = ("classes", "patients", "objects", "areas", "qualities")
        columns = dict(zip(names, self._columns(), strict=True))
        columns |= {f"features_{group}": values for group, values in self.features.items()}
        np.savez(path, allow_pickle=False, **columns)

    @classmethod
    def load(cls, path: Any) -> Samples:
        """What `save` kept."""
        with np.load(path, allow_pickle=False) as stored:
            features = {group: stored[f"features_{group}"] for group in GROUPS}
            names = ("classes", "patients", "objects", "areas", "qualities")
            return cls(features, *(stored[name] for name in names))


def samples_of_slices(
    volume: Volume,
    truth: npt.NDArray[Any],
    slices: Iterable[int],
    class_of: Mapping[int, int],
    predictor: Predictor,
    rng: np.random.Generator,
    *,
    patient: int = 0,
    repeats: int = 1,
) -> Samples | None:
    """Features of predicted masks of the objects on some axial slices; None where nothing can be asked.

    Parameters
    ----------
    volume : Volume
    truth : ndarray (z, y, x)
        Numbers of the objects on the same grid.
    slices : iterable of int
    class_of : mapping of int to int
        Class of each number that is asked about; others are left alone.
    predictor : Predictor
    rng : Generator
        Draws the prompts.
    patient : int
    repeats : int
        Prompts drawn for each object of a slice.
    """
    frame = ScanFrame.of(volume)
    rows: dict[str, list[npt.NDArray[Any]]] = {
        name: [] for name in (*GROUPS, "numbers", "areas", "qualities")
    }
    for z in slices:
        view = SliceView("axial", z)
        for objects, kept in predicted_objects(
            volume, frame, view, truth[z], sorted(class_of), predictor, rng, repeats=repeats
        ):
            for group in GROUPS:
                rows[group].append(getattr(objects, group))
            rows["numbers"].append(np.array(kept, dtype=np.int64))
            rows["areas"].append(objects.areas_mm2)
            rows["qualities"].append(objects.qualities)
    if not rows["numbers"]:
        return None
    numbers = np.concatenate(rows["numbers"])
    return Samples(
        {group: np.concatenate(rows[group]).astype(np.float32) for group in GROUPS},
        np.array([class_of[int(number)] for number in numbers], dtype=np.int64),
        np.full(len(numbers), patient, dtype=np.int64),
        numbers,
        np.concatenate(rows["areas"]),
        np.concatenate(rows["qualities"]),
    )


def predicted_objects(
    volume: Volume,
    frame: ScanFrame,
    view: SliceView,
    truth: npt.NDArray[Any],
    numbers: Sequence[int],
    predictor: Predictor,
    rng: np.random.Generator,
    *,
    repeats: int = 1,
) -> Iterator[tuple[SliceObjects, list[int]]]:
    """The objects of a slice as the model finds them from unsteady prompts, with their numbers.

    Parameters are those of `samples_of_slices`; `truth` (H, W) is the slice's. Masks that miss their object
    are left out.
    """
    present = [number for number in numbers if np.count_nonzero(truth == number) >= _MIN_PIXELS]
    if not present:
        return
    empty = np.zeros((0, *truth.shape), dtype=bool)
    embedding = SliceObjects(volume, frame, view, empty, predictor).embedding
    asked = [number for number in present for _ in range(repeats)]
    prompts = [_prompt(truth == number, predictor, rng) for number in asked]
    answers = predictor.predict_batch(embedding, prompts, multimask=False, direct_upsampling=True)
    masks, kept = [], []
    for number, answer in zip(asked, answers, strict=True):
        mask, wanted = answer.best_mask, truth == number
        overlap = 2 * np.count_nonzero(mask & wanted) / max(mask.sum() + wanted.sum(), 1)
        if overlap >= _LEAST_DICE:
            masks.append(mask)
            kept.append(number)
    if masks:
        objects = SliceObjects(volume, frame, view, np.stack(masks), predictor)
        objects.__dict__["embedding"] = embedding  # the cached property, filled: embedding is the slow part
        yield objects, kept


def _prompt(mask: Mask, predictor: Predictor, rng: np.random.Generator) -> Prompts:
    if "point" in predictor.accepts and rng.random() < _CLICKS:
        return center_distance(PromptTarget(mask), rng)
    return jittered_box(PromptTarget(mask), rng, _JITTER)
