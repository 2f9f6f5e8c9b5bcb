"""One run of the slice-wise propagator: slices asked in batches, answers judged, fronts moved on or ended."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.gaps import Front, Gap, Key, gaps_between
from napari_sam_med.segmentation.interpolation import ShapePrior
from napari_sam_med.segmentation.object_masks import FoundSlice
from napari_sam_med.segmentation.propagation import Direction, Source
from napari_sam_med.segmentation.propagation_cache import PropagationCache, gap_key, key_slice_key
from napari_sam_med.segmentation.slice_evidence import Appearance, Findings, StopLimits, iou
from napari_sam_med.segmentation.slice_hypotheses import Hypotheses
from napari_sam_med.segmentation.slicewise import embed_slice, logits_of_mask
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import ImageEmbedding, MaskPrediction, Predictor
    from napari_sam_med.segmentation.body import BodyBox
    from napari_sam_med.segmentation.slicewise_propagation import SlicewisePropagator
    from napari_sam_med.volume.volume import Volume

__all__ = ["Found", "Run", "Track"]

_AGREEING = 0.7
"""Dice of two answers below which the prior counts twice."""
_MIXED_QUALITY = 0.2
"""Quality of a slice that stands on its neighbours alone."""


@dataclass(frozen=True, eq=False)
class Found:
    """What is known of one slice, and why propagation ends there, if it does."""

    view: SliceView
    mask: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float32] | None
    quality: float
    iou_prediction: float | None
    source: Source
    direction: Direction
    reason: str | None = None


@dataclass(eq=False)
class Track:
    """One object on its way through the volume."""

    object_id: int
    class_id: int
    keys: list[Key]
    gaps: list[Gap]
    hypotheses: Hypotheses | None = None


@dataclass(eq=False)
class _Turn:
    """A front about to take its next slice, with the answer that is believed so far."""

    track: Track
    gap: Gap
    front: Front
    view: SliceView
    prompts: list[Prompts]
    prior_px: npt.NDArray[np.float32] | None = None
    mask: npt.NDArray[np.bool_] | None = None
    logits: npt.NDArray[np.float32] | None = None
    findings: Findings | None = None
    doubt: str | None = None
    agreement: float = 1.0

    @property
    def hypotheses(self) -> Hypotheses:
        assert self.track.hypotheses is not None  # set by Run.plan
        return self.track.hypotheses

    @property
    def expected(self) -> npt.NDArray[np.bool_]:
        """The mask that the answer should resemble."""
        return self.front.mask if self.prior_px is None else self.prior_px < 0


class Run:
    """One call: what is looked at, with what, and by which rules."""

    def __init__(
        self,
        settings: SlicewisePropagator,
        volume: Volume,
        predictor: Predictor,
        window: tuple[float, float],
        store: EmbeddingStore,
        crop: BodyBox | None,
        locked: npt.NDArray[np.bool_] | None,
        cache: PropagationCache | None,
    ) -> None:
        self._settings = settings
        self._volume = volume
        self._predictor = predictor
        self._window = window
        self._store = store
        self._crop = crop
        self._locked = locked
        self._cache = cache
        self._stop = StopLimits(
            settings.min_overlap,
            settings.min_iou_prediction,
            settings.min_stability,
            settings.max_brightness_shift,
            settings.max_divergence,
            settings.max_growth,
        )

    # key slices

    def key(self, view: SliceView, prompts: Prompts | None, drawn: npt.ArrayLike | None) -> Key:
        """Answer a key slice, or take its drawn mask; from the cache where neither has changed."""
        if self._cache is None:
            return self._answered_key(view, prompts, drawn)
        facts = (self._window, self._crop, self._predictor.model_hash)
        name = key_slice_key(view, prompts, drawn, facts)
        known = self._cache.key_slice(name)
        if known is None:
            known = self._answered_key(view, prompts, drawn)
            self._cache.keep_key_slice(name, known)
        return known

    def _answered_key(self, view: SliceView, prompts: Prompts | None, drawn: npt.ArrayLike | None) -> Key:
        embedding = self._embedding(view)
        if drawn is not None:
            mask = np.asarray(drawn, dtype=bool)
            logits = logits_of_mask(mask, embedding, self._predictor) if mask.any() else None
            return Key(view, mask, logits, 1.0, None, _why_empty(mask), self._appearance(view, mask))
        assert prompts is not None  # every key slice has a mask or prompts, see _key_slices
        prediction = self._predictor.predict(embedding, prompts)
        mask, iou_prediction = prediction.best_mask, _iou_prediction(prediction)
        quality = float(np.sqrt(_unit(iou_prediction) * _stability(prediction)))
        logits = prediction.best_low_res_logits
        appearance = self._appearance(view, mask)
        return Key(view, mask, logits, quality, iou_prediction, _why_empty(mask), appearance)

    def plan(
        self,
        track: Track,
        prompted: Mapping[SliceView, Prompts],
        limits: tuple[int | None, int | None],
        directions: Collection[str],
    ) -> None:
        """Cut the track into gaps; what the cache knows of them is not done again."""
        plane = track.keys[0].view.plane
        along = [key for key in track.keys if key.view.plane == plane]
        across = [key for key in track.keys if key.view.plane != plane]
        settings = self._settings
        track.hypotheses = Hypotheses(
            self._volume,
            self._predictor,
            prompted,
            across,
            settings.box_margin,
            settings.prompt,
            settings.stop_leaks,
        )
        track.gaps = gaps_between(along, self._volume, limits, directions, self._settings.taper)
        for gap in track.gaps:
            if self._cache is not None:
                clicks = track.hypotheses.background_near(plane, gap.indices)
                background = [(view, point.tolist()) for view, point in clicks]
                facts = (
                    self._settings,
                    self._window,
                    self._crop,
                    self._predictor.model_hash,
                    track.class_id,
                    background,
                )
                gap.cache_key = gap_key(gap, across, facts, self._locked)
                gap.replay = self._cache.replay(gap.cache_key)
            if gap.is_closed and gap.replay is None and self._settings.use_prior:
                assert gap.low is not None
                assert gap.high is not None
                spacing = self._volume.pixel_spacing(gap.low.view)
                gap.prior = ShapePrior(gap.low.mask, gap.high.mask, spacing)

    # slices

    def fill(self, tracks: list[Track]) -> Iterator[tuple[Track, Found]]:
        """Turn by turn, nearest slices first, all objects of a slice together."""
        kept: dict[int, list[FoundSlice]] = {}
        gaps = [(track, gap) for track in tracks for gap in track.gaps]
        while any(gap.n_remaining for _, gap in gaps):
            for track, gap in gaps:
                for _ in range(len(gap.fronts) if gap.replay else 0):
                    if gap.replay:
                        yield track, _from_cache(gap.replay.popleft())
            turns: dict[SliceView, list[_Turn]] = {}
            for track, gap in gaps:
                if gap.replay is None:
                    for front, view in gap.next_steps():
                        turns.setdefault(view, []).append(_Turn(track, gap, front, view, []))
            for view, together in turns.items():
                for turn in self._answer(view, together):
                    for found in self._conclude(turn):
                        kept.setdefault(id(turn.gap), []).append(_packed(found))
                        yield turn.track, found
        if self._cache is not None:
            for _, gap in gaps:
                if gap.replay is None and gap.cache_key is not None:
                    self._cache.keep(gap.cache_key, kept.get(id(gap), []))

    def _answer(self, view: SliceView, turns: list[_Turn]) -> list[_Turn]:
        """Decode the first prompts of all objects, then other prompts of those that are not believed."""
        embedding = self._embedding(view)
        for turn in turns:
            self._ask(turn, embedding)
        self._decode(embedding, turns)
        if self._settings.use_hypotheses:
            doubtful = [turn for turn in turns if turn.doubt is not None and turn.mask is not None]
            for turn in doubtful:
                assert turn.mask is not None
                turn.prompts = turn.hypotheses.others(turn.view, turn.expected, turn.front.logits, turn.mask)
            self._decode(embedding, [turn for turn in doubtful if turn.prompts])
        self._settle(embedding, turns)
        return turns

    def _ask(self, turn: _Turn, embedding: ImageEmbedding) -> None:
        front, gap = turn.front, turn.gap
        if gap.prior is not None:
            spacing = self._volume.pixel_spacing(turn.view)
            turn.prior_px = gap.prior.at(gap.fraction(turn.view.index)) / np.float32(
                np.sqrt(np.prod(spacing))
            )
            if not (turn.prior_px < 0).any():
                turn.prior_px = None
        motion = front.velocity_xy if self._settings.follow_motion and turn.prior_px is None else np.zeros(2)
        first = turn.hypotheses.first(turn.view, front.mask, front.logits, motion, turn.prior_px, embedding)
        turn.prompts = first if self._settings.fuse or turn.prior_px is None else first[:1]

    def _decode(self, embedding: ImageEmbedding, turns: list[_Turn]) -> None:
        """One batch for all prompts of all turns; each turn keeps its best answer."""
        prompts = [prompt for turn in turns for prompt in turn.prompts]
        if not prompts:
            return
        answers = iter(
            self._predictor.predict_batch(embedding, prompts, multimask=False, direct_upsampling=True)
        )
        for turn in turns:
            given = [next(answers) for _ in turn.prompts]
            if turn.prior_px is not None and turn.mask is None:
                self._fuse(turn, given, embedding)
                continue
            for answer in given:
                mask, logits = answer.best_mask, answer.best_low_res_logits
                self._judge(turn, mask, logits, _iou_prediction(answer), _stability(answer))

    def _fuse(self, turn: _Turn, given: list[MaskPrediction], embedding: ImageEmbedding) -> None:
        """Mix the answers with the prior in logits, each by what it is worth."""
        assert turn.prior_px is not None
        prior = turn.hypotheses.prior_logits(turn.prior_px, embedding)
        masks = [answer.best_mask for answer in given]
        turn.agreement = _dice(masks[0], masks[-1] if len(masks) > 1 else turn.expected)
        weights = [max(_unit(_iou_prediction(answer)), 0.05) for answer in given]
        parts = [answer.best_low_res_logits for answer in given]
        settled = turn.agreement >= _AGREEING
        prior_weight = self._settings.prior_weight * (1 if settled else 2)
        mixed = sum(w * logits for w, logits in zip(weights, parts, strict=True)) + prior_weight * prior
        mixed = (mixed / (sum(weights) + prior_weight)).astype(np.float32)
        mask = self._predictor.mask_of_logits(embedding, mixed)
        iou_prediction = float(np.mean([_iou_prediction(answer) for answer in given]))
        stability = float(np.mean([_stability(answer) for answer in given]))
        self._judge(turn, mask, mixed, iou_prediction, stability)

    def _judge(
        self,
        turn: _Turn,
        mask: npt.NDArray[np.bool_],
        logits: npt.NDArray[np.float32],
        iou_prediction: float,
        stability: float,
    ) -> None:
        """Keep an answer when it is the first one, or better than the one before."""
        mask = turn.hypotheses.held_by_other_planes(turn.view, self._unlocked(turn.view, mask))
        found = self._findings(turn, mask, iou_prediction, stability)
        doubt = self._stop.reason(found, self._step_mm(turn.view))
        if doubt is None and found.area_px < turn.front.least_px:
            doubt = "the mask vanished"
        if turn.findings is not None:
            better = (doubt is None, found.quality) > (turn.doubt is None, turn.findings.quality)
            if not better or (doubt is not None and turn.doubt is not None):
                return
        turn.mask, turn.logits, turn.findings, turn.doubt = mask, logits, found, doubt

    def _findings(
        self, turn: _Turn, mask: npt.NDArray[np.bool_], iou_prediction: float, stability: float
    ) -> Findings:
        expected, key = turn.expected, turn.front.key.appearance
        here = self._appearance(turn.view, mask)
        return Findings(
            area_px=int(np.count_nonzero(mask)),
            expected_px=int(np.count_nonzero(expected)),
            overlap=iou(expected, mask),
            iou_prediction=_unit(iou_prediction),
            stability=stability,
            brightness=here.mean,
            key_brightness=key.mean,
            brightness_shift=here.shift_from(key),
            divergence=here.divergence_from(key),
        )

    def _settle(self, embedding: ImageEmbedding, turns: list[_Turn]) -> None:
        """Where believed masks of several objects overlap, the pixel goes to the higher logit."""
        believed = [turn for turn in turns if turn.doubt is None and turn.mask is not None]
        if not _any_overlap([turn.mask for turn in believed if turn.mask is not None]):
            return
        for number, one in enumerate(believed):
            for other in believed[number + 1 :]:
                assert one.mask is not None
                assert one.logits is not None
                assert other.mask is not None
                assert other.logits is not None
                contested = one.mask & other.mask
                if one.track.class_id == other.track.class_id or not contested.any():
                    continue
                one.gap.cache_key = other.gap.cache_key = None
                logits = np.stack([one.logits, other.logits])
                high = self._predictor.upsample(embedding, logits)
                first_wins = high[0] >= high[1]
                one.mask = one.mask & ~(contested & ~first_wins)
                other.mask = other.mask & ~(contested & first_wins)
        for turn in believed:
            assert turn.mask is not None
            if np.count_nonzero(turn.mask) < turn.front.least_px:
                turn.doubt = "another object took its place"

    def _conclude(self, turn: _Turn) -> Iterator[Found]:
        """Move the front on, or end it; what is said of the slice."""
        front, gap, view = turn.front, turn.gap, turn.view
        assert turn.mask is not None
        assert turn.findings is not None
        iou_prediction = turn.findings.iou_prediction
        if turn.doubt is not None:
            if gap.prior is not None:
                gap.done.add(view.index)
                mask = self._unlocked(view, turn.expected)
                front.index = view.index
                if mask.any():  # all of it may be locked; then the slice before says what to look for
                    front.mask, front.logits = mask, turn.logits
                yield Found(view, mask, None, _MIXED_QUALITY, iou_prediction, "interpolated", front.direction)
                return
            yield from self._doubt(turn)
            return
        bridged = [doubted for doubted, _ in front.doubts]
        for step, doubted in enumerate(bridged, start=1):
            spacing = self._volume.pixel_spacing(view)
            shape = ShapePrior(front.mask, turn.mask, spacing).at(step / (len(bridged) + 1))
            gap.done.add(doubted.index)
            mask = self._unlocked(doubted, shape < 0)
            yield Found(doubted, mask, None, _MIXED_QUALITY, None, "interpolated", front.direction)
        self._advance(turn)
        gap.done.add(view.index)
        quality = turn.findings.quality * (0.5 + 0.5 * turn.agreement)
        reason = gap.ends_at(front, quality)
        front.active = reason is None and view.index + front.step in gap.indices
        direction = front.direction
        yield Found(view, turn.mask, turn.logits, quality, iou_prediction, "propagated", direction, reason)

    def _doubt(self, turn: _Turn) -> Iterator[Found]:
        """Step over the slice if that is allowed; else the direction ends where the doubts began."""
        front, gap, view = turn.front, turn.gap, turn.view
        assert turn.doubt is not None
        assert turn.mask is not None
        front.doubts.append((view, turn.doubt))
        at_end = view.index + front.step not in gap.indices or gap.is_past_end(front, view.index)
        may_go_on = turn.doubt != "the mask vanished" and not at_end
        if may_go_on and len(front.doubts) <= self._settings.most_bridged:
            return
        front.active = False
        if any(other.active for other in gap.fronts):
            return  # the front from the other side may still reach this slice
        first, reason = front.doubts[0]
        nothing = np.zeros_like(turn.mask)
        yield Found(first, nothing, None, 0.0, None, "propagated", front.direction, reason)

    def _advance(self, turn: _Turn) -> None:
        front = turn.front
        assert turn.mask is not None
        if self._settings.follow_motion:
            n_steps = abs(turn.view.index - front.index)
            motion = (_centroid_xy(turn.mask) - _centroid_xy(front.mask)) / n_steps
            front.velocity_xy = 0.5 * front.velocity_xy + 0.5 * motion
        front.index, front.mask, front.logits = turn.view.index, turn.mask, turn.logits
        front.largest_px = max(front.largest_px, int(np.count_nonzero(turn.mask)))
        front.doubts.clear()

    # what is looked at

    def _embedding(self, view: SliceView) -> ImageEmbedding:
        return embed_slice(
            self._volume, view, self._predictor, window=self._window, store=self._store, crop=self._crop
        )

    def _appearance(self, view: SliceView, mask: npt.NDArray[np.bool_]) -> Appearance:
        """Of the voxels in a mask; of the whole slice when it is empty."""
        values = np.asarray(view.window_on(self._volume.data))
        return Appearance.of(values[mask] if mask.any() else values, self._window)

    def _unlocked(self, view: SliceView, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        return mask if self._locked is None else mask & ~view.window_on(self._locked)

    def _step_mm(self, view: SliceView) -> float:
        return float(self._volume.spacing[view.axis])


def _why_empty(mask: npt.NDArray[np.bool_]) -> str | None:
    return None if mask.any() else "the prompts gave an empty mask"


def _any_overlap(masks: list[npt.NDArray[np.bool_]]) -> bool:
    """Whether two of the masks share a pixel; one pass instead of one for every pair."""
    if len(masks) < 2:
        return False
    taken = masks[0].copy()
    for mask in masks[1:]:
        if (taken & mask).any():
            return True
        taken |= mask
    return False


def _packed(found: Found) -> FoundSlice:
    return FoundSlice.pack(
        found.mask,
        view=found.view,
        quality=found.quality,
        iou_prediction=found.iou_prediction,
        source=found.source,
        direction=found.direction,
        reason=found.reason,
    )


def _from_cache(known: FoundSlice) -> Found:
    return Found(
        known.view,
        known.mask,
        None,
        known.quality,
        known.iou_prediction,
        known.source,
        known.direction,
        known.reason,
    )


def _centroid_xy(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    rows, columns = mask.sum(1), mask.sum(0)
    total = max(1, int(rows.sum()))
    return np.array([columns @ np.arange(len(columns)), rows @ np.arange(len(rows))]) / total


def _dice(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / total if total else 1.0


def _iou_prediction(prediction: MaskPrediction) -> float:
    return float(prediction.iou_predictions[prediction.best_index])


def _stability(prediction: MaskPrediction) -> float:
    return _unit(float(prediction.stability_scores[prediction.best_index]))


def _unit(value: float) -> float:
    """The value limited to 0..1; 0 for NaN (the stability of an empty mask)."""
    return float(min(1.0, max(0.0, value))) if np.isfinite(value) else 0.0
