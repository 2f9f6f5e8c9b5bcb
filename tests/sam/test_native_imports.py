"""Opening a SAM model after napari has drawn something must not crash the process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from napari_sam_med.sam import native_imports
from tests.sam.fresh_process import output_of

_WITH_OPENGL = """
import sys
from PyQt6.QtGui import QGuiApplication, QOffscreenSurface, QOpenGLContext

app = QGuiApplication([])
context = QOpenGLContext()
surface = QOffscreenSurface()
surface.create()
if not context.create() or not context.makeCurrent(surface):
    sys.exit(77)
maps = open("/proc/self/maps").read()
software = any(name in maps for name in ("libLLVM", "swrast", "gallium"))
print("software" if software else "hardware", flush=True)
"""
_THEN_SAM = """
from napari_sam_med.sam.architectures.tiny_vit import build_mobile_sam
from napari_sam_med.sam.native_imports import import_segment_anything
build_mobile_sam()
print("loaded", import_segment_anything().__name__, sys.modules.get("triton"), flush=True)
"""
_THEN_TRAIN = """
import torch
from napari_sam_med import load_predictor
predictor = load_predictor("nano", device="cpu")
optimizer = torch.optim.AdamW(predictor.network.parameters())
optimizer.step()
print("loaded", flush=True)
"""

needs_display = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("xvfb-run") is None, reason="xvfb-run is not installed"
)


def run_under_xvfb(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"QT_QPA_PLATFORM": "xcb", "XDG_RUNTIME_DIR": str(tmp_path)}
    environment.pop("DISPLAY", None)
    tmp_path.chmod(0o700)
    script = tmp_path / "after_opengl.py"
    script.write_text(code, encoding="utf-8")
    screen = "-screen 0 640x480x24 +extension GLX"
    command = ["xvfb-run", "-a", "-s", screen, sys.executable, str(script)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=200, check=False, cwd=Path.cwd()
    )
    if done.returncode == 77 or "could not connect to display" in done.stderr:
        pytest.skip("no OpenGL context can be made here")
    return done


@needs_display
@pytest.mark.slow
@pytest.mark.parametrize("then", [_THEN_SAM, _THEN_TRAIN], ids=["SAM", "training nano"])
def test_torch_after_software_opengl_does_not_crash(then: str, tmp_path: Path) -> None:
    pytest.importorskip("PyQt6.QtGui", reason="PyQt6 is not installed")
    done = run_under_xvfb(_WITH_OPENGL + then, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "loaded" in done.stdout


def hidden_in_a_fresh_process(before: str) -> str:
    return output_of(
        "import sys\n"
        "from pathlib import Path\n"
        "from napari_sam_med.sam import native_imports\n"
        f"{before}\n"
        "print(native_imports.hide_triton_beside_software_opengl(), 'triton' in sys.modules)\n"
        "print(native_imports.hide_triton_beside_software_opengl())\n"
    )


def test_triton_is_hidden_beside_software_opengl_alone(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text("7f00-7f01 r-xp 0 08:01 1 /usr/lib/x86_64-linux-gnu/libLLVM-15.so.1\n", encoding="utf-8")
    assert hidden_in_a_fresh_process("") == "False False\nFalse\n"
    seen = hidden_in_a_fresh_process(f"native_imports._PROCESS_MAPS = Path({str(maps)!r})")
    assert seen == "True True\nTrue\n"


def test_triton_stays_where_it_was_loaded_before(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text("/usr/lib/libLLVM.so\n", encoding="utf-8")
    before = (
        "import types; sys.modules['triton'] = types.ModuleType('triton'); "
        f"native_imports._PROCESS_MAPS = Path({str(maps)!r})"
    )
    assert hidden_in_a_fresh_process(before) == "False True\nFalse\n"


def test_systems_without_process_maps_are_left_alone(tmp_path: Path) -> None:
    before = f"native_imports._PROCESS_MAPS = Path({str(tmp_path / 'none')!r})"
    assert hidden_in_a_fresh_process(before) == "False False\nFalse\n"


def test_imports_give_the_modules() -> None:
    assert native_imports.import_segment_anything().__name__ == "segment_anything"
    assert native_imports.import_timm().__name__ == "timm"
