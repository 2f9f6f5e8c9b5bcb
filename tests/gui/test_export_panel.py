"""Which formats the export offers, what it says of them, and what counts as kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_sam_med.session import jobs
from napari_sam_med.session.session import Preview
from napari_sam_med.volume.reading import read_labels
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import Desk
from tests.gui.scan_choice import choose_image, click_on
from tests.gui.test_work_list_meanwhile import held_back
from tests.volume.dicom_files import save_series
from tests.volume.phantoms import affine_of, ct_like

LIVER = 6


@pytest.fixture
def labelled(desk: Desk) -> Desk:
    desk.session.select_organ(LIVER)
    desk.session.labels.data[2:5, 3:8, 3:8] = LIVER
    desk.session.labels.changed.emit(None)
    return desk


def test_dicom_is_offered_for_a_dicom_series_alone(desk: Desk, tmp_path: Path) -> None:
    panel = desk.widget.export_panel
    assert ".dcm" not in panel.filters
    assert {".nii.gz", ".seg.nrrd", ".coco.json", ".stl"} <= panel.filters.keys()
    files = save_series(tmp_path / "ct", ct_like((24, 20, 6)), affine_of("LPS", (1, 1, 3)))
    before = desk.session.volume
    desk.actions.open_scan(files[0])
    desk.wait(lambda: desk.session.volume is not before)
    assert ".dcm" in panel.filters


def test_the_format_of_another_scan_is_not_suggested_where_it_does_not_fit(
    desk: Desk, tmp_path: Path
) -> None:
    desk.actions.settings.remember(export_folder=str(tmp_path), export_suffix=".dcm")
    assert desk.widget.export_panel.suggested_path().name == "volume_labels.nii.gz"


@pytest.mark.parametrize(
    ("name", "is_kept"), [("x.seg.nrrd", True), ("x.stl", False), ("x.coco.json", False)]
)
def test_what_cannot_be_read_again_as_it_was_does_not_count_as_exported(
    labelled: Desk, tmp_path: Path, name: str, is_kept: bool
) -> None:
    panel = labelled.widget.export_panel
    labelled.wait(lambda: labelled.actions.keeping.journal.image is not None)
    labelled.actions.keeping.journal.flush()
    assert labelled.actions.keeping.journal.has_unexported_changes
    panel.export_to(tmp_path / name)
    labelled.wait(lambda: "Written" in panel.written.text())
    assert labelled.actions.keeping.journal.has_unexported_changes != is_kept
    says_more = "\n" in panel.written.text()
    assert says_more != is_kept


def test_what_was_written_is_shown_with_its_own_scan_alone(
    labelled: Desk, tmp_path: Path, make_volume: Callable
) -> None:
    panel, first = labelled.widget.export_panel, labelled.bridge.image_layer
    panel.export_to(tmp_path / "first.nii.gz")
    labelled.wait(lambda: panel.written.text() == f"Written: {tmp_path / 'first.nii.gz'}")
    other = labelled.viewer.add_image(make_volume((6, 20, 20)).data, name="other")
    choose_image(labelled, other)
    assert not panel.written.isVisibleTo(panel)
    assert panel.written.text() == ""
    choose_image(labelled, first)
    assert panel.written.text() == f"Written: {tmp_path / 'first.nii.gz'}"
    assert panel.written.isVisibleTo(panel)


def test_an_export_that_ends_with_another_scan_open_is_shown_with_its_own(
    labelled: Desk, tmp_path: Path, make_volume: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel, first = labelled.widget.export_panel, labelled.bridge.image_layer
    may_end = held_back(monkeypatch, jobs, "export_labels")
    panel.export_to(tmp_path / "first.nii.gz")
    other = labelled.viewer.add_image(make_volume((6, 20, 20)).data, name="other")
    click_on(labelled, labelled.widget.volume_panel.images, other)  # while the export goes on
    labelled.wait(lambda: labelled.bridge.image_layer is other)
    may_end.set()
    labelled.wait(lambda: any("written and checked" in text for text in labelled.said))
    labelled.settle()
    assert panel.written.text() == ""
    choose_image(labelled, first)
    assert "first.nii.gz" in panel.written.text()


def test_a_proposal_that_was_not_accepted_is_told_to_be_left_out(labelled: Desk, tmp_path: Path) -> None:
    labelled.actions.export(tmp_path / "whole.nii.gz")
    labelled.wait(lambda: "whole.nii.gz written and checked." in labelled.said)
    view = labelled.bridge.current_view()
    labelled.session.preview = Preview(view, np.ones(view.slice_shape(labelled.labels.shape), bool), 0.9)
    labelled.actions.export(tmp_path / "open.nii.gz")
    says = (
        f"open.nii.gz written and checked. The proposal on slice {view.index} is not accepted, and not in it."
    )
    labelled.wait(lambda: says in labelled.said)


def test_a_proposal_that_is_accepted_before_the_copy_is_made_is_in_it(labelled: Desk, tmp_path: Path) -> None:
    labelled.bridge.set_tool("box")
    labelled.look_at(SliceView("axial", 6))
    labelled.drag((6, 4, 6), (6, 13, 18))
    labelled.wait_for_proposal()
    labelled.actions.export(tmp_path / "whole.nii.gz")
    labelled.actions.accept()
    labelled.wait(lambda: any("whole.nii.gz written" in text for text in labelled.said))
    assert "whole.nii.gz written and checked." in labelled.said
    assert labelled.labels[6].any()
    written = read_labels(tmp_path / "whole.nii.gz")
    assert np.array_equal(written.data, labelled.labels)


def test_a_folder_that_is_not_there_is_told(labelled: Desk, tmp_path: Path) -> None:
    labelled.actions.export(tmp_path / "none" / "labels.nii.gz")
    says = f"The folder {tmp_path / 'none'} does not exist; make it, or write elsewhere."
    labelled.wait(lambda: says in labelled.said)
    assert not (tmp_path / "none").exists()
