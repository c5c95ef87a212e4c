"""A sweep: every cell of a grid as an ordinary run in a folder of its own, and one report over all.

It may be stopped anywhere. What is done is read off the run folders, so that no record of it can be wrong.
"""

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softprompt import data
from softprompt.config import Recipe, dump_yaml, to_dict
from softprompt.console import say
from softprompt.errors import CheckpointError, ConfigError, Interrupted, SoftpromptError
from softprompt.folder import RunFolder
from softprompt.grid import Cell, Grid, in_cell
from softprompt.identity import Made
from softprompt.lock import locked
from softprompt.places import CARD, RECIPE, require_free
from softprompt.plain import read_json, require_folder, write_text_atomic
from softprompt.plan import DryRun, dry_run
from softprompt.results import ArmResult, read_result
from softprompt.resume import unlike
from softprompt.run import arm_order, run_recipe
from softprompt.score_recipe import chosen_suite
from softprompt.sealed import read_sealed_text
from softprompt.signals import stoppable
from softprompt.sweep_report import Outcome, write_report

PLAN, CELLS = "plan.json", "cells"


def run_sweep(grid: Grid, folder: str | Path, *, resume: bool = False, quiet: bool = False) -> list[Outcome]:
    """Run every cell of `grid` in `folder`/cells and write the report; a cell that fails does not stop the others.

    With `resume`, finished cells are read back, one that was stopped goes on from its newest checkpoint, and one that
    failed is tried again.

    Raises:
        ConfigError: the folder is in use and `resume` is off; another process is at it; it is another sweep's, or
            recipe or data are not as they were; a cell has no such suite or data (names the cell).
        Interrupted: SIGTERM or SIGINT came; everything up to there can be resumed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "softprompt sweep: expected to be started once, got a job of several processes. "
            "Start it without torchrun, or run its cells one by one with torchrun -m softprompt run."
        )
    folder = Path(folder)
    with stoppable("stopped; finished cells are kept. Run the same command with --resume to go on."):
        require_free(folder, resume)
        plan = _plan(grid)
        with locked(folder):
            require_free(folder, resume)  # another process may have been faster
            _begin(plan, folder)
            require_folder(folder / CELLS)
            outcomes = []
            for number, cell in enumerate(grid.cells, 1):
                if not quiet:
                    say(f"cell {number} of {len(grid.cells)}: {cell.name}")
                outcomes.append(_outcome(cell, folder / CELLS / cell.name, quiet))
            write_report(grid, outcomes, folder)
            return outcomes


def _outcome(cell: Cell, place: Path, quiet: bool) -> Outcome:
    """A finished cell read back, or the cell run to its end."""
    try:
        require_folder(place)
        results = _finished(cell.recipe, place)
        if results is None:
            results = run_recipe(cell.recipe, place, resume=True, quiet=quiet)
        return Outcome(cell, results)
    except Interrupted:
        raise
    except (SoftpromptError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # the next cell would fare no better
        reason = str(error) if isinstance(error, SoftpromptError) else f"{error.strerror or error} ({error.filename})."
        say(f"cell {cell.name} failed: {reason}")
        return Outcome(cell, failed=reason)


def _finished(recipe: Recipe, place: Path) -> list[ArmResult] | None:
    """The results of a finished run of this very recipe, in the order of its table: its card is written last.

    None where any of it is missing or damaged, for the run to say so and make it again.
    """
    arms = {arm: recipe.arm(arm) for arm in arm_order(recipe)}
    kept = RunFolder(place, made={arm: Made.of(own, None) for arm, own in arms.items()})
    try:
        read_sealed_text(place / CARD)
        text, _ = read_sealed_text(place / RECIPE)
        if not text.startswith(dump_yaml(recipe)):
            return None
        results = []
        for arm, own in arms.items():
            for task, part in own.parts().items():
                kept.require_kept(arm, task, part.method.name)
                results.append(read_result(kept.place(arm, task), arm, task, kept.expected(arm), of_old=kept.of_old()))
    except (FileNotFoundError, CheckpointError):
        return None
    return results


def require_done(outcomes: Sequence[Outcome]) -> None:
    """Raise `SoftpromptError` where cells failed."""
    failed = [one for one in outcomes if one.failed]
    if failed:
        raise SoftpromptError(
            f"{len(failed)} of {len(outcomes)} cells failed, the first, {failed[0].cell.name}: {failed[0].failed} "
            "Run the same command with --resume to try them again; the others are done."
        )


def dry_sweep(grid: Grid) -> dict[str, DryRun]:
    """What each cell would do, by its name. Errors as `dry_run`."""
    plans = {}
    for cell in grid.cells:
        with in_cell(cell.name):
            plans[cell.name] = dry_run(cell.recipe)
    return plans


def dry_table(plans: Mapping[str, DryRun]) -> list[list[str]]:
    """Header and one row a cell."""
    body = [
        [
            name,
            f"{plan.trained:,}",
            f"{plan.stored:,}",
            "unknown" if plan.steps is None else f"{plan.steps:,}",
            f"{plan.memory['total'] / 2**30:.2f} GiB",
        ]
        for name, plan in plans.items()
    ]
    return [["cell", "trained", "stored", "steps", "memory estimate"], *body]


def _plan(grid: Grid) -> dict[str, Any]:
    """All that the results follow from: axes, cells with their resolved recipes, checksums of the data.

    Raises:
        ConfigError: a cell has no such suite, metric or data file.
    """
    known: dict[str, dict[str, str]] = {}
    for cell in grid.cells:
        with in_cell(cell.name):
            for arm in arm_order(cell.recipe):
                for part in cell.recipe.arm(arm).parts().values():
                    chosen_suite(part)
                    read = part.data.model_dump_json()
                    known[read] = known.get(read) or {name: digest for _, name, digest in data.identity(part.data)}
    return {
        "axes": {axis.key: list(axis.values) for axis in grid.axes},
        "cells": {
            cell.name: {"overrides": list(cell.overrides), "recipe": to_dict(cell.recipe) | {"published": None}}
            for cell in grid.cells
        },
        "data": {name: digest for files in known.values() for name, digest in sorted(files.items())},
    }


def _begin(plan: Mapping[str, Any], folder: Path) -> None:
    """Write the plan down before anything runs; raise `ConfigError` where the folder has another one."""
    path = folder / PLAN
    if path.exists():
        changed = _changed(read_plan(path), plan)
        if changed:
            listed = "; ".join(f"{field} ({was!r} -> {now!r})" for field, was, now in changed[:3])
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise ConfigError(
                f"cannot resume {folder}: changed since the sweep was started: {listed}{more}. Resume with what it was "
                "started with, or use --out for another folder."
            )
    elif any(not one.name.startswith(".") for one in folder.iterdir()):
        raise ConfigError(f"cannot resume {folder}: expected a sweep's folder with {PLAN}. Use --out for another.")
    else:
        write_text_atomic(path, json.dumps({"sha256": _digest(plan), "plan": plan}, indent=2) + "\n")


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Axes by which two plans differ; where they are the same, fields of the cells' recipes, and data files."""
    axes = unlike(old["axes"], new["axes"])
    if axes or list(old["axes"]) != list(new["axes"]):
        return axes or [("the order of the axes", list(old["axes"]), list(new["axes"]))]
    pairs = [(old["cells"][name]["recipe"], cell["recipe"]) for name, cell in new["cells"].items()]
    fields = {
        field: (field, was, now)
        for one, other in pairs
        for field, was, now in unlike(one, other)
        if not (field.endswith("decode.labels") and now is None)  # goes on as it was started: `as_started`
    }
    files = [(f"the content of {name}", was, now) for name, was, now in unlike(old["data"], new["data"])]
    return [*fields.values(), *files]


def read_plan(path: Path) -> dict[str, Any]:
    """The plan of a sweep. Raises FileNotFoundError, or `ConfigError` where it is damaged."""
    try:
        whole = read_json(path)
        plan: dict[str, Any] = whole["plan"]
        if whole["sha256"] == _digest(plan) and plan.keys() >= {"axes", "cells", "data"}:
            return plan
    except (CheckpointError, KeyError, TypeError, AttributeError):
        pass
    raise ConfigError(f"{path}: damaged: its checksum is not that of its plan. Copy it again, or use --out.")


def _digest(plan: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
