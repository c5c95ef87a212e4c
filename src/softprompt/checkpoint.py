"""Training checkpoints: what a run needs to go on as if it had never stopped. Atomic, checksummed, never pickled."""

import json
import os
import re
import shutil
import stat
import sys
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import safetensors.torch
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from softprompt.console import say
from softprompt.distributed import World
from softprompt.errors import CheckpointError
from softprompt.files import (
    MANIFEST,
    clear_left_beside,
    in_the_way,
    save_tensors,
    verify_manifest,
    write_folder_atomic,
)
from softprompt.identity import Identity, Record
from softprompt.plain import read_plain
from softprompt.tensors import read_finite

METHOD, OPTIMIZER, STATE = "method.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True, slots=True)
class State:
    """The part of a checkpoint that is not tensors."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    step: int
    """Optimiser steps done."""
    metrics_bytes: int
    """Length of metrics.jsonl at this step; what comes after is cut off on resume."""
    best_step: int | None = None
    best_loss: float | None = None
    """Lowest dev loss so far, nats per target token."""
    dev_loss_due: bool = False
    """A signal came before this step's dev loss was known; it is computed on resume."""
    optimizer: str = "adamw"
    """Whose moments these are."""
    micro_batch: int | None = None
    """Pairs per forward pass that memory was found to hold; None before the first step."""
    seconds: float = 0.0
    """Training time so far, over all sittings. Not exact under a kill: the time since the last save is not in it."""
    metrics_sha256: str | None = None
    """Of those bytes of metrics.jsonl; None in checkpoints of versions that kept none."""
    record: Record | None = None
    """What it was made from; None in checkpoints of versions that kept none, or of no run."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One step of a run: trainable tensors, optimiser moments, state."""

    method: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: State


