"""Warnings of other libraries in this program's voice: one line each, and those meant for programmers not at all."""

import sys
import warnings
from typing import TYPE_CHECKING, TextIO

from softprompt.console import speaks
from softprompt.signals import Stopped

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_said: set[str] = set()


def one_voice() -> None:
    """From here on a warning is one line on stderr, said once; deprecations and what changes in future are not."""
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")  # PEFT sets it right by itself
    warnings.showwarning = _say
    sys.unraisablehook = _unraisable


def _say(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
    line: str | None = None,
) -> None:  # fmt: skip
    text = " ".join(str(message).split())
    if speaks() and text not in _said:
        _said.add(text)
        print(f"warning: {text}", file=sys.stderr, flush=True)


def _unraisable(args: "UnraisableHookArgs") -> None:
    """A signal that came inside a callback is answered elsewhere (`signals.collected`); the rest is as ever."""
    if not issubclass(args.exc_type, Stopped | KeyboardInterrupt):
        sys.__unraisablehook__(args)
