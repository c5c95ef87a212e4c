"""Damage to every file of a run: verify says so, resume refuses or makes it again, and a user's own files stay."""

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jobs import tiny_job
from sittings import said

from softprompt import run as run_module
from softprompt.config import Recipe, load_recipe
from softprompt.errors import Interrupted, SoftpromptError
from softprompt.run import run_recipe
from softprompt.verify import verify

pytestmark = pytest.mark.faults

OWN = ("thesis.txt", "checkpoints/mine.txt", "predictions/mine.txt", "arms/untuned/mine/notes.txt", "old.prompt/x")
"""A user's own files among those of a run."""


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


WAYS: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a bit flipped": flip,
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": Path.unlink,
    "garbage": lambda path: path.write_bytes(random.Random(5).randbytes(200)),
    "a folder": to_folder,
    "{}": lambda path: path.write_text("{}\n"),
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    more = ["train.max_steps=3", "train.save_every=1", "train.keep=2", "score.metrics=[chrf]"]
    return load_recipe(str(tiny_job(tmp_path_factory.mktemp("job"))), more)


def planted(run: Path) -> None:
    for name in OWN:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("mine")


@pytest.fixture(scope="module")
def finished(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "finished"
    run_recipe(recipe, run, quiet=True)
    planted(run)
    return run


@pytest.fixture(scope="module")
def stopped(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained, and stopped while the main arm was decoded."""
    run, real = tmp_path_factory.mktemp("runs") / "stopped", run_module._decode

    def signalled(backbone: object, steering: object, job: object, label: str, *more: object) -> object:
        if label == "main":
            os.kill(os.getpid(), signal.SIGTERM)
        return real(backbone, steering, job, label, *more)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "_decode", signalled)
        with pytest.raises(Interrupted):
            run_recipe(recipe, run, quiet=True)
    planted(run)
    return run


def files_of(run: Path) -> list[Path]:
    """Every file that a run wrote and that is read back: not the lock, nor what only a viewer reads."""
    there = (path.relative_to(run) for path in sorted(run.rglob("*")) if path.is_file())
    return [path for path in there if str(path) not in OWN and path.parts[0] != "tb" and path.name != ".lock"]


def damaged(run: Path, place: Path, every: int) -> Iterator[tuple[str, Path]]:
    """Each of `every` damages, in a copy of its own."""
    cases = [(name, way) for name in files_of(run) for way in WAYS]
    for number, (name, way) in enumerate(cases):
        if number % every == 0:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(run, place)
            WAYS[way](place / name)
            yield f"{name} {way}", place


def noticed(run: Path) -> bool:
    try:
        return any(one.problem for one in verify(run))
    except SoftpromptError:
        return True


def kept_bytes(run: Path) -> dict[str, bytes]:
    names = ("metrics.jsonl", "prompt/adapter_model.safetensors", "predictions/test.jsonl")
    return {name: (run / name).read_bytes() for name in names if (run / name).exists()}


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_every_damage_to_every_file_is_said_by_verify(
    state: str, every: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run: Path = request.getfixturevalue(state)
    assert not noticed(run)
    silent, count = [], 0
    for what, place in damaged(run, tmp_path / "copy", every):
        count += 1
        if not noticed(place):
            silent.append(what)
    said(f"damage: {count} to the {len(files_of(run))} files of a {state} run: {count - len(silent)} said by verify")
    assert silent == []


@pytest.mark.parametrize("every", [61, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_resume_refuses_what_is_damaged_or_makes_it_again(
    state: str,
    every: int,
    recipe: Recipe,
    finished: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No other exception comes through, results are those of the run that was not damaged, and own files stay."""
    run: Path = request.getfixturevalue(state)
    refused, again = 0, 0
    for what, place in damaged(run, tmp_path / "copy", every):
        try:
            run_recipe(recipe, place, resume=True, quiet=True)
            again += 1
            left = [
                str(one) for one in verify(place) if one.problem
            ]  # what nothing is made from any more stays as it is
            assert not left or what.startswith(("checkpoints", "metrics", "README")), (what, left)
        except SoftpromptError as error:
            refused += 1
            assert "\n" not in str(error), what
        else:
            name = what.split(" ")[0]
            same = {key: raw == kept_bytes(finished)[key] for key, raw in kept_bytes(place).items() if key != name}
            assert all(same.values()), (what, same)
        assert all((place / name).read_text() == "mine" for name in OWN), what
    capsys.readouterr()
    with capsys.disabled():
        said(
            f"damage: {refused + again} {state} runs resumed: {refused} refused, {again} read back or made again; "
            "0 tracebacks, 0 results that differ, 0 files of the user's lost"
        )
