"""The tables of fine-tuning, from cards as they are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.finetuning import recipe_table, table


def _card(folder: Path, before: float, after: float) -> Path:
    def scores(dice: float) -> dict[str, object]:
        return {"bound_box": {"mdice_organs": dice, "organs": {"liver": dice}}}

    folder.mkdir()
    document = {
        "scores": {"before": scores(before), "after": scores(after)},
        "seconds": {"all": 120.0, "epoch": 5.0},
        "best_epoch": 3,
        "recipe": {"name": folder.name},
    }
    (folder / "card.json").write_text(json.dumps(document))
    return folder


def test_the_table_is_over_the_seeds(tmp_path: Path) -> None:
    text = table([_card(tmp_path / "a", 0.7, 0.8), _card(tmp_path / "b", 0.7, 0.9)])
    assert "| `bound_box` | liver | 0.700 | 0.850 | 0.800 | 0.900 | +0.150 |" in text
    assert "2 seeds; 2.0 min a run" in text
    with pytest.raises(SystemExit, match="finetune"):
        table([tmp_path])


def test_recipes_stand_below_each_other(tmp_path: Path) -> None:
    text = recipe_table([_card(tmp_path / "sam", 0.7, 0.8), _card(tmp_path / "gentle", 0.7, 0.75)])
    assert text.splitlines()[2:] == [
        "| as it was | 0.700 |  |",
        "| `sam` | 0.800 | 2.0 |",
        "| `gentle` | 0.750 | 2.0 |",
    ]
