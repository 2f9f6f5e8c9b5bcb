"""What the command line says and where: results on standard output, all else on standard error."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from napari_sam_med.progress import Progress

__all__ = [
    "log_as_warnings",
    "note",
    "print_error",
    "print_json",
    "progress_bar",
    "say",
    "say_faintly",
    "show_table",
    "warn",
]

_REMARK_WIDTH = 98


def print_error(message: str) -> None:
    """One line ``error: ...`` on standard error."""
    _one_line("error", message)


def note(what: str, text: str) -> None:
    """One line ``WHAT: TEXT`` on standard error, for who watches."""
    _one_line(what, text)


def warn(messages: Iterable[str]) -> list[str]:
    """One line ``warning: ...`` a message on standard error, each once; returns what was said."""
    said = list(dict.fromkeys(messages))
    for message in said:
        _one_line("warning", message)
    return said


class _WarningLines(logging.Handler):
    """Log records as `warn` prints them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._said:
            self._said.add(message)
            warn([message])


@contextmanager
def log_as_warnings() -> Iterator[None]:
    """During the block, what this package logs as a warning is one line ``warning: ...``, each once."""
    log, lines = logging.getLogger("napari_sam_med"), _WarningLines()
    log.addHandler(lines)
    try:
        yield
    finally:
        log.removeHandler(lines)


def _one_line(kind: str, message: str) -> None:
    if sys.stderr is not None:  # closed by the caller: `print` would then take standard output
        print(f"{kind}: {' '.join(message.split())}", file=sys.stderr, flush=True)  # noqa: T201  printing is its work


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON object on standard output, in ASCII: no encoding of a terminal or pipe can spoil it."""
    print(json.dumps(document, indent=2, allow_nan=False), flush=True)  # noqa: T201  printing is its work


def say(text: str = "") -> None:
    """A plain line on standard output; what its encoding lacks is escaped, as standard error does."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)  # noqa: T201  printing is its work


def say_faintly(text: str, indent: int = 0) -> None:
    """A remark on standard output, dimmed on a terminal; its further lines start `indent` columns in."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    width = min(_REMARK_WIDTH, shutil.get_terminal_size().columns) if is_terminal else _REMARK_WIDTH
    for line in textwrap.wrap(text, width, subsequent_indent=" " * indent) or [""]:
        say(f"\x1b[2m{line}\x1b[0m" if is_terminal and line and "NO_COLOR" not in os.environ else line)


def show_table(title: str, columns: Mapping[str, str], rows: Iterable[Iterable[str]]) -> None:
    """A table on standard output.

    Parameters
    ----------
    title : str
    columns : mapping
        Heading to justification, ``left`` or ``right``.
    rows : iterable of iterables of str
        Cells, taken as they are.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    cells = [[*row] for row in rows]
    for number, (heading, justify) in enumerate(columns.items()):
        # only words may wrap: a number or a name cut in two cannot be read or copied
        wraps = heading in ("note", "licence", "title")
        width = None if wraps else max(cell_len(text) for text in (heading, *(row[number] for row in cells)))
        table.add_column(heading, justify="right" if justify == "right" else "left", min_width=width)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(file=sys.stdout, highlight=False)
    needed = Measurement.get(console, console.options.update(max_width=10_000), table).minimum
    if not console.is_terminal:
        console.width = max(console.width, needed)
    elif needed > console.width:  # a name in two parts is better than numbers without their last digits
        for column in table.columns:
            if column.justify == "left":
                column.min_width, column.overflow = None, "fold"
    with console.capture() as drawn:  # printed by us: rich would end the program when the reader leaves
        console.print(table)
    say("\n".join(line.rstrip() for line in drawn.get().rstrip().splitlines()))


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[Progress], None]]:
    """A bar on standard error during the block, if that is a terminal; yields what to call with progress."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Bars(*columns, console=Console(file=sys.stderr), transient=True) as bars:
        task = bars.add_task(what, total=None)

        def show(progress: Progress) -> None:
            text = f"{what} ({progress.text})" if progress.text else what
            bars.update(task, completed=progress.done, total=progress.total, description=text)

        yield show
