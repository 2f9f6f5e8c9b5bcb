"""DICOM series in: ordered and checked by their headers, never stacked by guess. Statement 29."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  # the name that its own manual uses
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEGLossless, JPEGLSLossless, RLELossless, generate_uid

from napari_sam_med import LabelVolume, SliceView, read_volume, write_labels
from napari_sam_med.errors import ExportError, ImageError
from napari_sam_med.volume.formats import byte_source, dicom, dicom_pixels
from napari_sam_med.volume.reading import volume_times
from tests.shared_data import BAD, OPEN, needs_bad, needs_open
from tests.volume.dicom_files import change, ds, save_series
from tests.volume.phantoms import ORIENTATIONS, affine_of, ct_like

SHAPE = (7, 6, 5)
OBLIQUE = (0.2, -0.3, 0.1)


def _assert_places(volume, array_ijk, affine) -> None:
    """Every voxel of the array lies where the affine (RAS) has it."""
    for ijk in np.ndindex(array_ijk.shape):
        world = affine[:3, :3] @ ijk + affine[:3, 3]
        index = np.array(volume.grid.index_zyx_from_world_ras(world))
        assert np.abs(index - np.rint(index)).max() < 1e-5
        assert volume.data[tuple(np.rint(index).astype(int))] == array_ijk[ijk]


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_voxel_is_where_the_headers_say(codes: str, tmp_path: Path) -> None:
    """Statements 24 and 29: 48 orientations, oblique, anisotropic; files in any order."""
    array, affine = ct_like(SHAPE), affine_of(codes, (0.7, 1.5, 3.0), OBLIQUE)
    save_series(tmp_path / "ct", array, affine)
    volume = read_volume(tmp_path / "ct")
    assert (volume.data.dtype, volume.warnings) == (np.int16, ())
    assert sorted(volume.spacing) == pytest.approx([0.7, 1.5, 3.0])
    _assert_places(volume, array, affine)


@pytest.mark.parametrize("codes", ["LPS", "LPI", "PSR", "RIA"])
def test_itk_and_highdicom_read_the_same(codes: str, tmp_path: Path) -> None:
    """Statement 24: the same array in the same order, at the same place to 1e-4 mm."""
    files = save_series(tmp_path / "ct", ct_like(SHAPE), affine_of(codes, (0.7, 1.5, 3.0), OBLIQUE))
    volume = read_volume(tmp_path / "ct")
    own = volume.grid.from_canonical(volume.data)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "ct")))
    image = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(image), own.transpose(2, 1, 0))
    lps = np.diag([-1.0, -1, 1, 1]) @ volume.affine
    for corner in [(0, 0, 0), tuple(n - 1 for n in own.shape)]:
        place = image.TransformIndexToPhysicalPoint([int(n) for n in corner])
        assert np.abs(lps[:3, :3] @ corner + lps[:3, 3] - place).max() < 1e-4
    other = hd.get_volume_from_series([pydicom.dcmread(file) for file in files])
    same = hd.Volume(own.transpose(2, 1, 0), lps[:, [2, 1, 0, 3]], "PATIENT")
    assert np.array_equal(same.match_geometry(other, tol=1e-4).array, other.array)


def test_any_file_of_the_series_opens_it(tmp_path: Path) -> None:
    affine = affine_of("LPS", (1, 1, 2))
    files = save_series(tmp_path, ct_like(SHAPE), affine)
    save_series(tmp_path / "other", ct_like(SHAPE, seed=1), affine)
    for file in (tmp_path / "other").iterdir():
        file.rename(tmp_path / f"other_{file.name}")
    (tmp_path / "notes.txt").write_text("no scan")
    volume = read_volume(files[2])
    assert volume.shape == SHAPE[::-1]
    assert volume.path == files[2]
    _assert_places(volume, ct_like(SHAPE), affine)
    assert volume_times(files[0]) == 1


def test_a_folder_of_two_series_is_refused_with_the_choice(tmp_path: Path) -> None:
    """Statement 29: never stacked; number, description, count and a file to open instead."""
    affine = affine_of("LPS", (1, 1, 2))
    save_series(tmp_path, ct_like(SHAPE), affine)
    scout = save_series(tmp_path / "x", ct_like((4, 4, 2)), affine, SeriesNumber=1, SeriesDescription="scout")
    for file in scout:
        file.rename(tmp_path / f"scout_{file.name}")
    with pytest.raises(ImageError) as caught:
        read_volume(tmp_path)
    message = str(caught.value)
    assert "series 3 (CT, portal venous, 5 files, such as IM003)" in message
    assert "series 1 (CT, scout, 2 files, such as scout_IM003)" in message
    assert "\n" not in message
    assert read_volume(tmp_path / "scout_IM003").shape == (2, 4, 4)


def _refused(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a voxel is a failure of the test."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("voxels were read before the headers were found wrong")

    monkeypatch.setattr(dicom_pixels, "pixel_array", fail)
    monkeypatch.setattr(dicom_pixels, "iter_pixels", fail)


@pytest.mark.usefixtures("no_pixels")
class TestWhatIsNoVolume:
    """Statement 29: each error lists where it is, before a voxel is read."""

    def series(self, folder: Path, n: int = 6, **tags: object) -> list[Path]:
        return save_series(folder, ct_like((4, 5, n)), affine_of("LPS", (1, 1, 2.5), OBLIQUE), **tags)

    def position(self, offset: tuple[float, float, float]):
        affine = np.diag([-1.0, -1, 1, 1]) @ affine_of("LPS", (1, 1, 2.5), OBLIQUE)
        return ds(affine[:3, :3] @ offset + affine[:3, 3])

    def test_a_missing_slice(self, tmp_path: Path) -> None:
        self.series(tmp_path)[3].unlink()
        message = _refused(tmp_path)
        assert re.search(r"5 slices are not evenly spaced. Usual is 2.5 mm, but it is 5 mm from", message)
        assert "1 missing" in message

    @pytest.mark.parametrize("off", [0.02, -0.02, 0.4])
    def test_a_slice_off_its_place_by_more_than_a_hundredth(self, off: float, tmp_path: Path) -> None:
        change(self.series(tmp_path)[2], ImagePositionPatient=self.position((0, 0, 2 + off)))
        assert "evenly spaced" in _refused(tmp_path)

    def test_spacing_that_drifts(self, tmp_path: Path) -> None:
        """Each step is right to 1 %, yet slices end up beside their places."""
        places = np.cumsum([0] + [1.004] * 10 + [0.996] * 10)
        self.series(tmp_path, 21, ImagePositionPatient=lambda k: self.position((0, 0, places[k])))
        assert "do not lie in one line" in _refused(tmp_path)

    def test_a_slice_shifted_sideways(self, tmp_path: Path) -> None:
        change(self.series(tmp_path)[2], ImagePositionPatient=self.position((1, 0, 2)))
        assert "do not lie in one line" in _refused(tmp_path)

    def test_two_slices_at_one_place(self, tmp_path: Path) -> None:
        files = self.series(tmp_path)
        shutil.copy(files[3], tmp_path / "copy")
        message = _refused(tmp_path)
        assert "1 slices where another one lies already" in message
        assert f"({files[3].name}, copy)" in message or f"(copy, {files[3].name})" in message

    def test_two_time_points(self, tmp_path: Path) -> None:
        self.series(tmp_path, 6, ImagePositionPatient=lambda k: self.position((0, 0, k // 2)))
        assert "3 slices where another one lies already" in _refused(tmp_path)

    def test_all_slices_at_one_place(self, tmp_path: Path) -> None:
        self.series(tmp_path, 3, ImagePositionPatient=self.position((0, 0, 0)))
        assert "2 slices where another one lies already" in _refused(tmp_path)

    def test_slices_of_two_orientations(self, tmp_path: Path) -> None:
        change(self.series(tmp_path)[4], ImageOrientationPatient=ds([1, 0, 0, 0, 0, -1]))
        message = _refused(tmp_path)
        assert "different directions: 1 of 6" in message
        assert "IM031" in message

    def test_slices_of_two_sizes(self, tmp_path: Path) -> None:
        change(self.series(tmp_path)[4], PixelSpacing=ds([1, 1.1]))
        assert "different pixel spacings: 1 of 6" in _refused(tmp_path)

    def test_directions_that_are_none(self, tmp_path: Path) -> None:
        self.series(tmp_path, ImageOrientationPatient=ds([1, 0, 0, 1, 0, 0]))
        assert "not at right angles" in _refused(tmp_path)

    @pytest.mark.parametrize("name", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
    def test_a_slice_without_a_place(self, name: str, tmp_path: Path) -> None:
        change(self.series(tmp_path)[1], **{name: None})
        assert f"{name} is missing" in _refused(tmp_path)

    def test_a_slice_cut_short(self, tmp_path: Path) -> None:
        """Also where the cut is in the header, so that its size is lost."""
        files = self.series(tmp_path)
        content = files[5].read_bytes()
        files[5].write_bytes(content[:-60])
        # the file is still larger than its voxels are, which only reading them can tell
        files[4].write_bytes(content[: content.index(b"MONOCHROME2") - 60])
        assert "truncated or damaged" in _refused(tmp_path)

    def test_more_than_memory_holds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Statement 32."""
        self.series(tmp_path)
        monkeypatch.setattr(byte_source, "_physical_memory", lambda: 100)
        assert "more than this machine's memory" in _refused(tmp_path)

    def test_colours(self, tmp_path: Path) -> None:
        self.series(tmp_path, PhotometricInterpretation="RGB", SamplesPerPixel=3)
        assert "colour picture" in _refused(tmp_path)

    def test_frames_without_places(self, tmp_path: Path) -> None:
        change(self.series(tmp_path, 1)[0], NumberOfFrames=1, Rows=5)
        change(tmp_path / "IM003", NumberOfFrames=5, Rows=1)
        assert "does not say where each lies" in _refused(tmp_path)

    def test_a_packing_without_a_decoder(self, tmp_path: Path) -> None:
        for file in self.series(tmp_path):
            image = pydicom.dcmread(file)
            image.file_meta.TransferSyntaxUID = JPEGLossless
            image.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
            image.save_as(file)
        assert "JPEG Lossless" in (message := _refused(tmp_path))
        assert "gdcmconv --raw" in message

    def test_no_images(self, tmp_path: Path) -> None:
        assert "holds no DICOM images" in _refused(tmp_path)
        save_series(tmp_path / "series", ct_like(SHAPE), affine_of("LPS", (1, 1, 2)))
        assert "give the folder in which the files of a series lie" in _refused(tmp_path)

    def test_a_file_that_has_only_the_name(self, tmp_path: Path) -> None:
        (tmp_path / "scan.dcm").write_bytes(b"anything" * 99)
        assert "dcmconv" in _refused(tmp_path / "scan.dcm")

    def test_the_extra_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.series(tmp_path)
        monkeypatch.setattr(dicom, "_PACKAGES", ("pydicom", "no_such_package"))
        assert 'pip install "napari-sam-med[dicom]"' in _refused(tmp_path)
        assert 'pip install "napari-sam-med[dicom]"' in _refused(tmp_path / "IM003")


