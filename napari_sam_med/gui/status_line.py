"""What is happening, always in sight below the sections: one text, one bar, one Cancel."""

from __future__ import annotations

from napari.utils.notifications import show_info
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QResizeEvent, QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QLabel,
    QProgressBar,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import narrow_button, note, row
from napari_sam_med.gui.notification import OneNotification
from napari_sam_med.progress import Progress

__all__ = ["StatusLine"]

_BAR_STEPS = 1000
_WIDE = 10_000
_AT_WORK = "…"
_READ_MS = 6000
"""What matters is read by then."""
_USER_ACTS = frozenset({QEvent.Type.MouseButtonPress, QEvent.Type.KeyPress})


class StatusLine(QWidget):
    """Status text of two lines, more for a long error, and the progress of the job that can be cancelled.

    An error or a warning is not talked over: what is said next stands below it, until it was read or the user
    does something.
    """

    def __init__(self, actions: Actions) -> None:
        super().__init__()
        self._actions = actions
        self.text = QLabel("Ready")
        self._lasting = self._said = "Ready"
        self._matters = ""
        self._notification = OneNotification(self)
        self._reading = QTimer(self)
        self._reading.setSingleShot(True)
        self._reading.setInterval(_READ_MS)
        self._reading.timeout.connect(self._on_read)
        self._listening = QTimer(self)
        self._listening.setSingleShot(True)
        self._listening.timeout.connect(lambda: QApplication.instance().installEventFilter(self))
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
        actions.told.connect(self.keep)
        actions.bridge.hint.connect(self.say)
        actions.bridge.hint_over.connect(self.withdraw)
        actions.model.withdrawn.connect(self.withdraw)
        actions.model.loading_ended.connect(self.end_work)
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
        self._said = text
        self._show()

    def keep(self, text: str) -> None:
        """Show a text that matters, and leave it there for a while whatever is said next.

        It stands over the canvas, too: that is where the user looks, and another panel may lie over this one.
        """
        known = self._matters.splitlines()
        self._matters = "\n".join(dict.fromkeys([*known, text]))
        self._notification.show("\n".join(dict.fromkeys([text, *reversed(known)])))  # its first line is seen
        self._reading.start()
        self._listening.start(0)  # not to the key that this is the answer to, on its way through the widgets
        self.say(text)

    def _show(self) -> None:
        is_more = self._said != "Ready" and self._said not in self._matters.splitlines()
        text = "\n".join(part for part in (self._matters, self._said if is_more else "") if part)
        text = text or self._said
        self.text.setText(text)
        self.text.setToolTip(text)
        self._fit_text()

    def _end_reading(self) -> None:
        """What is said next takes the place of what mattered."""
        self._reading.stop()
        self._listening.stop()
        QApplication.instance().removeEventFilter(self)
        self._matters = ""

    def _on_read(self) -> None:
        is_last = self._said in ("Ready", *self._matters.splitlines())
        self._end_reading()
        if not is_last:
            self._show()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """The user goes on, and so has read it."""
        if event.type() in _USER_ACTS:
            self._end_reading()
        return super().eventFilter(watched, event)

    def withdraw(self, text: str) -> None:
        """Take a text away that does not hold any more, unless another one has taken its place."""
        if self._lasting == text:
            self._lasting = "Ready"  # also where it waits behind a text that is over with its work
        self._matters = "\n".join(line for line in self._matters.splitlines() if line != text)
        self._notification.withdraw(text)
        if self._said == text:
            self.say("Ready")
        else:
            self._show()

    def end_work(self, text: str | None = None) -> None:
        """What was said of the scan is shown again, as the model often comes after it; with a text, only
        where that one is shown.
        """
        if self._said.endswith(_AT_WORK) and text in (None, self._said):
            self.say(self._lasting)

    def remind(self, text: str) -> None:
        """Show over the canvas, in the place of any warning, what a closed widget is still there for."""
        self._notification.show(text, show_info)

    def clear_canvas(self) -> None:
        """Take away what stands over the canvas."""
        self._notification.take_away()

    def stop(self) -> None:
        """Show nothing over the canvas any more."""
        self._actions.told.disconnect(self.keep)
        self._end_reading()
        self.clear_canvas()

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