def save(folder: Path, checkpoint: Checkpoint, *, keep: int) -> None:
    """Write `folder`/step-NNNNNN completely or not at all, then drop all but the newest `keep` and the best."""

    def fill(into: Path) -> None:
        save_tensors(checkpoint.method, into / METHOD)
        save_tensors(checkpoint.optimizer, into / OPTIMIZER)
        (into / STATE).write_text(
            json.dumps(asdict(checkpoint.state), indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )

    _make_room(folder, folder / _name(checkpoint.state.step))
    write_folder_atomic(folder / _name(checkpoint.state.step), fill)
    prune(folder, checkpoint.state, keep=keep)


def _make_room(folder: Path, path: Path) -> None:
    """Where a checkpoint is to be, remove a damaged one, and set aside what is none: the run has passed it over."""
    if not in_the_way(path):
        return
    if not _not_ours(path):
        shutil.rmtree(path)
        return
    aside = next(one for number in count(1) if not os.path.lexists(one := folder / f"damaged-{path.name}-{number}"))
    path.rename(aside)
    say(f"warning: {path} was no checkpoint that could be read; it is now {aside}")


def prune(folder: Path, state: State, *, keep: int) -> None:
    """Drop all but the newest `keep` and the best, seen from `state`, where they are ours; warn of one that stays."""
    for left in {match[1] for path in folder.glob(".step-*") if (match := re.match(r"\.(step-\d+)\.", path.name))}:
        clear_left_beside(folder / left)  # of writes that were killed: the newest checkpoint is whole
    now = state.step
    later = [step for step in steps(folder) if step > now]  # damaged, or the run would have gone on from there
    for step in [*[step for step in steps(folder) if step <= now][:-keep], *later]:
        if step == state.best_step:
            continue
        path = folder / _name(step)
        odd = _not_ours(path)
        if odd:
            say(f"warning: {path} was not removed: {odd}")
            continue
        try:
            shutil.rmtree(path)
        except OSError as error:
            say(f"warning: {path} could not be removed ({error.strerror})")


def _not_ours(path: Path) -> str:
    """What keeps a checkpoint from being removed, in words; empty where all that is in it is of a checkpoint."""
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            return "it is no folder"
        for one in path.iterdir():
            if one.name not in (METHOD, OPTIMIZER, STATE, MANIFEST) or not stat.S_ISREG(one.lstat().st_mode):
                return f"{one.name!r} in it is not of a checkpoint"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return ""


def steps(folder: Path) -> list[int]:
    """Steps that have a checkpoint, oldest first."""
    found = (re.fullmatch(r"step-(\d{1,18})", path.name) for path in folder.glob("step-*"))
    return sorted({int(match[1]) for match in found if match and match[0] == _name(int(match[1]))})


def go_back(folder: Path, step: int, weights: dict[str, Tensor]) -> str:
    """Set the checkpoint of `step` aside if it holds these `weights`, which were found not to be usable; what was done.

    It is renamed, so that no run goes on with it for ever. Where one of its step was set aside before, the one before
    it goes too: going on gets to usable weights in the end.
    """
    if step not in steps(folder):
        return ""
    try:
        kept = load(folder, step).method
        if kept.keys() != weights.keys() or not all(torch.equal(kept[name], weights[name].cpu()) for name in kept):
            return ""
        before = [one for one in steps(folder) if one < step]
        aside, again = _set_aside(folder, step)
        if again and before:
            _set_aside(folder, before.pop())
    except (CheckpointError, OSError):
        return ""
    return (
        f"The checkpoint of step {step} has the weights that led here and was set aside as {aside}: --resume "
        f"goes on from {f'step {before[-1]}' if before else 'the start'}."
    )


def _set_aside(folder: Path, step: int) -> tuple[Path, bool]:
    """Its new place, and whether one of its step had been set aside before."""
    names = (f"unusable-{step:06d}{f'-{number}' if number else ''}" for number in count())
    aside = next(folder / name for name in names if not (folder / name).exists())
    (folder / _name(step)).rename(aside)
    return aside, aside.name.count("-") > 1


def load(folder: Path, step: int, identity: Identity | None = None) -> Checkpoint:
    """Read one checkpoint, every byte checked.

    Raises:
        CheckpointError: damaged, missing, unreadable, or (where an identity is given) of another run.
    """
    path = folder / _name(step)
    verify_manifest(path)
    state = read_state(path / STATE)
    if state.step != step:
        raise CheckpointError(f"{path}: expected the checkpoint of step {step}, got that of step {state.step}.")
    if identity is not None:
        identity.require(state.record, path)
    return Checkpoint(read_finite(path / METHOD), read_finite(path / OPTIMIZER), state)


def read_state(path: Path) -> State:
    """A checkpoint's state.json; `CheckpointError` where it is none."""
    try:
        return _STATE.validate_json(read_plain(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise CheckpointError(f"{path}: not a state of this version ({where}: {first['msg']}).") from None


def load_newest(folder: Path, identity: Identity | None = None) -> Checkpoint | None:
    """The newest checkpoint that is whole, None where there is none at all.

    A damaged or unreadable one is passed over with a warning on stderr; where every one is, `CheckpointError`. One of
    another run is refused so too: going on would write over it.
    """
    candidates = steps(folder)
    for step in reversed(candidates):
        try:
            found = load(folder, step)
        except CheckpointError as error:
            print(f"warning: {error} Falling back to an earlier checkpoint.", file=sys.stderr)
            continue
        if identity is not None:
            identity.require(found.state.record, folder / _name(step))
        return found
    if candidates:
        raise CheckpointError(f"{folder}: none of its {len(candidates)} checkpoints is whole. Start the run anew.")
    return None


def told(checkpoint: Checkpoint | None, world: World) -> Checkpoint | None:
    """The leader's checkpoint in every process of `world`, over the line and not by the disk."""
    if world.size == 1:
        return checkpoint
    said = b"" if checkpoint is None else json.dumps(asdict(checkpoint.state)).encode()
    heard = world.told(said)
    if not heard:
        return None
    parts = {}
    for name in ("method", "optimizer"):
        own = {} if checkpoint is None else getattr(checkpoint, name)
        parts[name] = safetensors.torch.load(world.told(safetensors.torch.save(own)))
    return Checkpoint(**parts, state=_STATE.validate_json(heard))


def restore_into(parameters: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Copy saved tensors into the parameters of the same names. Raises `CheckpointError` where they do not match."""
    if parameters.keys() != tensors.keys():
        odd = sorted(parameters.keys() ^ tensors.keys())
        raise CheckpointError(
            f"checkpoint does not fit the method: names differ, first {odd[0]!r}. Was the recipe changed?"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != tensors[name].shape:
                raise CheckpointError(
                    f"checkpoint does not fit the method: {name!r} expected {tuple(parameter.shape)}, "
                    f"got {tuple(tensors[name].shape)}. Was the recipe changed?"
                )
            parameter.copy_(tensors[name])


def _name(step: int) -> str:
    return f"step-{step:06d}"


_STATE = TypeAdapter(State)
