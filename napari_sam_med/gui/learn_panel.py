"""Learn from your own volumes: cases, recipe, cost, run, curves, and the table before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHeaderView,
    QLineEdit,
    QMenu,
    QProgressBar,
    QSpinBox,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_sam_med.evaluation.cases import Case
from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import Foldable, button, combo, labelled, narrow_button, note, row
from napari_sam_med.gui.curves import CurvePlot
from napari_sam_med.gui.run_progress import duration
from napari_sam_med.gui.training_cases import is_judged
from napari_sam_med.training.own_models import Plan, score_rows

__all__ = ["LearnPanel"]

_CASE = Qt.ItemDataRole.UserRole
_BAR_STEPS = 1000
_PROMPTS = {
    "bound_box": "box",
    "larger_box": "box 5 px larger",
    "larger_box:5": "box 5 px larger",
    "jittered_box:0.1": "box off by 10 %",
    "center_distance": "click in the middle",
    "random_mask": "click anywhere",
    "random_3": "3 clicks",
}
_SCORED_ON = {
    "val and test cases": "the volumes that are only judged",
    "slices held out of the training cases": "slices held out of the volumes learned from",
}
_BETTER, _WORSE = QColor("#3fb950"), QColor("#ff9f43")


class LearnPanel(Foldable):
    """Shows and sets; `Learning` decides."""

    def __init__(self, actions: Actions) -> None:
        super().__init__("Learn from your own volumes")
        self._actions = actions
        self._learning = actions.learning
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(0, 2, 0, 6)
        column.setSpacing(6)
        self._made_of_cases(column)
        self._made_of_choices(column)
        self._made_of_run(column)
        self.put(body)
        self.toggled.connect(self._on_toggled)
        self._suggested = ""
        self._learning.changed.connect(self.refresh)
        self._learning.progress.connect(self._show_progress)
        actions.session.events.volume.connect(self.refresh)
        actions.session.events.model.connect(self._on_model)
        self._suggest_name()
        self.refresh()

    def _made_of_cases(self, column: QVBoxLayout) -> None:
        column.addWidget(
            note("Teach the model chosen above what you labelled. Nothing leaves this computer.")
        )
        self.cases = _tree(["Volume", "slices"])
        self.cases.setRootIsDecorated(False)
        self.cases.setFixedHeight(112)
        self.cases.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.cases.setToolTip(
            "Ticked: learned from. Not ticked: the model is only judged by it, before and after.\n"
            "Judge by volumes of other patients; without one, slices that are held out judge."
        )
        self.cases.itemChanged.connect(self._on_ticked)
        column.addWidget(self.cases)
        self.add_volume = button(
            "Add this volume",
            "Add the open scan with its labels as they are; once more: update it.",
            self._learning.cases.add_open_scan,
        )
        self.add_file = button("Add from…", "Labelled volumes from a list or a folder.", lambda: None)
        menu = QMenu(self.add_file)
        menu.addAction("Cases file (CSV)…", self._ask_file)
        menu.addAction("Folder (nnU-Net, Decathlon, BTCV)…", self._ask_folder)
        self.add_file.setMenu(menu)
        self.remove = button("Remove", "Take the selected ones off the list; files stay.", self._remove)
        column.addLayout(row(self.add_volume, self.add_file, self.remove))

    def _made_of_choices(self, column: QVBoxLayout) -> None:
        self.recipe = combo("How it is trained.")
        self.epochs = _spin(1, 1000, "Times that all slices are gone through.")
        self.views = _spin(0, 32, "Turned, scaled and brightened copies of each slice, learned as well.")
        self.name = QLineEdit()
        self.name.setToolTip("Name of the new model; it is offered under Model.")
        self.name.returnPressed.connect(lambda: self._actions.bridge.give_keyboard_to_canvas())
        self.recipe.activated.connect(self._on_recipe)
        self.epochs.valueChanged.connect(lambda _: self.refresh())
        self.views.valueChanged.connect(lambda _: self._learning.forget_cost())
        column.addLayout(labelled("Recipe", self.recipe))
        column.addLayout(labelled("Epochs", self.epochs))
        column.addLayout(labelled("Views", self.views))
        column.addLayout(labelled("Name", self.name))
        self.cost = note()
        column.addWidget(self.cost)

    def _made_of_run(self, column: QVBoxLayout) -> None:
        self.estimate = button(
            "Estimate", "Measure on one slice how long it will take, and how much disk space.", self._estimate
        )
        self.start = button("Start", "Train in the background; annotating goes on.", self._start)
        column.addLayout(row(self.estimate, self.start))
        self.go_on = button("Go on", "", self._go_on)
        self.discard = button(
            "Discard", "Remove the run that was stopped; volumes and labels stay.", self._learning.discard
        )
        self._stopped = QWidget()
        self._stopped.setLayout(row(self.go_on, self.discard, stretch_first=True))
        column.addWidget(self._stopped)
        self.bar = QProgressBar()
        self.bar.setRange(0, _BAR_STEPS)
        self.bar.setFormat("%p%")
        self.bar.setFixedHeight(18)
        self.stop = narrow_button(
            "Stop",
            "Stop after this step; what was learned so far stays, and can be gone on with.",
            self._learning.stop,
        )
        self._running = QWidget()
        self._running.setLayout(row(self.bar, self.stop, stretch_first=True))
        column.addWidget(self._running)
        self.step = note()
        column.addWidget(self.step)
        self.curves = CurvePlot()
        column.addWidget(self.curves)
        self.scored_on = note()
        column.addWidget(self.scored_on)
        self.scores = _tree(["Mean Dice", "before", "after", ""])
        self.scores.setFixedHeight(150)
        self.scores.setToolTip("Means of organs; unfold a prompt for its organs.")
        column.addWidget(self.scores)
        self.use = button("Use this model", "Answer prompts with the new model.", self._learning.use_model)
        self.back = button("Back", "Answer prompts with the model it was made of.", self._learning.use_base)
        column.addLayout(row(self.use, self.back))

    # showing

    def _on_toggled(self, is_open: bool) -> None:
        if is_open:
            self._learning.look_up()

    def refresh(self, *_: object) -> None:
        """Show everything as it is."""
        learning = self._learning
        is_idle = not learning.is_running and not learning.is_estimating
        self._show_cases()
        if learning.recipes and not self.recipe.count():
            self._fill_recipes()
        self.add_volume.setEnabled(self._actions.session.volume is not None)
        listed = learning.cases.listed
        self.remove.setEnabled(bool(listed))
        for made in (self.estimate, self.start):
            made.setEnabled(is_idle and bool(listed) and bool(self.recipe.count()))
        self._show_cost()
        plan = learning.unfinished
        self._stopped.setVisible(is_idle and plan is not None)
        if plan is not None:
            self.go_on.setText(f'Go on with "{plan.output.name}"')
            self.go_on.setToolTip(f"Continue after its last whole epoch: {_words(plan)}.")
        self._running.setVisible(not is_idle)
        self.stop.setEnabled(not learning.is_stopping)
        self.curves.setVisible(bool(learning.curve))
        self.curves.show_points(learning.curve, learning.epochs)
        self._show_scores()

    def _show_cases(self) -> None:
        listed = self._learning.cases.listed
        with QSignalBlocker(self.cases):
            while self.cases.topLevelItemCount() > len(listed):
                self.cases.takeTopLevelItem(self.cases.topLevelItemCount() - 1)
            while self.cases.topLevelItemCount() < len(listed):
                QTreeWidgetItem(self.cases)
            for position, case in enumerate(listed):
                self._fill_case(self.cases.topLevelItem(position), case)

    def _fill_case(self, item: QTreeWidgetItem, case: Case) -> None:
        item.setData(0, _CASE, case)
        item.setText(0, case.name)
        learned = not is_judged(case)
        item.setCheckState(0, Qt.CheckState.Checked if learned else Qt.CheckState.Unchecked)
        count = self._learning.cases.counts.get(case.labels_path)
        text = "…" if count is None else str(count) if isinstance(count, int) else "?"
        item.setText(1, text)
        item.setTextAlignment(1, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        what = "learned from" if learned else "only judged"
        tip = f"{case.name}: {what}\nScan: {case.image_path}\nLabels: {case.labels_path}"
        item.setToolTip(0, tip if not isinstance(count, str) else f"{tip}\n{count}")
        item.setToolTip(1, count if isinstance(count, str) else "Axial slices with a label")

    def _fill_recipes(self) -> None:
        for recipe in self._learning.recipes:
            self.recipe.addItem(recipe.name, recipe)
            self.recipe.setItemData(self.recipe.count() - 1, recipe.source, Qt.ItemDataRole.ToolTipRole)
        self._on_recipe(0)

    def _on_recipe(self, index: int) -> None:
        recipe = self.recipe.itemData(index)
        self.recipe.setToolTip(recipe.source)
        self.epochs.setValue(recipe.epochs)
        self.views.setValue(recipe.views)
        self._learning.forget_cost()

    def _show_cost(self) -> None:
        cost = self._learning.cost
        if cost is None:
            self.cost.setVisible(False)
            return
        epochs = self.epochs.value()
        judged = f"{cost.judged} slices of other volumes judge" if cost.judged else "these judge as well"
        self.cost.setText(
            f"About {duration(cost.seconds(epochs))}: {cost.learned} slices in {cost.views} views, "
            f"{cost.embeddings} embeddings of {cost.embedding_seconds:.2g} s, then "
            f"{duration(cost.epoch_seconds)} an epoch. {cost.held_out} slices held out tell when to stop; "
            f"{judged}. Disk: {cost.disk_bytes / 1e6:.0f} MB while it lasts."
        )
        self.cost.setVisible(True)

    def _show_progress(self, text: str, share: float) -> None:
        self.bar.setValue(round(share * _BAR_STEPS))
        self.step.setText(text)
        self.step.setVisible(bool(text))

    def _show_scores(self) -> None:
        learning, card = self._learning, self._learning.card
        for made in (self.scores, self.scored_on):
            made.setVisible(bool(card))
        self.use.setVisible(bool(card) and not learning.is_used)
        _, base = learning.base
        self.back.setVisible(bool(base) and learning.is_used)
        self.back.setText(f"Back to {base}")
        if self.scores.property("shown") is card or not card:
            return
        self.scores.setProperty("shown", card)
        self.scored_on.setText(_told_of(learning.output, card))
        self.scores.clear()
        prompt: QTreeWidgetItem | None = None
        for strategy, organ, *numbers in score_rows(card):
            if strategy:
                prompt = QTreeWidgetItem(self.scores, [_PROMPTS.get(strategy, strategy), *numbers])
                item = prompt
            else:
                item = QTreeWidgetItem(prompt, [organ, *numbers])
            change = float(numbers[2])
            if change:
                item.setForeground(3, QBrush(_BETTER if change > 0 else _WORSE))
            item.setToolTip(0, item.text(0))

    # the user's clicks

    def _suggest_name(self) -> None:
        self._suggested = self._learning.free_name()
        self.name.setText(self._suggested)

    def _on_model(self, *_: object) -> None:
        if self.name.text() in ("", self._suggested):  # else it is the user's own
            self._suggest_name()

    def _on_ticked(self, item: QTreeWidgetItem, column: int) -> None:
        if column == 0:
            self._learning.cases.learn_from(item.data(0, _CASE), item.checkState(0) == Qt.CheckState.Checked)

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Add labelled volumes", "", "Cases (*.csv);;All files (*)"
        )
        if path:
            self._learning.cases.add_from(Path(path))

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Add labelled volumes")
        if path:
            self._learning.cases.add_from(Path(path))

    def _remove(self) -> None:
        chosen = self.cases.selectedItems()
        if chosen:
            self._learning.cases.remove([item.data(0, _CASE) for item in chosen])
        else:
            self._actions.status.emit("Choose the volumes to remove in the list first.")

    def _plan(self) -> Plan:
        recipe = self.recipe.currentData()
        return self._learning.plan(self.name.text(), recipe.name, self.epochs.value(), self.views.value())

    def _estimate(self) -> None:
        self._actions.attempt(lambda: self._learning.estimate(self._plan()))

    def _start(self) -> None:
        def start() -> None:
            plan = self._plan()
            self._learning.start(plan)
            self._suggest_name()

        self._actions.attempt(start)

    def _go_on(self) -> None:
        plan = self._learning.unfinished
        if plan is not None:
            self._actions.attempt(lambda: self._learning.start(plan))


def _tree(titles: list[str]) -> QTreeWidget:
    tree = QTreeWidget()
    tree.setColumnCount(len(titles))
    tree.setHeaderLabels(titles)
    tree.setUniformRowHeights(True)
    tree.setIndentation(14)
    tree.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    tree.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    # the theme draws an empty box like the ground below it
    tree.setStyleSheet(
        "QTreeView::indicator:unchecked { border: 1px solid rgba(160, 165, 175, 200); border-radius: 2px; }"
    )
    tree.setTextElideMode(Qt.TextElideMode.ElideMiddle)
    header = tree.header()
    header.setStretchLastSection(False)
    header.setMinimumSectionSize(24)
    header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    for section in range(1, len(titles)):
        header.setSectionResizeMode(section, QHeaderView.ResizeMode.Fixed)
        header.resizeSection(section, 52)
    return tree


def _spin(least: int, most: int, tip: str) -> QSpinBox:
    made = QSpinBox()
    made.setRange(least, most)
    made.setToolTip(tip)
    return made


def _words(plan: Plan) -> str:
    count = len(plan.cases)
    return f"{count} volume{'s' * (count != 1)}, recipe {plan.recipe}, {plan.epochs} epochs"


def _told_of(folder: Path | None, card: dict[str, Any]) -> str:
    name = "" if folder is None else f'"{folder.name}", '
    kept = "no epoch was better than the model as it was"
    if card["improved"]:
        kept = f"epoch {card.get('best_epoch', '?')} was kept"
    told = f"{name}{kept}. Before and after, on {_SCORED_ON.get(card['scored_on'], card['scored_on'])}. "
    return f"{told[:1].upper()}{told[1:]}Not for clinical use."
