"""Section 2, Model: which one, on which device; fetching what is not here yet."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog

from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import Section, button, combo, labelled, note
from napari_sam_med.gui.compute_on import LONGEST_CAPTION, ComputeOn
from napari_sam_med.sam.model_registry import MODELS, ModelRecord, is_available
from napari_sam_med.training.own_models import finished_models

__all__ = ["ModelPanel"]

_FILE = "file"
_CHECKPOINTS = "Checkpoints (*.pth *.pt *.safetensors);;All files (*)"
_DEVICES = {
    "auto": "Automatic",
    "cpu": "Processor (cpu)",
    "cuda": "NVIDIA GPU (cuda)",
    "mps": "Apple GPU (mps)",
}


class ModelPanel(Section):
    """Choose a model and a device."""

    def __init__(self, actions: Actions) -> None:
        super().__init__(2, "Model")
        self._actions = actions
        self.models = combo("The network that answers prompts. Models marked ↓ have to be downloaded once.")
        self.devices = combo("Where the network runs; Automatic takes a GPU when there is one.")
        for name, title in _DEVICES.items():
            self.devices.addItem(title, name)
        self.models.activated.connect(self._on_model)
        self.devices.activated.connect(self._on_device)
        self.add_detail(labelled("Model", self.models, longest=LONGEST_CAPTION))
        self.add_detail(labelled("Device", self.devices, longest=LONGEST_CAPTION))
        self.compute_on = ComputeOn(actions.elsewhere, actions.settings)
        self.add_detail(self.compute_on)
        self.about = note()
        self.add_detail(self.about)
        self.download = button("Download", "Fetch the model; it can be cancelled.", self._download)
        self.add(self.download)
        actions.session.events.model.connect(self.refresh)
        actions.session.events.device.connect(self.refresh)
        actions.model.loaded.connect(self.refresh)
        actions.progress.connect(self._on_progress)
        actions.learning.finished.connect(self.refresh)
        self.fold.setToolTip("Another model or device, or another machine to compute on.")
        self.fold.set_folded(True)
        self.refresh()

    def refresh(self, *_: object) -> None:
        """List the models and say what there is to say about the chosen one."""
        session = self._actions.session
        self.models.clear()
        for name, record in MODELS.items():
            self.models.addItem(record.title if is_available(name) else f"{record.title}  ↓", name)
        own = [str(folder) for folder in finished_models()]
        for path in own:
            self.models.addItem(f"{Path(path).name}  (your own)", path)
        if session.model not in MODELS and session.model not in own:
            self.models.addItem(Path(session.model).name, session.model)
        self.models.addItem("Checkpoint file…", _FILE)
        self.models.setCurrentIndex(self.models.findData(session.model))
        self.devices.setCurrentIndex(max(0, self.devices.findData(session.device)))
        record = MODELS.get(session.model)
        is_missing = record is not None and not is_available(session.model)
        self.download.setVisible(is_missing)
        self.fold.set_summary(self.models.currentText())
        if session.model in own:
            self.about.setText("Learned from your own volumes. Not for clinical use.")
        elif record is None:
            self.about.setText("A file of your own: SAM's preprocessing, unless its content says otherwise.")
        else:
            self.about.setText(_about(record, is_missing))
            self.download.setText(f"Download {record.title}{_size(record)}")
        self.about.setVisible(bool(self.about.text()))

    def _on_model(self, index: int) -> None:
        name = self.models.itemData(index)
        if name == _FILE:
            path, _ = QFileDialog.getOpenFileName(self, "Open a checkpoint", "", _CHECKPOINTS)
            name = path or self._actions.session.model
        self.choose(name)

    def choose(self, name: str) -> None:
        """Take a model by its name, or a checkpoint by its path."""
        self._actions.choose_model(name)
        self.refresh()

    def _on_device(self, index: int) -> None:
        device = self.devices.itemData(index)
        self._actions.cancel()
        self._actions.settings.remember(device=device)
        self._actions.session.device = device

    def _download(self) -> None:
        name = self._actions.session.model

        def done() -> None:
            self.refresh()
            if name == self._actions.session.model and is_available(name):
                self._actions.model.reload()

        self._actions.fetch_model(name, done)

    def _on_progress(self, progress: object) -> None:
        self.download.setEnabled(progress is None)


def _about(record: ModelRecord, is_missing: bool) -> str:
    parts = [record.note] if record.note else []
    if record.accepts == {"box"} and "boxes only" not in record.note:
        parts.append("Takes boxes only.")
    parts.append(f"Licence: {record.licence}.")
    if is_missing:
        parts.append("Not on this computer yet.")
    return " ".join(parts)


def _size(record: ModelRecord) -> str:
    return "" if record.size_bytes is None else f" ({record.size_bytes / 1e6:.0f} MB)"
