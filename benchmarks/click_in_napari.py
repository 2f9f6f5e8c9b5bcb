"""From a real mouse click in napari to the painted preview, with the network's share apart.

``python -m benchmarks.click_in_napari [--shape 512 512 40] [--clicks 15]`` opens a window (use xvfb-run
without a display). Medians of clicks on slices whose embedding is there. The time runs from the mouse press
to the end of the first drawing of the canvas that shows the preview.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from napari import Viewer
from qtpy.QtCore import QEventLoop, QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from rich.console import Console
from rich.table import Table

from benchmarks.steps import make_ct
from napari_sam_med import SliceView, read_volume
from napari_sam_med.gui.widget import SamMedWidget


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


def wait(condition, seconds=60.0):
    """Handle events until a condition holds, as idle in between as a user's napari is."""
    end = time.perf_counter() + seconds
    while not condition():
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
        if time.perf_counter() > end:
            raise TimeoutError("nothing happened; is the window shown?")


def measure(viewer, volume, n_clicks):
    """Rows of (total, network, drawing, all the rest) in seconds, a row a click."""
    heartbeat = QTimer()  # so that waiting for events ends now and then
    heartbeat.start(100)
    widget = SamMedWidget(viewer)
    viewer.window.add_dock_widget(widget, name="SAM Med")
    actions = widget.actions_
    viewer.add_image(volume.data, metadata={"sam_med": volume}, **volume.display_transform)
    wait(lambda: actions.session.volume is not None and actions.model.model is not None)
    viewer.reset_view()
    canvas = viewer.window._qt_viewer.canvas
    network = actions.model.model.predictor.network
    decoding = Stopwatch(network, "decode")
    drawn = []
    canvas._scene_canvas.events.draw.connect(lambda _: drawn.append(time.perf_counter()), position="last")
    actions.bridge.set_tool("point")
    centre = canvas.native.rect().center()
    rows = []
    for number in range(n_clicks):
        actions.bridge.go_to(SliceView("axial", volume.shape[0] // 2 - n_clicks // 2 + number))
        settle_end = time.perf_counter() + 1.5  # the slice and its neighbours are embedded meanwhile
        wait(lambda end=settle_end: time.perf_counter() > end)
        decoding.take()
        drawn.clear()
        place = centre + QPoint(number % 5, number % 3)
        start = time.perf_counter()
        QTest.mouseClick(canvas.native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, place)
        wait(lambda: actions.session.preview is not None)
        shown, in_network = time.perf_counter(), decoding.take()
        wait(lambda since=shown: drawn and drawn[-1] > since)
        total, drawing = drawn[-1] - start, drawn[-1] - shown
        rows.append((total, in_network, drawing, total - in_network - drawing))
    return rows


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", nargs=3, type=int, default=(512, 512, 40), metavar=("I", "J", "K"))
    parser.add_argument("--clicks", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        volume = read_volume(make_ct(Path(folder), tuple(arguments.shape)).path)
        viewer = Viewer()
        viewer.window.resize(1200, 800)
        rows = measure(viewer, volume, arguments.clicks)
        viewer.close()
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    table = Table(title=f"click to painted preview, {' x '.join(map(str, arguments.shape))}, nano")
    for head in ("click to paint", "network", "first drawing with the mask", "all the rest"):
        table.add_column(head, justify="right")
    table.add_row(*(f"{1000 * seconds:.1f} ms" for seconds in medians))
    Console(width=100).print(table)


if __name__ == "__main__":
    run()
