"""Optimisers and rates: what they compute, by plain formulas, and that their state goes into a file and back."""

import math
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from torch import nn
from transformers import get_scheduler

from softprompt import checkpoint
from softprompt.adafactor import FullAdafactor
from softprompt.config import OPTIMIZER_FIELDS, TrainConfig
from softprompt.errors import CheckpointError
from softprompt.optim import OPTIMIZERS, learning_rate, make_optimizer, optimizer_state, restore_optimizer
from softprompt.train import training_steps

KINDS = {
    "adamw": {},
    "adafactor": {"optimizer": "adafactor", "scale_parameter": True},
    "adafactor full": {"optimizer": "adafactor", "factored": False},
    "adafactor_torch": {"optimizer": "adafactor_torch"},
}


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**{"lr": 1e-2, "batch_size": 4, "max_steps": 4, "precision": "float32", **changes})


def formula(x: np.ndarray, gradients: list[np.ndarray], lr: float, decay: float, scaled: bool) -> np.ndarray:
    """Adafactor without factors, in float64, straight from the paper's algorithm 4 (beta_2 at t is 1 - t^-0.8)."""
    v = np.zeros_like(x)
    for t, g in enumerate(gradients, start=1):
        beta = 1 - t**-0.8
        v = beta * v + (1 - beta) * (g**2 + 1e-30)
        u = g / np.sqrt(v)
        u = u / max(1.0, float(np.sqrt(np.mean(u**2))))
        scale = max(1e-3, float(np.sqrt(np.mean(x**2)))) if scaled else 1.0
        x = x - lr * scale * (decay * x + u)
    return x


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (4,), ()])
def test_full_adafactor_is_the_papers_formula(shape: tuple[int, ...], scaled: bool) -> None:
    draw = np.random.default_rng(0)
    start, gradients = draw.normal(size=shape), [draw.normal(size=shape) * 10.0**k for k in (0, 1, -2, 0, 3)]
    tensor = nn.Parameter(torch.tensor(start, dtype=torch.float32))
    optimizer = FullAdafactor([tensor], lr=0.3, scale_parameter=scaled, weight_decay=1e-2)
    for gradient in gradients:
        tensor.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
    want = formula(start, gradients, 0.3, 1e-2, scaled)
    assert tensor.detach().numpy() == pytest.approx(want, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("scaled", [False, True])
def test_full_adafactor_is_transformers_own_where_that_factors_nothing(scaled: bool) -> None:
    """On a vector there is nothing to factor."""
    ends = []
    for factored in (True, False):
        method = nn.Linear(1, 7, bias=False)
        with torch.no_grad():
            method.weight = nn.Parameter(torch.linspace(-1, 1, 7))
        settings = config(optimizer="adafactor", factored=factored, scale_parameter=scaled, weight_decay=0.1, lr=0.3)
        groups = [{"params": [method.weight], "highest": 0.3}]
        optimizer = OPTIMIZERS["adafactor"](groups, settings)
        for step in range(5):
            method.weight.grad = torch.sin(torch.arange(7.0) + step)
            optimizer.step()
        ends.append(method.weight.detach())
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-6)


