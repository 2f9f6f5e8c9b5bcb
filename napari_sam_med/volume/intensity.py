"""Window and level: from the values of a scan to the 8-bit image that a model sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.lazy_array import sampled_blocks
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

__all__ = ["WINDOW_PRESETS", "contrast_warning", "finite_range", "parse_window", "resolve_window", "to_rgb"]

Window = tuple[float, float]

#: Low and high end in Hounsfield units.
WINDOW_PRESETS: dict[str, Window] = {
    "soft-tissue": (-160.0, 240.0),
    "lung": (-1350.0, 150.0),
    "bone": (-450.0, 1050.0),
    "brain": (0.0, 80.0),
    "liver": (-45.0, 105.0),
}

_PERCENTILES = (0.5, 99.5)
# integers of this range are counted value by value; up to this many other values are sorted, more are thinned
_MOST_COUNTED_VALUES = 1 << 22
_MOST_SORTED_VALUES = 1 << 22


def parse_window(text: str) -> str | Window:
    """A window as typed: the name of a preset, ``auto``, or ``LOW,HIGH``.

    Raises
    ------
    ImageError
        On anything else, or LOW not below HIGH.
    """
    name = text.strip().lower()
    if name == "auto" or name in WINDOW_PRESETS:
        return name
    parts = name.split(",")
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        raise ImageError(
            f"There is no window {text!r}; use auto, {', '.join(WINDOW_PRESETS)}, or LOW,HIGH such as "
            f"-160,240."
        ) from None
    return _checked(low, high)


def resolve_window(volume: Volume, window: str | Window = "auto") -> Window:
    """Low and high value of a window on a volume.

    Parameters
    ----------
    volume : Volume
    window : str or (float, float)
        ``auto``: -160 to 240 where the values are Hounsfield units, else the 0.5 to 99.5 percentiles of all
        finite values above the smallest (the background). A preset, which needs values below 0; or low and
        high.

    Raises
    ------
    ImageError
        On an unknown window, or a preset where the values cannot be Hounsfield units.
    """
    if isinstance(window, str):
        window = parse_window(window)
    if not isinstance(window, str):
        try:
            low, high = window
            return _checked(float(low), float(high))
        except (TypeError, ValueError):
            raise ImageError(f"A window is a low and a high value, got {window!r}.") from None
    if window == "auto":
        return WINDOW_PRESETS["soft-tissue"] if volume.is_hounsfield else _percentile_window(volume)
    smallest, largest = volume.value_range
    if smallest >= 0:  # scans that were cropped or clipped may well end between 0 and -200
        raise ImageError(
            f"The window {window!r} is in Hounsfield units, but the values of {volume.name} "
            f"({np.dtype(volume.data.dtype).name}, {smallest:g} to {largest:g}) are not: those go below 0; "
            'use "auto" or LOW,HIGH in the values of the file.'
        )
    return WINDOW_PRESETS[window]


def to_rgb(volume: Volume, view: SliceView, window: str | Window = "auto") -> npt.NDArray[np.uint8]:
    """A slice as the image that models take.

    Parameters
    ----------
    volume : Volume
    view : SliceView
    window : str or (float, float)
        See `resolve_window`; it is of the whole volume, never of the slice.

    Returns
    -------
    (H, W, 3) uint8
        The slice's own pixels; low and below (and NaN) become 0, high and above 255, linear between.

    Raises
    ------
    ImageError
        If there is no such slice or the window does not fit.
    """
    low, high = resolve_window(volume, window)
    values = view.extract(volume.data)
    small = values.dtype.itemsize <= 2 or values.dtype == np.float32
    grey: npt.NDArray[Any] = values.astype(np.float32 if small else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        grey -= low
        grey *= 255.0 / (high - low)
    np.nan_to_num(grey, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    np.clip(grey, 0.0, 255.0, out=grey)
    return np.repeat(np.rint(grey).astype(np.uint8)[:, :, None], 3, axis=2)


def finite_range(volume: Volume) -> Window:
    """Smallest and largest finite value of a volume, slice by slice; (0, 0) if none is."""
    low, high = np.inf, -np.inf
    for block in _blocks(volume):
        if block.dtype.kind == "f":
            block = block[np.isfinite(block)]
        if block.size:
            low, high = min(low, float(block.min())), max(high, float(block.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def contrast_warning(volume: Volume) -> str:
    """What to tell of a volume in which nothing can be seen; empty where two finite values differ.

    Reads no further than to the second value; of a scan that is larger than memory, a sample, which it says.
    """
    known: Any = None
    for block in _blocks(volume):
        values = block[np.isfinite(block)] if block.dtype.kind == "f" else block.ravel()
        if values.size:
            known = values[0] if known is None else known
            if (values != known).any():
                return ""
    found = "has no number in any voxel" if known is None else f"has the value {known:g} in every voxel"
    seen = " that was looked at, so there may be" if volume.is_lazy else ", so there is"
    return (
        f"{volume.name} {found}{seen} nothing to see on it: masks follow differences of brightness. "
        "Check that it is the right file, and write it again from its source."
    )


def _checked(low: float, high: float) -> Window:
    if not (np.isfinite([low, high]).all() and low < high):
        raise ImageError(f"The window {low:g},{high:g} is empty: LOW must be below HIGH, and both finite.")
    return low, high


def _percentile_window(volume: Volume) -> Window:
    if "auto" not in volume.statistics:
        low, high = _percentiles_above_minimum(volume)
        # a constant volume has no contrast to stretch: it is shown black, without a division by zero
        volume.statistics["auto"] = (low, high) if low < high else (low, low + max(1.0, abs(low) * 1e-6))
    return volume.statistics["auto"]


def _percentiles_above_minimum(volume: Volume) -> Window:
    smallest, largest = volume.value_range
    if smallest == largest:
        return smallest, largest
    if np.dtype(volume.data.dtype).kind in "iub" and largest - smallest < _MOST_COUNTED_VALUES:
        return _percentiles_of_counts(volume, int(smallest), int(largest))
    # thinned by slice and evenly, so that the same volume always gives the same window
    step = max(1, round((np.prod(volume.shape, dtype=float) / _MOST_SORTED_VALUES) ** 0.5))

    def kept(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        thin: npt.NDArray[Any] = block[..., ::step, ::step]
        kept_values: npt.NDArray[Any] = thin[np.isfinite(thin) & (thin > smallest)]
        return kept_values

    values = np.concatenate([kept(block).astype(np.float32, copy=False) for block in _blocks(volume)])
    if not values.size:
        return smallest, largest
    low, high = np.percentile(values.astype(np.float64), _PERCENTILES)
    return float(low), float(high)


def _percentiles_of_counts(volume: Volume, smallest: int, largest: int) -> Window:
    """Exact percentiles of integers above the smallest one, interpolated as `numpy.percentile` does."""
    counts = np.zeros(largest - smallest + 1, dtype=np.int64)
    for block in _blocks(volume):
        counts += np.bincount(block.ravel().astype(np.int64) - smallest, minlength=counts.size)
    counts[0] = 0
    cumulative = np.cumsum(counts)

    def value_at(rank: float) -> int:
        return smallest + int(np.searchsorted(cumulative, rank, side="right"))

    def percentile(percent: float) -> float:
        rank = percent / 100 * float(cumulative[-1] - 1)
        below, above = value_at(np.floor(rank)), value_at(np.ceil(rank))
        return below + float(rank - np.floor(rank)) * (above - below)

    return percentile(_PERCENTILES[0]), percentile(_PERCENTILES[1])


def _blocks(volume: Volume) -> Iterator[npt.NDArray[Any]]:
    """Slices of a volume, cut along the axis on which its memory is contiguous; a sample where it is lazy."""
    data = volume.data
    if volume.is_lazy:
        yield from sampled_blocks(data, volume.levels[-1] if volume.levels else None)
        return
    strides = getattr(data, "strides", None)
    axis = int(np.argmax(np.abs(strides))) if strides is not None else 0
    for index in range(data.shape[axis]):
        selection = [slice(None)] * len(data.shape)
        yield np.asarray(data[(*selection[:axis], index)])
