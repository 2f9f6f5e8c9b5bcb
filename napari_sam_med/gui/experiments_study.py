"""What a published study found, beside what was measured here: a page of the Experiments panel."""

from __future__ import annotations

from html import escape

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QTextBrowser, QVBoxLayout, QWidget

from napari_sam_med.evaluation.report import FINDINGS_NOTE, ResultTable
from napari_sam_med.session.experiments import Laboratory

__all__ = ["StudyPage"]


class StudyPage(QWidget):
    """The tables of a protocol."""

    def __init__(self, lab: Laboratory) -> None:
        super().__init__()
        self._lab = lab
        self.text = QTextBrowser()
        self.text.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 6, 4, 4)
        column.addWidget(self.text)
        lab.events.means.connect(self.refresh)
        self.refresh()

    @property
    def has_study(self) -> bool:
        """Whether there is something to be shown."""
        return self._lab.means is not None and self._lab.means.study is not None

    def refresh(self, *_: object) -> None:
        """Show the tables as they are; where they are read stays."""
        if not self.has_study:
            self.text.clear()
            return
        tables = [ResultTable(**table) for table in self._lab.means.study["tables"]]
        place = self.text.verticalScrollBar().value()
        self.text.setHtml(f"{''.join(map(_shown, tables))}<p>{escape(FINDINGS_NOTE)}</p>")
        self.text.verticalScrollBar().setValue(place)


def _shown(table: ResultTable) -> str:
    """A table as the subset of HTML that Qt shows."""

    def cells(row: tuple[str, ...], tag: str) -> str:
        sides = ["left"] * table.text_columns + ["right"] * len(row)
        each = zip(row, sides, strict=False)
        return "".join(f'<{tag} align="{side}">{escape(cell)}</{tag}>' for cell, side in each)

    rows = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in table.rows)
    head = f"<tr>{cells(table.headings, 'th')}</tr>"
    return f'<p><b>{escape(table.title)}</b></p><table cellspacing="0" cellpadding="3">{head}{rows}</table>'
