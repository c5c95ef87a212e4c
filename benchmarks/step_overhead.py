"""What a training step costs outside torch: plan, collating, modes, steering, the log, TensorBoard's points.

    python benchmarks/step_overhead.py [--steps 200] [--pairs e2e=42061 yelp=650000] [--tiny] [--out FILE]

GPT-2 small's twelve layers, narrow, so that its Python is all there and its arithmetic is soon done; random weights,
prefix 5, batches of 10, lengths as E2E's. A step's overhead is its time less that spent in forward and backward passes
(attaching the prefix is overhead but for its slicing), the clipping, the optimiser and the check of what came out. The
making of an epoch's batches is spread over the epoch. It depends on how many pairs there are, not on what they say.
Times are the processor's, so that a busy machine does not count. Prints JSON.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from common import backbone, common_arguments, emit, random_model, synthetic_pairs
from torch import nn

from softprompt import fit as fit_module
from softprompt import forms
from softprompt import passes as passes_module
from softprompt import train as train_module
from softprompt.backbone import Backbone
from softprompt.batch import Encoded
from softprompt.config import TrainConfig
from softprompt.method_config import PrefixTuning
from softprompt.methods import PrefixMethod

DISTINCT = 2000
"""Pairs drawn; more are the same again."""
IN_TORCH: list[tuple[Any, str]] = [
    (passes_module.Passes, "_add_gradients"),
    (nn.utils, "clip_grad_norm_"),
    (torch, "manual_seed"),
    (torch.optim.AdamW, "step"),
    (torch.optim.AdamW, "zero_grad"),
    (train_module, "require_finite"),
]
"""Where a step is torch's."""


class Watch:
    """Seconds in torch, and the ends of the steps; of this thread's processor, as others may be busy on the machine."""

    def __init__(self) -> None:
        self.inside = 0.0
        self.ends: list[tuple[float, float]] = []
        self._deep = False

    def around(self, owner: Any, name: str, *, again: bool = False) -> None:
        """Add the time of every call of a function, those inside another one counted once, or `again`."""
        real: Callable[..., Any] = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._deep and not again:
                return real(*args, **kwargs)
            deep, self._deep, started = self._deep, True, time.thread_time()
            try:
                return real(*args, **kwargs)
            finally:
                self._deep = deep
                self.inside += time.thread_time() - started

        setattr(owner, name, call)

    def not_within(self, owner: Any, name: str) -> None:
        """Take the ways into and out of a context out of what is counted around them."""
        real: Callable[..., AbstractContextManager[None]] = getattr(owner, name)

        @contextmanager
        def call(*args: Any, **kwargs: Any) -> Iterator[None]:
            context = real(*args, **kwargs)
            started = time.thread_time()
            with context:
                self.inside -= time.thread_time() - started
                yield
                started = time.thread_time()
            self.inside -= time.thread_time() - started

        setattr(owner, name, call)

    def behind(self, owner: Any, name: str) -> None:
        """A step ends where this function does."""
        real: Callable[..., Any] = getattr(owner, name)

        def call(*args: Any) -> Any:
            done = real(*args)
            self.ends.append((time.thread_time(), self.inside))
            return done

        setattr(owner, name, call)

    def overheads(self) -> list[float]:
        """Seconds outside torch of each step but the first."""
        pairs = zip(self.ends, self.ends[1:], strict=False)
        return [(end - start) - (inside - before) for (start, before), (end, inside) in pairs]


def measured(watch: Watch, bone: Backbone, pairs: list[Encoded], steps: int, precision: str) -> dict[str, float]:
    """Milliseconds a step outside torch, and what making an epoch's batches takes of it."""
    watch.ends.clear()
    method = PrefixMethod.build(bone, PrefixTuning(length=5, hidden=64))
    config = TrainConfig(max_steps=steps, save_every=steps + 1, eval_every=steps + 1, precision=precision)
    plan = train_module.make_plan(bone, method, pairs, config, 1)
    started = time.perf_counter()
    next(plan.from_step(0))
    planning = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        fit_module.fit(bone, method, pairs, [], config, Path(folder), seed=1, quiet=True)
    spread = planning / (len(pairs) / config.batch_size)
    return {
        "pairs": len(pairs),
        "plan_seconds": planning,
        "plan_ms_a_step": 1000 * spread,
        "outside_torch_ms_a_step": 1000 * (statistics.median(watch.overheads()[:-1]) + spread),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pairs", nargs="+", default=["e2e=42061", "yelp=650000"], metavar="NAME=COUNT")
    args = common_arguments(parser)
    counts = {name: int(count) for name, _, count in (one.partition("=") for one in args.pairs)}
    model = random_model(tiny=True, layers=2 if args.tiny else 12)
    bone, watch = backbone(model), Watch()
    drawn = synthetic_pairs(model, DISTINCT)
    for owner, name in IN_TORCH:
        if hasattr(owner, name):
            watch.around(owner, name)
    watch.not_within(PrefixMethod, "attach")
    watch.around(forms, "split", again=True)
    watch.behind(fit_module._Sitting, "settle")
    found = {}
    for name, count in counts.items():
        pairs = (drawn * -(-count // DISTINCT))[:count]
        found[name] = measured(watch, bone, pairs, args.steps, args.precision)
    setting = {"backbone": f"gpt2, {model.config.num_hidden_layers} narrow layers", "batch": 10, "prefix_length": 5}
    emit(
        {
            "benchmark": "step_overhead",
            "setting": setting | {"steps": args.steps, "precision": args.precision},
            "data": found,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
