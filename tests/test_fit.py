"""A run in its folder: resumed equals never stopped, whatever stopped it; the best is kept; no harm is saved."""

import errno
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import factories
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from softprompt import checkpoint, inject
from softprompt import fit as fit_module
from softprompt.backbone import Backbone
from softprompt.config import TrainConfig, load_recipe
from softprompt.errors import CheckpointError, Interrupted, TrainingError
from softprompt.fit import METRICS, Fitted, fit
from softprompt.loss import mean_token_nll
from softprompt.method_config import FineTuning
from softprompt.methods import METHODS, Method, state
from softprompt.run import run_recipe
from softprompt.train import training_steps

METHOD_NAMES = ["prefix", "finetune"]
TOTAL = 9


def setup(which: str = "prefix") -> tuple[Backbone, Method]:
    """Always the same start; dropout is on for both methods."""
    bone = factories.backbone("gpt2", n_layer=1)
    return bone, factories.prefix(bone, dropout=0.3) if which == "prefix" else METHODS["finetune"](bone, FineTuning())


def config(**changes: object) -> TrainConfig:
    settings = {"lr": 3e-2, "batch_size": 4, "max_steps": TOTAL, "eval_every": 2, "save_every": 3, "keep": 2}
    return TrainConfig(**{**settings, "precision": "float32", **changes})


def sit(folder: Path, which: str = "prefix", *, dev: bool = True, **changes: object) -> tuple[Fitted, Method]:
    """One call of `fit` by a process that knows nothing but the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(random.randrange(2**32))
    bone, method = setup(which)
    dev_pairs = factories.pairs(5, seed=99) if dev else []
    return fit(bone, method, factories.pairs(10), dev_pairs, config(**changes), folder, seed=7, quiet=True), method


def result(
    folder: Path, which: str = "prefix", **changes: object
) -> tuple[dict[str, Tensor], bytes, int, float | None]:
    """Finish the run and return everything that must not depend on how often it was stopped."""
    fitted, method = sit(folder, which, **changes)
    assert fitted.steps == TOTAL
    return state(method), (folder / METRICS).read_bytes(), fitted.selected_step, fitted.dev_loss


def assert_same(one: tuple, other: tuple) -> None:
    assert one[1:] == other[1:]
    assert one[0].keys() == other[0].keys()
    assert [key for key in one[0] if not torch.equal(one[0][key], other[0][key])] == []


@pytest.fixture(scope="module", params=METHOD_NAMES)
def which(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def unbroken(which: str, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    return result(tmp_path_factory.mktemp("unbroken"), which)


class Crash(Exception):
    """Stands for anything that ends a process without warning."""


def crash_at_forward(patch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Call `act` before the backbone's forward pass of this number (from 1; the probe's pass is not counted)."""
    calls = iter(range(1, 10**6))
    real = nn.Module.__call__

    def counted(module: nn.Module, *args: object, **kwargs: object) -> object:
        if type(module).__name__ == "GPT2LMHeadModel" and "position_ids" in kwargs and next(calls) == number:
            act()
        return real(module, *args, **kwargs)

    patch.setattr(nn.Module, "__call__", counted)


def crash() -> None:
    raise Crash


@pytest.mark.parametrize("forward", [1, 2, 3, 5, 8, 11, 14])
def test_resumed_equals_never_stopped(
    forward: int, which: str, unbroken: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        crash_at_forward(patch, forward, crash)
        with pytest.raises(Crash):
            sit(tmp_path, which)
    assert_same(result(tmp_path, which), unbroken)


def test_stopped_again_and_again_still_equals_never_stopped(
    which: str, unbroken: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        with monkeypatch.context() as patch:
            crash_at_forward(patch, 5, crash)
            with pytest.raises(Crash):
                sit(tmp_path, which)
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] >= 6
    assert_same(result(tmp_path, which), unbroken)


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"micro_batch": 2}, {"select": "last"}])
def test_resumed_equals_never_stopped_under_other_settings(
    changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        crash_at_forward(patch, 8, crash)
        with pytest.raises(Crash):
            sit(tmp_path / "broken", **changes)
    assert_same(result(tmp_path / "broken", **changes), result(tmp_path / "whole", **changes))


def test_a_finished_run_is_read_back_and_not_written_to(which: str, tmp_path: Path, unbroken: tuple) -> None:
    result(tmp_path, which)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "tb" not in path.parts}
    assert_same(result(tmp_path, which), unbroken)
    assert {path: path.read_bytes() for path in before} == before


# --- real deaths -----------------------------------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(patch: pytest.MonkeyPatch, place: str, number: int) -> None:
    """Arrange for this process to be killed at the `number`-th visit of `place`."""
    if place == "forward":
        return crash_at_forward(patch, number, die)
    owner, name, before = {
        "save": (checkpoint, "save", True),
        "tensors written": (safetensors.torch, "save_file", False),
        "before fsync": (os, "fsync", True),
        "before rename": (Path, "rename", True),
        "after rename": (Path, "rename", False),
        "pruning": (shutil, "rmtree", True),
    }[place]
    calls, real = iter(range(1, 10**6)), getattr(owner, name)

    def watched(*args: object, **kwargs: object) -> object:
        last = next(calls) == number
        if last and before:
            if place == "pruning":
                next(path for path in Path(args[0]).iterdir()).unlink()
            die()
        done = real(*args, **kwargs)
        if last:
            die()
        return done

    patch.setattr(owner, name, watched)


