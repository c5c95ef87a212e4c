"""The command line: parse, call one library function, print. torch is imported only by commands that compute."""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from softprompt import __version__
from softprompt.errors import ConfigError, SoftpromptError

app = typer.Typer(
    help="Steer a frozen language model with a small learned prompt.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. train.lr=1e-3 seed=2")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


@app.command("run")
def run_command(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe's name, or a path to a YAML file.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/<recipe name>.")] = None,
    seed: Annotated[int | None, typer.Option(help="Short for seed=N.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count parameters, steps and memory.")] = False,
    as_json: Json = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the hub.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Train, decode, score and report: everything that a recipe says."""
    from softprompt.config import load_recipe

    extra = [f"seed={seed}"] if seed is not None else []
    loaded = load_recipe(recipe, [*(overrides or []), *extra])
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if dry_run:
        _print_dry_run(loaded, as_json)
        return
    from softprompt import report
    from softprompt.run import run_recipe

    folder = out or Path("runs") / loaded.name
    results = run_recipe(loaded, folder, resume=resume, quiet=quiet)
    report.write_card(loaded, folder, results)
    if as_json:
        print(report.as_json(loaded, folder, results))
        return
    print(report.as_text(report.table(results)))
    print("\n".join(["", *report.notes(results), f"Run folder: {folder} (start with README.md)"]))


def _print_dry_run(recipe: Any, as_json: bool) -> None:
    from dataclasses import asdict

    from softprompt.plan import dry_run

    plan = dry_run(recipe)
    print(json.dumps(asdict(plan), indent=2) if as_json else "\n".join(plan.lines()))


@app.command("list")
def list_command(
    what: Annotated[str, typer.Argument(help="recipes, tasks, methods or backbones")],
    as_json: Json = False,
) -> None:
    """Show what there is: recipes, tasks, methods, backbones."""
    from softprompt.listing import LISTINGS

    if what not in LISTINGS:
        raise ConfigError(f"cannot list {what!r}. Expected one of: {', '.join(LISTINGS)}.")
    rows = LISTINGS[what]()
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    print("\n".join(f"{row['name'].ljust(width)}  {row['title']}" for row in rows))


@app.command("recipe")
def recipe_command(name: Annotated[str, typer.Argument(help="A bundled recipe's name.")]) -> None:
    """Print a bundled recipe, to be saved and changed: `softprompt recipe e2e > mine.yaml`."""
    from softprompt.recipes import find_recipe

    print(find_recipe(name).read_text(encoding="utf-8"), end="")


@app.command("verify")
def verify_command(folder: Annotated[Path, typer.Argument(help="A prompt or a checkpoint folder.")]) -> None:
    """Check every byte of a prompt or checkpoint folder against its manifest."""
    from softprompt.files import verify_manifest

    verify_manifest(folder)
    print(f"{folder}: whole")


@app.callback(invoke_without_command=True)
def _global(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: every error a user can act on becomes one message and an exit code."""
    try:
        app(standalone_mode=True)
    except SoftpromptError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; what was saved can be resumed with --resume", EXIT_INTERRUPTED)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        advice = " Free some space and use --resume." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        _fail(f"{error.strerror or error}{where}.{advice}", EXIT_FAILED)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
