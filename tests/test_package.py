"""The package as a user gets it: light import, public names, a valid manifest, a complete wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import napari_sam_med

ROOT = Path(__file__).resolve().parents[1]


def test_importing_the_package_loads_nothing_heavy():
    heavy = ("torch", "napari", "qtpy", "PyQt6", "segment_anything")
    code = (
        "import sys, json, napari_sam_med\n"
        "from napari_sam_med import Prompts, SliceView, read_volume, to_rgb\n"
        f"print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_every_public_name_is_there_and_documented():
    for name in napari_sam_med.__all__:
        assert getattr(napari_sam_med, name).__doc__, name
    assert set(napari_sam_med.__all__) <= set(dir(napari_sam_med))
    with pytest.raises(AttributeError):
        napari_sam_med.no_such_name  # noqa: B018 - the access is the test


def test_manifest_is_valid_and_complete():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(ROOT / "napari.yaml")
    manifest.validate_imports()
    contributions = manifest.contributions
    assert [w.display_name for w in contributions.widgets] == ["SAM Med", "Experiments"]
    assert contributions.readers
    assert contributions.writers
    assert contributions.sample_data


def test_top_level_links_point_into_the_package():
    assert (ROOT / "napari.yaml").resolve() == ROOT / "napari_sam_med" / "napari.yaml"
    assert (ROOT / "sample_data").resolve() == ROOT / "napari_sam_med" / "sample_data"


def test_torch_and_torchvision_are_pinned_exactly():
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    assert {"torch", "torchvision", "napari", "segment-anything"} <= {name.lower() for name in pins}


def test_every_dependency_has_a_tested_version():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["gui"]
    wanted += [r for r in project["optional-dependencies"]["dev"] if not r.startswith("napari-sam-med")]
    pinned = {
        canonicalize_name(line.split("==")[0]): line.split("==")[1]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for requirement in map(Requirement, wanted):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


@pytest.mark.slow
def test_a_wheel_carries_weights_sample_and_manifest(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "default"},
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 15e6
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "napari.yaml",
        "py.typed",
        "sam/weights/nano.safetensors",
        "sample_data/abdomen_phantom.nii.gz",
        "sample_data/abdomen_phantom_labels.nii.gz",
    ):
        assert f"napari_sam_med/{needed}" in names


@pytest.mark.slow
def test_a_source_archive_carries_what_make_test_needs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "default"},
    )
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.split("/", 1)[1] for name in packed.getnames() if "/" in name}
    for needed in (
        "Makefile",
        ".ci/run",
        ".ci/install",
        ".ci/system-packages",
        "CONTRIBUTING.md",
        "constraints.txt",
    ):
        assert needed in names
