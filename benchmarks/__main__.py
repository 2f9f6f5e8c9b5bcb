"""``python -m benchmarks [--shape 512 512 300] [--repeats 3]``: a table of the main steps."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.ct import make_ct, peak_memory
from benchmarks.steps import Bench, nibabel_read, nibabel_write

N_PROPAGATED = 12
N_SHORT = 10
"""Steps of milliseconds are measured so many times as often."""


def median_seconds(step: Callable[[], Any], repeats: int) -> float:
    """Median time of a step after one call to warm up."""
    step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--shape", nargs=3, type=int, default=(512, 512, 300), metavar=("I", "J", "K"))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), tuple(options.shape), options.repeats)


def measure(folder: Path, shape: tuple[int, int, int], repeats: int) -> None:
    """Measure every step on a CT of one shape and print the table."""
    console = Console()
    if not console.is_terminal:
        console.width = 120
    with console.status("making the CT"):
        ct = make_ct(folder, shape)
        bench = Bench(ct)
    table = Table(
        title=f"CT {' x '.join(map(str, shape))} int16, {ct.array_bytes / 2**20:.0f} MiB",
        title_justify="left",
    )
    for heading in ("step", "time", "beside", "ratio", "peak memory / array"):
        table.add_column(heading, justify="left" if heading in ("step", "beside") else "right")

    def row(step: str, seconds: float, beside: str, other: float | None, memory: float | None = None) -> None:
        ratio = "" if other is None else f"{seconds / other:.2f}"
        table.add_row(step, _time(seconds), beside, ratio, "" if memory is None else f"{memory:.2f}")

    with console.status("measuring"):
        plain_read = median_seconds(nibabel_read(ct), repeats)
        read = median_seconds(bench.read, repeats)
        row("read .nii.gz", read, f"nibabel {_time(plain_read)}", plain_read,
            peak_memory("read", ct.path) / ct.array_bytes)  # fmt: skip
        embed = median_seconds(bench.embed, repeats * N_SHORT)
        predict = median_seconds(bench.predict, repeats * N_SHORT)
        row("embed a slice (nano)", embed, "", None)
        row("predict from a box (nano)", predict, "embed", embed)
        painted = median_seconds(bench.click_to_mask, repeats * N_SHORT)
        row("click to painted mask, without the network", painted, "predict", predict)
        walk = median_seconds(lambda: bench.propagate(N_PROPAGATED), 1) / N_PROPAGATED
        row("propagate, per slice", walk, "embed + predict", embed + predict)
        plain_write = median_seconds(nibabel_write(bench, folder / "plain.nii.gz"), repeats)
        write = median_seconds(lambda: bench.export(folder / "labels.nii.gz"), repeats)
        row("export .nii.gz, read back and compared", write, f"nibabel {_time(plain_write)}", plain_write,
            peak_memory("export", ct.path) / ct.array_bytes)  # fmt: skip
    console.print(table)
    console.print("Peak memory: of a process of its own, less what it needs to start; reading included.")


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


if __name__ == "__main__":
    main()
