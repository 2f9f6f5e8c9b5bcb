"""Loading torch's shared libraries without holding up other threads.

``import torch`` on a worker thread holds Python's lock while the system loads some hundred megabytes of
libraries, and with it the main thread: 0.55 s measured. Asked through ctypes, which lets the lock go, the
system loads them first, and the import finds them loaded: 0.1 s remain.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["preload_torch_libraries"]

# as torch itself does it: the first one makes its symbols known to the libraries after it
_LIBRARIES = (("libtorch_global_deps.so", "RTLD_GLOBAL"), ("libtorch_python.so", "RTLD_LOCAL"))


def preload_torch_libraries() -> int:
    """Load the libraries that ``import torch`` will need; call it on a worker thread.

    Returns
    -------
    int
        Libraries that were loaded; 0 where torch is imported already or the system is not Linux.
    """
    if "torch" in sys.modules or not sys.platform.startswith("linux"):
        return 0
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return 0
    folder = Path(found.origin).parent / "lib"
    loaded = 0
    with suppress(OSError, AttributeError):  # then the import takes its usual way
        dlopen = ctypes.CDLL(None).dlopen
        dlopen.restype, dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
        for name, visibility in _LIBRARIES:
            flags = os.RTLD_LAZY | getattr(os, visibility)
            loaded += dlopen(os.fsencode(folder / name), flags) is not None
    return loaded
