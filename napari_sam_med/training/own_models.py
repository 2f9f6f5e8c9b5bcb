"""The user's own training: the list of cases, plans of runs, and the models that came of them.

Nothing here imports torch, so that lists and tables can be shown at once.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock

from napari_sam_med.errors import ExportError
from napari_sam_med.evaluation.cases import SPLITS, Case
from napari_sam_med.sam.model_registry import user_folder
from napari_sam_med.volume.replacement import Replacement

__all__ = [
    "Plan",
    "RunLock",
    "case_list_path",
    "clear_learning",
    "clear_models",
    "discard_run",
    "finished_models",
    "forget_plan",
    "free_name",
    "is_done",
    "learning_bytes",
    "model_folder",
    "models_bytes",
    "models_folder",
    "read_card",
    "read_case_list",
    "read_curves",
    "read_plan",
    "score_rows",
    "state_folder",
    "training_labels_folder",
    "unfinished_plan",
    "write_case_list",
    "write_plan",
]

_CARD, _PLAN, _CASES, _CURVES = "card.json", "plan.json", "cases.csv", "curves.csv"
_STATE, _LOCK = "training", "lock"
_COLUMNS = ("image", "labels", "split", "names", "name", "patient")
_NOT_IN_NAMES = '<>:"/\\|?*'


@dataclass(frozen=True)
class Plan:
    """A run of fine-tuning as a user asks for it; the same plan goes on where the run was stopped.

    Attributes
    ----------
    cases : tuple of Case
    output : Path
        Folder of the new model.
    model, device : str
        As for `load_predictor`.
    recipe : str
        Name of a preset.
    epochs, views : int or None
        Instead of the recipe's.
    """

    cases: tuple[Case, ...]
    output: Path
    model: str = "nano"
    device: str = "auto"
    recipe: str = "default"
    epochs: int | None = None
    views: int | None = None


# where things lie


def case_list_path() -> Path:
    """The list of training cases that is remembered."""
    return user_folder("training") / _CASES


def training_labels_folder() -> Path:
    """Where labels go that are in no file yet when they are to be learned from."""
    return user_folder("training") / "labels"


def model_folder(name: str) -> Path:
    """Folder of an own model.

    Raises
    ------
    ExportError
        When the name cannot be one of a folder.
    """
    name = name.strip()
    if not name or name.startswith(".") or any(sign in _NOT_IN_NAMES or ord(sign) < 32 for sign in name):
        raise ExportError(
            f'A model cannot be called "{name}": its folder bears the name; use letters, digits, - and _.'
        )
    return models_folder() / name


def models_folder() -> Path:
    """Folder of all own models, and of the runs that were stopped."""
    return user_folder("own_models")


def state_folder(output: Path) -> Path:
    """Where checkpoint and embeddings of a run lie that is not finished, in the folder of its model."""
    return output / _STATE


def _folders() -> list[Path]:
    try:
        return sorted(path for path in models_folder().iterdir() if path.is_dir())
    except OSError:
        return []


def is_done(folder: Path) -> bool:
    """Whether a folder holds a model."""
    return any(folder.glob("[!.]*.safetensors"))


def finished_models() -> list[Path]:
    """Folders of the user's own models, by name."""
    return [folder for folder in _folders() if is_done(folder)]


def free_name(base: str) -> str:
    """A name for another model that no folder has: ``my BASE``, then numbered from 2."""
    taken = {folder.name for folder in _folders()}
    name, number = f"my {base}", 1
    while name in taken:
        number += 1
        name = f"my {base} {number}"
    return name


# the list of cases


def read_case_list(path: Path) -> list[Case]:
    """Cases of a list, also those whose files are gone: the drive may be back tomorrow.

    A list that is missing or damaged is empty.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [
                {key: value or "" for key, value in row.items() if isinstance(key, str)}
                for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    return [_case(row, path.parent) for row in rows if row.get("image") and row.get("labels")]


def _case(row: dict[str, str], folder: Path) -> Case:
    split = row.get("split", "")
    image = folder / row["image"]
    return Case(
        name=row.get("name") or image.name,
        image=row["image"],
        image_path=image,
        labels_path=folder / row["labels"],
        names=row.get("names", ""),
        split=split if split in SPLITS else "",
        patient=row.get("patient") or row["image"],
    )


def write_case_list(path: Path, cases: Sequence[Case]) -> None:
    """Write cases as a cases file with absolute paths, which the commands take as well.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for case in cases:
        image, labels = (str(place.absolute()) for place in (case.image_path, case.labels_path))
        writer.writerow((image, labels, case.split, case.names, case.name, case.patient))
    _write_text(path, text.getvalue())


# plans


def write_plan(plan: Plan) -> None:
    """Keep what a run was asked for in its folder, so that it can be gone on with.

    Raises
    ------
    ExportError
        When the folder cannot be written.
    """
    document = {
        "version": 1,
        "model": plan.model,
        "device": plan.device,
        "recipe": plan.recipe,
        "epochs": plan.epochs,
        "views": plan.views,
    }
    try:
        write_case_list(plan.output / _CASES, plan.cases)
        _write_text(plan.output / _PLAN, json.dumps(document, indent=1) + "\n")
    except OSError as error:
        raise ExportError(
            f"The folder {plan.output} cannot be written: {error.strerror}; make room for it."
        ) from error


