"""Find: masks without a hand. What, where, a run, and the list of what was found."""

from __future__ import annotations

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QSpinBox, QVBoxLayout, QWidget

from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import Foldable, button, combo, labelled, note, row
from napari_sam_med.gui.find_list import FindList
from napari_sam_med.gui.find_options import EverythingForm, ExampleForm, WordForm
from napari_sam_med.gui.find_options import column as column_of
from napari_sam_med.gui.find_sight import is_used_elsewhere, scroll_area_of, scroll_to
from napari_sam_med.session.finding_jobs import FindingPlan
from napari_sam_med.wording import number_of

__all__ = ["FindPanel"]

_WHAT = {
    "everything": "Everything",
    "example": "One example",
    "word": "A word",
    "edges": "Edges",
    "proposals": "Proposals",
}
_INTO = {
    "suggested": "what it looks like",
    "active": "the chosen organ",
    "new": "a new organ",
}
_INTO_TIP = (
    "Where an object goes when it is clicked; the line below says so while you point at it.\n"
    "What it looks like: the guess of the list. An object without one is not taken unless you say\n"
    "what it is: choose an organ in the list of organs, and objects go there from then on. While none has\n"
    "a guess (MR, or names switched off), they go into the chosen organ."
)
_WHAT_TIP = (
    "Everything: all objects that the model sees, to choose from.\n"
    "One example: objects that look like an organ that is labelled already.\n"
    "A word: objects in order of how likely they are that organ.\n"
    "Edges: the boundaries of objects, as an image. Proposals: boxes to take as prompts."
)


