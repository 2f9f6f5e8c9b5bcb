"""Half an hour at the desk: does memory stay flat, does the window stay alive?

``python -m benchmarks.long_session --minutes 30 [--shape 512 512 300] --output FOLDER`` opens a napari
window (use xvfb-run without a display), and goes through what an annotator does, with real mouse and key
events, over and over: `benchmarks.annotating`. Memory is noted every second, objects after every round, and
every time in which the main thread did not come back to its event loop for 30 ms (`benchmarks.heartbeat`).
After every round the main thread does the same work of 50 ms some times over: how often that takes twice as
long is the machine's share. What the allocator of glibc says of itself tells a leak (allocated memory grows)
from memory that was freed and lies between what is used (resident memory grows alone).

Written to FOLDER: ``memory.csv``, ``gaps.csv``, ``objects.csv``, ``long_session.png``.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# Beside Mesa's software OpenGL the first import of torchvision crashes; before it, it does not.
import torchvision  # noqa: F401
from napari.layers import Layer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication
from rich.console import Console
from rich.table import Table

from benchmarks.annotating import NAPARIS_BIN, Round
from benchmarks.annotator import Annotator
from benchmarks.ct import make_ct
from benchmarks.heartbeat import Gap, Heartbeat
from napari_sam_med.freed_memory import allocated
from napari_sam_med.gui import leaving
from napari_sam_med.gui.launch import open_viewer
from napari_sam_med.sam.model_registry import NANO_WEIGHTS

_MIB = 1 << 20
_WARM_UP_SHARE = 0.3
"""Of the time: until then the store of embeddings and the undo stack fill up."""
_SETTLING_SECONDS = 0.1
"""After a search for garbage: by then other threads have made what they were making."""
_YARDSTICK_SECONDS = 0.05
_YARDSTICKS = 20
"""After each round."""
_SHOWN_GAPS = 15
_SHOWN_TYPES = 12


@dataclass
class Record:
    """What was noted, and the clock it was noted by.

    Attributes
    ----------
    memory : list of (seconds, MiB resident, allocated, freed but kept, of embeddings, of undo steps, step)
        Allocated and kept are NaN where the allocator does not tell.
    objects : list of (seconds, round, objects, widgets, layers, threads)
    types : list of Counter
        Objects by type, after every round.
    yardsticks : list of float
        Seconds of the processor that the same work took.
    """

    start: float = field(default_factory=time.perf_counter)
    memory: list[tuple[float, float, float, float, float, float, str]] = field(default_factory=list)
    objects: list[tuple[float, int, int, int, int, int]] = field(default_factory=list)
    types: list[Counter[str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    yardsticks: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.start


def resident_mib() -> float:
    """Memory of this process that lies in the machine's."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB


def slope(seconds: np.ndarray, mib: np.ndarray) -> float:
    """MiB in ten minutes, by least squares."""
    return float(np.polyfit(seconds, mib, 1)[0] * 600) if len(seconds) > 2 else float("nan")


def play(hands: Annotator, work: Round, minutes: float, record: Record, heart: Heartbeat) -> None:
    """Go round after round until the time is over."""
    clock = QTimer()
    clock.timeout.connect(lambda: _note_memory(hands, record, heart))
    clock.start(1000)
    length = _length_of_yardstick()
    heart.skip()
    while record.seconds < minutes * 60:
        for name, step in work.steps():
            heart.doing = name
            try:
                step()
            except Exception as error:  # noqa: BLE001  told at the end; the session goes on as a user would
                record.failed.append(f"round {work.number}, {name}: {type(error).__name__}: {error}")
        heart.doing = "between rounds"
        hands.rest(0.5)
        for _ in range(_YARDSTICKS):
            record.yardsticks.append(_seconds_to_count(length))
            heart.skip()
            hands.rest(0.02)
        _note_objects(hands, work, record)
        heart.skip()
        print(
            f"{record.seconds:5.0f} s: round {work.number}, {resident_mib():.0f} MiB, "
            f"{record.objects[-1][2]} objects",
            flush=True,
        )
    clock.stop()


def _seconds_to_count(length: int) -> float:
    """Of the processor."""
    begun, total = time.thread_time(), 0
    for number in range(length):
        total += number
    return time.thread_time() - begun


