"""Which formats the export offers, what it says of them, and what counts as kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gui.desk import Desk
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
