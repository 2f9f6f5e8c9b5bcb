"""The choice "Compute on": this machine or another one, its address, and how the connection stands."""

from __future__ import annotations

from html import escape

from qtpy.QtWidgets import QLineEdit, QVBoxLayout, QWidget

from napari_sam_med.cluster.workers import INSTALL, is_installed
from napari_sam_med.gui.appearance import button, combo, labelled, note, row
from napari_sam_med.gui.other_machine import ComputingElsewhere
from napari_sam_med.gui.settings import Settings
from napari_sam_med.session.other_machine import OtherMachine
from napari_sam_med.wording import number_of

__all__ = ["LONGEST_CAPTION", "ComputeOn"]

LONGEST_CAPTION = "Compute on"
"""Of the section that this is in; its captions line up with it."""

_HERE, _THERE = 0, 1


class ComputeOn(QWidget):
    """Where images are embedded; prompts are answered on this machine either way."""

    def __init__(self, elsewhere: ComputingElsewhere, settings: Settings) -> None:
        super().__init__()
        self._elsewhere = elsewhere
        self.places = combo(
            "Where images go through the network, the slow part: on this machine, or on the workers of a "
            "dask scheduler. Prompts are answered here either way."
        )
        self.places.addItems(["This machine", "Another machine…"])
        self.places.activated.connect(self._on_place)
        self.address = QLineEdit(settings.scheduler)
        self.address.setPlaceholderText("tcp://host:8786")
        self.address.setToolTip(
            "What dask scheduler prints there: tcp://..., or tls://... with certificates."
        )
        self.address.returnPressed.connect(self._on_button)
        self.button = button("Connect", "", self._on_button)
        self.state = note()
        self.state.setOpenExternalLinks(True)
        self._entry = QWidget()
        self._entry.setLayout(row(self.address, self.button, stretch_first=True))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(labelled(LONGEST_CAPTION, self.places, longest=LONGEST_CAPTION))
        column.addWidget(self._entry)
        column.addWidget(self.state)
        elsewhere.lost.connect(lambda: self.places.setCurrentIndex(_HERE))
        elsewhere.changed.connect(self._refresh)
        self._refresh()

    def _on_place(self, place: int) -> None:
        if place == _HERE:
            self._elsewhere.leave()
        self._refresh()

    def _on_button(self) -> None:
        if self._elsewhere.machine is not None or self._elsewhere.is_connecting:
            self._elsewhere.leave()
        elif self.address.text().strip():
            self._elsewhere.reach(self.address.text().strip())
        else:
            self.state.setText("Type the address first, for example tcp://10.0.0.5:8786.")
            self.address.setFocus()

    def _refresh(self) -> None:
        elsewhere = self._elsewhere
        is_busy = elsewhere.is_connecting or elsewhere.machine is not None
        if is_busy:
            self.places.setCurrentIndex(_THERE)
        is_there = self.places.currentIndex() == _THERE
        self._entry.setVisible(is_there and is_installed())
        self.address.setEnabled(not is_busy)
        if elsewhere.is_connecting:
            self._show("Cancel", "Stop waiting for an answer.", f"Connecting to {self.address.text()}…")
        elif elsewhere.machine is not None:
            self._show("Disconnect", "Compute on this machine again.", _described(elsewhere.machine))
        else:
            text = elsewhere.trouble
            if is_there and not is_installed():
                text = f"This needs dask.distributed, which is not installed: {INSTALL}"
            elif is_there and not text:
                text = (
                    "Slices of the scan are sent there, without names; unencrypted, but for tls:// or an SSH "
                    "tunnel."
                )
            self._show(
                "Connect",
                "Slices that you prompt or carry to, and those embedded ahead, go there from then on.",
                text,
            )

    def _show(self, action: str, tip: str, state: str) -> None:
        self.button.setText(action)
        self.button.setToolTip(tip)
        self.state.setText(state)
        self.state.setVisible(bool(state))


def _described(machine: OtherMachine) -> str:
    workers = number_of(machine.workers, "worker")
    gpus = {0: "no GPU stated", 1: "1 GPU"}.get(machine.gpus, f"{machine.gpus} GPUs")
    text = f"Connected: {workers}, {gpus}."
    if machine.dashboard:
        link = escape(machine.dashboard)
        text += f' <a href="{link}" style="color: #6ea8fe;">Dashboard</a>'
    return text
