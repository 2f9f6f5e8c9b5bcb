"""``find``: what is shown, what is written, and that nothing is guessed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med.errors import ModelError
from napari_sam_med.segmentation.organ_classifier import ClassifierFacts, load_classifier
from napari_sam_med.segmentation.organ_features import GEOMETRY, SliceObjects
from napari_sam_med.volume.reading import read_labels
from tests.cli.cli_scan import CENTRE, Run, Scan

Runner = Callable[..., Run]


class BySize:
    """Takes larger masks for a liver, smaller ones for a spleen; both for a liver when they are ``alike``."""

    def __init__(self, alike: bool = False) -> None:
        model = load_classifier().facts
        self.facts = ClassifierFacts(
            "late_fusion", ("liver", "spleen", "other"), model.model, model.model_sha256
        )
        self.alike = alike

    def log_probabilities(self, objects: SliceObjects) -> np.ndarray:
        is_large = objects.geometry[:, GEOMETRY.index("log_area")] + 6.5 > (0 if self.alike else np.log(130))
        return np.log(np.where(is_large[:, None], [[0.9, 0.05, 0.05]], [[0.1, 0.8, 0.1]]))


@pytest.fixture
def two(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Labels 3 and 6: a small cube in a corner and the organ; named by their size."""
    source = nib.load(scan.labels)
    numbers = np.asarray(source.dataobj).copy()
    numbers[28:33, 2:7, 3:6] = 3
    path = tmp_path / "two.nii.gz"
    nib.save(nib.Nifti1Image(numbers, source.affine), path)
    monkeypatch.setattr("napari_sam_med.segmentation.organ_classifier.load_classifier", lambda *_: BySize())
    return path


