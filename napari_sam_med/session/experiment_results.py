"""Results of the prompt laboratory: what they come to, and as a folder on disk, both as jobs.

torch is imported when a job begins, so never on the main thread.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ExportError, ImageError, SamMedError
from napari_sam_med.progress import Progress
from napari_sam_med.session.experiments import Means, Source, case_name, mean_rows
from napari_sam_med.session.preloading import preload_torch_libraries
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.replacement import Replacement

if TYPE_CHECKING:
    from napari_sam_med.evaluation.measuring import SliceScore
    from napari_sam_med.evaluation.report_gallery import GalleryPicture, GallerySource
    from napari_sam_med.sam.image_embedding import ImageEmbedding
    from napari_sam_med.sam.mask_prediction import MaskPrediction
    from napari_sam_med.sam.prompts import Prompts
    from napari_sam_med.session.jobs import LoadedModel
    from napari_sam_med.volume.volume import Volume

__all__ = ["OpenedResults", "SavedResults", "means_of", "open_results", "save_results", "slice_interval"]

_LEAST_SLICES, _DRAWS = 5, 1000
"""Of a bootstrap."""


@dataclass(frozen=True, eq=False)
class SavedResults:
    """What is written into a folder.

    Attributes
    ----------
    scores, baselines : list of SliceScore
    run : dict
        How they were measured, for people.
    source : Source or None
        The scan that pictures are drawn of.
    models : dict of str to LoadedModel
        That answer again for the pictures, by the names in the scores.
    warnings : tuple of str
        What is to be known of the results.
    study : dict or None
        As `Means` has it; None has it made for the protocol of the run.
    """

    scores: list[SliceScore]
    baselines: list[SliceScore]
    run: Mapping[str, Any]
    source: Source | None
    models: Mapping[str, LoadedModel]
    warnings: tuple[str, ...] = ()
    study: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class OpenedResults:
    """What a folder of results holds; attributes as `SavedResults` has them."""

    folder: Path
    scores: list[SliceScore]
    baselines: list[SliceScore]
    means: Means
    run: dict[str, Any]
    warnings: tuple[str, ...] = ()


def means_of(scores: Sequence[SliceScore], baselines: Sequence[SliceScore], protocol: str = "") -> Means:
    """Means of answers; of one scan with intervals over its slices.

    With the name of a protocol also what was published beside them; one that is not known adds nothing.
    """
    from napari_sam_med.evaluation.protocols import PROTOCOLS, protocol_facts
    from napari_sam_med.evaluation.summary import summarised

    summary = summarised(scores, baselines)
    spans = {}
    if len({score.volume for score in scores}) == 1:
        groups: dict[tuple[str, str], list[SliceScore]] = {}
        for score in (*scores, *baselines):
            groups.setdefault((score.strategy, score.model), []).append(score)
        spans = {key: slice_interval(group) for key, group in groups.items()}
    study = protocol_facts(PROTOCOLS[protocol], {"": summary}) if protocol in PROTOCOLS else None
    return Means(summary, tuple(mean_rows(summary, spans)), study)


def slice_interval(scores: Sequence[SliceScore]) -> tuple[float, float] | None:
    """95 % interval of the mean Dice (over organs, of their means over slices), by a bootstrap over slices.

    For one scan, where there are no patients to draw from. None with fewer than 5 slices.
    """
    views = {view: row for row, view in enumerate(dict.fromkeys(score.view for score in scores))}
    organs = {label: column for column, label in enumerate(dict.fromkeys(score.label for score in scores))}
    if len(views) < _LEAST_SLICES:
        return None
    sums, counts = np.zeros((2, len(views), len(organs)))
    for score in scores:
        sums[views[score.view], organs[score.label]] += score.dice
        counts[views[score.view], organs[score.label]] += 1
    times = np.random.default_rng(0).multinomial(len(views), [1 / len(views)] * len(views), _DRAWS)
    drawn = times @ counts
    means = np.divide(times @ sums, drawn, out=np.full(drawn.shape, np.nan), where=drawn > 0)
    drawn_means = np.nanmean(means, axis=1)
    # an organ on few slices is missing from many draws, most often a small one that is hard: without this,
    # 6 slices of the phantom gave 0.57 to 0.71 for a mean of 0.60
    low, high = np.quantile(drawn_means, (0.025, 0.975)) + _mean_of_organs(sums, counts) - drawn_means.mean()
    return max(0.0, float(low)), min(1.0, float(high))


def _mean_of_organs(sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]) -> float:
    """Of (slices, organs)."""
    return float((sums.sum(axis=0) / counts.sum(axis=0)).mean())


def save_results(folder: Path, results: SavedResults) -> Generator[Progress, None, Path]:
    """Write ``results.csv``, ``baselines.csv``, ``summary.json`` and the report into a folder.

    Closing it ends it; the tables are written first, the report last.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    ExportError
        When a file cannot be written.
    """
    yield Progress(0, 1, "writing the results")
    preload_torch_libraries()
    from napari_sam_med.evaluation.html_report import write_html_report
    from napari_sam_med.evaluation.report import ResultTable
    from napari_sam_med.evaluation.report_gallery import gallery_pictures, telling_answers
    from napari_sam_med.evaluation.results_file import write_header, write_scores
    from napari_sam_med.evaluation.statistics import comparisons
    from napari_sam_med.segmentation.report import write_json

    means = means_of(results.scores, results.baselines, results.run.get("protocol") or "")
    study = results.study or means.study
    summary = {"version": 1, "run": dict(results.run), "warnings": list(results.warnings), **means.summary}
    summary |= {"comparisons": comparisons(results.scores), "protocol": study}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:  # earlier files stay, and stay together, on a full disk
            written = []
            for name, rows in (("results.csv", results.scores), ("baselines.csv", results.baselines)):
                file = stack.enter_context(Replacement(folder / name, ".csv"))
                with file.temporary.open("w", encoding="utf-8", newline="") as table:
                    write_header(table)
                    write_scores(table, rows)
                written.append(file)
            write_json(folder / "summary.json", summary)
            for file in written:
                file.put_in_place()
    except OSError as error:
        raise ExportError(
            f"The results cannot be written into {folder}: {error.strerror or error}; choose another folder."
        ) from error
    pictures: list[GalleryPicture] = []
    trouble: SamMedError | None = None
    total = len(telling_answers(results.scores)) + 1
    try:
        for picture in gallery_pictures(results.scores, _gallery(results)):
            pictures.append(picture)
            yield Progress(len(pictures), total, "drawing the report")
    except SamMedError as error:
        trouble = error
    yield Progress(total - 1, total, "drawing the report")
    tables = [] if study is None else [ResultTable(**table) for table in study["tables"]]
    drawn = _drawn(pictures, trouble)
    return write_html_report(folder, summary, results.scores, tables=tables, pictures=drawn)[0]


def _drawn(pictures: Sequence[GalleryPicture], trouble: SamMedError | None) -> Iterator[GalleryPicture]:
    """Pictures, and why there are no more, as the report takes it."""
    yield from pictures
    if trouble is not None:
        raise trouble


def _gallery(results: SavedResults) -> GallerySource:
    """Where the pictures of the report come from: the scan that is open, and models that are loaded."""
    from napari_sam_med.evaluation.report_gallery import GallerySource

    source = results.source

    def read(name: str) -> tuple[Volume, LabelVolume]:
        if source is None or name != case_name(source.volume):
            raise ImageError(f'The scan "{name}" is not open, so its answers are not drawn; open it first.')
        return source.volume, source.labels

    predictors = {name: _Stored(loaded) for name, loaded in results.models.items()}
    return GallerySource(read, predictors, bool(results.run.get("crop_to_body")))


class _Stored:
    """A model whose embeddings are looked up first."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded

    def embed(
        self,
        image: npt.ArrayLike,
        pixel_spacing: npt.ArrayLike = (1.0, 1.0),
        crop_xyxy: npt.ArrayLike | None = None,
    ) -> ImageEmbedding:
        return self._loaded.store.get_or_embed(self._loaded.predictor, image, pixel_spacing, crop_xyxy)

    def predict(self, embedding: ImageEmbedding, prompts: Prompts) -> MaskPrediction:
        return self._loaded.predictor.predict(embedding, prompts)


