"""Exports that go wrong, in every format: the previous file stays, byte for byte."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from napari_sam_med import LabelVolume, read_volume, write_labels
from napari_sam_med.errors import ExportError
from napari_sam_med.volume.replacement import Replacement
from napari_sam_med.volume.writing import FILE_ENDINGS
from tests.volume.phantoms import affine_of, ct_like, save_nifti

NAME = "a b é 名"


@pytest.fixture
def labels(tmp_path) -> LabelVolume:
    scan = read_volume(
        save_nifti(tmp_path / "scan.nii", ct_like((7, 6, 5)), affine_of("PIR", (1.0, 2.0, 3.0)))
    )
    labels = LabelVolume.like(scan)
    labels.data[1:3, 1:3, 1:4] = 6
    return labels


def _change(labels: LabelVolume) -> None:
    labels.data[...] = 0
    labels.data[2:4, 2:5, 1:3] = 9


def _files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


class Faults:
    """Raises `error` at the n-th step of an export: a call into the operating system about a folder."""

    def __init__(self, patched: pytest.MonkeyPatch, folder: Path, error: BaseException, at: int) -> None:
        self.folder, self.error, self.at, self.n = folder, error, at, 0
        for owner, name in [(os, "replace"), (os, "fsync"), (os, "open"), (io, "open")]:
            patched.setattr(owner, name, self._failing(getattr(owner, name)))

    def _failing(self, function: Callable[..., object]) -> Callable[..., object]:
        def step(target: object, *args: object, **kwargs: object) -> object:
            if isinstance(target, int) or Path(str(target)).is_relative_to(self.folder):
                self.n += 1
                if self.n == self.at:
                    raise self.error
            return function(target, *args, **kwargs)

        return step


@pytest.mark.parametrize("ending", FILE_ENDINGS)
@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), PermissionError(13, "Permission denied"), KeyboardInterrupt()],
    ids=["full", "denied", "interrupt"],
)
def test_a_fault_at_any_step_leaves_the_previous_file(tmp_path, labels, monkeypatch, ending, error) -> None:
    """Statements 12 and 17: either nothing has changed, or the new file is there whole."""
    path = write_labels(tmp_path / f"{NAME}{ending}", labels)
    before = _files(tmp_path)
    _change(labels)
    expected = hashlib.sha256(write_labels(tmp_path / f"new{ending}", labels).read_bytes()).hexdigest()
    for name in (f"new{ending}", "new.sam-med.json"):
        (tmp_path / name).unlink()
    previous = {name: (tmp_path / name).read_bytes() for name in before}
    n_kept = 0
    for at in range(1, 100):
        caught: BaseException | None = None
        with monkeypatch.context() as patched:
            faults = Faults(patched, tmp_path, error, at)
            try:
                write_labels(path, labels)
            except (ExportError, KeyboardInterrupt) as raised:
                caught = raised
        after = _files(tmp_path)
        if faults.n < at:
            break
        assert after.keys() == before.keys()
        if after[path.name] == expected:
            for name, content in previous.items():
                (tmp_path / name).write_bytes(content)
        else:
            assert after == before
            assert caught is not None
            n_kept += 1
        if isinstance(caught, ExportError):
            assert NAME in str(caught)
            assert error.strerror in str(caught)
    else:
        pytest.fail("an export does not take a hundred steps")
    assert n_kept >= 4


@pytest.mark.parametrize("ending", FILE_ENDINGS)
def test_a_disk_that_keeps_other_bytes_is_found_out(tmp_path, labels, monkeypatch, ending) -> None:
    """Statement 13: the new file is read again before it replaces the previous one."""
    path = write_labels(tmp_path / f"{NAME}{ending}", labels)
    before = _files(tmp_path)
    _change(labels)

    def flush_to_disk(self: Replacement) -> None:
        content = bytearray(self.temporary.read_bytes())
        content[-1] ^= 1
        self.temporary.write_bytes(content)

    monkeypatch.setattr(Replacement, "flush_to_disk", flush_to_disk)
    with pytest.raises(ExportError, match=r"read again|read back"):
        write_labels(path, labels)
    assert _files(tmp_path) == before


_PREPARED = f"""
    import sys
    import numpy as np
    from napari_sam_med import LabelVolume, write_labels
    from napari_sam_med.errors import ExportError
    from napari_sam_med.volume.grid import Grid
    from napari_sam_med.volume.writing import FILE_ENDINGS
    from napari_sam_med.volume.formats import surfaces

    def labels_of(value):
        rng = np.random.default_rng(value)
        data = np.zeros((40, 40, 40), np.uint8)
        for number in range(1, 5):
            z, y, x = rng.integers(0, 30, 3)
            data[z : z + 10, y : y + 10, x : x + 10] = rng.integers(0, 2, (10, 10, 10)) * number
        return LabelVolume(data, Grid(np.diag([1.0, 2.0, 3.0, 1.0]), (40, 40, 40)))

    NAME = "{NAME}"
