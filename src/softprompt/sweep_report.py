"""What a sweep came to: mean and deviation over seeds, as a table, one object, README.md and plots of a curve.

Nothing in it depends on the clock or on how often the sweep was stopped.
"""

import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from softprompt.config import MAIN, UNTUNED
from softprompt.console import say
from softprompt.grid import Cell, Grid
from softprompt.plain import write_text_atomic
from softprompt.results import ArmResult
from softprompt.table import as_markdown, metric_title, show_score

DEV_LOSS = "dev loss"
CHOOSE = (
    "* lowest mean dev loss (nats a token) of its arm. Choose by it: a setting chosen by its test scores fits the test."
)
SUMMARY, PAGE, PLOTS = "sweep.json", "README.md", "plots"


@dataclass(frozen=True)
class Outcome:
    """What one cell came to: its results, or the reason why it failed."""

    cell: Cell
    results: Sequence[ArmResult] = ()
    failed: str = ""


@dataclass(frozen=True)
class Row:
    """One arm (or a task of it) at one combination of values, over all seeds."""

    arm: str
    task: str
    method: str
    values: dict[str, str]
    """Axis -> value, the seed's left out."""
    n: int
    """Finished cells that it is the mean of."""
    trained: float
    stored: float
    scores: dict[str, dict[str, Any]]
    """Metric -> {"mean", "std", "signature"}; the deviation is the sample's (n - 1), None of a single cell."""
    dev_loss: dict[str, Any] | None = None
    """{"mean", "std"} of the kept weights' dev losses; None where a cell has none."""
    best_by_dev: bool = False
    """Whether it has the lowest mean dev loss of its arm's rows: the one to choose, without a look at the test."""

    @property
    def label(self) -> str:
        """As tables call it."""
        return f"{self.method if self.arm == MAIN else self.arm} {self.task}".rstrip()


def rows(grid: Grid, outcomes: Sequence[Outcome]) -> list[Row]:
    """Arm by arm, the combinations in the grid's order, so that each arm reads as a curve."""
    groups: dict[tuple[str, str], dict[tuple[str, ...], list[ArmResult]]] = {}
    for outcome in outcomes:
        for result in outcome.results:
            arm = groups.setdefault((result.arm, result.task), {})
            arm.setdefault(grid.combination(outcome.cell), []).append(result)
    keys = [axis.key for axis in grid.varied()]
    arms = (
        [_row(dict(zip(keys, values, strict=True)), results) for values, results in arm.items()]
        for arm in groups.values()
    )
    return [row for arm in arms for row in _marked(arm)]


def _marked(arm: Sequence[Row]) -> list[Row]:
    """The rows of an arm, the best by dev loss marked where there is a choice."""
    known = [row for row in arm if row.dev_loss is not None]
    best = min(known, key=lambda row: row.dev_loss["mean"] if row.dev_loss else math.inf, default=None)
    return [replace(row, best_by_dev=row is best and len(arm) > 1) for row in arm]


def _row(values: dict[str, str], results: Sequence[ArmResult]) -> Row:
    first = results[0]
    metrics = dict.fromkeys(metric for result in results for metric in result.scores)
    parameters = [result.parameters for result in results]
    return Row(
        arm=first.arm,
        task=first.task,
        method=first.method,
        values=values,
        n=len(results),
        trained=statistics.fmean(counts["trained"] for counts in parameters),
        stored=statistics.fmean(counts["stored"] for counts in parameters),
        scores={metric: _over_seeds([r.scores[metric] for r in results if metric in r.scores]) for metric in metrics},
        dev_loss=_dev_loss(results),
    )


def _dev_loss(results: Sequence[ArmResult]) -> dict[str, Any] | None:
    losses = [result.training.get("dev_loss") if result.training else None for result in results]
    known = [float(loss) for loss in losses if isinstance(loss, int | float) and math.isfinite(loss)]
    return _spread(known) if known and len(known) == len(losses) else None


def _over_seeds(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return _spread([score["score"] for score in scores]) | {"signature": scores[0]["signature"]}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None}


def table(found: Sequence[Row]) -> list[list[str]]:
    """Header and one row each: arm, values, dev loss, `mean ± std` of each metric, cells, parameters."""
    metrics = _metrics(found)
    keys = dict.fromkeys(key for row in found for key in row.values)
    shows_dev = any(row.dev_loss for row in found)
    header = ["", *keys, *([DEV_LOSS] if shows_dev else []), *map(metric_title, metrics), "n", "trained", "stored"]
    body = [
        [
            row.label,
            *row.values.values(),
            *([_show_dev(row)] if shows_dev else []),
            *(_show(metric, row.scores.get(metric)) for metric in metrics),
            str(row.n),
            *(f"{count:,.0f}" if row.method != UNTUNED else "-" for count in (row.trained, row.stored)),
        ]
        for row in found
    ]
    return [header, *body]


