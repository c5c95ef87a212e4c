"""Several processes train, decode and stop as one: the same losses, the same answers, nothing lost when one dies."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
import worlds
from jobs import long_job, tiny_job
from sittings import newest, said
from torch.distributed import HashStore

from softprompt.config import build
from softprompt.distributed import ALONE, JOINING, PATIENCE, joined, wait_for_all
from softprompt.errors import ConfigError, TrainingError
from softprompt.fit import METRICS
from softprompt.sharding import shard

LEFT = 30.0
"""Seconds that the other processes have to end in after one was killed."""


@pytest.fixture(scope="module")
def alone() -> dict[tuple[str, str], dict[str, Any]]:
    """Runs of one process, each made once."""
    return {}


def assert_same_run(kind: str, family: str, size: int, split: bool, alone: dict[Any, Any], **changes: Any) -> float:
    changes = {"max_steps": 21, **changes}
    key = (kind, family, str(changes))
    if key not in alone:
        alone[key] = worlds.losses(ALONE, kind, False, family, changes)
    one, many = alone[key], worlds.together(size, worlds.losses, kind, split, family, changes)
    for member in many:
        assert member["losses"] == many[0]["losses"] and member["numbers"] == many[0]["numbers"]  # to the bit
        assert member["frozen"] and member["split"] == split
        assert member["dev"] == many[0]["dev"] == pytest.approx(one["dev"], rel=1e-5)
    assert len(one["losses"]) == changes["max_steps"]
    assert sum(one["losses"][-3:]) < sum(one["losses"][:3])  # the last epoch and the first
    return max(abs(a - b) / abs(a) for a, b in zip(one["losses"], many[0]["losses"], strict=True))


RUNS = [
    *[("prefix", "gpt2", size, split) for size in (2, 4) for split in (False, True)],
    *[(kind, "gpt2", 2, True) for kind in ("prompt", "dept", "lora", "two tasks")],
    *[(kind, "gpt2", 4, False) for kind in ("two tasks", "finetune")],
    *[("prefix", family, 2, True) for family in ("t5", "llama")],
    ("adapter", "bart", 2, False),
]
"""Method, family, processes, and whether the backbone is split; 11 pairs in batches of 4 leave a last one of 3."""


@pytest.mark.parametrize(("kind", "family", "size", "split"), RUNS)
def test_several_processes_have_the_losses_of_one(
    kind: str, family: str, size: int, split: bool, alone: dict[Any, Any]
) -> None:
    worst = assert_same_run(kind, family, size, split, alone, lr=1e-2)
    assert worst < 1e-6, worst


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    "changes", [{"loss": "sentence_sum", "micro_batch": 1}, {"gradient_checkpointing": True}, {"at_once": 320 * 20}]
)
def test_so_have_they_with_accumulation_recomputation_and_chunks(
    split: bool, changes: dict[str, Any], alone: dict[Any, Any]
) -> None:
    assert assert_same_run("prefix", "gpt2", 4, split, alone, lr=1e-3, **changes) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "bart"])
@pytest.mark.parametrize("kind", list(worlds.STILL))
def test_every_method_on_every_family_has_the_losses_of_one_process(
    kind: str, family: str, split: bool, size: int, alone: dict[Any, Any]
) -> None:
    if split and kind == "finetune":
        pytest.skip("refused: what is trained is not split")
    assert assert_same_run(kind, family, size, split, alone, lr=1e-3, max_steps=51) < 1e-6


@pytest.mark.parametrize("family", ["gpt2", "t5", "gemma2"])
def test_processes_with_few_and_many_targets_make_the_same_passes(family: str) -> None:
    """A split backbone's loss is not taken by chunks, which some would do and others not."""
    one, *others = worlds.together(2, worlds.chunks, family)
    whole, chunked = worlds.chunks(ALONE, family)
    assert all(other == one for other in others) and chunked and not one[1]
    assert one[0] == pytest.approx(whole, rel=1e-5)


def test_a_whole_run_on_a_split_backbone_answers_as_one_process_does(tmp_path: Path) -> None:
    recipe = tiny_job(tmp_path, architecture="t5")
    folders = [tmp_path / "one", tmp_path / "two"]
    worlds.run(ALONE, recipe, folders[0], False)
    arms, nothing = worlds.together(2, worlds.run, recipe, folders[1], True)
    assert arms == ["untuned", "prefix", "lora"] and nothing == []
    for part in ("", "arms/untuned", "arms/lora"):
        answers = [(folder / part / "predictions" / "test.jsonl").read_text() for folder in folders]
        assert answers[0] == answers[1]
    assert worlds.together(2, worlds.run, recipe, folders[1], True)[0] == arms  # read back


