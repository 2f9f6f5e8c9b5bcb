"""The XML label table of NIfTI files."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam_med.volume.formats.label_table import from_xml, to_xml
from napari_sam_med.volume.organs import Organ, OrganTable

_UNIT = st.floats(0, 1).map(lambda value: round(value, 5))


@given(
    st.dictionaries(st.integers(1, 65535), st.tuples(st.text(max_size=20), _UNIT, _UNIT, _UNIT), max_size=5)
)
@settings(max_examples=150, deadline=None)
def test_any_name_comes_back(rows) -> None:
    """Statement 18."""
    table = OrganTable(Organ(i, name, (r, g, b)) for i, (name, r, g, b) in rows.items())
    assert from_xml(to_xml(table) + b"\0\0\0") == table


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not xml",
        b"<LabelTable",
        b'<LabelTable><Label Key="x">a</Label></LabelTable>',
        b'<!DOCTYPE a [<!ENTITY b "c">]><LabelTable><Label Key="1">&b;</Label></LabelTable>',
        b"\xff\xfe<LabelTable>",
    ],
)
def test_other_extensions_are_no_table(content: bytes) -> None:
    assert from_xml(content) is None


def test_the_background_row_of_other_writers_is_skipped() -> None:
    rows = b'<Label Key="0">???</Label><Label Key="4" Red="2">gut</Label>'
    content = b"<CaretExtension><LabelTable>" + rows + b"</LabelTable></CaretExtension>"
    table = from_xml(content)
    assert table is not None
    assert list(table) == [4]
    assert table[4].color == (1.0, 1.0, 1.0)
