"""From a real mouse click in napari to the painted preview, with the network's share apart.

``python -m benchmarks.click_in_napari [--shape 512 512 40] [--clicks 15]`` opens a window (use xvfb-run
without a display). Medians of clicks on slices whose embedding is there. The time runs from the moment when
the button comes up, which tells a click from a drag, to the end of the first drawing of the canvas that shows
the preview. What napari does on the press is shown apart: a hand lets go 80 ms later, when that is long done.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from napari import Viewer
from qtpy.QtCore import QEventLoop, QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from rich.console import Console
from rich.table import Table

from benchmarks.ct import make_ct
from napari_sam_med import SliceView, read_volume
from napari_sam_med.gui.widget import SamMedWidget

_REST_SECONDS = 0.5
"""On a slice before it is clicked on; the embeddings ahead are begun by then."""


class Click(NamedTuple):
    """Seconds of one click; the network may run while napari is still busy with the click."""

    total: float
    network: float
    handling: float
    drawing: float
    window: float
    press: float

    @property
    def all_but_network(self):
        """What is not the network's."""
        return self.total - self.network


COLUMNS = {
    "click to paint": "total",
    "network": "network",
    "all but the network": "all_but_network",
    "napari handles the click": "handling",
    "drawing with the mask": "drawing",
    "then Qt's window": "window",
    "the press, before": "press",
}


class Stopwatch:
    """Seconds spent inside a function of an object, by wrapping it."""

    def __init__(self, owner, name):
        self.seconds, self._function = 0.0, getattr(owner, name)
        setattr(owner, name, self._timed)

    def _timed(self, *arguments, **options):
        start = time.perf_counter()
        try:
            return self._function(*arguments, **options)
        finally:
            self.seconds += time.perf_counter() - start

    def take(self):
        """Seconds since the last call, and start anew."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


class Moments:
    """When the preview came, the first drawing after it ended, and Qt had put that into the window.

    Noted where they happen: a loop that waits for them would see them later, or two of them at once.
    """

    def __init__(self, session, canvas):
        self.preview = self.drawn = self.in_window = None
        session.events.preview.connect(self._on_preview)
        canvas._scene_canvas.events.draw.connect(self._on_draw, position="last")
        canvas.native.frameSwapped.connect(self._on_window)

    def clear(self):
        """Wait for the next ones."""
        self.preview = self.drawn = self.in_window = None

    def _on_preview(self, preview):
        if preview is not None and self.preview is None:
            self.preview = time.perf_counter()

    def _on_draw(self, _):
        if self.preview is not None and self.drawn is None:
            self.drawn = time.perf_counter()

    def _on_window(self):
        if self.drawn is not None and self.in_window is None:
            self.in_window = time.perf_counter()


def wait(condition, seconds=60.0):
    """Handle events until a condition holds, as idle in between as a user's napari is."""
    end = time.perf_counter() + seconds
    while not condition():
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
        if time.perf_counter() > end:
            raise TimeoutError("nothing happened; is the window shown?")


def rest(actions):
    """Let the slice at hand and its neighbours be embedded, as for a user who looks before clicking."""
    end = time.perf_counter() + _REST_SECONDS
    wait(lambda: time.perf_counter() > end and not actions.workers.running)


def measure(viewer, volume, n_clicks):
    """Seconds of every click; each is on another slice."""
    heartbeat = QTimer()  # so that waiting for events ends now and then
    heartbeat.start(100)
    widget = SamMedWidget(viewer)
    viewer.window.add_dock_widget(widget, name="SAM Med")
    actions = widget.actions_
    try:
        viewer.add_image(volume.data, metadata={"sam_med": volume}, **volume.display_transform)
        wait(lambda: actions.session.volume is not None and actions.model.model is not None)
        viewer.reset_view()
        actions.bridge.set_tool("point")
        canvas = viewer.window._qt_viewer.canvas
        decoding = Stopwatch(actions.model.model.predictor.network, "decode")
        moments = Moments(actions.session, canvas)
        first = volume.shape[0] // 2 - n_clicks // 2
        places = [canvas.native.rect().center() + QPoint(n % 5, n % 3) for n in range(n_clicks)]
        clicks = []
        for index, place in enumerate(places, start=first):
            actions.bridge.go_to(SliceView("axial", index))
            rest(actions)
            moments.clear()
            decoding.take()
            button, key = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
            pressed = time.perf_counter()
            QTest.mousePress(canvas.native, button, key, place)
            press_handled = time.perf_counter()
            QApplication.processEvents()
            start = time.perf_counter()
            QTest.mouseRelease(canvas.native, button, key, place)
            handled = time.perf_counter()
            wait(lambda: moments.in_window is not None)
            clicks.append(
                Click(
                    moments.drawn - start,
                    decoding.take(),
                    handled - start,
                    moments.drawn - moments.preview,
                    moments.in_window - moments.drawn,
                    press_handled - pressed,
                )
            )
        return clicks
    finally:
        heartbeat.stop()
        widget.stop()


def run(arguments=None):
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", nargs=3, type=int, default=(512, 512, 40), metavar=("I", "J", "K"))
    parser.add_argument("--clicks", type=int, default=15)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        volume = read_volume(make_ct(Path(folder), tuple(options.shape)).path)
        viewer = Viewer()
        viewer.window.resize(1200, 800)
        clicks = measure(viewer, volume, options.clicks)
        viewer.close()
    Console(width=100).print(table(clicks, f"{' x '.join(map(str, options.shape))}, nano"))


def table(clicks, of_what):
    """Medians in milliseconds."""
    made = Table(title=f"click to painted preview, {of_what}")
    for head in COLUMNS:
        made.add_column(head, justify="right")
    medians = (statistics.median(getattr(click, name) for click in clicks) for name in COLUMNS.values())
    made.add_row(*(f"{1000 * seconds:.1f} ms" for seconds in medians))
    return made


if __name__ == "__main__":
    run()
