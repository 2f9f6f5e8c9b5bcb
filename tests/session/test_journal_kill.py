"""What SIGKILL at any moment leaves; `benchmarks/journal.py` does the same 200 times."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.journal import kill_once

N_KILLS = 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1000 + N_KILLS))
def test_s01_a_kill_loses_the_last_action_or_second_at_most(seed: int, tmp_path: Path) -> None:
    """Safety contract, statement 1: what comes back is a state there was, a second ago at worst."""
    kill = kill_once(tmp_path, seed)
    assert not kill.is_corrupt
    assert kill.n_lost <= 1 or kill.seconds_lost <= 1.0