def doomed(folder: Path, which: str, place: str, number: int) -> None:
    """Body of a process that is to be killed."""
    torch.set_num_threads(1)
    die_at(pytest.MonkeyPatch(), place, number)
    sit(folder, which)


def slow(folder: Path, which: str) -> None:
    """Body of a process that takes its time, to be killed from outside."""
    torch.set_num_threads(1)
    crash_hook = nn.Module.__call__
    nn.Module.__call__ = lambda module, *a, **k: (  # type: ignore[method-assign]
        time.sleep(0.05) if type(module).__name__ == "GPT2LMHeadModel" else None,
        crash_hook(module, *a, **k),
    )[1]
    sit(folder, which)


@pytest.fixture(scope="module")
def processes() -> Iterator[ForkServerContext]:
    """Processes that start in no time, torch being imported once in the server that they are forked from."""
    context = multiprocessing.get_context("forkserver")
    heavy = ["softprompt.fit", "torch.utils.tensorboard", "transformers.models.gpt2.modeling_gpt2", "torch._dynamo"]
    context.set_forkserver_preload(["pytest", *heavy])
    yield context


def killed(process: multiprocessing.process.BaseProcess) -> None:
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


DEATHS = [
    ("forward", 1),
    ("forward", 6),
    ("save", 2),
    ("tensors written", 1),
    ("tensors written", 4),
    ("before fsync", 1),
    ("before fsync", 4),
    ("before fsync", 13),
    ("before rename", 1),
    ("before rename", 3),
    ("after rename", 2),
    ("after rename", 4),
    ("pruning", 4),
]


@pytest.mark.faults
@pytest.mark.parametrize(("place", "number"), DEATHS, ids=[f"{place} {number}" for place, number in DEATHS])
def test_killed_and_resumed_equals_never_stopped(
    place: str, number: int, which: str, unbroken: tuple, tmp_path: Path, processes: ForkServerContext
) -> None:
    process = processes.Process(target=doomed, args=(tmp_path, which, place, number))
    process.start()
    killed(process)
    assert_same(result(tmp_path, which), unbroken)
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.faults
def test_killed_at_random_times_and_resumed_equals_never_stopped(
    which: str, unbroken: tuple, tmp_path: Path, processes: ForkServerContext
) -> None:
    draw = random.Random(which)
    for _ in range(3):
        process = processes.Process(target=slow, args=(tmp_path, which))
        process.start()
        deadline = time.monotonic() + 60
        while not (tmp_path / METRICS).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.1, 0.5))
        process.kill()
        killed(process)
    assert_same(result(tmp_path, which), unbroken)


