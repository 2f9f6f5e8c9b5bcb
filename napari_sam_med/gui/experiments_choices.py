"""What is to be measured: image, labels, organs, strategies, models, planes, slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari.layers import Image, Labels
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_sam_med.gui.appearance import button, combo, labelled, note, row, tool_buttons
from napari_sam_med.gui.experiments_control import Experiments, offered_models
from napari_sam_med.gui.experiments_strategies import StrategyTree
from napari_sam_med.gui.layer_combo import LayerCombo
from napari_sam_med.session.experiments import NO_ORGAN, Choice
from napari_sam_med.volume.slice_view import PLANES

__all__ = ["ChoicesPage"]

_KEY = Qt.ItemDataRole.UserRole
_LONGEST_CAPTION = "Prompts"
_CHECKPOINTS = "Checkpoints (*.pth *.pt *.safetensors);;All files (*)"
_INDICATOR = (  # the theme draws an empty box like the ground below it
    "::indicator:unchecked { border: 1px solid rgba(160, 165, 175, 200); border-radius: 2px; }"
)
_OWN_CHOICE = "Own choice"


class ChoicesPage(QWidget):
    """Shows and sets; `Experiments` decides."""

    def __init__(self, control: Experiments) -> None:
        super().__init__()
        self._control = control
        self._added_models: list[str] = []
        self._shown_organs: tuple[object, ...] | None = None
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 6, 6, 6)
        column.setSpacing(5)
        self._made_of_layers(column)
        self._made_of_strategies(column)
        self._made_of_models(column)
        self._made_of_slices(column)
        control.data.layers_changed.connect(self._show_layers)
        control.changed.connect(self.refresh)
        control.lab.events.survey.connect(self._show_organs)
        self._show_layers()
        self.list_models()
        self.refresh()
        self._tell()

    def _made_of_layers(self, column: QVBoxLayout) -> None:
        self.images = LayerCombo(self._control.layers, Image, "The scan: any image layer.")
        self.labels = LayerCombo(
            self._control.layers, Labels, "What is taken for the truth: a labels layer on the scan's grid."
        )
        self.images.chosen.connect(
            lambda layer: self._control.data.choose_layers(layer, self._control.data.labels)
        )
        self.labels.chosen.connect(
            lambda layer: self._control.data.choose_layers(self._control.data.image, layer)
        )
        column.addLayout(labelled("Image", self.images, longest=_LONGEST_CAPTION))
        column.addLayout(labelled("Labels", self.labels, longest=_LONGEST_CAPTION))
        self.organs = _check_list(96)
        self.organs.setToolTip("Organs that are to be found, and on how many slices of the plane they are.")
        self.organs.itemChanged.connect(lambda _: self._tell())
        self.all_organs = _small_button("All", "Tick every organ.", lambda: self._tick_organs(True))
        self.no_organs = _small_button("None", "Tick no organ.", lambda: self._tick_organs(False))
        column.addLayout(_heading("Organs", self.all_organs, self.no_organs))
        column.addWidget(self.organs, 1)
        self.organs_note = note()
        column.addWidget(self.organs_note)

    def _made_of_strategies(self, column: QVBoxLayout) -> None:
        self.protocol = combo("Strategies of a published study; ticks what it compares.")
        self.protocol.activated.connect(self._on_protocol)
        self.strategies = StrategyTree()
        self.strategies.ticked.connect(self._tell)
        self.more = QLineEdit()
        self.more.setPlaceholderText("such as bound_box+center_mask")
        self.more.setToolTip(
            "More strategies, separated by commas: names joined by + are given at once,\n"
            "a parameter follows a colon: bound_box+corrective_clicks:3."
        )
        self.more.editingFinished.connect(self._tell)
        column.addLayout(labelled("Prompts", self.protocol, longest=_LONGEST_CAPTION))
        column.addWidget(self.strategies, 3)
        column.addLayout(labelled("More", self.more, longest=_LONGEST_CAPTION))

    def _made_of_models(self, column: QVBoxLayout) -> None:
        self.models = _check_list(62)
        self.models.setToolTip("Models on this computer that are to answer; all get the same prompts.")
        self.models.itemChanged.connect(lambda _: self._tell())
        self.add_model = _small_button("Add file…", "A checkpoint that lies elsewhere.", self._ask_model)
        column.addLayout(_heading("Models", self.add_model))
        column.addWidget(self.models, 1)

    def _made_of_slices(self, column: QVBoxLayout) -> None:
        layout, self.planes = tool_buttons(
            [(plane, plane.capitalize(), f"Measure on {plane} slices.") for plane in PLANES],
            lambda _: self._tell(),
            columns=3,
        )
        for made in self.planes.values():
            made.group().setExclusive(False)
            made.setChecked(made is self.planes["axial"])
        column.addLayout(layout)
        choice = self._control.lab.choice
        self.slices = _spin(
            0, 9999, choice.slices, "Slices of each plane, spread evenly over those with an organ."
        )
        self.slices.setSpecialValueText("all")
        self.min_area = _spin(1, 99_999, choice.min_area, "Pixels that an organ must have on a slice.")
        self.seed = _spin(0, 999_999, choice.seed, "The same seed draws the same prompts.")
        line = QHBoxLayout()
        line.setSpacing(5)
        for text, made in (("Slices", self.slices), ("min. px", self.min_area), ("Seed", self.seed)):
            caption = QLabel(text)
            caption.setToolTip(made.toolTip())
            line.addWidget(caption)
            line.addWidget(made, 1)
            made.valueChanged.connect(lambda _: self._tell())
        column.addLayout(line)

    # showing

    def refresh(self) -> None:
        """Show what there is to choose."""
        catalogue = self._control.catalogue
        if catalogue is not None and not self.protocol.count():
            self.protocol.addItem(_OWN_CHOICE, ())
            for (name, about), strategies in catalogue.protocols.items():
                self.protocol.addItem(name, strategies)
                self.protocol.setItemData(self.protocol.count() - 1, about, Qt.ItemDataRole.ToolTipRole)
            self.strategies.fill(catalogue.kinds)
            self.tick(self._control.lab.choice.strategies)
        self._show_organs()

    def _show_layers(self) -> None:
        self.images.show_layers(self._control.data.image)
        self.labels.show_layers(self._control.data.labels)

    def list_models(self) -> None:
        """List the models that are here now; those that were ticked stay so."""
        ticked = set(_ticked(self.models) or self._control.lab.choice.models)
        offered = offered_models()
        offered |= {path: f"{Path(path).name}  (file)" for path in self._added_models}
        with QSignalBlocker(self.models):
            self.models.clear()
            for model, title in offered.items():
                _add(self.models, title, model, model in ticked)
        if set(_ticked(self.models)) != set(self._control.lab.choice.models):  # one is gone
            self._tell()

    def _show_organs(self, *_: object) -> None:
        survey = self._control.lab.survey
        counts = {} if survey is None else survey.slice_counts()
        rows = () if survey is None else tuple((i, name, counts[i]) for i, name in survey.names.items())
        self._say_what_is_missing(bool(rows))
        if rows == self._shown_organs:
            return
        before = {i for i, _, _ in self._shown_organs or ()}
        ticked = set(_ticked(self.organs))
        self._shown_organs = rows
        with QSignalBlocker(self.organs):
            self.organs.clear()
            for label, name, count in rows:
                item = _add(self.organs, f"{name}  ({count})", label, label in ticked or label not in before)
                item.setToolTip(f"{name}, label {label}: on {count} slices")
        if rows:
            self._tell()

    def _say_what_is_missing(self, has_organs: bool) -> None:
        control = self._control
        text = ""
        if control.data.image is None:
            text = "Open a scan, or choose an image layer."
        elif control.data.labels is None:
            text = "Open its labels, or choose a labels layer: they are taken for the truth."
        elif control.lab.survey is None:
            text = "Looking through the labels…" if control.data.is_surveying else ""
        elif not has_organs:
            text = "These labels are empty, so there is nothing to find; draw or choose others."
        self.organs_note.setText(text)
        self.organs_note.setVisible(bool(text))

    # the user's clicks

    def tick(self, strategies: Sequence[str]) -> None:
        """Tick these strategies and no others; what is no plain one stands under More."""
        self.more.setText(", ".join(self.strategies.tick(strategies)))
        self._tell()

    def choice(self) -> Choice:
        """What is ticked and set."""
        organs = _ticked(self.organs)
        more = tuple(part.strip() for part in self.more.text().split(",") if part.strip())
        return Choice(
            organs=frozenset(organs) if organs or not self.organs.count() else NO_ORGAN,
            strategies=(*self.strategies.names(), *more),
            models=tuple(_ticked(self.models)),
            planes=tuple(plane for plane in PLANES if self.planes[plane].isChecked()),
            slices=self.slices.value(),
            min_area=self.min_area.value(),
            seed=self.seed.value(),
            protocol=self.protocol.currentText() if self.protocol.currentData() else "",
        )

    def _tell(self) -> None:
        if self._control.catalogue is not None:  # before, nothing can be ticked
            choice = self.choice()
            # a study stays chosen while all that it compares is ticked, whatever else is
            if not set(self.protocol.currentData() or ()) <= set(choice.strategies):
                self.protocol.setCurrentIndex(0)
                choice = self.choice()
            self._control.choose(choice)

    def _tick_organs(self, is_ticked: bool) -> None:
        with QSignalBlocker(self.organs):
            for number in range(self.organs.count()):
                self.organs.item(number).setCheckState(_state(is_ticked))
        self._tell()

    def _on_protocol(self, index: int) -> None:
        strategies = self.protocol.itemData(index)
        if strategies:
            self.tick(strategies)
        else:
            self._tell()

    def _ask_model(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Add a checkpoint", "", _CHECKPOINTS)
        if path:
            self.add_model_file(path)

    def add_model_file(self, path: str) -> None:
        """Offer a checkpoint, ticked."""
        if path not in self._added_models:
            self._added_models.append(path)
        self.list_models()
        for number in range(self.models.count()):
            if self.models.item(number).data(_KEY) == path:
                self.models.item(number).setCheckState(Qt.CheckState.Checked)

    @property
    def added_models(self) -> list[str]:
        """Paths of checkpoints that the user added."""
        return list(self._added_models)


def _check_list(height: int) -> QListWidget:
    made = QListWidget()
    made.setMinimumHeight(height)
    made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    made.setSelectionMode(QListWidget.SelectionMode.NoSelection)
    made.setUniformItemSizes(True)
    made.setTextElideMode(Qt.TextElideMode.ElideMiddle)
    made.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    made.setStyleSheet(f"QListView{_INDICATOR}")
    return made


def _add(to: QListWidget, text: str, key: object, is_ticked: bool) -> QListWidgetItem:
    item = QListWidgetItem(text, to)
    item.setData(_KEY, key)
    item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
    item.setCheckState(_state(is_ticked))
    return item


def _ticked(of: QListWidget) -> list:
    items = [of.item(number) for number in range(of.count())]
    return [item.data(_KEY) for item in items if item.checkState() == Qt.CheckState.Checked]


def _state(is_ticked: bool) -> Qt.CheckState:
    return Qt.CheckState.Checked if is_ticked else Qt.CheckState.Unchecked


def _heading(text: str, *buttons: QWidget) -> QHBoxLayout:
    layout = row(QLabel(text))
    layout.addStretch(1)
    for made in buttons:
        layout.addWidget(made)
    return layout


def _small_button(text: str, tip: str, clicked):
    made = button(text, tip, clicked)
    made.setFixedWidth(made.fontMetrics().horizontalAdvance(text) + 30)
    made.setFixedHeight(22)
    return made


def _spin(least: int, most: int, value: int, tip: str) -> QSpinBox:
    made = QSpinBox()
    made.setRange(least, most)
    made.setValue(value)
    made.setToolTip(tip)
    made.setButtonSymbols(QSpinBox.ButtonSymbols.NoButtons)
    made.setKeyboardTracking(False)
    made.setStyleSheet("QSpinBox { min-width: 34px; }")  # the theme would have 90, and three stand in a row
    return made
