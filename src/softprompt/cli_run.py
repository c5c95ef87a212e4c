"""Commands that train: `run` and `sweep`. torch is imported only where something is computed."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from softprompt.cli_app import Json, Offline, Overrides, Quiet, app
from softprompt.console import speaks
from softprompt.errors import ConfigError


@app.command("run")
def run_command(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe's name, or a path to a YAML file.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/<recipe name>.")] = None,
    seed: Annotated[int | None, typer.Option(help="Short for seed=N.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    allow_change: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="With --resume: a field that may have changed.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count parameters, steps and memory.")] = False,
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Train, decode, score and report: everything that a recipe says."""
    from softprompt.config import load_recipe

    loaded = load_recipe(recipe, _with_seed(overrides or [], seed))
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if dry_run:
        _print_dry_run(loaded, as_json)
        return
    from softprompt import report
    from softprompt.machine import keep_imports
    from softprompt.run import run_recipe
    from softprompt.table import as_text

    keep_imports()
    folder = out or Path("runs") / loaded.name
    results = run_recipe(loaded, folder, resume=resume, allow_change=allow_change or (), quiet=quiet)
    if not speaks():  # another process of the same job has the results
        return
    if as_json:
        print(report.as_json(loaded, folder, results))
        return
    print(as_text(report.table(results)))
    below = [*report.notes(results), *report.published(loaded, results)]
    print("\n".join(["", *below, f"Run folder: {folder} (start with README.md)"]))


def _with_seed(overrides: list[str], seed: int | None) -> list[str]:
    """The overrides with `--seed` as one of them; ConfigError where they set a seed as well."""
    if seed is None:
        return overrides
    other = next((text for text in overrides if text.partition("=")[0].strip() == "seed"), None)
    if other is not None:
        raise ConfigError(f"expected one seed, got --seed {seed} and {other!r}. Drop one of them.")
    return [*overrides, f"seed={seed}"]


def _print_dry_run(recipe: Any, as_json: bool) -> None:
    from dataclasses import asdict

    from softprompt.plan import dry_run

    plan = dry_run(recipe)
    print(json.dumps(asdict(plan), indent=2) if as_json else "\n".join(plan.lines()))


@app.command("sweep")
def sweep_command(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe's name, or a path to a YAML file.")],
    arguments: Annotated[
        list[str], typer.Argument(metavar="KEY=V1,V2,... [KEY=VALUE]...", help="e.g. method.length=1,5,20 seed=1,2,3")
    ],
    out: Annotated[Path | None, typer.Option(help="Sweep folder. Default: runs/<recipe name>-sweep.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count cells, parameters, steps and memory.")] = False,
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Run a recipe once for each combination of values; report mean and deviation over seeds."""
    from softprompt.grid import load_grid

    grid = load_grid(recipe, arguments)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from softprompt import sweep, sweep_report
    from softprompt.machine import keep_imports
    from softprompt.table import as_text

    keep_imports()
    if dry_run:
        plans = sweep.dry_sweep(grid)
        print(_as_dicts(plans) if as_json else as_text(sweep.dry_table(plans)))
        return
    folder = out or Path("runs") / f"{grid.name}-sweep"
    outcomes = sweep.run_sweep(grid, folder, resume=resume, quiet=quiet)
    if as_json:
        print(sweep_report.as_json(grid, outcomes))
    else:
        print(as_text(sweep_report.table(sweep_report.rows(grid, outcomes))))
        print("\n".join(["", *sweep_report.notes(outcomes), f"Sweep folder: {folder} (start with README.md)"]))
    sweep.require_done(outcomes)


def _as_dicts(named: Any) -> str:
    from dataclasses import asdict

    return json.dumps({name: asdict(one) for name, one in named.items()}, indent=2)
