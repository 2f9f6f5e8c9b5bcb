"""From a scan's file to the first drawing in napari that shows a slice of it, beside nibabel's reading.

``python -m benchmarks.opening_in_napari FILE ... [--repeats 3]`` opens a window (use xvfb-run without a
display) with the plugin docked, and then, in turn, opens each file as the button "Open..." does, and reads
all its values with nibabel. The time ends with the first drawing of the canvas that shows the middle of the
scan. The files lie in the system's cache by then. Prints JSON: of both the least seconds by the clock, and
the processor's.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from napari.layers import Image
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QApplication
from vispy import gloo

from napari_sam_med.gui.launch import open_viewer
from napari_sam_med.gui.widget import SamMedWidget

_SHOWN = 20
"""Mean grey value, 0 to 255, of the middle of a canvas that is not empty."""


class FirstSlice:
    """When a drawing of the canvas first showed a slice: both clocks, noted as the drawing ended."""

    def __init__(self, viewer):
        self._viewer = viewer
        self.moment = None
        self._canvas = viewer.window._qt_viewer.canvas._scene_canvas
        self._canvas.events.draw.connect(self._on_draw, position="last")

    def _on_draw(self, _):
        if self.moment is not None or not any(isinstance(layer, Image) for layer in self._viewer.layers):
            return
        now = _clocks()
        width, height = self._canvas.physical_size
        middle = gloo.read_pixels((width // 2 - 20, height // 2 - 20, 40, 40), alpha=False)
        if middle.mean() > _SHOWN:
            self.moment = now


def _clocks():
    return np.array([time.perf_counter(), time.process_time()])


def _wait(condition, seconds=120.0):
    end = time.perf_counter() + seconds
    while not condition():
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
        if time.perf_counter() > end:
            raise TimeoutError("nothing happened; is the window shown?")


def _rest(actions):
    """Let what is under way come to its end."""
    end = time.perf_counter() + 0.5
    _wait(lambda: time.perf_counter() > end and not actions.workers.running)


def open_in_window(viewer, actions, path):
    """Seconds (clock, processor) to the first slice of a file; the window is empty again afterwards."""
    first = FirstSlice(viewer)
    start = _clocks()
    actions.open_scan(path)
    _wait(lambda: first.moment is not None)
    _wait(lambda: actions.session.volume is not None and not actions.scans.is_loading)
    viewer.layers.clear()
    _rest(actions)
    return first.moment - start


def read_with_nibabel(path):
    """Seconds (clock, processor) to all values; a file that is not packed is only mapped until copied."""
    start = _clocks()
    values = np.asanyarray(nib.load(path).dataobj)
    if isinstance(values, np.memmap):
        values = np.array(values)
    return _clocks() - start


def measure(paths, repeats):
    """Of each file the least seconds of both, in turn."""
    viewer = open_viewer()
    heartbeat = QTimer()  # so that waiting for events ends now and then; it needs the application
    heartbeat.start(20)
    (widget,) = viewer.window._qt_window.findChildren(SamMedWidget)
    actions = widget.actions_
    _rest(actions)
    found = {}
    for path in paths:
        turns = [(open_in_window(viewer, actions, path), read_with_nibabel(path)) for _ in range(repeats + 1)]
        ours, theirs = np.min(turns[min(1, repeats) :], axis=0)  # the first finds imports to do
        found[str(path)] = {"ours": ours.tolist(), "nibabel": theirs.tolist()}
    heartbeat.stop()
    viewer.close()
    return found


def run(arguments=None):
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_SAM_MED_HOME"] = home
        print(json.dumps(measure(options.files, options.repeats)))


if __name__ == "__main__":
    run()
