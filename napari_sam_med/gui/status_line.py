"""What is happening, always in sight below the sections: one text, one bar, one Cancel."""

from __future__ import annotations

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QResizeEvent, QShowEvent
from qtpy.QtWidgets import QLabel, QProgressBar, QSizePolicy, QStackedWidget, QVBoxLayout, QWidget

from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import narrow_button, note, row
from napari_sam_med.progress import Progress

__all__ = ["StatusLine"]

_BAR_STEPS = 1000
_WIDE = 10_000
_AT_WORK = "…"


class StatusLine(QWidget):
    """Status text of two lines, more for a long error, and the progress of the job that can be cancelled."""

    def __init__(self, actions: Actions) -> None:
        super().__init__()
        self.text = QLabel("Ready")
        self._lasting = "Ready"
        self.text.setWordWrap(True)
        self.text.setAlignment(Qt.AlignmentFlag.AlignTop)
        policy = self.text.sizePolicy()
        policy.setHorizontalPolicy(QSizePolicy.Policy.Ignored)  # a long file name must not widen the dock
        self.text.setSizePolicy(policy)
        self.bar = QProgressBar()
        self.bar.setFixedHeight(18)
        self.cancel = narrow_button(
            "Cancel", "Stop; what is done stays, and Ctrl-Z takes it back.", actions.cancel
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 2, 8, 0)
        layout.setSpacing(3)
        busy = QWidget()
        busy.setLayout(row(self.bar, self.cancel, stretch_first=True))
        self._bottom = QStackedWidget()  # one place for both, so that nothing moves when a job begins
        self._bottom.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self._bottom.addWidget(note("Not for clinical use"))
        self._bottom.addWidget(busy)
        layout.addWidget(self.text)
        layout.addWidget(self._bottom)
        actions.status.connect(self.say)
        actions.bridge.hint.connect(self.say)
        actions.bridge.hint_over.connect(self.withdraw)
        actions.model.withdrawn.connect(self.withdraw)
        actions.model.loading_ended.connect(self._on_loading_ended)
        actions.progress.connect(self.show_progress)
        self.show_progress(None)
        self._fit_text()

    def _fit_text(self) -> None:
        """Two lines high, so that nothing above moves when the text changes; higher only for a longer text,
        whose end often says what to do.
        """
        text = self.text.text()
        self.text.setMinimumHeight(0)  # no answer to heightForWidth is below it
        self.text.setText("two\nlines")  # measured in place, with the theme's font and padding
        height = self.text.heightForWidth(_WIDE)
        self.text.setText(text)
        self.text.setFixedHeight(max(height, self.text.heightForWidth(self.text.width())))

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Fit the text anew when napari's theme brings its own font."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._fit_text()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Fit the text to the font that it is shown in."""
        super().showEvent(event)
        self._fit_text()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Fit a long text to another width."""
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self._fit_text()

    def say(self, text: str) -> None:
        """Show a text; what ends in … is over with its work."""
        if not text.endswith(_AT_WORK):
            self._lasting = text
        self.text.setText(text)
        self.text.setToolTip(text)
        self._fit_text()

    def withdraw(self, text: str) -> None:
        """Take a text away that does not hold any more, unless another one has taken its place."""
        if self._lasting == text:
            self._lasting = "Ready"  # also where it waits behind a text that is over with its work
        if self.text.text() == text:
            self.say("Ready")

    def _on_loading_ended(self) -> None:
        """What was said of the scan is shown again, as the model often comes after it."""
        if self.text.text().endswith(_AT_WORK):
            self.say(self._lasting)

    def show_progress(self, progress: Progress | None) -> None:
        """Show how far the job has come, or that there is none."""
        is_busy = progress is not None
        self._bottom.setCurrentIndex(int(is_busy))
        if is_busy:
            self.bar.setRange(0, 0 if progress.total <= 0 else _BAR_STEPS)  # bytes do not fit Qt's integers
            self.bar.setUpdatesEnabled(False)  # else Qt paints the window there and then, 10 ms a step
            self.bar.setValue(round(progress.fraction * _BAR_STEPS))
            self.bar.setUpdatesEnabled(True)
            self.bar.setFormat(progress.text if progress.total <= 0 else f"{progress.text} %p%")
