"""Contact sheet of the generator: ``python -m napari_sam_med.training.synthetic -o SHEET.png``.

Each tile shows a synthetic image with one target (red outline) and its prompt: box green, mask of the
neighbouring slice blue, positive clicks yellow, negative ones magenta.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from napari_sam_med.training.nano_batches import NanoBatch, ScenePool

_TARGET, _BOX, _NEIGHBOUR = (255, 40, 40), (60, 230, 60), (60, 160, 255)
_POSITIVE, _NEGATIVE = (255, 230, 0), (255, 0, 255)
_Pixels = npt.NDArray[np.uint8]


def _outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    edge: npt.NDArray[np.bool_] = ndimage.binary_dilation(mask) & ~ndimage.binary_erosion(mask)
    return edge


def _tile(batch: NanoBatch, index: int) -> _Pixels:
    sampled, per_image = batch.sampled, len(batch.sampled.targets) // len(batch.images)
    prompts = sampled.prompts
    grey = (batch.images[index // per_image, 0].numpy() * 255).astype(np.uint8)
    pixels = np.repeat(grey[:, :, None], 3, axis=2)
    if prompts.masks is not None and prompts.has_mask[index]:
        pixels[_outline(prompts.masks[index].numpy() > 0)] = _NEIGHBOUR
    pixels[_outline(sampled.targets[index].numpy() > 0)] = _TARGET
    image = Image.fromarray(pixels)
    draw: Any = ImageDraw.Draw(image)
    if prompts.has_box[index]:
        draw.rectangle(prompts.boxes[index].tolist(), outline=_BOX, width=2)
    for (x, y), label in zip(prompts.points[index].tolist(), prompts.labels[index].tolist(), strict=True):
        if label >= 0:
            colour = _POSITIVE if label else _NEGATIVE
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
    return np.asarray(image)


def contact_sheet(rows: int, columns: int, seed: int) -> _Pixels:
    """Sheet (rows * 256, columns * 256, 3) uint8 of synthetic images with one prompt each."""
    pool = ScenePool(rows * columns, seed)
    batch = pool.batch(0, rows * columns, 1)
    tiles = [_tile(batch, i) for i in range(rows * columns)]
    return np.concatenate([np.concatenate(tiles[i * columns : (i + 1) * columns], 1) for i in range(rows)])


def _palette() -> Image.Image:
    """Grey in 128 steps and the hues of the drawing in 16: a small file, and no hue lost among the greys."""
    colours: list[tuple[int, ...]] = [(grey, grey, grey) for grey in range(0, 256, 2)]
    colours += [
        tuple(round(part * step / 16) for part in hue)
        for hue in (_TARGET, _BOX, _NEIGHBOUR, _POSITIVE, _NEGATIVE)
        for step in range(1, 17)
    ]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in colours for part in colour])
    return palette


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m napari_sam_med.training.synthetic", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--columns", type=int, default=5)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--tile", type=int, default=192, help="pixels along a side of a tile")
    options = parser.parse_args(arguments)
    sheet = Image.fromarray(contact_sheet(options.rows, options.columns, options.seed))
    size = (options.columns * options.tile, options.rows * options.tile)
    small = sheet.resize(size, Image.Resampling.LANCZOS)
    small.quantize(palette=_palette(), dither=Image.Dither.NONE).save(options.output, optimize=True)


if __name__ == "__main__":
    main()
