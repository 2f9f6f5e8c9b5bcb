"""The models on offer: where they come from, how to recognise them, how to prepare images for them.

To add a checkpoint, add one record to `MODELS`. This module loads no torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from napari_sam_med.errors import ModelError

__all__ = [
    "MODELS",
    "ModelRecord",
    "checkpoint_path",
    "get_record",
    "is_available",
    "model_folder",
    "user_folder",
    "with_preprocessing",
]

ALL_PROMPTS = frozenset({"point", "box", "mask"})
NANO_WEIGHTS = Path(__file__).parent / "weights" / "nano.safetensors"
NANO_DIGEST = NANO_WEIGHTS.with_suffix(".sha256")


@dataclass(frozen=True)
class ModelRecord:
    """One model: architecture, checkpoint and preprocessing.

    Attributes
    ----------
    name, title : str
        What is typed, and what people read.
    architecture : str
        ``nano``, ``tiny_vit``, ``vit_b``, ``vit_l`` or ``vit_h``.
    url : str or None
        Where the checkpoint is published; None for the bundled one and for files of the user's own.
    sha256, md5, xxh128 : str or None
        Published digests of the file, hexadecimal; a file is accepted by the strongest that is known.
    size_bytes : int or None
        Size of the file where it is published.
    about_bytes : int or None
        Its size to within a few per cent, where the exact one is not known.
    licence : str
        Licence of the weights.
    input_size : int
        Side of the square that the network sees, pixels.
    preprocessing : str
        ``sam``, ``medsam`` or ``nano``.
    accepts : frozenset of str
        Kinds of prompt that the model was trained for: of ``point``, ``box``, ``mask``.
    stretch : bool
        Whether images are stretched over the whole square instead of being shown with square pixels.
    multimask : bool
        Whether three masks may be asked for.
    homepage, citation, note : str
        For people.
    """

    name: str
    title: str
    architecture: str
    url: str | None = None
    sha256: str | None = None
    md5: str | None = None
    xxh128: str | None = None
    size_bytes: int | None = None
    about_bytes: int | None = None
    licence: str = "unknown"
    input_size: int = 1024
    preprocessing: str = "sam"
    accepts: frozenset[str] = ALL_PROMPTS
    stretch: bool = False
    multimask: bool = True
    homepage: str = ""
    citation: str = ""
    note: str = ""

    @property
    def file_name(self) -> str:
        """Name of the checkpoint in the model folder."""
        suffix = ".safetensors" if self.architecture == "nano" else ".pth"
        return f"{self.name}{suffix}"

    @property
    def digest(self) -> tuple[str, str] | None:
        """Algorithm and value of the strongest digest known, None when there is none."""
        for algorithm in ("sha256", "xxh128", "md5"):
            value = getattr(self, algorithm)
            if value:
                return algorithm, value
        return None


def _bundled_sha256() -> str | None:
    try:
        return NANO_DIGEST.read_text(encoding="ascii").strip()
    except OSError:  # an incomplete installation; `verify` says so
        return None


_SAM_HOME = "https://github.com/facebookresearch/segment-anything"
_SAM_FILES = "https://dl.fbaipublicfiles.com/segment_anything"
_SAM_PAPER = "Kirillov et al., Segment Anything, ICCV 2023"

_RECORDS = (
    ModelRecord(
        name="nano",
        title="nano (bundled)",
        architecture="nano",
        sha256=_bundled_sha256(),
        licence="Apache-2.0",
        input_size=256,
        preprocessing="nano",
        note="Needs no download; trained on invented scenes, outlines of real organs and a few real slices.",
    ),
    ModelRecord(
        name="mobile_sam",
        title="MobileSAM",
        architecture="tiny_vit",
        url="https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        size_bytes=40_728_226,
        licence="Apache-2.0",
        homepage="https://github.com/ChaoningZhang/MobileSAM",
        citation="Zhang et al., Faster Segment Anything, arXiv 2306.14289",
        note="Quick without a GPU; trained on photographs.",
    ),
    ModelRecord(
        name="sam_vit_b",
        title="SAM ViT-B",
        architecture="vit_b",
        url=f"{_SAM_FILES}/sam_vit_b_01ec64.pth",
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        size_bytes=375_042_383,
        licence="Apache-2.0",
        homepage=_SAM_HOME,
        citation=_SAM_PAPER,
        note="The original SAM, smallest; seconds a slice without a GPU.",
    ),
    ModelRecord(
        name="sam_vit_l",
        title="SAM ViT-L",
        architecture="vit_l",
        url=f"{_SAM_FILES}/sam_vit_l_0b3195.pth",
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        size_bytes=1_249_524_607,
        licence="Apache-2.0",
        homepage=_SAM_HOME,
        citation=_SAM_PAPER,
        note="The original SAM, larger; wants a GPU.",
    ),
    ModelRecord(
        name="sam_vit_h",
        title="SAM ViT-H",
        architecture="vit_h",
        url=f"{_SAM_FILES}/sam_vit_h_4b8939.pth",
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        size_bytes=2_564_550_879,
        licence="Apache-2.0",
        homepage=_SAM_HOME,
        citation=_SAM_PAPER,
        note="The original SAM, largest; wants a GPU.",
    ),
    ModelRecord(
        name="medsam",
        title="MedSAM ViT-B",
        architecture="vit_b",
        url="https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        # No SHA-256 is published for this file; two public scripts pin the MD5. To be pinned once a file
        # with that MD5 confirms it: 34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74 (a
        # re-upload's).
        md5="3bb6db55bd0c9ca30b61248bca72f8d6",
        size_bytes=375_049_145,
        licence="Apache-2.0",
        preprocessing="medsam",
        accepts=frozenset({"box"}),
        stretch=True,
        multimask=False,
        homepage="https://github.com/bowang-lab/MedSAM",
        citation="Ma et al., Segment anything in medical images, Nature Communications 2024",
        note="Trained on medical images; takes boxes only.",
    ),
    ModelRecord(
        name="medicosam",
        title="MedicoSAM ViT-B",
        architecture="vit_b",
        url="https://owncloud.gwdg.de/index.php/s/f5Ol4FrjPQWfjUF/download",
        # The authors publish this digest alone (in micro-sam's sources).
        xxh128="40169f1e3c03a4b67bff58249c176d92",
        about_bytes=375_000_000,
        licence="MIT",
        homepage="https://github.com/computational-cell-analytics/medico-sam",
        citation="Archit et al., MedicoSAM, IEEE TMI 2025",
        note="Trained on medical images, with points, boxes and masks.",
    ),
)

MODELS: dict[str, ModelRecord] = {record.name: record for record in _RECORDS}
"""The models by name, in the order in which they are offered."""


def get_record(name_or_path: str | os.PathLike[str]) -> ModelRecord:
    """Record of a model by its name, or of a checkpoint file or folder by its content.

    Raises
    ------
    ModelError
        When it is neither a name nor a path, or the file is no checkpoint that is understood.
    """
    name = os.fspath(name_or_path)
    if name in MODELS:
        return MODELS[name]
    if not Path(name).expanduser().exists():
        raise ModelError(
            f'There is no model "{name}": give one of {", ".join(MODELS)}, or the path of a checkpoint.'
        )
    from napari_sam_med.sam.checkpoints import read_checkpoint  # loads torch

    return read_checkpoint(name).record


def with_preprocessing(record: ModelRecord, preprocessing: str | None) -> ModelRecord:
    """The record with another preprocessing: for files whose own one is not known.

    Parameters
    ----------
    preprocessing : str or None
        ``sam`` or ``medsam``; None keeps the record's.
    """
    if preprocessing is None or preprocessing == record.preprocessing:
        return record
    if preprocessing not in ("sam", "medsam"):
        raise ModelError(f'There is no preprocessing "{preprocessing}": give sam or medsam.')
    if record.architecture == "nano":
        raise ModelError('The model "nano" has its own preprocessing; leave the preprocessing out.')
    is_medsam = preprocessing == "medsam"
    return replace(
        record,
        preprocessing=preprocessing,
        stretch=is_medsam,
        multimask=not is_medsam,
        accepts=frozenset({"box"}) if is_medsam else ALL_PROMPTS,
    )


def user_folder(kind: str) -> Path:
    """Folder of ours for ``models``, ``cache``, ...; NAPARI_SAM_MED_HOME moves them all below another one."""
    home = os.environ.get("NAPARI_SAM_MED_HOME")
    if home:
        return Path(home).expanduser() / kind
    if kind == "cache":
        return platformdirs.user_cache_path("napari-sam-med", appauthor=False)
    return platformdirs.user_data_path("napari-sam-med", appauthor=False) / kind


def model_folder() -> Path:
    """Folder that holds fetched checkpoints; it may not exist yet."""
    return user_folder("models")


def checkpoint_path(name: str) -> Path | None:
    """Where a model's checkpoint lies on this machine, None when it does not.

    A file put into the model folder by hand may have any name; one of the published size is taken for the
    model here, and its digest is checked when it is loaded.
    """
    if name == "nano":
        return NANO_WEIGHTS if NANO_WEIGHTS.is_file() else None
    record = MODELS[name]
    folder = model_folder()
    published_name = (record.url or "").rsplit("/", 1)[-1]
    for file_name in (record.file_name, published_name):
        if file_name and (folder / file_name).is_file():
            return folder / file_name
    if record.size_bytes is None or not folder.is_dir():
        return None
    files = (path for path in sorted(folder.iterdir()) if path.is_file())
    return next((path for path in files if path.stat().st_size == record.size_bytes), None)


def is_available(name: str) -> bool:
    """Whether a model can be loaded without fetching anything."""
    return name in MODELS and checkpoint_path(name) is not None
