"""THE training loop: one optimiser step per record, for every method. It prints, saves and scores nothing.

Step numbers count optimiser steps done. Everything a step depends on is a function of (step, seed) or lies in the
trainable tensors and the optimiser's moments, so a run that is restored from those is the run that never stopped.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from softprompt.ahead import ahead
from softprompt.backbone import Backbone
from softprompt.batch import Batch, Encoded, make_batch, make_host_batch, sides
from softprompt.distributed import ALONE, World
from softprompt.errors import ConfigError, TrainingError
from softprompt.loss import target_nll
from softprompt.methods import Trainable
from softprompt.multitask import Learner, MultiTask, for_batch, of_task
from softprompt.optim import learning_rate
from softprompt.sharding import is_sharded
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
        TrainingError: the loss or the gradient is not finite, or memory ran out for good; the step is not applied,
            weights stay as they were.
    """
    if config.gradient_checkpointing:
        backbone.enable_gradient_checkpointing()
    plan = make_plan(backbone, method, pairs, config, seed)
    total = total_steps(config, plan)
    parameters = list(method.trainable().values())
    optimizer.zero_grad(set_to_none=True)  # an earlier call may have ended in the middle of a step
    rows = (micro_batch if config.micro_batch == "auto" else config.micro_batch) or plan.most_rows
    batches = _collated(backbone, method, pairs, plan.from_step(start), lambda: rows, world)
    for step in range(start, total):
        prepare_mode(backbone, method, config)
        rate = learning_rate(config, step, total)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, total, group["highest"])
        indices, ready = next(batches)
        chosen, drawn = [pairs[i] for i in indices], step_seed(seed, step, world.rank)
        while (done := _within_memory(backbone, method, chosen, config, rows, drawn, step, world, ready)) is None:
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            rows = max(1, min(rows, _most_rows(chosen, world)) // 2)
        world.sum_gradients(parameters)
        loss, positions = world.sums(done)
        seen = sum(map(len, chosen)), sum(len(pair.target) for pair in chosen), int(positions)
        norm = float(nn.utils.clip_grad_norm_(parameters, config.clip if config.clip is not None else math.inf))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"step {step + 1}: expected a finite loss and gradient, got loss {loss} and gradient norm {norm} "
                f"on training pairs {indices} (0-based). The update was not applied. "
                "Lower train.lr, set train.clip, or look at these pairs."
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield StepRecord(step + 1, plan.passes(step + 1), loss, rate, norm, *seen, rows)


def make_plan(backbone: Backbone, method: Learner, pairs: Sequence[Encoded], config: TrainConfig, seed: int) -> Plan:
    """The batches of the run."""
    tasks = tuple(pair.task for pair in pairs)
    lengths, equal = tuple(map(len, pairs)), config.mixing == "equal"
    if config.batch_tokens is None:
        return Plan(lengths, config.batch_size, seed, tasks, equal)
    read = tuple(sides(backbone, of_task(method, pair.task), pair) for pair in pairs)
    return Plan(lengths, config.batch_size, seed, tasks, equal, config.batch_tokens, read)


def _within_memory(
    backbone: Backbone,
    method: Learner,
    chosen: Sequence[Encoded],
    config: TrainConfig,
    rows: int,
    generator_seed: int,
    step: int,
    world: World,
    ready: "Ready | None" = None,
) -> tuple[float, float] | None:
    """`_accumulate`, or None where memory ran out in any process and fewer rows may be tried.

    Nothing holds on to the failed pass.
    """
    torch.manual_seed(generator_seed)
    adapts = config.micro_batch == "auto"
    try:
        done = _accumulate(backbone, method, chosen, config, rows, world, ready)
    except torch.OutOfMemoryError as error:
        if not adapts or rows == 1:
            ways = "" if adapts else "train.micro_batch=auto, or "
            raise TrainingError(
                f"step {step + 1}: out of memory with {min(rows, _most_rows(chosen, world))} pairs per forward pass, "
                f"the longest of {max(map(len, chosen))} tokens. The update was not applied. "
                f"Set {ways}train.gradient_checkpointing=true, or take shorter texts."
            ) from error
        done = None
    return None if adapts and world.any(done is None) else done


def _accumulate(
    backbone: Backbone,
    method: Learner,
    chosen: Sequence[Encoded],
    config: TrainConfig,
    rows: int,
    world: World = ALONE,
    ready: "Ready | None" = None,
) -> tuple[float, float]:
    """Forward and backward over this process's share of a step, `rows` pairs at a time; its loss and positions.

    Over all passes of all processes gradients and losses add up to those of the whole batch. `ready` are the step's
    batches where they were collated before, of so many rows.
    """
    target_tokens = sum(len(pair.target) for pair in chosen)
    weight = 1.0 / (target_tokens if config.loss == "token_mean" else len(chosen))
    loss, positions = 0.0, 0
    for number, (pairs, share) in enumerate(_forward_passes(backbone, chosen, rows, world)):
        steering = for_batch(method, [pair.task for pair in pairs])
        if ready is not None and ready[0] == rows:
            batch = ready[1][number].to(backbone.device)
        else:
            batch = make_batch(backbone, steering, pairs)
        with steering.attach(backbone):
            with autocast(backbone.device, config.precision, backbone.model.dtype):
                nll = target_nll(backbone, batch)
            (nll * weight * share).backward()  # type: ignore[no-untyped-call]
        loss += float(nll.detach()) * weight * share
        positions += batch.positions
    return loss, positions


def _most_rows(chosen: Sequence[Encoded], world: World) -> int:
    """Pairs of a batch that a process has at most."""
    return -(-len(chosen) // world.size)


Ready = tuple[int, Sequence[Batch]]
"""Pairs per forward pass, and a step's batches of so many."""


def _forward_passes(
    backbone: Backbone, chosen: Sequence[Encoded], rows: int, world: World
) -> list[tuple[Sequence[Encoded], float]]:
    """This process's share of a step's pairs by length, `rows` at a time, and what they weigh: 1.

    Where every pass is a meeting of all processes, one that has no pairs left passes another's, and they weigh 0.
    """
    ordered = sorted(chosen, key=len)
    own = world.share(ordered)
    count = _most_rows(chosen, world) if is_sharded(backbone.model) else len(own)
    passes = (own[start : start + rows] for start in range(0, count, rows))
    return [(pairs, 1.0) if pairs else (ordered[:1], 0.0) for pairs in passes]


def _collated(
    backbone: Backbone,
    method: Learner,
    pairs: Sequence[Encoded],
    plan: Iterator[list[int]],
    rows: Callable[[], int],
    world: World,
) -> Iterator[tuple[list[int], Ready | None]]:
    """Each step's pairs, on a CUDA device with its batches, made and pinned by a thread while the device computes.

    Not those of several tasks: what stands in their rows is decided by the prompts as they are in the step.
    """
    if isinstance(method, MultiTask) or not _computes_beside_the_host(backbone.device):
        return ((indices, None) for indices in plan)

    def made(indices: list[int]) -> tuple[list[int], Ready]:
        size = rows()
        passes = _forward_passes(backbone, [pairs[index] for index in indices], size, world)
        return indices, (size, [make_host_batch(backbone, method, part).pinned() for part, _ in passes])

    return ahead(map(made, plan))


def _computes_beside_the_host(device: torch.device) -> bool:
    return device.type == "cuda"


def prepare_mode(backbone: Backbone, method: Trainable, config: TrainConfig) -> None:
    """Training mode: the method's dropout on; the frozen backbone's off unless `frozen_dropout` asks for it."""
    backbone.model.train(config.frozen_dropout)
    method.set_mode(True)
    if config.gradient_checkpointing:
        # transformers recomputes only in layers in training mode; inside, they have the mode of their children again.
        for module in backbone.model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.training = True


def autocast(device: torch.device, precision: str, weights: torch.dtype = torch.float32) -> AbstractContextManager[Any]:
    """bfloat16 autocast where `precision` asks for it, or is `auto` and the hardware multiplies bfloat16.

    `weights` is the backbone's type: under `auto`, float16 ones compute as they are.

    Raises:
        ConfigError: bfloat16 is asked for beside float16 weights, which not every device computes together.
    """
    half = weights == torch.float16
    if half and precision == "bfloat16":
        raise ConfigError(
            "train.precision: expected auto or float32 beside float16 weights, got bfloat16. "
            "Change it, or set backbone.dtype=bfloat16."
        )
    if precision == "bfloat16" or (precision == "auto" and not half and has_bfloat16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def has_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are done by the hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))
    return False


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Seed of torch's generators for one step of one process, so that dropout does not depend on what ran before."""
    text = f"{seed}/{step}/{rank}" if rank else f"{seed}/{step}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest())