def test_not_factoring_is_another_update_on_a_matrix() -> None:
    ends = []
    for factored in (True, False):
        bone = factories.backbone("gpt2")
        method, settings = factories.prefix(bone), config(optimizer="adafactor", factored=factored)
        list(training_steps(bone, method, make_optimizer(method, settings), factories.pairs(8), settings, seed=0))
        ends.append(method.trainable()["banks.decoder.prefix"].detach())
    assert not torch.allclose(*ends)


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1, 1, 1]),
        ({"schedule": "linear"}, [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ({"schedule": "linear", "warmup_steps": 2}, [0, 1 / 2, 1, 3 / 4, 2 / 4, 1 / 4]),
        ({"schedule": "cosine"}, [(1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]),
        ({"schedule": "constant", "warmup_steps": 4}, [0, 1 / 4, 2 / 4, 3 / 4, 1, 1]),
    ],
)
def test_learning_rate_follows_the_schedule(options: dict[str, object], rates: list[float]) -> None:
    settings = config(lr=0.5, **options)
    assert [learning_rate(settings, step, 6) for step in range(6)] == pytest.approx([0.5 * rate for rate in rates])
    assert learning_rate(settings, 6, 6) == (0.5 if settings.schedule == "constant" else 0)


@pytest.mark.parametrize("schedule", ["linear", "constant_with_warmup", "cosine"])
def test_a_schedule_is_transformers_own(schedule: str) -> None:
    settings, total = config(lr=0.3, warmup_steps=3, schedule=schedule.removesuffix("_with_warmup")), 11
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = get_scheduler(schedule, optimizer, num_warmup_steps=3, num_training_steps=total)
    for step in range(total):
        assert learning_rate(settings, step, total) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("kind", KINDS)
def test_loss_falls(kind: str) -> None:
    bone = factories.backbone("gpt2")
    method, settings = factories.prefix(bone), config(max_steps=30, batch_size=10, lr=2e-2, **KINDS[kind])
    optimizer = make_optimizer(method, settings)
    losses = [r.loss for r in training_steps(bone, method, optimizer, factories.pairs(10), settings, seed=0)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_goes_through_a_file_to_the_bit(kind: str, tmp_path: Path) -> None:
    """Types, shapes and values, Python numbers included; and it is empty before the first step."""
    bone = factories.backbone("gpt2")
    method, settings = factories.prefix(bone), config(max_steps=3, **KINDS[kind])
    optimizer = make_optimizer(method, settings)
    assert optimizer_state(method, optimizer) == {}
    list(training_steps(bone, method, optimizer, factories.pairs(4), settings, seed=0))
    flat = optimizer_state(method, optimizer)
    assert {key.rpartition("/")[0] for key in flat} == method.trainable().keys()
    whole = checkpoint.Checkpoint({}, flat, checkpoint.State(3, 0))
    checkpoint.save(tmp_path, whole, keep=1)

    fresh = make_optimizer(method, settings)
    restore_optimizer(method, fresh, checkpoint.load(tmp_path, 3).optimizer)
    for parameter in method.trainable().values():
        mine, theirs = optimizer.state[parameter], fresh.state[parameter]
        assert mine.keys() == theirs.keys()
        for entry, value in mine.items():
            assert type(value) is type(theirs[entry])
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, theirs[entry]) and value.dtype == theirs[entry].dtype
                assert value.data_ptr() != theirs[entry].data_ptr()
            else:
                assert value == theirs[entry] == 3


def test_state_of_other_tensors_is_refused() -> None:
    method = factories.prefix(factories.backbone("gpt2"))
    optimizer = make_optimizer(method, config())
    with pytest.raises(CheckpointError, match="does not fit the optimiser: names differ, first 'moon'"):
        restore_optimizer(method, optimizer, {"moon/step": torch.tensor(1.0)})


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("key", "value"),
    [("betas", (0.8, 0.9)), ("eps", 1e-3), ("decay_rate", 0.5), ("scale_parameter", True), ("factored", False)],
)
def test_a_setting_that_the_optimiser_does_not_read_is_refused(optimizer: str, key: str, value: object) -> None:
    if optimizer in OPTIMIZER_FIELDS[key]:
        assert getattr(config(optimizer=optimizer, **{key: value}), key) == value
        return
    with pytest.raises(ValueError, match=rf"train.{key} has no effect with optimizer {optimizer}\. Drop it, or set"):
        config(optimizer=optimizer, **{key: value})


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("adamw", "betas", (0.5, 0.9)),
        ("adamw", "eps", 0.1),
        ("adafactor", "decay_rate", 0.5),
        ("adafactor", "scale_parameter", False),
        ("adafactor full", "decay_rate", 0.5),
        ("adafactor full", "scale_parameter", True),
        ("adafactor_torch", "decay_rate", 0.5),
        *((kind, "weight_decay", 0.5) for kind in KINDS),
    ],
)
def test_every_setting_changes_what_is_learned(kind: str, key: str, value: object) -> None:
    ends = []
    for changes in ({}, {key: value}):
        bone = factories.backbone("gpt2")
        method, settings = factories.prefix(bone), config(**{**KINDS[kind], **changes})
        list(training_steps(bone, method, make_optimizer(method, settings), factories.pairs(8), settings, seed=0))
        ends.append(method.trainable()["banks.decoder.prefix"].detach())
    assert not torch.equal(*ends)
