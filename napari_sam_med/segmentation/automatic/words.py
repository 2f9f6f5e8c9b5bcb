"""A word: what somebody types, as an organ of the classifier, and the objects that it may mean, ranked.

Nothing is guessed: `rank_by_organ` gives every object its probability, and `clear_winner` names one only
where it is likely and no other comes near it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import PromptError
from napari_sam_med.segmentation.automatic.found_objects import FoundObject
from napari_sam_med.segmentation.automatic.linking import object_iou
from napari_sam_med.segmentation.automatic.naming import object_votes
from napari_sam_med.segmentation.organ_objects import OrganGuess, SliceVotes
from napari_sam_med.segmentation.organ_vote import OTHER, put_on_own_side, vote

if TYPE_CHECKING:
    from napari_sam_med.progress import Progress
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.segmentation.organ_classifier import OrganClassifier
    from napari_sam_med.volume.volume import Volume

__all__ = [
    "RULED_OUT",
    "OrganChances",
    "RankedObject",
    "WordMeaning",
    "clear_winner",
    "organ_chances",
    "organs_called",
    "rank_by_organ",
]

# what else the organs are called; the left side in the spelling of `_plain`
_SAME = {
    "gullet": "esophagus",
    "lien": "spleen",
    "gall bladder": "gallbladder",
    "ivc": "inferior vena cava",
    "vena cava": "inferior vena cava",
    "vena cava inferior": "inferior vena cava",
    "postcava": "inferior vena cava",
    "abdominal aorta": "aorta",
    "portal vein and splenic vein": "portal and splenic vein",
    "portal vein": "portal and splenic vein",
    "splenic vein": "portal and splenic vein",
    "suprarenal": "adrenal",
    "hepar": "liver",
    "ren": "kidney",
}
_SIDES = {"r": "right", "rt": "right", "l": "left", "lt": "left", "dexter": "right", "sinister": "left"}
_SILENT = {"the", "gland", "organ"}
_CLOSE = 0.85
"""Of difflib: "oesophagous" is 0.95 like an organ's name, "bladder" 0.78 like gallbladder, another organ."""
RULED_OUT = 0.05
"""Probability below which the classifier says that an object is not what a word means."""
_RIVAL = 0.5
"""A winner is clear when no other object has this share of its probability."""
_SAME_PLACE = 0.5
"""IoU from which two objects are the same thing found twice."""


@dataclass(frozen=True)
class WordMeaning:
    """Organs that a word stands for.

    Attributes
    ----------
    word : str
        As typed.
    organs : tuple of str
        Spelt as the classifier has them; several for a word such as kidney, which has no side.
    exact : bool
        Whether it is a name or a known other name of them; else it is nearly one.
    """

    word: str
    organs: tuple[str, ...]
    exact: bool


@dataclass(frozen=True, eq=False)
class RankedObject:
    """An object, and the probability 0..1 that it is what was asked for."""

    object: FoundObject
    score: float


def organs_called(word: str, known: Sequence[str]) -> WordMeaning:
    """What a word means among the names that a classifier knows.

    Case, British and American spelling, plurals, order of the side and usual other names (IVC, oesophagus,
    suprarenal gland, left_kidney) make no difference.

    Raises
    ------
    PromptError
        When it means none of them, with the names and the nearest one.
    """
    names = [name for name in known if name != OTHER]
    meant = _plain(word)
    as_typed = tuple(name for name in names if name.casefold() == word.strip().casefold())
    found = as_typed or _named(meant, names)
    if found:
        return WordMeaning(word, found, exact=True)
    spelt = {spelling: name for name in names for spelling in (_plain(name), _without_side(_plain(name)))}
    spelt |= {other: name for other, name in _SAME.items() if _named(name, names)}
    near = get_close_matches(meant, spelt, n=1, cutoff=_CLOSE) if meant else []
    if near:
        return WordMeaning(word, _named(_plain(near[0]), names), exact=False)
    hint = get_close_matches(meant, spelt, n=1)
    also = f' (did you mean "{", ".join(_named(_plain(hint[0]), names))}"?)' if hint else ""
    raise PromptError(
        f'"{word}" is no organ that the classifier knows{also}: it knows {", ".join(names)}; give one of '
        "these."
    )


@dataclass(frozen=True, eq=False)
class OrganChances:
    """What the classifier makes of all objects: asked once, it answers any number of words.

    Attributes
    ----------
    objects : tuple of FoundObject
        By falling score, numbered from 1, each with its `organ`.
    organs : tuple of str
        The classifier's classes.
    probabilities : ndarray (N, C) float64
        Of each object and class; rows add up to 1.
    """

    objects: tuple[FoundObject, ...]
    organs: tuple[str, ...]
    probabilities: npt.NDArray[np.float64]

    def ranked(self, word: str) -> list[RankedObject]:
        """All objects, the likeliest to be what a word means first.

        Raises
        ------
        PromptError
            When the word is no known organ.
        """
        wanted = [self.organs.index(name) for name in organs_called(word, self.organs).organs]
        scores = self.probabilities[:, wanted].sum(axis=1)
        ranked = [RankedObject(one, float(score)) for one, score in zip(self.objects, scores, strict=True)]
        return sorted(ranked, key=lambda one: (-one.score, one.object.number))


