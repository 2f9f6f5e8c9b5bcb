"""Jobs are plain generators: they run here without threads."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_sam_med.errors import ModelError, PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.session import jobs
from napari_sam_med.session.video_engine import carry_as_video
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.reading import read_labels
from napari_sam_med.volume.slice_view import SliceView


def run(job: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
    yielded = []
    while True:
        try:
            yielded.append(next(job))
        except StopIteration as stop:
            return yielded, stop.value


def test_preparing_a_scan_finds_a_window_and_makes_labels(volume) -> None:
    yielded, scan = run(jobs.prepare_scan(volume))
    assert all(isinstance(progress, Progress) for progress in yielded)
    assert scan.window == (-160.0, 240.0)
    assert scan.labels.shape == volume.shape
    assert scan.counts.class_ids == ()


def test_preparing_with_labels_counts_them_and_gives_every_number_a_row(volume) -> None:
    labels = LabelVolume.like(volume)
    labels.data[1, 1:4, 1:4] = 50
    _, scan = run(jobs.prepare_scan(volume, labels))
    assert scan.counts[50] == 9
    assert 50 in scan.labels.organs


def test_export_and_reading_back(volume, tmp_path: Path) -> None:
    labels = LabelVolume.like(volume)
    labels.data[2, 3:6, 3:6] = 6
    _, path = run(jobs.export_labels(tmp_path / "labels.nii.gz", labels, volume, {"name": "nano"}))
    again = read_labels(path, reference=volume)
    assert np.array_equal(again.data, labels.data)


def test_a_download_reports_and_can_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Callable[[], bool]] = []

    def fetch(name: str, progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> Path:
        asked.append(cancelled)
        progress(Progress(1, 10, name))
        while not cancelled():
            pass
        return Path("never")

    monkeypatch.setattr("napari_sam_med.sam.checkpoints.fetch", fetch)
    job = jobs.fetch_model("mobile_sam")
    next(job)
    assert next(job) == Progress(1, 10, "mobile_sam")
    job.close()
    assert asked[0]()


def test_a_failed_download_is_the_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, progress: object, cancelled: object) -> Path:
        raise ModelError("no network")

    monkeypatch.setattr("napari_sam_med.sam.checkpoints.fetch", fetch)
    with pytest.raises(ModelError, match="no network"):
        run(jobs.fetch_model("mobile_sam"))


@pytest.fixture
def partly_empty(volume) -> jobs.ModelView:
    """Slice 2 has no number in any voxel, slice 3 has some; there is no model that could be asked."""
    data = np.array(volume.data, np.float32)
    data[2] = np.nan
    data[3, 1:] = np.nan
    return jobs.ModelView(replace(volume, data=data), (-160.0, 240.0), None, None)


BOX = Prompts.from_box((2, 2, 9, 9))


def test_the_mask_of_a_slice_without_any_number_is_empty(partly_empty: jobs.ModelView) -> None:
    view = SliceView("axial", 2)
    _, preview = run(jobs.predict_preview(partly_empty, view, BOX))
    assert preview.view == view
    assert preview.mask.shape == partly_empty.volume.shape[1:]
    assert not preview.mask.any()
    assert preview.quality == 0
    with pytest.raises((AttributeError, ModelError)):  # one number is enough to ask the model
        run(jobs.predict_preview(partly_empty, SliceView("axial", 3), BOX))


def test_nothing_is_carried_from_a_slice_without_any_number(partly_empty: jobs.ModelView) -> None:
    def carry(index: int) -> Generator:
        return jobs.carry(partly_empty, {1: (6, {SliceView("axial", index): BOX})}, {})

    with pytest.raises(PromptError, match=r"axial slice 2 of volume has no number .* Clear its prompts"):
        run(carry(2))
    with pytest.raises((AttributeError, ModelError)):
        run(carry(3))
    objects = {1: (6, {SliceView("axial", 2): BOX})}
    with pytest.raises(PromptError, match="axial slice 2 of volume has no number"):  # by a video model, too
        list(carry_as_video(partly_empty.volume, partly_empty.window, None, objects, {}))
