"""Published comparisons of prompts, to be run on other scans: their strategies, their tables, their findings.

A table puts what was measured beside what was published; the two come from different scans, and mostly from
different models, so it is their order that can be compared, not their height.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, product
from typing import Any

from napari_sam_med.errors import PromptError
from napari_sam_med.evaluation.measuring import SliceScore
from napari_sam_med.evaluation.report import ResultTable
from napari_sam_med.evaluation.summary import summarised

__all__ = [
    "PROTOCOLS",
    "Finding",
    "Protocol",
    "ProtocolRow",
    "Published",
    "findings_table",
    "named_protocol",
    "protocol_facts",
    "protocol_table",
    "protocol_tables",
    "split_summaries",
]


@dataclass(frozen=True)
class Published:
    """What a study reports of one prompt: a mean of the model as it was, and of the fine-tuned one."""

    original: float
    tuned: float


@dataclass(frozen=True)
class ProtocolRow:
    """A row of a protocol's table.

    Attributes
    ----------
    headings : tuple of str
        The cells that name it, as many in every row of a protocol.
    strategy : str
        Canonical name, see `parse_strategies`.
    published : dict of str to Published
        By split, ``test`` or ``train``; empty where the study gives no number.
    """

    headings: tuple[str, ...]
    strategy: str
    published: Mapping[str, Published]


@dataclass(frozen=True)
class Finding:
    """A claim of a study: in each pair the first strategy does better than the second."""

    claim: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Protocol:
    """A published comparison.

    Attributes
    ----------
    name : str
    title, source : str
        What is compared, and who published it on what.
    measure : {"IoU", "Dice"}
    mean : str
        Key of the mean in a summary that comes nearest to what was published.
    columns : tuple of str
        What the headings of the rows are.
    rows : tuple of ProtocolRow
    findings : tuple of Finding
    """

    name: str
    title: str
    source: str
    measure: str
    mean: str
    columns: tuple[str, ...]
    rows: tuple[ProtocolRow, ...]
    findings: tuple[Finding, ...]

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names of what must be measured, in the order of the rows."""
        return tuple(row.strategy for row in self.rows)


def _tumour_row(group: str, place: str, strategy: str, *means: float) -> ProtocolRow:
    test, train = Published(*means[:2]), Published(*means[2:])
    return ProtocolRow((group, place), strategy, {"test": test, "train": train})


