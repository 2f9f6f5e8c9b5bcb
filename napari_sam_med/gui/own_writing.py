"""Telling what the plugin writes into layers, and its own layers, from the user's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ANSWER_MARKS", "FOUND_MARK", "OwnWriting"]

FOUND_MARK = "sam_med_found"
ANSWER_MARKS = frozenset({"sam_med_experiment", FOUND_MARK})
"""In the metadata of layers that show answers of a model: they are no scans, labels or prompts to work on."""


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
