"""SIGTERM and SIGINT: a run ends soon, at a point from which it goes on as if it had never stopped (fault test 5)."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jobs import long_job, tiny_job
from sittings import TOTAL, Result, assert_same, crash_at_forward, newest, result, sit

from softprompt import checkpoint
from softprompt import run as run_module
from softprompt.cli import main
from softprompt.config import load_recipe
from softprompt.errors import Interrupted
from softprompt.fit import METRICS
from softprompt.run import run_recipe
from softprompt.signals import Stopped, collected, stoppable

BOTH = [(signal.SIGTERM, 75), (signal.SIGINT, 130)]
IDS = ["SIGTERM", "SIGINT"]
FORWARDS = TOTAL + 5
"""Of a whole run: one a step, and one pass over the dev pairs after steps 2, 4, 6, 8 and 9."""


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return result(tmp_path_factory.mktemp("unbroken"))


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


@pytest.mark.parametrize(("number", "code"), BOTH, ids=IDS)
@pytest.mark.parametrize("forward", range(1, FORWARDS + 1))
def test_fault_05_a_signal_at_any_forward_pass_saves_and_says_how_to_go_on(
    forward: int, number: int, code: int, unbroken: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes of training steps and of dev losses alike; a dev loss that was cut short is computed on resume."""
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        crash_at_forward(patch, forward, send(number))
        with pytest.raises(
            Interrupted, match=f"{signal.Signals(number).name}: saved after step .* of {TOTAL}"
        ) as caught:
            sit(tmp_path)
    assert caught.value.exit_code == code
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    step = newest(tmp_path)
    assert f"after step {step} of" in str(caught.value)
    assert max(line["step"] for line in lines(tmp_path)) == step
    assert_same(result(tmp_path), unbroken)


def test_fault_05_a_signal_while_a_dev_loss_is_caught_up_loses_nothing(
    unbroken: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for forward in (3, 1, 1):  # the first dev loss, and its repetitions
        with monkeypatch.context() as patch:
            crash_at_forward(patch, forward, send(signal.SIGTERM))
            with pytest.raises(Interrupted, match="saved after step 2 of"):
                sit(tmp_path)
        assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    assert_same(result(tmp_path), unbroken)


@pytest.mark.faults
@pytest.mark.slow
def test_fault_05_signals_at_100_random_steps(
    unbroken: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, count, longest = random.Random(5), 0, 0.0
    while count < 100:
        folder = tmp_path / str(count)
        while True:
            number, code = draw.choice(BOTH)
            with monkeypatch.context() as patch:
                sent: list[float] = []
                crash_at_forward(
                    patch,
                    draw.randint(1, 6),
                    lambda number=number, sent=sent: (sent.append(time.monotonic()), os.kill(os.getpid(), number)),
                )
                try:
                    end = result(folder)
                    break
                except Interrupted as error:
                    assert error.exit_code == code
                    longest, count = max(longest, time.monotonic() - sent[0]), count + 1
        assert_same(end, unbroken)
    print(f"\nfault 5: {count} signals at random passes, all saved and resumed the same; slowest {longest:.2f} s")
    assert longest < 5


def test_fault_05_a_second_interrupt_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash_at_forward(monkeypatch, 2, lambda: (send(signal.SIGINT)(), send(signal.SIGINT)()))
    with pytest.raises(KeyboardInterrupt):
        sit(tmp_path)


def test_fault_05_a_second_interrupt_in_a_save_leaves_the_one_before(
    unbroken: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = checkpoint.save_tensors, iter(range(1, 100))

    def interrupted(*args: object) -> None:
        real(*args)  # type: ignore[arg-type]
        if next(calls) == 5:
            send(signal.SIGINT)(), send(signal.SIGINT)()

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_tensors", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sit(tmp_path)
    assert newest(tmp_path) == 3 and not list((tmp_path / "checkpoints").glob(".*"))
    assert_same(result(tmp_path), unbroken)


# --- outside the training loop ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), BOTH, ids=IDS)
def test_a_block_is_stopped_at_once_even_through_an_except(number: int, code: int) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Interrupted, match="stopped here") as caught, stoppable("stopped here"):
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        except Exception:
            raise AssertionError from None
    assert caught.value.exit_code == code
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_a_block_inside_collects_what_would_stop_the_block_around() -> None:
    with stoppable("never"), collected() as caught:
        os.kill(os.getpid(), signal.SIGTERM)
        assert caught and caught.numbers == [signal.SIGTERM]
        with pytest.raises(Stopped), caught.at_once():
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("phase", "number", "code"),
    [
        ("prepare", signal.SIGTERM, 75),
        ("decode_together", signal.SIGTERM, 75),
        ("decode_together", signal.SIGINT, 130),
        ("score_arm", signal.SIGTERM, 75),
    ],
)
def test_fault_05_a_signal_while_decoding_or_scoring_ends_the_run_and_it_goes_on(
    phase: str, number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(tiny_job(tmp_path)), ["train.max_steps=2", "untuned=false"])
    real = getattr(run_module, phase)

    def interrupted(*args: object, **kwargs: object) -> object:
        done = real(*args, **kwargs)
        os.kill(os.getpid(), number)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(run_module, phase, interrupted)
        with pytest.raises(
            Interrupted, match=r"stopped; .* a decoding that was under way starts again. Run the same"
        ) as caught:
            run_recipe(recipe, tmp_path / "out", quiet=True)
    assert caught.value.exit_code == code
    if phase == "prepare":
        assert not (tmp_path / "out").exists()
    else:
        assert json.loads((tmp_path / "out" / "status.json").read_text())["status"] == "interrupted"
        assert not (tmp_path / "out" / "scores.json").exists()
    run_recipe(recipe, tmp_path / "out", resume=True, quiet=True)
    run_recipe(recipe, tmp_path / "whole", quiet=True)
    for name in (METRICS, "prompt/adapter_model.safetensors", "predictions/test.jsonl", "status.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.faults
def test_fault_05_the_command_exits_75_on_sigterm_and_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = long_job(tmp_path), tmp_path / "out"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    command = ["softprompt", "run", str(recipe), "--out", str(out), "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", *command], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 100
    while not checkpoint.steps(out / "checkpoints") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "SIGTERM: saved after step" in err and "--resume" in err and "Traceback" not in err
    assert not (out / "scores.json").exists()
    assert checkpoint.steps(out / "checkpoints")[-1] < 150

    monkeypatch.setattr(sys, "argv", [*command, "--resume"])  # what another process made, this one goes on with
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    run_recipe(load_recipe(str(recipe)), tmp_path / "whole", quiet=True)
    for name in (METRICS, "prompt/adapter_model.safetensors", "predictions/test.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_fault_05_a_signal_during_the_last_save_is_answered(
    unbroken: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoint.save

    def interrupted(folder: Path, made: checkpoint.Checkpoint, *, keep: int) -> None:
        real(folder, made, keep=keep)
        if made.state.step == TOTAL:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupted)
        with pytest.raises(Interrupted, match=f"saved after step {TOTAL} of {TOTAL}"):
            sit(tmp_path)
    assert_same(result(tmp_path), unbroken)
