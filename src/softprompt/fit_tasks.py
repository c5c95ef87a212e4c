"""One call of `fit` for all tasks that are trained together, and what it came to for each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from softprompt.backbone import Backbone
from softprompt.batch import Encoded
from softprompt.config import Recipe
from softprompt.distributed import ALONE, World
from softprompt.errors import TrainingError
from softprompt.fit import fit
from softprompt.identity import Identity
from softprompt.machine import peak_memory_bytes, reset_peak_memory
from softprompt.methods import Method
from softprompt.multitask import MultiTask

Pairs = Mapping[str, Sequence[Encoded]]
"""Task -> its pairs."""


def fit_tasks(
    backbone: Backbone,
    methods: Mapping[str, Method],
    train: Pairs,
    dev: Pairs,
    recipe: Recipe,
    place: Path,
    *,
    label: str,
    quiet: bool,
    world: World = ALONE,
    identity: Identity | None = None,
) -> dict[str, dict[str, Any]]:
    """Train each task's method, all in one loop; a recipe without `tasks` has one, called "".

    Returns for each task the fields of `Fitted` with the task's own `dev_loss`, and `peak_memory_bytes`.

    Raises:
        TrainingError, Interrupted: see `fit`.
    """
    frozen = backbone.frozen_hash()
    reset_peak_memory(backbone.device)
    fitted = fit(
        backbone,
        MultiTask(methods) if recipe.tasks else methods[""],
        [replace(pair, task=task) for task in methods for pair in train[task]],
        [replace(pair, task=task) for task in methods for pair in dev[task]],
        recipe.train,
        place,
        seed=recipe.seed,
        label=label,
        quiet=quiet,
        world=world,
        identity=identity,
    )
    if backbone.frozen_hash() != frozen:
        raise TrainingError("frozen parameters of the backbone changed during training; nothing was kept.")
    whole = asdict(fitted) | {"peak_memory_bytes": peak_memory_bytes(backbone.device)}
    losses = whole.pop("dev_losses")
    return {task: whole | {"dev_loss": losses.get(task)} if losses else whole for task in methods}
