"""How an annotator would prompt: boxes, clicks and dialogues drawn from the true mask of an object.

An opening is a function of a `PromptTarget` and a random generator; a reply is one of the mask, the prompts
so far and the model's answer to them. A `Dialogue` is an opening, with or without replies, and a `Strategy`
is the name under which a dialogue is scored after so many turns. To add one, write its function and an entry
in `STRATEGIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.errors import PromptError
from napari_sam_med.evaluation.baselines import tight_box
from napari_sam_med.evaluation.prompt_target import PromptTarget
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.prompts import Prompts

__all__ = [
    "STRATEGIES",
    "Dialogue",
    "PromptTarget",
    "Strategy",
    "bound_box",
    "center_distance",
    "corrective_click",
    "jittered_box",
    "larger_box",
    "parse_strategies",
    "random_margin_box",
    "random_mask",
]

Mask = npt.NDArray[np.bool_]
Opening = Callable[[PromptTarget, np.random.Generator], Prompts]
Reply = Callable[[Mask, Prompts, MaskPrediction], Prompts | None]

_DEFAULT_JITTERS = ("0.05", "0.1")
_DEFAULT_CLICKS = ("1", "3", "5")
_MOST_CLICKS = 100
_LARGEST_MARGIN = 1000


@dataclass(frozen=True)
class Dialogue:
    """What an annotator says of one object.

    Attributes
    ----------
    name : str
        Also seeds the generator, so that what is drawn does not depend on what else is measured.
    kinds : frozenset of str
        Kinds of prompt that a model must take: of ``point``, ``box``, ``mask``.
    opening : callable
        Prompts from the object and a generator.
    reply : callable, optional
        The next prompts from the mask, the last prompts and the answer to them; None when nothing is wrong.
    """

    name: str
    kinds: frozenset[str]
    opening: Opening
    reply: Reply | None = None


@dataclass(frozen=True)
class Strategy:
    """A dialogue, scored after turn number ``turn`` (from 1)."""

    name: str
    dialogue: Dialogue
    turn: int = 1


def bound_box(target: PromptTarget, rng: np.random.Generator) -> Prompts:
    """The box tangent to the mask (H, W), both corners inside.

    Source: the "tight box" of Kirillov et al., Segment Anything, ICCV 2023, and of Mazurowski et al., Medical
    Image Analysis 89, 2023.
    """
    del rng
    return Prompts.from_box(target.box_xyxy)


def jittered_box(target: PromptTarget, rng: np.random.Generator, fraction: float) -> Prompts:
    """The tangent box with every side moved by uniform noise, clipped to the image.

    Each side moves by up to ``fraction`` of the box's extent (pixels) along that axis, in either direction.
    Source: the noisy boxes of Kirillov et al., Segment Anything, ICCV 2023, appendix A (there normal noise of
    10 %), with the uniform noise of Ma et al., MedSAM, Nature Communications 15, 2024 (there 0 to 20 pixels).
    """
    box = target.box_xyxy.astype(np.float64)
    sides = box[2:] - box[:2] + 1
    box += rng.uniform(-fraction, fraction, 4) * np.tile(sides, 2)
    return _clipped(box, target.mask)


def larger_box(target: PromptTarget, rng: np.random.Generator, pixels: int = 5) -> Prompts:
    """The tangent box with every side moved out by so many pixels, clipped to the image.

    Source: a term project on SAM with the BTCV abdomen set, where it is 5 pixels.
    """
    del rng
    return _clipped(target.box_xyxy + np.array([-pixels, -pixels, pixels, pixels]), target.mask)


def random_margin_box(target: PromptTarget, rng: np.random.Generator, margin: int) -> Prompts:
    """The tangent box, each side moved by a random number of pixels, clipped to the image.

    The number is uniform over 0 to ``|margin|``, outwards for a positive margin and inwards for a negative
    one; sides that pass each other change places. Source: a study of prompts for SAM on brain tumours in MR,
    which sweeps the margin from -20 to 40 in steps of 10.
    """
    moved = np.sign(margin) * rng.integers(0, abs(margin) + 1, 4)
    return _clipped(target.box_xyxy + moved * np.array([-1, -1, 1, 1]), target.mask)


def _clipped(box: npt.NDArray[Any], mask: Mask) -> Prompts:
    # the two sides of a small box may pass each other
    box = np.concatenate([np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])])
    return Prompts.from_box(np.clip(box, 0, np.tile([mask.shape[1] - 1, mask.shape[0] - 1], 2)))


def random_mask(target: PromptTarget, rng: np.random.Generator, count: int = 1) -> Prompts:
    """Positive clicks on different pixels of the mask (H, W), drawn uniformly; fewer where it is smaller.

    Source: ``random_mask`` of a study of prompts for SAM on brain tumours in MR, and the "random points" of a
    term project on SAM with the BTCV abdomen set.
    """
    rows, columns = np.nonzero(target.mask)
    picks = rng.choice(len(rows), min(count, len(rows)), replace=False)
    return Prompts.from_points(np.stack([columns[picks], rows[picks]], 1), np.ones(len(picks), np.int64))


def center_distance(target: PromptTarget, rng: np.random.Generator) -> Prompts:
    """One positive click on the pixel of the mask (H, W) with the largest distance to the background.

    The image ends in background; of several such pixels the first in reading order is taken. Source: the
    "center" point of Kirillov et al., Segment Anything, ICCV 2023, section 7.1.
    """
    del rng
    return Prompts.from_points([_deepest_pixel(target.mask)], [1])


def corrective_click(mask: Mask, prompts: Prompts, answer: MaskPrediction) -> Prompts | None:
    """One click more, where the answer is most wrong, with the logits of the answer as mask prompt.

    The click lies on the deepest pixel of the largest connected (4 neighbours) error: positive where the mask
    is missed, negative where the answer is too much; a missed part first when both are as large. Source: the
    robot user of Sofiiuk et al., Reviving Iterative Training with Mask Guidance for Interactive Segmentation,
    ICIP 2022, with the mask prompt of Kirillov et al., Segment Anything, ICCV 2023, appendix A.

    Returns
    -------
    Prompts or None
        None when the answer is the mask.
    """
    missed = _largest_part(mask & ~answer.best_mask)
    excess = _largest_part(answer.best_mask & ~mask)
    if not missed.any() and not excess.any():
        return None
    positive = bool(missed.sum() >= excess.sum())
    return prompts.replace(
        points_xy=[*prompts.points_xy, _deepest_pixel(missed if positive else excess)],
        point_labels=[*prompts.point_labels, int(positive)],
        mask_input=answer.best_low_res_logits,
    )


def _deepest_pixel(mask: Mask) -> tuple[int, int]:
    """x, y of the pixel farthest from the background; the image ends in background."""
    x0, y0, x1, y1 = tight_box(mask).astype(int)
    depth = ndimage.distance_transform_edt(np.pad(mask[y0 : y1 + 1, x0 : x1 + 1], 1))
    row, column = np.unravel_index(np.argmax(depth), depth.shape)
    return int(column) + x0 - 1, int(row) + y0 - 1


def _largest_part(mask: Mask) -> Mask:
    parts, count = ndimage.label(mask)
    largest: Mask = mask if count < 2 else parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return largest


_CLICKING = Dialogue("corrective_clicks", frozenset({"point", "mask"}), center_distance, corrective_click)


def _plain(name: str, kind: str, opening: Opening) -> Callable[[str], Strategy]:
    def make(parameter: str) -> Strategy:
        if parameter:
            raise PromptError(f'The strategy {name} takes no parameter, got "{parameter}"; write "{name}".')
        return Strategy(name, Dialogue(name, frozenset({kind}), opening))

    return make


def _jittered(parameter: str) -> Strategy:
    try:
        fraction = float(parameter)
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction < 0.5:
        raise PromptError(
            f'The noise of jittered_box is a share of the box of 0 to below 0.5, got "{parameter}"; '
            'write for example "jittered_box:0.1".'
        )
    name = f"jittered_box:{fraction:g}"
    return Strategy(name, Dialogue(name, frozenset({"box"}), partial(jittered_box, fraction=fraction)))


def _larger(parameter: str) -> Strategy:
    pixels = _integer("larger_box", parameter, 0, _LARGEST_MARGIN)
    name = f"larger_box:{pixels}"
    return Strategy(name, Dialogue(name, frozenset({"box"}), partial(larger_box, pixels=pixels)))


def _with_margin(parameter: str) -> Strategy:
    margin = _integer("random_margin_box", parameter, -_LARGEST_MARGIN, _LARGEST_MARGIN)
    name = f"random_margin_box:{margin}"
    return Strategy(name, Dialogue(name, frozenset({"box"}), partial(random_margin_box, margin=margin)))


def _integer(name: str, parameter: str, least: int, most: int) -> int:
    try:
        value = int(parameter)
    except ValueError:
        value = most + 1
    if not least <= value <= most:
        raise PromptError(
            f'{name} takes a whole number of pixels of {least} to {most}, got "{parameter}"; write for '
            f'example "{name}:5".'
        )
    return value


def _corrected(parameter: str) -> Strategy:
    clicks = int(parameter) if parameter.isdecimal() else 0
    if not 1 <= clicks <= _MOST_CLICKS:
        raise PromptError(
            f'corrective_clicks takes a number of clicks of 1 to {_MOST_CLICKS}, got "{parameter}"; '
            'write for example "corrective_clicks:3".'
        )
    return Strategy(f"corrective_clicks:{clicks}", _CLICKING, clicks)


@dataclass(frozen=True)
class Family:
    """Strategies of one name: how to make one of a parameter, and the parameters when none is given."""

    make: Callable[[str], Strategy]
    defaults: tuple[str, ...] = ("",)
    form: str = ""


STRATEGIES: dict[str, Family] = {
    "bound_box": Family(_plain("bound_box", "box", bound_box)),
    "jittered_box": Family(_jittered, _DEFAULT_JITTERS, ":SHARE"),
    "larger_box": Family(_larger, ("5",), ":PIXELS"),
    "random_margin_box": Family(_with_margin, tuple(str(m) for m in range(-20, 41, 10)), ":PIXELS"),
    "random_mask": Family(_plain("random_mask", "point", random_mask)),
    "random_3": Family(_plain("random_3", "point", partial(random_mask, count=3))),
    "center_distance": Family(_plain("center_distance", "point", center_distance)),
    "corrective_clicks": Family(_corrected, _DEFAULT_CLICKS, ":CLICKS"),
}


def parse_strategies(names: Iterable[str]) -> list[Strategy]:
    """Strategies by name, each once, in order.

    Parameters
    ----------
    names : iterable of str
        ``NAME`` or ``NAME:PARAMETER``; a name that takes a parameter stands, without one, for several:
        ``jittered_box`` for 0.05 and 0.1, ``corrective_clicks`` for 1, 3 and 5.

    Raises
    ------
    PromptError
        On an unknown name or a parameter that does not fit.
    """
    found: dict[str, Strategy] = {}
    for text in names:
        name, _, parameter = text.strip().partition(":")
        if name not in STRATEGIES:
            known = ", ".join(name + family.form for name, family in STRATEGIES.items())
            raise PromptError(f'There is no prompt strategy "{name}"; use one of {known}.')
        family = STRATEGIES[name]
        for one in (parameter,) if parameter else family.defaults:
            strategy = family.make(one)
            found[strategy.name] = strategy
    if not found:
        raise PromptError(f"There is no prompt strategy; name at least one of {', '.join(STRATEGIES)}.")
    return list(found.values())
