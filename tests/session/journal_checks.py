"""What the tests of the journal share."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from napari_sam_med.progress import Progress
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.session.journal_folder import JournalFolder
from napari_sam_med.session.journal_image import ImageIdentity
from napari_sam_med.session.journal_recovery import Offer, find_offers, read_work
from napari_sam_med.session.objects import Annotations
from napari_sam_med.session.session import Session
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import Organ
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

AXIAL = SliceView("axial", 3)
BOX = Prompts.from_box((2, 2, 9, 9))
LIVER, SPLEEN = 6, 1


def run(job: Generator[Progress, None, Any]) -> Any:
    """What a job returns."""
    while True:
        try:
            next(job)
        except StopIteration as end:
            return end.value


def widen(session: Session, accept: Callable) -> None:
    accept()
    session.set_organ(Organ(4000, "tumour", (1.0, 0.0, 0.0)))
    accept(4000, SliceView("sagittal", 8))
    session.undo()


def opened_again(volume: Volume) -> Session:
    """The session of the next start, on the same scan."""
    session = Session()
    session.open(volume, LabelVolume.like(volume), (-160.0, 240.0))
    return session


def offers_of(folder: JournalFolder, image: ImageIdentity, **more: Any) -> tuple[Offer, ...]:
    return run(find_offers(folder, image, **more))


def assert_kept(folder: JournalFolder, image: ImageIdentity, session: Session) -> None:
    """What the newest journal brings back is what the session has."""
    work = run(read_work(offers_of(folder, image)[0], image))
    assert np.array_equal(work.labels, session.labels.data)
    assert_same_annotations(work.annotations, session.annotations)


def assert_same_annotations(found: Annotations, expected: Annotations) -> None:
    assert dict(found.organs) == dict(expected.organs)
    assert found.active_class_id == expected.active_class_id
    assert found.objects.keys() == expected.objects.keys()
    for object_id, item in expected.objects.items():
        other = found.objects[object_id]
        for name in ("class_id", "name", "key_slices", "answered", "stops", "confirmed_ends"):
            assert getattr(other, name) == getattr(item, name), name
        assert {v: vars(m) for v, m in other.masks.items()} == {v: vars(m) for v, m in item.masks.items()}
