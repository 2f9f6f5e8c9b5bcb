"""What the widget remembers between sessions: models, device, window, where labels were exported to."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from napari_sam_med.sam.model_registry import user_folder

__all__ = ["Settings"]

_FILE_NAME = "settings.json"
_OF_SCANS = ("export_folder", "work_list_folder", "work_list_outputs")


@dataclass
class Settings:
    """Remembered choices, kept as a small JSON file in the user's folder.

    Attributes
    ----------
    model, device : str
    window : str
        ``auto``, a preset, or ``LOW,HIGH`` is never kept: numbers of one scan mean nothing on the next.
    export_folder : str
        Empty: beside the scan.
    export_suffix : str
        Format of the last export.
    shows_shortcuts : bool
        Whether the list of shortcuts is unfolded.
    video_model : str
        Path of the video model that was used last, offered again but not chosen. Empty: none was.
    keeps_nothing : bool
        Whether neither work nor embeddings nor folders of scans are written to disk.
    journals_gb, embeddings_gb : int
        Limits; work that was not exported does not obey.
    suggests_organs : bool
        Whether it is said which organ a proposed mask looks like.
    embeds_ahead : bool
        Whether slices are embedded before they are prompted.
    scheduler : str
        Address of the other machine that was reached last, offered again but not connected to by itself.
    work_list_folder : str
        Folder of cases that was opened last. Empty: none was.
    work_list_outputs : dict
        ``{folder: where its labels go}``, where that was chosen.
    """

    model: str = "nano"
    device: str = "auto"
    window: str = "auto"
    export_folder: str = ""
    export_suffix: str = ".nii.gz"
    shows_shortcuts: bool = False
    video_model: str = ""
    keeps_nothing: bool = False
    journals_gb: int = 2
    embeddings_gb: int = 8
    suggests_organs: bool = True
    embeds_ahead: bool = True
    scheduler: str = ""
    work_list_folder: str = ""
    work_list_outputs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Settings:
        """Settings of the last session; the defaults where the file is missing or damaged."""
        try:
            stored = json.loads(_path().read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return cls()
        if not isinstance(stored, dict):
            return cls()
        defaults = cls()
        known = {f.name: type(getattr(defaults, f.name)) for f in fields(cls)}
        return cls(**{k: v for k, v in stored.items() if k in known and isinstance(v, known[k])})

    def save(self) -> None:
        """Write the settings; a folder that cannot be written only means that nothing is remembered.

        Who keeps nothing on disk keeps no folder of scans there either.
        """
        content = asdict(self)
        if self.keeps_nothing:
            content = {name: value for name, value in content.items() if name not in _OF_SCANS}
        path = _path()
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
            partial.replace(path)

    def remember(self, **choices: str | bool | int | dict[str, str]) -> None:
        """Change some settings here and in the file, and leave there what other windows chose."""
        stored = Settings.load()
        for name, value in choices.items():
            setattr(self, name, value)
            if not (self.keeps_nothing and name in _OF_SCANS):
                setattr(stored, name, value)
        stored.save()


def _path() -> Path:
    return user_folder("settings") / _FILE_NAME
