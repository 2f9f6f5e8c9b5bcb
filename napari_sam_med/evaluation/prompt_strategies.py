"""How an annotator would prompt: boxes, clicks and dialogues drawn from the true mask of an object.

An opening is a function of a `PromptTarget` and a random generator; a reply is one of the mask, the prompts
so far and the model's answer to them. A `Dialogue` is an opening, with or without replies, and a `Strategy`
is the name under which a dialogue is scored after so many turns. To add one, write its function and an entry
in `STRATEGIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import PromptError
from napari_sam_med.evaluation import point_strategies as points
from napari_sam_med.evaluation.box_strategies import bound_box, jittered_box, larger_box, random_margin_box
from napari_sam_med.evaluation.point_strategies import center_distance, random_mask
from napari_sam_med.evaluation.prompt_target import Mask, PromptTarget, prompt_targets
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.prompts import Prompts

__all__ = [
    "STRATEGIES",
    "Dialogue",
    "Family",
    "PromptTarget",
    "Strategy",
    "bound_box",
    "center_distance",
    "corrective_click",
    "draw_prompts",
    "jittered_box",
    "larger_box",
    "parse_strategies",
    "random_margin_box",
    "random_mask",
]

Opening = Callable[[PromptTarget, np.random.Generator], Prompts]
Reply = Callable[[Mask, Prompts, MaskPrediction], Prompts | None]

_DEFAULT_JITTERS = ("0.05", "0.1")
_DEFAULT_CLICKS = ("1", "3", "5")
_DEFAULT_MARGINS = tuple(str(margin) for margin in range(-20, 41, 10))
_BOXES = "boxes"
_MOST_CLICKS = 100
_LARGEST_MARGIN = 1000
_LARGEST_SPREAD = 10000
_SPREAD, _SNAP = "spread", "snap"
_OPTIONS = {_SPREAD: f"the width of a Gaussian in pixels (up to {_LARGEST_SPREAD})", _SNAP: f'"{_SNAP}"'}


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
    may_miss : bool
        Whether a positive click of the opening can fall outside the mask.
    parts : tuple of Dialogue
        What it is put together from; empty for one that stands alone.
    """

    name: str
    kinds: frozenset[str]
    opening: Opening
    reply: Reply | None = None
    may_miss: bool = False
    parts: tuple[Dialogue, ...] = ()


@dataclass(frozen=True)
class Strategy:
    """A dialogue, scored after turn number ``turn`` (from 1)."""

    name: str
    dialogue: Dialogue
    turn: int = 1

    @property
    def may_miss(self) -> bool:
        """Whether a positive click can fall outside the mask; ``NAME:snap`` then moves it there."""
        return self.dialogue.may_miss


def draw_prompts(
    strategy: Strategy,
    masks: npt.NDArray[np.bool_],
    rngs: Sequence[np.random.Generator],
    image: npt.NDArray[np.uint8] | None = None,
) -> list[Prompts]:
    """Opening prompts of a strategy for many objects of a slice: the same as for one after the other.

    Parameters
    ----------
    strategy : Strategy
    masks : array (N, H, W) bool
        None empty.
    rngs : sequence of N Generator
        One for each object.
    image : array (H, W, 3) uint8, optional
        The slice, for strategies that look at grey values.
    """
    targets = prompt_targets(masks, image)
    return [strategy.dialogue.opening(target, rng) for target, rng in zip(targets, rngs, strict=True)]


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
    missed = points.largest_part(mask & ~answer.best_mask)
    excess = points.largest_part(answer.best_mask & ~mask)
    if not missed.any() and not excess.any():
        return None
    positive = bool(missed.sum() >= excess.sum())
    return prompts.replace(
        points_xy=[*prompts.points_xy, points.deepest_pixel(missed if positive else excess)],
        point_labels=[*prompts.point_labels, int(positive)],
        mask_input=answer.best_low_res_logits,
    )


_CLICKING = Dialogue("corrective_clicks", frozenset({"point", "mask"}), center_distance, corrective_click)


def _opened(name: str, kind: str, opening: Opening, *, may_miss: bool = False) -> Strategy:
    return Strategy(name, Dialogue(name, frozenset({kind}), opening, may_miss=may_miss))


def _plain(name: str, kind: str, opening: Opening) -> Callable[[str], Strategy]:
    def make(parameter: str) -> Strategy:
        if parameter:
            raise PromptError(f'The strategy {name} takes no parameter, got "{parameter}"; write "{name}".')
        return _opened(name, kind, opening)

    return make


