"""Statements 32 and 34: no damaged header and no bomb makes reading take more memory than the file may."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.volume.phantoms import save_nifti

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and limits a process")

_MEGA = 1 << 20
_ZEROS = bytes(_MEGA)

_CHILD = """
    import resource, sys
    import numpy as np
    from napari_sam_med import read_volume
    from napari_sam_med.errors import ImageError
    import napari_sam_med.volume.formats.nifti, napari_sam_med.volume.formats.nrrd
    from pathlib import Path

    MEGA = 1 << 20

    def status(key):
        return int(open("/proc/self/status").read().split(key + ":")[1].split()[0]) * 1024

    def taken_by(action):
        open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
        before = status("VmRSS")
        action()
        return status("VmHWM") - before

    def read(path):
        try:
            volume = read_volume(path)
        except ImageError:
            return
        assert min(volume.shape) >= 1 and np.isfinite(volume.affine).all()
"""


def _run(code: str, *arguments: object) -> str:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_CHILD) + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_damaged_header_takes_at_most_twice_the_memory_of_a_sound_one(tmp_path: Path, ending: str) -> None:
    """Statement 32; the sound file scales its values, as a damaged one may come to do."""
    array = np.zeros((128, 128, 128), dtype=np.int16)
    array[30:90, 30:90] = 7
    path = save_nifti(tmp_path / "scan.nii", array)
    whole = bytearray(path.read_bytes())
    whole[112:120] = np.array([2.0, 1.0], dtype="<f4").tobytes()
    path.write_bytes(whole)
    code = """
        import gzip
        path, ending = Path(sys.argv[1]), sys.argv[2]
        whole = path.read_bytes()
        damaged = path.with_name("damaged" + ending)

        def write(content):
            damaged.write_bytes(gzip.compress(content, 1) if ending == ".nii.gz" else content)

        write(whole)
        sound = read_volume(damaged).data.nbytes * 1.5  # float32, made of the int16 of the file
        resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + 64 * int(sound),) * 2)
        rng = np.random.default_rng(0)
        interesting = [40, 42, 44, 46, 48, 70, 72, 108, 112, 116]
        most = 0
        for _ in range(120):
            content = bytearray(whole)
            for _ in range(rng.integers(1, 4)):
                at = int(rng.choice(interesting)) if rng.random() < 0.7 else int(rng.integers(0, 346))
                value = rng.choice([0, 1, 255, 127, 128, int(rng.integers(0, 256))], 2)
                content[at : at + 2] = bytes(int(v) for v in value)
            write(bytes(content))
            most = max(most, taken_by(lambda: read(damaged)))
        print(most / sound)
    """
    assert float(_run(code, path, ending)) <= 2


def _deflated(head: bytes, mebibytes: int) -> bytes:
    """A head and zeros as one raw deflate stream, of which a mebibyte is packed once and then repeated."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = deflate.compress(head) + deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(_ZEROS) + deflate.flush(zlib.Z_FULL_FLUSH)  # needs nothing before it
    return start + block * mebibytes + deflate.flush()


def _checksum(checksum: Callable[[bytes, int], int], head: bytes, mebibytes: int, start: int) -> int:
    value = checksum(head, start)
    for _ in range(mebibytes):
        value = checksum(_ZEROS, value)
    return value


def _gzipped(head: bytes, mebibytes: int) -> bytes:
    """What ``gzip`` makes of a head and zeros."""
    crc, size = _checksum(zlib.crc32, head, mebibytes, 0), (len(head) + mebibytes * _MEGA) % 2**32
    return b"\x1f\x8b\x08" + bytes(7) + _deflated(head, mebibytes) + struct.pack("<II", crc, size)


def _zlibbed(mebibytes: int) -> bytes:
    """What ``zlib.compress`` makes of zeros."""
    return (
        b"\x78\xda"
        + _deflated(b"", mebibytes)
        + struct.pack(">I", _checksum(zlib.adler32, b"", mebibytes, 1))
    )


def test_bombs_are_whole() -> None:
    """Their readers have no other fault to stumble over."""
    head = b"a head"
    assert gzip.decompress(_gzipped(head, 3)) == head + bytes(3 * _MEGA)
    assert zlib.decompress(_zlibbed(3)) == bytes(3 * _MEGA)


def test_a_bomb_is_unpacked_no_farther_than_its_header_goes(tmp_path: Path) -> None:
    """Statement 34: 2 GiB of zeros behind a header of 4 MiB, in a process that may not have so much."""
    image = nib.Nifti1Image(np.zeros((128, 128, 128), dtype=np.int16), np.eye(4))
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(_gzipped(image.to_bytes(), 2048))
    assert bomb.stat().st_size < 3 << 20
    code = """
        resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + 256 * MEGA,) * 2)

        def refused():
            try:
                read_volume(sys.argv[1])
            except ImageError as error:
                assert "unpacks to far more" in str(error), error
            else:
                raise AssertionError("the bomb was read")

        print(taken_by(refused) / MEGA)
    """
    assert float(_run(code, bomb)) < 32


def test_a_bomb_in_nrrd_or_metaimage_is_unpacked_no_farther_than_its_header_goes(tmp_path: Path) -> None:
    """Statement 34."""
    head = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 64 64 64\nencoding: gzip\nendian: little\n\n"
    packed = gzip.compress(_ZEROS, 9) * 1024
    (tmp_path / "bomb.nrrd").write_bytes(head + packed)
    content = _zlibbed(1024)
    mha = (
        "ObjectType = Image\nNDims = 3\nDimSize = 64 64 64\nElementType = MET_SHORT\nCompressedData = True\n"
    )
    mha += f"CompressedDataSize = {len(content)}\nElementDataFile = LOCAL\n"
    (tmp_path / "bomb.mha").write_bytes(mha.encode() + content)
    code = """
        for name in sys.argv[1:]:
            read(name)
            print(taken_by(lambda: read(name)) / MEGA)
    """
    taken = _run(code, tmp_path / "bomb.nrrd", tmp_path / "bomb.mha").split()
    assert max(map(float, taken)) < 64, taken
