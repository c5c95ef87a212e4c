"""Faults 1 and 2: killed at any place, a run loses no checkpoint and ends as the run that was not."""

import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
import torch
from sittings import (
    KINDS,
    PAIRED,
    SETTINGS,
    Result,
    assert_killed,
    assert_same,
    die,
    kill_and_resume,
    result,
    said,
    slow,
    start,
)

import softprompt
from softprompt import checkpoint
from softprompt.fit import METRICS

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return result(tmp_path_factory.mktemp("unbroken"))


@pytest.mark.parametrize(("kind", "setting"), PAIRED, ids=[f"{kind}-{setting}" for kind, setting in PAIRED])
def test_fault_01_killed_at_a_step_and_in_a_save(kind: str, setting: str, tmp_path: Path) -> None:
    whole = result(tmp_path / "whole", kind, **SETTINGS[setting])
    kill_and_resume(tmp_path / "killed", kind, setting, [("before fsync", 3), ("forward", 5)], whole)


DEATHS = [
    ("forward", 1),
    ("save", 2),
    ("tensors written", 1),
    ("tensors written", 4),
    ("before fsync", 1),
    ("before fsync", 13),
    ("before rename", 1),
    ("before rename", 3),
    ("after rename", 2),
    ("after rename", 4),
    ("pruning", 2),
]


@pytest.mark.parametrize(("place", "number"), DEATHS, ids=[f"{place} {number}" for place, number in DEATHS])
def test_fault_01_killed_at_this_place(place: str, number: int, unbroken: Result, tmp_path: Path) -> None:
    kill_and_resume(tmp_path, "prefix", "adamw", [(place, number)], unbroken)


def test_fault_01_killed_from_outside_at_random_times(unbroken: Result, tmp_path: Path) -> None:
    draw = random.Random(1)
    for _ in range(3):
        process = start(slow, tmp_path, "prefix")
        deadline = time.monotonic() + 60
        while not (tmp_path / METRICS).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.1, 0.4))
        process.kill()
        assert_killed(process)
    assert_same(result(tmp_path), unbroken)


KILLS = {"steps": 0, "saves": 0, "runs": 0}


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_fault_01_every_method_and_optimiser_killed_five_times(kind: str, setting: str, tmp_path: Path) -> None:
    draw = random.Random(f"{kind}/{setting}")
    steps = [("forward", draw.randint(1, 6)) for _ in range(3)]
    saves = [
        ("before fsync", draw.randint(1, 6)),
        (draw.choice(["tensors written", "before rename", "after rename"]), draw.randint(1, 2)),
    ]
    places = draw.sample(steps + saves, 5)
    settings = {**SETTINGS[setting], "max_steps": 30}
    whole = result(tmp_path / "whole", kind, **settings)
    kill_and_resume(tmp_path / "killed", kind, setting, places, whole, max_steps=30)
    KILLS.update(steps=KILLS["steps"] + 3, saves=KILLS["saves"] + 2, runs=KILLS["runs"] + 1)
    said(
        f"fault 1: {KILLS['steps'] + KILLS['saves']} kills so far, {KILLS['saves']} of them in a save; "
        f"{KILLS['runs']} of {len(KINDS) * len(SETTINGS)} runs ended identical"
    )


CODE = {str(Path(softprompt.__file__).parent / name) for name in ("checkpoint.py", "files.py", "plain.py")} | {
    shutil.__file__
}


def killed_at_line(number: int, act: Callable[[], None]) -> bool:
    """Fork, run `act`, and kill it before the `number`-th line of the saving code; whether it came so far."""
    child = os.fork()
    if child == 0:
        left = iter(range(number, 0, -1))

        def line(frame: FrameType, event: str, argument: object) -> object:
            if event == "line" and next(left, 0) == 1:
                die()
            return line

        sys.settrace(lambda frame, event, argument: line if frame.f_code.co_filename in CODE else None)
        act()
        sys.settrace(None)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_fault_02_death_at_every_line_of_a_save_leaves_the_old_or_the_new(stride: int, tmp_path: Path) -> None:
    method = {"a": torch.arange(6.0), "b": torch.ones(2, 2)}
    template = tmp_path / "template"
    for step in (1, 2):
        checkpoint.save(template, checkpoint.Checkpoint(method, {}, checkpoint.State(step, step)), keep=2)
    found, point = [0, 0], 0
    while True:
        point += stride
        folder = tmp_path / str(point)
        shutil.copytree(template, folder)
        new = checkpoint.Checkpoint(method, method, checkpoint.State(3, 3))
        if not killed_at_line(point, lambda folder=folder, new=new: checkpoint.save(folder, new, keep=2)):
            break
        kept = checkpoint.load_newest(folder)
        assert kept is not None and kept.state.step in (2, 3)
        assert all(torch.equal(kept.method[name], method[name]) for name in method)
        found[kept.state.step - 2] += 1
        shutil.rmtree(folder)
    said(f"fault 2: {sum(found)} deaths in one save: {found[0]} times the old checkpoint, {found[1]} times the new")
    assert min(found) > 0 and sum(found) > 100 // stride
