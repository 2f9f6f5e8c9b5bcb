"""Words for people."""

from __future__ import annotations

import pytest

from napari_sam_med.wording import number_of


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [(0, "slice", "0 slices"), (1, "slice", "1 slice"), (1, "box", "1 box"), (3, "box", "3 boxes")],
)
def test_numbers_of_things(number: int, noun: str, words: str) -> None:
    assert number_of(number, noun) == words