def test_a_gantry_tilt_is_kept_and_said(tmp_path: Path) -> None:
    """Statement 27: sheared, every voxel at its true place."""
    array, affine = ct_like(SHAPE), affine_of("LPS", (1, 1, 3))
    affine[1, 2] = 0.8
    save_series(tmp_path, array, affine)
    volume = read_volume(tmp_path)
    assert "gantry tilt" in volume.warnings[0]
    _assert_places(volume, array, affine)


def test_the_last_digits_of_positions_are_no_tilt(tmp_path: Path) -> None:
    affine = affine_of("LPS", (1, 1, 3), OBLIQUE)
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    save_series(
        tmp_path,
        ct_like(SHAPE),
        affine,
        ImagePositionPatient=lambda k: [f"{v:.2f}" for v in lps[:3, 2] * k + lps[:3, 3]],
    )
    volume = read_volume(tmp_path)
    assert volume.warnings == ()
    assert volume.grid.shear < 1e-9


@pytest.mark.parametrize(
    ("stored", "slope", "intercept", "dtype"),
    [
        ("int16", "1", "0", "int16"),
        ("uint16", "1", "0", "uint16"),
        ("uint8", "1", "0", "uint8"),
        ("uint16", "1", "-1024", "int16"),
        ("int16", "1", "-1024", "int16"),
        ("uint16", "30", "-1024", "int32"),
        ("int16", "0.5", "3.25", "float32"),
    ],
)
def test_rescale_slope_and_intercept(stored, slope, intercept, dtype, tmp_path: Path) -> None:
    array = (ct_like(SHAPE) + 1000).astype(stored)
    save_series(tmp_path, array, affine_of("LPS", (1, 1, 3)), RescaleSlope=slope, RescaleIntercept=intercept)
    volume = read_volume(tmp_path)
    assert volume.data.dtype == dtype
    expected = array.astype(float) * float(slope) + float(intercept)
    assert np.array_equal(volume.grid.from_canonical(volume.data), expected)


