"""``convert``: labels from one format to one or several others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sam_med.cli.console import print_json, say, show_table, warn
from napari_sam_med.cli.outputs import check_input, check_output
from napari_sam_med.volume.formats.sidecar import path_beside, stem_of

if TYPE_CHECKING:
    from napari_sam_med.volume.organs import OrganTable

__all__ = ["ConvertRequest", "run_convert"]


@dataclass(frozen=True)
class ConvertRequest:
    """What is to be converted.

    Attributes
    ----------
    labels : Path
    outputs : tuple of Path
        Files, or patterns as `export_labels` takes them.
    reference : Path or None
        Scan on whose grid the labels are to lie.
    names : str
        ``btcv``, JSON, or the path of a table; empty for the names of the label file.
    endings : tuple of str
        What ``{ending}`` stands for.
    """

    labels: Path
    outputs: tuple[Path, ...]
    reference: Path | None = None
    names: str = ""
    endings: tuple[str, ...] = ()


def run_convert(request: ConvertRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    check_input(request.labels, "label file")
    if request.reference is not None:
        check_input(request.reference, "reference volume")
    inputs = (request.labels, request.reference)
    from napari_sam_med.volume.exporting import check_pattern, export_labels, plan_export

    for output in request.outputs:  # before anything is read; names of a pattern follow
        check_pattern(output, request.endings)
        check_output(output, inputs)
    from napari_sam_med.volume.formats.sidecar import read_origin
    from napari_sam_med.volume.reading import read_labels, read_volume
    from napari_sam_med.volume.writing import remarks

    given = _organs(request.names) if request.names else None
    volume = None if request.reference is None else read_volume(request.reference)
    said = warn(() if volume is None else volume.warnings)
    labels = read_labels(request.labels, reference=volume, names=given)
    said += warn(labels.warnings)
    case = stem_of(request.labels)
    plan = plan_export(request.outputs, labels, case=case, endings=request.endings)
    for planned in plan:
        check_output(planned.path, inputs)
        check_output(path_beside(planned.path), inputs)
    files = export_labels(
        request.outputs,
        labels,
        case=case,
        endings=request.endings,
        source=volume,
        origin=read_origin(request.labels, labels.grid),
    )
    n_organs = len(labels.class_ids())
    said += warn(
        line
        for planned in plan
        for line in remarks(planned.path, n_organs if planned.class_id is None else 1)
    )
    rows = [
        {
            "label": class_id,
            "name": labels.organs.name_of(class_id),
            "voxels": labels.voxel_count(class_id),
            "volume_ml": round(labels.volume_ml(class_id), 4),
        }
        for class_id in labels.class_ids()
    ]
    if not rows:
        said += warn([f"{request.labels.name} has no labelled voxel, so neither has {files[0].name}"])
    if as_json:
        answer = {"labels": str(files[0]), "files": [str(file) for file in files]}
        print_json(answer | {"source": str(request.labels), "warnings": said, "objects": rows})
        return 0
    columns = {"label": "right", "name": "left", "voxels": "right", "ml": "right"}
    cells = [
        [str(row["label"]), str(row["name"]), str(row["voxels"]), f"{row['volume_ml']:.1f}"] for row in rows
    ]
    show_table(str(files[0]) if len(files) == 1 else f"{len(files)} files", columns, cells)
    if len(files) > 1:
        for file in files:
            say(f"  {file}")
    return 0


def _organs(names: str) -> OrganTable:
    """Organ names as `evaluate` takes them, or a label description or colour table."""
    from napari_sam_med.evaluation.cases import parse_names
    from napari_sam_med.volume.formats.label_description import read_table
    from napari_sam_med.volume.organs import OrganTable

    text = names.strip()
    if text.lower() == "btcv" or text.startswith("{") or text.lower().endswith(".json"):
        return OrganTable.from_names(parse_names(text))
    return read_table(Path(text))
