"""Statement 32 by coverage-guided fuzzing: `python tests/volume/formats/fuzz_headers.py -runs=100000`.

Needs the package atheris, which no other test does. Whatever is read must be a volume or an `ImageError`;
arguments are those of libFuzzer, and a folder that holds what it found.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["napari_sam_med.volume", "nibabel.nifti1", "nibabel.wrapstruct"]):
    from napari_sam_med import read_volume
    from napari_sam_med.errors import ImageError

import nibabel as nib
import numpy as np

_FOLDER = Path(tempfile.mkdtemp())
_ENDINGS = (".nii", ".nii.gz", ".hdr", ".nrrd", ".mha")


def _sound_nifti() -> bytes:
    image = nib.Nifti1Image(np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6), np.diag([1, 2, 3, 1]))
    return image.to_bytes()


_SOUND = _sound_nifti()


def try_to_read(data: bytes) -> None:
    """Read bytes as a file of each ending; and as the beginning of a sound NIfTI file."""
    for ending in _ENDINGS:
        contents = [data, data[:348] + _SOUND[len(data[:348]) :]] if ending == ".nii" else [data]
        for content in contents:
            path = _FOLDER / f"scan{ending}"
            path.write_bytes(content)
            try:
                volume = read_volume(path)
            except ImageError:
                continue
            assert min(volume.shape) >= 1
            assert np.isfinite(volume.affine).all()


if __name__ == "__main__":
    atheris.Setup(sys.argv, try_to_read)
    atheris.Fuzz()
