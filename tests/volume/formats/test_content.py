"""What a file is, by its first bytes."""

from __future__ import annotations

import gzip

import pytest

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.formats.content import kind_of
from tests.volume.phantoms import ct_like, save_nifti


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("scan.nii.gz", b"<!doctype html><html>", "web page"),
        ("scan.nii", b"\x89PNG\r\n", "PNG"),
        ("scan.nii", b"PK\x03\x04", "ZIP"),
        ("scan.mnc", b"\x89HDF", "MINC-2"),
        ("scan.dcm", b"hello" * 99, "dcmconv"),
        ("scan.nii.gz", b"\x1f\x8b", "truncated or damaged"),
        ("scan.nii.gz", b"\x1f\x8b" + bytes(40), "truncated or damaged"),
        ("scan.nii.gz", gzip.compress(b""), "empty"),
        ("notes.txt", b"hello", "no scan"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, name, content, word) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImageError, match=word):
        kind_of(path)


def test_the_content_counts_and_a_wrong_name_is_said(tmp_path) -> None:
    path = save_nifti(tmp_path / "scan.nii", ct_like())
    assert kind_of(path) == ("nifti", ())
    plain = path.rename(tmp_path / "scan.nii.gz")
    kind, warnings = kind_of(plain)
    assert kind == "nifti"
    assert "not gzipped" in warnings[0]
    assert kind_of(plain.rename(tmp_path / "scan.dcm"))[0] == "nifti"
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    assert kind_of(tmp_path / "IM0001") == ("dicom", ())
    assert kind_of(tmp_path) == ("dicom", ())
