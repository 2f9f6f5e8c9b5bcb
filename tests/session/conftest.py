from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest

from napari_sam_med.session.journal import SessionJournal
from napari_sam_med.session.journal_folder import JournalFolder
from napari_sam_med.session.journal_image import ImageIdentity, identify
from napari_sam_med.session.session import Preview, Session
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume
from tests.session.journal_checks import AXIAL, BOX, LIVER, run


@pytest.fixture
def session(volume: Volume) -> Session:
    """A session on the small volume, with empty labels."""
    made = Session()
    made.open(volume, LabelVolume.like(volume), (-160.0, 240.0))
    return made


@pytest.fixture
def propose(session: Session) -> Callable[..., np.ndarray]:
    """Put a rectangle forward as a preview of the active object; answers its mask."""

    def put(view: SliceView, rows: slice, columns: slice) -> np.ndarray:
        mask = np.zeros(view.slice_shape(session.volume.shape), dtype=bool)
        mask[rows, columns] = True
        session.preview = Preview(view, mask, 0.8)
        return mask

    return put


@pytest.fixture
def folder(tmp_path: Path) -> JournalFolder:
    return JournalFolder(tmp_path / "state")


@pytest.fixture
def image(volume: Volume) -> ImageIdentity:
    return run(identify(volume))


@pytest.fixture
def journal(session: Session, folder: JournalFolder, image: ImageIdentity) -> Generator[SessionJournal]:
    """A journal at work."""
    made = SessionJournal(session, folder)
    made.begin(image)
    yield made
    made.close()


@pytest.fixture
def accept(session: Session, propose: Callable) -> Callable[..., None]:
    def do(class_id: int = LIVER, view: SliceView = AXIAL, rows: slice = slice(2, 6)) -> None:
        session.select_organ(class_id)
        session.prompt(view, BOX)
        propose(view, rows, slice(2, 9))
        session.accept()

    return do
