"""The commands and their options; each hands over to a module of its own, which loads what it needs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from napari_sam_med import __version__
from napari_sam_med.cli.case_options import CropToBody
from napari_sam_med.cli.cluster_options import Scheduler, Workers

__all__ = ["app"]

_ABOUT = """
Promptable segmentation of medical volumes with SAM.

    napari-sam-med [VOLUME] [--labels L] [--model M] [--device D]

opens napari with the plugin docked and the volume loaded, or with the work list of a folder of cases.

The commands below do the rest without a window.
"""
_HELP = {"help_option_names": ["-h", "--help"]}


class _PlainHelp:
    """Help without the marks that typer puts around names: ``<bool>`` at flags, braces at arguments."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]  # a mixin: typer's class comes after it
        if option is not None:
            option.metavar = FLAG
        return option

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]  # type: ignore[misc]  # as above


class _Command(_PlainHelp, TyperCommand):
    """A command that refuses what would be lost silently: click takes the last of an option given twice."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given: list[Any] = list(self.make_parser(ctx).parse_args(args=list(args))[2])
        if any(one.is_eager for one in given):
            return super().parse_args(ctx, args)  # help is asked for
        for option in {id(one): one for one in given if _has_one_value(one)}.values():
            times = sum(one is option for one in given)
            if times > 1:
                reason = f"given {times} times, and one is meant: leave the others out"
                raise typer.BadParameter(reason, ctx=ctx, param=option)
        return super().parse_args(ctx, args)


def _has_one_value(parameter: Any) -> bool:
    """Whether the second of two would replace the first; a flag without an opposite says the same twice."""
    if parameter.param_type_name != "option" or parameter.multiple:
        return False
    return not parameter.is_flag or bool(parameter.secondary_opts)


class _Group(_PlainHelp, TyperGroup):
    pass


app = typer.Typer(
    cls=_Group,
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
    cls=_Group, help="List, fetch and verify models.", context_settings=_HELP, invoke_without_command=True
)
cache = typer.Typer(
    cls=_Group, help="Show or clear stored embeddings.", context_settings=_HELP, invoke_without_command=True
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

FLAG = ""
"""Metavar of an option that takes no value; typer would write ``<bool>``."""

Model = Annotated[str, typer.Option("--model", "-m", metavar="M", help=_MODEL)]
Device = Annotated[str, typer.Option("--device", metavar="D", help=_DEVICE)]
Labels = Annotated[Path | None, typer.Option("--labels", "-l", metavar="L", help="Labels to go on with.")]
ViewerModel = Annotated[str | None, typer.Option("--model", "-m", metavar="M", help=_MODEL)]
ViewerDevice = Annotated[str | None, typer.Option("--device", metavar="D", help=_DEVICE)]
Json = Annotated[bool, typer.Option("--json", metavar=FLAG, help="Print one JSON object and nothing else.")]


def _wants_json(context: typer.Context, as_json: bool) -> bool:
    """Whether the option stands at the command or before it, at its group."""
    return as_json or (context.parent is not None and bool(context.parent.params.get("as_json")))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"napari-sam-med {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            metavar=FLAG,
            help="Show the version and leave.",
        ),
    ] = False,
    labels: Labels = None,
    model: ViewerModel = None,
    device: ViewerDevice = None,
) -> None:
    # the options of `open` stand here to be in the help alone: arguments without a command go to `open`
    del version, labels, model, device


@app.command("open", cls=_Command, hidden=True)
def open_volume(
    volume: Annotated[Path | None, typer.Argument(metavar="VOLUME", help="Volume to open.")] = None,
    labels: Labels = None,
    model: ViewerModel = None,
    device: ViewerDevice = None,
) -> int:
    """Open napari with the plugin docked and the volume loaded."""
    from napari_sam_med.cli.viewer import open_in_napari

    return open_in_napari(volume, labels, model, device)


@app.command(cls=_Command)
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for what is written.")
    ] = Path("demo_output"),
    headless: Annotated[
        bool, typer.Option("--headless", metavar=FLAG, help="Open no window, even with a display.")
    ] = False,
    model: Model = "nano",
    device: Device = "auto",
    as_json: Json = False,
) -> int:
    """Segment the bundled sample: in napari, or without a display into labels, a report and pictures."""
    from napari_sam_med.cli.demo import run_demo

    return run_demo(output, headless=headless or as_json, model=model, device=device, as_json=as_json)


@app.command(cls=_Command)
def segment(
    volume: Annotated[
        Path | None, typer.Argument(metavar="VOLUME", help="Volume: NIfTI, NRRD, MetaImage or DICOM.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", "-p", metavar="P.json", help="Prompts file (JSON).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="LABELS", help="Labels to write.")
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option("--cases", "-c", metavar="C.csv", help='Or many: CSV with "image,prompts,output".'),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", metavar=FLAG, help="With --cases: leave out those whose labels are there."),
    ] = False,
    propagate: Annotated[
        bool,
        typer.Option(
            "--propagate/--no-propagate",
            metavar=FLAG,
            help="Carry masks through the volume, or prompted slices only.",
        ),
    ] = True,
    window: Annotated[
        str,
        typer.Option(
            "--window", "-w", metavar="W", help="auto, soft-tissue, lung, bone, brain, liver, or LOW,HIGH."
        ),
    ] = "auto",
    crop_to_body: CropToBody = False,
    precision: Annotated[
        Precision, typer.Option("--precision", metavar="P", help="auto, fp32 or bf16.")
    ] = Precision.auto,
    preprocessing: Annotated[
        Preprocessing | None,
        typer.Option(
            "--preprocessing", metavar="P", help="sam or medsam, for a checkpoint not in the registry."
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            "-e",
            metavar="E",
            help="slicewise (with the model), or the path of a SAM 2 video model: its .pt file or folder.",
        ),
    ] = "slicewise",
    report: Annotated[
        Path | None, typer.Option("--report", "-r", metavar="R.json", help="Report to write (JSON).")
    ] = None,
    model: Model = "nano",
    device: Device = "auto",
    scheduler: Scheduler = "",
    workers: Workers = None,
    as_json: Json = False,
) -> int:
    """Segment a volume, or many, from prompts files."""
    from napari_sam_med.cli.segment import SegmentRequest, run_segment
    from napari_sam_med.cli.segment_cases import SegmentCases, run_segment_cases

    many = cases is not None
    if many and (volume or prompts or output):
        raise typer.BadParameter("--cases names all volumes, prompts and outputs: leave out the others")
    if not many and (resume or scheduler or workers is not None):
        raise typer.BadParameter("--resume, --scheduler and --workers are for --cases")
    for name, given in (("VOLUME", volume), ("--prompts", prompts), ("--output", output)):
        if given is None and not many:
            raise typer.BadParameter(f"Missing argument {name}, or --cases in its place")
    if crop_to_body and engine != "slicewise":
        raise typer.BadParameter("--crop-to-body is for the slicewise engine: leave it out, or --engine")
    request = SegmentRequest(
        volume=volume or Path(),
        prompts=prompts or Path(),
        output=output or Path(),
        report=None if many else report,
        propagate=propagate,
        window=window,
        crop_to_body=crop_to_body,
        model=model,
        device=device,
        precision=precision.value,
        preprocessing=None if preprocessing is None else preprocessing.value,
        engine=engine,
    )
    if cases is None:
        return run_segment(request, as_json=as_json)
    shared = SegmentCases(cases, request, report, resume, scheduler, workers)
    return run_segment_cases(shared, as_json=as_json)


@app.command(cls=_Command)
def classify(
    volume: Annotated[
        Path, typer.Argument(metavar="VOLUME", help="Volume: NIfTI, NRRD, MetaImage or DICOM.")
    ],
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="Its labels; names and numbers play no part.")
    ],
    classifier: Annotated[
        Path | None,
        typer.Option(
            "--classifier",
            "-c",
            metavar="C",
            help="Folder of train-classifier; the bundled one when left out.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT.json", help="Result to write (JSON).")
    ] = None,
    each_once: Annotated[
        bool,
        typer.Option(
            "--each-once/--repeats", metavar=FLAG, help="No organ twice, or as often as it is found."
        ),
    ] = True,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="M", help="The model that the classifier was trained on: nano."
        ),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> int:
    """Name the organ of each label."""
    from napari_sam_med.cli.classify import ClassifyRequest, run_classify

    request = ClassifyRequest(volume, labels, classifier, output, model, device, each_once)
    return run_classify(request, as_json=as_json)


@app.command("train-classifier", cls=_Command)
def train_classifier(
    cases: Annotated[
        Path, typer.Option("--cases", "-c", metavar="C.csv", help='CSV with columns "image,labels".')
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write.")],
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe", "-r", metavar="NAME", help="late-fusion, trees, or btcv-class (SAM models)."
        ),
    ] = "late-fusion",
    names: Annotated[
        str,
        typer.Option(
            "--names", metavar="NAMES", help='Organ names: btcv, or JSON {"1": "spleen"}, or its file.'
        ),
    ] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of prompts and weights.")] = 0,
    model: Model = "nano",
    device: Device = "auto",
    as_json: Json = False,
) -> int:
    """Train a classifier of organs on your own labelled volumes."""
    from napari_sam_med.cli.train_classifier import TrainClassifierRequest, run_train_classifier

    request = TrainClassifierRequest(cases, output, recipe, names, seed, model, device)
    return run_train_classifier(request, as_json=as_json)


@app.command(cls=_Command)
def convert(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Labels to read.")],
    output: Annotated[
        list[Path],
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="File to write; may be given again. The words case, organ, label and ending are filled in "
            "where they stand in braces, organ and label once for each organ.",
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option("--reference", metavar="VOLUME", help="Volume whose grid the labels are to have."),
    ] = None,
    names: Annotated[
        str,
        typer.Option(
            "--names",
            metavar="NAMES",
            help="Organ names: btcv, JSON as in evaluate, or a file of it, of ITK-SNAP or of FreeSurfer.",
        ),
    ] = "",
    endings: Annotated[
        str, typer.Option("--endings", metavar="E,...", help="What ending stands for: nii.gz, stl, ...")
    ] = "",
    as_json: Json = False,
) -> int:
    """Convert labels to other formats; the extension of OUT decides."""
    from napari_sam_med.cli.convert import ConvertRequest, run_convert

    request = ConvertRequest(
        labels=labels,
        outputs=tuple(output),
        reference=reference,
        names=names,
        endings=tuple(part.strip() for part in endings.split(",") if part.strip()),
    )
    return run_convert(request, as_json=as_json)


@models.callback()
def models_root(context: typer.Context, as_json: Json = False) -> int:
    """List, fetch and verify models."""
    from napari_sam_med.cli.housekeeping import list_models

    return list_models(as_json=as_json) if context.invoked_subcommand is None else 0


@models.command("list", cls=_Command)
def models_list(context: typer.Context, as_json: Json = False) -> int:
    """List the models and whether they are on this machine."""
    from napari_sam_med.cli.housekeeping import list_models

    return list_models(as_json=_wants_json(context, as_json))


@models.command("fetch", cls=_Command)
def models_fetch(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name from the list.")],
    as_json: Json = False,
) -> int:
    """Fetch a model into the model folder and verify it."""
    from napari_sam_med.cli.housekeeping import fetch_model

    return fetch_model(name, as_json=_wants_json(context, as_json))


@models.command("verify", cls=_Command)
def models_verify(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="NAME_OR_PATH", help="Name from the list, or a file or folder.")
    ],
    as_json: Json = False,
) -> int:
    """Check that a model's file is whole and what it is."""
    from napari_sam_med.cli.housekeeping import verify_model

    return verify_model(model, as_json=_wants_json(context, as_json))


@cache.callback()
def cache_root(context: typer.Context, as_json: Json = False) -> int:
    """Show or clear stored embeddings."""
    from napari_sam_med.cli.housekeeping import show_cache

    return show_cache(as_json=as_json) if context.invoked_subcommand is None else 0


@cache.command("info", cls=_Command)
def cache_info(context: typer.Context, as_json: Json = False) -> int:
    """Show where embeddings are stored and how much space they take."""
    from napari_sam_med.cli.housekeeping import show_cache

    return show_cache(as_json=_wants_json(context, as_json))


@cache.command("clear", cls=_Command)
def cache_clear(context: typer.Context, as_json: Json = False) -> int:
    """Remove all stored embeddings; they are computed again when needed."""
    from napari_sam_med.cli.housekeeping import clear_cache

    return clear_cache(as_json=_wants_json(context, as_json))
