"""Learning from the user's own volumes as jobs: what there is to choose, what it takes, and the run itself.

torch is imported when a job begins, so never on the main thread.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from napari_sam_med.errors import SamMedError
from napari_sam_med.progress import Progress
from napari_sam_med.session.preloading import preload_torch_libraries
from napari_sam_med.training.own_models import Plan, forget_plan, is_done, write_plan
from napari_sam_med.volume.reading import read_labels

if TYPE_CHECKING:
    from napari_sam_med.evaluation.cases import Case
    from napari_sam_med.training.recipes import Recipe
    from napari_sam_med.training.tuning_cost import CostStep
    from napari_sam_med.training.tuning_run import TuningRequest, TuningStep

__all__ = ["MIN_AREA", "cost_of", "count_slices", "learn", "recipes"]

MIN_AREA = 20
"""Pixels that an organ must have on a slice to be learned."""


def recipes() -> Generator[Progress, None, list[Recipe]]:
    """The presets whose image encoder stays as it is."""
    yield Progress(0, 1, "looking for recipes")
    preload_torch_libraries()
    from napari_sam_med.training.recipes import RECIPES

    return [recipe for recipe in RECIPES.values() if recipe.uses_stored_embeddings]


def count_slices(cases: Sequence[Case]) -> Generator[tuple[Case, int | str], None, None]:
    """Axial slices of each case that show an organ; or in one line why its labels cannot be read."""
    preload_torch_libraries()
    from napari_sam_med.evaluation.measuring import SliceChoice, labelled_slices

    for case in cases:
        try:
            labels = read_labels(case.labels_path)
            yield case, len(labelled_slices(labels, SliceChoice(min_area=MIN_AREA)))
        except (SamMedError, OSError) as error:
            yield case, str(error)


def cost_of(plan: Plan) -> Generator[CostStep, None, None]:
    """What a plan will take; see `estimate`."""
    request = _request(plan)
    from napari_sam_med.training.tuning_cost import estimate

    yield from estimate(request)


def learn(plan: Plan, *, is_remembered: bool = True) -> Generator[TuningStep, None, None]:
    """Carry a plan out, or go on with it; see `tune_model`.

    With ``is_remembered`` the plan lies in the model's folder until that is finished.
    """
    request = _request(plan)
    from napari_sam_med.training.tuning_run import tune_model

    if is_remembered and not is_done(plan.output):
        write_plan(plan)
    yield from tune_model(request)
    forget_plan(plan.output)


def _request(plan: Plan) -> TuningRequest:
    preload_torch_libraries()
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.training.recipes import named_recipe
    from napari_sam_med.training.tuning_run import TuningRequest

    return TuningRequest(
        cases=plan.cases,
        output=plan.output,
        recipe=named_recipe(plan.recipe, epochs=plan.epochs, views=plan.views),
        model=plan.model,
        device=plan.device,
        earlier=default_store(),
    )
