"""A dry run: counts, steps and a memory estimate from a recipe, without weights, and without data for known tasks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from softprompt import data
from softprompt.backbone import Backbone
from softprompt.config import Recipe
from softprompt.errors import ConfigError
from softprompt.methods import Method, trained_count
from softprompt.prepare import build_method
from softprompt.quantize import weight_bytes
from softprompt.steps import pairs_per_epoch
from softprompt.tasks import load_task

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 4}

STATE_BYTES = {"adamw": 8, "adafactor": 4, "adafactor_torch": 4}
"""Bytes of optimiser state per trained number; at most, where second moments are factored."""

SAVED_PER_TOKEN_AND_LAYER = 20
"""Numbers kept for the backward pass per token and layer, in units of E, through a frozen block: measured with
benchmarks/train_step.py on the GPT-2 shape (queries, keys, values, attention output, MLP inner states, norms)."""


@dataclass(frozen=True)
class DryRun:
    """What a run would do; counts in numbers, memory in bytes."""

    backbone_parameters: int
    trained: int
    stored: int
    train_pairs: int | None
    steps: int | None
    steps_estimated: bool
    """By the mean length of the task's texts, which decides how many fit `train.batch_tokens`."""
    pairs_source: str
    memory: dict[str, int]

    def lines(self) -> list[str]:
        """For people."""
        share = f"{self.stored / self.backbone_parameters:.3%} of the backbone"
        gib = {name: f"{count / 2**30:.2f} GiB" for name, count in self.memory.items()}
        parts = ", ".join(f"{name} {text}" for name, text in gib.items() if name != "total")
        return [
            f"backbone parameters  {self.backbone_parameters:,}",
            f"trained parameters   {self.trained:,}",
            f"stored parameters    {self.stored:,} ({share})",
            f"training pairs       {_count(self.train_pairs)} ({self.pairs_source})",
            f"optimiser steps      {_count(self.steps)}{' (estimated)' if self.steps_estimated else ''}",
            f"memory estimate      {gib['total']} ({parts})",
        ]


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


def dry_run(recipe: Recipe) -> DryRun:
    """Build the architecture on the meta device and count.

    Raises:
        BackboneError: the config of the backbone cannot be had.
    """
    parts = list(recipe.parts().values())
    backbone = Backbone.plan(
        recipe.backbone.id,
        revision=recipe.backbone.revision,
        attention=recipe.backbone.attention,
        tokenizer=any(getattr(part.method, "length", 0) is None for part in parts),  # then it is counted
    )
    methods = [method for part in parts if (method := build_method(backbone, part)) is not None]
    trained = sum(map(trained_count, methods))
    counted = [_pairs(part) for part in parts]
    sizes, source = [size for size, _ in counted], "; ".join(dict.fromkeys(how for _, how in counted))
    known = [size for size in sizes if size is not None]
    pairs = pairs_per_epoch(known, equal=recipe.train.mixing == "equal") if len(known) == len(sizes) else None
    steps, estimated = _steps(recipe, pairs, backbone, methods)
    return DryRun(
        backbone_parameters=backbone.parameter_count(),
        trained=trained,
        stored=sum(method.stored_count() for method in methods),
        train_pairs=pairs,
        steps=steps,
        steps_estimated=estimated,
        pairs_source=source,
        memory=_memory(backbone, recipe, trained),
    )


def _pairs(recipe: Recipe) -> tuple[int | None, str]:
    """Training pairs: counted where the files are there, else as the task publishes them."""
    try:
        if not data.reads_hub(recipe.data):  # counting would download it
            return len(data.load(recipe.data, recipe.seed).train), "counted"
    except ConfigError:
        if recipe.data.task is None:
            raise
    published = load_task(recipe.data.task).train_pairs() if recipe.data.task else None
    if published is None:
        return None, "no data given"
    caps = (recipe.data.max_train, recipe.data.low_data, recipe.data.shots)
    return min([published, *(cap for cap in caps if cap is not None)]), "as published; no data given"


def _steps(recipe: Recipe, pairs: int | None, backbone: Backbone, methods: Sequence[Method]) -> tuple[int | None, bool]:
    """Optimiser steps, None where unknown, and whether they are an estimate."""
    train = recipe.train
    if train.max_steps is not None or pairs is None:
        return train.max_steps, False
    if train.batch_tokens is None:
        return math.ceil(train.epochs * math.ceil(pairs / train.batch_size)), False
    means = [_mean_tokens(part) for part in recipe.parts().values()]
    known = [sum(mean) for mean in means if mean is not None]
    if len(known) < len(means):
        return None, False
    virtual = [len(method.place(backbone, (0,))) - 1 for method in methods] or [0]
    each = sum(known) / len(known) + sum(virtual) / len(virtual)
    return math.ceil(train.epochs * math.ceil(pairs / max(1.0, train.batch_tokens // each))), True


def _memory(backbone: Backbone, recipe: Recipe, trained: int) -> dict[str, int]:
    """Weights; gradients and optimiser state of what is trained; activations of one micro-batch of mean length.

    Of several tasks the one with the longest texts counts.
    """
    config: Any = backbone.model.config
    weights = weight_bytes(backbone.model, BYTES[recipe.backbone.dtype], recipe.backbone.quantize)
    if recipe.method.name != "finetune":
        weights += trained * 4
    source, target = max((_mean_tokens(part) or (64.0, 64.0) for part in recipe.parts().values()), key=sum)
    micro = recipe.train.micro_batch
    whole = recipe.train.batch_size
    if recipe.train.batch_tokens is not None:
        whole = max(1, round(recipe.train.batch_tokens / (source + target)))
    rows = min(micro, whole) if isinstance(micro, int) else whole
    layers = 1 if recipe.train.gradient_checkpointing else config.num_hidden_layers
    kept = rows * (source + target) * layers * config.hidden_size * SAVED_PER_TOKEN_AND_LAYER
    logits = rows * target * config.vocab_size * 3
    memory = {
        "weights": weights,
        "gradients": trained * 4,
        "optimizer": trained * STATE_BYTES[recipe.train.optimizer],
        "activations": round((kept + logits) * 4),
    }
    return memory | {"total": sum(memory.values())}


def _mean_tokens(recipe: Recipe) -> tuple[float, float] | None:
    """Of a pair's source and target, where the task says so."""
    means = load_task(recipe.data.task).mean_tokens if recipe.data.task else None
    return (means.source, means.target) if means else None
