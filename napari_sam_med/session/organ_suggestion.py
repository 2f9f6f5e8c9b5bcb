"""Which organ a proposed mask looks like, as a job; and accepting a mask as that organ, in one undo step."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_med.errors import PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.session.preloading import preload_torch_libraries
from napari_sam_med.volume.organs import Organ, OrganTable, default_color

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.segmentation.organ_classifier import OrganClassifier
    from napari_sam_med.session.changes import Change
    from napari_sam_med.session.jobs import ModelView
    from napari_sam_med.session.objects import AnnotatedObject
    from napari_sam_med.session.session import Preview, Session

__all__ = ["Suggestion", "accept_as", "classifier_and_model", "organ_called", "suggest_organ"]

_OTHER = "other"


@dataclass(frozen=True)
class Suggestion:
    """An organ that a mask looks like, and how probable that is, 0..1."""

    name: str
    probability: float


@cache
def _bundled() -> OrganClassifier:
    from napari_sam_med.segmentation.organ_classifier import load_classifier

    return load_classifier()


@cache
def _its_model() -> Predictor:
    """The model that the bundled classifier reads: small enough for the processor beside any other."""
    from napari_sam_med.sam.predictor import load_predictor

    return load_predictor(_bundled().facts.model, device="cpu", precision="fp32")


def classifier_and_model(predictor: Predictor) -> tuple[OrganClassifier, Predictor]:
    """The bundled classifier, and the model that it reads: the given one where it is that."""
    classifier = _bundled()
    return classifier, predictor if predictor.model_hash == classifier.facts.model_sha256 else _its_model()


def suggest_organ(sight: ModelView, preview: Preview) -> Generator[Progress, None, Suggestion | None]:
    """Ask the bundled classifier about a proposed mask.

    None where it abstains, or does not know such slices: it reads axial slices of CT. It does so with a model
    of its own, whatever model made the mask.
    """
    yield Progress(0, 2, "looking which organ this is")
    preload_torch_libraries()
    is_known = preview.view.plane == "axial" and sight.volume.is_hounsfield and bool(preview.mask.any())
    if not is_known:
        return None
    classifier, predictor = classifier_and_model(sight.predictor)
    from napari_sam_med.segmentation.organ_features import GEOMETRY, ScanFrame, SliceObjects
    from napari_sam_med.segmentation.organ_objects import SliceVotes, decide

    frame = ScanFrame.of(sight.volume)
    objects = SliceObjects(sight.volume, frame, preview.view, preview.mask[None], predictor, sight.store)
    said = classifier.log_probabilities(objects)
    yield Progress(1, 2, "looking which organ this is")
    centres_x = objects.geometry[:, GEOMETRY.index("centre_x")]
    votes = SliceVotes(
        said, *(np.asarray(v, dtype=np.float64) for v in (objects.areas_mm2, objects.qualities, centres_x))
    )
    guess = decide({1: votes}, classifier, each_once=False)[1]
    if guess.abstained or guess.name == _OTHER:
        return None
    return Suggestion(guess.name, guess.probability)


def organ_called(name: str, organs: OrganTable) -> Organ:
    """The organ of that name in a table; else a new one, with its usual number if that is free."""
    for organ in organs.values():
        if organ.name.casefold() == name.casefold():
            return organ
    usual = next((o for o in OrganTable.btcv().values() if o.name == name), None)
    if usual is not None and usual.class_id not in organs:
        return usual
    class_id = organs.next_free_id()
    return Organ(class_id, name, usual.color if usual is not None else default_color(class_id))


def accept_as(session: Session, organ: Organ) -> Change | None:
    """Accept the preview as an organ, whatever organ was prompted for; one undo step.

    The mask and its prompts join the newest object of that organ, unless that has a mask on the slice; else
    the prompted object itself moves, or, where other slices of it are accepted, a new one is made.

    Raises
    ------
    LockedError
        If the organ, or the one that the mask is taken from, is locked.
    PromptError
        If the preview is empty.
    """
    preview, active, labels = session.preview, session.active_object, session.labels
    if preview is None or active is None or labels is None:
        return None
    if active.class_id == organ.class_id:
        return session.accept()
    session.check_unlocked(organ.class_id)
    session.check_unlocked(active.class_id)
    if not preview.mask.any():
        raise PromptError("The proposed mask is empty; nothing was changed. Add a box or a click.")
    view, prompts = preview.view, active.key_slices.get(preview.view)
    with session.begin(f"Accept {organ.name} on slice {view.index}", session.model) as change:
        if view in active.masks:
            change.clear_slice(active.object_id, view)
        session.organs = session.organs.with_organ(organ)
        labels.organs = session.organs
        left = session.objects.get(active.object_id, active)
        left = left.with_prompts(view, None)
        session.active_class_id = organ.class_id
        target = _target(session, organ, left, preview)
        objects = {i: o for i, o in session.objects.items() if i != left.object_id}
        if not left.is_empty:
            objects[left.object_id] = left
        objects[target.object_id] = target.with_prompts(view, prompts)
        session.objects = objects
        session.active_object_id = target.object_id
        change.put_mask(target.object_id, view, preview.mask, "prompt", preview.quality)
        session.preview = None
    return change.committed


def _target(session: Session, organ: Organ, left: AnnotatedObject, preview: Preview) -> AnnotatedObject:
    own = [o for o in session.objects.values() if o.class_id == organ.class_id]
    newest = max(own, key=lambda o: o.object_id, default=None)
    if newest is not None and preview.view not in newest.masks:
        return newest
    fresh = session.created_object()
    return replace(left, class_id=organ.class_id, name=fresh.name) if left.is_empty else fresh
