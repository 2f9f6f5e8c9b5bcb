"""``finetune``: a model that has learned from the user's own labelled volumes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sam_med.cli.case_options import chosen_planes, listed
from napari_sam_med.cli.cluster_options import is_shared, workers_of
from napari_sam_med.cli.console import (
    log_as_warnings,
    print_json,
    progress_bar,
    say,
    show_table,
    warn,
)
from napari_sam_med.errors import ModelError
from napari_sam_med.wording import number_of

if TYPE_CHECKING:
    from napari_sam_med.training.recipes import Recipe
    from napari_sam_med.training.team import Team
    from napari_sam_med.training.tuning_run import TuningRequest

__all__ = ["FinetuneRequest", "run_finetune"]


@dataclass(frozen=True)
class FinetuneRequest:
    """What the user typed; what is None is the recipe's."""

    cases: Path
    output: Path
    recipe: str = "default"
    seed: int = 0
    model: str = "nano"
    device: str = "auto"
    precision: str = "auto"
    names: str = ""
    planes: str = "axial"
    every: int = 1
    min_area: int = 20
    hold_out: float = 0.2
    epochs: int | None = None
    views: int | None = None
    learning_rate: float | None = None
    trains: str = ""
    devices: int = 1
    scheduler: str = ""
    workers: int | None = None


def run_finetune(request: FinetuneRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    from napari_sam_med.training.own_models import read_card, score_rows
    from napari_sam_med.training.team import train_together

    _check(request)
    _embed_first(request)
    train_together(_train, request.devices, request.device, request.precision, request)
    card = read_card(request.output)
    if as_json:
        print_json(card)
        return 0
    data, seconds = card["data"], card["seconds"]
    say(
        f"{number_of(data['learned_slices'], 'slice')} learned from "
        f"({number_of(data['learned_views'], 'view')}), {data['held_out_slices']} held out; "
        f"{seconds['all'] / 60:.1f} min, {seconds['epoch']:.1f} s an epoch"
    )
    if not card["improved"]:
        warn(["no epoch was better than the model as it was, whose weights were written unchanged"])
    columns = {"prompt": "left", "organ": "left", "before": "right", "after": "right", "": "right"}
    show_table(f"Mean Dice on the {card['scored_on']}", columns, score_rows(card))
    say()
    say(f"  {request.output}  (use it: --model {request.output})")
    say("  Not for clinical use.")
    return 0


def _embed_first(request: FinetuneRequest) -> None:
    """Have workers embed the slices, where they are asked to; what they have done is kept."""
    from napari_sam_med.training.tuning_run import embed_on_workers

    if not is_shared(request.scheduler, request.workers):
        return
    with (
        workers_of(request.scheduler, request.workers, request.device) as cluster,
        progress_bar("Embedding") as on_progress,
    ):
        if cluster is not None:
            for step in embed_on_workers(_tuning(request), cluster):
                on_progress(step.progress)


def _train(team: Team, request: FinetuneRequest) -> None:
    """What each process does; one of them speaks."""
    from napari_sam_med.training.tuning_run import tune_model

    steps = tune_model(_tuning(request), team)
    if not team.is_first:
        for _ in steps:
            pass
        return
    lines = log_as_warnings() if team.size > 1 else nullcontext()  # one process has them already
    with lines, progress_bar("Training") as on_progress:
        for step in steps:
            warn([step.warning] if step.warning else [])
            if step.counts is not None:
                warn(f"{step.counts.case.name}: {text}" for text in step.counts.warnings)
            on_progress(step.progress)


def _tuning(request: FinetuneRequest) -> TuningRequest:
    from napari_sam_med.evaluation.cases import read_cases
    from napari_sam_med.evaluation.measuring import SliceChoice
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.training.tuning_run import TuningRequest

    return TuningRequest(
        cases=read_cases(request.cases, request.names),
        output=request.output,
        recipe=_recipe(request),
        model=request.model,
        device=request.device,
        precision=request.precision,
        choice=SliceChoice(chosen_planes(request.planes), request.every, request.min_area),
        hold_out_share=request.hold_out,
        seed=request.seed,
        earlier=default_store(),
    )


def _check(request: FinetuneRequest) -> None:
    """Refuse now, not after minutes."""
    from napari_sam_med.evaluation.cases import parse_names

    if request.names:
        parse_names(request.names)
    if not 0 <= request.hold_out < 0.9:
        raise ModelError(f"--hold-out is a share from 0 to 0.9, got {request.hold_out:g}; try 0.2.")
    recipe = _recipe(request)
    if request.devices > recipe.slices_per_step:
        raise ModelError(
            f"The recipe {recipe.name} takes {recipe.slices_per_step} slices a step, which {request.devices} "
            f"devices cannot share; give --devices {recipe.slices_per_step}, or another recipe."
        )


def _recipe(request: FinetuneRequest) -> Recipe:
    from napari_sam_med.training.recipes import named_recipe

    return named_recipe(
        request.recipe,
        epochs=request.epochs,
        views=request.views,
        learning_rate=request.learning_rate,
        trains=tuple(listed(request.trains)) or None,
    )
