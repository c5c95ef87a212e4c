"""A tiny run that may be stopped anywhere: one call of `fit`, ways to die in it, and what must not change."""

import gc
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import factories
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from softprompt import checkpoint
from softprompt.backbone import Backbone
from softprompt.batch import Encoded
from softprompt.config import TrainConfig
from softprompt.fit import METRICS, Fitted, fit
from softprompt.method_config import (
    Adapter,
    DePT,
    FineTuning,
    LoRA,
    MethodConfig,
    Peft,
    PrefixTuning,
    PromptTuning,
)
from softprompt.methods import METHODS, state
from softprompt.multitask import Learner, MultiTask

TOTAL = 9
"""Optimiser steps of a run, where nothing else is said."""

KINDS: dict[str, MethodConfig] = {
    "prefix": PrefixTuning(length=5, hidden=16, dropout=0.3),
    "prefix deep": PrefixTuning(length=3, hidden=8, reparam="deep", dropout=0.1),
    "prefix none": PrefixTuning(length=3, reparam="none"),
    "prompt": PromptTuning(length=4),
    "prompt residual": PromptTuning(length=4, reparam="residual", bottleneck=8),
    "dept": DePT(length=3, text_length=8, rank=2, lowrank_lr=1e-2),
    "adapter": Adapter(bottleneck=4),
    "adapter houlsby": Adapter(design="houlsby", bottleneck=4),
    "lora": LoRA(rank=2, dropout=0.1),
    "peft": Peft(type="IA3"),
    "finetune": FineTuning(),
    "finetune top": FineTuning(top=1),
}
"""Every method, with all the ways of writing it that differ in what is trained."""

SETTINGS: dict[str, dict[str, object]] = {
    "adamw": {},
    "adafactor": {"optimizer": "adafactor", "schedule": "constant", "scale_parameter": True, "warmup_steps": 2},
    "adafactor full": {"optimizer": "adafactor", "factored": False, "schedule": "cosine", "loss": "sentence_sum"},
    "adafactor_torch": {"optimizer": "adafactor_torch", "schedule": "cosine", "micro_batch": 2, "weight_decay": 0.1},
}
"""Every optimiser, and among them every schedule and loss."""

TOGETHER: dict[str, dict[str, MethodConfig]] = {
    "two tasks": {"tea": PrefixTuning(length=5, hidden=8, dropout=0.3), "pie": PromptTuning(length=3)}
}
"""Several tasks, a prompt each, of different kinds and lengths."""

PAIRED = [(kind, list(SETTINGS)[index % len(SETTINGS)]) for index, kind in enumerate(KINDS)]
"""Every kind once, every setting at least twice."""


def setup(kind: str = "prefix") -> tuple[Backbone, Learner]:
    """Always the same start, dropout included."""
    bone = factories.backbone("gpt2", n_layer=2 if kind == "finetune top" else 1)
    torch.manual_seed(3)
    if kind in TOGETHER:
        return bone, MultiTask({task: METHODS[own.name](bone, own) for task, own in TOGETHER[kind].items()})
    return bone, METHODS[KINDS[kind].name](bone, KINDS[kind])


def config(**changes: object) -> TrainConfig:
    settings = {"lr": 3e-2, "batch_size": 4, "max_steps": TOTAL, "eval_every": 2, "save_every": 3, "keep": 2}
    return TrainConfig(**{**settings, "precision": "float32", **changes})


