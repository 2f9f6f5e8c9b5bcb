"""``segment``: labels on the volume's own grid, and a report that agrees with them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med.sam.predictor import Predictor
from tests.cli.cli_scan import CENTRE, SHAPE, Run, Scan, box, in_wide_field, write_prompts

Runner = Callable[..., Run]


def test_labels_lie_on_the_volumes_own_grid(run: Runner, scan: Scan, tmp_path: Path) -> None:
    out = tmp_path / "out.nii.gz"
    answer = run("segment", scan.volume, "--prompts", scan.prompts, "-o", out)
    assert answer.status == 0
    assert answer.err == ""
    assert "liver" in answer.out
    source, labels = nib.load(scan.volume), nib.load(out)
    assert np.array_equal(labels.affine, source.affine)
    assert labels.shape == source.shape
    assert labels.get_data_dtype() == np.uint8
    array = np.asarray(labels.dataobj)
    assert set(np.unique(array)) == {0, 6}
    assert array[CENTRE] == 6
    sidecar = json.loads((tmp_path / "out.sam-med.json").read_text())
    assert sidecar["model"]["name"] == "nano"


@pytest.mark.parametrize("options", [[], ["--no-propagate"]])
def test_report_agrees_with_the_labels(run: Runner, scan: Scan, tmp_path: Path, options: list[str]) -> None:
    out, path = tmp_path / "out.nii.gz", tmp_path / "report.json"
    answer = run(
        "segment", scan.volume, "--prompts", scan.prompts, "-o", out, "--report", path, "--json", *options
    )
    report = json.loads(path.read_text())
    assert json.loads(answer.out) == report
    assert report["model"] == "nano"
    assert report["device"]
    assert report["precision"] in ("fp32", "bf16")
    assert report["seconds"]["total"] > 0
    assert report["warnings"] == []
    (entry,) = report["objects"]
    array = np.asarray(nib.load(out).dataobj)
    areas = (array == 6).sum(axis=(0, 1)) * 1.5 * 1.5
    assert (entry["label"], entry["name"], entry["key_slices"]) == (6, "liver", [CENTRE[2]])
    assert entry["voxels"] == (array == 6).sum()
    assert entry["volume_ml"] == pytest.approx(entry["voxels"] * 1.5 * 1.5 * 3 / 1000, abs=1e-3)
    assert [entry["first_slice"], entry["last_slice"]] == np.flatnonzero(areas)[[0, -1]].tolist()
    assert {row["index"]: row["area_mm2"] for row in entry["slices"]} == pytest.approx(
        {int(k): float(areas[k]) for k in np.flatnonzero(areas)}, abs=0.01
    )
    for row in entry["slices"]:
        assert 0 <= row["quality"] <= 1
        assert row["source"] == ("prompt" if row["index"] == CENTRE[2] else "propagated")
    assert set(entry["stop_reasons"]) == {"forward", "backward"}
    if options:
        assert [row["index"] for row in entry["slices"]] == [CENTRE[2]]
        assert "switched off" in entry["stop_reasons"]["forward"]


def test_forward_is_where_the_files_own_index_grows(run: Runner, scan: Scan, tmp_path: Path) -> None:
    """The file is stored head first, so its last slice is the lowest one, canonical index 0."""
    last = SHAPE[2] - 1
    prompts = write_prompts(tmp_path / "p.json", box(k=last))
    answer = run("segment", scan.volume, "-p", prompts, "-o", tmp_path / "out.nii.gz", "--json")
    (entry,) = json.loads(answer.out)["objects"]
    assert entry["key_slices"] == [last]
    assert entry["stop_reasons"]["forward"] == "end of the volume"


def test_prompts_named_as_the_sidecar_are_kept(run: Runner, scan: Scan, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "out.sam-med.json", box())
    before = prompts.read_bytes()
    answer = run("segment", scan.volume, "--prompts", prompts, "-o", tmp_path / "out.nii.gz")
    assert "overwritten" in answer.error
    assert prompts.read_bytes() == before


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="file names are Unicode there")
def test_names_that_are_no_utf_8_are_taken(run: Runner, scan: Scan, tmp_path: Path) -> None:
    """As a Latin-1 archive leaves them; and a name in the prompts that UTF-8 cannot hold."""
    volume = tmp_path / os.fsdecode(b"K\xf6rper.nii.gz")
    scan.volume.rename(volume)
    prompts = write_prompts(tmp_path / "p.json", box(name="Leber \ud800"))
    out, report = tmp_path / os.fsdecode(b"\xd6l.nii.gz"), tmp_path / "r.json"
    options = ("--no-propagate", "--report", report)
    answer = run("segment", volume, "-p", prompts, "-o", out, *options, "--json")
    assert answer.status == 0, answer.err
    assert json.loads(answer.out)["volume"] == json.loads(report.read_text())["volume"] == str(volume)
    assert run("segment", volume, "-p", prompts, "-o", out, *options).status == 0
    assert np.asarray(nib.load(out).dataobj).any()


def test_objects_may_share_a_label(run: Runner, scan: Scan, tmp_path: Path) -> None:
    other = {"label": 6, "name": "liver", "boxes": [{"from": [28, 2, 4], "to": [38, 10, 4]}]}
    prompts = write_prompts(tmp_path / "p.json", box(), other)
    out = tmp_path / "out.nii.gz"
    answer = run("segment", scan.volume, "-p", prompts, "-o", out, "--no-propagate", "--json")
    first, second = json.loads(answer.out)["objects"]
    assert (first["label"], second["label"]) == (6, 6)
    assert first["voxels"] + second["voxels"] == (np.asarray(nib.load(out).dataobj) == 6).sum()


def test_objects_that_overlap_are_told(run: Runner, scan: Scan, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.json", box(6), box(7, name="stomach"))
    out = tmp_path / "out.nii.gz"
    answer = run("segment", scan.volume, "-p", prompts, "-o", out, "--no-propagate")
    assert answer.status == 0
    assert "overlap" in answer.err
    assert set(np.unique(np.asarray(nib.load(out).dataobj))) == {0, 7}


def test_every_plane_may_be_prompted(run: Runner, scan: Scan, tmp_path: Path) -> None:
    sagittal = {"label": 2, "plane": "sagittal", "points": [{"at": list(CENTRE)}]}
    coronal = {"label": 3, "boxes": [{"from": [7, CENTRE[1], 0], "to": [25, CENTRE[1], 8]}]}
    prompts = write_prompts(tmp_path / "p.json", sagittal, coronal)
    answer = run("segment", scan.volume, "-p", prompts, "-o", tmp_path / "o.nrrd", "--no-propagate", "--json")
    first, second = json.loads(answer.out)["objects"]
    assert (first["plane"], first["key_slices"]) == ("sagittal", [CENTRE[0]])
    assert (second["plane"], second["key_slices"]) == ("coronal", [CENTRE[1]])


def test_one_slice_has_nowhere_to_go(run: Runner, scan: Scan, tmp_path: Path) -> None:
    image = nib.load(scan.volume)
    flat = tmp_path / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., 4:5], image.affine), flat)
    prompts = write_prompts(tmp_path / "p.json", box(k=0))
    answer = run("segment", flat, "-p", prompts, "-o", tmp_path / "out.nii.gz")
    assert answer.status == 0
    assert "one slice" in answer.err
    assert answer.err.startswith("warning: ")
    assert nib.load(tmp_path / "out.nii.gz").shape == (40, 36, 1)


@pytest.mark.parametrize(
    ("window", "used"),
    [
        ("soft-tissue", [-160, 240]),
        ("bone", [-450, 1050]),
        ("-200,300.5", [-200, 300.5]),
        ("AUTO", [-160, 240]),
    ],
)
def test_windows(run: Runner, scan: Scan, tmp_path: Path, window: str, used: list[float]) -> None:
    out = tmp_path / "out.nii.gz"
    arguments = ("segment", scan.volume, "-p", scan.prompts, "-o", out, "--no-propagate", "--window", window)
    assert json.loads(run(*arguments, "--json").out)["window"] == used


def test_the_model_sees_the_window(run: Runner, scan: Scan, tmp_path: Path) -> None:
    out = tmp_path / "out.nii.gz"
    arguments = (
        "segment",
        scan.volume,
        "-p",
        scan.prompts,
        "-o",
        out,
        "--no-propagate",
        "--json",
        "--window",
    )
    seen, black = (json.loads(run(*arguments, window).out)["objects"][0] for window in ("auto", "500,900"))
    assert seen["slices"] != black["slices"]


@pytest.mark.parametrize("name", ["l.nii", "l.nii.gz", "l.nrrd", "l.seg.nrrd", "l.mha", "é 名前.nii.gz"])
def test_formats_by_extension(run: Runner, scan: Scan, tmp_path: Path, name: str) -> None:
    from napari_sam_med import read_labels, read_volume

    answer = run("segment", scan.volume, "-p", scan.prompts, "-o", tmp_path / name, "--no-propagate")
    assert answer.status == 0, answer.err
    labels = read_labels(tmp_path / name, reference=read_volume(scan.volume))
    assert labels.class_ids() == (6,)
    assert labels.organs.name_of(6) == "liver"


def test_labels_in_ome_zarr_are_written_again_or_refused_before_the_work(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam_med import read_labels

    out, folder = tmp_path / "out.ome.zarr", tmp_path / "folder.ome.zarr"
    folder.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(Predictor, "__init__", None)  # whoever loads a model fails
        for command in (("segment", scan.volume, "-p", scan.prompts), ("auto", scan.volume)):
            assert "degrees off the axes" in run(*command, "-o", out).error
            assert "holds no labels in OME-Zarr" in run(*command, "-o", folder).error
    data = np.asarray(nib.load(scan.volume).dataobj).copy()
    nib.save(nib.Nifti1Image(data, np.diag([-1.5, -1.5, 3.0, 1.0])), scan.volume)
    for _ in range(2):
        answer = run("segment", scan.volume, "-p", scan.prompts, "-o", out, "--no-propagate")
        assert answer.status == 0, answer.err
    assert read_labels(out).class_ids() == (6,)


def test_the_body_alone_is_shown_and_found_where_it_was_embedded(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_wide_field(scan)
    prompts = write_prompts(tmp_path / "p.json", box(boxes=[{"from": [37, 51, 4], "to": [55, 69, 4]}]))
    assert run("embed", scan.volume, "--crop-to-body").status == 0
    monkeypatch.setattr(Predictor, "embed", None)  # whoever embeds now fails
    out = tmp_path / "out.nii.gz"
    answer = run("segment", scan.volume, "-p", prompts, "-o", out, "--crop-to-body")
    assert (answer.status, answer.err) == (0, "")
    found, truth = (np.asarray(nib.load(path).dataobj) == 6 for path in (out, scan.labels))
    assert 2 * np.count_nonzero(found & truth) > 0.85 * (np.count_nonzero(found) + np.count_nonzero(truth))
    refused = run("segment", scan.volume, "-p", prompts, "-o", out, "--crop-to-body", "-e", "sam2.pt")
    assert "--crop-to-body is for the slicewise engine" in refused.err


def test_a_video_model_carries_instead_of_the_slice_wise_engine(
    run: Runner, scan: Scan, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    from tests.segmentation.tiny_sam2 import tiny_video_model, write_folder

    write_folder(tmp_path / "tiny", tiny_video_model())
    out = tmp_path / "out.nii.gz"
    answer = run(
        "segment", scan.volume, "-p", scan.prompts, "-o", out, "--engine", tmp_path / "tiny", "--json"
    )
    assert answer.status == 0, answer.err
    report = json.loads(answer.out)
    assert report["model"] == "tiny"
    assert len(report["model_sha256"]) == 64
    assert report["objects"][0]["stop_reasons"] == {
        "forward": "end of the volume",
        "backward": "start of the volume",
    }
    sidecar = json.loads((tmp_path / "out.sam-med.json").read_text())
    assert sidecar["model"]["sha256"] == report["model_sha256"]


def test_without_the_extra_the_engine_is_refused_in_one_line(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam_med.segmentation import video_weights

    monkeypatch.setattr(video_weights, "is_available", lambda: False)
    answer = run("segment", scan.volume, "-p", scan.prompts, "-o", tmp_path / "o.nii.gz", "--engine", "m.pt")
    assert answer.error.endswith('install it with pip install "napari-sam-med[video]".')
    assert not (tmp_path / "o.nii.gz").exists()
