"""A run in its folder: resumed equals never stopped, for every method and optimiser; the best is kept."""

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import factories
import pytest
import torch
from jobs import long_job
from sittings import (
    KINDS,
    PAIRED,
    SETTINGS,
    TOTAL,
    Crash,
    Result,
    assert_same,
    config,
    crash,
    crash_at_forward,
    result,
    setup,
    sit,
)
from torch import Tensor

from softprompt import checkpoint, inject
from softprompt import fit as fit_module
from softprompt import loss as loss_module
from softprompt.backbone import Backbone
from softprompt.config import load_recipe
from softprompt.errors import CheckpointError, TrainingError
from softprompt.fit import METRICS, fit
from softprompt.loss import mean_token_nll
from softprompt.methods import METHODS, Method, state
from softprompt.optim import make_optimizer
from softprompt.run import run_recipe
from softprompt.train import training_steps


@pytest.fixture(scope="module", params=PAIRED, ids=[f"{kind}-{setting}" for kind, setting in PAIRED])
def paired(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture(scope="module")
def unbroken(paired: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Result:
    return result(tmp_path_factory.mktemp("unbroken"), paired[0], **SETTINGS[paired[1]])


def test_every_method_and_every_optimiser_is_among_the_pairs() -> None:
    assert {kind for kind, _ in PAIRED} == set(KINDS) and {setting for _, setting in PAIRED} == set(SETTINGS)
    assert {config.name for config in KINDS.values()} == set(METHODS)


def test_stopped_again_and_again_equals_never_stopped(
    paired: tuple[str, str], unbroken: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, setting = paired
    for forward in (1, 7, 3, 5):
        with monkeypatch.context() as patch:
            crash_at_forward(patch, forward, crash)
            with pytest.raises(Crash):
                sit(tmp_path, kind, **SETTINGS[setting])
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] >= 3
    assert_same(result(tmp_path, kind, **SETTINGS[setting]), unbroken)


@pytest.mark.parametrize("forward", [1, 2, 3, 5, 8, 11, 13])
def test_resumed_equals_never_stopped_wherever_it_was(
    forward: int, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        crash_at_forward(patch, forward, crash)
        with pytest.raises(Crash):
            sit(tmp_path)
    assert_same(result(tmp_path), result(tmp_path_factory.mktemp("whole")))


BY_EPOCH = {"batch_tokens": 50, "batch_size": 10, "eval_every": None, "save_every": None}


@pytest.mark.parametrize(
    "changes", [{"gradient_checkpointing": True}, {"micro_batch": 2}, {"select": "last"}, BY_EPOCH], ids=str
)
def test_resumed_equals_never_stopped_under_other_settings(
    changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        crash_at_forward(patch, 8, crash)
        with pytest.raises(Crash):
            sit(tmp_path / "broken", **changes)
    assert_same(result(tmp_path / "broken", **changes), result(tmp_path / "whole", **changes))


def test_a_finished_run_is_read_back_and_not_written_to(
    paired: tuple[str, str], tmp_path: Path, unbroken: Result
) -> None:
    kind, setting = paired
    result(tmp_path, kind, **SETTINGS[setting])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "tb" not in path.parts}
    assert_same(result(tmp_path, kind, **SETTINGS[setting]), unbroken)
    assert {path: path.read_bytes() for path in before} == before


def test_under_a_budget_a_dev_loss_comes_at_the_end_of_every_epoch(tmp_path: Path) -> None:
    sit(tmp_path, **BY_EPOCH)
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    ends = [line["step"] for line in lines if line.get("epoch", 0.5) % 1 == 0]
    assert len(ends) > 1 and [line["step"] for line in lines if "dev_loss" in line] == sorted({*ends, TOTAL})
    assert all(line["positions"] <= 50 for line in lines if "positions" in line)


# --- what is written -------------------------------------------------------------------------------------------------


def test_metrics_have_one_line_a_step_and_one_a_dev_loss_and_no_clock(tmp_path: Path) -> None:
    fitted, method = sit(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, TOTAL + 1))
    assert [line["step"] for line in lines if "dev_loss" in line] == [2, 4, 6, 8, 9]
    keys = {"step", "epoch", "loss", "lr", "grad_norm", "tokens", "target_tokens", "positions", "micro_batch"}
    assert all(line.keys() in (keys, {"step", "dev_loss"}) for line in lines)
    bone, other = setup()
    records = training_steps(bone, other, make_optimizer(other, config()), factories.pairs(10), config(), seed=7)
    assert [line["loss"] for line in lines if "loss" in line] == [record.loss for record in records]
    assert fitted.tokens_per_second > 0 and fitted.seconds > 0 and 0 < fitted.padding < 1
    bone.model.eval(), method.set_mode(False)
    dev = mean_token_nll(bone, method, factories.pairs(5, seed=99), batch_size=2)
    assert fitted.dev_loss == pytest.approx(dev, rel=1e-6)


def planned(patch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Dev losses as told, one after the other."""
    told = iter(losses)
    patch.setattr(fit_module, "mean_token_nll", lambda *args, **kwargs: next(told))


def weights_after(folder: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """What the same run had at `step`, by the plain loop."""
    bone, method = setup()
    optimizer = make_optimizer(method, config())
    for record in training_steps(bone, method, optimizer, factories.pairs(10), config(), seed=7):
        if record.step == step:
            return {name: tensor.clone() for name, tensor in state(method).items()}
    raise AssertionError(step)


@pytest.mark.parametrize(
    ("losses", "select", "chosen", "kept"),
    [
        ([5.0, 3.0, 4.0, 6.0, 7.0], "best", 4, [4, 6, 9]),
        ([1.0, 3.0, 4.0, 6.0, 7.0], "best", 2, [2, 6, 9]),
        ([5.0, 4.0, 3.0, 2.0, 1.0], "best", 9, [8, 9]),
        ([5.0, 3.0, 3.0, 6.0, 3.0], "best", 4, [4, 6, 9]),
        ([5.0, 3.0, 4.0, 6.0, 7.0], "last", 9, [4, 6, 9]),
    ],
)
def test_the_weights_of_the_lowest_dev_loss_are_kept(
    losses: list[float], select: str, chosen: int, kept: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(monkeypatch, losses)
    fitted, method = sit(tmp_path, select=select)
    assert (fitted.steps, fitted.selected_step) == (TOTAL, chosen)
    assert fitted.dev_loss == (min(losses) if select == "best" else losses[-1])
    want = weights_after(tmp_path, chosen, monkeypatch)
    assert [key for key, tensor in state(method).items() if not torch.equal(tensor, want[key])] == []
    assert checkpoint.steps(tmp_path / "checkpoints") == kept


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_dev_loss_that_is_not_finite_ends_the_run_and_keeps_nothing_of_its_step(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(monkeypatch, [5.0, 3.0, value])
    with pytest.raises(TrainingError, match=r"step 6: expected a finite dev loss, got .*Nothing of this step.*Lower"):
        sit(tmp_path)
    assert checkpoint.steps(tmp_path / "checkpoints") == [3, 4]
    assert not {"NaN", "Infinity"} & set((tmp_path / METRICS).read_text().replace(",", " ").replace("}", " ").split())


def test_without_dev_data_the_last_weights_are_kept(tmp_path: Path) -> None:
    fitted, method = sit(tmp_path, dev=False)
    assert (fitted.selected_step, fitted.dev_loss) == (TOTAL, None)
    want = weights_after(tmp_path, TOTAL, pytest.MonkeyPatch())
    assert all(torch.equal(tensor, want[key]) for key, tensor in state(method).items())
    assert "dev_loss" not in (tmp_path / METRICS).read_text()


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fit_module.training_steps

    def poisoned(bone: Backbone, method: Method, *args: object, **kwargs: object) -> Iterator[object]:
        for record in real(bone, method, *args, **kwargs):
            yield record
            if record.step == 4:
                with torch.no_grad():
                    method.trainable()["banks.decoder.prefix"][0, 0] = math.nan

    monkeypatch.setattr(fit_module, "training_steps", poisoned)
    with pytest.raises(TrainingError, match=r"step 5: .* training pairs \["):
        sit(tmp_path)
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] in (3, 4)
    for step in checkpoint.steps(tmp_path / "checkpoints"):
        saved = checkpoint.load(tmp_path / "checkpoints", step)
        assert all(tensor.isfinite().all() for tensor in (*saved.method.values(), *saved.optimizer.values()))
    assert "NaN" not in (tmp_path / METRICS).read_text()


def test_metrics_shorter_than_the_checkpoint_knows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        crash_at_forward(patch, 8, crash)
        with pytest.raises(Crash):
            sit(tmp_path)
    (tmp_path / METRICS).write_text("")
    with pytest.raises(CheckpointError, match=r"metrics.jsonl: expected at least \d+ bytes .* got 0"):
        sit(tmp_path)


def test_moments_of_another_optimiser_are_refused(tmp_path: Path) -> None:
    sit(tmp_path)
    with pytest.raises(CheckpointError, match=r"expected moments of adafactor, got those of adamw\. Resume with train"):
        sit(tmp_path, optimizer="adafactor")


def test_checkpoints_of_another_method_are_refused(tmp_path: Path) -> None:
    sit(tmp_path)
    bone, _ = setup()
    other = factories.prefix(bone, length=4)
    with pytest.raises(CheckpointError, match=r"does not fit the method: 'banks\.decoder\.prefix' expected"):
        fit(bone, other, factories.pairs(10), [], config(), tmp_path, seed=7, quiet=True)


def test_gradient_checkpointing_in_a_recipe_recomputes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    real = inject._attend
    monkeypatch.setattr(inject, "_attend", lambda *a, **k: (calls.append(torch.is_grad_enabled()), real(*a, **k))[1])
    counts, losses = [], []
    for on in (False, True):
        recipe = long_job(tmp_path / str(on), max_steps=5, gradient_checkpointing=on)
        calls.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            run_recipe(load_recipe(str(recipe)), tmp_path / str(on) / "out", quiet=True)
        counts.append(sum(calls))
        losses.append((tmp_path / str(on) / "out" / METRICS).read_text())
    assert counts == [5, 10]
    for one, other in zip(*(map(json.loads, text.splitlines()) for text in losses), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({}, 32),
        ({"micro_batch": 1}, 1),
        ({"micro_batch": 3}, 3),
        ({"micro_batch": "auto"}, 4),
        ({"batch_size": 40}, 40),
    ],
    ids=str,
)
def test_a_dev_loss_takes_no_more_rows_than_training_does(
    changes: dict[str, object], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    real = loss_module.make_batch
    monkeypatch.setattr(loss_module, "make_batch", lambda b, m, pairs: (rows.append(len(pairs)), real(b, m, pairs))[1])
    bone, method = setup("prompt")
    settings, dev = config(max_steps=2, **changes), factories.pairs(45, seed=99)
    fitted = fit(bone, method, factories.pairs(10), dev, settings, tmp_path, seed=7, quiet=True)
    assert max(rows) == most and sum(rows) == 45
    monkeypatch.undo()
    bone.model.eval(), method.set_mode(False)
    assert fitted.dev_loss == pytest.approx(mean_token_nll(bone, method, dev, batch_size=45), rel=1e-5)
