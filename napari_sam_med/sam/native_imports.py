"""Imports of native libraries that crash when they come in the wrong order.

Importing torchvision (hence segment_anything) pulls in torch._dynamo, which loads triton's libtriton.so. Once
Mesa's software OpenGL has mapped its own LLVM into the process (napari on a remote desktop or in a virtual
machine), that load ends in a segmentation fault. Triton is only needed by torch.compile, so it is hidden
where it would crash, and only there: without a conflict torch.compile keeps working.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

__all__ = ["hide_triton_beside_software_opengl", "import_segment_anything", "import_timm"]

_PROCESS_MAPS = Path("/proc/self/maps")
# Names under which Mesa's software renderer and the LLVM that it compiles shaders with appear in the process.
_SOFTWARE_OPENGL = ("libLLVM", "swrast", "llvmpipe", "libgallium")


def hide_triton_beside_software_opengl() -> bool:
    """Make ``import triton`` fail cleanly where it would crash the process.

    Call it before anything that may import torch._dynamo: torchvision, timm, segment_anything, the first step
    of an optimizer. Does nothing when triton is loaded already (loaded before OpenGL it is harmless), or when
    no software OpenGL is loaded.

    Returns
    -------
    bool
        Whether triton is hidden now.
    """
    if sys.modules.get("triton") is not None:
        return False
    if "triton" in sys.modules:
        return True
    if not _software_opengl_is_loaded():
        return False
    sys.modules["triton"] = None  # type: ignore[assignment]  # the import system's own way to refuse a module
    return True


def import_segment_anything() -> ModuleType:
    """Meta's `segment_anything`, imported without crashing beside software OpenGL."""
    hide_triton_beside_software_opengl()
    import segment_anything

    module: ModuleType = segment_anything
    return module


def import_timm() -> ModuleType:
    """`timm`, imported without crashing beside software OpenGL."""
    hide_triton_beside_software_opengl()
    import timm

    module: ModuleType = timm
    return module


def _software_opengl_is_loaded() -> bool:
    try:
        mapped = _PROCESS_MAPS.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux: triton is published for Linux alone, or is not affected
        return False
    return any(name in mapped for name in _SOFTWARE_OPENGL)