def read_plan(folder: Path) -> Plan | None:
    """The plan that `write_plan` left in a folder; None where there is none."""
    try:
        document = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
        values = {name: document[name] for name in ("model", "device", "recipe", "epochs", "views")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    cases = tuple(read_case_list(folder / _CASES))
    return Plan(cases, folder, **values) if cases else None


def unfinished_plan() -> Plan | None:
    """The plan of the run that was stopped last; None where there is none."""
    stopped = [folder for folder in _folders() if (folder / _PLAN).is_file() and not is_done(folder)]
    plans = (read_plan(folder) for folder in sorted(stopped, key=_changed, reverse=True))
    return next((plan for plan in plans if plan is not None), None)


def _changed(folder: Path) -> float:
    try:
        return (folder / _PLAN).stat().st_mtime
    except OSError:
        return 0.0


class RunLock:
    """Held while a model is trained in a folder; the system lets go of it when the process dies.

    Parameters
    ----------
    output : Path
        Folder of the new model.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._lock = filelock.FileLock(state_folder(output) / _LOCK, thread_local=False)

    def check(self) -> None:
        """Refuse a folder in which a model is trained already; nothing is made in it.

        Raises
        ------
        ExportError
        """
        if Path(self._lock.lock_file).exists():
            with self:
                pass

    def __enter__(self) -> RunLock:
        try:
            state_folder(self._output).mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except (filelock.Timeout, RuntimeError):  # RuntimeError: held by this thread, as filelock sees it
            raise ExportError(
                f"A model is being trained in {self._output} already, by another window or command; wait for "
                "it, stop it, or choose another folder."
            ) from None
        except OSError as error:
            raise ExportError(
                f"The folder {self._output} cannot be written: {error.strerror}; choose another one."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


def discard_run(folder: Path) -> None:
    """Remove a run that was stopped, with its checkpoint and its embeddings; never a finished model.

    Raises
    ------
    ExportError
        When the folder holds a model, or one is being trained in it.
    """
    RunLock(folder).check()
    if is_done(folder):
        raise ExportError(f"{folder} holds a finished model, which is not discarded; remove it by hand.")
    shutil.rmtree(folder, ignore_errors=True)


# what lies on disk of all this


def models_bytes() -> int:
    """Bytes of finished models."""
    return sum(_bytes_of(folder) - _bytes_of(state_folder(folder)) for folder in finished_models())


def learning_bytes() -> int:
    """Bytes of runs that were stopped, of the list of volumes and of copies of their labels."""
    return _bytes_of(models_folder()) - models_bytes() + _bytes_of(user_folder("training"))


def clear_models() -> tuple[list[Path], int]:
    """Remove all finished models, except where one is being trained; answers their folders and bytes."""
    before = models_bytes()
    gone = [folder for folder in finished_models() if _is_removed(folder)]
    return gone, before - models_bytes()


def clear_learning() -> int:
    """Remove runs that were stopped, the list of volumes and copies of labels; never a model.

    A run that is under way stays. Answers bytes.
    """
    before = learning_bytes()
    for folder in _folders():
        _is_removed(state_folder(folder) if is_done(folder) else folder)
    shutil.rmtree(user_folder("training"), ignore_errors=True)
    return before - learning_bytes()


def _is_removed(folder: Path) -> bool:
    """Remove a folder in whose model no run is under way; False where it stays."""
    try:
        RunLock(folder.parent if folder.name == _STATE else folder).check()
    except ExportError:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _bytes_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # another process removed it
            total += path.stat().st_size if path.is_file() else 0
    return total


def forget_plan(folder: Path) -> None:
    """Take the plan out of the folder of a model that is finished: its card says what was done."""
    for name in (_PLAN, _CASES):
        (folder / name).unlink(missing_ok=True)


# cards


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a fine-tuned model; empty where there is none."""
    try:
        card: dict[str, Any] = json.loads((folder / _CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card


def read_curves(folder: Path) -> list[tuple[int, float, float]]:
    """Epoch, Dice on what is learned from and on what is held out; NaN where nothing was measured."""
    try:
        with (folder / _CURVES).open(newline="", encoding="utf-8") as file:
            return [
                (int(row["epoch"]), _number(row["train_dice"]), _number(row["held_out_dice"]))
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _number(text: str) -> float:
    return float(text or "nan")


def score_rows(card: dict[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Rows of the table before and after: prompt, organ, Dice before, after, difference."""
    before, after = card["scores"]["before"], card["scores"]["after"]
    for strategy, means in before.items():
        pairs = {"mean of organs": (means["mdice_organs"], after[strategy]["mdice_organs"])} | {
            organ: (value, after[strategy]["organs"][organ]) for organ, value in means["organs"].items()
        }
        for number, (organ, (old, new)) in enumerate(pairs.items()):
            yield strategy if not number else "", organ, f"{old:.3f}", f"{new:.3f}", f"{new - old:+.3f}"


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with Replacement(path, path.suffix) as file:
        file.temporary.write_text(text, encoding="utf-8")
        file.put_in_place()
