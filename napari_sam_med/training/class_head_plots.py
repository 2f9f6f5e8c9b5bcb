"""Pictures of how well a classifier does: reliability and confusion, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ExportError
from napari_sam_med.volume.replacement import Replacement

if TYPE_CHECKING:
    from napari_sam_med.training.class_head_calibration import Reliability

__all__ = ["draw_confusion", "draw_reliability"]

_BLUE, _GREY = "#2a6fbb", "#8a8a8a"


def draw_reliability(path: Path, found: Reliability, title: str) -> None:
    """Confidence against accuracy, with how many masks lie in each bin.

    Raises
    ------
    ExportError
        When matplotlib is missing or the file cannot be written.
    """
    figure = _figure(5.2, 5.6)
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    filled = found.counts > 0
    centres = (found.edges[:-1] + found.edges[1:]) / 2
    width = found.edges[1] - found.edges[0]
    top.plot([0, 1], [0, 1], color=_GREY, linewidth=1, label="as confident as right")
    top.bar(
        centres[filled],
        found.accuracy[filled],
        width * 0.9,
        color=_BLUE,
        alpha=0.8,
        label="share that is right",
    )
    top.plot(found.confidence[filled], found.accuracy[filled], "o", color="black", markersize=3)
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=title)
    top.legend(loc="upper left", frameon=False)
    bottom.bar(centres, found.counts, width * 0.9, color=_GREY)
    bottom.set(xlabel="probability of the best guess", ylabel="masks")
    _save(figure, path)


def draw_confusion(
    path: Path, true: npt.NDArray[Any], guessed: npt.NDArray[Any], organs: Sequence[str], title: str
) -> None:
    """How often each organ (row) is taken for each (column); rows without a case are left out.

    Raises
    ------
    ExportError
        When matplotlib is missing or the file cannot be written.
    """
    counts = np.zeros((len(organs), len(organs)), dtype=int)
    np.add.at(counts, (true, guessed), 1)
    rows = np.flatnonzero(counts.sum(axis=1))
    shares = counts[rows] / counts[rows].sum(axis=1, keepdims=True)
    figure = _figure(2.6 + 0.46 * len(organs), 2.2 + 0.36 * len(rows))
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, row in enumerate(rows.tolist()):
        for j in np.flatnonzero(counts[row]):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, counts[row, j], ha="center", va="center", color=color)
    axes.set_xticks(range(len(organs)), organs, rotation=50, ha="right")
    axes.set_yticks(range(len(rows)), [organs[row] for row in rows.tolist()])
    axes.set(xlabel="taken for", ylabel="truth", title=title)
    _save(figure, path)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ExportError("Pictures need matplotlib, which is not installed; install it.") from None
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    with Replacement(path, ".png") as file:
        # no version and no date inside: equal figures are equal bytes
        figure.savefig(file.temporary, format="png", metadata={"Software": None})
        file.put_in_place()
