"""Loading torch without holding up other threads, then and later.

``import torch`` on a worker thread holds Python's lock while the system loads some hundred megabytes of
libraries, and with it the main thread: 0.55 s measured. Asked through ctypes, which lets the lock go, the
system loads them first, and the import finds them loaded: 0.1 s remain.

Later, Python's search for garbage goes through all objects of all modules that were imported, 600,000 beside
napari and torch: 0.3 s each time that napari removes a layer, and now and then in between. They are no
garbage as long as the program runs, so that they are set aside.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

__all__ = ["preload_torch_libraries", "set_imports_aside"]

# as torch itself does it: the first one makes its symbols known to the libraries after it
_LIBRARIES = (("libtorch_global_deps.so", "RTLD_GLOBAL"), ("libtorch_python.so", "RTLD_LOCAL"))

_set_aside = threading.Event()


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


def set_imports_aside() -> bool:
    """Keep the search for garbage from what is there now; once, when all is imported and no model made yet.

    What is in a circle of references by now stays in memory: of napari's layers those of the first scan, if
    they were shown before and are removed by hand. It is not taken back later: where that was tried, while
    layers went, the program crashed once beside software OpenGL, for reasons not found.

    Returns
    -------
    bool
        Whether it was done now, and not before.
    """
    if _set_aside.is_set():
        return False
    _set_aside.set()
    gc.freeze()
    return True
