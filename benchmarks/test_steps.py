"""The steps as pytest benchmarks: tests on a small CT, timed on a big one with ``--benchmark-enable``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.ct import Ct, make_ct, peak_memory
from benchmarks.steps import Bench
from napari_sam_med import read_labels

BIG, SMALL = (512, 512, 300), (96, 80, 24)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Bench:
    timed = request.config.getoption("benchmark_enable", default=False)
    return Bench(make_ct(tmp_path_factory.mktemp("ct"), BIG if timed else SMALL))


def test_read(benchmark: BenchmarkFixture, bench: Bench) -> None:
    assert benchmark(bench.read).shape == bench.volume.shape


def test_embed(benchmark: BenchmarkFixture, bench: Bench) -> None:
    assert benchmark(bench.embed).original_size == bench.mask.shape


def test_predict(benchmark: BenchmarkFixture, bench: Bench) -> None:
    assert benchmark(bench.predict).best_mask.shape == bench.mask.shape


def test_click_to_painted_mask(benchmark: BenchmarkFixture, bench: Bench) -> None:
    benchmark(bench.click_to_mask)
    assert not bench.labels.data.any()


def test_propagate(benchmark: BenchmarkFixture, bench: Bench) -> None:
    assert benchmark(bench.propagate, 3) <= 3


def test_export(benchmark: BenchmarkFixture, bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "labels.nii.gz"
    benchmark(bench.export, path)
    assert (read_labels(path).data == bench.truth).all()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Ct:
    """Large beside what else a process holds."""
    return make_ct(tmp_path_factory.mktemp("large"), (256, 256, 256))


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module measures memory, Windows has none")
@pytest.mark.parametrize(("step", "most"), [("read", 2.4), ("export", 2.4)])
def test_memory_stays_within_a_few_copies(step: str, most: float, large: Ct) -> None:
    """Not a copy more than is needed, whatever the size."""
    assert peak_memory(step, large.path) <= most * large.array_bytes
