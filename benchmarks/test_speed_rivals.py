"""Our side of the comparison, and the way to a rival, which is played by a small script here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.rivals import ENVIRONMENT, NO_LIMITS, Ours, Rival, Scan, made_up_scan
from benchmarks.speed_rivals import Amount, beside_micro_sam, beside_napari_sam, rows
from napari_sam_med import load_predictor

SIDE = 64
FAKE = """
import numpy as np
from benchmarks.rival_serving import serve, timed

def load(setting):
    print("what a rival prints is no answer")
    volume, masks = np.load(setting["volume"]), np.load(setting["masks"])

    def embed(n_slices, store=None):
        found, facts = timed(lambda: volume[:n_slices].sum())
        if store is not None:
            facts["features"] = store + ".npy"
            np.save(facts["features"], np.ones((1, 1, 1, 1), np.float32))
        return facts | {"bytes": 1000, "slices": n_slices}

    def carry(n_slices, keys, stop, store=None):
        found, facts = timed(lambda: masks[: len(keys)].sum())
        return facts | {"first": 0, "last": n_slices - 1, "filled": n_slices}

    def click(index, x, y):
        found, facts = timed(lambda: volume[index].max())
        return facts | {"pixels": 1}

    return {"embed": embed, "carry": carry, "embed_and_carry": carry, "click": click}

serve(PACKAGE, load)
"""


@pytest.fixture(scope="module")
def scan() -> Scan:
    return made_up_scan(4, SIDE)


@pytest.fixture(scope="module")
def ours(scan: Scan) -> Ours:
    return Ours(load_predictor("nano", device="cpu"), scan)


def rival(scan: Scan, folder: Path, program: str) -> Rival:
    return Rival([sys.executable, "-c", program], scan.written(folder), folder / "log.txt")


def test_without_an_environment_it_is_said_how_to_make_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert not list(rows("cpu", quick=True))
    said = capsys.readouterr().out
    assert "pip install micro-sam napari-sam" in said
    assert f"{ENVIRONMENT}=" in said
    assert said.count("\n") == 1


def test_no_slice_is_like_another_and_all_have_both_ends_of_the_window(scan: Scan) -> None:
    assert len({data.tobytes() for data in scan.data}) == 4
    assert (scan.data.min(axis=(1, 2)) == 0).all()
    assert (scan.data.max(axis=(1, 2)) == 255).all()


def test_our_side_does_what_it_is_timed_for(ours: Ours, tmp_path: Path) -> None:
    assert ours.embed(3, tmp_path / "store")["slices"] == 3
    assert ours.embed_in_memory(4)["slices"] == 4
    assert ours.carry(6, 4, [0, 5], **NO_LIMITS)["filled"] == 6
    assert ours.embed_and_carry(4, [0, 3], tmp_path / "empty")["filled"] == 4
    assert ours.click(1, SIDE / 2, SIDE / 2)["pixels"] > 0


def test_every_row_comes_from_a_rival_in_a_process_of_its_own(ours: Ours, scan: Scan, tmp_path: Path) -> None:
    amount = Amount(embedded=4, carried=6, turns=1, clicks=1, side=SIDE)
    with rival(scan, tmp_path, FAKE.replace("PACKAGE", "'numpy'")) as fake:
        found = [*beside_micro_sam(ours, fake, amount, tmp_path), *beside_napari_sam(ours, fake, amount)]
    assert len(found) == 8
    assert all(row.ours > 0 and row.theirs > 0 for row in found)
    assert "6 slices have a mask" in found[2].note
    assert "numpy" not in found[0].against
    assert fake.version is not None
    assert fake.version in found[0].against
    assert "no answer" in (tmp_path / "log.txt").read_text()


def test_a_rival_that_is_not_installed_has_no_version(scan: Scan, tmp_path: Path) -> None:
    with rival(scan, tmp_path, FAKE.replace("PACKAGE", "'no-such-rival'")) as fake:
        assert fake.version is None


def test_what_a_rival_says_before_it_ends_is_told(scan: Scan, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"ended:\n.*it cannot be loaded"),
        rival(scan, tmp_path, "raise SystemExit('it cannot be loaded')"),
    ):
        pass
