"""Window and level: what is displayed is what the model sees."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QDoubleSpinBox, QVBoxLayout, QWidget
from superqt import QDoubleRangeSlider

from napari_sam_med.errors import SamMedError
from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import combo, labelled, row
from napari_sam_med.gui.window_names import WINDOW_TITLES, name_of_window
from napari_sam_med.volume.intensity import resolve_window

__all__ = ["WindowPanel"]

_TIP = "What is displayed is what the model sees: a window that shows the organ well also segments it well."
_PRESET_TIP = (
    f"{_TIP}\nA preset stays for the CTs that you open next, until you choose another one or Automatic."
)
_OWN = "Own"
_HOUNSFIELD_ENDS = (-1350.0, 1500.0)


class WindowPanel(QWidget):
    """Presets, two handles and two numbers, bound both ways to the image layer's contrast limits."""

    def __init__(self, actions: Actions) -> None:
        super().__init__()
        self._actions = actions
        self.presets = combo(_PRESET_TIP)
        for name in WINDOW_TITLES:
            self.presets.addItem(WINDOW_TITLES[name], name)
        self.presets.addItem(_OWN, None)
        self.slider = QDoubleRangeSlider(Qt.Orientation.Horizontal)
        self.slider.setToolTip(_TIP)
        self.slider.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.low, self.high = _number("Lower end of the window"), _number("Upper end of the window")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addLayout(labelled("Window", self.presets, longest="Window"))
        ends = row(self.low, self.slider, self.high)
        ends.setStretch(1, 1)
        layout.addLayout(ends)
        self.presets.activated.connect(self._on_preset)
        self.slider.valueChanged.connect(self._on_slider)
        self.low.valueChanged.connect(self._on_number)
        self.high.valueChanged.connect(self._on_number)
        actions.session.events.window.connect(self.refresh)
        actions.session.events.volume.connect(self.refresh)
        actions.scans.opened.connect(self.refresh)
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Show the session's window."""
        session = self._actions.session
        window = session.window
        self.setEnabled(session.volume is not None and window is not None)
        if session.volume is None or window is None:
            return
        low_end, high_end = session.volume.value_range
        low, high = window
        with QSignalBlocker(self.slider), QSignalBlocker(self.low), QSignalBlocker(self.high):
            if (
                session.volume.is_hounsfield
            ):  # metal and table would leave the tissues a few pixels of the slider
                low_end, high_end = max(low_end, _HOUNSFIELD_ENDS[0]), min(high_end, _HOUNSFIELD_ENDS[1])
            self.slider.setRange(min(low_end, low), max(high_end, high))
            self.slider.setValue((low, high))
            is_fine = high - low < 20
            for box, value in ((self.low, low), (self.high, high)):
                box.setDecimals(3 if is_fine else 0)
                box.setSingleStep((high - low) / 50 if is_fine else 10)
                box.setValue(value)
        name = name_of_window(session.volume, window, self._actions.settings.window)
        self.presets.setCurrentIndex(self.presets.findData(name))

    def _on_preset(self, index: int) -> None:
        name = self.presets.itemData(index)
        session = self._actions.session
        if name is None or session.volume is None:
            self.refresh()
            return
        try:
            window = resolve_window(session.volume, name)
        except SamMedError as error:
            self._actions.show_error(error)
            self.refresh()
            return
        self._actions.settings.remember(window=name)
        session.window = window
        self.refresh()

    def _on_slider(self, value: tuple[float, float]) -> None:
        self._set(*value)

    def _on_number(self) -> None:
        self._set(self.low.value(), self.high.value())

    def _set(self, low: float, high: float) -> None:
        if low < high:
            self._actions.session.window = (float(low), float(high))


def _number(tip: str) -> QDoubleSpinBox:
    made = QDoubleSpinBox()
    made.setRange(-1e9, 1e9)
    made.setKeyboardTracking(False)
    made.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
    made.setToolTip(tip)
    made.setFixedWidth(62)
    return made
