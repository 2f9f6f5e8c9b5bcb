"""The organ table."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest

from napari_sam_med.errors import LabelError
from napari_sam_med.volume.organs import Organ, OrganTable


def test_btcv_is_in_the_order_of_its_label_files() -> None:
    table = OrganTable.btcv()
    assert [table.name_of(i) for i in table] == [
        "spleen",
        "right kidney",
        "left kidney",
        "gallbladder",
        "esophagus",
        "liver",
        "stomach",
        "aorta",
        "inferior vena cava",
        "portal and splenic veins",
        "pancreas",
        "right adrenal",
        "left adrenal",
    ]
    colors = [np.array(organ.color) for organ in table.values()]
    assert min(np.abs(a - b).sum() for a, b in combinations(colors, 2)) > 0.25


def test_tables_are_changed_by_copies() -> None:
    table = OrganTable.btcv()
    lesion = Organ(table.next_free_id(), "lesion", (1.0, 0.0, 0.0), locked=True)
    longer = table.with_organ(lesion)
    assert (len(table), len(longer), longer.next_free_id()) == (13, 14, 15)
    assert longer.locked_ids == (14,)
    assert longer.locking(14, False).locked_ids == ()
    assert longer.without(14) == table
    assert longer.without(99) == longer
    assert longer.name_of(99) == "label 99"
    assert longer.name_of(0) == "background"
    assert list(longer.covering([0, 20, 3])) == [*range(1, 15), 20]


def test_json_round_trip_and_short_rows() -> None:
    table = OrganTable.btcv().with_organ(
        Organ(300, "Läsion 名前", (0.1, 0.2, 0.3), locked=True, visible=False)
    )
    assert OrganTable.from_json(json.loads(json.dumps(table.to_json()))) == table
    assert OrganTable.from_json([{"label": 2, "name": "x"}]).name_of(2) == "x"
    assert OrganTable.from_names({6: "liver", 7: "bowel"})[6] == OrganTable.btcv()[6]


@pytest.mark.parametrize(
    "rows", [[{"label": "1", "name": "x"}], [{"name": "x"}], [3], [{"label": 0, "name": "x"}]]
)
def test_rows_that_make_no_sense_are_refused(rows) -> None:
    with pytest.raises(LabelError):
        OrganTable.from_json(rows)


def test_numbers_colours_and_names_are_checked() -> None:
    for class_id in (0, 65536, -1, 1.5):
        with pytest.raises(LabelError):
            Organ(class_id, "x", (0, 0, 0))  # type: ignore[arg-type]
    for color in ((0, 0, 2), (0, 0), (np.nan, 0, 0)):
        with pytest.raises(LabelError):
            Organ(1, "x", color)  # type: ignore[arg-type]
    with pytest.raises(LabelError, match="same number"):
        OrganTable([Organ(1, "a", (0, 0, 0)), Organ(1, "b", (0, 0, 0))])
    assert Organ(1, "a\nb\0c ", (0, 0, 0)).name == "a b c"
    assert Organ(1, "\t", (0, 0, 0)).name == "label 1"
