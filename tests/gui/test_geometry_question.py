"""Statement 27 in the widget: one sentence where the place of the voxels is in doubt; the answer is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QMainWindow, QMessageBox

from napari_sam_med import LabelVolume, read_labels, read_volume, write_labels
from napari_sam_med.errors import SamMedError
from napari_sam_med.gui import contributions, geometry_question
from tests.gui.desk import LEFT, Desk
from tests.gui.fake_model import FakePredictor
from tests.shared_data import BAD, needs_bad

_ask = geometry_question.ask  # before the fixture of all GUI tests answers in its place


@pytest.fixture
def two_forms(tmp_path: Path) -> Path:
    """A scan whose qform runs the other way along its first axis, and is coded as the scanner's."""
    data = np.zeros((20, 16, 6), dtype=np.int16)
    data[2:6, 3:9, 1:4] = 300
    image = nib.Nifti1Image(data, np.diag([2.0, 2.0, 3.0, 1.0]))
    image.set_sform(np.diag([2.0, 2.0, 3.0, 1.0]), code=2)
    image.set_qform(np.diag([-2.0, -2.0, 3.0, 1.0]), code=1)
    nib.save(image, tmp_path / "two forms.nii.gz")
    return tmp_path / "two forms.nii.gz"


class Answerer:
    """Clicks a button of every question that opens, and remembers what it said."""

    def __init__(self, button: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.button, self.texts, self.in_window, self.shown = button, [], [], 0
        monkeypatch.setattr(geometry_question, "ask", self.ask)

    def ask(self, *arguments):
        QTimer.singleShot(0, self.click)
        return _ask(*arguments)

    def click(self) -> None:
        box = QApplication.activeModalWidget()
        assert isinstance(box, QMessageBox)
        self.shown += 1
        self.texts.append(box.text())
        self.in_window.append(isinstance(box.parentWidget(), QMainWindow))
        [button] = [button for button in box.buttons() if button.text() == self.button]
        QTest.mouseClick(button, LEFT)


def _open(desk: Desk, path: Path) -> None:
    desk.actions.open_scan(path)
    desk.wait(lambda: desk.session.volume is not None or any("not opened" in text for text in desk.said))
    desk.settle()


@pytest.mark.parametrize("form", ["sform", "qform"])
def test_the_chosen_form_places_the_scan_and_is_recorded(
    make_desk: Callable[[], Desk], predictor: FakePredictor, two_forms: Path, form: str, monkeypatch
) -> None:
    """Statement 27; statement 22 too: the header is written as it was, and lies where the scan lies."""
    answerer = Answerer(f"Use the {form}", monkeypatch)
    monkeypatch.setattr(QApplication, "activeWindow", lambda: None)  # another program is in front
    desk = make_desk()
    _open(desk, two_forms)
    desk.wait(lambda: desk.session.volume is not None)
    assert len(answerer.texts) == 1
    assert "sform and qform place voxels up to" in answerer.texts[0]
    assert answerer.in_window == [True]  # not lost behind napari, and in its colours
    volume = desk.session.volume
    header = nib.load(two_forms).header
    assert np.array_equal(volume.affine, header.get_sform() if form == "sform" else header.get_qform())
    assert desk.bridge.image_layer.metadata["sam_med"].grid.doubt.used == form
    desk.session.labels.data[2:4, 3:5, 6:9] = 6
    out = write_labels(two_forms.with_name("labels.nii.gz"), desk.session.labels)
    record = json.loads(two_forms.with_name("labels.sam-med.json").read_text())
    assert record["geometry"]["used"] == form
    written = nib.load(out).header
    assert np.array_equal(written.get_sform(), header.get_sform())
    assert np.array_equal(written.get_qform(), header.get_qform())
    assert np.array_equal(read_labels(out, reference=volume).data, desk.session.labels.data)


def test_a_file_in_doubt_need_not_be_opened(
    make_desk: Callable[[], Desk], predictor: FakePredictor, two_forms: Path, monkeypatch
) -> None:
    """Statement 27; what was open before stays open."""
    answerer = Answerer("Don't open", monkeypatch)
    desk = make_desk()
    _open(desk, two_forms)
    assert answerer.shown == 1
    assert desk.session.volume is None
    assert len(desk.viewer.layers) == 0
    assert any("was not opened" in text for text in desk.said)


def test_a_sound_file_is_not_asked_about(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, asked_about_geometry: list[str]
) -> None:
    nib.save(nib.Nifti1Image(np.ones((8, 9, 5), np.int16), np.eye(4)), tmp_path / "sound.nii")
    desk = make_desk()
    _open(desk, tmp_path / "sound.nii")
    assert asked_about_geometry == []
    assert desk.session.volume.grid.doubt is None


def test_napari_asks_too_and_the_widget_not_again(
    make_desk: Callable[[], Desk], predictor: FakePredictor, two_forms: Path, monkeypatch
) -> None:
    """Statement 27, for a file that was dropped on the canvas."""
    answerer = Answerer("Use the qform", monkeypatch)
    desk = make_desk()
    [(data, options, _)] = contributions.read_files(str(two_forms))
    layer = desk.viewer.add_image(data, **options)
    desk.wait(lambda: desk.session.volume is not None and desk.bridge.image_layer is layer)
    assert answerer.shown == 1
    assert np.array_equal(desk.session.volume.affine, nib.load(two_forms).header.get_qform())
    answerer.button = "Don't open"
    with pytest.raises(SamMedError, match="was not opened"):
        contributions.read_files(str(two_forms))


@needs_bad
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("d07_sform_qform_disagree.nii.gz", "sform and qform place voxels up to 444.56 mm apart"),
        ("d09_sheared.nii.gz", "not at right angles"),
        ("d24_no_orientation.nii.gz", "no orientation"),
        ("d25_pixdim_zero_neg.nii", "its voxel sizes are impossible"),
        ("d26_nan_affine.nii", "its sform is damaged"),
        ("d28_analyze75.hdr", "no orientation"),
    ],
)
def test_every_doubt_is_one_sentence(
    make_desk: Callable[[], Desk], predictor: FakePredictor, name: str, says: str, asked_about_geometry
) -> None:
    """Statement 27."""
    desk = make_desk()
    _open(desk, BAD / name)
    desk.wait(lambda: desk.session.volume is not None)
    [question] = asked_about_geometry
    assert says in question
    assert question.startswith(name)
    assert question.count("?") == 1
    assert question.endswith("?")
    assert ". " not in question


@needs_bad
@pytest.mark.parametrize(
    "name", ["r07_oblique17_3mm.nii.gz", "d08_oblique25.nii.gz", "r18_ct_pitch_16deg.nii.gz"]
)
def test_oblique_is_no_doubt(name: str) -> None:
    assert read_volume(BAD / name).grid.doubt is None


def test_labels_without_a_doubt_say_so_in_the_sidecar(tmp_path: Path, volume) -> None:
    write_labels(tmp_path / "x.nrrd", LabelVolume.like(volume))
    assert json.loads((tmp_path / "x.sam-med.json").read_text())["geometry"] is None
