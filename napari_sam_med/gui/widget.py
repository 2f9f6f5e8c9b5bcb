"""The dock widget: sections one below the other, a status line, and the end of it all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, ClassVar, Self
from weakref import WeakSet

from napari.components import ViewerModel
from napari.layers import Image
from napari.viewer import current_viewer
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import QFrame, QGridLayout, QLabel, QMainWindow, QScrollArea, QVBoxLayout, QWidget

from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import Foldable, InputManners, button
from napari_sam_med.gui.disk_panel import DiskPanel
from napari_sam_med.gui.docked import Docked
from napari_sam_med.gui.embedding_bar import EmbeddingBar
from napari_sam_med.gui.experiments import opening_experiments
from napari_sam_med.gui.export_panel import ExportPanel
from napari_sam_med.gui.find_panel import FindPanel
from napari_sam_med.gui.housekeeping import Housekeeping
from napari_sam_med.gui.keybindings import SHORTCUTS, KeyBindings
from napari_sam_med.gui.layer_bridge import Tool
from napari_sam_med.gui.learn_panel import LearnPanel
from napari_sam_med.gui.leaving import Leaving
from napari_sam_med.gui.model_panel import ModelPanel
from napari_sam_med.gui.organ_panel import HIGHEST_LIST, LOWEST_LIST, OrganPanel
from napari_sam_med.gui.prompt_panel import PromptPanel
from napari_sam_med.gui.propagation_panel import PropagationPanel
from napari_sam_med.gui.recovery_bar import RecoveryBar
from napari_sam_med.gui.review_bar import ReviewBar
from napari_sam_med.gui.settings import Settings
from napari_sam_med.gui.status_line import StatusLine
from napari_sam_med.gui.volume_panel import VolumePanel
from napari_sam_med.gui.work_list_panel import WorkListPanel, folder_button
from napari_sam_med.session.experiment_jobs import catalogue

__all__ = ["DOCK_NAME", "SamMedWidget"]

DOCK_NAME = "SAM Med (SAM Med)"
"""As napari's Plugins menu names it, so that there is one of them, whichever way it was opened."""
_MIN_WIDTH = 320
_OPENING = "Opening Experiments…"
_LOW_SCREEN = 800
"""Pixels of a screen's height below which a section shows at first what a first mask needs."""
_BESIDE_ORGANS = 546
"""Pixels of all that a first mask needs besides the list of organs."""


