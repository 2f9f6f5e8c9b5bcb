"""The slices that a model learns from: labelled slices of the cases, and augmented views of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import LabelError
from napari_sam_med.evaluation.cases import Case, read_case
from napari_sam_med.evaluation.measuring import SliceChoice, labelled_slices, organ_names
from napari_sam_med.progress import Progress
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.slice_view import SliceView

__all__ = [
    "PackedLabels",
    "SliceCounts",
    "TrainingSlice",
    "augmented_view",
    "hold_out",
    "read_training_slices",
    "without_image",
]


@dataclass(frozen=True, eq=False)
class PackedLabels:
    """Labels of a slice in few bytes: thousands of views are held at once, each looked at for a moment."""

    content: bytes
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, labels: npt.NDArray[Any]) -> PackedLabels:
        """Pack labels (H, W) int."""
        return cls(zlib.compress(labels.tobytes(), level=1), labels.shape, labels.dtype)

    def unpacked(self) -> npt.NDArray[Any]:
        """The labels (H, W) int, not to be written to."""
        return np.frombuffer(zlib.decompress(self.content), self.dtype).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class TrainingSlice:
    """A slice with its organs.

    Attributes
    ----------
    case : Case
    view : SliceView
    image : array (H, W, 3) uint8
    packed : PackedLabels
        See `labels`.
    label_ids : tuple of int
        Those with enough pixels.
    pixel_spacing : (row, column) mm
    names : dict of int to str
        Organ names of the case by number.
    """

    case: Case
    view: SliceView
    image: npt.NDArray[np.uint8]
    packed: PackedLabels
    label_ids: tuple[int, ...]
    pixel_spacing: tuple[float, float]
    names: Mapping[int, str]

    @property
    def labels(self) -> npt.NDArray[Any]:
        """Numbers of the organs (H, W) int; 0 is none. Unpacked each time."""
        return self.packed.unpacked()

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """Masks (n, H, W) in the order of `label_ids`; made each time."""
        labels = self.labels
        return np.stack([labels == label for label in self.label_ids])


@dataclass(frozen=True)
class SliceCounts:
    """How many slices of a case show an organ, and how many were left out because they show none."""

    case: Case
    used: int
    background: int
    warnings: tuple[str, ...] = ()


def read_training_slices(
    cases: Sequence[Case], choice: SliceChoice
) -> Iterator[tuple[Progress, list[TrainingSlice], SliceCounts]]:
    """The labelled slices of each case, windowed as the models see them; one case at a time.

    Raises
    ------
    ImageError, LabelError
        When a case cannot be read, or shows no organ.
    """
    for number, case in enumerate(cases, start=1):
        volume, labels = read_case(case)
        chosen = labelled_slices(labels, choice)
        if not chosen:
            raise LabelError(
                f"{case.name} has no slice with {choice.min_area} or more pixels of an organ; check its "
                "labels, lower --min-area, or take the case out."
            )
        names = organ_names(labels)
        slices = []
        for labelled in chosen:
            view = labelled.view
            row, column = volume.pixel_spacing(view)
            slices.append(
                TrainingSlice(
                    case=case,
                    view=view,
                    image=to_rgb(volume, view),
                    packed=PackedLabels.of(np.asarray(view.extract(labels.data))),
                    label_ids=labelled.label_ids,
                    pixel_spacing=(float(row), float(column)),
                    names=names,
                )
            )
        total = sum(-(-labels.shape[SliceView(plane, 0).axis] // choice.every) for plane in choice.planes)
        counts = SliceCounts(case, len(slices), total - len(slices), (*volume.warnings, *labels.warnings))
        yield Progress(number, len(cases), f"reading {case.name}"), slices, counts


def without_image(source: TrainingSlice) -> TrainingSlice:
    """The slice with an empty image: what is needed of it once it is embedded."""
    return replace(source, image=np.zeros((0, 0, 3), np.uint8))


def hold_out(
    slices: Sequence[TrainingSlice], share: float
) -> tuple[list[TrainingSlice], list[TrainingSlice]]:
    """Slices to learn from, and neighbouring slices of each case and plane to tell when to stop.

    The slices held out lie side by side in the middle third of what is labelled, as slices apart from one
    another would be copies of those beside them. A case of fewer than three slices is only learned from.
    """
    learned: list[TrainingSlice] = []
    held: list[TrainingSlice] = []
    groups: dict[tuple[str, str], list[TrainingSlice]] = {}
    for one in slices:
        groups.setdefault((str(one.case.image_path), one.view.plane), []).append(one)
    for group in groups.values():
        count = max(1, round(share * len(group))) if share and len(group) >= 3 else 0
        start = (len(group) - count) // 2
        held += group[start : start + count]
        learned += group[:start] + group[start + count :]
    return learned, held


def augmented_view(source: TrainingSlice, seed: int, number: int, *, mirror: bool = True) -> TrainingSlice:
    """View number ``number`` (from 1) of a slice: turned, scaled, shifted, brighter or darker.

    MONAI's transforms on intensities scaled to 0..1, as the BTCV study has them (orientation, scaled
    intensities, flips, rotations, shifted intensities), with zoom, contrast and a gentle bend added. The same
    seed and number give the same view. Organs that leave the picture are no longer in `label_ids`.

    Parameters
    ----------
    mirror : bool
        Whether left and right may be exchanged; never for classes.
    """
    transform = _transform(mirror)
    transform.set_random_state(seed=int(np.random.default_rng((seed, number)).integers(2**31)))
    before = source.labels
    grey = source.image[..., 0][None].astype(np.float32) / 255.0
    turned = transform({"image": grey, "labels": before[None].astype(np.float32)})
    grey = np.clip(np.asarray(turned["image"])[0], 0.0, 1.0)
    labels = np.asarray(turned["labels"])[0].round().astype(before.dtype)
    areas = {label: int((labels == label).sum()) for label in source.label_ids}
    smallest = min(int((before == label).sum()) for label in source.label_ids)
    image = np.repeat((grey * 255.0 + 0.5).astype(np.uint8)[..., None], 3, axis=2)
    kept = tuple(label for label, area in areas.items() if area >= max(1, min(smallest, 20)))
    return replace(source, image=image, packed=PackedLabels.of(labels), label_ids=kept)


def _transform(mirror: bool) -> Any:
    from monai import transforms as mt

    keys, modes = ("image", "labels"), ("bilinear", "nearest")
    flips = [mt.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in ((0, 1) if mirror else ())]
    return mt.Compose(
        [
            *flips,
            mt.RandAffined(
                keys,
                prob=0.9,
                rotate_range=0.35,
                scale_range=0.15,
                shear_range=0.08,
                mode=modes,
                padding_mode="zeros",
            ),
            mt.Rand2DElasticd(
                keys, prob=0.4, spacing=(32, 32), magnitude_range=(0.5, 2.5), mode=modes, padding_mode="zeros"
            ),
            mt.RandShiftIntensityd("image", prob=0.6, offsets=0.1),
            mt.RandAdjustContrastd("image", prob=0.6, gamma=(0.7, 1.5)),
            mt.RandGaussianNoised("image", prob=0.3, std=0.02),
        ]
    )