def test_other_data_in_one_process_is_refused_by_all(tmp_path: Path) -> None:
    recipe = tiny_job(tmp_path)
    job = worlds.begin(2, worlds.run_with_other_data, recipe, tmp_path / "out")
    assert job.ends() == [2, 2]
    assert "expected the same in all 2 processes" in job.answers[0].recv()


def test_what_the_processes_say_to_each_other() -> None:
    for rank, heard in enumerate(worlds.together(3, worlds.talk)):
        assert heard["sums"] == [3.0, 3.0]
        assert heard["any"] == [True, False]
        assert heard["told"] == ["all", ""]
        assert heard["gathered"] == [{"rank": 1, "text": "ä"}, *[{"rank": 2, "text": "ää"}] * 2]
        assert heard["share"] == [[0, 3], [1, 4], [2]][rank]
        assert heard["grads"] == [[6.0, 6.0], [1.0, 1.0], None]
        assert heard["leader"] == [0.0] * 3


@pytest.mark.parametrize("rank", [0, 1])
def test_memory_short_in_one_process_halves_the_rows_of_all(rank: int) -> None:
    want = [loss for loss, _ in worlds.short_of_memory(ALONE, 99)]
    for member in worlds.together(2, worlds.short_of_memory, rank):
        assert [rows for _, rows in member] == [1, 1, 1]
        assert [loss for loss, _ in member] == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_loss_that_is_no_number_in_one_process_stops_all_before_the_update(rank: int) -> None:
    first, second = worlds.together(2, worlds.poisoned, rank)
    assert first == second and "step 1: expected a finite loss" in first[0] and first[1]


BEAM = {"beams": 2, "max_new_tokens": 6}
LABELS = {"labels": True, "max_new_tokens": 8}
DECODING = [
    (2, False, "gpt2", 7, BEAM),
    (4, False, "gpt2", 3, LABELS),
    (2, True, "gpt2", 5, BEAM),
    (4, True, "t5", 1, {"strategy": "greedy", "max_new_tokens": 6}),
    (2, True, "gpt2", 3, LABELS),
]


