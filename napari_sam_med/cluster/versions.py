"""Whether workers have the packages of this process: else numbers would differ, or nothing be understood."""

from __future__ import annotations

import platform
from concurrent.futures import CancelledError as LostFutureError
from importlib import metadata
from typing import TYPE_CHECKING, Any

from napari_sam_med.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["check_versions", "first_line"]

_SAME_PACKAGES = ("napari-sam-med", "torch", "numpy", "dask", "distributed")
"""Those whose versions decide the numbers, or what processes can say to one another."""


def check_versions(client: Client) -> None:
    """Refuse workers whose numbers would differ, or that cannot read what they are sent.

    Raises
    ------
    ClusterError
        Which worker, and what it has.
    """

    def versions_there(names: tuple[str, ...]) -> dict[str, str]:
        # within a function it is sent as code, so that a worker without this package can say so
        from importlib import metadata
        from platform import python_version_tuple

        found = {"Python": ".".join(python_version_tuple()[:2])}
        for name in names:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = "none"
        return found

    here = {"Python": ".".join(platform.python_version_tuple()[:2])}
    here |= {name: metadata.version(name) for name in _SAME_PACKAGES}
    try:
        answers: dict[str, Any] = client.run(versions_there, _SAME_PACKAGES, on_error="return")
    except (OSError, LostFutureError) as error:
        raise ClusterError(f"The workers do not answer ({first_line(error)}); look at their logs.") from None
    for worker, there in answers.items():
        if isinstance(there, BaseException):
            raise ClusterError(
                f"The worker {worker} cannot run what it is sent ({first_line(there)}); give it the same "
                f"Python ({here['Python']}) and packages as this machine."
            )
        differing = [
            f"{name} {there[name]} (here {here[name]})" for name in here if there[name] != here[name]
        ]
        if differing:
            raise ClusterError(
                f"The worker {worker} has {', '.join(differing)}; results would differ: install the same "
                "there and start it again."
            )


def first_line(error: BaseException) -> str:
    """Of its text, or the name of its class."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
