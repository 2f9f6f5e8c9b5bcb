"""From a prompts file to a label volume: what the command line and scripts run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.object_masks import ObjectMasks
from napari_sam_med.segmentation.prompts_file import PromptObject
from napari_sam_med.segmentation.propagation import Propagator, propagate
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.segmentation.body import BodyBox
    from napari_sam_med.segmentation.slicewise import Window
    from napari_sam_med.volume.volume import Volume

__all__ = ["Segmentation", "organs_of", "segment_from_prompts"]

_SLIGHT_OVERLAP = 0.01
"""Share of the objects' voxels; neighbouring organs touch, and as much is contested on good runs too."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Result of a run.

    Attributes
    ----------
    labels : LabelVolume
        All objects merged.
    found : ObjectMasks
        The same, object by object and slice by slice.
    objects : dict of object_id to PromptObject
        What was asked for, numbered from 1 in the order of the file.
    propagated : bool
        Whether masks were carried beyond the prompted slices.
    warnings : list of str
        One line each.
    remarks : list of str
        Likewise, but too slight to interrupt anyone for: they belong into the report only.
    """

    labels: LabelVolume
    found: ObjectMasks
    objects: Mapping[int, PromptObject]
    propagated: bool
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def segment_from_prompts(
    volume: Volume,
    objects: Sequence[PromptObject],
    predictor: Predictor | None,
    *,
    engine: Propagator | None = None,
    propagated: bool = True,
    window: Window = "auto",
    store: EmbeddingStore | None = None,
    crop: BodyBox | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Segmentation:
    """Segment every object of a prompts file and merge them into one label volume.

    Parameters
    ----------
    volume : Volume
    objects : sequence of PromptObject
        See `read_prompts`.
    predictor : Predictor or None
        None where the engine brings its own model.
    engine : Propagator, optional
        What carries the masks, such as a video model; the slice-wise engine when left out.
    propagated : bool
        Carry masks through the volume; else only prompted slices are answered.
    window : str or (low, high)
        What the model sees.
    store : EmbeddingStore, optional
        Embeddings are looked up and kept here.
    crop : BodyBox, optional
        For the slice-wise engine: show the model this part of each slice alone, unless a prompt leaves it.
    on_progress : callable, optional
        Called after each slice.

    Returns
    -------
    Segmentation

    Raises
    ------
    PromptError
        When the model does not take such prompts.
    """
    numbered = dict(enumerate(objects, start=1))
    organs, warnings = organs_of(objects)
    options: dict[str, Any] = {} if crop is None else {"crop": crop}
    asked = {object_id: (one.label, one.prompts) for object_id, one in numbered.items()}
    n_prompted = sum(len(one.prompts) for one in objects)
    found = ObjectMasks()
    job = propagate(volume, asked, predictor, engine=engine, window=window, store=store, **options)
    # key slices come first, one for each prompted slice
    for done in job if propagated else islice(job, n_prompted):
        found.add(done)
        if on_progress is not None:
            step = done.progress
            on_progress(step if propagated else Progress(step.done, n_prompted, step.text))
    labels = LabelVolume.like(volume, organs)
    contested = found.merge_into(labels)
    remarks: list[str] = []
    if contested:
        slight = contested <= _SLIGHT_OVERLAP * np.count_nonzero(labels.data)
        (remarks if slight else warnings).append(
            f"objects overlap in {contested} voxels; there a prompted slice wins over a carried one, "
            "else the slice of higher quality, else the later object"
        )
    if crop is not None and crop.for_run(asked) is None:
        warnings.append("a prompt lies outside the body: the model was shown whole slices")
    result = Segmentation(labels, found, numbered, propagated, warnings, remarks)
    warnings += _what_went_thin(volume, result)
    return result


def organs_of(objects: Sequence[PromptObject]) -> tuple[OrganTable, list[str]]:
    """Organ table of the names in a prompts file, and a warning for each label that has two names."""
    names: dict[int, str] = {}
    warnings = []
    for one in objects:
        if one.name is None:
            continue
        known = names.setdefault(one.label, one.name)
        if known != one.name:
            warnings.append(f'label {one.label} is named "{known}" and "{one.name}"; the first name is kept')
    return OrganTable.from_names(names).covering(one.label for one in objects), warnings


def _what_went_thin(volume: Volume, result: Segmentation) -> list[str]:
    """A warning for each object that came out empty, and for a volume that has nowhere to propagate to."""
    warnings = []
    for object_id, one in result.objects.items():
        slices = result.found.slices(object_id)
        name = f"object {object_id} (label {one.label}{f', {one.name}' if one.name else ''})"
        if all(found.is_empty for found in slices):
            warnings.append(f"{name} is empty: its prompts gave no mask; move them onto the organ")
        elif result.propagated and all(volume.shape[view.axis] == 1 for view in one.prompts):
            warnings.append(f"{name} was not carried: the volume has one slice in that direction")
    return warnings
