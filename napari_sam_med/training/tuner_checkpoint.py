"""A tuner on disk between two epochs, and whether what lies there is of the same run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_sam_med.errors import ModelError
from napari_sam_med.training.recipes import Recipe

if TYPE_CHECKING:
    from napari_sam_med.training.finetuning import Tuner

__all__ = ["TunerCheckpoint"]

_OF_RECIPE = {field.name for field in fields(Recipe)}
_UNTOLD = ("model", "cases")
"""Facts that are digests, which say nothing to a reader."""


class TunerCheckpoint:
    """Where a tuner lies after each epoch; what lies there is read at once.

    Parameters
    ----------
    path : Path
    facts : mapping
        All that decides what a run comes to, as plain values by what the user calls them; fields of the
        recipe by their names, and its own name as ``recipe``.

    Attributes
    ----------
    changes : list of str
        What differs from the run that lies there, which is then not gone on with; empty where none does.

    Raises
    ------
    ModelError
        When the file is damaged.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path, self._facts = path, dict(facts)
        self.changes: list[str] = []
        self._found: dict[str, Any] | None = None
        try:
            self._found = torch.load(path, map_location="cpu", weights_only=True)
            self.changes = _changes(self._found["facts"], self._facts)
        except FileNotFoundError:
            pass
        except Exception as error:
            raise self._damaged(error) from error

    def restore(self, tuner: Tuner) -> bool:
        """Give a tuner the state that lies there; False where there is none of the same run.

        Raises
        ------
        ModelError
            When the file is damaged.
        """
        found, self._found = self._found, None
        if found is None or self.changes:
            return False
        try:
            tuner.restore(found["tuner"])
        except Exception as error:
            raise self._damaged(error) from error
        return True

    def save(self, tuner: Tuner) -> None:
        """Write a tuner's state; an interrupted write leaves the one before."""
        partial = self.path.with_name(f"{self.path.name}.partial")
        with partial.open("wb") as file:
            torch.save({"facts": self._facts, "tuner": tuner.state()}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.path)

    def _damaged(self, error: Exception) -> ModelError:
        return ModelError(f"The checkpoint {self.path} is damaged ({error}); remove it to begin again.")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    changed = [name for name in now if before.get(name) != now[name]]
    if "recipe" in changed:  # its fields differ then, too
        changed = [name for name in changed if name == "recipe" or name not in _OF_RECIPE]
    return [name if name in _UNTOLD else f"{name} {before.get(name)}, now {now[name]}" for name in changed]
