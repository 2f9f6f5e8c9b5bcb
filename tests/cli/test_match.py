"""``match``: one labelled example in, labels of another volume out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med.evaluation.metrics import dice
from tests.cli.cli_scan import CENTRE, Run, Scan

Runs = Callable[..., Run]


def arguments(scan: Scan, output: Path, *more: str) -> list[str]:
    return [
        *("match", str(scan.volume), "--example", str(scan.volume)),
        *("--example-labels", str(scan.labels), "-o", str(output), *more),
    ]


def moved_copy(scan: Scan, folder: Path) -> tuple[Path, np.ndarray]:
    """The same scan with everything three voxels further along i, and where its organ is."""
    image, truth = nib.load(scan.volume), np.asarray(nib.load(scan.labels).dataobj)
    path = folder / "moved.nii.gz"
    nib.save(nib.Nifti1Image(np.roll(np.asarray(image.dataobj), 3, axis=0), image.affine), path)
    return path, np.roll(truth, 3, axis=0) > 0


def test_the_organ_is_found_in_another_volume_with_its_number_and_name(
    run: Runs, scan: Scan, tmp_path: Path
) -> None:
    query, truth = moved_copy(scan, tmp_path)
    output = tmp_path / "out.nii.gz"
    done = run("match", query, "--example", scan.volume, "--example-labels", scan.labels,
               "-o", output, "--json")  # fmt: skip
    assert done.status == 0, done.err
    document = json.loads(done.out)
    (organ,) = document["organs"]
    assert organ["label"] == 6
    assert organ["example_slice"] == CENTRE[2]
    assert [each["number"] for each in organ["instances"]] == [1]
    written = nib.load(output)
    assert np.array_equal(written.affine, nib.load(query).affine)
    assert set(np.unique(written.dataobj)) == {0, 6}
    assert dice(np.asarray(written.dataobj) == 6, truth) > 0.8


def test_one_labelled_slice_of_the_same_volume_is_kept_and_carried(
    run: Runs, scan: Scan, tmp_path: Path
) -> None:
    file = nib.load(scan.labels)
    truth = np.asarray(file.dataobj).copy()
    labels = np.where(np.arange(truth.shape[2]) == 3, truth, 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, file.affine), scan.labels)
    output = tmp_path / "out.nii.gz"
    done = run(*arguments(scan, output, "--every", "4"))
    assert done.status == 0, done.err
    assert "label 6" in done.out
    found = np.asarray(nib.load(output).dataobj)
    assert np.array_equal(found[:, :, 3], labels[:, :, 3])
    assert dice(found > 0, truth > 0) > 0.9


def test_a_slice_that_shows_no_organ_is_refused_by_the_number_that_was_given(
    run: Runs, scan: Scan, tmp_path: Path
) -> None:
    file = nib.load(scan.labels)
    labels = np.asarray(file.dataobj).copy()
    labels[:, :, 7:] = 0
    nib.save(nib.Nifti1Image(labels, file.affine), scan.labels)
    refused = run(*arguments(scan, tmp_path / "out.nii.gz", "--example-slice", "7"))
    assert "Slice 7 of truth.nii.gz shows none of the organs" in refused.error


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--example-slice", "99"], "99"),
        (["--example-slice", "middle"], "is no slice of the example; give its number, or best"),
        (["--only", "spleen"], "has no spleen to go by"),
        (["--engine", "guess"], "'guess' is not one of 'similarity', 'stitching'"),
        (["--design", "spiral"], "'spiral' is not one of"),
        (["--model", "no_such_model"], "no_such_model"),
        (["--example-labels", "nowhere.nii.gz"], "There is no label file nowhere.nii.gz"),
        (["-o", "out.txt"], "labels are written as"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    run: Runs, scan: Scan, tmp_path: Path, more: list[str], said: str
) -> None:
    given = arguments(scan, tmp_path / "out.nii.gz")
    if more[0] in given:
        given[given.index(more[0]) + 1] = more[1]
    else:
        given += more
    assert said in run(*given).error
    assert not (tmp_path / "out.nii.gz").exists()
