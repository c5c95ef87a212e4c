"""THE training loop: one optimiser step per record, for every method. It prints, saves and scores nothing.

Step numbers count optimiser steps done. Everything a step depends on is a function of (step, seed) or lies in the
trainable tensors and the optimiser's moments, so a run that is restored from those is the run that never stopped.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch
from torch import Tensor, nn

from softprompt.backbone import Backbone, recompute_layers
from softprompt.batch import Encoded, sides
from softprompt.compiled import Compiled
from softprompt.distributed import ALONE, World
from softprompt.errors import TrainingError
from softprompt.finite import first_unusable
from softprompt.graphs import Graphs
from softprompt.methods import Trainable
from softprompt.multitask import Learner, of_task
from softprompt.optim import learning_rate
from softprompt.passes import Passes
from softprompt.steps import Plan
from softprompt.train_config import TrainConfig


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one optimiser step did."""

    step: int
    """Optimiser steps done, this one included."""
    epoch: float
    """Passes over the training pairs done."""
    loss: float
    """In nats: per target token under `token_mean`, per sentence under `sentence_sum`."""
    lr: float
    grad_norm: float
    """L2 norm over all trainable tensors, before clipping."""
    tokens: int
    """Real tokens, source and target."""
    target_tokens: int
    positions: int
    """Tokens and pads."""
    micro_batch: int
    """Pairs per forward pass, at most."""


def total_steps(config: TrainConfig, plan: Plan) -> int:
    """`max_steps` where given, else the steps of `epochs`, rounded up."""
    if config.max_steps is not None:
        return config.max_steps
    return plan.steps_in(config.epochs)


def training_steps(
    backbone: Backbone,
    method: Learner,
    optimizer: torch.optim.Optimizer,
    pairs: Sequence[Encoded],
    config: TrainConfig,
    *,
    seed: int,
    start: int = 0,
    micro_batch: int | None = None,
    world: World = ALONE,
) -> Iterator[StepRecord]:
    """Train from optimiser step `start` to the end, one record after each step.

    Under `micro_batch: auto` the pairs per forward pass start from `micro_batch`, or all of the batch, and are halved
    whenever memory runs out; the gradient stays that of the whole batch. So it does where the processes of `world`
    share each batch: every target token of it counts alike, however many of them a process has.

    Raises:
        TrainingError: the loss or the gradient is not finite (`NonFiniteError`), or memory ran out for good; the step
            is not applied, weights stay as they were. Or what is trained is not finite after the step.
    """
    if config.gradient_checkpointing:
        backbone.enable_gradient_checkpointing()
    plan = make_plan(backbone, method, pairs, config, seed)
    total = total_steps(config, plan)
    trained = method.trainable()
    parameters = list(trained.values())
    optimizer.zero_grad(set_to_none=True)  # an earlier call may have ended in the middle of a step
    rows = (micro_batch if config.micro_batch == "auto" else config.micro_batch) or plan.most_rows
    graphs = Graphs(backbone, of_task(method, ""), config.precision) if config.graphs else None
    compiled = Compiled.of(backbone) if config.compile else None
    passes = Passes(backbone, method, config, world, graphs, compiled)
    batches = passes.collated(pairs, plan.from_step(start), lambda: rows)
    modes = Modes(backbone, method, config)
    for step in range(start, total):
        modes.restore()
        rate = _set_rates(optimizer, config, step, total)
        indices, ready = next(batches)
        chosen, drawn = [pairs[i] for i in indices], step_seed(seed, step, world.rank)
        while (done := passes.within_memory(chosen, rows, drawn, step, ready)) is None:
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            rows = max(1, min(rows, passes.most_rows(chosen)) // 2)
        world.sum_gradients(parameters)
        loss, positions = world.sums(done)
        seen = sum(map(len, chosen)), sum(len(pair.target) for pair in chosen), int(positions)
        norm = float(nn.utils.clip_grad_norm_(parameters, config.clip if config.clip is not None else math.inf))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NonFiniteError(
                step,
                f"step {step + 1}: expected a finite loss and gradient, got loss {loss} and gradient norm {norm} "
                f"on training pairs {indices} (0-based). The update was not applied. "
                "Lower train.lr, set train.clip, or look at these pairs, and go on with --resume --allow-change train.",
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        require_finite(trained, step + 1)
        yield StepRecord(step + 1, plan.passes(step + 1), loss, rate, norm, *seen, rows)


def _set_rates(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, total: int) -> float:
    """Give every parameter group its rate of this step; the recipe's own rate is returned."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step, total, group["highest"])
    return learning_rate(config, step, total)


class NonFiniteError(TrainingError):
    """The weights of `step` (optimiser steps done) gave a loss or a gradient that is not finite; they are unchanged."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


def require_finite(
    tensors: Mapping[str, Tensor], step: int, what: str = "what is trained", *, squares: bool = True
) -> None:
    """Raise `TrainingError` unless all numbers are finite after optimiser step `step`, and with `squares` these too."""
    name = first_unusable(tensors, squares=squares)
    if name is not None:
        largest = float(tensors[name].detach().float().abs().max())
        raise TrainingError(
            f"step {step}: expected finite numbers in {what} after the update, got magnitudes up to {largest:.3g} in "
            f"{name!r}. Nothing of this step was kept. Lower train.lr, and go on with --resume --allow-change train.lr."
        )


def make_plan(backbone: Backbone, method: Learner, pairs: Sequence[Encoded], config: TrainConfig, seed: int) -> Plan:
    """The batches of the run."""
    tasks = tuple(pair.task for pair in pairs)
    lengths, equal = tuple(map(len, pairs)), config.mixing == "equal"
    if config.batch_tokens is None:
        return Plan(lengths, config.batch_size, seed, tasks, equal)
    read = tuple(sides(backbone, of_task(method, pair.task), pair) for pair in pairs)
    return Plan(lengths, config.batch_size, seed, tasks, equal, config.batch_tokens, read)


def prepare_mode(backbone: Backbone, method: Trainable, config: TrainConfig) -> None:
    """Training mode: the method's dropout on; the frozen backbone's off unless `frozen_dropout` asks for it."""
    backbone.model.train(config.frozen_dropout)
    method.set_mode(True)
    if config.gradient_checkpointing:
        recompute_layers(backbone.model)


_TRAINING = itemgetter("training")


class Modes:
    """Which modules train and which do not, set anew before every step: who gets a record may have changed it."""

    def __init__(self, backbone: Backbone, method: Learner, config: TrainConfig) -> None:
        prepare_mode(backbone, method, config)
        self._method = method
        own = list(method.modules()) if isinstance(method, nn.Module) else []
        self._known = bool(own) or getattr(method, "model", None) is backbone.model
        self._modules = [module for module in (*backbone.model.modules(), *own) if "training" in vars(module)]
        self._kept = [vars(module) for module in self._modules]  # where modes are looked up in a third of the time
        self._modes = [module.training for module in self._modules]

    def restore(self) -> None:
        """As `prepare_mode` left them, without a walk through the model."""
        if list(map(_TRAINING, self._kept)) != self._modes:
            for module, mode in zip(self._modules, self._modes, strict=True):
                module.training = mode
        if not self._known:
            self._method.set_mode(True)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Seed of torch's generators for one step of one process, so that dropout does not depend on what ran before."""
    text = f"{seed}/{step}/{rank}" if rank else f"{seed}/{step}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest())
