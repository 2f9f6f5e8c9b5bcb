"""In sight below the panels when there is something to say: earlier work that is offered, work not kept."""

from __future__ import annotations

from datetime import datetime

from qtpy.QtWidgets import QFrame, QLabel, QVBoxLayout, QWidget

from napari_sam_med.gui.appearance import button, row
from napari_sam_med.gui.keeping import Keeping
from napari_sam_med.session.journal_recovery import Offer
from napari_sam_med.wording import number_of

__all__ = ["RecoveryBar", "described"]


class RecoveryBar(QWidget):
    """Offers earlier work without standing in the way, and says when work is not being kept."""

    def __init__(self, keeping: Keeping) -> None:
        super().__init__()
        self._keeping = keeping
        self.trouble = QLabel()
        self.trouble.setWordWrap(True)
        self.trouble.setStyleSheet("color: #ffb74d;")
        self.offer = QFrame()
        self.offer.setObjectName("samMedOffer")
        self.offer.setStyleSheet(
            "QFrame#samMedOffer { border: 1px solid #2d72d9; border-radius: 6px;"
            " background: rgba(45, 114, 217, 45); }"
        )
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.bring_back = button(
            "Bring back",
            "Labels, prompts, objects and organs as they were; one undo step.",
            keeping.bring_back,
        )
        self.not_now = button(
            "Not now",
            "Work on without it. It stays on disk;\n"
            '"Earlier work on this scan…" under "Kept on disk" offers it again.',
            keeping.not_now,
        )
        inside = QVBoxLayout(self.offer)
        inside.setContentsMargins(8, 6, 8, 6)
        inside.setSpacing(5)
        inside.addWidget(self.text)
        inside.addLayout(row(self.bring_back, self.not_now))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 0, 6, 0)
        layout.setSpacing(4)
        layout.addWidget(self.trouble)
        layout.addWidget(self.offer)
        keeping.trouble_changed.connect(self._show_trouble)
        keeping.offer_changed.connect(self.refresh)
        self._show_trouble(keeping.trouble)
        self.refresh()

    def _show_trouble(self, trouble: str | None) -> None:
        self.trouble.setText("" if trouble is None else f"⚠ {trouble}")
        self.trouble.setVisible(trouble is not None)
        self._fit()

    def refresh(self) -> None:
        """Show the offer as it is."""
        keeping = self._keeping
        offer = None if keeping.is_unasked else keeping.offer
        self.offer.setVisible(offer is not None)
        if offer is not None:
            lines = [described(offer)]
            if offer.mismatch is not None:
                lines.append(f"It does not fit this scan: {offer.mismatch}.")
            if offer.problem is not None:
                lines.append(f"Not all of it can be read: {offer.problem}.")
            if keeping.has_work and offer.mismatch is None:
                lines.append("It takes the place of the labels that are open now; Ctrl-Z brings those back.")
            if keeping.n_more_offers:
                lines.append(f"{keeping.n_more_offers} more: press Not now to see.")
            self.text.setText("\n".join(lines))
            self.bring_back.setEnabled(offer.mismatch is None and not keeping.is_reading)
            self.not_now.setEnabled(not keeping.is_reading)
        self._fit()

    def _fit(self) -> None:
        self.setVisible(not (self.trouble.isHidden() and self.offer.isHidden()))


def described(offer: Offer) -> str:
    """What is offered, in a sentence or two."""
    when = datetime.fromtimestamp(offer.last_change).strftime("%Y-%m-%d %H:%M")
    organs = number_of(offer.n_organs, "organ")
    objects = number_of(offer.n_objects, "object")
    end = "exported" if offer.is_exported else "not exported"
    how = "" if offer.was_closed else " Its window was not closed properly."
    return (
        f"Earlier work on {offer.image.name}, last changed {when}: "
        f"{offer.volume_ml:.1f} ml of {organs}, {objects}; {end}.{how}"
    )
