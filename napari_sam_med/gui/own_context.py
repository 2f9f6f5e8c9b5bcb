"""Everything that goes from the graphics card goes in the context that drew it.

As layers are removed, napari has vispy delete what drew them at once, in whichever context of OpenGL is
current: most often the one in which Qt puts the window together. Mesa, which draws on remote desktops and in
virtual machines, then has no program for the next frame, and Python ends with a segmentation fault in
``glDrawArrays``.
"""

from __future__ import annotations

import weakref
from typing import Any

from qtpy.compat import isalive

__all__ = ["delete_in_own_context"]


def delete_in_own_context(canvas: Any) -> None:
    """Have what waits to be deleted wait for the canvas's own context; for good, safe to call again.

    Parameters
    ----------
    canvas : napari's canvas or None
        Of another napari, or without a window, nothing is done.
    """
    scene = getattr(canvas, "_scene_canvas", None)
    context = getattr(scene, "context", None)
    plain = getattr(type(context), "finish", None)
    if plain is None or "finish" in vars(context):
        return
    its_scene = weakref.ref(scene)

    def finish() -> None:
        scene = its_scene()
        if scene is not None and isalive(scene.native) and scene.native.isValid():
            scene.set_current()
            plain(scene.context)

    context.finish = finish
