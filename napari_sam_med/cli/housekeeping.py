"""``models`` and ``cache``: what lies on this machine."""

from __future__ import annotations

from typing import Any

from napari_sam_med.cli.console import print_json, progress_bar, say, show_table
from napari_sam_med.sam.model_registry import (
    MODELS,
    ModelRecord,
    checkpoint_path,
    is_available,
    model_folder,
)
from napari_sam_med.sam.store_folder import StoreFolder, embeddings_folder

__all__ = ["clear_cache", "fetch_model", "list_models", "show_cache", "verify_model"]


def list_models(*, as_json: bool) -> int:
    """All models of the registry."""
    if as_json:
        print_json({"folder": str(model_folder()), "models": [_described(one) for one in MODELS.values()]})
        return 0
    columns = {"name": "left", "here": "left", "size": "right", "licence": "left", "note": "left"}
    rows = [
        [
            record.name,
            "bundled" if record.url is None else ("yes" if is_available(record.name) else "no"),
            _size_of(record),
            record.licence,
            record.note or record.title,
        ]
        for record in MODELS.values()
    ]
    show_table("Models", columns, rows)
    say(f"\nModel folder: {model_folder()}")
    say('Fetch one with "napari-sam-med models fetch NAME".')
    return 0


def fetch_model(name: str, *, as_json: bool) -> int:
    """Fetch one model."""
    from napari_sam_med.sam.fetching import fetch

    with progress_bar(f"Fetching {name}") as on_progress:
        path = fetch(name, progress=on_progress)
    if as_json:
        print_json(_described(MODELS[name]) | {"path": str(path)})
    else:
        say(f"{name} is ready: {path}")
    return 0


def verify_model(name_or_path: str, *, as_json: bool) -> int:
    """Verify one model by name or path."""
    from napari_sam_med.sam.checkpoints import verify

    checkpoint = verify(name_or_path)
    facts = _described(checkpoint.record) | {"path": str(checkpoint.path), "found_sha256": checkpoint.sha256}
    # not by the name: a folder of a fine-tuned model may be called as a model is
    known = MODELS.get(checkpoint.record.name) is checkpoint.record
    if as_json:
        print_json(facts | {"known": known})
    else:
        record = checkpoint.record
        if known:
            say(f"{record.name} is whole (sha256 {checkpoint.sha256}).")
            say(f"  {checkpoint.path}")
        else:
            say(f"{checkpoint.path} can be read: architecture {record.architecture}, in no registry.")
            say(f"  Its preprocessing is taken to be that of {record.preprocessing}.")
            say(f"  sha256 {checkpoint.sha256}")
    return 0


def show_cache(*, as_json: bool) -> int:
    """Where embeddings are stored, and their size."""
    folder = StoreFolder(embeddings_folder())
    size = folder.size_bytes()
    if as_json:
        print_json({"folder": str(folder.path), "bytes": size})
    else:
        say(f"{_size(size)} of embeddings in {folder.path}")
    return 0


def clear_cache(*, as_json: bool) -> int:
    """Remove stored embeddings."""
    folder = StoreFolder(embeddings_folder())
    before = folder.size_bytes()
    folder.clear()
    folder.remove_orphans()
    if as_json:
        print_json({"folder": str(folder.path), "removed_bytes": before})
    else:
        say(f"Removed {_size(before)} of embeddings from {folder.path}")
    return 0


def _described(record: ModelRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "title": record.title,
        "architecture": record.architecture,
        "available": record.name in MODELS and is_available(record.name),
        "url": record.url,
        "sha256": record.sha256,
        "size_bytes": _known_size(record),
        "licence": record.licence,
        "input_size": record.input_size,
        "preprocessing": record.preprocessing,
        "accepts": sorted(record.accepts),
        "homepage": record.homepage,
        "citation": record.citation,
        "note": record.note,
    }


def _known_size(record: ModelRecord) -> int | None:
    """As published, or of the file here."""
    path = checkpoint_path(record.name) if record.size_bytes is None and record.name in MODELS else None
    return record.size_bytes if path is None else path.stat().st_size


def _size_of(record: ModelRecord) -> str:
    size = _known_size(record)
    if size is None and record.about_bytes is not None:
        return f"~{_size(record.about_bytes).replace('.0 ', ' ')}"
    return _size(size)


def _size(n_bytes: int | None) -> str:
    if n_bytes is None:
        return ""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes} B"
