"""Whether a scheduler answers at an address, and in one line why not; a wrong address is refused at once."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Any

from napari_sam_med.cluster.versions import first_line
from napari_sam_med.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["PATIENCE_S", "client_at"]

PATIENCE_S = 20
"""Seconds that a scheduler, or its first worker, has to answer."""
_REFUSED_S = 2
"""And that a machine may refuse to be connected with: one that starts up is given that long."""
_AGAIN_S = 0.05
"""How long one that refuses is left alone, before it is asked again."""


def client_at(address: str, client_type: type[Client]) -> Client:
    """A client of the scheduler at an address; whoever asks for it closes it.

    Parameters
    ----------
    address : str
        Such as ``tcp://10.0.0.5:8786``, or ``tls://...``.
    client_type : type
        ``distributed.Client``, from whoever has loaded that library.

    Raises
    ------
    ClusterError
        When nobody answers, or something else than a scheduler does.
    """
    try:
        asyncio.run(_knock(address))
        return client_type(address, timeout=PATIENCE_S, set_as_default=False)
    except Exception as error:  # what dask raises of an address that is none has no class
        raise ClusterError(
            f"No scheduler answers at {address} ({_reason(error)}); start one with dask scheduler, and "
            "give the address that it prints."
        ) from error


async def _knock(address: str) -> None:
    """See whether somebody answers: a client of an address that is none waits 40 s for its own end."""
    from distributed import Security
    from distributed.core import connect

    arguments = Security().get_connection_args("client")
    async with asyncio.timeout(PATIENCE_S):  # whoever takes a connection and says nothing has no limit there
        await _wait_while_refused(address, arguments)
        comm = await connect(address, timeout=PATIENCE_S, **arguments)
        await comm.close()


async def _wait_while_refused(address: str, arguments: dict[str, Any]) -> None:
    """Raise what says that nobody is there; `connect` takes it for silence, which it waits for to end."""
    from distributed.comm.addressing import parse_address
    from distributed.comm.registry import get_backend

    scheme, place = parse_address(address)
    connector = get_backend(scheme).get_connector()
    until = time.monotonic() + _REFUSED_S
    while True:
        try:
            comm = await connector.connect(place, **arguments)
        except OSError as error:
            if not _refusal(error):
                return  # `connect` tries again, or says what it is
            if time.monotonic() > until:
                raise
            await asyncio.sleep(_AGAIN_S)
        else:
            comm.abort()
            return


def _refusal(error: BaseException) -> str:
    """Why nobody can be there, in words; empty where it is not known that nobody is."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return "the connection was refused: nothing listens there"
        if isinstance(cause, socket.gaierror):
            return "no machine of that name is known"
        cause = cause.__cause__
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE_S} s"
    if isinstance(error, MemoryError):  # dask takes the first bytes of others for a length
        return "what answers there is something else"
    return _refusal(error) or first_line(error)
