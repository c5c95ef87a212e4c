"""Faults that a run must survive, each named by its number: damage, full disks, bad numbers, no memory, two at once.

`make faults` runs them at full size and prints what each comes to; the default suite runs a part of each. Numbers 1 and
2 are in test_kills.py, 5 in test_signals.py, 9 in test_lock_faults.py, 12 in test_resume.py, 15 in test_sweep_kills.py.
"""

import errno
import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from sittings import (
    KINDS,
    TOTAL,
    Crash,
    Result,
    assert_same,
    config,
    crash,
    crash_at_forward,
    newest,
    result,
    said,
    setup,
    sit,
)
from torch import Tensor

from softprompt import checkpoint
from softprompt import fit as fit_module
from softprompt import passes as passes_module
from softprompt.batch import Encoded
from softprompt.errors import CheckpointError, TrainingError
from softprompt.fit import METRICS, fit
from softprompt.methods import state
from softprompt.optim import make_optimizer
from softprompt.train import training_steps

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return result(tmp_path_factory.mktemp("unbroken"))


# --- 3 and 4: damage -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of steps 1 and 2 of a real method."""
    _, method = setup()
    for step in (1, 2):
        moments = {f"{name}/exp_avg": torch.ones_like(tensor) * step for name, tensor in state(method).items()}
        whole = checkpoint.Checkpoint(state(method), moments, checkpoint.State(step, 10 * step))
        checkpoint.save(tmp_path / "checkpoints", whole, keep=2)
    return tmp_path / "checkpoints"


