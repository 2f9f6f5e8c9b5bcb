"""What goes from the graphics card."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from qtpy.QtGui import QOpenGLContext
from qtpy.QtWidgets import QApplication
from vispy.gloo import glir

from tests.gui.desk import Desk
from tests.gui.experiments_desk import (  # noqa: F401  fixtures
    PanelDesk,
    model_that_answers,
    panels,
)


@pytest.fixture
def deleted(monkeypatch: pytest.MonkeyPatch) -> list[QOpenGLContext | None]:
    """The contexts in which programs were deleted."""
    contexts: list[QOpenGLContext | None] = []
    plain = glir.GlirProgram.delete

    def delete(self: glir.GlirProgram) -> None:
        contexts.append(QOpenGLContext.currentContext())
        plain(self)

    monkeypatch.setattr(glir.GlirProgram, "delete", delete)
    return contexts


def test_it_goes_in_the_context_that_drew_it(desk: Desk, deleted: list[QOpenGLContext | None]) -> None:
    own = desk.native.context()
    desk.native.doneCurrent()
    desk.viewer.layers.remove(desk.bridge.image_layer)
    desk.settle()
    assert deleted
    assert all(context is own for context in deleted)


def test_a_frame_follows_when_all_layers_have_gone(desk: Desk, deleted: list[QOpenGLContext | None]) -> None:
    """Where another context deletes them, this ends Python where Mesa draws."""
    desk.viewer.layers.select_all()
    desk.viewer.layers.remove_selected()
    desk.settle()
    assert desk.viewer.screenshot(flash=False).size
    assert deleted
    assert all(context is desk.native.context() for context in deleted)


def test_the_experiments_panel_alone_sees_to_it_too(
    make_panel: Callable[..., PanelDesk], deleted: list[QOpenGLContext | None]
) -> None:
    viewer = make_panel().viewer
    QApplication.processEvents()
    viewer.layers.clear()
    own = viewer.window._qt_viewer.canvas.native.context()
    assert deleted
    assert all(context is own for context in deleted)


def test_a_window_that_was_closed_is_left_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = desk.viewer.window._qt_viewer.canvas._scene_canvas
    asked: list[str] = []
    monkeypatch.setattr(scene, "set_current", lambda: asked.append("current"))
    monkeypatch.setattr(scene.context.glir, "command", lambda *_: asked.append("command"))
    scene.context.finish()
    assert asked[0] == "current"
    desk.viewer.close()
    desk.settle()
    asked.clear()
    scene.context.finish()
    assert not asked