class SamMedWidget(Docked):
    """Prompt, look, accept, carry, export.

    One whose dock was closed over work that was not exported waits: a new one of its viewer is that one.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Given by napari; the current viewer when left out.
    """

    title = "SAM Med"
    _at_work: ClassVar[WeakSet[SamMedWidget]] = WeakSet()

    def __new__(cls, napari_viewer: ViewerModel | None = None) -> Self:
        """The one that waits in this viewer, as napari's menu makes a widget whenever it docks one."""
        known = cls.at_work_on(_viewer_itself(napari_viewer))
        return known if known is not None and known.waits and isalive(known) else super().__new__(cls)

    def __init__(self, napari_viewer: ViewerModel | None = None) -> None:
        if "actions_" in vars(self):  # it has waited
            return
        super().__init__()
        viewer = _viewer_itself(napari_viewer)
        self.actions_ = Actions(viewer, Settings.load(), self)
        self.volume_panel = VolumePanel(self.actions_)
        self.model_panel = ModelPanel(self.actions_)
        self.organ_panel = OrganPanel(self.actions_)
        self.prompt_panel = PromptPanel(self.actions_)
        self.find_panel = FindPanel(self.actions_)
        self.propagation_panel = PropagationPanel(self.actions_)
        self.export_panel = ExportPanel(self.actions_)
        self.learn_panel = LearnPanel(self.actions_)
        self.disk_panel = DiskPanel(self.actions_)
        self.disk_panel.models_cleared.connect(self.model_panel.refresh)
        self.review_bar = ReviewBar(self.actions_)
        self.embedding_bar = EmbeddingBar(self.actions_)
        self.recovery_bar = RecoveryBar(self.actions_.keeping)
        self.leaving = Leaving(self.actions_.keeping, self.export_panel, self.export_panel.ask)
        self.actions_.work_list.ask = self.leaving.may_leave
        self.actions_.may_leave = self.actions_.work_list.may_leave
        self.work_list_panel = WorkListPanel(self.actions_)
        self.folder_button = folder_button(self.actions_)
        self.volume_panel.add_detail(self.folder_button)
        self._compose()
        self._keys = KeyBindings(viewer, self.actions_, self.propagation_panel.carry)
        self._is_stopped = False
        self._tool: Tool | None = None
        self._at_work.add(self)
        self._watch_the_end()
        self.actions_.bridge.layers_changed.connect(self._open_only_image)
        self._is_opening = False
        self._open_timer = QTimer(self)
        self._open_timer.setSingleShot(True)
        self._open_timer.timeout.connect(self._open_now)
        self._open_only_image()
        work_list = self.actions_.work_list
        for signal in (self.actions_.bridge.scan_removed, self.actions_.exported, work_list.changed):
            signal.connect(self.end_waiting, Qt.ConnectionType.QueuedConnection)
        self._housekeeping = Housekeeping(self)
        self.actions_.bridge.layers_changed.connect(self._housekeeping.soon)
        self.actions_.progress.connect(self._housekeeping.soon)

    @classmethod
    def at_work_on(cls, viewer: ViewerModel) -> SamMedWidget | None:
        """The widget that works in a viewer; None where there is none."""
        for one in cls._at_work:
            with suppress(ReferenceError):  # its viewer is gone
                if one.actions_.bridge.viewer is viewer:
                    return one
        return None

    def _compose(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(5, 4, 5, 6)
        column.setSpacing(5)
        for panel in (
            self.volume_panel,
            self.model_panel,
            self.organ_panel,
            self.prompt_panel,
            self.find_panel,
            self.propagation_panel,
            self.export_panel,
        ):
            column.addWidget(panel)
        column.addWidget(self.learn_panel)
        self.experiments = button(
            "Experiments…",
            "Which prompt works, for which organ, with which model? Measured on your own labels.",
            self._open_experiments,
        )
        column.addWidget(self.experiments)
        column.addWidget(self._shortcut_list())
        column.addWidget(self.disk_panel)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidget(content)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        self._scroll, self._content = scroll, content
        scroll.viewport().installEventFilter(self)
        self._fold_on_a_low_screen()
        content.installEventFilter(self)
        self._fit()
        self.status = StatusLine(self.actions_)
        self._manners = InputManners(content, self.actions_.bridge.give_keyboard_to_canvas)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 4)
        outer.setSpacing(3)
        outer.addWidget(self.work_list_panel)
        outer.addWidget(scroll, 1)
        outer.addWidget(self.recovery_bar)
        outer.addWidget(self.review_bar)
        outer.addWidget(self.embedding_bar)
        outer.addWidget(self.status)

    def _fit(self) -> None:
        """As wide as the content needs, so that nothing is cut off; fonts and theme decide."""
        bar = max(
            self._scroll.verticalScrollBar().sizeHint().width(),
            self._scroll.width() - self._scroll.viewport().width() if self._scroll.isVisible() else 0,
        )
        self.setMinimumWidth(max(_MIN_WIDTH, self._content.minimumSizeHint().width() + bar))

    def _fold_on_a_low_screen(self) -> None:
        """Leave to the first mask what room there is; the rest is a click away."""
        screen = self.screen()
        if screen is not None and screen.availableGeometry().height() < _LOW_SCREEN:
            self.volume_panel.fold.set_folded(True)
            self.organ_panel.fold.set_folded(True)

    def _share_height(self) -> None:
        """Give the organs the height that is left beside what the first mask needs."""
        others = self._scroll.viewport().height() - _BESIDE_ORGANS
        self.organ_panel.tree.setFixedHeight(min(HIGHEST_LIST, max(LOWEST_LIST, others)))

    def _shortcut_list(self) -> Foldable:
        body = QWidget()
        grid = QGridLayout(body)
        grid.setContentsMargins(6, 2, 6, 2)
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(3)
        lines = [(shortcut.label, shortcut.text) for shortcut in SHORTCUTS]
        lines.insert(8, ("Alt/Ctrl-click", "point of the other sign"))
        for number, (keys, text) in enumerate(lines):
            key_label = QLabel(keys)
            key_label.setStyleSheet("font-weight: bold;")
            grid.addWidget(key_label, number, 0)
            meaning = QLabel(text)
            meaning.setWordWrap(True)
            grid.addWidget(meaning, number, 1)
        grid.setColumnStretch(1, 1)
        made = Foldable("Shortcuts")
        made.put(body)
        settings = self.actions_.settings
        if settings.shows_shortcuts:
            made.expand(animate=False)
        made.toggled.connect(lambda is_open: settings.remember(shows_shortcuts=bool(is_open)))
        return made

    def _open_experiments(self) -> None:
        """Once what it imports is there: beside that, docking a panel takes the window twice as long."""
        bridge = self.actions_.bridge

        def opening() -> Iterator[None]:
            try:
                yield from opening_experiments(bridge.viewer)
            finally:
                if isalive(self.status):
                    self.status.end_work(_OPENING)

        def opened(_: object) -> None:
            bridge.turns.add(opening())

        self.actions_.status.emit(_OPENING)
        self.actions_.workers.start(catalogue(), "strategies", returned=opened, failed=opened)

    def _open_only_image(self) -> None:
        """Start on the image that is there, without being asked."""
        if self.actions_.session.volume is None and not self.actions_.scans.is_loading:
            self._open_timer.start(0)

    def _open_now(self) -> None:
        if not self._is_opening:
            self._is_opening = True
            self.actions_.bridge.turns.add(self._opening())  # layers of a scan before may be on their way out

    def _opening(self) -> Iterator[None]:
        self._is_opening = False
        images = self.actions_.bridge.layers_of_type(Image)
        if images and self.actions_.session.volume is None and not self.actions_.scans.is_loading:
            fitting = [layer for layer in images if not layer.rgb and layer.ndim in (2, 3)]
            if fitting:
                self.actions_.open_scan(fitting[0], self.actions_.bridge.labels_of_work(fitting[0]))
        yield

    # closed and opened again

    def _is_needed(self) -> bool:
        """Whether the scan has work that is in no exported file."""
        actions = self.actions_
        if self._is_stopped or actions.session.volume is None:
            return False
        return actions.keeping.has_unexported_work or actions.work_list.needs_saving

    def _leave_dock(self) -> None:
        """What a job has done by now is work too."""
        if not self._is_stopped:
            self.actions_.carrying.end_now()
            self.actions_.cancel()
        super()._leave_dock()

    def _begin_to_wait(self) -> None:
        self._keys.release()
        self.actions_.finding.chooser.leave()
        bridge = self.actions_.bridge
        self._tool = bridge.tool
        if self._tool is not None:  # else another layer of the user's is at hand
            bridge.set_tool("pan")  # so that no click draws what is not seen to be a prompt
        self.status.remind("Not exported yet: open SAM Med again.")  # as much as napari's notification shows

    def _go_on(self) -> None:
        self.status.clear_canvas()
        bridge = self.actions_.bridge
        shown = (bridge.image_layer, bridge.labels_layer, bridge.points_layer, bridge.boxes_layer)
        for provider in (bridge.viewer, *shown):
            if provider is not None:
                self._keys.bind(provider)
        if self._tool is not None and bridge.tool == "pan":
            bridge.set_tool(self._tool)

    def _end_with_dock(self) -> None:
        """The layers for prompts go as well: what they show is in the journal."""
        bridge = self.actions_.bridge
        own = [one for one in bridge.own_layers if one is not None and one.metadata.get("sam_med_own")]
        super()._end_with_dock()
        for layer in own:
            bridge.remove(layer)

    # the end

    def _watch_the_end(self) -> None:
        # a bound method would be disconnected before `destroyed` reaches it; the closure holds no widget
        actions, keys = self.actions_, self._keys

        def end(*_: object) -> None:
            with suppress(RuntimeError):
                keys.release()
                actions.stop()

        self._end = end
        self.destroyed.connect(end)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802  Qt's name
        """Fit the width to the content, too."""
        scroll = getattr(self, "_scroll", None)  # also asked when half is gone
        if event.type() == QEvent.Type.Resize and scroll is not None and watched is scroll.viewport():
            self._share_height()
        is_layout = event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.StyleChange)
        if is_layout and watched is getattr(self, "_content", None):
            self._fit()
        return super().eventFilter(watched, event)

    def _may_close(self, window: QMainWindow) -> bool:
        """Ask where work was not exported; not a script that closes the viewer, half of which is gone."""
        canvas = getattr(window, "_qt_viewer", None)
        is_by_hand = canvas is None or not canvas.isHidden()
        if self._is_stopped or not is_by_hand:
            return True
        if not getattr(window, "_quit_app", False):
            return self.actions_.may_leave("Close", window.close)
        # afterwards napari closes the other windows as a script would, past any question
        others = [widget for widget in self._at_work if widget is not self]
        return all(
            widget.actions_.may_leave("Quit", lambda: window.close(quit_app=True))
            for widget in (self, *others)
        )

    def stop(self) -> None:
        """Stop the threads and let go of the viewer; safe to call twice."""
        if not self._is_stopped:
            self._is_stopped = True
            self._at_work.discard(self)
            self.status.stop()
            self.disk_panel.stop()
            self.find_panel.detach()
            self._open_timer.stop()
            self._housekeeping.stop()
            self._end()


def _viewer_itself(given: ViewerModel | None) -> Any:
    """The viewer, current when none is given; None where there is none.

    napari hands plugins a proxy that nobody else keeps: a weak reference to it would be dead at once.
    """
    viewer = current_viewer() if given is None else given
    return getattr(viewer, "__wrapped__", viewer)
