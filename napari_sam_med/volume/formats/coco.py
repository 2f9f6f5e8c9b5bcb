"""COCO annotations (JSON with run-length masks), one image a slice: masks without a place in the patient.

The format: https://cocodataset.org/#format-data, and for compressed counts pycocotools.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.errors import ImageError, LabelError
from napari_sam_med.volume.formats.sidecar import Origin
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import MAX_CLASS_ID, Organ, OrganTable, default_color
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["LOSS", "content", "mask_of", "read", "run_lengths"]

#: What a reader of such a file must know; it stands in the file, too.
LOSS = (
    "COCO has no geometry: masks lie on pixels of single slices, not in the patient, and a volume cannot be "
    "restored from them without its scan; keep a label volume, such as .nii.gz, too."
)


def content(labels: LabelVolume, organs: OrganTable, origin: Origin) -> bytes:
    """The labels as COCO JSON, UTF-8.

    One image for each axial slice of the scan, rows to posterior and columns to the patient's left. Beside
    COCO's own keys an image has ``volume_file``, ``volume_sha256`` (null if unknown), ``volume_axis`` and
    ``volume_slice`` (both of the file's own array, counted from 0), ``plane`` and ``slice`` (as `SliceView`
    counts), ``rows_to``, ``columns_to`` (one of L, R, P, A, S, I) and ``pixel_spacing_mm`` (row, column).
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
                "slice": z,
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


def read(path: Path, grid: Grid, sha256: str | None) -> tuple[npt.NDArray[np.uint16], OrganTable]:
    """Masks of a COCO file that `content` made, on the grid of the scan that it names.

    Parameters
    ----------
    path : Path
    grid : Grid
        Of the scan.
    sha256 : str or None
        Of the scan, as `Origin` has it; it must be the one in the file, as a slice's number says nothing
        about another scan.

    Returns
    -------
    data : (z, y, x) uint16
        Labels, LPS+.
    organs : OrganTable
        The categories.

    Raises
    ------
    LabelError
        If the file is of another scan, does not say of which, has masks that overlap, or is damaged.
    """
    data = np.zeros(grid.shape_zyx, np.uint16)
    try:
        document = json.loads(path.read_bytes())
        images = {image["id"]: image for image in document["images"]}
        if not all(image.get("volume_sha256") for image in images.values()):
            raise LabelError(
                f"{path.name} does not say on which scan its masks lie, and COCO has no geometry; give a "
                "label volume, or a COCO file that was written for a scan here."
            )
        names = {image["volume_file"] for image in images.values() if image["volume_sha256"] != sha256}
        if names:
            raise LabelError(
                f"{path.name} has masks of {', '.join(sorted(map(str, names)))}, which is not the scan "
                "given; give that very file as the reference."
            )
        for annotation in document["annotations"]:
            image, class_id = images[annotation["image_id"]], int(annotation["category_id"])
            plane = grid.view_from_file(image["volume_axis"], image["volume_slice"]).window_on(data)
            mask = mask_of(annotation["segmentation"], (plane.shape[0], plane.shape[1]))
            if not 1 <= class_id <= MAX_CLASS_ID or plane[mask].any():
                raise LabelError(
                    f"{path.name} has masks that overlap, or categories outside 1 to {MAX_CLASS_ID}; a voxel "
                    "can have one such label here: merge them first."
                )
            plane[mask] = class_id
        rows = [row for row in document["categories"] if 1 <= int(row["id"]) <= MAX_CLASS_ID]
        organs = OrganTable(map(_organ, rows))
    except OSError as error:
        raise LabelError(f"{path} cannot be read: {error.strerror or error}; check the path.") from error
    except (AttributeError, ImageError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise LabelError(
            f"{path.name} is no COCO file of masks, or damaged ({error!r}); write it again."
        ) from error
    return data, organs


def _organ(category: dict[str, Any]) -> Organ:
    class_id, color = int(category["id"]), category.get("color")
    red, green, blue = default_color(class_id) if color is None else (value / 255 for value in color)
    return Organ(class_id, str(category["name"]), (red, green, blue))


def mask_of(segmentation: dict[str, Any], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Mask (H, W) of compressed run lengths; inverse of `run_lengths`.

    Raises
    ------
    ValueError
        If the mask is of another shape, or the runs do not fill it.
    """
    runs: list[int] = []
    number, shift = 0, 0
    for code in segmentation["counts"].encode("ascii"):
        group = code - 48
        number |= (group & 31) << shift
        shift += 5
        if shift > 60:  # a run that no picture has: not worth the memory
            raise ValueError("a run of impossible length")
        if not group & 32:
            if group & 16:
                number -= 1 << shift
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number, shift = 0, 0
    height, width = shape
    if segmentation["size"] != [height, width] or min(runs, default=-1) < 0 or sum(runs) != height * width:
        raise ValueError("a mask of another size")
    is_inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(is_inside, runs).reshape(shape, order="F")