def organ_chances(
    objects: Sequence[FoundObject],
    volume: Volume,
    predictor: Predictor,
    classifier: OrganClassifier,
    *,
    store: EmbeddingStore | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> OrganChances:
    """What the classifier makes of objects; parameters and errors as in `rank_by_organ`."""
    facts = classifier.facts
    numbered = FoundObject.renumbered(objects)
    table = np.zeros((len(numbered), len(facts.organs)))
    if numbered:
        votes = object_votes(numbered, volume, predictor, classifier, store=store, on_progress=on_progress)
        table = np.exp([_said(votes[one.number], classifier) for one in numbered])
    named = []
    for one, row in zip(numbered, table, strict=True):
        best = int(row.argmax())
        guess = OrganGuess(facts.organs[best], float(row[best]), float(row[best]) < facts.threshold)
        named.append(one.with_organ(guess))
    return OrganChances(tuple(named), facts.organs, table)


def rank_by_organ(
    objects: Sequence[FoundObject],
    word: str,
    volume: Volume,
    predictor: Predictor,
    classifier: OrganClassifier,
    *,
    store: EmbeddingStore | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[RankedObject]:
    """All objects, the likeliest to be what a word means first; each with its `organ` filled in.

    For several words about the same objects ask `organ_chances` once.

    Parameters
    ----------
    objects : sequence of FoundObject
        Of the volume, in any plane; they may overlap. They are numbered anew, from 1, by their score.
    word : str
        An organ; see `organs_called`.
    volume : Volume
    predictor : Predictor
        The model that the classifier was trained on, whatever model found the objects.
    classifier : OrganClassifier
    store : EmbeddingStore, optional
        Where embeddings of slices may lie already.
    on_progress : callable, optional
        Called after each slice; raise `CancelledError` in it to cancel.

    Returns
    -------
    list of RankedObject
        Scores are the classifier's probabilities that the object is one of the organs meant.

    Raises
    ------
    PromptError
        When the word is no known organ.
    ModelError
        When the classifier was trained on another model.
    """
    organs_called(word, classifier.facts.organs)  # refused before the work
    chances = organ_chances(objects, volume, predictor, classifier, store=store, on_progress=on_progress)
    return chances.ranked(word)


def clear_winner(ranked: Sequence[RankedObject], threshold: float) -> RankedObject | None:
    """The first of a ranking if it is likely and alone; None where that would be a guess.

    Parameters
    ----------
    ranked : sequence of RankedObject
        The likeliest first.
    threshold : float
        Probability that the winner needs, such as the classifier's own.
    """
    if not ranked or ranked[0].score < threshold:
        return None
    first = ranked[0]
    for rival in ranked[1:]:
        if rival.score <= _RIVAL * first.score:
            return first
        if object_iou(first.object, rival.object) < _SAME_PLACE:
            return None
    return first


def _said(votes: SliceVotes, classifier: OrganClassifier) -> npt.NDArray[np.float64]:
    """Log-probabilities (C,) of an object."""
    facts = classifier.facts
    voted = vote(votes.log_probabilities, votes.areas, votes.qualities, rho=facts.rho)
    return put_on_own_side(voted, facts.organs, votes.centre_x)


def _named(meant: str, names: Sequence[str]) -> tuple[str, ...]:
    """Names that a plain spelling stands for: with its side that one, without a side both."""
    whole = tuple(name for name in names if _plain(name) == meant)
    return whole or tuple(name for name in names if meant and _without_side(_plain(name)) == meant)


def _plain(text: str) -> str:
    """One spelling for all that mean the same: American, small letters, singular, the side first."""
    letters = unicodedata.normalize("NFKD", text.casefold().replace("œ", "oe").replace("æ", "ae"))
    words = re.findall(r"[a-z0-9]+", letters.encode("ascii", "ignore").decode())
    words = [_SIDES.get(word, _singular(word.replace("oe", "e").replace("ae", "e"))) for word in words]
    side = [word for word in words if word in ("left", "right")]
    rest = " ".join(word for word in words if word not in side and word not in _SILENT)
    return " ".join([*side, _SAME.get(rest, rest)]).strip()


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "saiu" else word


def _without_side(plain: str) -> str:
    return re.sub(r"^(left|right) ", "", plain)
