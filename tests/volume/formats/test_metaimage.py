"""MetaImage headers: what they say, and what they cannot say."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from napari_sam_med import read_volume
from napari_sam_med.errors import ImageError
from tests.volume.phantoms import ct_like


def _write(path, array: np.ndarray, is_packed: bool = False) -> bytes:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([0.5, 0.75, 3.0])
    image.SetDirection([0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0])
    sitk.WriteImage(image, str(path), useCompression=is_packed)
    return path.read_bytes()


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
)
@pytest.mark.parametrize("name", ["scan.mha", "scan.mhd"])
def test_every_type_is_read_as_itk_writes_it(tmp_path, dtype, name) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    _write(tmp_path / name, array, is_packed=True)
    volume = read_volume(tmp_path / name)
    assert volume.data.dtype == dtype
    assert np.array_equal(volume.grid.from_canonical(volume.data).transpose(2, 1, 0), array)
    assert volume.affine[:2, 0].tolist() == pytest.approx([-0.4, -0.3])


def test_big_endian_voxels_become_native(tmp_path) -> None:
    path = tmp_path / "scan.mha"
    array = ct_like((2, 3, 4))
    whole = _write(path, array)
    start = whole.index(b"LOCAL\n") + 6
    header = whole[:start].replace(b"MSB = False", b"MSB = True")
    path.write_bytes(header + array.astype(">i2").tobytes())
    volume = read_volume(path)
    assert volume.data.dtype.isnative
    assert np.array_equal(volume.grid.from_canonical(volume.data).transpose(2, 1, 0), array)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"NDims = 3", b"NDims = 9"),
        (b"NDims = 3", b"NDims 3"),
        (b"DimSize = 4 3 2", b"DimSize = 4 3"),
        (b"DimSize = 4 3 2", b"DimSize = 4 0 2"),
        (b"DimSize = 4 3 2", b"DimSize = 4 3 9"),
        (b"DimSize = 4 3 2", b"DimSize = 40000 40000 40000"),
        (b"DimSize = 4 3 2", b"DimSize = nan 3 2"),
        (b"MET_SHORT", b"MET_STRING"),
        (b"ElementSpacing = 0.5", b"ElementSpacing = 0"),
        (b"TransformMatrix = 0.8", b"TransformMatrix = x"),
        (b"BinaryData = True", b"BinaryData = False"),
        (b"CompressedData = False", b"CompressedData = True"),
        (b"LOCAL", b"LIST"),
        (b"LOCAL", b"scan%03d.raw 1 9 1"),
        (b"LOCAL", b"elsewhere.raw"),
        (b"LOCAL", b"L" * 4000),
        (b"NDims = 3", b"NDims = " + b"3" * 5000),
    ],
)
def test_headers_that_make_no_sense_are_image_errors(tmp_path, old, new) -> None:
    """Statement 32."""
    path = tmp_path / "scan.mha"
    whole = _write(path, ct_like((2, 3, 4)))
    assert old in whole
    path.write_bytes(whole.replace(old, new, 1))
    with pytest.raises(ImageError) as raised:
        read_volume(path)
    assert "\n" not in str(raised.value)


def test_missing_orientation_is_said(tmp_path) -> None:
    path = tmp_path / "scan.mha"
    whole = _write(path, ct_like((2, 3, 4)))
    path.write_bytes(whole.replace(b"TransformMatrix", b"Comment_______x"))
    volume = read_volume(path)
    assert "no orientation" in volume.warnings[0]
    assert volume.spacing == (3.0, 0.75, 0.5)
