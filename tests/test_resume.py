"""Going on with a run (fault test 12): what changed is refused by name, or accepted by name; one process at a time."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from factories import backbone_folder
from jobs import tiny_job
from sittings import said

from softprompt import cli
from softprompt import run as run_module
from softprompt.config import Recipe, load_recipe
from softprompt.errors import CheckpointError, ConfigError, Interrupted, TrainingError
from softprompt.fit import METRICS
from softprompt.lock import locked
from softprompt.resume import difference
from softprompt.run import run_recipe

pytestmark = pytest.mark.faults
STEPS = "train.max_steps=3"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tiny_job(tmp_path)


def load(job: Path, *overrides: str) -> Recipe:
    return load_recipe(str(job), [STEPS, "untuned=false", *overrides])


def stopped(recipe: Recipe, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that a signal ended after training."""
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "decode_together", lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run_recipe(recipe, out, quiet=True)


def other_data(job: Path) -> None:
    with (job.parent / "train.jsonl").open("a") as file:
        file.write('{"source": "red", "target": "inn"}\n')


def other_weights(job: Path) -> None:
    backbone_folder(job.parent / "backbone", seed=5)


CHANGES: list[tuple[str, list[str], Callable[[Path], None] | None, str]] = [
    ("train.lr", ["train.lr=0.5"], None, r"train\.lr \(0\.01 -> 0\.5\)"),
    ("method.dropout", ["method.dropout=0.2"], None, r"method\.dropout \(0\.1 -> 0\.2\)"),
    ("decode.beams", ["decode.beams=3"], None, r"decode\.beams \(2 -> 3\)"),
    ("seed", ["seed=4"], None, r"seed \(101 -> 4\)"),
    ("compare", ["compare={other: {train: {lr: 0.1}}}"], None, r"compare\.other\.train\.lr \(None -> 0\.1\)"),
    ("data.train", [], other_data, r"data\.train \(the content of .*train\.jsonl\)"),
    ("backbone.id", [], other_weights, r"backbone\.id \(the weights of .*backbone in float32\)"),
]


