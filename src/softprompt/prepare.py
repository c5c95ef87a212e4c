"""What a recipe's arms work on: data read, tokenised and checked against the window, before anything is written."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import torch

from softprompt import data
from softprompt.backbone import Backbone, default_device
from softprompt.batch import Encoded, encode_given, encode_pairs, require_answer_fits, require_fit, require_pairs_fit
from softprompt.config import DecodeConfig, Recipe
from softprompt.console import say
from softprompt.errors import ConfigError
from softprompt.incontext import InContext
from softprompt.labels import LabelWords, distinct_targets
from softprompt.look import look_through, remarks
from softprompt.machine import memory_bytes
from softprompt.method_config import InContextConfig
from softprompt.methods import METHODS, Method, Steering, Untuned, room_taken, trained_count
from softprompt.quantize import require_libraries
from softprompt.score_recipe import chosen_suite, wants_labels
from softprompt.score_recipe import suite_of as suite_of
from softprompt.truncate import cut_splits, rooms
from softprompt.types import Example, Splits

Key = TypeVar("Key")
CLASS_METRICS = {"accuracy", "f1_macro", "matthews"}
"""Metrics, and a suite, that compare classes: each row has one right answer."""


@dataclass(frozen=True)
class Job:
    """One arm, or a task of it, with its data read, tokenised and checked against the backbone's window."""

    recipe: Recipe
    examples: Sequence[Example]
    """The training pairs as texts."""
    train: Sequence[Encoded]
    dev: Sequence[Encoded]
    test: Sequence[Example]
    splits: Mapping[str, Any]
    """What splits.json keeps of train, dev and test: their sizes and checksums, and what was cut off them."""
    settled: Recipe | None = None
    """The recipe with `decode.labels` on or off; None: as it is."""

    @property
    def decode(self) -> DecodeConfig:
        """How answers are made, `decode.labels` on or off."""
        return (self.settled or self.recipe).decode

    @property
    def labels(self) -> tuple[str, ...] | None:
        """What an answer may be, where the recipe wants label words."""
        return label_choices(self.settled or self.recipe, self.examples)


def prepare(parts: Mapping[Key, Recipe]) -> dict[Key, Job]:
    """Check every recipe on the weightless backbone before anything is written; those that ask for the same share it.

    What of the data is lost on the way through tokens is said.

    Raises:
        ConfigError: no such suite, or nothing to train on.
        DataError: malformed data, or texts that do not fit the window.
        BackboneError: no such backbone, one that the method cannot steer, or no library to quantise it with.
    """
    known: list[tuple[Any, Backbone, Splits, Job]] = []
    jobs, said = {}, dict[str, None]()
    for key, own in parts.items():
        chosen_suite(own)
        require_libraries(own.backbone.quantize)
        asked = (own.backbone, own.data, own.seed, is_labelled(own))
        if not any(asked == seen for seen, *_ in known):
            plan = Backbone.plan(own.backbone.id, revision=own.backbone.revision, tokenizer=True)
            splits = data.load(own.data, own.seed, labelled=is_labelled(own))
            job = _encoded(plan, own, splits)
            known.append((asked, plan, splits, job))
            said |= dict.fromkeys(remarks(look_through(plan, splits, job.train, job.dev), own.decode))
        plan, splits, shared = next((plan, splits, job) for seen, plan, splits, job in known if seen == asked)
        jobs[key] = _with_room(plan, replace(shared, recipe=own), splits)
    for text in said:
        say(f"note: {text}")
    return jobs


def _encoded(plan: Backbone, recipe: Recipe, splits: Splits) -> Job:
    train, dev = encode_pairs(plan, splits.train, "train"), encode_pairs(plan, splits.dev, "dev")
    return Job(recipe, splits.train, train, dev, splits.test, data.record_of(splits))


def _with_room(plan: Backbone, job: Job, splits: Splits) -> Job:
    """The job with its texts cut to the window where the recipe says so; DataError if they do not fit."""
    decided = settled(plan, job.recipe, job.examples)
    method = build_method(replace(plan, model=copy.deepcopy(plan.model)), job.recipe)  # some methods change the model
    if method is not None and not job.train:
        lacking = f"the task {job.recipe.data.task!r} has none" if job.recipe.data.task else "the data has none"
        raise ConfigError(
            f"data.train: method {job.recipe.method.name} needs training pairs, and {lacking}. "
            "Set data.train=FILE, or method=untuned to score the backbone alone."
        )
    if method is not None:
        _require_memory(job.recipe, trained_count(method))
    offset = room_taken(plan, method or build_untrained(plan, job.recipe, job.examples))
    answer = answer_room(plan, decided, job.examples)
    if job.recipe.data.truncate == "source":
        splits, cuts = cut_splits(plan, splits, rooms(plan, job.recipe, offset, answer))
        job = _encoded(plan, job.recipe, splits)
        job = replace(job, splits={name: {**job.splits[name], "cut": asdict(cut)} for name, cut in cuts.items()})
        for name, cut in cuts.items():
            if cut.examples:
                say(f"{name}: {cut.examples} of {cut.of} sources cut at their end, by {cut.tokens} tokens")
    _require_room(plan, job, offset, answer, learns=method is not None)
    return replace(job, settled=decided)


