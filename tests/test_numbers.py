"""Numbers that are none: whatever the rate and the precision, no NaN, no infinity and no overflow is ever kept."""

import itertools
import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from jobs import tiny_job
from safetensors.torch import load_file
from sittings import config, setup, sit
from torch import Tensor

from softprompt import checkpoint
from softprompt import fit as fit_module
from softprompt.config import load_recipe
from softprompt.errors import CheckpointError, TrainingError
from softprompt.files import save_tensors
from softprompt.finite import first_unusable
from softprompt.methods import Method, state
from softprompt.optim import make_optimizer, optimizer_state, restore_optimizer
from softprompt.run import run_recipe
from softprompt.train import training_steps


def strict(text: str) -> Any:
    """What JSON itself allows."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def assert_finite_below(folder: Path) -> int:
    """Every number of every file, and how many files there are."""
    files = [path for path in folder.rglob("*") if path.is_file() and "backbone" not in path.parts]
    for path in files:
        if path.suffix == ".safetensors":
            assert all(bool(tensor.isfinite().all()) for tensor in load_file(path).values()), path
        elif path.suffix == ".json":
            strict(path.read_text())
        elif path.suffix == ".jsonl":
            for line in path.read_text().splitlines():
                strict(line)
    return len(files)


# --- what is one -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(3))
def test_the_tensor_that_holds_one_is_named(place: int, value: float, dtype: torch.dtype) -> None:
    tensors = {name: torch.ones(7, 50, dtype=dtype) for name in "abc"} | {"count": torch.tensor(3)}
    assert first_unusable(tensors) is None and first_unusable({}) is None
    tensors["abc"[place]][3, 4] = value
    assert first_unusable(tensors) == "abc"[place]


def test_numbers_whose_squares_overflow_are_usable_as_moments_but_not_as_weights() -> None:
    large = {"small": torch.ones(3), "large": torch.full((3,), 1e30)}
    assert first_unusable(large) is None and first_unusable(large, squares=True) == "large"
    assert first_unusable({"half": torch.full((300,), 6e4, dtype=torch.float16)}, squares=True) is None


def test_no_file_of_tensors_is_written_with_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected finite numbers to keep, got NaN or infinity in 'b'"):
        save_tensors({"a": torch.ones(2), "b": torch.tensor([1.0, math.nan])}, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


# --- after a step ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr", [1e20, 1e30, 1e38, 1e39, 1e300])
@pytest.mark.parametrize("kind", ["prefix", "prompt", "dept", "adapter", "lora", "finetune"])
def test_an_update_that_overflows_is_an_error_of_its_own_step(kind: str, lr: float) -> None:
    bone, method = setup(kind)
    settings = config(lr=lr)
    with pytest.raises(TrainingError, match=r"step 1: expected finite numbers in what is trained .*Lower train.lr"):
        list(training_steps(bone, method, make_optimizer(method, settings), factories.pairs(8), settings, seed=1))


@pytest.mark.parametrize("lr", [1e30, 1e38])
def test_nothing_overflowed_is_saved_and_the_advice_works(lr: float, tmp_path: Path) -> None:
    tiny_job(tmp_path)
    settings = [f"train.lr={lr}", "train.save_every=1", "train.max_steps=6", "untuned=false"]
    recipe = load_recipe(str(tmp_path / "tiny.yaml"), settings)
    with pytest.raises(TrainingError, match=r"step 1: .*Lower train\.lr, and go on with --resume --allow-change train"):
        run_recipe(recipe, tmp_path / "run", quiet=True)
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == []
    lower = load_recipe(str(tmp_path / "tiny.yaml"), ["train.lr=1e-3", *settings[1:]])
    (result,) = run_recipe(lower, tmp_path / "run", resume=True, allow_change=["train.lr"], quiet=True)
    assert result.training is not None and result.training["steps"] == 6
    assert assert_finite_below(tmp_path / "run") > 10


def test_moments_that_overflow_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = optimizer_state

    def overflowed(*args: Any) -> dict[str, Tensor]:
        return {name: tensor * math.inf if "exp_avg" in name else tensor for name, tensor in real(*args).items()}

    monkeypatch.setattr(fit_module, "optimizer_state", overflowed)
    with pytest.raises(TrainingError, match=r"step 2: expected finite numbers in what the optimiser keeps .*exp_avg"):
        sit(tmp_path)
    assert checkpoint.steps(tmp_path / "checkpoints") == []


# --- weights that are finite and cannot be used ----------------------------------------------------------------------


def broken_from(patch: pytest.MonkeyPatch, step: int) -> None:
    """Gradients are not finite any more once `step` steps are done, whatever the rate."""
    real = fit_module.training_steps

    def struck(bone: Any, method: Method, *args: Any, start: int, **kwargs: Any) -> Iterator[object]:
        tensor = next(iter(method.trainable().values()))
        steps = real(bone, method, *args, start=start, **kwargs)
        for done in itertools.count(start):
            if done >= step:
                tensor.register_hook(lambda gradient: gradient * math.nan)
            record = next(steps, None)
            if record is None:
                return
            yield record

    patch.setattr(fit_module, "training_steps", struck)


def test_a_checkpoint_that_cannot_be_gone_on_with_is_set_aside_and_an_earlier_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = {"save_every": 1, "keep": 3, "select": "last"}
    with monkeypatch.context() as patch:
        broken_from(patch, 5)
        for earlier in (4, 3):  # again from step 4, and so the one before it goes too
            with pytest.raises(TrainingError, match=rf"step 6: .* checkpoint of step 5 .* goes on from step {earlier}"):
                sit(tmp_path, **every)
            assert checkpoint.steps(tmp_path / "checkpoints")[-1] == earlier
    aside = {path.name for path in (tmp_path / "checkpoints").glob("unusable-*")}
    assert aside == {"unusable-000005", "unusable-000005-1", "unusable-000004"}
    fitted, _ = sit(tmp_path, **every)
    assert fitted.steps == 9


def test_weights_that_someone_changed_are_not_the_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fit_module.training_steps

    def poisoned(bone: Any, method: Method, *args: Any, **kwargs: Any) -> Iterator[object]:
        for record in real(bone, method, *args, **kwargs):
            yield record
            if record.step == 3:
                with torch.no_grad():
                    next(iter(method.trainable().values())).fill_(math.nan)

    monkeypatch.setattr(fit_module, "training_steps", poisoned)
    with pytest.raises(TrainingError, match=r"step 4: .*train\.$"):
        sit(tmp_path)
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] == 3


def test_without_dev_data_the_last_weights_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "mean_token_nll", lambda *args, **kwargs: math.nan)
    with pytest.raises(TrainingError, match="step 9: expected a finite loss, got nan"):
        sit(tmp_path, dev=False)
    assert 9 not in checkpoint.steps(tmp_path / "checkpoints")


def test_a_best_checkpoint_that_is_gone_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later best had taken its place and was set aside: any dev loss from there on may be the best again."""
    losses = iter([5.0, 4.0, 9.0, 8.0, 7.0, 7.5])
    monkeypatch.setattr(fit_module, "mean_token_nll", lambda *args, **kwargs: next(losses))
    with monkeypatch.context() as patch:
        broken_from(patch, 4)
        with pytest.raises(TrainingError, match="The checkpoint of step 4"):
            sit(tmp_path, save_every=1)
    assert checkpoint.load(tmp_path / "checkpoints", 3).state.best_step == 2
    assert checkpoint.steps(tmp_path / "checkpoints") == [3]
    fitted, _ = sit(tmp_path, save_every=1)
    assert (fitted.selected_step, fitted.dev_loss) == (8, 7.0)


