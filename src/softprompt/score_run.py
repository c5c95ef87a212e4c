"""`softprompt score` and `softprompt compare`: outputs of runs by the recipe that made them. Without torch."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from softprompt.config import MAIN, Recipe, load_recipe
from softprompt.console import say
from softprompt.errors import ConfigError
from softprompt.metrics import SUITES, Classes, Suite, choose_suite
from softprompt.metrics.files import TestSet, read_test_set
from softprompt.metrics.scoring import Scores, compare, score
from softprompt.score_recipe import as_scored, classes_of, suite_of
from softprompt.types import Example

RECIPE, SCORES, PREDICTIONS = "recipe.yaml", "scores.json", "predictions"
OTHERWISE = "e2e"
"""Suite of outputs that no run made, where none is named."""


@dataclass(frozen=True)
class Wanted:
    """What a user asks for beside the outputs; None and () leave it to the run's recipe."""

    suite: str | None = None
    metrics: tuple[str, ...] = ()
    bertscore: str | None = None
    positive: str | None = None


@dataclass(frozen=True)
class Outputs:
    """Outputs with their references, and the recipe of the arm (or the arm's task) that made them."""

    test: TestSet
    recipe: Recipe | None = None
    suite: str = OTHERWISE

    def chosen(self, wanted: Wanted) -> Suite:
        """The metrics: what is asked for, else what the recipe says.

        Raises:
            ConfigError: no such suite or metric.
        """
        classes = classes_of(self.recipe) if self.recipe else None
        if wanted.positive is not None:
            classes = Classes(classes.words if classes else (), wanted.positive)
        kept = self.recipe.score if self.recipe else None
        metrics = wanted.metrics or (kept.metrics if kept and wanted.suite is None else ())
        bertscore = wanted.bertscore or (kept.bertscore if kept and not wanted.metrics and not wanted.suite else None)
        return choose_suite(wanted.suite or self.suite, metrics, bertscore, classes)


def read_outputs(hypotheses: Path, references: Sequence[Path] = (), parts: Path | None = None) -> Outputs:
    """Read outputs as `read_test_set` does; those of a run with its recipe, rows that it scores as one text joined.

    Raises:
        ConfigError: a file is not there, or a folder that is no run's.
        DataError: counts differ, or a file is not what its name says.
    """
    place = _place_of(hypotheses)
    found = _recipe_of(place) if place is not None else None
    if hypotheses.is_dir() and found is None:
        raise ConfigError(
            f"{hypotheses}: expected a run folder with {RECIPE} and {PREDICTIONS}/test.jsonl, got none with {RECIPE}. "
            "Give the predictions' file, and name the metrics with --suite."
        )
    if place is not None and found is not None and found[1] and not (place / PREDICTIONS).is_dir():
        tasks = ", ".join(str(place / "tasks" / name) for name in found[1])
        raise ConfigError(f"{hypotheses}: a run of several tasks, each scored apart. Give one of {tasks}.")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        test = read_test_set(hypotheses, references, parts)
    for one in said:
        say(f"warning: {one.message}")
    if place is None or found is None:
        return Outputs(test)
    recipe = found[0]
    return Outputs(_joined(recipe, test), recipe, _suite_kept(place, recipe))


def score_outputs(outputs: Outputs, wanted: Wanted, *, bootstrap: int = 0, seed: int = 1) -> Scores:
    """As `score`, by the metrics that the outputs' recipe and `wanted` say."""
    return score(outputs.test, outputs.chosen(wanted), bootstrap=bootstrap, seed=seed)


def compare_outputs(a: Outputs, b: Outputs, wanted: Wanted, *, resamples: int = 1000, seed: int = 1) -> Scores:
    """As `compare`, by the metrics that both outputs' recipes and `wanted` say.

    Raises:
        ConfigError: the recipes of two runs say different metrics, and `wanted` does not decide.
    """
    if a.recipe and b.recipe and wanted.suite is None:
        (one, its), (other, theirs) = ((each.suite, each.recipe.score.metrics) for each in (a, b) if each.recipe)
        if one != other or (its != theirs and not wanted.metrics):
            raise ConfigError(
                f"compare: expected two runs that are scored alike, got suite {one} {list(its)} and {other} "
                f"{list(theirs)}. Name the metrics with --suite and --metrics."
            )
    leads = a if a.recipe or not b.recipe else b
    return compare(a.test, b.test, leads.chosen(wanted), resamples=resamples, seed=seed)


def _place_of(hypotheses: Path) -> Path | None:
    """The folder of an arm, or of an arm's task, in which these outputs lie as a run writes them."""
    if hypotheses.is_dir():
        return hypotheses
    inside = hypotheses.suffix == ".jsonl" and hypotheses.absolute().parent.name == PREDICTIONS
    return hypotheses.absolute().parent.parent if inside else None


def _recipe_of(place: Path) -> tuple[Recipe, tuple[str, ...]] | None:
    """The recipe of what lies at `place` in a run folder, and the tasks below it; None: no run's."""
    root, names = place.absolute(), {"arms": MAIN, "tasks": ""}
    for kind in ("tasks", "arms"):
        if not (root / RECIPE).is_file() and root.parent.name == kind:
            names[kind], root = root.name, root.parent.parent
    if not (root / RECIPE).is_file():
        return None
    recipe = load_recipe(str(root / RECIPE)).arm(names["arms"])
    parts = recipe.parts()
    if names["tasks"] in parts:
        return parts[names["tasks"]], ()
    return recipe, tuple(parts)


def _joined(recipe: Recipe, test: TestSet) -> TestSet:
    examples = [
        Example(str(row.get("source", "")), tuple(references), row)
        for row, references in zip(test.rows, test.references, strict=True)
    ]
    outputs, references = as_scored(recipe, examples, test.hypotheses)
    if len(outputs) == len(test.hypotheses):
        return replace(test, hypotheses=outputs, references=[list(group) for group in references])
    if test.parts:
        raise ConfigError(
            f"expected parts of whole texts, got a label a row, of which this task scores several as one text: "
            f"{len(test.hypotheses)} rows, {len(outputs)} texts. Drop --parts."
        )
    return TestSet(outputs, [list(group) for group in references])


def _suite_kept(place: Path, recipe: Recipe) -> str:
    """The recipe's suite; where it names none, that of the scores that the run kept: defaults were others once."""
    named = suite_of(recipe)
    if recipe.score.suite or recipe.data.task or recipe.score.metrics:
        return named
    kept = _kept_metrics(place / SCORES) - {"bertscore"}
    fitting = (suite for suite in (named, "e2e") if kept == set(SUITES[suite].metrics))
    return next(fitting, named)


def _kept_metrics(path: Path) -> set[str]:
    try:
        kept: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {*kept["scores"], *kept["missing"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
