"""Where the real and the broken volumes lie that tests read but the repository does not carry."""

from __future__ import annotations

from pathlib import Path

import pytest

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
OPEN = _DATA / "open"
BAD = _DATA / "bad"

needs_open = pytest.mark.skipif(not OPEN.is_dir(), reason=f"the open volumes are not at {OPEN}")
needs_bad = pytest.mark.skipif(not BAD.is_dir(), reason=f"the broken volumes are not at {BAD}")
