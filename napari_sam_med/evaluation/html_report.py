"""The report of an evaluation: one HTML page that needs no network, and its figures as PNG files."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_med.errors import ExportError, SamMedError
from napari_sam_med.evaluation import report_figures
from napari_sam_med.evaluation.report import (
    FINDINGS_NOTE,
    INSTANCES_NOTE,
    ResultTable,
    comparison_notes,
    comparison_tables,
    instances_table,
    measures_note,
    measures_table,
)
from napari_sam_med.evaluation.report_figures import DARK, LIGHT, in_theme, small_png
from napari_sam_med.evaluation.report_gallery import (
    ANSWER_COLOUR,
    PLACES,
    TRUTH_COLOUR,
    GalleryPicture,
)
from napari_sam_med.evaluation.report_sections import (
    WORDS,
    at_a_glance,
    extent,
    organ_tables,
    overview,
    run_facts,
    strategy_words,
)
from napari_sam_med.evaluation.slice_scores import SliceScore
from napari_sam_med.volume.replacement import Replacement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["REPORT", "ReportFigure", "drawn_figures", "write_html_report"]

REPORT = "report.html"
"""Name of the page in the folder of an evaluation; its pictures lie in `PICTURES`."""
PICTURES = "figures"

_TEMPLATE = "report.html.jinja"
_TITLE = "Which prompt works"
_FIGURES = ("margin_sweep", "dice_against_clicks", "organs", "spread", "reliability")
_BROAD = ("organs", "spread")
_DPI = 150
_NO_GALLERY = "Left out: the scans and the models were not at hand, or the results do not say what was asked."


@dataclass(frozen=True, eq=False)
class ReportFigure:
    """A figure with what is said of it.

    Attributes
    ----------
    name : str
        Of its file, without ending.
    title, caption : str
    figure : Figure
    """

    name: str
    title: str
    caption: str
    figure: Figure


def write_html_report(
    folder: Path,
    summary: Mapping[str, Any],
    scores: Sequence[SliceScore],
    *,
    tables: Iterable[ResultTable] = (),
    pictures: Iterable[GalleryPicture] = (),
) -> list[Path]:
    """Write ``report.html`` and its figures, ``figures/*.png``; those of an earlier report go.

    May be called in any thread.

    Parameters
    ----------
    folder : Path
        Made when needed.
    summary : dict
        As `summarised` makes it of the scores; with ``run`` and ``warnings`` where these are known.
    scores : sequence of SliceScore
        Of models, as measured or as `read_results` gives them.
    tables : iterable of ResultTable
        Shown as they are, such as those of a protocol.
    pictures : iterable of GalleryPicture
        Such as `gallery_pictures`. When it ends with a user's error, a missing file for example, the report
        shows what came before and says what was wrong.

    Returns
    -------
    list of Path
        What was written, the page first.

    Raises
    ------
    ExportError
        When a file cannot be written.
    """
    taken, trouble = _taken(pictures)
    rows = _gallery_rows(taken, scores)
    figures = list(drawn_figures(summary, scores))
    try:
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        for stale in (folder / PICTURES).glob("*.png"):
            if _is_ours(stale.stem):
                stale.unlink()
        files, embedded = [], []
        for one in figures:
            light = small_png(in_theme(one.figure, LIGHT), _DPI)
            one.figure.set_layout_engine("none")  # what was laid out stays as it is
            dark = small_png(in_theme(one.figure, DARK), _DPI)
            files.append(_written(folder / PICTURES / f"{one.name}.png", light))
            embedded.append(
                {"name": one.name, "title": one.title, "caption": one.caption, "broad": one.name in _BROAD}
                | {"light": _data_uri(light), "dark": _data_uri(dark)}
            )
        for number, row in enumerate(rows, start=1):
            for picture in row:
                name = _slug(f"gallery_{number:02}_{picture.score.strategy}_{picture.score.model}")
                path = folder / PICTURES / f"{name}_{picture.place}.png"
                files.append(_written(path, picture.png))
        context = _context(summary, scores) | {
            "tables": list(tables),
            "tables_note": FINDINGS_NOTE if summary.get("protocol") else "",
            "figures": embedded,
            "gallery": [_shown_row(row) for row in rows],
            "gallery_notes": list(_gallery_notes(scores, len(rows), trouble)),
        }
        return [_written(folder / REPORT, _page(context).encode()), *files]
    except OSError as error:
        raise ExportError(
            f"The report cannot be written into {folder}: {error.strerror or error}; choose another folder."
        ) from error


def drawn_figures(summary: Mapping[str, Any], scores: Sequence[SliceScore]) -> Iterator[ReportFigure]:
    """The figures for which there are strategies, with captions.

    Parameters
    ----------
    summary : dict
    scores : sequence of SliceScore
    """
    series = report_figures.telling_series(summary)
    in_bars = [row for row in scores if (row.model, row.strategy) in series]
    spans = " Upright lines: 95 % intervals over patients." if _has_intervals(summary) else ""
    drawn: list[tuple[str, str, Figure | None, str]] = [
        (
            "margin_sweep",
            "IoU against the margin of the box",
            report_figures.margin_sweep(summary),
            "Mean IoU of boxes of which each side was moved by a random number of pixels, from none to the "
            "margin (random_margin_box). Star: the tangent box. "
            f"{_each_point(scores, 'random_margin_box')}{spans}",
        ),
        (
            "dice_against_clicks",
            "Dice against the number of clicks",
            report_figures.dice_against_clicks(summary),
            "Mean Dice after so many clicks, each in the middle of the largest error of the answer before "
            f"(corrective_clicks). {_each_point(scores, 'corrective_clicks')}{spans}",
        ),
        (
            "organs",
            "Dice of every organ",
            report_figures.organ_bars(summary, series),
            "Mean Dice of each organ over its slices in all volumes; the best organ is on top. Circle and "
            "square: what the tangent box says without a model. The tables below have every strategy. Over "
            f"{extent(in_bars)}.",
        ),
        (
            "spread",
            "Spread of Dice for every strategy",
            report_figures.score_spread(scores),
            "The box spans the middle half, the thick line is the median, whiskers reach to the 5th and the "
            "95th percentile, dots lie beyond. Left every answer counts alike, right every organ. Over "
            f"{extent(scores)}.",
        ),
        (
            "reliability",
            "Predicted against true IoU",
            report_figures.reliability(scores),
            "Answers in ten ranges of the IoU that the model predicts for itself: below the dashed line it "
            "promises too much. ECE: mean distance from that line, weighted by the number of answers, which "
            f"the lower panel shows. Over {extent(scores)}, all strategies together.",
        ),
    ]
    for name, title, figure, caption in drawn:
        if figure is not None:
            yield ReportFigure(name, title, caption, figure)


def _is_ours(stem: str) -> bool:
    return stem in _FIGURES or re.fullmatch(r"gallery_\d+_.+", stem) is not None


def _context(summary: Mapping[str, Any], scores: Sequence[SliceScore]) -> dict[str, Any]:
    run, measures = summary.get("run", {}), measures_table(summary)
    return {
        "title": _TITLE,
        "subject": "Prompts were simulated from labels that are taken for the truth, models answered them, "
        f"and the answers were compared with the labels: {extent(scores)}.",
        "glance": list(at_a_glance(summary)),
        "warnings": list(summary.get("warnings", ())),
        "overview": overview(summary, scores),
        "instances": instances_table(summary),
        "instances_note": INSTANCES_NOTE,
        "measures": measures,
        "measures_note": "" if measures is None else measures_note(measures),
        "comparisons": list(comparison_tables(summary)),
        "comparison_notes": comparison_notes(summary),
        "organs": list(organ_tables(summary)),
        "facts": list(run_facts(run, scores)),
        "strategies": list(strategy_words(scores)),
        "words": WORDS,
        "colours": {"truth": TRUTH_COLOUR, "answer": ANSWER_COLOUR},
    }


def _page(context: Mapping[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    source = resources.files("napari_sam_med.evaluation").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(source).render(context)


def _taken(pictures: Iterable[GalleryPicture]) -> tuple[list[GalleryPicture], str]:
    """Pictures until there are no more, and why these ended early."""
    found: list[GalleryPicture] = []
    try:
        found.extend(pictures)
    except SamMedError as error:
        return found, str(error)
    return found, ""


def _gallery_rows(
    pictures: Sequence[GalleryPicture], scores: Sequence[SliceScore]
) -> list[list[GalleryPicture]]:
    """Pictures of each strategy and model, models below each other, in the order of the scores."""
    strategies = dict.fromkeys(row.strategy for row in scores)
    models = dict.fromkeys(row.model for row in scores)
    rows: dict[tuple[str, str], list[GalleryPicture]] = {key: [] for key in product(strategies, models)}
    for picture in sorted(pictures, key=lambda picture: PLACES.index(picture.place)):
        rows[picture.score.strategy, picture.score.model].append(picture)
    return [row for row in rows.values() if row]


def _shown_row(row: Sequence[GalleryPicture]) -> dict[str, Any]:
    score = row[0].score
    pictures = [{"source": _data_uri(one.png), "place": one.place, "text": _picture_text(one)} for one in row]
    return {"strategy": score.strategy, "model": score.model, "pictures": pictures}


def _picture_text(picture: GalleryPicture) -> str:
    score = picture.score
    text = f"{score.organ}, {score.volume}, {score.view.plane} {score.view.index}, Dice {score.dice:.3f}"
    if picture.changed:
        text += "; drawn is another answer: the model or a file has changed since it was measured"
    return text


def _gallery_notes(scores: Sequence[SliceScore], rows: int, trouble: str) -> Iterator[str]:
    if trouble:
        yield f"Not all pictures could be drawn: {trouble}"
    elif not rows:
        yield _NO_GALLERY
    else:
        left_out = len({(row.strategy, row.model) for row in scores}) - rows
        if left_out:
            yield f"Not shown, to keep the report small: {left_out} more pairs of strategy and model."


def _each_point(scores: Sequence[SliceScore], family: str) -> str:
    """What one point of a line is taken over."""
    rows = [row for row in scores if family in row.strategy]
    if not rows:
        return ""
    first = (rows[0].model, rows[0].strategy)
    return f"Each point: {extent([row for row in rows if (row.model, row.strategy) == first])}."


def _has_intervals(summary: Mapping[str, Any]) -> bool:
    return any(means.get("ci95") for own in summary["models"].values() for means in own.values())


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text)[:100]


def _written(path: Path, content: bytes) -> Path:
    with Replacement(path, path.suffix) as file:
        file.temporary.write_bytes(content)
        file.put_in_place()
    return path