@pytest.mark.parametrize(("field", "overrides", "act", "named"), CHANGES, ids=[change[0] for change in CHANGES])
def test_fault_12_a_change_is_refused_by_name_and_accepted_by_name(
    field: str,
    overrides: list[str],
    act: Callable[[Path], None] | None,
    named: str,
    job: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    stopped(load(job), out, monkeypatch)
    if act is not None:
        act(job)
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    changed = load(job, *overrides)
    for allowed in ([], ["train.epochs"]):
        with pytest.raises(ConfigError, match=named) as caught:
            run_recipe(changed, out, resume=True, allow_change=allowed, quiet=True)
        assert caught.value.exit_code == 2 and f"accept it with --allow-change {field}" in str(caught.value)
    mutable = {".lock", "status.json"}
    assert {p: p.read_bytes() for p in kept if p.name not in mutable} == {
        p: raw for p, raw in kept.items() if p.name not in mutable
    }
    capsys.readouterr()
    run_recipe(changed, out, resume=True, allow_change=[field], quiet=True)
    assert f"warning: {field}" in capsys.readouterr().err
    env = json.loads((out / "env.json").read_text())
    assert len(env["accepted"]) >= 1 and env["accepted"][0].startswith(field)
    assert (out / "scores.json").exists() and load_recipe(str(out / "recipe.yaml")).train.lr == changed.train.lr
    run_recipe(changed, out, resume=True, quiet=True)  # from now on it is the run's own
    said(f"fault 12: {field} changed: 2 of 2 refused with exit code 2, 1 of 1 accepted by name")


def test_a_section_may_be_named_for_all_of_its_fields(job: Path, tmp_path: Path) -> None:
    run_recipe(load(job), tmp_path / "out", quiet=True)
    changed = load(job, "train.lr=0.5", "train.clip=null")
    with pytest.raises(ConfigError, match=r"train\.clip .*; train\.lr"):
        run_recipe(changed, tmp_path / "out", resume=True, allow_change=["train.loss"], quiet=True)
    run_recipe(changed, tmp_path / "out", resume=True, allow_change=["train"], quiet=True)


def test_a_finished_run_goes_on_where_more_steps_are_accepted(job: Path, tmp_path: Path) -> None:
    run_recipe(load(job), tmp_path / "out", quiet=True)
    longer = load_recipe(str(job), ["train.max_steps=5", "untuned=false"])
    (result,) = run_recipe(longer, tmp_path / "out", resume=True, allow_change=["train.max_steps"], quiet=True)
    assert result.training is not None and result.training["steps"] == 5
    lines = [json.loads(line) for line in (tmp_path / "out" / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5]


def test_only_arms_that_a_change_reaches_are_done_again(job: Path, tmp_path: Path) -> None:
    arms = "compare={tuned: {method: finetune, train: {lr: 0.001}}}"
    run_recipe(load(job, arms), tmp_path / "out", quiet=True)
    kept = {arm: (tmp_path / "out" / arm / "scores.json").stat().st_mtime_ns for arm in (".", "arms/tuned")}
    changed = load(job, "compare={tuned: {method: finetune, train: {lr: 0.002}}}")
    run_recipe(changed, tmp_path / "out", resume=True, allow_change=["compare.tuned.train.lr"], quiet=True)
    now = {arm: (tmp_path / "out" / arm / "scores.json").stat().st_mtime_ns for arm in kept}
    assert now["."] == kept["."] and now["arms/tuned"] > kept["arms/tuned"]


def test_a_change_that_the_checkpoint_cannot_follow_is_refused_though_accepted(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(load(job), tmp_path / "out", monkeypatch)
    for override, allowed, message in (
        ("method.length=4", "method", "does not fit the method: .* expected"),
        ("train.optimizer=adafactor", "train", "expected moments of adafactor, got those of adamw"),
    ):
        with pytest.raises(CheckpointError, match=message):
            run_recipe(load(job, override), tmp_path / "out", resume=True, allow_change=[allowed, "method"], quiet=True)


def test_names_that_are_no_field_or_have_no_effect_are_refused(job: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--allow-change train\.lrr: expected a field of a recipe; nearest: 'train.lr'"
    ):
        run_recipe(load(job), tmp_path / "out", resume=True, allow_change=["train.lrr"])
    with pytest.raises(ConfigError, match="no effect without --resume"):
        run_recipe(load(job), tmp_path / "out", allow_change=["train.lr"])
    assert not (tmp_path / "out").exists()


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["softprompt", "run", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0), capsys.readouterr().err


def test_fault_12_on_the_command_line(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(load(job), tmp_path / "out", monkeypatch)
    words = [str(job), STEPS, "untuned=false", "train.lr=0.5", "--out", str(tmp_path / "out"), "--resume", "--quiet"]
    code, err = command(monkeypatch, capsys, *words)
    assert code == 2 and err.startswith("error: cannot resume") and "train.lr (0.01 -> 0.5)" in err
    code, err = command(monkeypatch, capsys, *words, "--allow-change", "train.lr")
    assert code == 0 and "warning: train.lr changed (0.01 -> 0.5)" in err


def test_fault_09_a_second_run_in_the_folder_ends_with_2_and_the_holders_id(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [str(job), STEPS, "untuned=false", "--out", str(out), "--quiet"]
    with locked(out):
        for more in ([], ["--resume"]):
            code, err = command(monkeypatch, capsys, *words, *more)
            assert code == 2 and f"is in use by process {os.getpid()}" in err
            assert [path.name for path in out.iterdir()] == [".lock"]
    assert command(monkeypatch, capsys, *words)[0] == 0
    assert command(monkeypatch, capsys, *words)[0] == 2


def test_fault_06_a_folder_that_cannot_be_written_ends_with_1_and_one_line(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = command(monkeypatch, capsys, str(job), STEPS, "--out", "/proc/softprompt-run", "--quiet")
    assert code == 1 and err.startswith("error: ") and err.count("\n") == 1 and "/proc/softprompt-run" in err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nMore lines."), r"CUDA out of memory\."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "DefaultCPUAllocator: can't allocate memory"),
        (MemoryError(), "MemoryError"),
    ],
    ids=["device", "CPU", "Python"],
)
def test_fault_08_out_of_memory_while_decoding_says_what_to_do_and_doing_it_helps(
    error: Exception, said: str, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "decode_together", full)
        with pytest.raises(TrainingError, match=rf"\({said}\).*lower decode\.batch_size"):
            run_recipe(load(job), tmp_path / "out", quiet=True)
    smaller = load(job, "decode.batch_size=2")
    (result,) = run_recipe(smaller, tmp_path / "out", resume=True, allow_change=["decode.batch_size"], quiet=True)
    assert result.training is not None and result.training["steps"] == 3 and result.scores


@pytest.mark.parametrize("override", ["train.max_steps=4", "train.lr=0.5"])
def test_an_arm_by_which_nothing_is_trained_is_not_reached_by_a_change_of_training(
    override: str, job: Path, tmp_path: Path
) -> None:
    arms = ["compare={shown: {method: {name: incontext, shots: 1}}}", STEPS]
    run_recipe(load_recipe(str(job), arms), tmp_path / "out", quiet=True)
    places = {"shown": "arms/shown", "untuned": "arms/untuned", "main": "."}
    kept = {arm: (tmp_path / "out" / place / "scores.json").stat().st_mtime_ns for arm, place in places.items()}
    changed = load_recipe(str(job), [*arms, override])
    assert difference(tmp_path / "out", changed, {arm: changed.arm(arm) for arm in changed.arms()}).arms == {"main"}
    run_recipe(changed, tmp_path / "out", resume=True, allow_change=["train"], quiet=True)
    now = {arm: (tmp_path / "out" / place / "scores.json").stat().st_mtime_ns for arm, place in places.items()}
    assert {arm for arm in kept if now[arm] != kept[arm]} == {"main"}
