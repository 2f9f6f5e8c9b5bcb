"""A mask that is accepted as another organ: where it goes, what is made, and that one undo takes all back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from napari_sam_med.errors import LockedError, PromptError
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.model_registry import ModelRecord
from napari_sam_med.sam.predictor import load_predictor
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.sample_data import sample_labels, sample_volume
from napari_sam_med.session.jobs import ModelView
from napari_sam_med.session.organ_suggestion import Suggestion, accept_as, organ_called, suggest_organ
from napari_sam_med.session.session import Preview, Session
from napari_sam_med.volume.intensity import resolve_window
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import Organ, OrganTable
from napari_sam_med.volume.reading import read_labels, read_volume
from napari_sam_med.volume.slice_view import SliceView

SPLEEN, LIVER = 1, 6
HERE, THERE = SliceView("axial", 3), SliceView("axial", 4)


@pytest.fixture
def session(volume) -> Session:
    made = Session()
    made.open(volume, LabelVolume.like(volume), resolve_window(volume))
    made.select_organ(SPLEEN)
    return made


def propose(session: Session, view: SliceView, left: int = 8) -> np.ndarray:
    mask = np.zeros(view.extract(session.labels.data).shape, dtype=bool)
    mask[6:12, left : left + 6] = True
    session.prompt(view, Prompts.from_box((left, 6, left + 5, 11)))
    session.preview = Preview(view, mask, 0.9)
    return mask


def liver(session: Session) -> Organ:
    return organ_called("liver", session.organs)


def test_the_prompted_object_moves_when_nothing_of_it_is_accepted_yet(session: Session) -> None:
    mask = propose(session, HERE)
    accept_as(session, liver(session))
    assert np.array_equal(HERE.extract(session.labels.data), mask * LIVER)
    [item] = session.objects.values()
    assert (item.class_id, item.name, list(item.masks)) == (LIVER, "liver", [HERE])
    assert item.answered[HERE] == item.key_slices[HERE]  # nothing is left open
    assert (session.active_class_id, session.active_object_id) == (LIVER, item.object_id)
    session.undo()
    assert not session.labels.data.any()
    [item] = session.objects.values()
    assert (item.class_id, item.masks) == (SPLEEN, {})
    session.redo()
    assert np.array_equal(HERE.extract(session.labels.data), mask * LIVER)


def test_a_mask_joins_the_organs_object_and_leaves_the_others_work_alone(session: Session) -> None:
    propose(session, HERE)
    session.accept()
    [spleen] = session.objects
    propose(session, THERE)
    accept_as(session, liver(session))
    assert set(session.objects) == {spleen, session.active_object_id}
    assert list(session.objects[spleen].key_slices) == [HERE]
    session.select_object(spleen)
    third = SliceView("axial", 5)
    propose(session, third)
    accept_as(session, liver(session))
    assert {o.class_id: sorted(v.index for v in o.masks) for o in session.objects.values()} == {
        SPLEEN: [3],
        LIVER: [4, 5],
    }
    assert set(np.unique(session.labels.data[3])) == {0, SPLEEN}


def test_a_mask_that_was_accepted_for_the_wrong_organ_is_taken_from_it(session: Session) -> None:
    propose(session, HERE)
    session.accept()
    mask = propose(session, HERE, left=10)
    accept_as(session, liver(session))
    assert np.array_equal(HERE.extract(session.labels.data), mask * LIVER)
    assert [o.class_id for o in session.objects.values()] == [LIVER]


def test_an_organ_that_is_missing_is_made_and_goes_again_with_undo(session: Session) -> None:
    session.organs = OrganTable.from_names({1: "tumour", 6: "cyst"})
    session.labels.organs = session.organs
    propose(session, HERE)
    made = liver(session)
    assert made.class_id not in session.organs
    accept_as(session, liver(session))
    assert session.labels.organs.name_of(made.class_id) == "liver"
    assert (session.labels.data == made.class_id).any()
    session.undo()
    assert made.class_id not in session.organs
    assert organ_called("LIVER", OrganTable.btcv()).class_id == LIVER


def test_locked_organs_and_empty_masks_are_refused_and_nothing_changes(session: Session) -> None:
    propose(session, HERE)
    before = session.annotations
    for locked in (LIVER, SPLEEN):
        session.organs = session.organs.locking(locked, True)
        with pytest.raises(LockedError):
            accept_as(session, liver(session))
        session.organs = session.organs.locking(locked, False)
    session.preview = Preview(HERE, np.zeros_like(session.preview.mask), 0.9)
    with pytest.raises(PromptError):
        accept_as(session, liver(session))
    assert dict(session.objects) == dict(before.objects)
    assert not session.labels.data.any()
    session.preview = None
    assert accept_as(session, liver(session)) is None


def _suggested(sight: ModelView, view: SliceView, mask: np.ndarray) -> Suggestion | None:
    job = suggest_organ(sight, Preview(view, mask, 0.9))
    try:
        while True:
            next(job)
    except StopIteration as stop:
        return stop.value


@dataclass
class OtherModel:
    """A model that cannot be asked, as it is not the classifier's."""

    record: ModelRecord
    model_hash: str = "0" * 64


def test_the_bundled_classifier_is_asked_about_axial_ct_whatever_model_made_the_mask() -> None:
    volume = read_volume(sample_volume())
    labels = read_labels(sample_labels(), reference=volume)
    predictor = load_predictor("nano", device="cpu")
    sight = ModelView(volume, resolve_window(volume), predictor, EmbeddingStore(None))
    liver_voxels = labels.data == LIVER
    view = SliceView("axial", int(liver_voxels.sum(axis=(1, 2)).argmax()))
    mask = view.extract(liver_voxels)
    found = _suggested(sight, view, mask)
    assert found is not None
    assert found.name == "liver"
    assert 0.5 < found.probability <= 1
    assert _suggested(sight, view, np.zeros_like(mask)) is None
    coronal = SliceView("coronal", int(liver_voxels.sum(axis=(0, 2)).argmax()))
    assert _suggested(sight, coronal, coronal.extract(liver_voxels)) is None
    shifted = (volume.data.astype(np.int32) + 1024).clip(0).astype(np.uint16)
    as_mr = replace(volume, data=shifted, statistics={})
    assert _suggested(replace(sight, volume=as_mr), view, mask) is None
    others = OtherModel(predictor.record)
    assert _suggested(ModelView(volume, resolve_window(volume), others, sight.store), view, mask) == found
