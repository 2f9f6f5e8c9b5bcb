"""Tables of ITK-SNAP and FreeSurfer."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam_med import LabelVolume, read_labels, read_volume, write_labels
from napari_sam_med.errors import ExportError, LabelError
from napari_sam_med.volume.formats.label_description import TABLE_ENDINGS, read_table, table_content
from napari_sam_med.volume.organs import Organ, OrganTable
from napari_sam_med.volume.writing import write_table
from tests.volume.phantoms import ct_like, save_nifti

# rows as the two programs themselves write them
SNAP = """################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
    0     0    0    0        0  0  0    "Clear Label"
    1   255    0    0        1  1  1    "Label 1"
    6   200   56   46      0.5  0  1    "Leber, groß"
"""
LUT = """#$Id: FreeSurferColorLUT.txt $

#No. Label Name:                            R   G   B   A

0   Unknown                                 0   0   0   0
17  Left-Hippocampus                        220 216 20  0
70000 too-high                              1   2   3   0
"""
SLICER = """# Color table file, 3 values
0 background 0 0 0 0
1 spleen 157 108 162 255
2 right kidney 185 102 83
"""


def test_label_descriptions_of_itk_snap_are_read(tmp_path) -> None:
    (tmp_path / "labels.txt").write_text(SNAP, encoding="utf-8")
    table = read_table(tmp_path / "labels.txt")
    assert [(organ.class_id, organ.name, organ.visible) for organ in table.values()] == [
        (1, "Label 1", True),
        (6, "Leber, groß", False),
    ]
    assert table[6].color == (200 / 255, 56 / 255, 46 / 255)
    (tmp_path / "labels.txt").write_bytes(SNAP.encode("latin-1"))
    assert read_table(tmp_path / "labels.txt") == table


@pytest.mark.parametrize(
    ("text", "names"), [(LUT, {17: "Left-Hippocampus"}), (SLICER, {1: "spleen", 2: "right kidney"})]
)
def test_colour_tables_of_freesurfer_and_slicer_are_read(tmp_path, text, names) -> None:
    (tmp_path / "table").write_text("\ufeff" + text, encoding="utf-8")
    assert {i: organ.name for i, organ in read_table(tmp_path / "table").items()} == names


names = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Cn", "Zl", "Zp")), min_size=1, max_size=30)


@given(st.dictionaries(st.integers(1, 65535), st.tuples(names, st.tuples(*[st.integers(0, 255)] * 3))))
def test_tables_come_back_but_for_what_the_formats_cannot_hold(tmp_path_factory, rows) -> None:
    """Statement 18: any name; ITK-SNAP ends names at quotes, FreeSurfer at spaces."""
    table = OrganTable(
        Organ(i, name, tuple(value / 255 for value in color)) for i, (name, color) in rows.items()
    )
    if not table:
        return
    path = tmp_path_factory.mktemp("é 名") / "organs"
    for ending in TABLE_ENDINGS:
        path.write_bytes(table_content(ending, table))
        read = read_table(path)
        assert read.keys() == table.keys()
        for class_id, organ in table.items():
            is_snap = ending == ".label"
            expected = organ.name.replace('"', "'") if is_snap else re.sub(r"\s", "_", organ.name)
            assert read[class_id].name == expected
            assert np.allclose(read[class_id].color, organ.color)


def test_rows_are_what_the_programs_expect() -> None:
    table = OrganTable([Organ(6, 'right "upper" lobe', (200 / 255, 56 / 255, 46 / 255))])
    snap = table_content(".label", table).decode().splitlines()
    assert snap[-1].split(maxsplit=7) == ["6", "200", "56", "46", "1.00", "1", "1", "\"right 'upper' lobe\""]
    assert snap[-2].split(maxsplit=7) == ["0", "0", "0", "0", "0", "0", "0", '"Clear Label"']
    lut = table_content(".lut.txt", table).decode().splitlines()
    assert lut[-1].split() == ["6", 'right_"upper"_lobe', "200", "56", "46", "0"]
    assert lut[-2].split() == ["0", "Unknown", "0", "0", "0", "0"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 spleen 1 2 3 0\nspleen\n", "Line 2"),
        ("1 spleen 1 2 300 0\n", "Line 1"),
        ("# nothing\n", "names no organ"),
        ("1 a 1 2 3 0\n1 b 1 2 3 0\n", "same number"),
        ('1 0 0 0 1 1 1 "a"\n2 b 1 2 3 0\n', "Line 2"),
    ],
)
def test_what_is_no_table_is_refused_by_its_line(tmp_path, text, says) -> None:
    (tmp_path / "table.txt").write_text(text)
    with pytest.raises(LabelError, match=says) as caught:
        read_table(tmp_path / "table.txt")
    assert "table.txt" in str(caught.value)


def test_a_table_names_labels_that_have_no_names(tmp_path) -> None:
    scan = read_volume(save_nifti(tmp_path / "scan.nii", ct_like()))
    labels = LabelVolume.like(scan, OrganTable.from_names({1: "spleen", 9: "mine"}))
    labels.data[0, 0, :3] = (1, 6, 9)
    path = write_labels(tmp_path / "labels.nii", labels)
    (tmp_path / "snap.label").write_text(SNAP, encoding="utf-8")
    read = read_labels(path, names=tmp_path / "snap.label")
    assert {i: read.organs.name_of(i) for i in (1, 6, 9)} == {1: "Label 1", 6: "Leber, groß", 9: "mine"}
    assert read_labels(path, names=OrganTable.btcv()).organs.name_of(6) == "liver"
    with pytest.raises(LabelError, match="cannot be read"):
        read_labels(path, names=tmp_path / "none.label")


def test_tables_are_written_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    """Statements 12 and 17."""
    path = write_table(tmp_path / "a b é.label", OrganTable.btcv())
    before = path.read_bytes()
    assert {i: organ.name for i, organ in read_table(path).items()} == {
        i: organ.name for i, organ in OrganTable.btcv().items()
    }

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(ExportError, match=r"a b é\.label could not be written: Permission denied"):
        write_table(path, OrganTable())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ExportError, match="no ending"):
        write_table(tmp_path / "x.txt", OrganTable())