def test_each_slice_has_its_own_slope(tmp_path: Path) -> None:
    """As in PET."""
    array = ct_like(SHAPE)
    save_series(tmp_path, array, affine_of("LPS", (1, 1, 3)), RescaleSlope=lambda k: f"{0.25 * (k + 1)}")
    volume = read_volume(tmp_path)
    expected = array * 0.25 * np.arange(1, 6)
    assert np.array_equal(volume.grid.from_canonical(volume.data), expected.astype(np.float32))


def test_twelve_signed_bits(tmp_path: Path) -> None:
    array = np.clip(ct_like(SHAPE), -2000, 2000)
    save_series(tmp_path, array & 0xFFF, affine_of("LPS", (1, 1, 3)), BitsStored=12, HighBit=11)
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.grid.from_canonical(volume.data), array)


def test_monochrome1_is_said(tmp_path: Path) -> None:
    save_series(
        tmp_path, ct_like(SHAPE), affine_of("LPS", (1, 1, 3)), PhotometricInterpretation="MONOCHROME1"
    )
    volume = read_volume(tmp_path)
    assert "MONOCHROME1" in volume.warnings[0]
    assert np.array_equal(volume.data, volume.grid.to_canonical(ct_like(SHAPE)))


def test_one_slice_takes_its_thickness(tmp_path: Path) -> None:
    """Statement 28."""
    files = save_series(tmp_path, ct_like((5, 4, 1)), affine_of("LPS", (1, 1, 3)))
    assert read_volume(files[0]).spacing == (3, 1, 1)
    change(files[0], SliceThickness=None)
    volume = read_volume(tmp_path)
    assert volume.spacing == (1, 1, 1)
    assert "does not say how thick" in volume.warnings[0]


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_packed_voxels(syntax: str, tmp_path: Path) -> None:
    array, affine = ct_like((16, 12, 2)), affine_of("LPS", (1, 1, 3))
    for file in save_series(tmp_path, array, affine):
        image = pydicom.dcmread(file)
        image.compress(syntax)
        image.save_as(file)
    _assert_places(read_volume(tmp_path), array, affine)


