"""Fetching from a server of our own that misbehaves in every way we know of."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import filelock
import pytest
import xxhash

from napari_sam_med.errors import CancelledError, ModelError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.checkpoints import fetch
from napari_sam_med.sam.model_registry import MODELS, NANO_WEIGHTS, checkpoint_path, is_available

GOOD = bytes(range(256)) * 4096  # 1 MiB


@dataclass
class Server:
    url: str
    answer: str = "good"
    requests: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.path)
            if state.answer == "missing":
                self.send_error(404)
                return
            if state.answer == "page":
                self._send(b"<!DOCTYPE html><html>You must log in</html>", "text/html")
            elif state.answer == "stalled":
                self._send(GOOD[: len(GOOD) // 2], announced=len(GOOD))
                state.released.wait(60)
            elif state.answer == "wrong":
                self._send(GOOD[::-1])
            elif state.answer == "short":
                self._send(GOOD[: len(GOOD) // 2], announced=len(GOOD) // 2)
            elif state.answer == "dropped":
                self._send(GOOD[: len(GOOD) // 2], announced=len(GOOD))
            else:
                self._send(GOOD)

        def _send(self, content: bytes, kind: str = "application/octet-stream", announced: int = -1) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content) if announced < 0 else announced))
            self.end_headers()
            try:
                self.wfile.write(content)
            except OSError:  # the client hung up, as a cancelling one does
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state = Server(f"http://127.0.0.1:{http.server_port}/weights/mobile.pt")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        state.released.set()
        http.shutdown()
        thread.join()


@pytest.fixture
def folder(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model folder, with mobile_sam published on our server."""
    record = replace(
        MODELS["mobile_sam"], url=server.url, sha256=hashlib.sha256(GOOD).hexdigest(), size_bytes=len(GOOD)
    )
    monkeypatch.setitem(MODELS, "mobile_sam", record)
    return home / "models"


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_good_file_is_fetched_once(folder: Path, server: Server) -> None:
    seen: list[Progress] = []
    path = fetch("mobile_sam", seen.append)
    assert path == folder / "mobile_sam.pth"
    assert path.read_bytes() == GOOD
    assert files_in(folder) == ["mobile_sam.pth"]
    assert is_available("mobile_sam")
    assert [step.done for step in seen] == sorted(step.done for step in seen)
    assert (seen[0].done, seen[-1].done, seen[-1].total) == (0, len(GOOD), len(GOOD))
    assert "MobileSAM" in seen[0].text
    assert fetch("mobile_sam") == path
    assert len(server.requests) == 1


