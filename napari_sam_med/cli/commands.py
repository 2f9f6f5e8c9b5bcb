"""The commands and their options; each hands over to a module of its own, which loads what it needs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_sam_med import __version__

__all__ = ["app"]

_ABOUT = """
Promptable segmentation of medical volumes with SAM.

    napari-sam-med [VOLUME] [--labels L] [--model M] [--device D]

opens napari with the plugin docked and the volume loaded. The commands below do the rest without a window.
"""
_HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="napari-sam-med",
    help=_ABOUT,
    epilog="Not for clinical use.",
    subcommand_metavar="[VOLUME] | COMMAND [ARGS]...",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings=_HELP,
)
models = typer.Typer(
    help="List, fetch and verify models.", context_settings=_HELP, invoke_without_command=True
)
cache = typer.Typer(
    help="Show or clear stored embeddings.", context_settings=_HELP, invoke_without_command=True
)
app.add_typer(models, name="models")
app.add_typer(cache, name="cache")


class Precision(StrEnum):
    """Precisions of the network."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Preprocessing(StrEnum):
    """Preprocessings for checkpoints that are not in the registry."""

    sam = "sam"
    medsam = "medsam"


_MODEL = "Name of a model, a checkpoint file, or a folder of a fine-tuned one."
_DEVICE = "auto, cpu, cuda, cuda:N or mps."

Model = Annotated[str, typer.Option("--model", "-m", metavar="M", help=_MODEL)]
Device = Annotated[str, typer.Option("--device", metavar="D", help=_DEVICE)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"napari-sam-med {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and leave."),
    ] = False,
) -> None:
    del version


@app.command("open", hidden=True)
def open_volume(
    volume: Annotated[Path | None, typer.Argument(metavar="[VOLUME]", help="Volume to open.")] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", "-l", metavar="L", help="Labels to go on with.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="M", help=_MODEL)] = None,
    device: Annotated[str | None, typer.Option("--device", metavar="D", help=_DEVICE)] = None,
) -> int:
    """Open napari with the plugin docked and the volume loaded."""
    from napari_sam_med.cli.viewer import open_in_napari

    return open_in_napari(volume, labels, model, device)


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for what is written.")
    ] = Path("demo_output"),
    headless: Annotated[
        bool, typer.Option("--headless", help="Open no window, even with a display.")
    ] = False,
    model: Model = "nano",
    device: Device = "auto",
    as_json: Json = False,
) -> int:
    """Segment the bundled sample: in napari, or without a display into labels, a report and pictures."""
    from napari_sam_med.cli.demo import run_demo

    return run_demo(output, headless=headless or as_json, model=model, device=device, as_json=as_json)


@app.command()
def segment(
    volume: Annotated[Path, typer.Argument(metavar="VOLUME", help="Volume: NIfTI, NRRD or MetaImage.")],
    prompts: Annotated[Path, typer.Option("--prompts", "-p", metavar="P.json", help="Prompts file (JSON).")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="LABELS", help="Labels to write.")],
    propagate: Annotated[
        bool,
        typer.Option(
            "--propagate/--no-propagate", help="Carry masks through the volume, or prompted slices only."
        ),
    ] = True,
    window: Annotated[
        str,
        typer.Option(
            "--window", "-w", metavar="W", help="auto, soft-tissue, lung, bone, brain, liver, or LOW,HIGH."
        ),
    ] = "auto",
    precision: Annotated[
        Precision, typer.Option("--precision", metavar="P", help="auto, fp32 or bf16.")
    ] = Precision.auto,
    preprocessing: Annotated[
        Preprocessing | None,
        typer.Option(
            "--preprocessing", metavar="P", help="sam or medsam, for a checkpoint not in the registry."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", "-r", metavar="R.json", help="Report to write (JSON).")
    ] = None,
    model: Model = "nano",
    device: Device = "auto",
    as_json: Json = False,
) -> int:
    """Segment a volume from a prompts file."""
    from napari_sam_med.cli.segment import SegmentRequest, run_segment

    return run_segment(
        SegmentRequest(
            volume=volume,
            prompts=prompts,
            output=output,
            report=report,
            propagate=propagate,
            window=window,
            model=model,
            device=device,
            precision=precision.value,
            preprocessing=None if preprocessing is None else preprocessing.value,
        ),
        as_json=as_json,
    )


@app.command()
def convert(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Labels to read.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Labels to write.")],
    reference: Annotated[
        Path | None,
        typer.Option("--reference", metavar="VOLUME", help="Volume whose grid the labels are to have."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Convert labels to another format; the extension of OUT decides."""
    from napari_sam_med.cli.convert import run_convert

    return run_convert(labels, output, reference, as_json=as_json)


@models.callback()
def models_root(context: typer.Context, as_json: Json = False) -> int:
    """List, fetch and verify models."""
    from napari_sam_med.cli.housekeeping import list_models

    return list_models(as_json=as_json) if context.invoked_subcommand is None else 0


@models.command("list")
def models_list(as_json: Json = False) -> int:
    """List the models and whether they are on this machine."""
    from napari_sam_med.cli.housekeeping import list_models

    return list_models(as_json=as_json)


@models.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name from the list.")], as_json: Json = False
) -> int:
    """Fetch a model into the model folder and verify it."""
    from napari_sam_med.cli.housekeeping import fetch_model

    return fetch_model(name, as_json=as_json)


@models.command("verify")
def models_verify(
    model: Annotated[
        str, typer.Argument(metavar="NAME_OR_PATH", help="Name from the list, or a file or folder.")
    ],
    as_json: Json = False,
) -> int:
    """Check that a model's file is whole and what it is."""
    from napari_sam_med.cli.housekeeping import verify_model

    return verify_model(model, as_json=as_json)


@cache.callback()
def cache_root(context: typer.Context, as_json: Json = False) -> int:
    """Show or clear stored embeddings."""
    from napari_sam_med.cli.housekeeping import show_cache

    return show_cache(as_json=as_json) if context.invoked_subcommand is None else 0


@cache.command("info")
def cache_info(as_json: Json = False) -> int:
    """Show where embeddings are stored and how much space they take."""
    from napari_sam_med.cli.housekeeping import show_cache

    return show_cache(as_json=as_json)


@cache.command("clear")
def cache_clear(as_json: Json = False) -> int:
    """Remove all stored embeddings; they are computed again when needed."""
    from napari_sam_med.cli.housekeeping import clear_cache

    return clear_cache(as_json=as_json)