def open_results(folder: Path) -> Generator[Progress, None, OpenedResults]:
    """Read the results of a folder, and sum them up.

    Raises
    ------
    ImageError
        When the folder holds no ``results.csv``, or one that cannot be read or is empty.
    """
    yield Progress(0, 1, f"reading {folder.name}")
    preload_torch_libraries()
    from napari_sam_med.evaluation.results_file import read_results

    if not (folder / "results.csv").is_file():
        raise ImageError(
            f'The folder "{folder.name}" has no results.csv in it; choose one that was saved here, or that '
            '"evaluate" wrote.'
        )
    scores = read_results(folder / "results.csv")
    if not scores:
        raise ImageError(f'The results.csv in "{folder.name}" has no rows; choose another folder.')
    beside = folder / "baselines.csv"
    baselines = read_results(beside) if beside.is_file() else []
    document = _summary_of(folder)
    run, warnings = document.get("run"), document.get("warnings")
    run = dict(run) if isinstance(run, dict) else {}
    means = means_of(scores, baselines, str(run.get("protocol") or ""))
    study = document.get("protocol")
    if _is_study(study):  # it tells scans of test and train apart, which rows do not
        means = replace(means, study=study)
    told = tuple(map(str, warnings)) if isinstance(warnings, list) else ()
    return OpenedResults(folder, scores, baselines, means, run, told)


def _summary_of(folder: Path) -> dict[str, Any]:
    """The ``summary.json`` of results; empty where it is missing or damaged."""
    try:
        document = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _is_study(found: Any) -> bool:
    """Whether it has the form of `protocol_facts`."""
    from napari_sam_med.evaluation.report import ResultTable

    try:
        return bool([ResultTable(**table).markdown() for table in found["tables"]])
    except (AttributeError, KeyError, TypeError):
        return False
