"""A DICOM SEG that cannot be written: the previous file stays, byte for byte. Statements 12 and 17."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_sam_med import LabelVolume, read_labels, read_volume, write_labels
from napari_sam_med.errors import ExportError
from tests.volume.dicom_files import save_series
from tests.volume.phantoms import affine_of, ct_like
from tests.volume.test_export_faults import NAME, Faults, own_mounts, run_script

pytest.importorskip("highdicom")

_SHAPE = (24, 20, 6)


@pytest.fixture
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    save_series(folder, ct_like(_SHAPE), affine_of("LPS", (0.7, 1.5, 3.0)))
    return folder


@pytest.fixture
def labels(series: Path) -> LabelVolume:
    labels = LabelVolume.like(read_volume(series))
    labels.data[1:3, 2:9, 3:14] = 6
    return labels


def _files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), PermissionError(13, "Permission denied"), KeyboardInterrupt()],
    ids=["full", "denied", "interrupt"],
)
def test_a_fault_at_any_step_leaves_the_previous_file(
    tmp_path: Path, labels: LabelVolume, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = write_labels(tmp_path / f"{NAME}.seg.dcm", labels)
    previous = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    before = _files(tmp_path)
    labels.data[...] = 0
    labels.data[3:5, 4:9, 1:7] = 9
    n_kept = 0
    for at in range(1, 100):
        caught: BaseException | None = None
        with monkeypatch.context() as patched:
            faults = Faults(patched, tmp_path, error, at)
            try:
                write_labels(path, labels)
            except (ExportError, KeyboardInterrupt) as raised:
                caught = raised
        if faults.n < at:
            break
        after = _files(tmp_path)
        assert after.keys() == before.keys()
        if after[path.name] == before[path.name]:
            assert after == before
            assert caught is not None
            n_kept += 1
        else:  # the new one was in its place already: it is whole
            assert np.array_equal(read_labels(path).data, labels.data)
            for name, content in previous.items():
                (tmp_path / name).write_bytes(content)
        if isinstance(caught, ExportError):
            assert NAME in str(caught)
            assert str(error.args[1]) in str(caught)
    else:
        pytest.fail("an export does not take a hundred steps")
    assert n_kept >= 4


_EXPORTED = """
    from napari_sam_med import read_volume
    volume = read_volume(SERIES)
    first, second = LabelVolume.like(volume), LabelVolume.like(volume)
    first.data[1:3, 2:9, 3:14] = 6
    second.data[...] = np.random.default_rng(0).integers(0, 9, volume.shape)
    path = f"{NAME}.seg.dcm"
"""
_REFUSED = """
    def check(reason):
        before = open(path, "rb").read()
        try:
            write_labels(path, second)
        except ExportError as error:
            assert path in str(error) and reason in str(error), error
        else:
            raise AssertionError("it was written")
        assert open(path, "rb").read() == before
        assert not [name for name in os.listdir(".") if "partial" in name]
        print("kept")
"""


def _script(series: Path, prepare: str, then: str) -> str:
    return f"import os, subprocess\nSERIES = {str(series)!r}\n" + "\n".join(
        "\n".join(line.removeprefix("    ") for line in part.splitlines())
        for part in (prepare, _EXPORTED, "    write_labels(path, first)", then)
    )


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    folder = tmp_path / "mounted"
    folder.mkdir()
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_size_limit_leaves_the_previous_file(mounted: Path, series: Path) -> None:
    """Writes that really fail half way, at three places, where nothing may be mounted."""
    limit = """
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    for size in (128, 1000, 4000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
        check("File too large")
    """
    run = run_script([], _script(series, "", _REFUSED + limit), mounted)
    assert run.stdout == 3 * "kept\n", run.stderr


_MOUNT = """
    here = os.getcwd()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", here], check=True)
    os.chdir(here)
"""


def test_a_full_disk_leaves_the_previous_file(mounted: Path, series: Path) -> None:
    """A small disk that is really full."""
    fill = """
    with open("filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    check("No space left on device")
    """
    run = run_script(own_mounts(), _script(series, _MOUNT, _REFUSED + fill), mounted)
    assert run.stdout == "kept\n", run.stderr


def test_a_read_only_folder_leaves_the_previous_file(mounted: Path, series: Path) -> None:
    """Where not even root may write."""
    remount = """
    subprocess.run(["mount", "-o", "remount,ro", here], check=True)
    check("Read-only file system")
    """
    run = run_script(own_mounts(), _script(series, _MOUNT, _REFUSED + remount), mounted)
    assert run.stdout == "kept\n", run.stderr


_KILLED = """
    import signal, time

    def exported(labels):
        child = os.fork()
        if child == 0:
            write_labels(path, labels)
            os._exit(0)
        return child

    start = time.perf_counter()
    os.waitpid(exported(first), 0)
    took, n_old, n_new = time.perf_counter() - start, 0, 0
    for step in range(20):
        child = exported(second)
        time.sleep(took * step / 16)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = read_labels(path).data
        n_old += np.array_equal(found, first.data)
        if np.array_equal(found, second.data):
            n_new += 1
            write_labels(path, first)
    os.waitpid(exported(second), 0)
    assert np.array_equal(read_labels(path).data, second.data)
    assert not [name for name in os.listdir(".") if "partial" in name]
    assert n_old and n_old + n_new == 20, (n_old, n_new)
    print("whole")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_leaves_a_whole_file(mounted: Path, series: Path) -> None:
    """The old one or the new one; what a killed export left beside it is swept by the next."""
    run = run_script([], _script(series, "    from napari_sam_med import read_labels", _KILLED), mounted)
    assert run.stdout == "whole\n", run.stderr
