"""``convert``: labels from one format to another."""

from __future__ import annotations

from pathlib import Path

from napari_sam_med.cli.console import print_json, show_table, warn
from napari_sam_med.cli.outputs import check_input, check_label_output

__all__ = ["run_convert"]


def run_convert(labels_path: Path, output: Path, reference: Path | None, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    check_input(labels_path, "label file")
    if reference is not None:
        check_input(reference, "reference volume")
    check_label_output(output, (labels_path, reference))
    from napari_sam_med.volume.formats.sidecar import read_origin
    from napari_sam_med.volume.reading import read_labels, read_volume
    from napari_sam_med.volume.writing import write_labels

    volume = None if reference is None else read_volume(reference)
    said = warn(() if volume is None else volume.warnings)
    labels = read_labels(labels_path, reference=volume)
    said += warn(labels.warnings)
    write_labels(output, labels, source=volume, origin=read_origin(labels_path, labels.grid))
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
        said += warn([f"{labels_path.name} has no labelled voxel, so neither has {output.name}"])
    if as_json:
        print_json({"labels": str(output), "source": str(labels_path), "warnings": said, "objects": rows})
        return 0
    columns = {"label": "right", "name": "left", "voxels": "right", "ml": "right"}
    cells = [
        [str(row["label"]), str(row["name"]), str(row["voxels"]), f"{row['volume_ml']:.1f}"] for row in rows
    ]
    show_table(str(output), columns, cells)
    return 0
