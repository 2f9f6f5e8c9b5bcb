"""What napari and vispy work out anew for every viewer though it never changes, remembered from test to test.

Only texts and signatures: every viewer, widget, shader program and frame of a test is its own and real.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import FunctionType, MethodType
from typing import Any

import pytest
from napari._qt.qt_main_window import _QtMainWindow
from napari.utils.events import EventEmitter
from vispy.gloo import glir
from vispy.gloo.program import Program
from vispy.visuals.shaders.function import Function

_Remembering = tuple[Any, str, Any]
"""Whose, its name, and what takes its place."""


def remember(patch: pytest.MonkeyPatch) -> None:
    """Until ``patch`` is undone; what was found is kept for the next time."""
    for owner, name, remembering in _made():
        patch.setattr(owner, name, remembering)
    # In Python, for each of some 30,000 events of a test, about a menu bar that none of them hides.
    patch.delattr(_QtMainWindow, "eventFilter")


@cache
def _made() -> list[_Remembering]:
    convert = cache(glir._convert_desktop_shader)
    return [
        (glir, "_convert_desktop_shader", convert),
        *_cleaned_code(),
        *_declared_variables(),
        *_active_variables(),
        *_signatures(),
    ]


def _cleaned_code() -> list[_Remembering]:
    clean = Function._clean_code
    cleaned = cache(lambda code: clean(None, code))  # it asks nothing of the function
    return [(Function, "_clean_code", lambda self, code: cleaned(code))]


def _declared_variables() -> list[_Remembering]:
    """The uniforms, attributes and varyings that a program declares."""
    parse = Program._parse_variables_from_code
    found: dict[tuple[str, ...], dict[str, tuple]] = {}

    def parse_once(self: Program, update_variables: bool = True) -> None:
        code = tuple(shader.code for shader in self._shaders)
        if code not in found:
            parse(self, update_variables=False)
            found[code] = self._code_variables
        self._code_variables = dict(found[code])
        if update_variables:
            self._process_pending_variables()

    return [(Program, "_parse_variables_from_code", parse_once)]


def _active_variables() -> list[_Remembering]:
    """Which of its variables the driver left in a program, by the sources of its shaders."""
    set_data, attach = glir.GlirShader.set_data, glir.GlirProgram.attach
    ask = glir.GlirProgram._get_active_attributes_and_uniforms
    found: dict[tuple[str, ...], set[str]] = {}

    def set_data_kept(self: glir.GlirShader, offset: int, code: str) -> None:
        set_data(self, offset, code)
        self.source = code

    def attach_kept(self: glir.GlirProgram, id_: int) -> None:
        attach(self, id_)
        self.sources = tuple(shader.source for shader in self._attached_shaders)  # until it is linked

    def ask_once(self: glir.GlirProgram) -> set[str]:
        if self.sources not in found:
            found[self.sources] = ask(self)
        return set(found[self.sources])

    return [
        (glir.GlirShader, "set_data", set_data_kept),
        (glir.GlirProgram, "attach", attach_kept),
        (glir.GlirProgram, "_get_active_attributes_and_uniforms", ask_once),
    ]


def _signatures() -> list[_Remembering]:
    """Whether a callback takes the event."""
    check = EventEmitter._check_signature
    checked: dict[tuple, bool] = {}

    def check_once(callback: Callable[..., Any]) -> bool:
        function = callback.__func__ if isinstance(callback, MethodType) else callback
        if type(function) is not FunctionType or function.__dict__:  # wrapped, or with a signature of its own
            return check(callback)
        key = (function.__code__, len(function.__defaults__ or ()), function is callback)
        if key not in checked:
            checked[key] = check(callback)
        return checked[key]

    return [(EventEmitter, "_check_signature", staticmethod(check_once))]