"""


def run_script(command: list[str], code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script = folder.parent / "script.py"
    script.write_text(textwrap.dedent(_PREPARED) + textwrap.dedent(code), encoding="utf-8")
    return subprocess.run(
        [*command, sys.executable, str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"},
    )


def own_mounts() -> list[str]:
    """Command prefix under which a process may mount; skips where the machine does not allow it."""
    tool = shutil.which("unshare")
    if tool is not None:
        command = [tool, "-Urm"]
        probe = subprocess.run(
            [*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
        )
        if probe.returncode == 0:
            return command
    pytest.skip("no right to mount: the tests with a size limit and with injected errors say the same")


@pytest.fixture
def mounted(tmp_path) -> Path:
    folder = tmp_path / "mounted"
    folder.mkdir()
    return folder


_REFUSED_EVERYWHERE = """
    def check(reason):
        for ending in FILE_ENDINGS:
            path = f"{NAME}{ending}"
            before = open(path, "rb").read()
            try:
                write_labels(path, labels_of(2))
            except ExportError as error:
                assert path in str(error) and reason in str(error), error
            else:
                raise AssertionError(f"{ending} was written")
            assert open(path, "rb").read() == before
            assert not [name for name in os.listdir(".") if "partial" in name]
        print("kept")
"""


def test_a_full_disk_leaves_the_previous_files(mounted) -> None:
    """Statements 12 and 17, on a small disk that is really full."""
    code = f"""
        import os, subprocess
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", os.getcwd()], check=True)
        os.chdir(os.getcwd())
        for ending in FILE_ENDINGS:
            write_labels(f"{{NAME}}{{ending}}", labels_of(1))
        with open("filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass
        {textwrap.dedent(_REFUSED_EVERYWHERE).replace(chr(10), chr(10) + " " * 8)}
        check("No space left on device")
    """
    run = run_script(own_mounts(), code, mounted)
    assert run.stdout == "kept\n", run.stderr


def test_a_read_only_folder_leaves_the_previous_files(mounted) -> None:
    """Statements 12 and 17, where not even root may write."""
    code = f"""
        import os, subprocess
        here = os.getcwd()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", here], check=True)
        os.chdir(here)
        for ending in FILE_ENDINGS:
            write_labels(f"{{NAME}}{{ending}}", labels_of(1))
        subprocess.run(["mount", "-o", "remount,ro", here], check=True)
        {textwrap.dedent(_REFUSED_EVERYWHERE).replace(chr(10), chr(10) + " " * 8)}
        check("Read-only file system")
    """
    run = run_script(own_mounts(), code, mounted)
    assert run.stdout == "kept\n", run.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_a_kill_at_any_moment_leaves_a_whole_file_in_every_format(mounted) -> None:
    """Statements 12 and 14: 100 kills spread over the export; the file is the old or the new one."""
    code = """
        import hashlib, os, signal, time

        def exported(path, value):
            child = os.fork()
            if child == 0:
                write_labels(path, labels_of(value))
                os._exit(0)
            return child

        def digest(path):
            return hashlib.sha256(open(path, "rb").read()).hexdigest()

        n_kills = 0
        for ending in FILE_ENDINGS:
            path = f"{NAME}{ending}"
            start = time.perf_counter()
            os.waitpid(exported(path, 2), 0)
            took, new = time.perf_counter() - start, digest(path)
            os.waitpid(exported(path, 1), 0)
            old = digest(path)
            assert old != new
            for step in range(10):
                child = exported(path, 2)
                time.sleep(took * step / 9)
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                n_kills += 1
                assert digest(path) in (old, new), f"{path} is half written"
                if digest(path) == new:
                    os.waitpid(exported(path, 1), 0)
                    assert digest(path) == old
            os.waitpid(exported(path, 2), 0)
            assert digest(path) == new
            assert not [name for name in os.listdir(".") if "partial" in name]
        print(n_kills)
    """
    run = run_script([], code, mounted)
    assert run.stdout == f"{10 * len(FILE_ENDINGS)}\n", run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_size_limit_leaves_the_previous_files(mounted) -> None:
    """Statements 12 and 17, with writes that really fail half way, where nothing may be mounted."""
    code = f"""
        import os, resource, signal
        for ending in FILE_ENDINGS:
            write_labels(f"{{NAME}}{{ending}}", labels_of(1))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (256, 256))
        {textwrap.dedent(_REFUSED_EVERYWHERE).replace(chr(10), chr(10) + " " * 8)}
        check("")
    """
    run = run_script([], code, mounted)
    assert run.stdout == "kept\n", run.stderr
