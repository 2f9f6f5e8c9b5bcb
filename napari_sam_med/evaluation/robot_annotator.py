"""A simulated annotator who boxes one slice, lets it be carried, and corrects slice after slice.

What a way to propagate, or to suggest the next slice, is worth: how many slices must be prompted until the
volume is good enough ("number of slices", NoS, after the "number of clicks" of interactive segmentation).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_sam_med.evaluation.baselines import tight_box
from napari_sam_med.evaluation.metrics import dice
from napari_sam_med.evaluation.prompt_strategies import PromptTarget, corrective_click, jittered_box
from napari_sam_med.evaluation.volume_metrics import over_propagation
from napari_sam_med.progress import Progress
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.propagation import PropagatedSlice, Propagator, propagate
from napari_sam_med.segmentation.review import next_doubtful, slice_doubts
from napari_sam_med.segmentation.slicewise import (
    Window,
    box_of_mask,
    corrected_prompts,
    embed_slice,
    logits_of_mask,
)
from napari_sam_med.volume.slice_view import Plane, SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.volume.volume import Volume

__all__ = ["RobotAnnotator", "RobotSettings", "RobotTurn", "slices_to"]

Mask = npt.NDArray[np.bool_]
Order = Literal["suggested", "even-found", "even-true"]
Correction = Literal["clicks", "mask"]

_ID = 1
_GOOD_SLICE = 0.95
"""Dice at which the robot is content with a slice; nobody redraws a border within a pixel of theirs."""


@dataclass(frozen=True)
class RobotSettings:
    """How the annotator works.

    Attributes
    ----------
    order : {"suggested", "even-found", "even-true"}
        Which slice comes next: the one that `next_doubtful` suggests; or the middle of the widest part
        without a key slice, of the extent found so far, or of the true one (which nobody would know).
    correction : {"clicks", "mask"}
        Up to `max_clicks` clicks on the largest error, answered by the model; or the true mask, as if drawn.
    max_clicks : int
        On one slice. A slice that shows nothing is boxed first, as the first slice was.
    max_slices : int
        Prompted slices, the first one included.
    enough : float
        Dice of the volume at which the annotator stops.
    jitter : float
        Noise of the boxes as a share of their sides, see `jittered_box`.
    seed : int
        Of that noise.
    """

    order: Order = "suggested"
    correction: Correction = "clicks"
    max_clicks: int = 3
    max_slices: int = 20
    enough: float = 0.9
    jitter: float = 0.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class RobotTurn:
    """The state after one more slice was prompted and everything carried again.

    Attributes
    ----------
    progress : Progress
        Prompted slices of the most there may be.
    view : SliceView
        The slice that was prompted.
    why : str
        ``first``, ``run`` or ``end`` (see `Proposal`), or ``even``.
    n_interactions : int
        Boxes, clicks, drawn masks and erased slices so far.
    dice, over_propagation : float
        Of the volume, see `volume_metrics`.
    seconds : float
        Of this turn's propagation.
    mask : ndarray (z, y, x) of bool
        The object; `score_volume` measures the rest.
    """

    progress: Progress
    view: SliceView
    why: str
    n_interactions: int
    dice: float
    over_propagation: float
    seconds: float
    mask: Mask


def slices_to(turns: Iterable[RobotTurn], target: float) -> int | None:
    """Prompted slices until the volume's Dice reached a target (0 to 1); None when it never did."""
    return next((turn.progress.done for turn in turns if turn.dice >= target), None)


@dataclass(frozen=True)
class RobotAnnotator:
    """An annotator with a way to propagate.

    Attributes
    ----------
    settings : RobotSettings
    engine : Propagator or None
        The slice-wise engine when left out.
    options : mapping
        For the engine.
    window : str or (low, high)
    """

    settings: RobotSettings = field(default_factory=RobotSettings)
    engine: Propagator | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    window: Window = "auto"

    def annotate(
        self,
        volume: Volume,
        truth: Mask,
        predictor: Predictor,
        *,
        plane: Plane = "axial",
        store: EmbeddingStore | None = None,
    ) -> Iterator[RobotTurn]:
        """Annotate one object; a job that yields after every prompted slice.

        Parameters
        ----------
        volume : Volume
        truth : ndarray (z, y, x) of bool
            Not empty.
        predictor : Predictor
        plane : {"axial", "coronal", "sagittal"}
        store : EmbeddingStore, optional

        Yields
        ------
        RobotTurn
            The first after one box on the largest slice. It ends when the Dice is enough, the slices are used
            up, or no slice is left to suggest.
        """
        desk = _Desk(self, volume, truth, predictor, plane, store)
        view, why = desk.largest_slice(), "first"
        while True:
            if why == "first":
                desk.prompt_box(view)
            else:
                desk.correct(view)
            seconds = desk.carry()
            n_prompted = len(desk.keys)
            found = dice(desk.mask, truth)
            yield RobotTurn(
                progress=Progress(n_prompted, self.settings.max_slices, "prompted slices"),
                view=view,
                why=why,
                n_interactions=desk.n_interactions,
                dice=found,
                over_propagation=over_propagation(desk.mask, truth, axis=view.axis),
                seconds=seconds,
                mask=desk.mask,
            )
            following = desk.next_slice()
            if found >= self.settings.enough or n_prompted >= self.settings.max_slices or following is None:
                return
            view, why = following


