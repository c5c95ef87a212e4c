"""How a recipe's predictions are scored: which suite, what its labels are, which rows are one text. Without torch."""

from collections.abc import Sequence

from softprompt import data
from softprompt.config import Recipe
from softprompt.metrics import Classes, Suite, choose_suite
from softprompt.segments import joined
from softprompt.tasks import load_task
from softprompt.types import Example


def wants_labels(recipe: Recipe) -> bool:
    """Whether answers are label words: as `decode.labels` says, else where the data has labels and none is sampled."""
    if recipe.decode.labels is not None:
        return recipe.decode.labels
    return recipe.decode.strategy != "sample" and data.label_words(recipe.data) is not None


def suite_of(recipe: Recipe) -> str:
    """The recipe's own suite, else its task's, else `accuracy` where labels are learned or answered, else `text`."""
    otherwise = "accuracy" if recipe.data.labels or wants_labels(recipe) else "text"
    return recipe.score.suite or (load_task(recipe.data.task).suite if recipe.data.task else otherwise)


def classes_of(recipe: Recipe) -> Classes | None:
    """What the labels of a recipe are, for its metrics; None where its texts are no labels."""
    words = data.label_words(recipe.data)
    if words is None and not wants_labels(recipe):
        return None
    return Classes(words or (), data.positive_word(recipe.data))


def chosen_suite(recipe: Recipe) -> Suite:
    """The metrics by which a recipe's predictions are scored. ConfigError for one that there is not."""
    return choose_suite(suite_of(recipe), recipe.score.metrics, recipe.score.bertscore, classes_of(recipe))


def as_scored(recipe: Recipe, test: Sequence[Example], texts: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Outputs and references of a recipe's test rows, those of rows that are scored as one joined."""
    columns = load_task(recipe.data.task).join if recipe.data.task else ()
    classes = classes_of(recipe)
    words, positive = (classes.words, classes.positive) if classes is not None else ((), None)
    return joined(test, texts, columns, words, positive)
