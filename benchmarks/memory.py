"""``python -m benchmarks.memory [--slices 1000]``: what annotating a large CT takes, in multiples of it.

Makes a 512 x 512 x SLICES CT and opens it in a real window (use xvfb-run without a display), in a process of
its own: a box with ``nano``, its mask accepted, carried through the volume, taken back and done again,
exported as NIfTI and for 3D Slicer. With ``--large`` it is an OME-Zarr scan of 2048 x 2048 x 1024 voxels,
8 GiB, opened as on a machine with so much memory and exported as OME-Zarr. The process has worked on a tiny
scan before, so that its window, torch and the model count as what it needed to start. Resident memory is
sampled every 20 ms, and the system's own peak (VmHWM) stands beside the highest sample. Linux only: it reads
/proc.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.ct import LIVER
from napari_sam_med.sample_data import sample_labels, sample_volume

TARGET = 3.0
LARGE_ZYX = (1024, 2048, 2048)
_CHUNKS = (64, 128, 128)
_OPPOSITE = {
    "inferior-to-superior": "superior-to-inferior",
    "anterior-to-posterior": "posterior-to-anterior",
    "right-to-left": "left-to-right",
}
_SAMPLE_SECONDS = 0.02
_ENDINGS = (".nii.gz", ".seg.nrrd")
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


def make_large(path: Path, shape_zyx: tuple[int, int, int]) -> tuple[int, tuple[int, ...]]:
    """Write the sample blown up to a shape as OME-Zarr with two coarser levels; answers as `make_ct`."""
    import zarr

    sample, labels = nib.load(sample_volume()), nib.load(sample_labels())
    values, organs = np.asarray(sample.dataobj).T, np.asarray(labels.dataobj).T == LIVER
    millimetres = np.abs(np.diag(sample.affine)[2::-1]) * np.array(values.shape) / np.array(shape_zyx)
    group = zarr.open_group(path, mode="w")
    datasets = []
    for level in range(3):
        shape = tuple(n >> level for n in shape_zyx)
        array = group.create_array(str(level), shape=shape, chunks=_CHUNKS, dtype="<i2")
        picked = [np.arange(n) * size // n for n, size in zip(shape, values.shape, strict=True)]
        for start in range(0, shape[0], _CHUNKS[0]):
            planes = picked[0][start : start + _CHUNKS[0]]
            array[start : start + len(planes)] = values[np.ix_(planes, *picked[1:])]
        scale = [float(mm) * 2**level for mm in millimetres]
        datasets.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    words = ("inferior-to-superior", "anterior-to-posterior", "right-to-left")
    codes = nib.aff2axcodes(sample.affine)[::-1]
    axes = [
        {
            "name": name,
            "type": "space",
            "unit": "millimeter",
            "orientation": {"type": "anatomical", "value": word if code in "LPS" else _OPPOSITE[word]},
        }
        for name, word, code in zip("zyx", words, codes, strict=True)
    ]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    key = int(organs.sum(axis=(1, 2)).argmax())
    rows, columns = (np.flatnonzero(organs[key].any(axis=axis)) for axis in (1, 0))
    factors = np.array(shape_zyx) / np.array(values.shape)
    box = [int(columns[0] * factors[2]), int(rows[0] * factors[1])]
    box += [int(columns[-1] * factors[2]), int(rows[-1] * factors[1])]
    return int((key + 0.5) * factors[0]), tuple(box)


class Memory:
    """Resident memory of this process, sampled by a thread of its own.

    `end` closes a stage and answers its highest samples, in bytes: of all resident memory, and of that
    without pages of files, which the system takes back when it needs them. `peak` is the highest of all.
    """

    def __init__(self) -> None:
        self._highest = self.peak = (0, 0)
        self.sampled = threading.Event()
        """Set after each sample."""
        self._is_over = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def end(self) -> tuple[int, int]:
        """Highest samples since the last call."""
        highest, self._highest = _higher(self._highest, resident()), (0, 0)
        self.peak = _higher(self.peak, highest)
        return highest

    def _sample(self) -> None:
        while not self._is_over.wait(_SAMPLE_SECONDS):
            self._highest = _higher(self._highest, resident())
            self.sampled.set()


def _higher(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return max(one[0], other[0]), max(one[1], other[1])


def resident() -> tuple[int, int]:
    """Resident memory of this process now, and that without pages of files, in bytes."""
    _, pages, shared = map(int, Path("/proc/self/statm").read_text().split()[:3])
    size = os.sysconf("SC_PAGE_SIZE")
    return pages * size, (pages - shared) * size


def system_peak() -> int:
    """Highest resident memory of this process as the system counted it, in bytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def annotate(scan: Path, tiny: Path, n_slices: int, places: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Do it all in this process; bytes above the start, by stage."""
    from napari_sam_med.gui.launch import open_viewer
    from napari_sam_med.volume import lazy_array

    viewer = open_viewer(tiny, model="nano", device="cpu")
    widget = next(iter(viewer.window.dock_widgets.values()))
    hand = Hand(viewer, widget)
    hand.annotate(*places["tiny"], 2, folder / "tiny")
    memory = Memory()
    start = memory.end()
    found: dict[str, Any] = {"start": start}

    def on_stage(stage: str) -> None:
        found[stage] = np.subtract(memory.end(), start).tolist()

    hand.on_stage = on_stage
    if scan.is_dir():
        lazy_array.physical_memory = lambda: 8 << 30  # a machine that is no larger than the scan
    hand.open(scan)
    hand.annotate(*places["scan"], n_slices, folder / "scan", (".ome.zarr",) if scan.is_dir() else _ENDINGS)
    found["peak"] = [max(memory.peak[0], system_peak()) - start[0], memory.peak[1] - start[1]]
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

    def annotate(
        self, key: int, box_ij: tuple[int, ...], n_slices: int, name: Path, endings: Sequence[str] = _ENDINGS
    ) -> None:
        """Box, accept, carry over `n_slices` slices both ways, undo, redo, export."""
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
        for ending in endings:
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


def measure(
    n_slices: int, *, is_large: bool = False, n_carried: int = 60
) -> tuple[dict[str, list[int]], int]:
    """Samples by stage above the start, of a process of its own, and bytes of the array."""
    shape_ijk = LARGE_ZYX[::-1] if is_large else (512, 512, n_slices)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan = folder / ("ct.ome.zarr" if is_large else "ct.nii")
        places = {
            "scan": make_large(scan, LARGE_ZYX) if is_large else make_ct(scan, shape_ijk),
            "tiny": make_ct(folder / "tiny ct.nii", (64, 64, 24)),
        }
        task = [str(scan), json.dumps(places), str(n_carried)]
        environment = {**os.environ, "NAPARI_SAM_MED_HOME": str(folder / "home")}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", "--in-this-process", *task],
            env=environment, stdout=subprocess.PIPE, check=True, text=True,
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1]), int(np.prod(shape_ijk)) * 2


def main() -> None:
    """Measure and print the table."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--in-this-process", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_this_process:
        path, places, n_carried = options.in_this_process
        scan = Path(path)
        tiny = scan.with_name("tiny ct.nii")
        print(json.dumps(annotate(scan, tiny, int(n_carried), json.loads(places), scan.parent)))
        return
    found, array_bytes = measure(options.slices, is_large=options.large)
    shape = " x ".join(map(str, LARGE_ZYX[::-1] if options.large else (512, 512, options.slices)))
    print(f"{shape} int16: {array_bytes / 2**20:.0f} MiB; ", end="")
    print(f"at the start {found.pop('start')[0] / 2**20:.0f} MiB, which is taken off below\n")
    print("| stage | peak, MiB | in multiples of the array | of that without pages of files |")
    print("|---|---|---|---|")
    for stage, (peak, own) in found.items():
        print(f"| {stage} | {peak / 2**20:.0f} | {peak / array_bytes:.2f} | {own / array_bytes:.2f} |")
    if not options.large:
        reached = "reached" if found["peak"][0] <= TARGET * array_bytes else "not reached"
        print(f"\nThe target of at most {TARGET:g} is {reached}.")


if __name__ == "__main__":
    main()