def _length_of_yardstick() -> int:
    """How far to count for it, as fast as this machine is at its best."""
    probe = 100_000
    return int(probe * _YARDSTICK_SECONDS / min(_seconds_to_count(probe) for _ in range(50)))


def _note_memory(hands: Annotator, record: Record, heart: Heartbeat) -> None:
    model = hands.actions.model.model
    store = 0.0 if model is None else model.store._memory_used / _MIB
    undo = hands.session.undo_stack._nbytes / _MIB
    found = allocated()
    own = (float("nan"),) * 2 if found is None else (found.used / _MIB, found.kept / _MIB)
    record.memory.append((record.seconds, resident_mib(), *own, store, undo, heart.doing))


def _note_objects(hands: Annotator, work: Round, record: Record) -> None:
    gc.collect()
    time.sleep(_SETTLING_SECONDS)
    # not what other threads are just making: a tuple that is looked at breaks
    alive = gc.get_objects(generation=2)
    record.types.append(Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in alive))
    record.objects.append(
        (
            record.seconds,
            work.number,
            len(alive),
            len(QApplication.allWidgets()),
            sum(isinstance(one, Layer) for one in alive),
            threading.active_count(),
        )
    )


# what came of it


def tell(record: Record, gaps: list[Gap], folder: Path, title: str) -> None:
    """Print the tables, and write the files."""
    _write(
        folder / "memory.csv",
        [
            "seconds",
            "resident MiB",
            "allocated MiB",
            "freed but kept MiB",
            "embeddings MiB",
            "undo MiB",
            "step",
        ],
        record.memory,
    )
    head = ["seconds", "round", "objects", "widgets", "layers", "threads"]
    _write(folder / "objects.csv", head, record.objects)
    head = ["seconds", "ms", "own ms", "queued ms", "asleep ms", "step", "stacks"]
    rows = [
        (
            f"{g.at:.1f}",
            *(f"{1000 * s:.0f}" for s in (g.wall, g.own, g.queued, g.asleep)),
            g.doing,
            " || ".join(g.stacks),
        )
        for g in gaps
    ]
    _write(folder / "gaps.csv", head, rows)
    console = Console(width=150)
    console.print(_memory_table(record, title))
    console.print(_gap_table(gaps, "own", "longest work of the main thread at a stretch"))
    console.print(_gap_table(gaps, "asleep", "longest waits of the main thread for a lock or a file"))
    console.print(_told_of_yardstick(record.yardsticks))
    console.print(_growth_table(record))
    for line in record.failed:
        console.print(f"did not end: {line}")
    _draw(record, gaps, folder / "long_session.png", title)


def _columns(record: Record) -> list[np.ndarray]:
    return [np.array([row[i] for row in record.memory]) for i in range(6)]


def _memory_table(record: Record, title: str) -> Table:
    times, resident, used, kept, store, undo = _columns(record)
    after = times >= _WARM_UP_SHARE * times[-1]
    made = Table(title=title)
    for name in (
        "memory",
        "at the start",
        "after the warm-up",
        "at the end",
        "most",
        "per 10 minutes after it",
    ):
        made.add_column(name, justify="left" if name == "memory" else "right")
    for name, values in (
        ("resident", resident),
        ("allocated", used),
        ("freed, kept by the allocator", kept),
        ("embeddings kept", store),
        ("undo steps kept", undo),
    ):
        shown = (values[0], values[after][0], values[-1], values.max())
        made.add_row(name, *(f"{v:.0f} MiB" for v in shown), f"{slope(times[after], values[after]):+.1f} MiB")
    return made


def _gap_table(gaps: list[Gap], by: str, title: str) -> Table:
    made = Table(title=title)
    for name in ("at", "step", "away", "own work", "queued", "asleep", "where"):
        made.add_column(name, justify="left" if name in ("step", "where") else "right")
    for gap in sorted(gaps, key=lambda one: -getattr(one, by))[:_SHOWN_GAPS]:
        times = (f"{1000 * s:.0f} ms" for s in (gap.wall, gap.own, gap.queued, gap.asleep))
        where = Counter(_own_call(stack) for stack in gap.stacks).most_common(2)
        made.add_row(f"{gap.at:.0f} s", gap.doing, *times, ", ".join(name for name, _ in where))
    return made