def _enhanced(folder: Path, array, affine) -> Path:
    files = save_series(folder / "single", array, affine)
    images = [pydicom.dcmread(file) for file in files]
    enhanced = hd.legacy.LegacyConvertedEnhancedCTImage(
        images[::-1], generate_uid(), 7, generate_uid(), instance_number=1
    )
    path = folder / "enhanced.dcm"
    enhanced.save_as(path)
    return path


def test_a_multi_frame_file_opens(tmp_path: Path) -> None:
    array, affine = ct_like(SHAPE), affine_of("PSR", (1, 1.5, 3), OBLIQUE)
    path = _enhanced(tmp_path, array, affine)
    _assert_places(read_volume(path), array, affine)
    _assert_places(read_volume(tmp_path), array, affine)


def test_a_multi_frame_file_with_a_missing_frame_is_refused(tmp_path: Path) -> None:
    """Statement 29."""
    files = save_series(tmp_path / "single", ct_like(SHAPE), affine_of("LPS", (1, 1, 3)))
    images = [pydicom.dcmread(file) for file in files if file != files[2]]
    path = tmp_path / "enhanced.dcm"
    hd.legacy.LegacyConvertedEnhancedCTImage(images, generate_uid(), 7, generate_uid(), 1).save_as(path)
    assert "1 missing" in _refused(path)


