"""The benchmark of a click runs; what it measures is for the machine at hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rich.console import Console

from benchmarks.click_in_napari import COLUMNS, measure, table
from napari_sam_med.volume.volume import Volume


@pytest.mark.slow
def test_clicks_are_timed_from_the_release_to_the_drawing(
    make_napari_viewer: Callable, make_volume: Callable[..., Volume]
) -> None:
    clicks = measure(make_napari_viewer(show=True), make_volume((12, 48, 48)), 2)
    assert len(clicks) == 2
    for click in clicks:
        assert min(click) > 0
        assert click.network + click.drawing < click.total
    console = Console(width=200)
    with console.capture() as printed:
        console.print(table(clicks, "small"))
    assert all(head in printed.get() for head in COLUMNS)