@pytest.mark.parametrize(("size", "split", "family", "count", "options"), DECODING)
def test_several_processes_have_the_answers_of_one(
    size: int, split: bool, family: str, count: int, options: dict[str, Any]
) -> None:
    want = worlds.answers(ALONE, False, family, count, options)
    assert [row["index"] for row in want] == list(range(count)) and any(row["text"] for row in want)
    for got in worlds.together(size, worlds.answers, split, family, count, options):
        assert got == want


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of two processes that nobody stopped."""
    return worlds.together(2, worlds.sitting, tmp_path_factory.mktemp("whole"))


def killed(folder: Path, rank: int, step: int) -> float:
    """Kill one of two processes in the middle of a step; seconds until the other one has ended."""
    job = worlds.begin(2, worlds.sitting, folder, "prefix", (rank, step))
    job.members[rank].join(100)
    started = time.monotonic()
    codes = job.ends(LEFT)
    assert codes[rank] == -signal.SIGKILL and codes[1 - rank] == 1  # a clear error, not a hang
    assert "lost the other processes of the job" in job.answers[1 - rank].recv()
    return time.monotonic() - started


def test_fault_14_one_of_two_killed_ends_the_other_and_the_run_goes_on(unbroken: Any, tmp_path: Path) -> None:
    killed(tmp_path, 1, 5)
    assert newest(tmp_path) >= 3
    killed(tmp_path, 0, 2)
    assert worlds.together(2, worlds.sitting, tmp_path) == unbroken


@pytest.mark.slow
@pytest.mark.faults
def test_fault_14_killed_at_twenty_points(unbroken: Any, tmp_path: Path) -> None:
    slowest = 0.0
    for number in range(20):
        folder = tmp_path / str(number)
        slowest = max(slowest, killed(folder, number % 2, 1 + number % 9))
        assert worlds.together(2, worlds.sitting, folder) == unbroken
    said(f"fault 14: 20 of 20 kills of one of two processes resumed identical; the other ended within {slowest:.1f} s")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_saves_and_stops_all_at_the_same_step(rank: int, unbroken: Any, tmp_path: Path) -> None:
    job = worlds.begin(2, worlds.signalled, tmp_path, rank, 4)
    assert job.ends() == [75, 75]
    messages = {answer.recv() for answer in job.answers}
    assert len(messages) == 1 and "saved after step 4 of 9" in messages.pop()
    assert newest(tmp_path) == 4
    assert worlds.together(2, worlds.sitting, tmp_path) == unbroken


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 4)])
def test_a_run_goes_on_in_another_number_of_processes(before: int, after: int, tmp_path: Path) -> None:
    """Without dropout, which each process draws for itself."""
    kind = "prefix none"
    want, *_ = worlds.together(before, worlds.sitting, tmp_path / "whole", kind)
    job = worlds.begin(before, worlds.sitting, tmp_path / "moved", kind, (0, 5))
    job.ends(LEFT)
    got, *_ = worlds.together(after, worlds.sitting, tmp_path / "moved", kind)
    assert got[2] == want[2]
    for name, numbers in want[0].items():
        assert got[0][name] == pytest.approx(numbers, rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_torchrun_starts_a_killed_job_again_by_itself(tmp_path: Path) -> None:
    recipe = long_job(tmp_path, save_every=10)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    command = [*torchrun, "-m", "softprompt", "run", str(recipe), "--out", str(tmp_path / "run"), "--resume", "-q"]
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    checkpoints = tmp_path / "run" / "checkpoints"
    while not list(checkpoints.glob("step-*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    victim = next(pid for pid in children(process.pid) if rank_of(pid) == 1)
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    assert out.count("Run folder:") == 1  # one process speaks
    steps = [line for line in (tmp_path / "run" / METRICS).read_text().splitlines() if '"loss"' in line]
    assert len(steps) == 150


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def rank_of(pid: int) -> int:
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return int(next(variable.removeprefix("RANK=") for variable in variables if variable.startswith("RANK=")))


# --- refusals --------------------------------------------------------------------------------------------------------


def test_half_of_torchruns_variables_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE is set and RANK is not"), joined():
        pass


def test_a_single_process_has_nothing_to_split_over() -> None:
    with pytest.raises(ConfigError, match=r"expected a job of several processes.*torchrun"):
        shard(factories.model("gpt2"), ALONE, torch.device("cpu"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": {"name": "finetune"}}, "splits weights that stay frozen"),
        ({"backbone": {"quantize": "8bit"}}, r"backbone\.shard and backbone\.quantize do not go together"),
        ({"train": {"micro_batch": "auto"}}, "cannot step back alone"),
    ],
)
def test_what_a_split_backbone_cannot_do_is_refused_by_the_recipe(changes: dict[str, Any], said: str) -> None:
    recipe = {"name": "x", "data": {"task": "gazette"}, **changes}
    recipe["backbone"] = {**recipe.get("backbone", {}), "shard": True}
    with pytest.raises(ConfigError, match=said):
        build(recipe, lambda path: "recipe")


def test_a_tuner_that_trains_split_weights_themselves_is_refused_and_a_whole_hash_is_the_same() -> None:
    whole = factories.backbone("gpt2").hash()
    for refused, digest in worlds.together(2, worlds.tuned_norms):
        assert "split over processes" in refused and digest == whole


# --- before all have joined ------------------------------------------------------------------------------------------


def started_alone(monkeypatch: pytest.MonkeyPatch, rank: int, **changes: str) -> None:
    """The variables of one of two processes, the other of which never comes."""
    torchrun = {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(worlds.free_port()),
    }
    for name, value in (torchrun | {"SOFTPROMPT_JOIN_SECONDS": "0.2"} | changes).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_never_starts_is_waited_for_so_long_and_no_longer(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    started_alone(monkeypatch, rank)
    said = r"waited 0\.2 s for all processes of the job .*SOFTPROMPT_JOIN_SECONDS"
    with pytest.raises(TrainingError, match=said), joined():
        pass


def test_one_that_dies_before_it_has_joined_is_named() -> None:
    store = HashStore()
    store.set("started/2", "here")
    with pytest.raises(TrainingError, match=r"waited 0\.01 s .*no sign of process 1, 3 of 4, from 0"):
        wait_for_all(store, 0, 4, timedelta(seconds=0.01))
    for rank in (1, 3):
        store.set(f"started/{rank}", "here")
    wait_for_all(store, 0, 4, timedelta(seconds=0.01))


def test_the_patience_before_all_have_joined_is_minutes_and_after_it_an_hour() -> None:
    assert JOINING == 300 and timedelta(minutes=60) == PATIENCE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SOFTPROMPT_JOIN_SECONDS", "soon"),
        ("WORLD_SIZE", "two"),
        ("RANK", ""),
        ("MASTER_PORT", "x"),
        ("LOCAL_RANK", "y"),
    ],
)
def test_a_variable_that_is_no_number_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started_alone(monkeypatch, 0, **{name: value})
    with pytest.raises(ConfigError, match=f"{name}: expected a number.*got {value!r}"), joined():
        pass
