"""Torch's libraries come before torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libraries are preloaded on Linux only")
def test_libraries_are_loaded_without_torch_and_torch_imports_after_them() -> None:
    code = (
        "import sys; from napari_sam_med.session.preloading import preload_torch_libraries as preload; "
        "assert preload() == 2; assert 'torch' not in sys.modules; "
        "import torch; assert torch.ones(2).sum() == 2; assert preload() == 0"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_imports_are_set_aside_once() -> None:
    code = (
        "import gc; from napari_sam_med.session.preloading import set_imports_aside as aside; "
        "assert aside(); known = gc.get_freeze_count(); assert known > 1000; "
        "more = [[] for _ in range(100)]; assert not aside(); assert gc.get_freeze_count() <= known"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
