"""``embed``: the embedding store, filled ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_med.cli.case_options import chosen_planes
from napari_sam_med.cli.case_rows import read_rows
from napari_sam_med.cli.cluster_options import device_here, workers_of
from napari_sam_med.cli.console import print_error, print_json, progress_bar, say, show_table, warn
from napari_sam_med.cli.outputs import check_input
from napari_sam_med.errors import ExportError, ImageError
from napari_sam_med.progress import Progress

if TYPE_CHECKING:
    from napari_sam_med.cluster.workers import Cluster
    from napari_sam_med.segmentation.volume_embedding import EmbeddedVolume, EmbeddingTask

__all__ = ["EmbedRequest", "run_embed"]

_AGAIN = "what is embedded stays, and the same command carries on there."


@dataclass(frozen=True)
class EmbedRequest:
    """What the user typed."""

    volumes: tuple[Path, ...]
    cases: Path | None = None
    planes: str = "axial"
    window: str = "auto"
    crop_to_body: bool = False
    model: str = "nano"
    device: str = "auto"
    precision: str = "auto"
    scheduler: str = ""
    workers: int | None = None


@dataclass(frozen=True)
class _Refused:
    """Why a volume was not embedded."""

    reason: str


def run_embed(request: EmbedRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    from napari_sam_med.sam.embedding_store import default_store

    names, tasks = _tasks(request)
    found: dict[int, EmbeddedVolume | _Refused] = {}
    try:
        with (
            workers_of(request.scheduler, request.workers, request.device) as cluster,
            progress_bar("Embedding") as on_progress,
        ):
            for number, outcome in _outcomes(tasks, cluster, on_progress):
                found[number] = outcome
                _report(names[number], outcome)
                _check_limit(found.values(), len(tasks), tasks[0].disk_bytes)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_AGAIN) from None
    failed = sum(isinstance(outcome, _Refused) for outcome in found.values())
    rows = [(names[number], found[number]) for number in sorted(found)]
    if as_json:
        print_json({"folder": str(default_store().directory), "volumes": [_as_json(*row) for row in rows]})
    else:
        _show(rows, default_store().directory)
    return 2 if failed else 0


def _tasks(request: EmbedRequest) -> tuple[list[str], list[EmbeddingTask]]:
    if bool(request.volumes) == (request.cases is not None):
        raise ImageError("Give either volumes, or --cases with a CSV file that names them.")
    for path in request.volumes:
        check_input(path, "volume")
    names = [str(path) for path in request.volumes]
    paths = [path.absolute() for path in request.volumes]
    if request.cases is not None:
        rows = read_rows(request.cases, ["image"])
        names, paths = [row.name for row in rows], [row.paths["image"] for row in rows]
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.sam.shared_model import SharedModel
    from napari_sam_med.segmentation.volume_embedding import EmbeddingTask
    from napari_sam_med.volume.intensity import parse_window

    planes = chosen_planes(request.planes)
    parse_window(request.window)
    model = SharedModel.of(
        request.model,
        request.device,
        request.precision,
        here=device_here(request.device, request.scheduler),
    )
    store = default_store()
    if store.directory is None:
        raise RuntimeError("The store in the cache folder has a folder.")
    folder = store.directory.absolute()
    return names, [
        EmbeddingTask(path, planes, request.window, model, folder, store.disk_bytes, request.crop_to_body)
        for path in paths
    ]


def _outcomes(
    tasks: Sequence[EmbeddingTask], cluster: Cluster | None, on_progress: Callable[[Progress], None]
) -> Iterator[tuple[int, EmbeddedVolume | _Refused]]:
    """What came of each volume, with its number, as it comes."""
    if cluster is not None:
        for done, outcome in enumerate(cluster.each(_tried, tasks), start=1):
            on_progress(Progress(done, len(tasks), "volumes"))
            yield outcome
        return
    for number, task in enumerate(tasks):
        yield number, _tried(task, _with_text(on_progress, f"volume {number + 1} of {len(tasks)}"))


def _with_text(on_progress: Callable[[Progress], None], text: str) -> Callable[[Progress], None]:
    return lambda step: on_progress(replace(step, text=text))


def _tried(
    task: EmbeddingTask, on_progress: Callable[[Progress], None] | None = None
) -> EmbeddedVolume | _Refused:
    """Embed one volume; what is wrong with it alone does not end the others."""
    from napari_sam_med.segmentation.volume_embedding import embed_on_worker

    try:
        return embed_on_worker(task, on_progress)
    except ImageError as error:
        return _Refused(str(error))


def _report(name: str, outcome: EmbeddedVolume | _Refused) -> None:
    """Say what is odd about a volume, or why it is left out."""
    if isinstance(outcome, _Refused):
        print_error(f"{name}: {outcome.reason}")
    else:
        warn(f"{name}: {text}" for text in outcome.warnings)


def _check_limit(found: Collection[EmbeddedVolume | _Refused], volumes: int, limit: int) -> None:
    """Stop before what was embedded first makes room for the rest.

    Raises
    ------
    ExportError
        When the volumes so far fill the store, and more are to come.
    """
    embedded = [one for one in found if not isinstance(one, _Refused)]
    used = sum(one.bytes for one in embedded)
    if embedded and volumes > len(found) and used * (len(embedded) + 1) / len(embedded) > limit:
        raise ExportError(
            f"{len(embedded)} of {volumes} volumes take {used / 1e9:.1f} GB, and the store keeps "
            f"{limit / 1e9:.1f} GB: the next would push out the first. Set NAPARI_SAM_MED_STORE_GB to "
            f"{used * volumes / len(embedded) / 1e9 * 1.1:.1f} or more, for napari too, and give the same "
            "command."
        )


def _show(rows: Sequence[tuple[str, EmbeddedVolume | _Refused]], folder: Path | None) -> None:
    right = ("slices", "of air", "embedded now", "MB", "s")
    columns = {"volume": "left", **dict.fromkeys(right, "right")}
    cells = [
        [name, str(one.slices), str(one.air), str(one.made), f"{one.bytes / 1e6:.1f}", f"{one.seconds:.1f}"]
        for name, one in rows
        if not isinstance(one, _Refused)
    ]
    if cells:
        show_table("Embeddings", columns, cells)
        say()
        say(f"  {folder}")


def _as_json(name: str, outcome: EmbeddedVolume | _Refused) -> dict[str, Any]:
    if isinstance(outcome, _Refused):
        return {"volume": name, "error": outcome.reason}
    return {"volume": name, **asdict(outcome), "warnings": list(outcome.warnings)}
