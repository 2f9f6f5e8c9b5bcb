"""COCO annotations (JSON with run-length masks) out, one image a slice: masks without a place in the patient.

The format: https://cocodataset.org/#format-data, and for compressed counts pycocotools.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.volume.formats.sidecar import Origin
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["LOSS", "content", "run_lengths"]

#: What a reader of such a file must know; it stands in the file, too.
LOSS = (
    "COCO has no geometry: masks lie on pixels of single slices, not in the patient, and a volume cannot be "
    "restored from them without its scan; keep a label volume, such as .nii.gz, too."
)


def content(labels: LabelVolume, organs: OrganTable, origin: Origin) -> bytes:
    """The labels as COCO JSON, UTF-8.

    One image for each axial slice of the scan, rows to posterior and columns to the patient's left. Beside
    COCO's own keys an image has ``volume_file``, ``volume_sha256`` (null if unknown), ``volume_axis`` and
    ``volume_slice`` (both of the file's own array, counted from 0), ``plane``, ``rows_to``, ``columns_to``
    (one of L, R, P, A, S, I) and ``pixel_spacing_mm`` (row, column).
    """
    grid = labels.grid
    source = origin.source or {}
    name = None if labels.path is None and not source else (labels.path or source["path"]).name
    _, height, width = labels.shape
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for z in range(labels.shape[0]):
        view = SliceView("axial", z)
        images.append(
            {
                "id": z + 1,
                "file_name": name or "",
                "height": height,
                "width": width,
                "volume_file": name,
                "volume_sha256": source.get("sha256"),
                "volume_axis": grid.file_axis("axial"),
                "volume_slice": grid.file_index(view),
                "plane": "axial",
                "rows_to": "P",
                "columns_to": "L",
                "pixel_spacing_mm": [grid.spacing_zyx[1], grid.spacing_zyx[2]],
            }
        )
        plane = view.extract(labels.data)
        for class_id, box in enumerate(ndimage.find_objects(plane), start=1):
            if box is not None:
                annotation = _annotation(plane == class_id, box)
                ids = {"id": len(annotations) + 1, "image_id": z + 1, "category_id": class_id}
                annotations.append(ids | annotation)
    document = {
        "info": {"description": f"Organ masks by napari-sam-med. Lossy: {LOSS}", "version": "1"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [
            {
                "id": organ.class_id,
                "name": organ.name,
                "supercategory": "organ",
                "color": [round(value * 255) for value in organ.color],
            }
            for organ in organs.values()
        ],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def _annotation(mask: npt.NDArray[np.bool_], box: tuple[slice, ...]) -> dict[str, Any]:
    rows, columns = box
    return {
        "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
        "area": int(mask.sum()),
        "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
        "iscrowd": 0,
    }


def run_lengths(mask: npt.NDArray[np.bool_]) -> str:
    """Compressed run lengths of a mask (H, W), as COCO's ``counts``.

    Runs go down the columns and begin with background. From the fourth on, the difference to the run two
    before is stored; each number takes groups of 5 bits, lowest first, a sixth bit where more follow, and 48
    is added to make a printable character.
    """
    flat = np.concatenate([[False], mask.ravel(order="F")])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate([[0], edges, [mask.size]]))
    steps = runs.copy()
    steps[3:] -= runs[1:-2]
    return "".join(map(_characters, steps.tolist()))


def _characters(number: int) -> str:
    text = ""
    while True:
        group = number & 31
        number >>= 5
        is_last = number == (-1 if group & 16 else 0)
        text += chr(48 + (group if is_last else group | 32))
        if is_last:
            return text