def pairs(kind: str, count: int, *, seed: int = 0) -> list[Encoded]:
    """Pairs of the kind's tasks: the first has two thirds of them."""
    tasks = list(TOGETHER.get(kind, [""]))
    return [
        replace(pair, task=tasks[number % 3 // 2 % len(tasks)])
        for number, pair in enumerate(factories.pairs(count, seed=seed))
    ]


def sit(folder: Path, kind: str = "prefix", *, dev: bool = True, **changes: object) -> tuple[Fitted, Learner]:
    """One call of `fit` by a process that knows nothing but the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    bone, method = setup(kind)
    torch.manual_seed(random.randrange(2**32))
    dev_pairs = pairs(kind, 5, seed=99) if dev else []
    return fit(bone, method, pairs(kind, 10), dev_pairs, config(**changes), folder, seed=7, quiet=True), method


Result = tuple[dict[str, Tensor], bytes, int, float | None]


def result(folder: Path, kind: str = "prefix", **changes: object) -> Result:
    """Finish the run and return everything that must not depend on how often it was stopped."""
    fitted, method = sit(folder, kind, **changes)
    assert fitted.steps == config(**changes).max_steps
    return state(method), (folder / METRICS).read_bytes(), fitted.selected_step, fitted.dev_loss


def assert_same(one: Result, other: Result) -> None:
    assert one[1:] == other[1:]
    assert one[0].keys() == other[0].keys()
    assert [key for key in one[0] if not torch.equal(one[0][key], other[0][key])] == []


def newest(folder: Path) -> int:
    """Step of the newest checkpoint that is whole; 0 where there is none."""
    found = checkpoint.load_newest(folder / "checkpoints")
    return 0 if found is None else found.state.step


def said(text: str) -> None:
    """Print the number of a fault test, for `make faults`."""
    print(f"\n{text}")


# --- ways to die -----------------------------------------------------------------------------------------------------


class Crash(Exception):
    """Stands for anything that ends a process without warning."""


def crash() -> None:
    raise Crash


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash_at_forward(patch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Call `act` before the backbone's forward pass of this number (from 1; the probe's pass is not counted)."""
    calls = iter(range(1, 10**6))
    real = nn.Module.__call__

    def counted(module: nn.Module, *args: object, **kwargs: object) -> object:
        if type(module).__name__ == "GPT2LMHeadModel" and "position_ids" in kwargs and next(calls) == number:
            act()
        return real(module, *args, **kwargs)

    patch.setattr(nn.Module, "__call__", counted)


IN_A_SAVE = {
    "save": (checkpoint, "save", True),
    "tensors written": (safetensors.torch, "save_file", False),
    "before fsync": (os, "fsync", True),
    "before rename": (Path, "rename", True),
    "after rename": (Path, "rename", False),
    "pruning": (shutil, "rmtree", True),
}
"""Place -> owner and name of the function, and whether death comes before it is called or after."""


def die_at(patch: pytest.MonkeyPatch, place: str, number: int) -> None:
    """Arrange for this process to be killed at the `number`-th visit of `place`."""
    if place == "forward":
        return crash_at_forward(patch, number, die)
    owner, name, before = IN_A_SAVE[place]
    calls, real = iter(range(1, 10**6)), getattr(owner, name)

    def watched(*args: object, **kwargs: object) -> object:
        last = next(calls) == number
        if last and before:
            if place == "pruning" and Path(str(args[0])).exists():
                next(path for path in Path(str(args[0])).iterdir()).unlink()
            die()
        done = real(*args, **kwargs)
        if last:
            die()
        return done

    patch.setattr(owner, name, watched)


def doomed(folder: Path, kind: str, place: str, number: int, changes: dict[str, object]) -> None:
    """Body of a process that is to be killed."""
    torch.set_num_threads(1)
    die_at(pytest.MonkeyPatch(), place, number)
    sit(folder, kind, **changes)


def slow(folder: Path, kind: str) -> None:
    """Body of a process that takes its time, to be killed from outside."""
    torch.set_num_threads(1)
    real = nn.Module.__call__

    def slowly(module: nn.Module, *args: object, **kwargs: object) -> object:
        if type(module).__name__ == "GPT2LMHeadModel":
            time.sleep(0.05)
        return real(module, *args, **kwargs)

    nn.Module.__call__ = slowly  # type: ignore[method-assign]
    sit(folder, kind)


@cache
def processes() -> ForkServerContext:
    """Processes that start in no time, torch being imported once in the server that they are forked from."""
    context = multiprocessing.get_context("forkserver")
    heavy = ["softprompt.sweep", "torch.utils.tensorboard", "transformers.models.gpt2.modeling_gpt2", "torch._dynamo"]
    context.set_forkserver_preload(["pytest", "peft", "sittings", *heavy])
    return context


def start(body: Callable[..., None], *args: object) -> BaseProcess:
    process = processes().Process(target=warm, args=(body, *args))
    process.start()
    return process


def warm(body: Callable[..., None], *args: object) -> None:
    """Do `body` in a process that was forked; what the server imported is no garbage, and is not looked at for it."""
    gc.freeze()
    body(*args)


def assert_killed(process: BaseProcess) -> None:
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def kill_and_resume(
    folder: Path, kind: str, setting: str, places: list[tuple[str, int]], whole: Result, **changes: object
) -> None:
    """Kill a run at each of `places` in turn, let it finish, and compare it with the `whole` one.

    No kill may cost a step that a checkpoint held before.
    """
    settings, held = {**SETTINGS[setting], **changes}, 0
    for place, number in places:
        assert_killed(start(doomed, folder, kind, place, number, settings))
        assert newest(folder) >= held
        held = newest(folder)
    assert_same(result(folder, kind, **settings), whole)
    assert not list((folder / "checkpoints").glob(".*"))
