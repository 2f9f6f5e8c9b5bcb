"""NIfTI: bit-identical geometry, damaged bytes, damaged headers."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
import textwrap

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_sam_med import LabelVolume, SliceView, read_labels, read_volume, write_labels
from napari_sam_med.errors import ImageError
from napari_sam_med.volume.reading import volume_times
from tests.shared_data import BAD, needs_bad
from tests.volume.phantoms import CODE_PAIRS, ORIENTATIONS, affine_of, affines, ct_like, save_nifti, shapes

GEOMETRY = ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d")
GEOMETRY += ("qoffset_x", "qoffset_y", "qoffset_z", "pixdim", "dim", "xyzt_units")
in_one_folder = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _same_geometry(first, second) -> bool:
    return all(np.asarray(first[key]).tobytes() == np.asarray(second[key]).tobytes() for key in GEOMETRY)


def _round_trip(tmp_path, affine, shape, codes, kind=nib.Nifti1Image) -> None:
    path = save_nifti(tmp_path / "scan.nii", ct_like(shape), affine, codes, kind)
    volume = read_volume(path)
    source = nib.load(path)
    assert np.array_equal(volume.grid.from_canonical(volume.data), np.asarray(source.dataobj))
    assert np.array_equal(volume.affine, source.affine)
    labels = LabelVolume.like(volume)
    labels.data[...] = np.random.default_rng(1).integers(0, 14, volume.shape)
    written = nib.load(write_labels(tmp_path / "labels.nii", labels))
    assert isinstance(written, kind)
    assert _same_geometry(written.header, source.header)
    assert written.header.get_intent()[0] == "label"
    assert (written.header["scl_slope"], written.header["scl_inter"]) in ((1, 0), (0, 0)) or np.isnan(
        written.header["scl_slope"]
    )
    assert np.asarray(written.dataobj).dtype == np.uint8
    assert np.array_equal(labels.grid.to_canonical(np.asarray(written.dataobj)), labels.data)
    assert np.array_equal(read_labels(tmp_path / "labels.nii", reference=volume).data, labels.data)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_export_is_the_identity_in_all_48_orientations(tmp_path, codes: str) -> None:
    """Statement 22."""
    pair = CODE_PAIRS[ORIENTATIONS.index(codes) % len(CODE_PAIRS)]
    _round_trip(tmp_path, affine_of(codes, (0.7, 1.5, 3.0), (0.3, -0.2, 0.1)), (4, 5, 6), pair)


@given(affine=affines, shape=shapes, codes=st.sampled_from(CODE_PAIRS))
@in_one_folder
def test_export_is_the_identity_for_random_geometry(tmp_path, affine, shape, codes) -> None:
    """Statement 22."""
    _round_trip(tmp_path, affine, shape, codes)


@given(affine=affines, shape=shapes)
@settings(parent=in_one_folder, max_examples=30)
def test_simpleitk_reads_the_same_voxels_at_the_same_places(tmp_path, affine, shape) -> None:
    """Statements 23 and 24."""
    volume = read_volume(save_nifti(tmp_path / "scan.nii", ct_like(shape), affine))
    labels = LabelVolume.like(volume)
    labels.data[...] = np.random.default_rng(1).integers(0, 14, volume.shape)
    image = sitk.ReadImage(str(write_labels(tmp_path / "labels.nii.gz", labels)))
    assert np.array_equal(
        sitk.GetArrayFromImage(image), labels.grid.from_canonical(labels.data).transpose(2, 1, 0)
    )
    for index in ((0, 0, 0), tuple(n - 1 for n in volume.shape)):
        ijk = [int(i) for i in volume.grid.ijk_from_index_zyx(index)]
        lps = np.array(image.TransformIndexToPhysicalPoint(ijk))
        assert np.allclose(lps * [-1, -1, 1], volume.grid.world_ras_from_index_zyx(index), atol=1e-4)


def test_nifti2_comes_back_as_nifti2(tmp_path) -> None:
    _round_trip(tmp_path, affine_of("PIR", (1.0, 2.0, 3.0)), (4, 5, 6), (1, 1), nib.Nifti2Image)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 4, 1), (5, 6, 4, 1, 1)])
def test_axes_of_length_one_come_back(tmp_path, shape) -> None:
    """Statement 28."""
    volume = read_volume(save_nifti(tmp_path / "scan.nii", ct_like(shape)))
    assert volume.warnings == ()
    assert len(volume.shape) == 3
    written = nib.load(write_labels(tmp_path / "labels.nii", LabelVolume.like(volume)))
    assert written.shape == shape


@pytest.mark.parametrize(
    ("dtype", "word"),
    [
        (np.complex64, "complex"),
        (np.complex128, "complex"),
        ([("R", "u1"), ("G", "u1"), ("B", "u1")], "RGB colours"),
        ([("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")], "RGBA colours"),
    ],
    ids=["complex64", "complex128", "RGB", "RGBA"],
)
def test_colours_and_complex_numbers_are_refused(tmp_path, dtype, word) -> None:
    """Statement 28."""
    image = nib.Nifti1Image(np.zeros((4, 5, 6), dtype=dtype), np.eye(4))
    nib.save(image, tmp_path / "scan.nii.gz")
    with pytest.raises(ImageError, match=word):
        read_volume(tmp_path / "scan.nii.gz")


def test_one_time_point_is_chosen_and_labels_are_three_dimensional(tmp_path) -> None:
    """Statement 28."""
    array = ct_like((4, 5, 6, 3))
    path = save_nifti(tmp_path / "scan.nii.gz", array)
    assert volume_times(path) == 3
    for time in range(3):
        volume = read_volume(path, time=np.int64(time))
        assert volume.warnings == ()
        assert np.array_equal(volume.grid.from_canonical(volume.data), array[..., time])
    first = read_volume(path)
    assert "3 volumes" in first.warnings[0]
    assert np.array_equal(first.data, read_volume(path, time=0).data)
    assert nib.load(write_labels(tmp_path / "labels.nii", LabelVolume.like(first))).shape == (4, 5, 6)
    for time in (3, -1):
        with pytest.raises(ImageError, match="time"):
            read_volume(path, time=time)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "<u2", "<i4", ">f4", "<f8", "<i8"])
def test_voxels_keep_their_type_in_native_byte_order(tmp_path, dtype) -> None:
    array = ct_like().clip(0, 100).astype(dtype)
    image = nib.Nifti1Image(array, np.eye(4), nib.Nifti1Header(endianness=">" if ">" in dtype else "<"))
    image.set_data_dtype(dtype)
    nib.save(image, tmp_path / "scan.nii.gz")
    data = read_volume(tmp_path / "scan.nii.gz").data
    assert data.dtype == np.dtype(dtype).newbyteorder("=")
    assert data.dtype.isnative
    assert np.array_equal(np.sort(data, axis=None), np.sort(array, axis=None))


def test_scaled_values_are_float32(tmp_path) -> None:
    image = nib.Nifti1Image(ct_like(), np.eye(4))
    image.header.set_slope_inter(2.5, -100)
    nib.save(image, tmp_path / "scan.nii")
    with (tmp_path / "scan.nii").open("rb+") as stream:  # nibabel resets the scaling of integers on saving
        stream.seek(112)
        stream.write(struct.pack("<ff", 2.5, -100.0))
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.data.dtype == np.float32
    stored = np.asarray(nib.load(tmp_path / "scan.nii").dataobj.get_unscaled())
    assert np.array_equal(volume.grid.from_canonical(volume.data), stored * np.float32(2.5) - 100)


def test_a_label_of_the_whole_abdomen_is_deterministic_bytes(tmp_path) -> None:
    labels = LabelVolume.like(read_volume(save_nifti(tmp_path / "scan.nii", ct_like())))
    labels.assign(SliceView("axial", 2), np.ones(SliceView("axial", 2).slice_shape(labels.shape)), 6)
    one = write_labels(tmp_path / "one.nii.gz", labels).read_bytes()
    assert write_labels(tmp_path / "two.nii.gz", labels).read_bytes() == one


def test_truncation_is_an_error_at_every_length(tmp_path) -> None:
    """Statement 31."""
    for name in ("scan.nii.gz", "scan.nii"):
        path = save_nifti(tmp_path / name, ct_like())
        whole = path.read_bytes()
        for length in [*range(0, len(whole), 23), len(whole) - 1]:
            path.write_bytes(whole[:length])
            with pytest.raises(ImageError):
                read_volume(path)


def test_a_flipped_bit_is_an_error_or_harmless(tmp_path) -> None:
    """Statement 31: only the name and time stamp of the gzip header may change unnoticed."""
    path = save_nifti(tmp_path / "scan.nii.gz", ct_like())
    whole = path.read_bytes()
    expected = read_volume(path)
    n_errors = 0
    positions = range(0, len(whole), 7)
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            volume = read_volume(path)
        except ImageError:
            n_errors += 1
        else:
            assert np.array_equal(volume.data, expected.data)
            assert np.array_equal(volume.affine, expected.affine)
    assert n_errors > 0.9 * len(positions)


@given(
    edits=st.lists(st.tuples(st.integers(0, 347), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4),
    is_gzip=st.booleans(),
)
@settings(parent=in_one_folder, max_examples=250)
def test_a_damaged_header_opens_soundly_or_is_an_image_error(tmp_path, edits, is_gzip) -> None:
    """Statement 32."""
    source = tmp_path / "sound.nii"
    if not source.exists():
        save_nifti(source, ct_like())
    content = bytearray(source.read_bytes())
    for position, replacement in edits:
        content[position : position + len(replacement)] = replacement
    path = tmp_path / "fuzzed.nii"
    path.write_bytes(gzip.compress(content, 1) if is_gzip else content)
    try:
        volume = read_volume(path)
    except ImageError:
        pass
    else:
        assert min(volume.shape) >= 1
        assert np.isfinite(volume.affine).all()
        assert min(volume.spacing) > 0
        assert volume.data.size <= 10_000


@pytest.mark.parametrize(
    ("offset", "content"),
    [
        (40, struct.pack("<h", -1)),
        (40, struct.pack("<h", 9)),
        (40, struct.pack("<h", 0)),
        (42, struct.pack("<h", 0)),
        (42, struct.pack("<h", -5)),
        (40, struct.pack("<8h", 3, *[32767] * 7)),
        (70, struct.pack("<h", 0)),
        (70, struct.pack("<h", 9999)),
        (108, struct.pack("<f", np.nan)),
        (108, struct.pack("<f", 1e9)),
        (344, b"abc\0"),
        (112, struct.pack("<ff", np.inf, 0)),
    ],
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_impossible_headers_are_image_errors(tmp_path, offset, content, ending) -> None:
    """Statement 32, the cases that were measured with nibabel."""
    path = save_nifti(tmp_path / "scan.nii", ct_like())
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(content)] = content
    damaged = tmp_path / f"damaged{ending}"
    damaged.write_bytes(gzip.compress(whole) if ending.endswith("gz") else whole)
    with pytest.raises(ImageError):
        read_volume(damaged)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (np.zeros((3, 4), "<f4").tobytes(), "sform is damaged"),
        (np.full((3, 4), np.nan, "<f4").tobytes(), "sform is damaged"),
        (np.full((3, 4), 1e30, "<f4").tobytes(), "sform is damaged"),
    ],
)
def test_a_damaged_sform_falls_back_to_the_qform_and_is_not_written_again(tmp_path, content, word) -> None:
    """Statement 27."""
    affine = affine_of("LPS", (1.0, 2.0, 3.0), (0.1, 0.0, 0.2))
    path = save_nifti(tmp_path / "scan.nii", ct_like(), affine)
    whole = bytearray(path.read_bytes())
    whole[280:328] = content
    path.write_bytes(whole)
    volume = read_volume(path)
    assert word in volume.warnings[0]
    assert np.allclose(volume.affine, affine, atol=1e-4)
    written = nib.load(write_labels(tmp_path / "labels.nii", LabelVolume.like(volume)))
    assert np.allclose(written.affine, affine, atol=1e-4)


def test_a_gzip_bomb_is_not_unpacked(tmp_path) -> None:
    """Statement 34."""
    path = save_nifti(tmp_path / "scan.nii", ct_like())
    bomb = tmp_path / "bomb.nii.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as stream:
        stream.write(path.read_bytes())
        for _ in range(64):
            stream.write(bytes(1 << 20))
    with pytest.raises(ImageError, match="unpacks to far more"):
        read_volume(bomb)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_takes_at_most_three_times_the_array(tmp_path) -> None:
    array = np.random.default_rng(0).integers(-1000, -900, (256, 256, 200), dtype=np.int16)
    save_nifti(tmp_path / "scan.nii.gz", array)
    code = """
        import sys
        from napari_sam_med import read_volume
        import napari_sam_med.volume.formats.nifti
        def status(key):
            return int(open("/proc/self/status").read().split(key + ":")[1].split()[0]) * 1024
        before = status("VmRSS")
        volume = read_volume(sys.argv[1])
        volume.is_hounsfield
        print((status("VmHWM") - before) / volume.data.nbytes)
        assert "torch" not in sys.modules
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "scan.nii.gz")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(run.stdout) <= 3.0


@needs_bad
@pytest.mark.parametrize(
    "name",
    [
        "d07_sform_qform_disagree.nii.gz",
        "d08_oblique25.nii.gz",
        "d09_sheared.nii.gz",
        "d10_detneg_LAS.nii.gz",
        "d11_PIR_axes.nii.gz",
        "d20_2d.nii.gz",
        "d24_no_orientation.nii.gz",
        "d31_bigendian_ct.nii.gz",
        "r07_oblique17_3mm.nii.gz",
        "r17_sform_shear_label.nii.gz",
        "r18_ct_pitch_16deg.nii.gz",
        "r19_ct_scl_slope.nii.gz",
    ],
)
def test_odd_but_stored_geometry_is_written_bit_for_bit(tmp_path, name) -> None:
    """Statement 22, for files whose geometry other programs may read in another way."""
    labels = LabelVolume.like(read_volume(BAD / name))
    written = nib.load(write_labels(tmp_path / "labels.nii.gz", labels))
    assert _same_geometry(written.header, nib.load(BAD / name).header)