def _metrics(found: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(metric for row in found for metric in row.scores))


def _show(metric: str, score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "-"
    spread = "" if score["std"] is None else f" ± {show_score(metric, score['std'])}"
    return show_score(metric, score["mean"]) + spread


def _show_dev(row: Row) -> str:
    if row.dev_loss is None:
        return "-"
    return _show(DEV_LOSS, row.dev_loss) + (" *" if row.best_by_dev else "")


def notes(outcomes: Sequence[Outcome]) -> list[str]:
    """Lines below the table: cells that failed, and metrics that are missing, with the reasons."""
    missing = {
        f"{metric_title(metric)}: {why}"
        for outcome in outcomes
        for result in outcome.results
        for metric, why in result.missing.items()
    }
    failed = [f"Cell {one.cell.name} failed: {one.failed}" for one in outcomes if one.failed]
    trained = any(_dev_loss([result]) for outcome in outcomes for result in outcome.results)
    return [*([CHOOSE] if trained else []), *failed, *sorted(missing)]


def as_json(grid: Grid, outcomes: Sequence[Outcome]) -> str:
    """One object for programs: the axes, what became of each cell, and the rows."""
    numbers = {axis.key: axis.numbers() for axis in grid.axes}
    cells = [
        {
            "folder": f"cells/{one.cell.name}",
            "overrides": one.cell.overrides,
            "status": "failed" if one.failed else "done",
            **({"reason": one.failed} if one.failed else {}),
        }
        for one in outcomes
    ]
    summary = {
        "recipe": grid.name,
        "axes": {axis.key: [numbers[axis.key].get(value, value) for value in axis.values] for axis in grid.axes},
        "cells": cells,
        "rows": [
            {**asdict(row), "values": {key: numbers[key].get(value, value) for key, value in row.values.items()}}
            for row in rows(grid, outcomes)
        ],
        "notes": notes(outcomes),
    }
    return json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)


def write_report(grid: Grid, outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write sweep.json, README.md and, of a curve, plots/<metric>.svg into the sweep's folder."""
    found = rows(grid, outcomes)
    pictures = _draw(grid, found, folder / PLOTS)
    signed = (f"- {metric_title(m)}: `{score['signature']}`" for row in found for m, score in row.scores.items())
    done = sum(not one.failed for one in outcomes)
    parts = [
        f"# {grid.name}: {' x '.join(axis.key for axis in grid.axes)}",
        f"{done} of {len(outcomes)} runs, each a folder in `cells/` with a README.md of its own. Scores are mean ± "
        "sample standard deviation over the n runs of a row.",
        as_markdown(table(found)),
        "\n".join(f"- {line}" for line in notes(outcomes)),
        "\n".join(f"![{metric_title(metric)}]({PLOTS}/{metric}.svg)" for metric in pictures),
        "## How the scores were made",
        "\n".join(dict.fromkeys(signed)) or "No test data, no scores.",
        "## The runs",
        "\n".join(f"- [{cell.name}](cells/{cell.name}): `{' '.join(cell.overrides)}`" for cell in grid.cells),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    write_text_atomic(folder / PAGE, text)
    write_text_atomic(folder / SUMMARY, as_json(grid, outcomes) + "\n")


def _draw(grid: Grid, found: Sequence[Row], folder: Path) -> list[str]:
    """One picture a metric where the grid has a curve, the same bytes each time; the metrics drawn."""
    axis, metrics = grid.curve(), _metrics(found)
    if axis is None or not metrics:
        return []
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        say('no plots: they need matplotlib (pip install "softprompt[report]")')
        return []
    folder.mkdir(exist_ok=True)
    numbers = axis.numbers()
    for metric in metrics:
        lines: dict[str, list[tuple[float, float, float]]] = {}
        for row in found:
            if metric in row.scores:
                others = [f"{key}={value}" for key, value in row.values.items() if key != axis.key]
                point = (numbers[row.values[axis.key]], row.scores[metric]["mean"], row.scores[metric]["std"] or 0.0)
                lines.setdefault(" ".join([row.label, *others]), []).append(point)
        with rc_context({"svg.hashsalt": "softprompt"}):
            figure = Figure(layout="constrained")
            plot = figure.add_subplot(xlabel=axis.key, ylabel=metric_title(metric))
            for label, points in lines.items():
                x, y, spread = zip(*sorted(points), strict=True)
                plot.errorbar(x, y, yerr=spread, marker="o", capsize=3, label=label)
            if min(numbers.values()) > 0 and max(numbers.values()) > 20 * min(numbers.values()):
                plot.set_xscale("log")
            plot.set_xticks([*numbers.values()], labels=[*numbers])
            plot.set_xticks([], minor=True)
            plot.legend()
            image = io.StringIO()
            figure.savefig(image, format="svg", metadata={"Date": None})
        write_text_atomic(folder / f"{metric}.svg", image.getvalue())
    return metrics