def _jittered(parameter: str) -> Strategy:
    fraction = _number(parameter)
    if not 0 <= fraction < 0.5:
        raise PromptError(
            f'The noise of jittered_box is a share of the box of 0 to below 0.5, got "{parameter}"; '
            'write for example "jittered_box:0.1".'
        )
    return _opened(f"jittered_box:{fraction:g}", "box", partial(jittered_box, fraction=fraction))


def _larger(parameter: str) -> Strategy:
    pixels = _integer("larger_box", parameter, 0, _LARGEST_MARGIN)
    return _opened(f"larger_box:{pixels}", "box", partial(larger_box, pixels=pixels))


def _with_margin(parameter: str) -> Strategy:
    margin = _integer("random_margin_box", parameter, -_LARGEST_MARGIN, _LARGEST_MARGIN)
    return _opened(f"random_margin_box:{margin}", "box", partial(random_margin_box, margin=margin))


def _scribbled(parameter: str) -> Strategy:
    count = int(parameter) if parameter.isdecimal() else 0
    if not 1 <= count <= _MOST_CLICKS:
        raise PromptError(
            f'scribble takes a number of points of 1 to {_MOST_CLICKS}, got "{parameter}"; write for example '
            '"scribble:5".'
        )
    return _opened(f"scribble:{count}", "point", partial(points.scribble, count=count))


def _click(name: str, opening: Callable[..., Prompts], *options: str) -> Callable[[str], Strategy]:
    """A click that takes some of the options ``spread`` (a number, first) and ``snap`` (a word)."""

    def make(parameter: str) -> Strategy:
        given = parameter.split(":") if parameter else []
        chosen: dict[str, Any] = {}
        words = [name]
        if _SPREAD in options and given and 0 < _number(given[0]) <= _LARGEST_SPREAD:
            spread = _number(given.pop(0))
            if spread != points.DEFAULT_SPREAD:
                chosen[_SPREAD] = spread
                words.append(f"{spread:g}")
        if _SNAP in options and given == [_SNAP]:
            chosen[_SNAP] = True
            words.append(given.pop())
        if given:
            raise PromptError(
                f"{name} takes {' and '.join(_OPTIONS[option] for option in options)}, or nothing, got "
                f'"{parameter}"; write for example "{name}:{"30" if _SPREAD in options else _SNAP}".'
            )
        may_miss = _SNAP in options and _SNAP not in chosen
        return _opened(":".join(words), "point", partial(opening, **chosen), may_miss=may_miss)

    return make


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


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


def _together(parts: Sequence[Strategy]) -> Strategy:
    """One strategy of several: a box and clicks given at once, or what a dialogue of corrections starts from.

    Boxes stand first and a dialogue last, whatever the order in which they are named. A dialogue leaves out
    its own opening, and its clicks all follow what the others gave.
    """
    if len(parts) == 1:
        return parts[0]
    openings = [part for part in parts if part.dialogue.reply is None]
    replying = [part for part in parts if part.dialogue.reply is not None]
    openings.sort(key=lambda part: "box" not in part.dialogue.kinds)
    names = [part.name for part in (*openings, *replying)]
    boxes = [part.name for part in parts if "box" in part.dialogue.kinds]
    if len(set(names)) < len(names) or len(boxes) > 1 or len(replying) > 1:
        raise PromptError(
            f'"{"+".join(names)}" cannot be given at once: a model takes one box, each strategy is named '
            "once, and one dialogue goes on from the others; leave one of them out."
        )
    dialogue = Dialogue(
        "+".join(part.dialogue.name for part in (*openings, *replying)),
        frozenset().union(*(part.dialogue.kinds for part in parts)),
        partial(_united, [part.dialogue.opening for part in openings]),
        replying[0].dialogue.reply if replying else None,
        may_miss=any(part.may_miss for part in openings),
        parts=tuple(part.dialogue for part in (*openings, *replying)),
    )
    return Strategy("+".join(names), dialogue, 1 + sum(part.turn for part in replying))


def _united(openings: Sequence[Opening], target: PromptTarget, rng: np.random.Generator) -> Prompts:
    """The prompts of all openings, drawn one after the other."""
    drawn = [opening(target, rng) for opening in openings]
    boxes = [prompts.box_xyxy for prompts in drawn if prompts.box_xyxy is not None]
    return Prompts(
        np.concatenate([prompts.points_xy for prompts in drawn]),
        np.concatenate([prompts.point_labels for prompts in drawn]),
        boxes[0] if boxes else None,
    )


