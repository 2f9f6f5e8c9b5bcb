"""``python -m benchmarks.memory [--slices 1000]``: what annotating a large CT takes, in multiples of it.

Makes a 512 x 512 x SLICES CT and opens it in a real window (use xvfb-run without a display), in a process of
its own: a box with ``nano``, its mask accepted, carried through the volume, taken back and done again,
exported as NIfTI and for 3D Slicer. The process has worked on a tiny scan before, so that its window, torch
and the model count as what it needed to start. Resident memory is sampled every 20 ms, and the system's own
peak (VmHWM) stands beside the highest sample. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.steps import LIVER
from napari_sam_med.sample_data import sample_labels, sample_volume

TARGET = 3.0
_SAMPLE_SECONDS = 0.02
_STATUS = Path("/proc/self/status")


def make_ct(path: Path, shape_ijk: tuple[int, int, int]) -> tuple[int, tuple[int, ...]]:
    """Write the sample blown up to a shape as .nii; answers slice k and box i0 j0 i1 j1 of its liver."""
    sample, labels = nib.load(sample_volume()), nib.load(sample_labels())
    picked = [np.arange(n) * size // n for n, size in zip(shape_ijk, sample.shape, strict=True)]
    affine = sample.affine.copy()
    affine[:3, :3] *= np.array(sample.shape) / np.array(shape_ijk)
    header = nib.Nifti1Header()
    header.set_data_shape(shape_ijk)
    header.set_data_dtype(np.int16)
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    header.set_xyzt_units("mm")
    values, organs = np.asarray(sample.dataobj), np.asarray(labels.dataobj) == LIVER
    with path.open("wb") as stream:
        header["vox_offset"] = 352
        header.write_to(stream)
        stream.write(b"\0" * 4)
        for k in picked[2]:
            stream.write(values[:, :, k][np.ix_(*picked[:2])].astype("<i2").tobytes(order="F"))
    key = int(organs.sum(axis=(0, 1)).argmax())
    inside = np.nonzero(organs[:, :, key][np.ix_(*picked[:2])])
    box = tuple(int(f(axis)) for f in (np.min, np.max) for axis in inside)
    return int(np.flatnonzero(picked[2] == key)[0]), box


class Memory:
    """Resident memory of this process, sampled by a thread of its own.

    `end` closes a stage and answers its highest sample, in bytes; `peak` is the highest of all.
    """

    def __init__(self) -> None:
        self._highest = self.peak = 0
        self._is_over = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def end(self) -> int:
        """Highest sample since the last call."""
        highest, self._highest = max(self._highest, resident()), 0
        self.peak = max(self.peak, highest)
        return highest

    def _sample(self) -> None:
        while not self._is_over.wait(_SAMPLE_SECONDS):
            self._highest = max(self._highest, resident())


def resident() -> int:
    """Resident memory of this process now, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def system_peak() -> int:
    """Highest resident memory of this process as the system counted it, in bytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def annotate(scan: Path, tiny: Path, n_slices: int, places: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Do it all in this process; bytes above the start, by stage."""
    from napari_sam_med.gui.launch import open_viewer

    viewer = open_viewer(tiny, model="nano", device="cpu")
    widget = next(iter(viewer.window.dock_widgets.values()))
    hand = Hand(viewer, widget)
    hand.annotate(*places["tiny"], 2, folder / "tiny")
    memory = Memory()
    found: dict[str, Any] = {"start": memory.end()}
    hand.on_stage = lambda stage: found.__setitem__(stage, memory.end() - found["start"])
    hand.open(scan)
    hand.annotate(*places["scan"], n_slices, folder / "scan")
    found["peak"] = max(memory.peak, system_peak()) - found["start"]
    widget.stop()
    viewer.close()
    return found


