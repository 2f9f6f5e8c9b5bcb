"""The table of words, and that the benchmark runs on a piece of the sample."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.words import main, table
from napari_sam_med.evaluation.word_ranks import WordRank
from napari_sam_med.sample_data import sample_labels, sample_volume


def test_what_was_not_found_is_said_in_the_table() -> None:
    rows = [
        WordRank("liver", 9, 0.8, 1, 0.99, 0.8, 0.99),
        WordRank("spleen", 9, 0.3, 4, 0.1, 0.0, 0.7),
        WordRank("aorta", 9, 0.0, None, None, 0.0, 0.2),
    ]
    lines = table(rows).splitlines()
    assert lines[2] == "| liver | 0.80 | 1 of 9 | 0.990 | 0.80 | 0.990 |"
    assert "4 of 9, not found at 0.5" in lines[3]
    assert "-, not found at 0.5" in lines[4]


@pytest.mark.slow
def test_it_prints_its_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source, name in ((sample_volume(), "image.nii.gz"), (sample_labels(), "label_btcv13.nii.gz")):
        image = nib.load(source)
        few = np.asarray(image.dataobj)[:, :, 22:26]
        nib.save(nib.Nifti1Image(few, image.affine), tmp_path / name)
    main(["--data", str(tmp_path), "--every", "3", "--spacing-mm", "80"])
    said = capsys.readouterr().out
    assert "### Among the labels themselves" in said
    assert "### Among objects found by nano" in said
    assert "### With a point in the organ" in said
    assert said.count("| liver |") == 3
