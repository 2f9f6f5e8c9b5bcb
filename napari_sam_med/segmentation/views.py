"""Pictures of labels on a scan: a slice with coloured outlines, the organs' names, and a legend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from skimage import measure

from napari_sam_med.segmentation.slicewise import Window
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import PLANES, Plane, SliceView
from napari_sam_med.volume.volume import Volume

__all__ = ["best_view", "draw_view", "draw_views"]

_SIDE = 900
"""Longer side of the slice in the picture, pixels."""
_LEGEND = 270
_BACKGROUND = (18, 18, 20)
_TEXT = (235, 235, 235)
_FAINT = (150, 150, 155)
_TINT = 0.16
_DISCLAIMER = "not for clinical use"

_SIDES: dict[Plane, tuple[str, str, str, str]] = {
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}
"""What lies left, right, at the top and at the bottom of a slice image; see `SliceView`."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class _Scale:
    """From pixels of the slice to physically square pixels of the picture."""

    rows: float
    columns: float

    @classmethod
    def of(cls, shape: tuple[int, int], spacing: tuple[float, float]) -> _Scale:
        factor = _SIDE / max(shape[0] * spacing[0], shape[1] * spacing[1])
        return cls(factor * spacing[0], factor * spacing[1])

    def size(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the picture."""
        return max(1, round(shape[1] * self.columns)), max(1, round(shape[0] * self.rows))

    def point(self, row: float, column: float) -> tuple[float, float]:
        """Centre of a slice pixel as x, y in the picture."""
        return (column + 0.5) * self.columns, (row + 0.5) * self.rows


def best_view(labels: LabelVolume, plane: Plane) -> SliceView:
    """The slice that shows most organs, and most of each; the middle one when all are empty."""
    axis = PLANES.index(plane)
    n_slices = labels.shape[axis]
    scores = np.zeros(n_slices)
    for class_id in labels.class_ids():
        areas = np.count_nonzero(np.moveaxis(labels.data, axis, 0) == class_id, axis=(1, 2))
        scores += (areas > 0) + areas / areas.max()
    return SliceView(plane, int(np.argmax(scores)) if scores.any() else n_slices // 2)


def draw_view(
    volume: Volume,
    labels: LabelVolume,
    view: SliceView,
    *,
    window: Window = "auto",
    notes: Mapping[int, str] | None = None,
) -> Image.Image:
    """Picture of one slice.

    Parameters
    ----------
    volume : Volume
    labels : LabelVolume
        On the same grid.
    view : SliceView
    window : str or (low, high)
    notes : mapping of class_id to str, optional
        What the legend says beside an organ's name, such as its volume; their order is the legend's.

    Returns
    -------
    PIL.Image.Image
        RGB; square in millimetres, legend on the right.
    """
    image = to_rgb(volume, view, window)
    numbers = view.extract(labels.data)
    height, width = numbers.shape
    scale = _Scale.of((height, width), volume.pixel_spacing(view))
    tinted = _tinted(image, numbers, labels)
    slice_picture = Image.fromarray(tinted).resize(scale.size((height, width)), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (slice_picture.width + _LEGEND, max(slice_picture.height, 460)), _BACKGROUND)
    canvas.paste(slice_picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    present = [class_id for class_id in labels.class_ids() if (numbers == class_id).any()]
    for class_id in present:
        _outline(pen, numbers == class_id, scale, _color(labels, class_id))
    for class_id in present:
        _name(pen, numbers == class_id, scale, labels.organs.name_of(class_id))
    _orientation(pen, slice_picture.size, view.plane)
    title = f"{view.plane} {labels.grid.file_index(view)}"
    _legend(pen, canvas.size, slice_picture.width, labels, title, notes or {})
    return canvas


def draw_views(
    volume: Volume, labels: LabelVolume, *, window: Window = "auto", notes: Mapping[int, str] | None = None
) -> dict[Plane, Image.Image]:
    """One picture a plane, of the slice that shows most; parameters as in `draw_view`."""
    return {
        plane: draw_view(volume, labels, best_view(labels, plane), window=window, notes=notes)
        for plane in PLANES
    }


def _color(labels: LabelVolume, class_id: int) -> tuple[int, int, int]:
    organ = labels.organs.covering([class_id])[class_id]
    red, green, blue = (round(255 * value) for value in organ.color)
    return red, green, blue


def _tinted(
    image: npt.NDArray[np.uint8], numbers: npt.NDArray[np.generic], labels: LabelVolume
) -> npt.NDArray[np.uint8]:
    tinted = image.astype(np.float32)
    for class_id in labels.class_ids():
        inside = numbers == class_id
        tinted[inside] = (1 - _TINT) * tinted[inside] + _TINT * np.array(
            _color(labels, class_id), dtype=np.float32
        )
    return np.asarray(np.rint(tinted), dtype=np.uint8)


def _outline(
    pen: ImageDraw.ImageDraw, mask: npt.NDArray[np.bool_], scale: _Scale, color: tuple[int, int, int]
) -> None:
    # an empty border closes outlines that touch the edge of the slice
    for contour in measure.find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        pen.line(
            [scale.point(row - 1, column - 1) for row, column in contour], fill=color, width=3, joint="curve"
        )


def _name(pen: ImageDraw.ImageDraw, mask: npt.NDArray[np.bool_], scale: _Scale, name: str) -> None:
    """Write a name where the organ is thickest."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), mask.shape)
    font = _font(17)
    x, y = scale.point(float(row), float(column))
    left, top, right, _ = pen.textbbox((x, y), name, font=font, anchor="mm")
    width = pen.im.size[0] - _LEGEND if pen.im is not None else right
    shift = max(0, 4 - left) - max(0, right - (width - 4))
    rise = max(0, 4 - top)
    pen.text(
        (x + shift, y + rise), name, font=font, anchor="mm", fill=_TEXT, stroke_width=2, stroke_fill=(0, 0, 0)
    )


def _orientation(pen: ImageDraw.ImageDraw, size: tuple[int, int], plane: Plane) -> None:
    """Letters of the patient's sides at the middles of the slice's borders."""
    width, height = size
    left, right, top, bottom = _SIDES[plane]
    marks: dict[str, tuple[str, tuple[int, int]]] = {
        "lm": (left, (7, height // 2)),
        "rm": (right, (width - 7, height // 2)),
        "ma": (top, (width // 2, 4)),
        "md": (bottom, (width // 2, height - 4)),
    }
    for anchor, (letter, place) in marks.items():
        pen.text(
            place, letter, font=_font(17), anchor=anchor, fill=_TEXT, stroke_width=2, stroke_fill=(0, 0, 0)
        )


def _legend(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    x0: int,
    labels: LabelVolume,
    title: str,
    notes: Mapping[int, str],
) -> None:
    x, y = x0 + 18, 16
    pen.text((x, y), title, font=_font(20), fill=_TEXT)
    y += 40
    present = labels.class_ids()
    for class_id in [
        *(one for one in notes if one in present),
        *(one for one in present if one not in notes),
    ]:
        pen.rectangle((x, y + 3, x + 16, y + 19), fill=_color(labels, class_id))
        pen.text((x + 26, y), labels.organs.name_of(class_id), font=_font(17), fill=_TEXT)
        if class_id in notes:
            pen.text((x + 26, y + 21), notes[class_id], font=_font(14), fill=_FAINT)
        y += 46 if class_id in notes else 28
        if y > size[1] - 70:
            break
    pen.text((x, size[1] - 30), _DISCLAIMER, font=_font(15), fill=_FAINT)


def _font(size: int) -> Font:
    return ImageFont.load_default(size)