def test_the_clear_winner_is_written_under_its_organ(
    run: Runner, scan: Scan, two: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.nii.gz"
    answer = run("find", scan.volume, "Liver", "--objects", two, "-o", out, "--json")
    assert answer.status == 0, answer.err
    document = json.loads(answer.out)
    assert document["organs"] == ["liver"]
    assert (document["winner"], document["taken"], document["labels"]) == (1, [1], str(out))
    first, second = document["candidates"]
    assert first["organ"]["name"] == "liver"
    assert first["score"] > 0.6 > 0.2 > second["score"]
    assert first["first_slice"] <= CENTRE[2] <= first["last_slice"]
    numbers = np.asarray(nib.load(out).dataobj)
    np.testing.assert_array_equal(numbers == 6, np.asarray(nib.load(two).dataobj) == 6)
    assert set(np.unique(numbers)) == {0, 6}
    assert read_labels(out).organs.name_of(6) == "liver"


def test_what_is_not_clear_is_shown_and_not_written(
    run: Runner, scan: Scan, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "napari_sam_med.segmentation.organ_classifier.load_classifier", lambda *_: BySize(alike=True)
    )
    out = tmp_path / "out.nii.gz"
    answer = run("find", scan.volume, "liver", "--objects", two, "-o", out)
    assert answer.status == 2
    assert 'error: "liver" is not clear here' in answer.err
    assert "another one comes near the first" in " ".join(answer.out.split())
    assert not out.exists()
    document = json.loads(run("find", scan.volume, "liver", "--objects", two, "--json").out)
    assert (document["winner"], document["taken"], document["labels"]) == (None, [], None)
    assert len(document["candidates"]) == 2
    taken = run("find", scan.volume, "liver", "--objects", two, "-o", out, "--take", "2", "--json")
    assert taken.status == 0, taken.err
    document = json.loads(taken.out)
    assert document["taken"] == [2]
    beyond = run("find", scan.volume, "liver", "--objects", two, "-o", out, "--take", "2", "--top", "1")
    assert [line.split()[0] for line in beyond.out.splitlines() if line.lstrip()[:1].isdigit()] == ["1", "2"]
    assert "taken" in beyond.out
    assert "Not clear" not in beyond.out
    voxels = int(np.count_nonzero(np.asarray(nib.load(out).dataobj)))
    spacing_ml = abs(np.linalg.det(nib.load(out).affine[:3, :3])) / 1000
    assert document["candidates"][1]["volume_ml"] == pytest.approx(voxels * spacing_ml, abs=0.01)


def test_zeros_are_no_answer(
    run: Runner, scan: Scan, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def neither(_: BySize, objects: SliceObjects) -> np.ndarray:
        return np.log(np.tile([[0.002, 0.003, 0.995]], (len(objects.geometry), 1)))

    monkeypatch.setattr(BySize, "log_probabilities", neither)
    asked, out = ("find", scan.volume, "liver", "--objects", two), tmp_path / "out.nii.gz"
    answer = run(*asked, "-o", out)
    assert answer.status == 2
    assert 'error: Nothing that was found looks like "liver"' in answer.err
    assert "give a point inside it" in answer.err
    at_point = run(*asked, "--point", "16,20,4", "-o", out)
    assert "give another point inside it" in at_point.err
    assert "a point inside" not in at_point.out + at_point.err
    assert "liver: nothing that was found looks like it (2 in all)." in answer.out
    assert "probability" not in answer.out
    assert not out.exists()
    taken = run(*asked, "-o", out, "--take", "1")
    assert taken.status == 0, taken.err
    assert "liver, by organ classifier" in taken.out
    assert "take one by its rank" not in taken.out


def test_a_point_chooses_the_object_that_holds_it(run: Runner, scan: Scan, two: Path) -> None:
    small = run("find", scan.volume, "spleen", "--objects", two, "--point", "30,4,4", "--json")
    assert small.status == 0, small.err
    document = json.loads(small.out)
    assert document["point"] == [30, 4, 4]
    assert document["objects"] == 1
    assert document["candidates"][0]["organ"]["name"] == "spleen"


def test_a_table_is_printed(run: Runner, scan: Scan, two: Path) -> None:
    answer = run("find", scan.volume, "lien", "--objects", two, "--top", "1")
    assert answer.status == 0
    assert "lien (spleen), by organ classifier" in answer.out
    assert "1 more object is not shown" in " ".join(answer.out.split())
    for heading in ("rank", "slices", "ml", "taken for", "probability"):
        assert heading in answer.out
    slip = run("find", scan.volume, "splen", "--objects", two)
    assert 'warning: "splen" is taken for spleen' in slip.err


def test_free_words_are_asked_of_the_users_own_model(
    run: Runner, scan: Scan, two: Path, tmp_path: Path
) -> None:
    pytest.importorskip("open_clip")
    from tests.segmentation.automatic.clip_folder import plain_clip

    plain_clip(tmp_path / "clip")
    out = tmp_path / "out.nii.gz"
    asked = ("find", scan.volume, "bright lesion", "--objects", two, "--text-model", tmp_path / "clip")
    answer = run(*asked, "-o", out, "--take", "1", "--json")
    assert answer.status == 0, answer.err
    document = json.loads(answer.out)
    assert (document["by"], document["organs"]) == ("clip", [])
    assert sum(one["score"] for one in document["candidates"]) == pytest.approx(1, abs=1e-3)
    assert read_labels(out).organs.name_of(1) == "bright lesion"
    assert set(np.unique(np.asarray(nib.load(out).dataobj))) == {0, 1}


def test_without_labels_the_volume_is_searched(run: Runner, scan: Scan, two: Path) -> None:
    asked = ("find", scan.volume, "liver", "--points-per-side", "4", "--every", "3", "--json")
    answer = run(*asked)
    assert answer.status == 0, answer.err
    document = json.loads(answer.out)
    assert document["objects"] >= 1
    best = document["candidates"][0]
    assert best["first_slice"] <= CENTRE[2] <= best["last_slice"]


def test_refusals(
    run: Runner, scan: Scan, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = tmp_path / "none.nii.gz"
    asked = ("find", scan.volume, "liver", "--objects", two)
    assert "no volume" in run("find", none, "liver").error
    assert "no label file" in run("find", scan.volume, "liver", "--objects", none).error
    unknown = run("find", scan.volume, "brain", "--objects", two).error
    assert "it knows liver, spleen; give one of these, or a CLIP model" in unknown
    assert "input" in run(*asked, "-o", two).error
    assert "-o" in run(*asked, "--take", "1").error
    assert "no candidate 3" in run(*asked, "-o", tmp_path / "o.nii.gz", "--take", "3").error
    assert "outside the volume" in run(*asked, "--point", "400,0,0").error
    assert "three whole numbers" in run(*asked, "--point", "4,here").error
    assert "--text-model" in run(*asked, "--text-architecture", "RN50").error
    assert "no CLIP model" in run(*asked, "--text-model", tmp_path / "none").error

    def missing(*_: object, **__: object) -> None:
        raise ModelError("Free words need open_clip, which is not installed")

    monkeypatch.setattr("napari_sam_med.segmentation.automatic.clip_model.load_clip", missing)
    assert "open_clip" in run(*asked, "--text-model", tmp_path).error