def test_fault_03_every_truncation_and_deletion_is_noticed(folder: Path) -> None:
    cut = 0
    for path in sorted((folder / "step-000002").iterdir()):
        raw = path.read_bytes()
        for length in sorted({len(raw) * k // 100 for k in range(100)} | {len(raw) - 1}):
            path.write_bytes(raw[:length])
            with pytest.raises(CheckpointError, match="step-000002"):
                checkpoint.load(folder, 2)
            cut += 1
        path.unlink()
        with redirect_stderr(StringIO()) as err:
            kept = checkpoint.load_newest(folder)
        assert kept is not None and kept.state.step == 1
        assert err.getvalue().startswith(f"warning: {folder}/step-000002")
        path.write_bytes(raw)
    said(f"fault 3: {cut} of {cut} truncations and 4 of 4 deletions detected; each falls back with a warning")
    assert checkpoint.load(folder, 2).state.step == 2


def test_fault_04_2000_bit_flips_are_noticed(folder: Path) -> None:
    draw, noticed = random.Random(4), 0
    files = sorted((folder / "step-000002").iterdir())
    sizes = [path.stat().st_size for path in files]
    for index in range(2000):
        # half by size, as bits rot; half by file, or the small ones would hardly be hit
        path = draw.choices(files, weights=sizes if index % 2 else None)[0]
        raw = bytearray(path.read_bytes())
        bit = draw.randrange(8 * len(raw))
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        try:
            checkpoint.load(folder, 2)
        except CheckpointError:
            noticed += 1
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
    said(f"fault 4: {noticed:,} of 2,000 bit flips detected")
    assert noticed == 2000 and checkpoint.load(folder, 2).state.step == 2


@pytest.mark.parametrize("how", ["flip", "delete", "truncate"])
@pytest.mark.parametrize("keep", [1, 2])
def test_fault_03_a_damaged_newest_checkpoint_costs_time_but_no_bits(
    keep: int, how: str, unbroken: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the run is killed again before it has come to the damaged step."""
    for forward, damaging in ((9, True), (3, False)):
        with monkeypatch.context() as patch:
            crash_at_forward(patch, forward, crash)
            with pytest.raises(Crash):
                sit(tmp_path, keep=2 if damaging else keep)
        if damaging:
            step = checkpoint.steps(tmp_path / "checkpoints")[-1]
            path = tmp_path / "checkpoints" / f"step-{step:06d}" / checkpoint.METHOD
            raw = bytearray(path.read_bytes())
            raw[-1] ^= 1
            path.unlink() if how == "delete" else path.write_bytes(raw if how == "flip" else raw[:-9])
    assert_same(result(tmp_path, keep=keep), unbroken)


# --- 6: the disk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("call", range(1, 12, 2))
def test_fault_06_a_disk_error_keeps_what_was_saved_and_leaves_no_rubbish(
    call: int, number: int, unbroken: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the `call`-th fsync after the first whole checkpoint on, the disk refuses."""
    real, left = os.fsync, iter(range(call - 1, -1, -1))

    def refuse(descriptor: int) -> None:
        if newest_by_name(tmp_path) and next(left, 0) == 0:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match=os.strerror(number)):
            sit(tmp_path)
    assert newest(tmp_path) >= 2
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert_same(result(tmp_path), unbroken)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many KiB, or gives the one that is there so many."""
    place = tmp_path / "disk"
    place.mkdir()

    def sized(kibibytes: int) -> Path:
        options = f"size={kibibytes}k" if not place.is_mount() else f"remount,size={kibibytes}k"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
        return place

    yield sized
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


def test_fault_06_a_full_disk_keeps_what_was_saved_and_a_larger_one_goes_on(
    unbroken: Result, small_disk: Callable[[int], Path]
) -> None:
    """A real file system that fills up at different places of the run."""
    full, held = 0, 0
    for kibibytes in range(48, 160, 12):
        disk = small_disk(kibibytes)
        try:
            sit(disk / "run")
        except (OSError, CheckpointError) as error:
            full += 1
            assert "No space left" in str(error)
            assert newest(disk / "run") >= 0  # what is there is whole
            held += newest(disk / "run") > 0
        assert not list((disk / "run" / "checkpoints").glob(".*"))
        assert_same(result(small_disk(10_000) / "run"), unbroken)
        shutil.rmtree(disk / "run")
    said(f"fault 6: {full} of {full} runs on a full disk ended with a reason and went on identical")
    assert full >= 5 and held >= 3


def newest_by_name(folder: Path) -> int:
    return max(checkpoint.steps(folder / "checkpoints"), default=0)


# --- 7: numbers that are none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient", "prompt", "backbone"])
@pytest.mark.parametrize("step", [0, 5, TOTAL - 1])
def test_fault_07_a_number_that_is_none_stops_before_the_update(
    step: int, where: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first, a middle and the last step; step and pairs are named, and none is ever saved."""
    bone, method = setup()
    tensor = next(iter(method.trainable().values()))

    def strike() -> None:
        if where == "gradient":
            tensor.register_hook(lambda gradient: gradient * value)
        elif where == "loss":
            monkeypatch.setattr(passes_module, "target_nll", lambda *a: tensor.sum() * value)
        else:
            broken = tensor if where == "prompt" else bone.model.get_input_embeddings().weight
            with torch.no_grad():
                broken.fill_(value)

    def struck(*args: Any, **kwargs: Any) -> Iterator[object]:
        steps = training_steps(*args, **kwargs)
        for _ in range(step):
            yield next(steps)
        strike()
        yield from steps

    monkeypatch.setattr(fit_module, "training_steps", struck)
    with pytest.raises(TrainingError, match=rf"step {step + 1}: expected a finite .* on training pairs \[.*The update"):
        fit(bone, method, factories.pairs(10), factories.pairs(5, seed=99), config(), tmp_path, seed=7, quiet=True)
    kept = [checkpoint.load(tmp_path / "checkpoints", saved) for saved in checkpoint.steps(tmp_path / "checkpoints")]
    assert all(tensor.isfinite().all() for one in kept for tensor in (*one.method.values(), *one.optimizer.values()))
    assert not {"NaN", "Infinity"} & set((tmp_path / METRICS).read_text().replace(",", " ").split())
    said(f"fault 7: {value} in the {where} at step {step + 1} of {TOTAL}: not applied, {len(kept)} checkpoints finite")


# --- 8: out of memory ------------------------------------------------------------------------------------------------


ON_A_DEVICE = torch.OutOfMemoryError("pretended")
ON_A_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: pretended")


def short_of_memory(patch: pytest.MonkeyPatch, rows: int, first: int = 1, error: Exception = ON_A_DEVICE) -> None:
    """From the `first` forward pass on, no more than `rows` pairs fit."""
    real, calls = passes_module.target_nll, iter(range(1, 10**6))

    def limited(bone: object, batch: object) -> Tensor:
        if next(calls) >= first and batch.rows > rows:  # type: ignore[attr-defined]
            raise error
        return real(bone, batch)  # type: ignore[arg-type]

    patch.setattr(passes_module, "target_nll", limited)


@pytest.mark.parametrize(
    ("rows", "error"), [(1, ON_A_DEVICE), (2, ON_A_DEVICE), (3, ON_A_DEVICE), (2, ON_A_CPU), (1, MemoryError())]
)
def test_fault_08_out_of_memory_halves_the_rows_and_keeps_the_gradient(
    rows: int, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {}
    for name, micro in (("whole", None), ("short", "auto")):
        bone, method = setup("prompt")
        settings = config(micro_batch=micro, batch_size=8, max_steps=1)
        seen: list[Tensor] = []
        tensor = next(iter(method.trainable().values()))
        with monkeypatch.context() as patch:
            if name == "short":
                short_of_memory(patch, rows, error=error)
            optimizer = make_optimizer(method, settings)
            optimizer.register_step_pre_hook(lambda *a, t=tensor, s=seen: s.append(t.grad.clone()))
            (record,) = training_steps(bone, method, optimizer, factories.pairs(8), settings, seed=7)
        ends[name] = (record, seen[0])
    (whole, want), (short, got) = ends["whole"], ends["short"]
    difference = float((want - got).norm() / want.norm())
    said(f"fault 8: {rows} of 8 rows fit: ran with {short.micro_batch}, gradient within {difference:.1e}")
    assert (whole.micro_batch, short.micro_batch) == (8, {1: 1, 2: 2, 3: 2}[rows])
    assert difference < 1e-6 and short.loss == pytest.approx(whole.loss, rel=1e-6)


def test_fault_08_the_rows_that_fit_are_recorded_and_resumed_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out at step 5 only; a resume after that must not try the whole batch again."""
    with monkeypatch.context() as patch:
        short_of_memory(patch, 2, first=5)
        whole = result(tmp_path / "whole", micro_batch="auto")
    assert b'"micro_batch": 4' in whole[1] and b'"micro_batch": 2' in whole[1]
    with monkeypatch.context() as patch:
        short_of_memory(patch, 2, first=5)
        crash_at_forward(patch, 16, crash)
        with pytest.raises(Crash):
            sit(tmp_path / "broken", micro_batch="auto")
    assert newest(tmp_path / "broken") >= 5
    assert_same(result(tmp_path / "broken", micro_batch="auto"), whole)


@pytest.mark.parametrize(
    ("micro", "rows", "advice"),
    [(None, 2, "Set train.micro_batch=auto, or train.gradient"), ("auto", 0, "Set train.g")],
)
def test_fault_08_out_of_memory_for_good_says_what_to_do(
    micro: object, rows: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, rows, first=4)
    with pytest.raises(TrainingError, match=rf"step 4: out of memory with \d pairs? per .* {advice}"):
        sit(tmp_path, micro_batch=micro)
    assert newest(tmp_path) == 3


# --- 10, 11 and 13: the same again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_fault_10_the_same_seed_gives_the_same_run(times: int, unbroken: Result, tmp_path: Path) -> None:
    for index in range(times):
        assert_same(result(tmp_path / str(index)), unbroken)
    said(f"fault 10: {times} runs of one seed, 1 result")


@pytest.mark.slow
def test_fault_10_nor_does_it_depend_on_the_hash_seed(unbroken: Result, tmp_path: Path) -> None:
    code = "import sys, pathlib, sittings; sittings.result(pathlib.Path(sys.argv[1]))"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    for seed in range(4):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / str(seed))], check=True, env=environment)
        assert (tmp_path / str(seed) / METRICS).read_bytes() == unbroken[1]
        assert_same(result(tmp_path / str(seed)), unbroken)  # reads back what that process saved
    said("fault 10: 4 hash seeds, 1 result")


@pytest.mark.parametrize("stride", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_fault_11_resumed_at_every_step_of_50(stride: int, tmp_path: Path) -> None:
    """Over the ends of epochs (3 steps) and with micro-batches."""
    settings = {"max_steps": 50, "save_every": 1, "keep": 50, "micro_batch": 3, "eval_every": 10}
    whole = result(tmp_path / "whole", **settings)
    steps = range(1, 50, stride)
    for step in steps:
        folder = tmp_path / str(step)
        shutil.copytree(tmp_path / "whole", folder)
        for later in range(step + 1, 51):
            shutil.rmtree(folder / "checkpoints" / f"step-{later:06d}")
        assert_same(result(folder, **settings), whole)
        shutil.rmtree(folder)
    said(f"fault 11: resumed at {len(steps)} of 49 steps, all identical")


@pytest.mark.parametrize("steps", [50, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("finetune")])
def test_fault_13_the_frozen_backbone_does_not_change(kind: str, steps: int) -> None:
    bone, method = setup(kind)
    before, settings = bone.frozen_hash(), config(max_steps=steps)
    pairs: list[Encoded] = factories.pairs(10)
    for _ in training_steps(bone, method, make_optimizer(method, settings), pairs, settings, seed=7):
        pass
    trained = {id(parameter) for parameter in method.trainable().values()}
    touched = [name for name, p in bone.model.named_parameters() if id(p) not in trained and p.grad is not None]
    said(f"fault 13: {kind}: {steps} steps, hash {'equal' if bone.frozen_hash() == before else 'CHANGED'}")
    assert bone.frozen_hash() == before and touched == []
