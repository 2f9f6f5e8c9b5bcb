"""The command line: ``napari-sam-med``. Thin: it reads arguments, calls the package, phrases the answer.

Exit status: 0 done; 2 the input or the call is at fault, said in one line ``error: ...`` on standard error;
1 a defect of ours, with its traceback; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from napari_sam_med.cli.console import log_as_warnings, print_error
from napari_sam_med.errors import CancelledError, ImageError, SamMedError

__all__ = ["main"]

OK, DEFECT, USER_ERROR, INTERRUPTED = 0, 1, 2, 130
PROGRAM = "napari-sam-med"
_OPEN = "open"
_GROUP_OPTIONS = ("--help", "-h", "--version")
# a missing or unwritable file, a full disk: the machine's or the caller's fault, not a defect of ours
_THEIR_FAULT = {
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOSPC,
    errno.EROFS,
    errno.EFBIG,
    errno.EDQUOT,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EIO,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process when left out.

    Returns
    -------
    int
        Exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with warnings.catch_warnings(), log_as_warnings():
        if not sys.warnoptions:
            # libraries warn about files in their own words; ours come as `warning: ...` lines
            warnings.simplefilter("ignore")
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    try:
        return _call(arguments)
    except (KeyboardInterrupt, CancelledError) as error:
        more = str(error) if isinstance(error, KeyboardInterrupt) else ""
        print_error(f"interrupted; {more or 'nothing was left half-written.'}")
        return INTERRUPTED
    except SamMedError as error:
        print_error(str(error))
        return USER_ERROR
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        _silence_stdout()
        return OK
    except MemoryError:
        print_error(
            "there is not enough memory for this; close other programs, or use a smaller volume or model."
        )
        return USER_ERROR
    except OSError as error:
        if error.errno not in _THEIR_FAULT:
            return _defect()
        where = f"{error.filename}: " if error.filename else ""
        print_error(f"{where}{error.strerror}; check the path, its permissions and the free space.")
        return USER_ERROR
    except Exception:  # noqa: BLE001  the last resort: whatever is left is a defect of ours
        return _defect()


def _call(arguments: list[str]) -> int:
    import typer

    from napari_sam_med.cli import (  # noqa: F401  they add their commands to those of `app`
        auto_command,
        embed_command,
        evaluate_command,
        find_command,
        finding_commands,
        match_command,
        onnx_export_command,
    )
    from napari_sam_med.cli.training_commands import app

    command: Any = typer.main.get_command(app)
    usage_error = typer.BadParameter.__mro__[2]  # click's ClickException, which typer may carry itself
    try:
        # not command.main(), which turns interruptions and broken pipes into statuses of its own
        with command.make_context(PROGRAM, _with_command(arguments, list(command.commands))) as context:
            status = command.invoke(context)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.Exit as leave:
        return leave.exit_code
    except Exception as error:  # click's own class cannot be named here; all others go on up
        if not isinstance(error, usage_error):
            raise
        print_error(_usage_message(error))
        return USER_ERROR
    return status if isinstance(status, int) else OK


def _with_command(arguments: list[str], commands: Sequence[str]) -> list[str]:
    """Put the unwritten command in front: without one, a volume is opened."""
    first = arguments[0] if arguments else ""
    if first in commands or first in _GROUP_OPTIONS:
        return arguments
    is_word = bool(first) and not first.startswith("-") and not _looks_like_a_path(first)
    if is_word and not os.path.exists(first):
        meant = get_close_matches(first, commands, n=1) or [one for one in commands if one.startswith(first)]
        remedy = f'did you mean "{meant[0]}"?' if meant else f'"{PROGRAM} --help" lists the commands.'
        raise ImageError(f'There is no command or volume "{first}"; {remedy}')
    return [_OPEN, *arguments]


def _looks_like_a_path(argument: str) -> bool:
    """Whether somebody who wrote this meant a file: a command has no ending and lies in no folder."""
    return any(mark in argument for mark in {".", "~", os.sep, os.altsep or os.sep})


def _usage_message(error: Any) -> str:
    context = getattr(error, "ctx", None)
    path = PROGRAM if context is None else str(context.command_path).removesuffix(f" {_OPEN}")
    message = error.format_message().strip().rstrip(".").replace("Value error, ", "")
    return f'{message}; see "{path} --help".'


def _defect() -> int:
    traceback.print_exc()
    print_error(f"this is a defect of {PROGRAM}; please report it with the lines above.")
    return DEFECT


def _silence_stdout() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
