"""``find``: the object of a volume that a word means, or the candidates where that would be a guess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_med.cli.classify import doubts_of_modality
from napari_sam_med.cli.console import print_json, progress_bar, say, say_faintly, show_table, warn
from napari_sam_med.cli.outputs import check_input, check_label_output
from napari_sam_med.errors import PromptError

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.segmentation.automatic.found_objects import FoundObject
    from napari_sam_med.segmentation.automatic.words import RankedObject
    from napari_sam_med.volume.volume import Volume

__all__ = ["FindRequest", "run_find"]

Rank = Callable[["Sequence[FoundObject]"], "list[RankedObject]"]


@dataclass(frozen=True)
class FindRequest:
    """What the user typed."""

    volume: Path
    word: str
    output: Path | None = None
    objects: Path | None = None
    point: tuple[int, int, int] | None = None
    top: int = 5
    take: tuple[int, ...] = ()
    text_model: Path | None = None
    text_architecture: str | None = None
    classifier: Path | None = None
    window: str = "auto"
    every: int = 1
    points_per_side: int = 32
    spacing_mm: float | None = None
    model: str = "nano"
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class _Asker:
    """How the objects are ranked: ``rank``, the probability from which one is ``sure``, the organs ``meant``
    (none of free words), and ``by`` what.
    """

    rank: Rank
    sure: float
    meant: tuple[str, ...]
    by: str


@dataclass(frozen=True, eq=False)
class _Outcome:
    """What was asked for, found, and chosen; ``shown`` are the first, and those taken, with ranks."""

    request: FindRequest
    volume: Volume
    asker: _Asker
    ranked: Sequence[RankedObject]
    winner: RankedObject | None
    taken: Sequence[RankedObject]

    @property
    def shown(self) -> list[tuple[int, RankedObject]]:
        ranks = enumerate(self.ranked, start=1)
        return [(rank, one) for rank, one in ranks if rank <= self.request.top or one in self.taken]

    @property
    def is_nothing_like_it(self) -> bool:
        """Whether all objects are ruled out; shares of a CLIP model rule nothing out."""
        from napari_sam_med.segmentation.automatic.words import RULED_OUT

        return bool(self.asker.meant and self.ranked) and self.ranked[0].score < RULED_OUT

    @property
    def what_next(self) -> str:
        """What to do where nothing is like it."""
        finer = (
            "search finer (--spacing-mm 6)" if self.request.objects is None else "search without --objects"
        )
        return f"{finer}, or {self.give_a_point}"

    @property
    def give_a_point(self) -> str:
        """The remedy that always helps, in words that know of a point that was given."""
        which = "a point" if self.request.point is None else "another point"
        return f"give {which} inside it (--point I,J,K)"


def run_find(request: FindRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    _check(request)
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.sam.predictor import load_predictor
    from napari_sam_med.segmentation.automatic.point_refinement import checked_point, ranked_at_point
    from napari_sam_med.segmentation.automatic.words import clear_winner
    from napari_sam_med.volume.intensity import resolve_window
    from napari_sam_med.volume.reading import read_volume

    volume = read_volume(request.volume)
    warn(volume.warnings)
    point = None if request.point is None else checked_point(request.point, volume)
    window, store = resolve_window(volume, request.window), default_store()
    predictor = load_predictor(request.model, device=request.device)
    asker = _asker(request, volume, predictor)
    objects = _objects(request, volume, predictor)
    if point is None:
        ranked = asker.rank(objects)
    else:
        with progress_bar(f"Asking {predictor.record.name} at the point") as show:
            ranked = ranked_at_point(
                objects,
                point,
                asker.rank,
                volume,
                predictor,
                sure=asker.sure,
                window=window,
                store=store,
                on_progress=show,
            )
    winner = clear_winner(ranked, asker.sure)
    taken = _taken(request, ranked, winner)
    outcome = _Outcome(request, volume, asker, ranked, winner, taken)
    if request.output is not None and taken:
        _write(request.output, outcome, predictor)
    if as_json:
        print_json(_document(outcome))
    else:
        _show(outcome)
    if request.output is not None and not taken:
        if not ranked:
            raise PromptError(
                f"No object was found, so {request.output} was not written; {outcome.what_next}."
            )
        if outcome.is_nothing_like_it:
            raise PromptError(
                f'Nothing that was found looks like "{request.word}", so {request.output} was not written; '
                f"{outcome.what_next}."
            )
        raise PromptError(
            f'"{request.word}" is not clear here, so {request.output} was not written; take one of the '
            f"candidates by its rank (--take 1), or {outcome.give_a_point}."
        )
    return 0


def _check(request: FindRequest) -> None:
    check_input(request.volume, "volume")
    if request.objects is not None:
        check_input(request.objects, "label file")
    if request.output is not None:
        check_label_output(request.output, (request.volume, request.objects))
    if request.take and request.output is None:
        raise PromptError("Nothing is written without a file to write; give one with -o beside --take.")
    if request.text_architecture is not None and request.text_model is None:
        raise PromptError("An architecture needs its weights; give them with --text-model.")


def _asker(request: FindRequest, volume: Volume, predictor: Predictor) -> _Asker:
    """Ready before the search, so that a word or a model that cannot be used costs no time."""
    if request.text_model is not None:
        return _asker_of_text(request, volume, request.text_model)
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.sam.predictor import load_predictor
    from napari_sam_med.segmentation.automatic.words import organs_called, rank_by_organ
    from napari_sam_med.segmentation.organ_classifier import load_classifier

    classifier = load_classifier(request.classifier)
    try:
        meaning = organs_called(request.word, classifier.facts.organs)
    except PromptError as error:
        also = "or a CLIP model for free words (--text-model)."
        raise PromptError(f"{str(error).removesuffix('.')}, {also}") from None
    if not meaning.exact:
        warn([f'"{request.word}" is taken for {", ".join(meaning.organs)}'])
    if request.classifier is None:
        warn(doubts_of_modality(volume))
    reader = predictor
    if predictor.model_hash != classifier.facts.model_sha256:
        reader = load_predictor(classifier.facts.model, device=request.device, precision="fp32")

    def rank(objects: Sequence[FoundObject]) -> list[RankedObject]:
        with progress_bar("Naming the objects") as show:
            return rank_by_organ(
                objects, request.word, volume, reader, classifier, store=default_store(), on_progress=show
            )

    return _Asker(rank, classifier.facts.threshold, meaning.organs, "organ classifier")


def _asker_of_text(request: FindRequest, volume: Volume, text_model: Path) -> _Asker:
    from napari_sam_med.segmentation.automatic.clip_model import load_clip
    from napari_sam_med.segmentation.automatic.clip_words import CLEAR_SHARE, rank_by_text

    clip = load_clip(text_model, request.text_architecture, device=request.device)

    def rank(objects: Sequence[FoundObject]) -> list[RankedObject]:
        with progress_bar(f"Looking at crops with {clip.name}") as show:
            return rank_by_text(objects, request.word, volume, clip, window=request.window, on_progress=show)

    return _Asker(rank, CLEAR_SHARE, (), clip.name)


def _objects(request: FindRequest, volume: Volume, predictor: Predictor) -> list[FoundObject]:
    """From the labels, or searched for."""
    if request.objects is not None:
        from napari_sam_med.segmentation.automatic.labelled_objects import objects_of
        from napari_sam_med.volume.reading import read_labels

        labels = read_labels(request.objects, reference=volume)
        warn(labels.warnings)
        return objects_of(labels)
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.segmentation.automatic.volume_search import (
        VolumeSearch,
        search_volume,
        usual_options,
    )

    options = replace(usual_options(predictor), points_per_side=request.points_per_side)
    search = VolumeSearch(every=request.every, options=options, point_spacing_mm=request.spacing_mm)
    searched = search_volume(volume, predictor, search, window=request.window, store=default_store())
    with progress_bar(f"Searching with {predictor.record.name}") as show:
        while True:
            try:
                show(next(searched).progress)
            except StopIteration as done:
                found: list[FoundObject] = done.value
                return found


def _taken(
    request: FindRequest, ranked: Sequence[RankedObject], winner: RankedObject | None
) -> list[RankedObject]:
    """What is to be written."""
    if not request.take:
        return [] if winner is None or request.output is None else [winner]
    beyond = [rank for rank in request.take if not 1 <= rank <= len(ranked)]
    if beyond:
        raise PromptError(
            f"There is no candidate {beyond[0]}: {len(ranked)} were found; give a rank from 1 to "
            f"{len(ranked)}."
            if ranked
            else "Nothing was found to take; search more slices or points, or give --objects."
        )
    return [ranked[rank - 1] for rank in dict.fromkeys(request.take)]


def _write(path: Path, outcome: _Outcome, predictor: Predictor) -> None:
    from napari_sam_med.volume.labels import LabelVolume
    from napari_sam_med.volume.organs import Organ, OrganTable, default_color
    from napari_sam_med.volume.writing import remarks, write_labels

    meant, word = outcome.asker.meant, outcome.request.word
    table = OrganTable.btcv() if meant else OrganTable([Organ(1, word, default_color(1))])
    labels = LabelVolume.like(outcome.volume, table)
    for one in outcome.taken:
        name = _organ_of(one, meant) or word
        numbers = [number for number, organ in labels.organs.items() if organ.name == name]
        number = numbers[0] if numbers else labels.organs.next_free_id()
        if not numbers:
            labels.organs = labels.organs.with_organ(Organ(number, name, default_color(number)))
        for view, mask in one.object:
            labels.assign(view, mask.mask, number)
    write_labels(path, labels, source=outcome.volume, model=_described(predictor))
    warn(remarks(path, len(labels.class_ids())))


def _described(predictor: Predictor) -> dict[str, str]:
    """The model, for the sidecar."""
    return {
        "name": predictor.record.name,
        "sha256": predictor.model_hash,
        "device": str(predictor.device),
        "precision": predictor.precision,
    }


def _organ_of(one: RankedObject, meant: Sequence[str]) -> str | None:
    """Which of the organs meant an object is; None of free words."""
    guess = one.object.organ
    if guess is not None and guess.name in meant:
        return guess.name
    return meant[0] if meant else None


def _document(outcome: _Outcome) -> dict[str, Any]:
    request, taken = outcome.request, outcome.taken
    return {
        "word": request.word,
        "organs": list(outcome.asker.meant),
        "by": outcome.asker.by,
        "point": None if request.point is None else list(request.point),
        "objects": len(outcome.ranked),
        "winner": None if outcome.winner is None else 1,
        "taken": [rank for rank, one in enumerate(outcome.ranked, start=1) if one in taken],
        "labels": str(request.output) if taken else None,
        "candidates": [
            {"rank": rank, **_place(outcome.volume, one), "score": round(one.score, 4)}
            for rank, one in outcome.shown
        ],
    }


def _place(volume: Volume, one: RankedObject) -> dict[str, Any]:
    """Where an object lies, in slices of the file, how large it is, and what it is taken for."""
    found, grid = one.object, volume.grid
    indices = sorted(grid.file_index(view) for view in found.masks)
    return {
        "plane": found.best_view.plane,
        "first_slice": indices[0],
        "last_slice": indices[-1],
        "best_slice": grid.file_index(found.best_view),
        "volume_ml": round(found.voxels * grid.voxel_volume_mm3 / 1000, 2),
        **({} if found.organ is None else found.organ.to_json()),
    }


def _show(outcome: _Outcome) -> None:
    word, asker = outcome.request.word, outcome.asker
    if outcome.is_nothing_like_it and not outcome.taken:  # an order of zeros is no answer
        say(f"{word}: nothing that was found looks like it ({len(outcome.ranked)} in all).")
        say_faintly(f"  {outcome.what_next[0].upper()}{outcome.what_next[1:]}.", indent=2)
        return
    columns = {"rank": "right", "slices": "right", "best": "right", "ml": "right"}
    columns |= {"taken for": "left"} if asker.meant else {}
    columns |= {"probability": "right", "": "left"}
    rows = []
    for rank, one in outcome.shown:
        place = _place(outcome.volume, one)
        row = [str(rank), f"{place['first_slice']}-{place['last_slice']}", str(place["best_slice"])]
        row.append(f"{place['volume_ml']:.1f}")
        if asker.meant:
            organ = place["organ"]
            row.append(f"{organ['name']} {organ['probability']:.2f}")
        rows.append([*row, f"{one.score:.3f}", "taken" if one in outcome.taken else ""])
    meant = f" ({', '.join(asker.meant)})" if asker.meant and asker.meant != (word,) else ""
    show_table(f"{word}{meant}, by {asker.by}", columns, rows)
    say_faintly(f"  {_in_words(outcome)}", indent=2)
    if outcome.taken:
        say(f"Written: {outcome.request.output}")


def _in_words(outcome: _Outcome) -> str:
    ranked, asker = outcome.ranked, outcome.asker
    if not ranked:
        return f"No object was found: {outcome.what_next}."
    hidden = len(ranked) - len(outcome.shown)
    more = (
        f" {hidden} more {'object is' if hidden == 1 else 'objects are'} not shown (--top)." if hidden else ""
    )
    if outcome.request.take:
        return f"Taken as asked for.{more}"
    if outcome.winner is not None:
        return f"The first is likely, and no other one comes near it.{more}"
    remedy = f"take one by its rank (--take N, with -o), or {outcome.give_a_point}"
    if ranked[0].score < asker.sure:
        return f"Not clear: none has a probability of {asker.sure:.2f}; {remedy}.{more}"
    if len(asker.meant) > 1:
        remedy = f"say which of {', '.join(asker.meant)}, or {remedy}"
    return f"Not clear: another one comes near the first; {remedy}.{more}"
