"""Folders: only ours are replaced, the old or the new is always there, nothing leads out, one process holds it."""

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import factories
import pytest
import torch
from jobs import tiny_job
from test_cli import call

import softprompt
from softprompt.attached import Attached, attach
from softprompt.attached import load as load_attached
from softprompt.config import Recipe, load_recipe
from softprompt.errors import CheckpointError, ConfigError
from softprompt.files import MANIFEST, verify_manifest, write_folder_atomic, write_manifest
from softprompt.guard import explained
from softprompt.lock import LOCK, locked
from softprompt.method_config import PromptTuning
from softprompt.metrics_log import MetricsLog
from softprompt.plain import write_text_atomic
from softprompt.run import run_recipe

QUICK = ["train.max_steps=2", "untuned=false", "score.metrics=[chrf]"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def recipe(job: Path) -> Recipe:
    return load_recipe(str(job), QUICK)


@pytest.fixture(scope="module")
def model() -> Attached:
    return attach(factories.backbone(), PromptTuning(length=2), seed=1)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def fill(into: Path) -> None:
    (into / "a.txt").write_text("new")


# --- F6, C1: what is replaced ----------------------------------------------------------------------------------------

ADDED: dict[str, Callable[[Path], object]] = {
    "a file": lambda folder: (folder / "thesis.txt").write_text("x"),
    "a hidden file": lambda folder: (folder / ".secret").write_text("x"),
    "a folder": lambda folder: (folder / "mine" / "deep").mkdir(parents=True),
    "a link": lambda folder: (folder / "link").symlink_to("/etc/hostname"),
    "a link for a file of ours": lambda folder: _relink(folder),
}


def _relink(folder: Path) -> None:
    (folder / "a.txt").rename(folder.parent / "elsewhere")
    (folder / "a.txt").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize("added", ADDED)
def test_a_folder_that_somebody_added_to_is_not_replaced(added: str, tmp_path: Path) -> None:
    write_folder_atomic(tmp_path / "made", fill)
    ADDED[added](tmp_path / "made")
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=r"made: expected none, or .* Nothing was deleted: move that away"):
        write_folder_atomic(tmp_path / "made", fill)
    assert tree(tmp_path) == before


def test_saving_over_a_users_own_folder_is_refused_and_names_what_is_in_it(model: Attached, tmp_path: Path) -> None:
    (tmp_path / "mydir").mkdir()
    (tmp_path / "mydir" / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"mydir: .* got one with 'thesis.txt' and no whole MANIFEST.json of ours"):
        model.save(tmp_path / "mydir")
    assert tree(tmp_path) == {"mydir/thesis.txt": b"x"}


