from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from napari_sam_med.session.session import Preview, Session
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume


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