def _told_of_yardstick(seconds: list[float]) -> str:
    if not seconds:
        return "The yardstick was not used."
    times = 1000 * np.array(seconds)
    return (
        f"The same work {len(times)} times: {np.median(times):.0f} ms at the median, {times.max():.0f} at "
        f"most; {(times > 1.5 * np.median(times)).sum()} times 1.5 times the median and more, "
        f"{(times > 2 * np.median(times)).sum()} times twice and more."
    )


def _own_call(stack: str) -> str:
    """The innermost two calls, and the innermost one of ours."""
    calls = stack.split(" > ")
    ours = [call for call in calls if call.startswith(("gui/", "session/", "volume/", "segmentation/"))]
    return " > ".join([*ours[-1:], *calls[-1:]])


def _growth_table(record: Record) -> Table:
    made = Table(title="objects that became more after the warm-up")
    for name in ("type", "then", "at the end", "a round"):
        made.add_column(name, justify="left" if name == "type" else "right")
    first = next(
        (i for i, row in enumerate(record.objects) if row[0] >= _WARM_UP_SHARE * record.objects[-1][0]), 0
    )
    then, now, rounds = record.types[first], record.types[-1], len(record.types) - 1 - first
    for name, more in (now - then).most_common(_SHOWN_TYPES):
        made.add_row(name, str(then[name]), str(now[name]), f"{more / max(1, rounds):+.1f}")
    return made


def _write(path: Path, head: list[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([head, *rows])


def _draw(record: Record, gaps: list[Gap], path: Path, title: str) -> None:
    from matplotlib.figure import Figure

    seconds, resident, used, _, store, undo = _columns(record)
    figure = Figure(figsize=(9, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    for values, label, color in (
        (resident, "resident", "#0072b2"),
        (used, "allocated", "#009e73"),
        (store + undo, "of that: embeddings and undo steps kept", "#cc79a7"),
    ):
        top.plot(seconds / 60, values, label=label, color=color)
    top.set(ylabel="MiB", ylim=(0, None), title=title)
    top.legend(loc="lower right", frameon=False)
    binned = [gap for gap in gaps if gap.doing == NAPARIS_BIN]
    others = [gap for gap in gaps if gap.doing != NAPARIS_BIN]
    for shown, part, color, name in (
        (binned, "wall", "#c5dcee", "away at napari's own bin"),
        (others, "wall", "#bbbbbb", "away else"),
        (others, "own", "#d55e00", "of that: its own work"),
    ):
        times = [gap.at / 60 for gap in shown]
        bottom.scatter(times, [1000 * getattr(gap, part) for gap in shown], s=6, color=color, label=name)
    bottom.axhline(100, color="black", linewidth=0.8)
    bottom.set(xlabel="minutes", ylabel="main thread, ms", ylim=(0, None))
    bottom.legend(loc="upper right", frameon=False)
    figure.savefig(path, dpi=110)


def run(arguments: list[str] | None = None) -> None:
    """Play the session and tell of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--shape", nargs=3, type=int, default=(512, 512, 300), metavar=("I", "J", "K"))
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["NAPARI_SAM_MED_HOME"] = str(folder / "home")  # nobody's own journals and settings
        leaving.ask = lambda *_: "leave"  # what was not exported is left; nobody is there to ask
        made = make_ct(folder, tuple(options.shape))
        other = Path(shutil.copy(made.path, folder / "other_ct.nii.gz"))
        own_model = Path(shutil.copy(NANO_WEIGHTS, folder / "own.safetensors"))
        viewer = open_viewer()
        viewer.show()
        hands = Annotator(viewer)
        work = Round(hands, [made.path, other], made.labels, ["nano", str(own_model)], folder)
        record, heart = Record(), Heartbeat()
        try:
            play(hands, work, options.minutes, record, heart)
        finally:
            heart.stop()
            title = (
                f"{options.minutes:.0f} minutes, {work.number} rounds, {' x '.join(map(str, options.shape))}"
            )
            tell(record, heart.gaps, options.output, title)
            hands.widget.stop()
            viewer.close()
    sys.stdout.flush()


if __name__ == "__main__":
    run()
