"""Words that all rooms use when they speak to people."""

from __future__ import annotations

__all__ = ["number_of"]


def number_of(number: int, noun: str) -> str:
    """A number of things in words, such as ``1 box`` and ``2 boxes``.

    Parameters
    ----------
    number : int
    noun : str
        In the singular; its plural ends in -s, after an x in -es.
    """
    ending = "" if number == 1 else "es" if noun.endswith("x") else "s"
    return f"{number} {noun}{ending}"