@dataclass(frozen=True)
class Family:
    """Strategies of one name: how to make one of a parameter, and the parameters when none is given.

    ``form`` shows how the parameter is written.
    """

    make: Callable[[str], Strategy]
    defaults: tuple[str, ...] = ("",)
    form: str = ""


STRATEGIES: dict[str, Family] = {
    "bound_box": Family(_plain("bound_box", "box", bound_box)),
    "jittered_box": Family(_jittered, _DEFAULT_JITTERS, ":SHARE"),
    "larger_box": Family(_larger, ("5",), ":PIXELS"),
    "random_margin_box": Family(_with_margin, _DEFAULT_MARGINS, ":PIXELS"),
    "random_box": Family(_click("random_box", points.random_box, _SNAP), form="[:snap]"),
    "random_mask": Family(_plain("random_mask", "point", random_mask)),
    "random_gaussian": Family(_click("random_gaussian", points.random_gaussian, _SPREAD), form="[:PIXELS]"),
    "random_3": Family(_plain("random_3", "point", partial(random_mask, count=3))),
    "center_box": Family(_click("center_box", points.center_box, _SNAP), form="[:snap]"),
    "center_mask": Family(_click("center_mask", points.center_mask, _SNAP), form="[:snap]"),
    "center_gaussian": Family(
        _click("center_gaussian", points.center_gaussian, _SPREAD, _SNAP), form="[:PIXELS][:snap]"
    ),
    "center_bilateral": Family(
        _click("center_bilateral", points.center_bilateral, _SPREAD, _SNAP), form="[:PIXELS][:snap]"
    ),
    "center_distance": Family(_plain("center_distance", "point", center_distance)),
    "background_corner": Family(_plain("background_corner", "point", points.background_corner)),
    "scribble": Family(_scribbled, ("5",), ":POINTS"),
    "corrective_clicks": Family(_corrected, _DEFAULT_CLICKS, ":CLICKS"),
}


def parse_strategies(names: Iterable[str], *, reads_files: bool = True) -> list[Strategy]:
    """Strategies by name, each once, in order.

    Parameters
    ----------
    names : iterable of str
        ``NAME`` or ``NAME:PARAMETER``; a name that takes a parameter stands, without one, for several:
        ``jittered_box`` for 0.05 and 0.1, ``corrective_clicks`` for 1, 3 and 5. Names joined by ``+`` are
        given at once: ``bound_box+center_mask``. A dialogue goes on from the others:
        ``bound_box+corrective_clicks:3`` is a box, then three corrections. ``boxes:FILE`` are the boxes of a
        detector, see `read_boxes`.
    reads_files : bool
        False leaves the files of ``boxes:FILE`` alone, which takes no time; such a strategy can be counted
        and cannot be asked.

    Raises
    ------
    PromptError
        On an unknown name, a parameter that does not fit, or strategies that cannot be given at once.
    ImageError, LabelError
        When the file of ``boxes:FILE`` is a label volume that cannot be read.
    """
    found: dict[str, Strategy] = {}
    for text in names:
        for parts in product(*(_named(part, reads_files) for part in _parts(text))):
            strategy = _together(parts)
            found[strategy.name] = strategy
    if not found:
        raise PromptError(f"There is no prompt strategy; name at least one of {', '.join(STRATEGIES)}.")
    return list(found.values())


def _parts(text: str) -> list[str]:
    """The names that are joined by +, which may stand in the name of a file, too."""
    parts: list[str] = []
    for piece in text.split("+"):
        in_file = bool(parts) and parts[-1].lstrip().startswith(f"{_BOXES}:")
        if in_file and piece.partition(":")[0].strip() not in STRATEGIES:
            parts[-1] += f"+{piece}"
        else:
            parts.append(piece)
    return parts


def _unread(target: PromptTarget, rng: np.random.Generator) -> Prompts:
    raise RuntimeError("The file of these boxes was not read.")


def _named(text: str, reads_files: bool) -> list[Strategy]:
    name, _, parameter = text.strip().partition(":")
    if name == _BOXES and parameter:
        from napari_sam_med.evaluation.detector_boxes import read_boxes

        opening = read_boxes(parameter) if reads_files else _unread
        return [_opened(f"{name}:{parameter}", "box", opening)]
    if name not in STRATEGIES:
        known = ", ".join([*(name + family.form for name, family in STRATEGIES.items()), f"{_BOXES}:FILE"])
        raise PromptError(
            f'There is no prompt strategy "{name}"; use one of {known}, or several joined by "+".'
        )
    family = STRATEGIES[name]
    return [family.make(one) for one in ((parameter,) if parameter else family.defaults)]
