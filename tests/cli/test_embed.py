"""``embed``: what is stored is what napari looks up, and is embedded once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med.sam.embedding_store import default_store
from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.segmentation.slicewise import embed_slice
from napari_sam_med.volume.reading import read_volume
from napari_sam_med.volume.slice_view import SliceView
from tests.cli.cli_scan import SHAPE, Run, Scan

Runner = Callable[..., Run]


def test_slices_are_found_in_the_store_and_not_embedded_again(
    run: Runner, scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads(run("embed", scan.volume, "--json").out)
    (one,) = first["volumes"]
    assert (one["slices"], one["made"]) == (SHAPE[2], SHAPE[2])
    assert first["folder"] == str(default_store().directory)
    assert one["bytes"] == default_store().size_bytes()

    monkeypatch.setattr(Predictor, "embed_batch", None)  # whoever embeds now fails
    again = json.loads(run("embed", scan.volume, "--json").out)["volumes"][0]
    assert (again["slices"], again["made"], again["bytes"]) == (SHAPE[2], 0, one["bytes"])
    monkeypatch.undo()


def test_what_is_stored_is_what_a_click_finds(
    run: Runner, scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("embed", scan.volume, "--planes", "coronal")
    volume, nano, store = read_volume(scan.volume), load_predictor("nano"), default_store()
    view = SliceView("coronal", 7)
    fresh = embed_slice(volume, view, nano)
    monkeypatch.setattr(Predictor, "embed", None)
    stored = embed_slice(volume, view, nano, store=store)
    for kept, made in zip(stored.features, fresh.features, strict=True):
        np.testing.assert_allclose(kept.float(), made, atol=2e-3, rtol=2e-3)


def test_slices_of_air_are_left_out_and_counted_but_a_click_there_is_answered(
    run: Runner, scan: Scan, tmp_path: Path
) -> None:
    file = nib.load(scan.volume)
    values = np.asarray(file.dataobj)
    values[:, :, :3] = -1000
    nib.save(nib.Nifti1Image(values, file.affine), tmp_path / "high.nii.gz")
    (one,) = json.loads(run("embed", tmp_path / "high.nii.gz", "--json").out)["volumes"]
    assert (one["slices"], one["air"], one["made"]) == (SHAPE[2], 3, SHAPE[2] - 3)
    volume, store = read_volume(tmp_path / "high.nii.gz"), default_store()
    kept, nano = store.size_bytes(), load_predictor("nano")
    for index in np.argsort((volume.data == -1000).all(axis=(1, 2)))[:-2]:  # those of air come last
        assert store.size_bytes() == kept
        embed_slice(volume, SliceView("axial", index), nano, store=store)
    assert store.size_bytes() > kept


def test_a_volume_that_cannot_be_read_costs_no_other(run: Runner, scan: Scan, tmp_path: Path) -> None:
    (tmp_path / "broken.nii.gz").write_bytes(b"no volume")
    (tmp_path / "cases.csv").write_text(f"image\nbroken.nii.gz\n{scan.volume}\n")
    answer = run("embed", "--cases", tmp_path / "cases.csv", "--json")
    broken, whole = json.loads(answer.out)["volumes"]
    assert answer.status == 2
    assert answer.err.startswith("error: broken.nii.gz: ")
    assert broken["error"]
    assert whole["made"] == SHAPE[2]


def test_a_store_that_is_too_small_stops_before_it_loses_slices(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_SAM_MED_STORE_GB", "0.002")
    assert "NAPARI_SAM_MED_STORE_GB to a larger number" in run("embed", scan.volume).error
    monkeypatch.setenv("NAPARI_SAM_MED_STORE_GB", "many")
    assert "gigabytes" in run("embed", scan.volume).error


def test_volumes_that_push_out_others_are_refused_but_not_those_that_cannot_be_read(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = json.loads(run("embed", scan.volume, "--json").out)["volumes"]
    monkeypatch.setenv("NAPARI_SAM_MED_STORE_GB", str(2.5 * one["bytes"] / 1e9))
    (tmp_path / "broken.nii.gz").write_bytes(b"no volume")
    answer = run("embed", scan.volume, tmp_path / "broken.nii.gz", scan.volume, "--json")
    assert len(json.loads(answer.out)["volumes"]) == 3
    assert "2 of 3 volumes take" in run("embed", scan.volume, scan.volume, scan.volume).error


def test_a_disk_that_keeps_nothing_is_said(run: Runner, scan: Scan, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "cache").write_text("a file where the folder should be")
    assert "Embeddings cannot be kept in" in run("embed", scan.volume).error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "either volumes, or --cases"),
        (["nowhere.nii.gz"], "no volume nowhere.nii.gz"),
        (["{volume}", "--window", "blue"], "window"),
        (["{volume}", "--scheduler", "tcp://127.0.0.1:9", "--workers", "2"], "leave out --workers"),
    ],
)
def test_what_is_refused(run: Runner, scan: Scan, arguments: list[str], said: str) -> None:
    assert said in run("embed", *(part.format(volume=scan.volume) for part in arguments)).error