@pytest.mark.parametrize("name", ["", ".", "x/..", "..", "a.txt", "a.txt/x", "link", "/"])
def test_what_is_no_name_for_a_folder_is_refused_and_nothing_is_lost(
    name: str, model: Attached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="expected"):
        model.save(name)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_was_saved_and_an_empty_folder_are_replaced(model: Attached, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    model.save(tmp_path / "p")
    model.save(str(tmp_path / "p"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p"]
    verify_manifest(tmp_path / "p")


@pytest.mark.parametrize("method", ["finetune", "prefix", "prompt", "dept", "adapter", "lora"])
def test_resume_into_a_folder_of_ones_own_is_refused(
    method: str, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "proj" / {"finetune": "model", "prefix": "prompt", "prompt": "prompt"}.get(method, "adapter")
    own.mkdir(parents=True)
    (own / "thesis.txt").write_text("x")
    (tmp_path / "proj" / "README.md").write_text("mine")
    before = tree(tmp_path)
    words = [
        "run",
        str(job),
        "--resume",
        "--out",
        str(tmp_path / "proj"),
        "method={name: adapter, bottleneck: 2}" if method == "adapter" else f"method={method}",
    ]
    assert call(words, monkeypatch) == 2
    err = capsys.readouterr().err
    assert f"got one that no run wrote, with README.md, {own.name}" in err and "--out" in err and err.count("\n") == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["recipe.yaml", "status.json", "notes/env.json"])
def test_nor_is_one_with_a_file_of_the_name_of_ours(name: str, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("backbone: bundled  # by hand\n")
    with pytest.raises(ConfigError, match="no run wrote"):
        run_recipe(recipe, tmp_path, resume=True, quiet=True)
    assert (tmp_path / name).read_text() == "backbone: bundled  # by hand\n"


@pytest.mark.parametrize("added", ["prompt/thesis.txt", "README.md"])
def test_in_a_runs_own_folder_what_is_the_users_stays(
    added: str, job: Path, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run_recipe(recipe, out, quiet=True)
    (out / added).write_text("mine")
    longer = load_recipe(str(job), [*QUICK, "train.max_steps=3"])
    if added == "README.md":
        run_recipe(longer, out, resume=True, allow_change=["train"], quiet=True)
        assert "README.md is not as a run wrote it, and stays as it is" in capsys.readouterr().err
    else:
        with pytest.raises(ConfigError, match=r"prompt: .*'thesis.txt' in it\. Nothing was deleted"):
            run_recipe(longer, out, resume=True, allow_change=["train"], quiet=True)
    assert (out / added).read_text() == "mine"


CODE = {*(str(Path(softprompt.__file__).parent / name) for name in ("files.py", "plain.py")), shutil.__file__}


@pytest.mark.faults
def test_killed_at_every_line_of_a_save_the_old_or_the_new_is_loaded(model: Attached, tmp_path: Path) -> None:
    """From Python, where no checkpoint is left to make it again from."""
    other = attach(model.backbone, PromptTuning(length=2), seed=2)
    model.save(tmp_path / "start")
    old, new = (one.state_dict() for one in (model, other))
    found, number = [0, 0], 0
    while True:
        number += 9
        place = tmp_path / str(number)
        shutil.copytree(tmp_path / "start", place / "p")
        child = os.fork()
        if child == 0:
            left = iter(range(number, 0, -1))

            def line(frame: FrameType, event: str, argument: object, left: object = left) -> object:
                if event == "line" and next(left, 0) == 1:  # type: ignore[call-overload]
                    os.kill(os.getpid(), signal.SIGKILL)
                return line

            sys.settrace(lambda frame, event, argument, line=line: line if frame.f_code.co_filename in CODE else None)
            other.save(place / "p")
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
        kept = load_attached(model.backbone, place / "p").steering.numbers  # type: ignore[union-attr]
        is_new = torch.equal(kept, next(iter(new.values())))
        assert is_new or torch.equal(kept, next(iter(old.values())))
        found[is_new] += 1
        other.save(place / "p")
        assert [path.name for path in place.iterdir()] == ["p"]
    print(f"\nsave over an old prompt: {sum(found)} deaths: {found[0]} times the old one, {found[1]} times the new one")
    assert min(found) > 0


def test_an_error_of_the_disk_while_the_old_one_is_deleted_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder_atomic(tmp_path / "made", lambda into: (into / "a.txt").write_text("old"))

    def broken(path: Path, ignore_errors: bool = False) -> None:
        (Path(path) / "a.txt").unlink()
        if not ignore_errors:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", broken)
        write_folder_atomic(tmp_path / "made", fill)
    verify_manifest(tmp_path / "made")
    assert (tmp_path / "made" / "a.txt").read_text() == "new"


def test_an_error_of_the_disk_while_the_new_one_is_renamed_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder_atomic(tmp_path / "made", lambda into: (into / "a.txt").write_text("old"))
    real, calls = Path.rename, iter(range(9))

    def broken(path: Path, target: Path) -> Path:
        if next(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", broken)
        with pytest.raises(OSError, match=r"made"):
            write_folder_atomic(tmp_path / "made", fill)
    assert tree(tmp_path).keys() == {"made/a.txt", f"made/{MANIFEST}"}
    assert (tmp_path / "made" / "a.txt").read_text() == "old"


# --- F13: what leads out of a folder ---------------------------------------------------------------------------------

HASH = "0" * 64
NAMES = ["../outside", "/etc/passwd", "a/b", "..", ".", "", "x" * 300, "a\0b", MANIFEST, "a/../../b"]
ENTRIES = [{"bytes": True}, {"bytes": -1}, {"bytes": 1.0}, {"bytes": "1"}, {"bytes": 1, "sha256": "x"}, 3, None]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_a_manifest_stay_in_their_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    entry = {"bytes": 1, "sha256": HASH}
    (tmp_path / MANIFEST).write_text(json.dumps({"files": {name: entry}}, indent=2) + "\n")
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *more, **named: (opened.append(str(path)), real(path, *more, **named))[1]
    )
    with pytest.raises(CheckpointError, match="not a manifest"):
        verify_manifest(tmp_path)
    assert {path for path in opened if path != str(tmp_path / MANIFEST)} == set()


@pytest.mark.parametrize("raw", ['{"bytes": Infinity}', '{"bytes": 1e999}', "[" * 5000, *map(str, ENTRIES)])
def test_what_is_no_entry_of_a_manifest_is_refused(raw: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"files": {"a": ' + raw + "}}")
    with pytest.raises(CheckpointError, match="not a manifest"):
        verify_manifest(tmp_path)


def test_so_is_a_manifest_without_bounds(tmp_path: Path) -> None:
    import json

    many = {str(number): {"bytes": 1, "sha256": HASH} for number in range(10_001)}
    (tmp_path / MANIFEST).write_text(json.dumps({"files": many}, indent=2) + "\n")
    with pytest.raises(CheckpointError, match="not a manifest"):
        verify_manifest(tmp_path)


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "link to the manifest"])
def test_what_is_no_plain_file_is_not_read(kind: str, tmp_path: Path) -> None:
    fill(tmp_path)
    write_manifest(tmp_path)
    file = tmp_path / (MANIFEST if kind == "link to the manifest" else "a.txt")
    kept = file.rename(tmp_path / "kept")
    {"folder": file.mkdir, "pipe": lambda: os.mkfifo(file)}.get(kind, lambda: file.symlink_to(kept))()
    with pytest.raises(CheckpointError):
        verify_manifest(tmp_path)


@pytest.mark.parametrize(
    "name", [".lock", "metrics.jsonl", "scores.json", "recipe.yaml", "env.json", "README.md", "predictions/test.jsonl"]
)
def test_a_link_in_a_run_folder_is_not_written_through(name: str, recipe: Recipe, tmp_path: Path) -> None:
    out, target = tmp_path / "out", tmp_path / "target"
    run_recipe(recipe, out, quiet=True)
    (out / "prompt" / MANIFEST).unlink()  # so that there is something to do
    shutil.rmtree(out / "prompt")
    target.write_text("precious")
    (out / name).unlink(missing_ok=True)
    (out / name).symlink_to(target)
    with pytest.raises((ConfigError, CheckpointError), match=r"expected a (plain )?file.* got (a link|something else)"):
        run_recipe(recipe, out, resume=True, quiet=True)
    assert target.read_text() == "precious" and (out / name).is_symlink()


@pytest.mark.parametrize("name", ["checkpoints", "predictions", "arms", "tasks", "tb", "prompt"])
def test_a_linked_folder_in_a_run_folder_is_refused_before_training(
    name: str, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from softprompt import run as run_module

    out, target = tmp_path / "out", tmp_path / "target"
    run_recipe(recipe, out, quiet=True)
    shutil.rmtree(out / name, ignore_errors=True)
    target.mkdir()
    (out / name).symlink_to(target)
    monkeypatch.setattr(run_module, "prepare", None)
    with pytest.raises(ConfigError, match=r"got a link"):
        run_recipe(recipe, out, resume=True, quiet=True)
    assert list(target.iterdir()) == []


def test_a_planted_temporary_name_is_neither_followed_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    planted = [tmp_path / ".x.json.tmp", tmp_path / ".x.json.0123456789abcdef.tmp"]
    for link in planted:
        link.symlink_to(tmp_path / "target")
    write_text_atomic(tmp_path / "x.json", "new")
    assert (tmp_path / "target").read_text() == "precious" and all(link.is_symlink() for link in planted)


# --- F17: what a message names ---------------------------------------------------------------------------------------


def test_a_message_names_the_file_and_not_the_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = MetricsLog(tmp_path / "metrics.jsonl", kept=0, digest=None, step=0)
    acts = {
        "status.json": lambda: write_text_atomic(tmp_path / "status.json", "x"),
        "made": lambda: write_folder_atomic(tmp_path / "made", fill),
        "metrics.jsonl": log.mark,
    }
    for name, act in acts.items():
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left") as caught:
                act()
        err, code = explained(caught.value)
        assert (
            code == 1
            and f"No space left on device ({tmp_path / name}" in err
            and ".tmp" not in err
            and "Free some space" in err
        )
    (tmp_path / "taken.json").mkdir()
    with pytest.raises(ConfigError, match=r"taken\.json: expected a file .* got a folder"):
        write_text_atomic(tmp_path / "taken.json", "x")


def test_what_cannot_be_written_as_tensors_names_the_folder_that_was_meant(tmp_path: Path) -> None:
    from softprompt.files import save_tensors

    with pytest.raises(CheckpointError, match=r"made/no/x\.safetensors: cannot be written") as caught:
        write_folder_atomic(
            tmp_path / "made", lambda into: save_tensors({"a": torch.ones(1)}, into / "no" / "x.safetensors")
        )
    assert ".tmp" not in str(caught.value).split(" (")[0]


# --- F19: the lock ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "replaced", "moved"])
def test_the_lock_holds_whatever_becomes_of_its_file(how: str, tmp_path: Path) -> None:
    with locked(tmp_path):
        if how == "moved":
            (tmp_path / LOCK).rename(tmp_path / "old-lock")
        else:
            (tmp_path / LOCK).unlink()
        if how == "replaced":
            (tmp_path / LOCK).write_text("")
        with pytest.raises(ConfigError, match="is in use by"), locked(tmp_path):
            pass
    with locked(tmp_path):
        pass
