"""The page of an evaluation: its numbers are the summary's, and it needs nothing but itself."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from napari_sam_med.errors import ExportError, ImageError
from napari_sam_med.evaluation import html_report
from napari_sam_med.evaluation.html_report import drawn_figures, write_html_report
from napari_sam_med.evaluation.prompt_strategies import STRATEGIES
from napari_sam_med.evaluation.protocols import named_protocol, protocol_tables
from napari_sam_med.evaluation.report_figures import small_png
from napari_sam_med.evaluation.report_gallery import GalleryPicture, draw_answer
from napari_sam_med.evaluation.report_sections import STRATEGY_WORDS, strategy_words
from napari_sam_med.evaluation.results_file import read_results, write_header, write_scores
from napari_sam_med.evaluation.slice_scores import SliceScore
from napari_sam_med.evaluation.statistics import comparisons
from napari_sam_med.evaluation.summary import summarised
from tests.evaluation.made_up_scores import made_up_scores

VOID = {"meta", "img", "source", "br", "hr", "link", "input"}


class _Page(HTMLParser):
    """Reads a page strictly: every element is closed where it should be; keeps links, pictures and tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.section = ""
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")
        ]
        if tag == "section":
            self.section = given["id"] or ""
        elif tag == "img":
            self.pictures.append(given)
        elif tag == "table":
            self.tables.setdefault(self.section, []).append([])
        elif tag == "tr":
            self.tables[self.section][-1].append([])
        elif tag in ("td", "th"):
            self.tables[self.section][-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        assert self.open[-1:] != ["script"]
        if "style" not in self.open:
            self.text += data
        if self.open[-1:] in (["td"], ["th"]) or self.open[-2:] == ["th", "span"]:
            self.tables[self.section][-1][-1][-1] += data.strip()
        elif self.open[-2:] == ["td", "span"]:
            self.tables[self.section][-1][-1][-1] += f" [{data.strip()}]"


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes most of the time."""
    monkeypatch.setattr(html_report, "drawn_figures", lambda summary, scores: iter(()))


def _written(
    folder: Path, scores: list[SliceScore], baselines: list[SliceScore], more: Any = None, **options: Any
) -> _Page:
    summary = summarised(scores, baselines) | (more or {})
    page, *_ = write_html_report(folder, summary, scores, **options)
    return _Page(page.read_text(encoding="utf-8"))


def _pictures(scores: list[SliceScore]) -> Iterator[GalleryPicture]:
    import numpy as np

    blank, mask = np.zeros((9, 9, 3), np.uint8), np.eye(9, dtype=bool)
    png = small_png(draw_answer(blank, mask, mask))
    for place, row in zip(("worst", "best", "median"), scores, strict=False):
        yield GalleryPicture(row, place, png, changed=place == "worst")


@pytest.mark.usefixtures("no_figures")
def test_the_table_has_the_numbers_of_the_summary(tmp_path: Path) -> None:
    scores, baselines = made_up_scores(["nano", "other"], volumes=["a", "b"])
    scores = [row for row in scores if (row.model, row.strategy) != ("other", "center_mask")]
    summary = summarised(scores, baselines)
    page = _written(tmp_path, scores, baselines)
    overview = page.tables["means"][0]
    assert overview[0] == ["prompt strategy", "nano", "other", "answers"]
    by_name = {row[0]: row[1:] for row in overview[2:]}
    for strategy, means in summary["models"]["nano"].items():
        shown = []
        for model in ("nano", "other"):
            own = summary["models"][model].get(strategy)
            for key in ("miou_volumes", "mdice_volumes"):
                low, high = (0, 0) if own is None else own["ci95"][key]
                shown.append("–" if own is None else f"{own[key]:.3f} [{low:.3f}–{high:.3f}]")
        assert by_name[strategy] == [*shown, str(means["slices"])], strategy
    base = summary["baselines"]["filled_box"]
    assert by_name["all of the tangent box, no model"][1].startswith(f"{base['mdice_volumes']:.3f}")
    assert f"{len(scores)} answers (2 organs, 8 slices, 2 patients)" in page.text


@pytest.mark.usefixtures("no_figures")
def test_organs_and_other_measures_have_the_numbers_of_the_summary(tmp_path: Path) -> None:
    organs = [f"organ {number}" for number in range(40)]
    scores, baselines = made_up_scores(organs=organs, slices=1)
    scores = [replace(row, nsd=0.25, dice_oracle=0.99) for row in scores]
    means = summarised(scores, baselines)["models"]["nano"]
    page = _written(tmp_path, scores, baselines)
    (table,) = page.tables["organs"]
    assert table[0] == ["organ", "slices", *means, "all of the tangent box, no model"]
    assert [row[0] for row in table[1:]] == organs
    for row in table[1:]:
        assert row[2:-1] == [f"{own['organs'][row[0]]['dice']:.3f}" for own in means.values()]
    measures = page.tables["means"][1]
    assert "HD95 mm" not in measures[0], "no answer has one"
    place = measures[0].index("ECE")
    assert [row[place] for row in measures[1:]] == [
        f"{own['iou_prediction']['ece']:.3f}" for own in means.values()
    ]
    assert {row[measures[0].index("best of three")] for row in measures[1:]} == {"0.990"}
    assert {row[measures[0].index("NSD")] for row in measures[1:]} == {"0.250"}


def test_the_page_needs_nothing_else_and_every_picture_opens(tmp_path: Path) -> None:
    scores, baselines = made_up_scores()
    summary = summarised(scores, baselines)
    page_path, *files = write_html_report(tmp_path, summary, scores, pictures=_pictures(scores))
    text = page_path.read_text(encoding="utf-8")
    page = _Page(text)
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not re.search(r"https?:|url\(|@import|<script|<link", text)
    assert "default-src 'none'" in text
    for link in page.links:
        Image.open(io.BytesIO(base64.b64decode(link.split(",")[1]))).load()
    assert all(picture["alt"] for picture in page.pictures)
    names = {path.relative_to(tmp_path).as_posix() for path in files}
    drawn = {f"figures/{one.name}.png" for one in drawn_figures(summary, scores)}
    assert drawn == {
        f"figures/{name}.png"
        for name in ("margin_sweep", "dice_against_clicks", "organs", "spread", "reliability")
    }
    assert names >= drawn
    assert len(page.pictures) == len(files) == len(drawn) + 3
    for path in files:
        Image.open(path).load()
    assert len(text) < 1_000_000


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    odd = '<img src=x onerror="alert(1)"> & $x$'
    scores, baselines = made_up_scores([odd], ["bound_box", "center_mask"], [odd], volumes=[odd])
    more = {"run": {odd: odd, "model_sha256": {"nano": "0123456789abcdef" * 4}}, "warnings": [odd]}
    page = _written(tmp_path, scores, baselines, more, pictures=_pictures(scores))
    assert page.text.count(odd) > 10
    assert "x" not in page.links
    assert page.tables["organs"][0][1][0] == odd
    assert "0123456789ab" in page.text
    assert "0123456789abc" not in page.text


@pytest.mark.usefixtures("no_figures")
def test_the_gallery_stands_best_first_and_says_what_has_changed(tmp_path: Path) -> None:
    scores, baselines = made_up_scores(strategies=["bound_box"], organs=["liver"])
    page = _written(tmp_path, scores, baselines, pictures=_pictures(scores))
    text = page.text[page.text.index("Best, median and worst") :]
    assert text.index("best: liver, a, axial 1") < text.index("median: liver, a, axial 2")
    assert text.index("median") < text.index("worst: liver, a, axial 0")
    assert text.count("has changed since it was measured") == 1
    assert f"Dice {scores[1].dice:.3f}" in text


@pytest.mark.usefixtures("no_figures")
def test_a_gallery_that_breaks_off_keeps_what_there_is(tmp_path: Path) -> None:
    scores, baselines = made_up_scores(strategies=["bound_box", "center_mask"])

    def broken() -> Iterator[GalleryPicture]:
        yield next(_pictures(scores))
        raise ImageError("The file a.nii.gz is gone; put it back.")

    page = _written(tmp_path, scores, baselines, pictures=broken())
    assert len(list((tmp_path / "figures").glob("gallery_*.png"))) == 1
    assert "Not all pictures could be drawn: The file a.nii.gz is gone; put it back." in page.text
    assert "were not at hand" in _written(tmp_path, scores, baselines).text
    assert not list((tmp_path / "figures").glob("gallery_*.png")), "those of the earlier report"


def test_figures_of_an_earlier_report_go_and_files_of_others_stay(tmp_path: Path) -> None:
    sweep = ["random_margin_box:0", "random_margin_box:10"]
    _written(tmp_path, *made_up_scores(strategies=sweep))
    assert (tmp_path / "figures" / "margin_sweep.png").exists()
    (tmp_path / "figures" / "mine.png").write_bytes(b"")
    _written(tmp_path, *made_up_scores(strategies=["bound_box"]))
    there = {path.name for path in (tmp_path / "figures").iterdir()}
    assert there == {"mine.png", "organs.png", "spread.png", "reliability.png"}


def test_one_answer_is_enough_for_a_report(tmp_path: Path) -> None:
    page = _written(tmp_path, *made_up_scores(strategies=["bound_box"], organs=["liver"], slices=1))
    assert "1 answer (1 organ, 1 slice, 1 patient)" in page.text
    assert "No intervals: one patient only." in page.text
    assert "; worst to" not in page.text
    assert page.text.count("Not for clinical use.") == 2


def test_every_strategy_has_words() -> None:
    assert STRATEGY_WORDS.keys() == {*STRATEGIES, "boxes"}
    one = made_up_scores(strategies=["bound_box+center_mask:snap", "boxes:/a+b.csv", "corrective_clicks:3"])[
        0
    ]
    named = [name for name, _ in strategy_words(one)]
    assert named == ["bound_box", "center_mask", "boxes", "corrective_clicks", ":snap", "+"]
    assert [name for name, _ in strategy_words(made_up_scores(strategies=["scribble:5"])[0])] == ["scribble"]


@pytest.mark.usefixtures("no_figures")
def test_models_are_compared_with_what_the_box_says_alone(tmp_path: Path) -> None:
    scores, baselines = made_up_scores(["nano", "other"], ["center_mask", "bound_box"])
    better = [replace(row, model="inscribed_ellipse", dice=0.8) for row in baselines]
    page = _written(tmp_path, scores, [*baselines, *better])
    means = {
        model: own["bound_box"]["mdice_volumes"]
        for model, own in summarised(scores, baselines)["models"].items()
    }
    ellipse = "an ellipse drawn into that box without a model"
    for model, verb in (("nano", "beats"), ("other", "does not beat")):
        line = f"Given the tangent box, {model} {verb} {ellipse}: mean Dice {means[model]:.3f} against 0.800."
        assert line in page.text
    assert "nano answers best to center_mask: mean Dice 0.9" in page.text


@pytest.mark.usefixtures("no_figures")
def test_how_it_was_measured_is_said_in_words(tmp_path: Path) -> None:
    run = {"planes": ["axial", "coronal"], "every": 2, "most_slices": 0, "seed": 1, "seeds": [1, 2]}
    run |= {"stored_embeddings": False, "organs": [], "protocol": None}
    page = _written(tmp_path, *made_up_scores(strategies=["bound_box"]), {"run": run})
    said = page.text[page.text.index("How it was measured") : page.text.index("Strategies\n")].split("\n")
    assert [line for line in said[2:] if line] == [
        "measured8 answers (2 organs, 4 slices, 1 patient)",
        "volumesa",
        "planesaxial, coronal",
        "one slice of2",
        "seeds1, 2",
        "stored embeddingsno",
    ]


@pytest.mark.usefixtures("no_figures")
def test_rows_of_the_gallery_have_the_models_of_a_strategy_together(tmp_path: Path) -> None:
    scores, baselines = made_up_scores(["nano", "other"], ["bound_box", "center_mask"], ["liver"], slices=1)
    shown = [replace(next(_pictures([row])), score=row) for row in scores]
    by_model = sorted(shown, key=lambda one: one.score.model)
    page = _written(tmp_path, sorted(scores, key=lambda row: row.model), baselines, pictures=by_model)
    gallery = page.text[page.text.index("Best, median and worst") :]
    rows = re.findall(r"^(\w+), (\w+)$", gallery, re.MULTILINE)
    assert rows == [(name, model) for name in ("bound_box", "center_mask") for model in ("nano", "other")]


@pytest.mark.usefixtures("no_figures")
def test_comparisons_and_published_values_are_shown(tmp_path: Path) -> None:
    scores, baselines = made_up_scores(["nano", "other"], ["bound_box", "center_distance"])
    compared = comparisons(scores)
    tables = protocol_tables(named_protocol("btcv-prompts"), {"": summarised(scores, baselines)})
    more = {"comparisons": compared, "protocol": {"name": "btcv-prompts"}}
    page = _written(tmp_path, scores, baselines, more, tables=tables)
    assert "in 3 of 9 where three of nine pairs do" in page.text
    models, strategies = page.tables["comparisons"]
    first = next(one for one in compared if one["between"] == "models")
    assert models[1][:6] == [
        "bound_box",
        "nano",
        "other",
        *(f"{first[key]:.3f}" for key in ("mean_a", "mean_b", "difference")),
    ]
    assert models[1][6] == "8 slices"
    assert [row[0] for row in strategies[1:]] == ["nano", "other"]
    assert "slices of one patient are not independent" in page.text
    assert [page.tables["tables"][0][4][i] for i in (0, 3, 4)] == ["bound box", "0.8649", "0.9158"]


@pytest.mark.usefixtures("no_figures")
def test_a_results_file_makes_the_same_report(tmp_path: Path) -> None:
    scores, baselines = made_up_scores()
    with (tmp_path / "results.csv").open("w", encoding="utf-8", newline="") as file:
        write_header(file)
        write_scores(file, scores)
    again = read_results(tmp_path / "results.csv")
    before, after = (_written(tmp_path / name, own, baselines) for name, own in (("a", scores), ("b", again)))
    assert after.tables["organs"] == before.tables["organs"]
    assert after.tables["means"][0] == before.tables["means"][0]


@pytest.mark.usefixtures("no_figures")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    scores, baselines = made_up_scores(strategies=["bound_box"])
    (tmp_path / "figures").write_text("a file in the way")
    with pytest.raises(ExportError, match="The report cannot be written into"):
        _written(tmp_path, scores, baselines)
