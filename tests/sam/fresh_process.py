"""A Python of its own: for what an import does, which happens once in a process."""

from __future__ import annotations

import subprocess
import sys


def output_of(code: str) -> str:
    """Standard output of a program, which must end well."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