def _require_memory(recipe: Recipe, trained: int) -> None:
    """Refuse what cannot be held: what is trained in float32, its gradients, and AdamW's moments."""
    needed = trained * (16 if recipe.train.optimizer == "adamw" else 8)
    there = memory_bytes(default_device())
    if there is not None and needed > there and not recipe.backbone.shard:
        raise ConfigError(
            f"method {recipe.method.name}: {trained:,} trained numbers with gradients and optimiser take "
            f"{needed / 2**30:,.1f} GiB, expected at most the {there / 2**30:,.1f} GiB there are. Lower what sets "
            "their number (length, hidden, rank, bottleneck, share, top), or take a bigger device."
        )


def _require_room(plan: Backbone, job: Job, offset: int, answer: int, *, learns: bool) -> None:
    sources = encode_given(plan, job.test, "test")
    require_fit([len(row) for row in sources], plan.window, what="test sources", offset=offset + answer)
    if learns:
        for what, pairs in (("training pairs", job.train), ("dev pairs", job.dev)):
            require_pairs_fit(plan, pairs, what=what, offset=offset, most=job.recipe.train.max_length)


def settled(backbone: Backbone, recipe: Recipe, train: Sequence[Example]) -> Recipe:
    """The recipe with `decode.labels` on or off: by default on where the data has labels that can be answers.

    Raises:
        ConfigError: `decode.labels` is true, and the label words cannot be answers (see `LabelWords`).
    """
    wanted = wants_labels(recipe)
    choices = label_choices(recipe, train)
    decided = recipe.model_copy(update={"decode": recipe.decode.model_copy(update={"labels": wanted})})
    if recipe.decode.labels is not None or choices is None:
        return decided
    try:
        LabelWords.of(backbone, choices, decided.decode)
    except ConfigError as error:
        say(f"answers are generated freely, not chosen out of the label words: {error}")
        return recipe.model_copy(update={"decode": recipe.decode.model_copy(update={"labels": False})})
    if recipe.decode.strategy == "beam" and recipe.decode.beams not in (1, 5):
        say(f"answers are chosen out of all label words: decode.beams={recipe.decode.beams} has no effect")
        beams = {"labels": True, "beams": DecodeConfig.model_fields["beams"].default}
        return recipe.model_copy(update={"decode": recipe.decode.model_copy(update=beams)})
    return decided


def is_labelled(recipe: Recipe) -> bool:
    """Whether answers are labels: decoded as label words, or scored as classes."""
    scored = set(recipe.score.metrics) | ({recipe.score.suite} if recipe.score.suite else set())
    return wants_labels(recipe) or bool(scored & CLASS_METRICS)


def label_choices(recipe: Recipe, train: Sequence[Example]) -> tuple[str, ...] | None:
    """What an answer may be, where the recipe wants label words: those of its task, else the training targets."""
    if not wants_labels(recipe):
        return None
    return data.label_words(recipe.data) or distinct_targets(train)


def answer_room(backbone: Backbone, recipe: Recipe, train: Sequence[Example]) -> int:
    """Positions of the window that an answer takes behind its source: none in an encoder's.

    Errors as `LabelWords` and `require_answer_fits`.
    """
    recipe = settled(backbone, recipe, train)
    labels, answer = label_choices(recipe, train), recipe.decode.max_new_tokens
    if labels is not None:
        answer = max(map(len, LabelWords.of(backbone, labels, recipe.decode).ids))
    require_answer_fits(backbone, answer)
    return answer if backbone.family == "causal" else 0


def build_method(backbone: Backbone, recipe: Recipe) -> Method | None:
    """The recipe's method on `backbone`, seeded by the recipe; None where nothing is trained."""
    if recipe.method.name not in METHODS:
        return None
    torch.manual_seed(recipe.seed)
    return METHODS[recipe.method.name](backbone, recipe.method)


def build_untrained(backbone: Backbone, recipe: Recipe, examples: Sequence[Example]) -> Steering:
    """The steering of a recipe by which nothing is trained; `examples`: the training pairs that it may show.

    Raises:
        ConfigError: see `InContext.build`.
    """
    if isinstance(recipe.method, InContextConfig):
        return InContext.build(backbone, recipe.method, examples, recipe.seed)
    return Untuned()