class _Desk:
    """One object under way: the key slices so far and what was carried from them."""

    def __init__(
        self,
        robot: RobotAnnotator,
        volume: Volume,
        truth: Mask,
        predictor: Predictor,
        plane: Plane,
        store: EmbeddingStore | None,
    ) -> None:
        self.robot = robot
        self.settings = robot.settings
        self.volume = volume
        self.truth = truth
        self.predictor = predictor
        self.plane: Plane = plane
        self.store = store
        self.rng = np.random.default_rng(self.settings.seed)
        self.prompts: dict[SliceView, Prompts] = {}
        self.masks: dict[SliceView, Mask] = {}
        self.carried: list[PropagatedSlice] = []
        self.mask: Mask = np.zeros(truth.shape, dtype=bool)
        self.n_interactions = 0

    @property
    def keys(self) -> set[int]:
        return {view.index for view in (*self.prompts, *self.masks)}

    def largest_slice(self) -> SliceView:
        return SliceView(self.plane, int(np.argmax(_areas(self.truth, self.plane))))

    def prompt_box(self, view: SliceView) -> None:
        self.prompts[view] = self._box(view.extract(self.truth))

    def carry(self) -> float:
        """Propagate anew from all key slices; seconds."""
        start = time.perf_counter()
        self.carried = list(
            propagate(
                self.volume,
                {_ID: (1, self.prompts)},
                self.predictor,
                engine=self.robot.engine,
                window=self.robot.window,
                store=self.store,
                masks={_ID: self.masks},
                **self.robot.options,
            )
        )
        seconds = time.perf_counter() - start
        self.mask = np.zeros(self.truth.shape, dtype=bool)
        for done in self.carried:
            done.view.insert(self.mask, done.mask)
        return seconds

    def next_slice(self) -> tuple[SliceView, str] | None:
        """Where the annotator goes next, and why."""
        n_slices = self.truth.shape[SliceView(self.plane, 0).axis]
        if self.settings.order == "suggested":
            proposal = next_doubtful(slice_doubts(self.carried), self.keys, n_slices=n_slices)
            return None if proposal is None else (SliceView(self.plane, proposal.index), proposal.kind)
        extent = self.truth if self.settings.order == "even-true" else self.mask
        index = _middle_of_widest_gap(np.flatnonzero(_areas(extent, self.plane)), self.keys)
        return None if index is None else (SliceView(self.plane, index), "even")

    def correct(self, view: SliceView) -> None:
        """Make a slice a key slice: what is found on it, corrected."""
        truth, shown = view.extract(self.truth), view.extract(self.mask)
        if self.settings.correction == "mask" or not truth.any():
            self.n_interactions += 1
            self.masks[view] = truth
        else:
            self.masks[view] = self._clicked(view, truth, shown)

    def _clicked(self, view: SliceView, truth: Mask, shown: Mask) -> Mask:
        """The best mask seen while clicking: a click that makes it worse is undone."""
        embedding = embed_slice(self.volume, view, self.predictor, window=self.robot.window, store=self.store)
        if not shown.any() or "point" not in self.predictor.accepts:
            shown = self.predictor.predict(embedding, self._box(truth)).best_mask
        best = current = shown
        clicks = None
        for _ in range(self.settings.max_clicks if "point" in self.predictor.accepts else 0):
            if dice(best, truth) >= _GOOD_SLICE or not current.any():
                break
            asked = clicks or Prompts(box_xyxy=box_of_mask(current))
            logits = logits_of_mask(current, embedding, self.predictor)
            reply = corrective_click(truth, asked, _answer_of(current, logits))
            if reply is None:
                break
            self.n_interactions += 1
            clicks = Prompts.from_points(reply.points_xy, reply.point_labels)
            prompts = corrected_prompts(clicks, shown, embedding, self.predictor)
            current = self.predictor.predict(embedding, prompts).best_mask
            best = max(best, current, key=lambda mask: dice(mask, truth))
        return best

    def _box(self, truth: Mask) -> Prompts:
        self.n_interactions += 1
        if self.settings.jitter:
            return jittered_box(PromptTarget(truth), self.rng, self.settings.jitter)
        return Prompts.from_box(tight_box(truth))


def _answer_of(mask: Mask, logits: npt.NDArray[np.float32]) -> MaskPrediction:
    """A mask as if a model had answered it."""
    sure = np.ones(1, dtype=np.float32)
    return MaskPrediction(mask[None], sure, logits[None], sure, np.zeros((1, 0), dtype=np.float32))


def _areas(mask: Mask, plane: Plane) -> npt.NDArray[np.int_]:
    axis = SliceView(plane, 0).axis
    areas: npt.NDArray[np.int_] = mask.sum(axis=tuple(i for i in range(3) if i != axis))
    return areas


def _middle_of_widest_gap(present: npt.NDArray[np.intp], keys: set[int]) -> int | None:
    """The slice of an extent that lies farthest from every key slice and from the outside."""
    if not len(present):
        return None
    extent = range(int(present[0]), int(present[-1]) + 1)
    borders = sorted({extent.start - 1, extent.stop, *keys.intersection(extent)})
    widest = max(range(len(borders) - 1), key=lambda i: borders[i + 1] - borders[i])
    low, high = borders[widest], borders[widest + 1]
    return (low + high) // 2 if high - low > 1 else None