def test_files_that_only_seem_to_be_dicom_are_named(tmp_path: Path) -> None:
    save_series(tmp_path, ct_like(SHAPE), affine_of("LPS", (1, 1, 3)))
    (tmp_path / "IM999.dcm").write_bytes(b"")
    assert "IM999.dcm" in read_volume(tmp_path).warnings[0]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, data: st.DataObject) -> None:
    """Statements 31 and 32: cut or with bytes changed, never a traceback or other numbers of voxels."""
    folder = tmp_path_factory.mktemp("damaged")
    files = save_series(folder, ct_like((4, 4, 3)), affine_of("LPS", (1, 1, 3)))
    content = bytearray(files[1].read_bytes())
    share = st.floats(0, 1, exclude_max=True)  # lengths of files differ by that of their numbers
    if data.draw(st.booleans()):
        content = content[: int(data.draw(share) * len(content))]
    else:
        for place in data.draw(st.lists(share, min_size=1, max_size=4)):
            content[int(place * len(content))] = data.draw(st.integers(0, 255))
    files[1].write_bytes(content)
    with suppress(ImageError):
        volume = read_volume(folder)
        assert volume.shape == (3, 4, 4) or files[1].name in volume.warnings[0]


def test_labels_of_a_series_go_to_other_formats_and_name_all_its_files(tmp_path: Path) -> None:
    """The sidecar's SHA-256 is of the bytes of all files, in the order of the slices."""
    files = save_series(tmp_path / "ct", ct_like(SHAPE), affine_of("LPS", (1, 1, 3)))
    volume = read_volume(files[1])
    labels = LabelVolume.like(volume)
    labels.assign(SliceView("axial", 2), np.ones(volume.shape[1:], bool), class_id=6)
    written = write_labels(tmp_path / "labels.nii.gz", labels)
    assert np.array_equal(read_volume(written).data, labels.data)
    source = json.loads((tmp_path / "labels.sam-med.json").read_text())["source"]
    assert source["sha256"] == sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert Path(source["path"]) == files[1].resolve()


def test_labels_never_replace_a_file_of_the_series(tmp_path: Path) -> None:
    """Statement 15."""
    for file in save_series(tmp_path, ct_like(SHAPE), affine_of("LPS", (1, 1, 3))):
        file.rename(file.with_suffix(".dcm"))
    volume = read_volume(tmp_path)
    target = sorted(tmp_path.iterdir())[3]
    before = target.read_bytes()
    labels = LabelVolume.like(volume)
    labels.data[2, 2, 2] = 1
    with pytest.raises(ExportError, match="scan itself"):
        write_labels(target, labels, source=volume)
    assert target.read_bytes() == before


@needs_bad
def test_the_real_files_of_the_pack() -> None:
    assert read_volume(BAD / "r28_dicom_decimal_rescale.dcm").data.dtype == np.int16
    assert "1 mm is taken" in read_volume(BAD / "r29_dicom_empty_slicethickness.dcm").warnings[0]
    message = _refused(BAD / "r31_two_series_dicom")
    assert "2 series" in message
    assert "3 files" in message
    ct = read_volume(next((BAD / "r31_two_series_dicom").glob("CT*")))
    assert (ct.shape, ct.spacing[0]) == ((3, 512, 512), 2.0)
    assert "4 mm from -782.5 to -778.5" in _refused(BAD / "r32_missing_slice_dicom")


@needs_open
def test_a_real_series_is_read_as_itk_reads_it() -> None:
    files = sorted((OPEN / "dicom_seg_liver_3slice").glob("0?.dcm"), reverse=True)
    volume = read_volume(files[0])
    image = sitk.ReadImage([str(file) for file in files])
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.grid.from_canonical(volume.data).T)
    assert volume.is_hounsfield
