"""Telling what the plugin writes into layers from what the user does there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["OwnWriting"]


class OwnWriting:
    """Mixin of whoever writes into layers and listens to them as well."""

    _is_writing = False

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What the layers announce meanwhile comes from us, not from the user."""
        before, self._is_writing = self._is_writing, True
        try:
            yield
        finally:
            self._is_writing = before
