"""What the commands share that ask a grid of points on slices: which slices, of what, with which model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sam_med.cli.case_options import listed
from napari_sam_med.cli.console import warn
from napari_sam_med.cli.doubts import looks_like_labels
from napari_sam_med.cli.outputs import check_input, check_output
from napari_sam_med.errors import ExportError, ImageError, LabelError

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.volume.labels import LabelVolume
    from napari_sam_med.volume.slice_view import SliceView
    from napari_sam_med.volume.volume import Volume

__all__ = ["OpenedSearch", "SliceSearch", "open_search"]


@dataclass(frozen=True)
class SliceSearch:
    """What is looked at, with what, and what it is compared with.

    Attributes
    ----------
    volume : Path
    plane : str
    slices : str
        ``40-60,80`` along the file's own axis; empty for all.
    every : int
        Only each so many-th of them.
    window, model, device, precision : str
    labels : Path or None
        What is to be found, for scores.
    scores : Path or None
        JSON for them.
    body_only : bool
        Ask at points in the body alone.
    """

    volume: Path
    plane: str = "axial"
    slices: str = ""
    every: int = 1
    window: str = "auto"
    model: str = "nano"
    device: str = "auto"
    precision: str = "auto"
    labels: Path | None = None
    scores: Path | None = None
    body_only: bool = False


@dataclass(frozen=True, eq=False)
class OpenedSearch:
    """The volume, its slices and the model, ready to be asked."""

    volume: Volume
    views: list[SliceView]
    window: tuple[float, float]
    predictor: Predictor
    labels: LabelVolume | None
    warnings: list[str]


def open_search(search: SliceSearch, outputs: Sequence[Path]) -> OpenedSearch:
    """Check all paths, then read what is there and load the model.

    Parameters
    ----------
    search : SliceSearch
    outputs : sequence of Path
        Files that will be written beside the scores.

    Raises
    ------
    SamMedError
        When anything cannot be read, written, chosen or loaded.
    """
    check_input(search.volume, "volume")
    if search.labels is not None:
        check_input(search.labels, "label file")
    elif search.scores is not None:
        raise LabelError("--scores needs --labels: what is to be found on the volume; give both.")
    written = [*outputs, *(() if search.scores is None else (search.scores,))]
    for number, path in enumerate(written):
        check_output(path, (search.volume, search.labels))
        if path.absolute() in [other.absolute() for other in written[:number]]:
            raise ExportError(f"{path} would be written twice; give every file a name of its own.")
    from napari_sam_med.sam.predictor import load_predictor
    from napari_sam_med.segmentation.automatic.grid_answers import refuse_without_points
    from napari_sam_med.volume.intensity import resolve_window
    from napari_sam_med.volume.reading import read_labels, read_volume

    volume = read_volume(search.volume)
    said = warn(volume.warnings)
    if looks_like_labels(volume):
        said += warn([f"{search.volume.name} looks like labels, not a scan; check that it is meant"])
    views = _views(search, volume)
    labels = None if search.labels is None else read_labels(search.labels, reference=volume)
    if labels is not None:
        said += warn(labels.warnings)
        if not any(view.extract(labels.data).any() for view in views):
            raise LabelError(
                f"{search.labels} has no label on the slices that are looked at; choose others with --slices."
            )
    window = resolve_window(volume, search.window)
    predictor = load_predictor(search.model, device=search.device, precision=search.precision)
    refuse_without_points(predictor)
    return OpenedSearch(volume, views, window, predictor, labels, said)


def _views(search: SliceSearch, volume: Volume) -> list[SliceView]:
    """The chosen slices, from the feet, the front or the right side on."""
    from napari_sam_med.volume.slice_view import SliceView

    first_view = SliceView(search.plane, 0)  # type: ignore[arg-type]  # it refuses what is no plane
    n_slices, axis = volume.shape[first_view.axis], volume.grid.file_axis(first_view.plane)
    chosen: set[int] = set()
    for part in listed(search.slices) or [f"0-{n_slices - 1}"]:
        ends = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", part)
        if ends is None:
            raise ImageError(f'There are no slices "{part}"; give numbers from 0, such as 40-60,80.')
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if not first <= last < n_slices:
            raise ImageError(
                f"There are no {search.plane} slices {part} in {volume.name}; it has {n_slices}, numbered 0 "
                f"to {n_slices - 1}: give some of them."
            )
        chosen.update(range(first, last + 1))
    views = (volume.grid.view_from_file(axis, index) for index in sorted(chosen)[:: search.every])
    return sorted(views, key=lambda view: view.index)
