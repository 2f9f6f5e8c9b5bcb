"""One viewer of napari for many tests, one after the other.

Making a viewer and taking it down is a quarter of a short test. Each test gives it back empty; unless it is
then as it was when it was new, the next test gets another.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any
from unittest.mock import patch

import pytest
from app_model import Application
from napari import Viewer
from napari._app_model._app import NapariApplication, _napari_names
from napari._qt import qt_main_window
from napari._qt._qapp_model.qactions import init_qactions
from napari._qt.dialogs.qt_notification import NapariQtNotification
from napari._qt.qt_viewer import QtViewer
from napari.plugins import _initialize_plugins
from napari.settings import get_settings
from pytestqt.qtbot import QtBot
from qtpy.compat import isalive
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication, QTabBar, QWidget

__all__ = ["SpareViewer"]

_SIZE = 900, 700  # software OpenGL draws a small canvas sooner
_MOST_TESTS = 40
_CAMERA = "center", "zoom", "angles", "perspective", "orientation"
_DIMS = "ndisplay", "order", "axis_labels", "units"
_LEFT_OVER = "_brush_circle", "_zoom_box"
"""Overlays that are placed whenever they are shown."""
_numbers = count(1)


class SpareViewer:
    """Kept for as long as it is as good as new."""

    def __init__(self) -> None:
        self._viewer: Viewer | None = None
        self._app: NapariApplication | None = None
        self._as_new: dict[str, object] = {}
        self._tests = 0
        self._given_up: list[weakref.ref[QtViewer]] = []

    @contextmanager
    def lent(
        self, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[tuple[Callable[[], Viewer], list[str]]]:
        """For one test: what gives a shown viewer, the spare one first, and an empty list; what is written
        into it is a reason why no other test gets that viewer.
        """
        assert not self._leaked(), "Something keeps the viewer of a test before this one, which was closed."
        reasons: list[str] = []
        others: list[Viewer] = []
        is_lent = False
        _keep_quiet(monkeypatch)

        def give() -> Viewer:
            nonlocal is_lent
            if is_lent:
                others.append(_made(qtbot))
                return others[-1]
            is_lent = True
            return self._given(qtbot)

        with self._own_app():
            yield give, reasons
            try:
                while others:
                    self._close(others.pop(), reasons)
                if is_lent:
                    self._tests += 1
                    self._empty()
                    if self._tests == _MOST_TESTS or not self._is_as_new():
                        self.drop()
            except BaseException:
                reasons.append("it could not be emptied")
                raise
            finally:
                if reasons:
                    self.drop(reasons)

    def drop(self, reasons: Sequence[str] = ()) -> None:
        """Close it: the next test gets a new one."""
        viewer, self._viewer = self._viewer, None
        app, self._app = self._app, None
        try:
            if viewer is not None:
                self._close(viewer, reasons)
                # one whose window the test closed may stay in memory: a quit would close it again
                Viewer._instances.discard(viewer)
                gc.unfreeze()  # what was set aside since it was made has to go with it
                del viewer
                _delete_what_is_due()
                gc.collect()
        finally:
            if app is not None:
                app.menus.menus_changed.disconnect()  # menus of a window that the test closed are deleted
                Application.destroy(app.name)

    def _close(self, viewer: Viewer, reasons: Sequence[str]) -> None:
        if _is_open(viewer):
            if not reasons:
                self._given_up.append(weakref.ref(viewer.window._qt_viewer))
            with patch.object(viewer.window._qt_window, "_save_current_window_settings"):
                viewer.close()

    def _leaked(self) -> bool:
        given_up, self._given_up = self._given_up, []
        if any(one() is not None for one in given_up):
            _delete_what_is_due()
            gc.unfreeze()
            gc.collect()
        return any(one() is not None for one in given_up)

    @contextmanager
    def _own_app(self) -> Iterator[None]:
        """napari's commands, apart from those of the viewers of other tests."""
        if self._app is None:
            _initialize_plugins.cache_clear()
            init_qactions.cache_clear()
            self._app = NapariApplication(f"spare_{next(_numbers)}")
            self._app.injection_store.namespace = _napari_names
        with patch.object(NapariApplication, "get_app_model", return_value=self._app):
            yield

    def _given(self, qtbot: QtBot) -> Viewer:
        if self._viewer is None:
            self._viewer, self._tests = _made(qtbot), 0
            self._as_new = _state(self._viewer)
        else:
            window = self._viewer.window._qt_window
            with qtbot.waitExposed(window):
                window.show()
            self._viewer.window.activate()
        return self._viewer

    def _empty(self) -> None:
        assert self._viewer is not None
        if not _is_open(self._viewer):  # the test closed it
            return
        window = self._viewer.window
        canvas = window._qt_viewer.canvas
        window._qt_window.hide()
        for dock in list(window._wrapped_dock_widgets.values()):
            if dock.name in window.dock_widgets:
                inner = dock.inner_widget() if hasattr(dock, "inner_widget") else dock.widget()
                window.remove_dock_widget(dock)
                inner.deleteLater()
        self._viewer.layers.clear()
        self._viewer.reset_view()
        for model, names in ((self._viewer.scene.camera, _CAMERA), (self._viewer.dims, _DIMS)):
            model.update({name: getattr(type(model)(), name) for name in names})
        vars(canvas._scene_canvas.context).pop("finish", None)  # see gui/own_context.py: each widget's own
        for bubble in canvas.native.findChildren(NapariQtNotification):
            if bubble in NapariQtNotification._instances:
                NapariQtNotification._instances.remove(bubble)
            bubble.deleteLater()
        with suppress(AttributeError):
            get_settings().reset()
        window.resize(*_SIZE)
        _delete_what_is_due()

    def _is_as_new(self) -> bool:
        assert self._viewer is not None
        if not _is_open(self._viewer) or _state(self._viewer) != self._as_new:
            return False
        # napari notifies none that was asked to close, even if it did not
        return self._viewer.window._qt_window in qt_main_window._QtMainWindow._instances


