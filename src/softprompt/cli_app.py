"""The command line's application, and the options that several commands have."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from softprompt import __version__

app = typer.Typer(
    help="Steer a frozen language model with a small learned prompt.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class ManyValues(TyperCommand):
    """A command whose `--refs` and `--metrics` take all words up to the next option: `--refs a.txt b.txt`."""

    many = ("--refs", "--metrics")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values, which is how click takes several."""
        spread: list[str] = []
        option = None
        for word in args:
            if word.startswith("-") and word != "-":
                option = word if word in self.many else None
                if option is None:
                    spread.append(word)
            else:
                spread += [word] if option is None else [option, word]
        return super().parse_args(ctx, spread)


Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. train.lr=1e-3 seed=2")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the hub.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


@app.callback(invoke_without_command=True)
def _global(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit
