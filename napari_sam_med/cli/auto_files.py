"""What ``auto`` writes beside label volumes: binary masks in a folder, run lengths, records of objects."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_med.errors import ExportError

if TYPE_CHECKING:
    from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
    from napari_sam_med.volume.volume import Volume

__all__ = ["records_of", "sam_record", "write_coco", "write_object_masks", "write_slice_masks"]

TABLE = "metadata.csv"

# the columns of `scripts/amg.py` of segment-anything
_MASK_COLUMNS = (
    *("id", "area", "bbox_x0", "bbox_y0", "bbox_w", "bbox_h", "point_input_x", "point_input_y"),
    *("predicted_iou", "stability_score", "crop_box_x0", "crop_box_y0", "crop_box_w", "crop_box_h"),
)
_OBJECT_COLUMNS = (
    *("id", "file", "name", "organ", "probability", "abstained", "score"),
    *("voxels", "volume_ml", "first_slice", "last_slice"),
)


def records_of(volume: Volume, objects: Sequence[FoundObject]) -> list[dict[str, Any]]:
    """What is known of each object, as JSON takes it; slices count along the file's own axis."""
    from napari_sam_med.segmentation.automatic.found_labels import names_of

    names = names_of(objects)
    records = []
    for one in objects:
        indices = sorted(volume.grid.file_index(view) for view in one.masks)
        known = {"organ": None, "abstained": None} if one.organ is None else one.organ.to_json()
        records.append(
            {
                "number": one.number,
                "name": names[one.number],
                "score": round(one.score, 4),
                "voxels": one.voxels,
                "volume_ml": round(one.voxels * volume.grid.voxel_volume_mm3 / 1000, 4),
                "plane": one.best_view.plane,
                "first_slice": indices[0],
                "last_slice": indices[-1],
                "best_slice": volume.grid.file_index(one.best_view),
            }
            | known
        )
    return records


def write_slice_masks(folder: Path, masks: Sequence[FoundMask]) -> None:
    """The masks of a slice as segment-anything's own script writes them: ``0.png``, ..., ``metadata.csv``."""
    import numpy as np
    from PIL import Image

    with _new_folder(folder) as partial:
        for number, found in enumerate(masks):
            Image.fromarray(found.mask.astype(np.uint8) * 255).save(partial / f"{number}.png")
        _write_table(partial / TABLE, _MASK_COLUMNS, map(_row, range(len(masks)), masks))


def write_object_masks(folder: Path, volume: Volume, objects: Sequence[FoundObject]) -> None:
    """Each object as a volume of 0 and 1, ``1.nii.gz``, ..., and ``metadata.csv``; overlaps are kept."""
    from napari_sam_med.segmentation.automatic.found_labels import labels_of
    from napari_sam_med.volume.writing import write_labels

    records = records_of(volume, objects)
    with _new_folder(folder) as partial:
        rows = []
        for one, record in zip(objects, records, strict=True):
            file = f"{one.number}.nii.gz"
            only = labels_of(volume, [replace(one, number=1)])
            write_labels(partial / file, only, source=volume)
            organ = record["organ"] or {"name": "", "probability": ""}
            rows.append(
                [
                    *(one.number, file, record["name"], organ["name"], organ["probability"]),
                    *("" if record["abstained"] is None else int(record["abstained"]), record["score"]),
                    *(record[key] for key in ("voxels", "volume_ml", "first_slice", "last_slice")),
                ]
            )
        _write_table(partial / TABLE, _OBJECT_COLUMNS, rows)


def write_coco(
    path: Path, volume: Volume, objects: Sequence[FoundObject], masks: Sequence[FoundMask] | None
) -> None:
    """Masks as COCO run lengths.

    Of one slice (`masks`) the list that segment-anything's script writes with ``--convert-to-rle``; of a
    volume the records of the objects, each with ``masks``, one mask a slice, so that overlaps are kept.
    """
    from napari_sam_med.segmentation.report import write_json

    if masks is not None:
        write_json(path, [sam_record(found) for found in masks])
        return
    records = records_of(volume, objects)
    for one, record in zip(objects, records, strict=True):
        record["masks"] = [
            {"slice": volume.grid.file_index(view), "segmentation": _run_lengths(found)}
            for view, found in one
        ]
    write_json(path, {"volume": str(volume.path or ""), "objects": records})


def sam_record(found: FoundMask) -> dict[str, Any]:
    """A mask with the keys and the run lengths of segment-anything's own generator, as JSON takes them.

    As there, ``bbox`` is x, y and how far the last pixel lies from the first one.
    """
    x0, y0, x1, y1 = found.box_xyxy
    left, top, right, bottom = _crop_of(found)
    return {
        "segmentation": _run_lengths(found),
        "area": found.area_px,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "predicted_iou": found.predicted_iou,
        "point_coords": [] if found.point_xy is None else [list(found.point_xy)],
        "stability_score": found.stability_score,
        "crop_box": [left, top, right - left, bottom - top],
    }


def _row(number: int, found: FoundMask) -> list[Any]:
    record = sam_record(found)
    point = record["point_coords"][0] if record["point_coords"] else ["", ""]
    scores = [record["predicted_iou"], record["stability_score"]]
    return [number, record["area"], *record["bbox"], *point, *scores, *record["crop_box"]]


def _crop_of(found: FoundMask) -> tuple[int, int, int, int]:
    return found.crop_xyxy or (0, 0, found.shape[1], found.shape[0])


def _run_lengths(found: FoundMask) -> dict[str, Any]:
    from napari_sam_med.volume.formats.coco import run_lengths

    return {"size": list(found.shape), "counts": run_lengths(found.mask)}


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its place when the block ends well and is gone when it does not."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir()
        yield partial
        if folder.is_dir():
            folder.rmdir()  # empty, else it would have been refused; some systems rename onto none
        partial.rename(folder)
    except OSError as error:
        raise ExportError(
            f"{folder} could not be written: {error.strerror or error}; choose a new folder in a place that "
            "exists, is writable and has space."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
