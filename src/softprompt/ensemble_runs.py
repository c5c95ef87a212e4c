"""Runs of one task as an ensemble: each run's prompt alone, their mean, the best of them, and their vote.

The columns of Lester et al. 2021, Table 3: average, best, ensemble.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt import data
from softprompt.backbone import Backbone
from softprompt.config import Recipe, load_recipe
from softprompt.console import Progress
from softprompt.ensemble import ensemble, require_vote
from softprompt.errors import ConfigError
from softprompt.methods import room_taken
from softprompt.places import RECIPE
from softprompt.prepare import answer_room, is_labelled, label_choices, settled
from softprompt.prompt import Prompt
from softprompt.results import score_outputs
from softprompt.score_recipe import suite_of
from softprompt.table import metric_title, show_score
from softprompt.truncate import cut_sources, rooms
from softprompt.types import Splits

PROMPT = "prompt"


@dataclass(frozen=True)
class EnsembleScores:
    """Scores by metric, in the suite's order, on the runs' test set."""

    runs: Mapping[str, Mapping[str, float]]
    """Run folder -> its scores alone."""
    ensemble: Mapping[str, float]
    vote: str
    signatures: Mapping[str, str]

    @property
    def mean(self) -> dict[str, float]:
        """Mean over the runs."""
        return {
            metric: sum(scores[metric] for scores in self.runs.values()) / len(self.runs) for metric in self.ensemble
        }

    @property
    def best(self) -> str:
        """The run of the highest first metric."""
        first = next(iter(self.ensemble))
        return max(self.runs, key=lambda run: self.runs[run][first])

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "runs": {run: dict(scores) for run, scores in self.runs.items()},
            "mean": self.mean,
            "best": {"run": self.best, **self.runs[self.best]},
            "ensemble": dict(self.ensemble),
            "vote": self.vote,
            "signatures": dict(self.signatures),
        }

    def table(self) -> list[list[str]]:
        """Header, a row for each run, mean, best and ensemble."""
        rows = [*self.runs.items(), ("mean", self.mean), (f"best ({self.best})", self.runs[self.best])]
        rows.append((f"ensemble ({self.vote})", self.ensemble))
        body = [[name, *(show_score(metric, scores[metric]) for metric in self.ensemble)] for name, scores in rows]
        return [["", *map(metric_title, self.ensemble)], *body]


def ensemble_runs(folders: Sequence[Path], *, vote: str = "majority", quiet: bool = False) -> EnsembleScores:
    """Score the prompts of some run folders alone and together on the test set that they share.

    Raises:
        ConfigError: an unknown vote, fewer than two folders, one that is no run of a prompt, or runs of different
            backbones, test sets, decode settings or suites.
        CheckpointError: a prompt is damaged or was learned on another backbone.
    """
    require_vote(vote)
    if len(set(folders)) < 2 or len(set(folders)) < len(folders):
        raise ConfigError(f"ensemble: expected two or more different run folders, got {len(folders)}.")
    recipes = {folder: _recipe(folder) for folder in folders}
    recipe, splits = _agreed(recipes)
    backbone = Backbone.load(
        recipe.backbone.id,
        revision=recipe.backbone.revision,
        dtype=recipe.backbone.dtype,
        attention=recipe.backbone.attention,
        quantize=recipe.backbone.quantize,
    )
    recipe = settled(backbone, recipe, splits.train)
    hash_ = backbone.hash()
    prompts = [Prompt.load(folder / PROMPT, backbone_hash=hash_) for folder in folders]
    test = splits.test
    if recipe.data.truncate == "source":
        longest = max(room_taken(backbone, prompt) for prompt in prompts)
        room = rooms(backbone, recipe, longest, answer_room(backbone, recipe, splits.train)).source
        test, _ = cut_sources(backbone, test, room, targets=False)
    progress = Progress("ensemble", len(test) * len(prompts), "answers", quiet=quiet)
    voted = ensemble(
        backbone,
        prompts,
        [example.source for example in test],
        recipe.decode,
        vote=vote,
        labels=label_choices(recipe, splits.train),
        seed=recipe.seed,
        on_batch=progress.update,
    )
    progress.close()
    together = score_outputs(recipe, test, voted.texts)
    alone = [score_outputs(recipe, test, texts) for texts in voted.each]
    return EnsembleScores(
        {
            str(folder): {metric: score.value for metric, score in result.scores.items()}
            for folder, result in zip(folders, alone, strict=True)
        },
        {metric: score.value for metric, score in together.scores.items()},
        vote,
        {metric: score.signature for metric, score in together.scores.items()},
    )


def _recipe(folder: Path) -> Recipe:
    if not (folder / RECIPE).is_file() or not (folder / PROMPT).is_dir():
        raise ConfigError(
            f"{folder}: expected a finished run of method prefix or prompt, with {RECIPE} and {PROMPT}/; got none. "
            "Give the run's folder, or that of one of its arms."
        )
    return load_recipe(str(folder / RECIPE))


def _agreed(recipes: Mapping[Path, Recipe]) -> tuple[Recipe, Splits]:
    """The first run's recipe and data, where the others are of the same backbone, test set, decoding and suite."""
    first, recipe = next(iter(recipes.items()))
    splits = _splits(recipe)
    for folder, other in recipes.items():
        theirs = splits if other.data == recipe.data and other.seed == recipe.seed else _splits(other)
        for what, same in (
            ("backbone", other.backbone == recipe.backbone),
            ("decode", other.decode == recipe.decode),
            ("score", (suite_of(other), other.score) == (suite_of(recipe), recipe.score)),
            ("test set (data, and seed where data.max_test draws by it)", theirs.test == splits.test),
        ):
            if not same:
                raise ConfigError(f"ensemble: expected runs of one {what}, but {folder} has another than {first}.")
    if not splits.test:
        raise ConfigError(f"ensemble: expected runs with a test set, got none in {first}.")
    return recipe, splits


def _splits(recipe: Recipe) -> Splits:
    return data.load(recipe.data, recipe.seed, labelled=is_labelled(recipe))
