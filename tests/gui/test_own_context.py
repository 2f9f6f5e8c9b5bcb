"""What goes from the graphics card."""

from __future__ import annotations

import pytest
from qtpy.QtGui import QOpenGLContext
from vispy.gloo import glir

from tests.gui.desk import Desk


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
    assert QOpenGLContext.currentContext() is not own  # Qt has put the window together
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


def test_a_window_that_was_closed_deletes_nothing(desk: Desk, deleted: list[QOpenGLContext | None]) -> None:
    context = desk.viewer.window._qt_viewer.canvas._scene_canvas.context
    desk.viewer.close()
    desk.settle()
    deleted.clear()
    context.finish()
    assert not deleted