# --- half precision --------------------------------------------------------------------------------------------------


def test_float16_that_overflows_writes_no_dev_loss(tmp_path: Path) -> None:
    tiny_job(tmp_path)
    settings = ["backbone.dtype=float16", "method={name: prefix, length: 3, reparam: none}", "train.lr=1e5"]
    settings += ["train.eval_every=1", "untuned=false"]
    with pytest.raises(TrainingError, match="step 1: expected a finite dev loss, got nan"):
        run_recipe(load_recipe(str(tmp_path / "tiny.yaml"), settings), tmp_path / "run", quiet=True)
    assert_finite_below(tmp_path / "run")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_moments_that_an_earlier_version_kept_in_half_precision_go_on_in_float32(dtype: torch.dtype) -> None:
    _, method = setup("lora")
    optimizer = make_optimizer(method, config())
    flat: dict[str, Tensor] = {}
    for name, tensor in state(method).items():
        moments = {entry: torch.full_like(tensor, 0.5, dtype=dtype) for entry in ("exp_avg", "exp_avg_sq")}
        flat |= {f"{name}/{entry}": moment for entry, moment in moments.items()}
        flat[f"{name}/step"] = torch.tensor(2.0)
    restore_optimizer(method, optimizer, flat)
    for parameter in method.trainable().values():
        parameter.grad = torch.ones_like(parameter)
        assert optimizer.state[parameter]["exp_avg"].dtype == torch.float32
    optimizer.step()


