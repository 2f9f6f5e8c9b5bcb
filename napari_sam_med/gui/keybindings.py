"""Every shortcut, in one table. Letters are ones that napari leaves free in all its layers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari.components import ViewerModel
from napari.layers import Layer

from napari_sam_med.gui.actions import Actions

__all__ = ["SHORTCUTS", "KeyBindings", "Shortcut"]


@dataclass(frozen=True)
class Shortcut:
    """A key, what it does, and the words for it."""

    keys: str
    text: str
    run: Callable[[Actions, Callable[[], None]], Any]
    shown: str = ""
    needs_scan: bool = True

    @property
    def label(self) -> str:
        """The key as people read it."""
        return self.shown or self.keys


SHORTCUTS: tuple[Shortcut, ...] = (
    Shortcut(
        "Enter",
        "accept mask, or take found object",
        lambda a, _: a.finding.chooser.take_pointed() or a.bridge.prompts.end_shape(True) or a.accept(),
    ),
    Shortcut("Shift-Enter", "accept as the suggested organ", lambda a, _: a.suggesting.accept()),
    Shortcut(
        "Escape",
        "clear prompts, or hide found objects",
        lambda a, _: (
            a.finding.chooser.leave()
            or a.bridge.prompts.end_shape(False)
            or a.suggesting.give_up_waiting()
            or a.clear_prompts()
        ),
        "Esc",
    ),
    Shortcut("Control-Z", "undo", lambda a, _: a.undo(), "Ctrl-Z"),
    Shortcut("Control-Shift-Z", "do again", lambda a, _: a.redo(), "Ctrl-Shift-Z"),
    Shortcut("Q", "box tool", lambda a, _: a.bridge.set_tool("box")),
    Shortcut("Shift-Q", "lasso: an outline", lambda a, _: a.bridge.set_tool("lasso")),
    Shortcut("W", "point tool", lambda a, _: a.bridge.set_tool("point")),
    Shortcut("H", "scribble: points along a stroke", lambda a, _: a.bridge.set_tool("scribble")),
    Shortcut("T", "switch between + and – points", lambda a, _: a.toggle_sign()),
    Shortcut("U", "brush", lambda a, _: a.bridge.set_tool("paint")),
    Shortcut("K", "new object of this organ", lambda a, _: a.new_object()),
    Shortcut("J", "to the found object around it", lambda a, _: a.finding.chooser.step_out()),
    Shortcut("G", "carry through slices", lambda a, carry: carry()),
    Shortcut("N", "next doubtful slice", lambda a, _: a.reviewing.go_to_next()),
    Shortcut("Shift-N", "this slice is right as it is", lambda a, _: a.reviewing.accept_slice()),
    Shortcut("Alt-1", "axial", lambda a, _: a.bridge.show_plane("axial")),
    Shortcut("Alt-2", "coronal", lambda a, _: a.bridge.show_plane("coronal")),
    Shortcut("Alt-3", "sagittal", lambda a, _: a.bridge.show_plane("sagittal")),
    Shortcut("Alt-4", "3-D", lambda a, _: a.bridge.show_in_3d()),
    Shortcut("Alt-Right", "next case of the work list", lambda a, _: a.work_list.go(1), "Alt-→", False),
    Shortcut("Alt-Left", "case before it", lambda a, _: a.work_list.go(-1), "Alt-←", False),
    Shortcut("Alt-D", "case done, on to the next", lambda a, _: a.work_list.finish(), needs_scan=False),
)


class KeyBindings:
    """Binds the shortcuts to the viewer and to the layers of the session, and takes them back.

    napari asks the active layer before the viewer: Ctrl-Z, Enter and Escape would go to napari's own
    functions on a Labels or Shapes layer, so that those layers get the bindings as well.
    """

    def __init__(self, viewer: ViewerModel, actions: Actions, carry: Callable[[], None]) -> None:
        self._actions = actions
        self._carry = carry
        self._bound: list[tuple[weakref.ref[Any], str]] = []
        self.bind(viewer)
        actions.bridge.keys_wanted.connect(self.bind)

    def bind(self, provider: ViewerModel | Layer) -> None:
        """Let the shortcuts work where this viewer or layer is asked for keys."""
        self._bound = [(bound, keys) for bound, keys in self._bound if bound() is not None]
        if any(bound() is provider for bound, _ in self._bound):
            return
        for shortcut in SHORTCUTS:
            if isinstance(provider, Layer) and not _is_shadowed(shortcut):
                continue

            def run(_: Any, shortcut: Shortcut = shortcut) -> None:
                if self._actions.bridge.frame is not None or not shortcut.needs_scan:
                    shortcut.run(self._actions, self._carry)

            provider.bind_key(shortcut.keys, run, overwrite=True)
            self._bound.append((weakref.ref(provider), shortcut.keys))

    def release(self) -> None:
        """Take every binding back."""
        for bound, keys in self._bound:
            provider = bound()
            if provider is not None:
                provider.bind_key(keys, None)
        self._bound.clear()


def _is_shadowed(shortcut: Shortcut) -> bool:
    """Whether napari's layers have a use of their own for the key."""
    return shortcut.keys in ("Enter", "Escape", "Control-Z", "Control-Shift-Z", "T")
