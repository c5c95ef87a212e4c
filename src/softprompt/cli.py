"""The command: nothing is imported before signals are answered, and no exception passes `main` but an exit code.

The commands themselves are in `cli_run`, `cli_show` and `cli_scoring`; `app` is all of them.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

from softprompt.signals import leaving

if TYPE_CHECKING:
    from softprompt.cli_app import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point: every error a user can act on becomes one message and an exit code."""
    with leaving("stopped; nothing that was kept is lost. Run the same command again, with --resume where it has one."):
        from softprompt.guard import guarded

        sys.exit(guarded(_command))


def _command() -> int:
    from softprompt.quiet import one_voice

    one_voice()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    answer = _app()(standalone_mode=False, prog_name="softprompt")
    return answer if isinstance(answer, int) else 0


def _app() -> Any:
    """All commands, in the order of `--help`."""
    from softprompt import cli_app, cli_run, cli_scoring, cli_show

    assert cli_run and cli_show and cli_scoring
    return cli_app.app


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module 'softprompt.cli' has no attribute {name!r}")
    return _app()