class Hand:
    """One annotator: prompts through the session, as the canvas puts them, buttons through the actions."""

    def __init__(self, viewer: Any, widget: Any) -> None:
        self.viewer, self.actions = viewer, widget.actions_
        self.on_stage: Callable[[str], object] = lambda stage: None
        self._wait(lambda: self.actions.session.volume is not None and self.actions.model.model is not None)

    def open(self, path: Path) -> None:
        """Open a scan in the place of the one there is, whose layers the user removes."""
        session, viewer = self.actions.session, self.viewer
        viewer.layers.clear()
        self._wait(lambda: session.volume is None)
        self.actions.open_scan(path)
        self._wait(lambda: session.volume is not None and self.actions.keeping.journal.image is not None)
        self._rest()
        self.on_stage("opened, shown and recognised")

    def annotate(self, key: int, box_ij: tuple[int, ...], n_slices: int, name: Path) -> None:
        """Box, accept, carry over `n_slices` slices both ways, undo, redo, export twice."""
        from napari_sam_med.gui.carrying import Extent
        from napari_sam_med.sam.prompts import Prompts

        actions, session = self.actions, self.actions.session
        grid = session.volume.grid
        view = grid.view_from_file(2, key)
        i0, j0, i1, j1 = box_ij
        corners = [grid.index_zyx_from_ijk((*corner, key)) for corner in ((i0, j0), (i1, j1))]
        xs, ys = zip(*(view.pixel_xy(corner, grid.shape_zyx) for corner in corners), strict=True)
        box = (min(xs), min(ys), max(xs), max(ys))
        session.select_organ(LIVER)
        actions.bridge.go_to(view)
        session.prompt(view, Prompts.from_box(box))
        self._wait(lambda: session.preview is not None)
        actions.accept()
        self._rest()
        self.on_stage("box, mask accepted")
        first, last = view.index - n_slices // 2, view.index + n_slices // 2
        actions.carrying.carry(Extent(first_index=max(first, 0), last_index=last))
        self._wait(lambda: not actions.is_busy)
        self._rest()
        self.on_stage(f"carried over {n_slices} slices")
        actions.undo()
        self._rest()
        actions.redo()
        self._rest()
        self.on_stage("undone and done again")
        for ending in (".nii.gz", ".seg.nrrd"):
            written: list[Path] = []
            actions.export(name.with_name(name.name + ending), written.append)
            self._wait(lambda written=written: written)
            self.on_stage(f"exported as {ending}")

    def _rest(self) -> None:
        """Let timers, embeddings ahead and the journal run."""
        end = time.perf_counter() + 1.0
        self._wait(lambda: time.perf_counter() > end and not self.actions.workers.running)

    def _wait(self, condition: Callable[[], object], seconds: float = 600.0) -> None:
        from qtpy.QtWidgets import QApplication

        end = time.perf_counter() + seconds
        while not condition():
            QApplication.processEvents()
            time.sleep(0.005)
            if time.perf_counter() > end:
                raise TimeoutError("nothing happened; is there a display?")


def measure(n_slices: int, side: int = 512, n_carried: int = 60) -> tuple[dict[str, int], int]:
    """Bytes by stage above the start, of a process of its own, and bytes of the array."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = {
            "scan": make_ct(folder / "ct.nii", (side, side, n_slices)),
            "tiny": make_ct(folder / "tiny ct.nii", (64, 64, 24)),
        }
        task = [str(folder), json.dumps(places), str(n_carried)]
        environment = {**os.environ, "NAPARI_SAM_MED_HOME": str(folder / "home")}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", "--in-this-process", *task],
            env=environment, stdout=subprocess.PIPE, check=True, text=True,
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1]), side * side * n_slices * 2


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--in-this-process", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_this_process:
        folder, places, n_carried = options.in_this_process
        where = Path(folder)
        found = annotate(where / "ct.nii", where / "tiny ct.nii", int(n_carried), json.loads(places), where)
        print(json.dumps(found))
        return
    found, array_bytes = measure(options.slices)
    print(f"512 x 512 x {options.slices} int16: {array_bytes / 2**20:.0f} MiB; ", end="")
    print(f"at the start {found.pop('start') / 2**20:.0f} MiB, which is taken off below\n")
    print("| stage | peak, MiB | in multiples of the array |\n|---|---|---|")
    for stage, peak in found.items():
        print(f"| {stage} | {peak / 2**20:.0f} | {peak / array_bytes:.2f} |")
    reached = "reached" if found["peak"] <= TARGET * array_bytes else "not reached"
    print(f"\nThe target of at most {TARGET:g} is {reached}.")


if __name__ == "__main__":
    main()