@pytest.mark.parametrize("algorithm", ["md5", "xxh128"])
def test_other_published_digests_are_used(
    folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    digest = hashlib.md5(GOOD).hexdigest() if algorithm == "md5" else xxhash.xxh128(GOOD).hexdigest()
    blank = replace(MODELS["mobile_sam"], sha256=None, size_bytes=None)
    monkeypatch.setitem(MODELS, "mobile_sam", replace(blank, **{algorithm: digest}))
    assert fetch("mobile_sam").read_bytes() == GOOD
    server.answer = "wrong"
    (folder / "mobile_sam.pth").unlink()
    with pytest.raises(ModelError, match="not the published checkpoint"):
        fetch("mobile_sam")


@pytest.mark.parametrize("old", [None, b"an old file"], ids=["nothing there", "an old file there"])
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("wrong", "not the published checkpoint of MobileSAM"),
        ("short", "524288 of 524288|not the published checkpoint"),
        ("dropped", "could not be fetched|bytes arrived"),
        ("page", "web page"),
        ("missing", "HTTP status 404"),
    ],
)
def test_a_bad_answer_changes_nothing(
    folder: Path, server: Server, answer: str, reason: str, old: bytes | None
) -> None:
    """Statement 36: short, dropped, a web page, other content, none; a second try mends it."""
    server.answer = answer
    if old is not None:
        folder.mkdir(parents=True)
        (folder / "mobile_sam.pth").write_bytes(old)
    with pytest.raises(ModelError, match=reason) as caught:
        fetch("mobile_sam")
    text = str(caught.value)
    assert "models fetch mobile_sam" in text
    assert f"put it into {folder} as mobile_sam.pth" in text
    assert "\n" not in text
    assert files_in(folder) == ([] if old is None else ["mobile_sam.pth"])
    if old is not None:
        assert (folder / "mobile_sam.pth").read_bytes() == old
    server.answer = "good"
    assert fetch("mobile_sam").read_bytes() == GOOD, "a second try mends it"


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_kill_while_it_arrives_leaves_the_old_file_and_the_next_try_sweeps(
    folder: Path, server: Server, home: Path
) -> None:
    """Statement 36: half a download is taken for no model, and does not stay on the disk."""
    code = """
        import sys
        from dataclasses import replace
        from napari_sam_med.sam.checkpoints import fetch
        from napari_sam_med.sam.model_registry import MODELS
        url, sha256, size = sys.argv[1:]
        MODELS["mobile_sam"] = replace(MODELS["mobile_sam"], url=url, sha256=sha256, size_bytes=int(size))
        fetch("mobile_sam", lambda progress: print(progress.done, flush=True))
    """
    folder.mkdir(parents=True)
    old = folder / "mobile_sam.pth"
    old.write_bytes(b"an old file")
    server.answer = "stalled"
    command = [sys.executable, "-c", textwrap.dedent(code), server.url]
    command += [hashlib.sha256(GOOD).hexdigest(), str(len(GOOD))]
    environment = os.environ | {"NAPARI_SAM_MED_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        while int(child.stdout.readline()) == 0:
            assert child.poll() is None
        child.kill()
    assert any(path.stat().st_size > 0 for path in folder.rglob("*") if path.is_file() and path != old)
    assert old.read_bytes() == b"an old file"
    assert checkpoint_path("mobile_sam") == old
    server.answer = "good"
    assert fetch("mobile_sam").read_bytes() == GOOD
    assert files_in(folder) == ["mobile_sam.pth"]


def test_no_server_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = replace(MODELS["mobile_sam"], url="http://127.0.0.1:9/file.pt")
    monkeypatch.setitem(MODELS, "mobile_sam", nowhere)
    with pytest.raises(ModelError, match=r"could not be fetched.*download it on another machine"):
        fetch("mobile_sam")


def test_cancelling_leaves_nothing_behind(folder: Path) -> None:
    """Statement 36."""
    seen: list[Progress] = []
    with pytest.raises(CancelledError, match="nothing was changed"):
        fetch("mobile_sam", seen.append, lambda: len(seen) >= 2)
    assert 0 < seen[-1].done < len(GOOD)
    assert files_in(folder) == []
    with pytest.raises(CancelledError):
        fetch("mobile_sam", cancelled=lambda: True)


def test_a_file_put_there_by_hand_is_taken(folder: Path, server: Server) -> None:
    folder.mkdir(parents=True)
    (folder / "from a colleague.bin").write_bytes(GOOD)
    assert fetch("mobile_sam") == folder / "from a colleague.bin"
    assert server.requests == []


def test_two_programs_do_not_fetch_at_once(folder: Path) -> None:
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / ".mobile_sam.lock"), pytest.raises(ModelError, match="another program"):
        fetch("mobile_sam")


def test_a_folder_that_cannot_be_made_is_told(folder: Path, home: Path) -> None:
    home.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(ModelError, match="NAPARI_SAM_MED_HOME"):
        fetch("mobile_sam")


def test_what_cannot_be_fetched() -> None:
    assert fetch("nano") == NANO_WEIGHTS
    with pytest.raises(ModelError, match="to fetch"):
        fetch("some_model")


def test_an_unknown_digest_is_never_accepted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    """Statement 36: nothing is kept without a digest to compare it with."""
    monkeypatch.setitem(MODELS, "mobile_sam", replace(MODELS["mobile_sam"], sha256=None))
    with pytest.raises(ModelError, match="no published file with a digest"):
        fetch("mobile_sam")
    assert server.requests == []
