"""The few choices of each way to find: one small form each, shown one at a time."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QCompleter, QDoubleSpinBox, QFileDialog, QLineEdit, QVBoxLayout, QWidget

from napari_sam_med.gui.appearance import combo, labelled
from napari_sam_med.session.finding_jobs import GivenExample
from napari_sam_med.session.found import example_here
from napari_sam_med.session.session import Session
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["EverythingForm", "ExampleForm", "WordForm", "column"]

_ENGINES = {"similarity": "similarity", "stitching": "one picture"}
_ENGINE_TIP = (
    "Similarity: places whose features are like the example's.\n"
    "One picture: example and slice side by side, shown to the model as one image."
)
_DESIGNS = {
    "random": "random points",
    "example": "the example only",
    "grid": "grid",
    "grid-negatives": "grid, both signs",
}
_FILES = "Scans (*.nii *.nii.gz *.nrrd *.mha *.mhd *.dcm);;All files (*)"


class EverythingForm(QWidget):
    """How fine the grid is, and whether what is found is named."""

    def __init__(self) -> None:
        super().__init__()
        inside = column(self)
        self.grid = QDoubleSpinBox()
        self.grid.setRange(0.0, 100.0)
        self.grid.setDecimals(0)
        self.grid.setSuffix(" mm")
        self.grid.setSpecialValueText("32 × 32 points")
        self.grid.setToolTip(
            "Distance between the points that the model is asked at; 0: 32 × 32 points on a slice.\n"
            "Closer points find smaller objects, and take longer."
        )
        inside.addLayout(labelled("Grid", self.grid))
        self.names = QCheckBox("Name the organs")
        self.names.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.names.setChecked(True)
        self.names.setToolTip("Let the organ classifier name each object; it knows CT only.")
        inside.addWidget(self.names)


class WordForm(QWidget):
    """The word, with the organs that are known offered while it is typed."""

    entered = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.word = QLineEdit()
        self.word.setPlaceholderText("spleen, left kidney, …")
        self.word.setToolTip(
            "An organ that the classifier knows. Objects that were found already are ranked by it."
        )
        completer = QCompleter([organ.name for organ in OrganTable.btcv().values()], self.word)
        completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        self.word.setCompleter(completer)
        self.word.returnPressed.connect(self.entered)
        column(self).addLayout(labelled("Word", self.word))


class ExampleForm(QWidget):
    """Which example, and what compares it."""

    def __init__(self) -> None:
        super().__init__()
        self._files: tuple[Path, Path] | None = None
        inside = column(self)
        self.example = combo("The example: the chosen organ on this slice, or a labelled scan.")
        self._list_examples()
        self.example.activated.connect(self._on_example)
        inside.addLayout(labelled("Example", self.example))
        self.engine = combo(_ENGINE_TIP)
        for key, text in _ENGINES.items():
            self.engine.addItem(text, key)
        self.design = combo("Where the picture of both is prompted.")
        for key, text in _DESIGNS.items():
            self.design.addItem(text, key)
        self.design.setVisible(False)
        self.engine.activated.connect(
            lambda _: self.design.setVisible(self.engine.currentData() == "stitching")
        )
        inside.addLayout(labelled("Engine", self.engine, self.design))

    def _list_examples(self) -> None:
        self.example.clear()
        self.example.addItem("the chosen organ here", "here")
        if self._files is not None:
            self.example.addItem(self._files[1].name, "files")
        self.example.addItem("a labelled scan…", "ask")

    def _on_example(self, *_: object) -> None:
        if self.example.currentData() != "ask":
            return
        image, _ = QFileDialog.getOpenFileName(self, "The scan of the example", "", _FILES)
        labels = ""
        if image:
            folder = str(Path(image).parent)
            labels, _ = QFileDialog.getOpenFileName(self, "Its labels", folder, _FILES)
        if labels:
            self.use_files(Path(image), Path(labels))
        else:
            self.example.setCurrentIndex(0)

    def use_files(self, image: Path, labels: Path) -> None:
        """Go by a labelled scan."""
        self._files = image, labels
        self._list_examples()
        self.example.setCurrentIndex(self.example.findData("files"))

    def given(self, session: Session, view: SliceView) -> GivenExample:
        """The example that is chosen.

        Raises
        ------
        PromptError
            When the chosen organ has nothing on this slice.
        """
        how = {"engine": self.engine.currentData(), "design": self.design.currentData()}
        name = session.organs.name_of(session.active_class_id)
        if self.example.currentData() == "files" and self._files is not None:
            image, labels = self._files
            return GivenExample(name, session.active_class_id, image=image, labels=labels, **how)
        return GivenExample(name, session.active_class_id, mask=example_here(session, view), **how)


def column(widget: QWidget) -> QVBoxLayout:
    """A column of rows without margins, for a part of a section."""
    made = QVBoxLayout(widget)
    made.setContentsMargins(0, 0, 0, 0)
    made.setSpacing(6)
    return made