def _every(better: Sequence[str], worse: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple(product(better, worse))


_RANDOM = ("random_box", "random_mask", "random_gaussian")
_CENTER = ("center_box", "center_mask", "center_gaussian")

_TUMOUR_POINTS = Protocol(
    name="tumour-points",
    title="One click on a tumour",
    source="a study of prompts for SAM on brain tumours in MR, 2024, table I",
    measure="IoU",
    mean="miou_slices",
    columns=("prompt", "where"),
    rows=(
        _tumour_row("random", "box", "random_box", 0.4612, 0.4773, 0.6183, 0.6560),
        _tumour_row("", "mask", "random_mask", 0.5308, 0.4841, 0.7284, 0.7614),
        _tumour_row("", "gaussian", "random_gaussian", 0.5703, 0.4795, 0.7259, 0.7623),
        _tumour_row("center", "box", "center_box", 0.5827, 0.6309, 0.7629, 0.7766),
        _tumour_row("", "mask", "center_mask", 0.5905, 0.6302, 0.7634, 0.7750),
        _tumour_row("", "gaussian", "center_gaussian", 0.5911, 0.6313, 0.7637, 0.7751),
        _tumour_row("background", "", "background_corner", 0.0815, 0.0753, 0.1856, 0.2386),
        ProtocolRow(("tangent box", ""), "bound_box", {}),
    ),
    findings=(
        Finding("a click in the centre beats a random one", _every(_CENTER, _RANDOM)),
        Finding(
            "a background click alone is worst",
            _every(("bound_box", *_CENTER, *_RANDOM), ("background_corner",)),
        ),
        Finding("the tangent box beats every click", _every(("bound_box",), (*_CENTER, *_RANDOM))),
        Finding(
            "of the centres, weighted by a Gaussian is best",
            _every(("center_gaussian",), ("center_box", "center_mask")),
        ),
    ),
)

_MARGINS = {margin: f"random_margin_box:{margin}" for margin in range(-20, 41, 10)}
_INWARDS = [name for margin, name in _MARGINS.items() if margin <= 0]
_OUTWARDS = [name for margin, name in _MARGINS.items() if margin >= 0]

_BOX_MARGINS = Protocol(
    name="box-margins",
    title="Boxes that are too small or too large",
    source="a study of prompts for SAM on brain tumours in MR, 2024, figures 4 and 5 (curves, no numbers)",
    measure="IoU",
    mean="miou_slices",
    columns=("largest margin (px)",),
    rows=tuple(ProtocolRow((str(margin),), name, {}) for margin, name in _MARGINS.items()),
    findings=(
        Finding(
            "the tangent box is best",
            _every((_MARGINS[0],), [name for margin, name in _MARGINS.items() if margin]),
        ),
        Finding("below 0, a larger margin is better", tuple((b, a) for a, b in pairwise(_INWARDS))),
        Finding("above 0, a larger margin is worse", tuple(pairwise(_OUTWARDS))),
    ),
)


def _btcv_row(prompt: str, strategy: str, original: float, tuned: float) -> ProtocolRow:
    return ProtocolRow((prompt,), strategy, {"test": Published(original, tuned)})


_CLICKS = ("center_distance", "random_mask", "random_3")

_BTCV_PROMPTS = Protocol(
    name="btcv-prompts",
    title="Clicks and boxes on abdominal organs",
    source="a term project on SAM with the BTCV abdomen set (CT, 6 volumes), tables 1 and 2",
    measure="Dice",
    mean="mdice_organs",
    columns=("prompt",),
    rows=(
        _btcv_row("one central point", "center_distance", 0.6124, 0.8556),
        _btcv_row("one random point", "random_mask", 0.5929, 0.8535),
        _btcv_row("three random points", "random_3", 0.6437, 0.8532),
        _btcv_row("bound box", "bound_box", 0.8649, 0.9158),
        _btcv_row("larger box", "larger_box:5", 0.8267, 0.9161),
    ),
    findings=(
        Finding("a box beats clicks", _every(("bound_box", "larger_box:5"), _CLICKS)),
        Finding("the tangent box beats the larger one", (("bound_box", "larger_box:5"),)),
        Finding("a central click beats a random one", (("center_distance", "random_mask"),)),
        Finding("three random clicks beat one", _every(("random_3",), ("center_distance", "random_mask"))),
    ),
)

_MEANS = {"miou_slices": "mean of slices", "mdice_organs": "mean of organs"}

PROTOCOLS = {one.name: one for one in (_TUMOUR_POINTS, _BOX_MARGINS, _BTCV_PROMPTS)}


def named_protocol(name: str) -> Protocol:
    """A protocol by its name.

    Raises
    ------
    PromptError
        When there is none of that name.
    """
    if name not in PROTOCOLS:
        raise PromptError(f'There is no protocol "{name}"; use one of {", ".join(PROTOCOLS)}.')
    return PROTOCOLS[name]


def split_summaries(
    scores: Sequence[SliceScore], baselines: Sequence[SliceScore], splits: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Summaries (see `summarised`) of the volumes of each split.

    Parameters
    ----------
    scores, baselines : sequence of SliceScore
    splits : dict of str to str
        ``train``, ``val``, ``test`` or nothing, by volume; volumes that it lacks are in none.

    Returns
    -------
    dict of str to summary
        Scans that were not learned from first: ``test``, ``val``, those without a split, ``train``.
    """
    found = {}
    for split in ("test", "val", "", "train"):
        own = [row for row in scores if splits.get(row.volume, "") == split]
        if own:
            without = [row for row in baselines if splits.get(row.volume, "") == split]
            found[split] = summarised(own, without)
    return found


def protocol_facts(protocol: Protocol, summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Name, source and `protocol_tables` of a protocol as plain values, as ``summary.json`` has them."""
    tables = [asdict(table) for table in protocol_tables(protocol, summaries)]
    return {"name": protocol.name, "source": protocol.source, "tables": tables}


def protocol_tables(protocol: Protocol, summaries: Mapping[str, Mapping[str, Any]]) -> list[ResultTable]:
    """What was measured beside what was published, and which published findings hold.

    Parameters
    ----------
    protocol : Protocol
    summaries : dict of str to summary
        By split, as `split_summaries` gives them; ``{"": summary}`` where the scans have none. Models stand
        in their order: best the original first, then the fine-tuned one.
    """
    return [protocol_table(protocol, summaries), findings_table(protocol, summaries)]


def protocol_table(protocol: Protocol, summaries: Mapping[str, Mapping[str, Any]]) -> ResultTable:
    """The table of the study, with a column for every model measured and those published, split by split.

    A split that the study does not have (``val``, or none) stands beside its test scans. Parameters as in
    `protocol_tables`.
    """
    headings = [*protocol.columns]
    rows = [[*row.headings] for row in protocol.rows]
    for split, summary in summaries.items():
        for model, strategies in summary["models"].items():
            headings.append(f"{split}: {model}" if split else model)
            for cells, row in zip(rows, protocol.rows, strict=True):
                cells.append(_shown(strategies.get(row.strategy, {}).get(protocol.mean)))
        beside = "train" if split == "train" else "test"
        if not any(beside in row.published for row in protocol.rows):
            continue
        headings += [f"published {beside}: original", f"published {beside}: fine-tuned"]
        for cells, row in zip(rows, protocol.rows, strict=True):
            known = row.published.get(beside)
            cells += ["", ""] if known is None else [_shown(known.original), _shown(known.tuned)]
    title = f"{protocol.title}: {protocol.measure}, {_MEANS[protocol.mean]}. Published: {protocol.source}"
    return ResultTable(title, tuple(headings), [tuple(cells) for cells in rows], len(protocol.columns))


def findings_table(protocol: Protocol, summaries: Mapping[str, Mapping[str, Any]]) -> ResultTable:
    """Which findings of the study hold, for each split and model: in all of their comparisons, some, none.

    A comparison of which one side was not measured is left out. Parameters as in `protocol_tables`.
    """
    headings = ["published finding"]
    rows = [[finding.claim] for finding in protocol.findings]
    for split, summary in summaries.items():
        for model, strategies in summary["models"].items():
            headings.append(f"{split}: {model}" if split else model)
            means = {name: own[protocol.mean] for name, own in strategies.items()}
            for cells, finding in zip(rows, protocol.findings, strict=True):
                cells.append(_verdict(finding, means))
    return ResultTable(
        "What holds of it here", tuple(headings), [tuple(cells) for cells in rows], len(headings)
    )


def _verdict(finding: Finding, means: Mapping[str, float | None]) -> str:
    compared = [(means.get(better), means.get(worse)) for better, worse in finding.pairs]
    held = [a > b for a, b in compared if a is not None and b is not None]
    if not held:
        return ""
    if all(held) or not any(held):
        return "holds" if all(held) else "does not hold"
    return f"holds in {sum(held)} of {len(held)}"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
