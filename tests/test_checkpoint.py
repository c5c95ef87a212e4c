"""Checkpoints: nothing lost, nothing damaged unnoticed, the newest whole one found."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from softprompt import checkpoint
from softprompt.checkpoint import METHOD, OPTIMIZER, STATE, Checkpoint, State
from softprompt.errors import CheckpointError
from softprompt.files import MANIFEST

FILES = [METHOD, OPTIMIZER, STATE, MANIFEST]


def make(step: int, *, best_step: int | None = None) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    method = {"prefix": torch.randn(3, 4, generator=generator), "mlp.0.bias": torch.randn(2, generator=generator)}
    moments = {"prefix/exp_avg": torch.randn(4, 3, generator=generator).T, "prefix/step": torch.tensor(float(step))}
    return Checkpoint(method, moments, State(step, 100 * step, best_step, 1.5 if best_step else None, seconds=2.5))


def save(folder: Path, *steps: int, keep: int = 10, best: int | None = None) -> None:
    for step in steps:
        checkpoint.save(folder, make(step, best_step=best), keep=keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def equal(one: Checkpoint, other: Checkpoint) -> bool:
    return one.state == other.state and all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
        for mine, theirs in ((one.method, other.method), (one.optimizer, other.optimizer))
    )


def test_what_is_saved_comes_back_to_the_bit(tmp_path: Path) -> None:
    save(tmp_path, 7)
    assert equal(checkpoint.load(tmp_path, 7), make(7))
    assert names(tmp_path) == ["step-000007"] and names(tmp_path / "step-000007") == sorted(FILES)


def test_no_checkpoint_at_all_is_none(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "nowhere") is None
    assert checkpoint.load_newest(tmp_path) is None


def test_newest_means_the_highest_step_and_half_written_folders_do_not_count(tmp_path: Path) -> None:
    save(tmp_path, 5, 999_999, 1_000_000)
    (tmp_path / ".step-2000000.tmp").mkdir()
    (tmp_path / "step-later").mkdir()
    assert checkpoint.steps(tmp_path) == [5, 999_999, 1_000_000]
    newest = checkpoint.load_newest(tmp_path)
    assert newest is not None and newest.state.step == 1_000_000


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(tmp_path, step, keep=2, best=3 if step >= 3 else step)
    assert checkpoint.steps(tmp_path) == [3, 6, 7]
    save(tmp_path, 8, keep=2, best=8)
    assert checkpoint.steps(tmp_path) == [7, 8]


def test_what_killed_writes_left_beside_is_removed_by_the_next_save(tmp_path: Path) -> None:
    """Of a step too that was put back from one of them, or dropped since; a name that is not ours stays."""
    save(tmp_path, 3)
    (tmp_path / "step-000003").rename(tmp_path / f".step-000003.{'a' * 16}.tmp")
    (tmp_path / f".step-000003.{'b' * 16}.tmp").mkdir()
    (tmp_path / ".step-000003.mine").mkdir()
    save(tmp_path, 6)
    assert names(tmp_path) == [".step-000003.mine", "step-000006"]


def test_pruning_leaves_what_is_not_of_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def saved(step: int, keep: int) -> None:
        whole = checkpoint.Checkpoint({}, {}, checkpoint.State(step, 0))
        checkpoint.save(tmp_path, whole, keep=keep)

    for step in (1, 2, 3):
        saved(step, 9)
    (tmp_path / "step-000001" / "thesis.txt").write_text("x")
    (tmp_path / "step-000099").write_text("mine")
    saved(4, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000004", "step-000099"]
    err = capsys.readouterr().err
    assert "step-000001 was not removed: 'thesis.txt' in it" in err and "step-000099 was not removed: it is no" in err


def test_saving_never_drops_the_checkpoint_it_has_just_written(tmp_path: Path) -> None:
    """After a fall back to an earlier step, later folders (damaged ones) lie about."""
    save(tmp_path, 2, 4, 6)
    damage(tmp_path / "step-000006" / METHOD, "flip")
    save(tmp_path, 5, keep=1)
    newest = checkpoint.load_newest(tmp_path)
    assert newest is not None and newest.state.step == 5


def damage(path: Path, how: str) -> None:
    raw = bytearray(path.read_bytes())
    if how == "delete":
        path.unlink()
    elif how == "flip":
        raw[len(raw) // 2] ^= 4
        path.write_bytes(raw)
    elif how == "truncate":
        path.write_bytes(raw[: len(raw) // 2])
    else:
        path.write_bytes(b"")


@pytest.mark.faults
@pytest.mark.parametrize("how", ["truncate", "empty", "delete", "flip"])
@pytest.mark.parametrize("name", FILES)
def test_damage_is_noticed_and_the_previous_checkpoint_is_taken(
    name: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 1, 2)
    damage(tmp_path / "step-000002" / name, how)
    with pytest.raises(CheckpointError, match="step-000002"):
        checkpoint.load(tmp_path, 2)
    newest = checkpoint.load_newest(tmp_path)
    assert newest is not None and equal(newest, make(1))
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("warning: ") and "step-000002" in err and err.count("\n") == 1

    damage(tmp_path / "step-000001" / name, how)
    with pytest.raises(CheckpointError, match="none of its 2 checkpoints is whole"):
        checkpoint.load_newest(tmp_path)


@pytest.mark.faults
def test_every_flipped_byte_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, 3)
    for name in FILES:
        path = tmp_path / "step-000003" / name
        raw = path.read_bytes()
        for index in range(len(raw)):
            changed = bytearray(raw)
            changed[index] ^= 1 << index % 8
            path.write_bytes(changed)
            with pytest.raises(CheckpointError):
                checkpoint.load(tmp_path, 3)
        path.write_bytes(raw)


@pytest.mark.faults
@pytest.mark.parametrize("target", ["os.fsync", "pathlib.Path.rename", "safetensors.torch.save_file"])
def test_a_full_disk_leaves_the_earlier_checkpoints_and_no_rubbish(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, 2, keep=1)

    def disk_full(*args: object, **kwargs: object) -> None:
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise SafetensorError(f"Error while serializing: {error}") if "safetensors" in target else error

    with monkeypatch.context() as patch:
        patch.setattr(target, disk_full)
        with pytest.raises((OSError, CheckpointError), match="No space left"):
            save(tmp_path, 3, keep=1)
    assert names(tmp_path) == ["step-000002"]
    newest = checkpoint.load_newest(tmp_path)
    assert newest is not None and equal(newest, make(2))


def test_restoring_refuses_tensors_of_another_method() -> None:
    parameters = {"prefix": torch.nn.Parameter(torch.zeros(2, 3))}
    checkpoint.restore_into(parameters, {"prefix": torch.ones(2, 3)})
    assert torch.equal(parameters["prefix"], torch.ones(2, 3))
    with pytest.raises(CheckpointError, match="expected \\(2, 3\\), got \\(3, 2\\)"):
        checkpoint.restore_into(parameters, {"prefix": torch.zeros(3, 2)})
    with pytest.raises(CheckpointError, match="names differ, first 'mlp'"):
        checkpoint.restore_into(parameters, {"prefix": torch.zeros(2, 3), "mlp": torch.zeros(1)})
    assert torch.equal(parameters["prefix"], torch.ones(2, 3))


def test_a_state_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    from softprompt.files import write_manifest

    save(tmp_path, 1)
    (tmp_path / "step-000001" / STATE).write_text('{"step": 1, "metrics_bytes": 2, "moon": "full"}')
    write_manifest(tmp_path / "step-000001")
    with pytest.raises(CheckpointError, match="not a state of this version"):
        checkpoint.load(tmp_path, 1)