# --- the attack ------------------------------------------------------------------------------------------------------

METHODS = (
    "{name: prefix, length: 3, hidden: 8}",
    "{name: prefix, length: 3, reparam: none}",
    "{name: prompt, length: 3}",
    "{name: dept, length: 3, text_length: 8, rank: 2, lowrank_lr: 1e-2}",
    "{name: lora, rank: 2}",
    "{name: adapter, bottleneck: 4}",
    "finetune",
)
OPTIMIZERS = (
    [],
    ["train.clip=null"],
    ["train.optimizer=adafactor", "train.schedule=constant"],
    ["train.optimizer=adafactor", "train.factored=false", "train.scale_parameter=true"],
    ["train.optimizer=adafactor_torch"],
)
PRECISIONS = (
    [],
    ["train.precision=bfloat16"],
    ["backbone.dtype=bfloat16"],
    ["backbone.dtype=float16"],
)
RATES = (1e2, 1e3, 1e5, 1e10, 1e13, 1e16, 1e19, 1e20, 1e25, 1e30, 1e37, 1e38, 1e39, 1e100, 1e300)


def drawn(count: int) -> list[list[str]]:
    """Settings in which each method, optimiser, precision and rate comes about equally often."""
    draw, columns = random.Random(13), []
    for choices in (METHODS, OPTIMIZERS, PRECISIONS, RATES):
        column: list[Any] = list(choices) * (count // len(choices) + 1)
        columns.append(draw.sample(column[:count], count))
    return [
        [f"method={method}", *optimizer, *precision, f"train.lr={rate}", *draw.choice((["train.eval_every=1"], []))]
        for method, optimizer, precision, rate in zip(*columns, strict=True)
    ]


def attack(place: Path, settings: Sequence[str]) -> str:
    """What became of one setting, and of the advice where it failed. Everything kept is finite throughout."""
    fixed = ["untuned=false", "train.max_steps=5", "train.save_every=1", "decode.max_new_tokens=3"]
    job, run = str(place / "tiny.yaml"), place / "run"
    try:
        run_recipe(load_recipe(job, [*settings, *fixed]), run, quiet=True)
    except TrainingError as error:
        assert "expected" in str(error) and "finite" in str(error)
    else:
        assert_finite_below(run)
        return "done, all finite"
    assert_finite_below(run)
    gentle = [*(one for one in settings if "train.lr" not in one), "train.lr=1e-5"]
    for attempt in range(1, 7):
        try:
            run_recipe(load_recipe(job, [*gentle, *fixed]), run, resume=True, allow_change=["train.lr"], quiet=True)
        except TrainingError:
            assert_finite_below(run)
        else:
            assert_finite_below(run)
            return f"stopped, went on at the {attempt}. try"
    return "stopped, starts anew"


@pytest.mark.faults
@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_fault_07_none_of_many_rates_and_precisions_keeps_one(count: int, tmp_path: Path) -> None:
    ends: dict[str, int] = {}
    for number, settings in enumerate(drawn(60)[:: 60 // count]):
        place = tmp_path / str(number)
        place.mkdir()
        tiny_job(place)
        end = attack(place, settings)
        ends[end] = ends.get(end, 0) + 1
    listed = "; ".join(f"{end}: {often}" for end, often in sorted(ends.items()))
    print(f"\nfault 7: {count} settings of rate and precision, no NaN and no infinity kept ({listed})")
    assert sum(ends.values()) == count and sum(end.startswith("stopped") for end in ends)