# --- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("forward", [1, 5, 8])
def test_a_signal_saves_at_the_end_of_the_step_and_says_how_to_go_on(
    forward: int, number: int, code: int, unbroken: tuple, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        crash_at_forward(patch, forward, lambda: os.kill(os.getpid(), number))
        with pytest.raises(
            Interrupted, match=f"{signal.Signals(number).name}: saved after step .* of {TOTAL}"
        ) as caught:
            sit(tmp_path, which)
    assert caught.value.exit_code == code
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    step = checkpoint.steps(tmp_path / "checkpoints")[-1]
    assert f"after step {step} of" in str(caught.value)
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert max(line["step"] for line in lines) == step
    assert_same(result(tmp_path, which), unbroken)


def test_a_second_interrupt_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    crash_at_forward(monkeypatch, 2, twice)
    with pytest.raises(KeyboardInterrupt):
        sit(tmp_path)


def test_a_signal_in_the_last_step_lets_the_run_finish(
    unbroken: tuple, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwards = TOTAL + 4  # one pass over the dev pairs at each of the steps 2, 4, 6, 8
    with monkeypatch.context() as patch:
        crash_at_forward(patch, forwards, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert_same(result(tmp_path, which), unbroken)


# --- what is written -------------------------------------------------------------------------------------------------


def test_metrics_have_one_line_a_step_and_one_a_dev_loss_and_no_clock(tmp_path: Path) -> None:
    fitted, method = sit(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, TOTAL + 1))
    assert [line["step"] for line in lines if "dev_loss" in line] == [2, 4, 6, 8, 9]
    keys = {"step", "epoch", "loss", "lr", "grad_norm", "tokens", "target_tokens", "positions"}
    assert all(line.keys() in (keys, {"step", "dev_loss"}) for line in lines)
    bone, other = setup()
    records = training_steps(
        bone, other, fit_module.make_optimizer(other, config()), factories.pairs(10), config(), seed=7
    )
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
    optimizer = fit_module.make_optimizer(method, config())
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
        ([5.0, math.inf, 4.0, math.inf, 7.0], "best", 6, [6, 9]),
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


@pytest.mark.parametrize("losses", [[math.nan, 3.0, 4.0, 6.0, 7.0], [5.0, 3.0, math.nan, 6.0, math.nan]])
def test_a_dev_loss_that_is_not_a_number_is_never_the_best(
    losses: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusing it outright would do as well; keeping such weights as the best would not."""
    planned(monkeypatch, losses)
    try:
        fitted, _ = sit(tmp_path)
    except TrainingError:
        return
    assert (fitted.selected_step, fitted.dev_loss) == (4, 3.0)


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
    assert checkpoint.steps(tmp_path / "checkpoints") == [3, 4] or checkpoint.steps(tmp_path / "checkpoints") == [2, 4]
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


def test_checkpoints_of_another_method_are_refused(tmp_path: Path) -> None:
    sit(tmp_path)
    bone, _ = setup()
    other = factories.prefix(bone, length=4)
    with pytest.raises(CheckpointError, match=r"does not fit the method: 'banks\.decoder\.prefix' expected"):
        fit(bone, other, factories.pairs(10), [], config(), tmp_path, seed=7, quiet=True)


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.faults
@pytest.mark.parametrize("how", ["flip", "delete", "truncate"])
@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_newest_checkpoint_costs_time_but_no_bits(
    keep: int, how: str, which: str, unbroken: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the run is killed again before it has come to the damaged step."""
    for forward, damaging in ((9, True), (3, False)):
        with monkeypatch.context() as patch:
            crash_at_forward(patch, forward, crash)
            with pytest.raises(Crash):
                sit(tmp_path, which, keep=2 if damaging else keep)
        if damaging:
            newest = checkpoint.steps(tmp_path / "checkpoints")[-1]
            path = tmp_path / "checkpoints" / f"step-{newest:06d}" / checkpoint.METHOD
            raw = bytearray(path.read_bytes())
            raw[-1] ^= 1
            path.unlink() if how == "delete" else path.write_bytes(raw if how == "flip" else raw[:-9])
    assert_same(result(tmp_path, which, keep=keep), unbroken)


@pytest.mark.faults
def test_a_full_disk_ends_the_run_with_the_systems_words_and_it_can_go_on(
    which: str, unbroken: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, iter(range(1, 10**6))

    def disk_full(descriptor: int) -> None:
        if next(calls) >= 15:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disk_full)
        with pytest.raises(OSError, match="No space left"):
            sit(tmp_path, which)
    assert checkpoint.steps(tmp_path / "checkpoints")
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert_same(result(tmp_path, which), unbroken)


# --- the whole command -----------------------------------------------------------------------------------------------


def job(folder: Path, **changes: object) -> Path:
    """A recipe of its own data and backbone, long enough to be stopped and short enough to be finished."""
    folder.mkdir(exist_ok=True)
    factories.backbone_folder(folder / "backbone", n_layer=1)
    for part, count, seed in (("train", 20, 0), ("dev", 4, 50)):
        rows = [{"source": e.source, "target": e.targets[0]} for e in factories.examples(count, seed=seed)]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {"max_steps": 150, "batch_size": 4, "eval_every": 50, "save_every": 20, "lr": 1e-3, **changes}
    recipe = {
        "backbone": str(folder / "backbone"),
        "method": {"name": "prefix", "length": 3, "hidden": 8, "dropout": 0.1},
        "data": {"train": str(folder / "train.jsonl"), "dev": str(folder / "dev.jsonl")},
        "train": {"precision": "float32", **train},
        "decode": {"strategy": "greedy", "max_new_tokens": 4},
        "untuned": False,
    }
    (folder / "job.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    return folder / "job.yaml"


@pytest.mark.faults
def test_the_command_exits_75_on_sigterm_and_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    recipe, out = job(tmp_path), tmp_path / "out"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def start(folder: Path, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "softprompt", "run", str(recipe), "--out", str(folder), "--quiet", *more]
        return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    process = start(out)
    deadline = time.monotonic() + 100
    while not checkpoint.steps(out / "checkpoints") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "SIGTERM: saved after step" in err and "--resume" in err and "Traceback" not in err
    assert not (out / "scores.json").exists()
    assert checkpoint.steps(out / "checkpoints")[-1] < 150

    again = start(out, "--resume")
    _, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    run_recipe(load_recipe(str(recipe)), tmp_path / "whole", quiet=True)
    for name in (METRICS, "prompt/adapter_model.safetensors", "predictions/test.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_gradient_checkpointing_in_a_recipe_recomputes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    real = inject._attend
    monkeypatch.setattr(inject, "_attend", lambda *a, **k: (calls.append(torch.is_grad_enabled()), real(*a, **k))[1])
    counts, losses = [], []
    for on in (False, True):
        recipe = job(tmp_path / str(on), max_steps=5, gradient_checkpointing=on)
        calls.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            run_recipe(load_recipe(str(recipe)), tmp_path / str(on) / "out", quiet=True)
        counts.append(sum(calls))
        losses.append((tmp_path / str(on) / "out" / METRICS).read_text())
    assert counts == [5, 10]
    for one, other in zip(*(map(json.loads, text.splitlines()) for text in losses), strict=True):
        assert one == pytest.approx(other, rel=1e-5)
