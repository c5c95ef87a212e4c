"""What no exception passes: every error of a command becomes one message and an exit code, never a traceback."""

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from softprompt.console import speaks
from softprompt.errors import SoftpromptError, first_line, is_out_of_memory
from softprompt.signals import EXIT_INTERRUPTED

EXIT_FAILED, EXIT_USAGE = 1, 2
TRACEBACK = "SOFTPROMPT_TRACEBACK"
"""Environment variable: set to 1, the traceback of a fault of ours is printed as well."""


def guarded(command: Callable[[], int]) -> int:
    """Run `command` and return its exit code, or that of the error it ended with, whose message goes to stderr."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except SystemExit:
        raise
    except BaseException as error:  # what Rust code panics with is no Exception
        return _answer(error)


def _answer(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError):  # the reader of stdout has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_FAILED
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        return EXIT_USAGE
    message, code = explained(error)
    who = "error" if speaks() else f"error in process {os.environ.get('RANK')}"
    print(f"{who}: {message}", file=sys.stderr, flush=True)
    return code


def explained(error: BaseException) -> tuple[str, int]:
    """The message that a person is meant to read, and the exit code."""
    if isinstance(error, SoftpromptError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return "interrupted; what was saved can be resumed with --resume", EXIT_INTERRUPTED
    if hasattr(error, "format_message"):  # the command line's own
        return _usage(error), EXIT_USAGE
    if is_out_of_memory(error):
        return (
            f"out of memory ({first_line(error)}). Nothing that was saved is lost. Lower train.batch_size or "
            "decode.batch_size, set train.micro_batch=auto, or take a machine with more; then go on with --resume.",
            EXIT_FAILED,
        )
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        advice = " Free some space and use --resume." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return f"{error.strerror or error}{where}.{advice}", EXIT_FAILED
    return _fault(error), EXIT_FAILED


def _usage(error: BaseException) -> str:
    said = str(error.format_message()).strip()  # type: ignore[attr-defined]
    path = getattr(getattr(error, "ctx", None), "command_path", "softprompt")
    return f"{said.removesuffix('.')}. See `{path} --help`."


def _fault(error: BaseException) -> str:
    """What is said of an error that nobody foresaw: a fault of the program."""
    if os.environ.get(TRACEBACK) == "1":
        traceback.print_exception(error)
        kept = "above"
    else:
        kept = _written(error)
    return (
        f"{type(error).__name__}: {first_line(error)} ({_place(error)}). This is a fault of softprompt: expected a "
        f"message that says what to do, got this. Please report it with the command and the traceback {kept}."
    )


def _place(error: BaseException) -> str:
    """The innermost line of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    here = Path(__file__)
    files = [Path(frame.filename) for frame in frames]
    ours = [frame for frame, file in zip(frames, files, strict=True) if here.parent in file.parents and file != here]
    frame = (ours or frames)[-1] if frames else None
    return f"{Path(frame.filename).name}, line {frame.lineno}" if frame else "no line known"


def _written(error: BaseException) -> str:
    try:
        handle, name = tempfile.mkstemp(prefix="softprompt-traceback-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
    except OSError:
        return f"that {TRACEBACK}=1 prints"
    return f"in {name} ({TRACEBACK}=1 prints it)"
