"""An address without a scheduler is refused soon, in one line that says what is there in its place."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest

from napari_sam_med.cluster import scheduler_address
from napari_sam_med.cluster.workers import connect, connected
from napari_sam_med.errors import ClusterError

distributed = pytest.importorskip("distributed")


def test_nobody_at_an_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_address, "PATIENCE_S", 0.2)
    made = []  # a client that fails keeps whoever lets go of it waiting
    monkeypatch.setattr(distributed, "Client", lambda *given, **options: made.append(given))
    for address in (
        "tcp://127.0.0.1:9",
        "127.0.0.1",
        "http://127.0.0.1:9",
        "tls://127.0.0.1:9",
        "inproc://1/2/3",
    ):
        with (
            pytest.raises(ClusterError, match=f"^No scheduler answers at {address} "),
            connected(address),
        ):
            pass
    assert made == []


def test_an_address_that_refuses_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_address, "_REFUSED_S", 0.2)
    monkeypatch.setattr(distributed.core, "connect", None)  # which would wait for 20 s
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nobody listens
        port = unused.getsockname()[1]
        with pytest.raises(ClusterError, match="the connection was refused: nothing listens there"):
            connect(f"tcp://127.0.0.1:{port}")


def test_who_takes_a_connection_and_says_nothing_is_waited_for_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler_address, "PATIENCE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterError, match=r"\(no answer within 0.5 s\)"):
            connect(address)


def test_another_program_at_an_address_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            for _ in range(2):  # the first only sees whether somebody is there
                caller, _ = other.accept()
                with caller, suppress(ConnectionError):
                    caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    while caller.recv(4096):
                        pass

        talking = threading.Thread(target=answer)
        talking.start()
        with pytest.raises(ClusterError, match="what answers there is something else"):
            connect(f"tcp://127.0.0.1:{other.getsockname()[1]}")
        talking.join()