class FindPanel(Foldable):
    """Shows and sets; `Finding` and `Chooser` decide."""

    def __init__(self, actions: Actions) -> None:
        super().__init__("Find")
        self._actions = actions
        self._finding = actions.finding
        self._found = actions.finding.found
        self._chooser = actions.finding.chooser
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(0, 2, 0, 6)
        column.setSpacing(6)
        self._made_of_choices(column)
        self._made_of_results(column)
        self.put(body)
        self._sight = QTimer(self)  # when the list has been laid out
        self._sight.setSingleShot(True)
        self._sight.timeout.connect(self._bring_into_sight)
        self._found.objects_changed.connect(self._on_objects)
        self._found.taken_changed.connect(self.refresh)
        self._found.pointed_changed.connect(self.refresh)
        self._chooser.changed.connect(self.refresh)
        self._finding.ended.connect(self._on_ended)
        actions.progress.connect(lambda _: self.refresh())
        actions.session.events.volume.connect(self.refresh)
        self._on_what()
        self.refresh()

    def _made_of_choices(self, column: QVBoxLayout) -> None:
        self.what = combo(_WHAT_TIP)
        for key, text in _WHAT.items():
            self.what.addItem(text, key)
        self.what.activated.connect(self._on_what)
        column.addLayout(labelled("What", self.what))
        self.where = combo(
            "The slice that is shown, or all slices of its plane: from the one that is shown outwards."
        )
        self.where.addItem("this slice", False)
        self.where.addItem("whole volume", True)
        self.where.activated.connect(self._on_what)
        self.every = QSpinBox()
        self.every.setRange(1, 50)
        self.every.setValue(4)
        self.every.setPrefix("1 in ")
        self.every.setSpecialValueText("every slice")
        self.every.setToolTip("Search one slice in so many; objects are filled in on those between.")
        column.addLayout(labelled("Where", self.where))
        self._every = QWidget()  # beside the list its text would be cut off
        column_of(self._every).addLayout(labelled("Slices", self.every))
        column.addWidget(self._every)
        self.everything, self.example, self.word = EverythingForm(), ExampleForm(), WordForm()
        self._forms = {"everything": self.everything, "example": self.example, "word": self.word}
        for form in self._forms.values():
            column.addWidget(form)
        self.word.entered.connect(self._start)
        self.start = button("Find", "Start; the bar below shows how far it is, and cancels it.", self._start)
        column.addWidget(self.start)

    def _made_of_results(self, column: QVBoxLayout) -> None:
        self._results = QWidget()
        inside = column_of(self._results)
        self.list = FindList(self._found, self._chooser)
        inside.addWidget(self.list)
        self.into = combo(_INTO_TIP)
        for key, text in _INTO.items():
            self.into.addItem(text, key)
        self.into.activated.connect(self._on_into)
        self.joins = QCheckBox("join")
        self.joins.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.joins.setToolTip("Add it to the newest object of that organ instead of making another one.")
        self.joins.toggled.connect(self._on_joins)
        self._into = QWidget()
        column_of(self._into).addLayout(labelled("Take into", self.into, self.joins))
        inside.addWidget(self._into)
        self.choose = button(
            "Choose",
            "Point at the image: the object under the mouse lights up. Click: take it.\n"
            "J: the object around it. Esc: hide the objects.",
            self._begin_or_leave,
        )
        self.choose.setCheckable(True)
        self.take = button("Take", "Take the highlighted object (Enter).", self._chooser.take_pointed)
        self.forget = button(
            "Clear", "Remove the found objects; what was taken stays in the labels.", self._chooser.clear
        )
        inside.addLayout(row(self.choose, self.take, self.forget))
        self.told = note()
        inside.addWidget(self.told)
        column.addWidget(self._results)

    # showing

    def _on_what(self, *_: object) -> None:
        self._every.setVisible(bool(self.where.currentData()))
        for what, form in self._forms.items():
            form.setVisible(what == self.what.currentData())

    def _on_ended(self) -> None:
        self.list.refresh()  # what streamed in is listed slice by slice
        self.refresh()
        self._sight.start(0)

    def _on_objects(self, view: object) -> None:
        is_first = self._results.isHidden() and not self._found.is_empty
        self.refresh()
        if is_first:
            self._sight.start(0)

    def refresh(self, *_: object) -> None:
        """Show what there is to choose from, and what can be done."""
        found, is_busy = self._found, self._actions.is_busy
        self.start.setEnabled(self._actions.session.volume is not None and not is_busy)
        self._results.setVisible(not found.is_empty)
        self._into.setVisible(not found.boxes)
        self.choose.setChecked(self._chooser.is_on)
        self.into.setCurrentIndex(self.into.findData(self._chooser.into))
        self.take.setEnabled(found.pointed is not None)
        self.forget.setEnabled(not self._finding.is_busy)
        count = len(found.boxes) or len(found.objects)
        what = number_of(count, "box" if found.boxes else "object")
        taken = f", {len(found.taken)} taken" if found.taken else ""
        so_far = " so far" if self._finding.is_busy else ""
        nothing = f" None looks like {found.word}." if found.is_nothing_like_it else ""
        self.told.setText(f"{what}{so_far}{taken}.{nothing} Not for clinical use.")
        self.told.setVisible(True)

    def _bring_into_sight(self) -> None:
        """Scroll the dock to the results, unless the user is at another section of it."""
        scroll = scroll_area_of(self)
        if scroll is None or self._results.isHidden() or self.visibleRegion().isEmpty():
            return
        if not is_used_elsewhere(scroll, self):
            scroll_to(scroll, self._results)

    # the user's clicks

    def _plan(self) -> FindingPlan:
        form = self.everything
        return self._finding.plan(
            self.where.currentData(), self.every.value(), form.grid.value(), form.names.isChecked()
        )

    def _start(self) -> None:
        what = self.what.currentData()

        def start() -> None:
            plan = self._plan()
            if what == "example":
                given = self.example.given(self._actions.session, plan.view)
                self._finding.find_like(plan, given)
            elif what == "word":
                self._finding.find_word(plan, self.word.word.text())
            elif what == "edges":
                self._finding.find_edges(plan)
            elif what == "proposals":
                self._finding.find_boxes(plan)
            else:
                self._finding.find_everything(plan)

        self._actions.attempt(start)
        self._actions.bridge.give_keyboard_to_canvas()

    def _on_into(self, *_: object) -> None:
        self._chooser.take_into(self.into.currentData())

    def _on_joins(self, joins: bool) -> None:
        self._chooser.joins = joins

    def _begin_or_leave(self) -> None:
        if self._chooser.is_on:
            self._chooser.leave()
        else:
            self._chooser.begin()
        self.refresh()

    def detach(self) -> None:
        """Stop listening, for the end of the widget."""
        self._sight.stop()
        self.list.detach()
        self._found.objects_changed.disconnect(self._on_objects, missing_ok=True)
        self._found.taken_changed.disconnect(self.refresh, missing_ok=True)
        self._found.pointed_changed.disconnect(self.refresh, missing_ok=True)