def _made(qtbot: QtBot) -> Viewer:
    get_settings().reset()
    viewer = Viewer(show=True, show_welcome_screen=False)
    with qtbot.waitExposed(viewer.window._qt_window):
        viewer.window.resize(*_SIZE)
    QtViewer._instances.discard(viewer.window._qt_viewer)  # else `make_napari_viewer` says it was not cleaned
    return viewer


def _is_open(viewer: Viewer) -> bool:
    window = getattr(viewer.window, "_qt_window", None)
    return window is not None and bool(isalive(window))


def _delete_what_is_due() -> None:
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def _keep_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `make_napari_viewer` does: no warning about Qt, no thread for the status line, no console."""

    def console(*_: object) -> QWidget:
        widget = QWidget()
        widget._update_theme = lambda event=None: None
        return widget

    monkeypatch.setattr(qt_main_window, "SHOW_QT_WARNING", False)
    monkeypatch.setattr("napari._qt.threads.status_checker.StatusChecker.start", lambda self: None)
    monkeypatch.setattr(QtViewer, "_get_console", console)


def _state(viewer: Viewer) -> dict[str, object]:
    """What a test could leave behind: settings of the viewer, docks, keys, and who listens."""
    left_out = {"layers", "cursor", "status", "mouse_over_canvas"}
    settings: dict[str, Any] = dict(viewer.model_dump(exclude=left_out))
    canvas = settings["canvas"] = dict(settings["canvas"])
    overlays = canvas["overlays"] = dict(canvas["overlays"])
    for of_no_weight, name in ((canvas, "size"), *((overlays, name) for name in _LEFT_OVER)):
        of_no_weight.pop(name, None)
    window, qt_viewer = viewer.window._qt_window, viewer.window._qt_viewer
    listened_to = (viewer, viewer.dims, viewer.cursor, viewer.layers, viewer.layers.selection)
    return {
        **{name: repr(value) for name, value in settings.items()},
        "cursor": viewer.cursor.style,
        "docks": list(viewer.window.dock_widgets),
        "keys": repr(viewer.keymap),
        "mouse": (
            [*viewer.mouse_drag_callbacks, *viewer.mouse_move_callbacks],
            [*viewer.mouse_wheel_callbacks, *viewer.mouse_double_click_callbacks],
        ),
        "listeners": [
            (name, sorted(map(_name_of, emitter.callbacks)))
            for model in listened_to
            for name, emitter in model.events.emitters.items()
            if name != "mouse_over_canvas"  # the brush's circle, which is made when it is first shown
        ],
        "widgets": sorted(
            f"{type(child).__name__} {child.objectName()}"
            for child in window.children()
            if not isinstance(child, QTabBar)  # Qt keeps those of docks that lie on one another
        ),
        "seen": [
            (widget.isHidden(), widget.updatesEnabled())
            for widget in (qt_viewer.canvas.native, qt_viewer.dockLayerList, qt_viewer.dockLayerControls)
        ],
        "over the canvas": len(qt_viewer.canvas.native.children()),
        "drawn": len(qt_viewer.canvas.view.scene.children),
        "updates": window.updatesEnabled(),
        "window": window.windowState(),
    }


def _name_of(callback: Any) -> str:
    return str(callback[1]) if isinstance(callback, tuple) else getattr(callback, "__qualname__", "")
