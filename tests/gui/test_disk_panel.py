"""*Kept on disk* and what learning leaves there: counted, shown, and cleared only when the user is sure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from qtpy.QtWidgets import QMessageBox

from napari_sam_med.gui.disk_panel import DiskPanel
from napari_sam_med.sam.embedding_store import default_store
from napari_sam_med.session import jobs
from napari_sam_med.training import own_models
from napari_sam_med.training.own_models import Plan
from napari_sam_med.volume.volume import Volume
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.learn_desk import press
from tests.training.ring_cases import write_case


@pytest.fixture
def panel(desk: Desk, tmp_path: Path) -> DiskPanel:
    """The section unfolded, with a finished model of 3 KB and a stopped run with 5 KB of embeddings."""
    heart, liver = own_models.model_folder("heart"), own_models.model_folder("liver")
    heart.mkdir(parents=True)
    (heart / "model.safetensors").write_bytes(bytes(3 << 10))
    embeddings = own_models.state_folder(liver) / "embeddings"
    embeddings.mkdir(parents=True)
    (embeddings / "ab12.safetensors").write_bytes(bytes(5 << 10))
    case = write_case(tmp_path / "scans", 1, depth=2)
    own_models.write_plan(Plan((case,), liver))
    own_models.training_labels_folder().mkdir(parents=True)
    (own_models.training_labels_folder() / "scan_labels.nii.gz").write_bytes(bytes(1 << 10))
    desk.actions.learning.cases._put([case])
    desk.widget.model_panel.refresh()
    panel = desk.widget.disk_panel
    panel.expand(animate=False)
    desk.wait(lambda: panel.models.text() == "3.0 KB")
    return panel


def _answer(monkeypatch: pytest.MonkeyPatch, button: QMessageBox.StandardButton) -> list[str]:
    asked: list[str] = []
    monkeypatch.setattr(QMessageBox, "question", lambda _p, _t, text: asked.append(text) or button)
    return asked


def test_own_models_are_cleared_alone_and_never_unasked(
    desk: Desk, panel: DiskPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    heart, liver = own_models.model_folder("heart"), own_models.model_folder("liver")
    assert panel.models_path.text().replace("\u200b", "") == str(heart.parent)
    assert panel.learning.text().startswith("6.")
    models = desk.widget.model_panel.models
    assert models.findData(str(heart)) >= 0
    desk.actions.choose_model(str(heart))
    asked = _answer(monkeypatch, QMessageBox.StandardButton.No)
    press(desk, panel.clear_models)
    assert '"heart"' in asked[0]
    assert heart.is_dir()
    _answer(monkeypatch, QMessageBox.StandardButton.Yes)
    press(desk, panel.clear_models)
    desk.wait(lambda: panel.models.text() == "nothing")
    assert not heart.exists()
    assert liver.is_dir()
    assert models.findData(str(heart)) < 0
    assert desk.session.model == "nano"
    assert any("3.0 KB of own models removed" in text for text in desk.said)


def test_what_is_kept_to_learn_from_is_cleared_and_models_and_files_stay(
    desk: Desk, panel: DiskPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    heart, liver = own_models.model_folder("heart"), own_models.model_folder("liver")
    learning = desk.actions.learning
    [case] = learning.cases.listed
    learning.unfinished = own_models.unfinished_plan()
    asked = _answer(monkeypatch, QMessageBox.StandardButton.Yes)
    press(desk, panel.clear_learning)
    desk.wait(lambda: panel.learning.text() == "nothing")
    assert "copies of labels" in asked[0]
    assert heart.is_dir()
    assert not liver.exists()
    assert not own_models.training_labels_folder().exists()
    assert (learning.cases.listed, learning.unfinished) == ([], None)
    assert case.image_path.is_file()
    assert case.labels_path.is_file()


def test_nothing_goes_while_a_model_is_trained(
    desk: Desk, panel: DiskPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _answer(monkeypatch, QMessageBox.StandardButton.Yes)
    liver = own_models.model_folder("liver")
    with own_models.RunLock(liver):  # by another window
        press(desk, panel.clear_learning)
        desk.wait(lambda: any("kept to learn from removed" in text for text in desk.said))
    assert (liver / "plan.json").is_file()
    monkeypatch.setattr(type(desk.actions.learning), "is_running", True)
    press(desk, panel.clear_learning)
    assert "stop it first" in desk.said[-1]
    assert len(asked) == 1


def test_a_closed_window_that_kept_nothing_has_no_say(
    make_desk: Callable[[], Desk], predictor: FakePredictor, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store of embeddings is one for all windows: nothing is kept while one of them wants that."""

    def load_model(model: str, device: str) -> Iterator:
        yield jobs.Progress(0, 1, "")
        return jobs.LoadedModel(predictor, default_store())

    monkeypatch.setattr(jobs, "load_model", load_model)
    first, second = make_desk(), make_desk()
    for desk in (first, second):
        desk.open(volume)
        desk.wait(lambda desk=desk: desk.actions.model.model is not None)
    first.widget.disk_panel.nothing.setChecked(True)
    assert default_store().directory is None
    second.widget.disk_panel._apply_to_store()
    assert default_store().directory is None
    first.widget.stop()
    assert default_store().directory is not None
