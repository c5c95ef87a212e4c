"""What a run's files belong to: missing or damaged is "not known", another run's is refused, edited is found."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finished_runs import as_before, edited, flip, problems, unfinished, unsealed
from jobs import tiny_job
from test_cli import call

from softprompt import checkpoint
from softprompt import run as run_module
from softprompt.backbone import Backbone
from softprompt.checkpoint import METHOD, OPTIMIZER, STATE
from softprompt.config import Recipe, load_recipe
from softprompt.errors import CheckpointError, ConfigError
from softprompt.files import MANIFEST, write_manifest
from softprompt.grid import load_grid
from softprompt.identity import Made
from softprompt.run import run_recipe
from softprompt.sweep import run_sweep

QUICK = ["train.max_steps=3", "train.save_every=1", "train.keep=3", "untuned=false", "score.metrics=[chrf]"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_job(tmp_path_factory.mktemp("job"))


def load(job: Path, *overrides: str) -> Recipe:
    return load_recipe(str(job), [*QUICK, *overrides])


@pytest.fixture(scope="module")
def run(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, which stays as it is."""
    place = tmp_path_factory.mktemp("runs") / "run"
    run_recipe(load(job), place, quiet=True)
    return place


@pytest.fixture(scope="module")
def other(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the same recipe with another seed."""
    place = tmp_path_factory.mktemp("runs") / "other"
    run_recipe(load(job, "seed=7"), place, quiet=True)
    return place


@pytest.fixture
def out(run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(run, tmp_path / "out")


# --- F2: a record that is missing or damaged -------------------------------------------------------------------------

HARM: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "a bit flipped": flip,
    "emptied": lambda path: path.write_text(""),
    "{}": lambda path: path.write_text("{}"),
    "without its checksum": lambda path: unsealed(path),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("state", ["finished", "stopped"])
@pytest.mark.parametrize("how", HARM)
@pytest.mark.parametrize("name", ["env.json", "recipe.yaml"])
def test_a_record_that_is_not_known_is_refused_with_a_way_out(
    name: str, how: str, state: str, job: Path, out: Path
) -> None:
    if state == "stopped":
        unfinished(out)
    HARM[how](out / name)
    data = job.parent / "train.jsonl"
    kept = data.read_bytes()
    try:
        data.write_bytes(kept + b'{"source": "red", "target": "inn"}\n')
        with pytest.raises(ConfigError) as caught:
            run_recipe(load(job), out, resume=True, quiet=True)
    finally:
        data.write_bytes(kept)
    message = str(caught.value)
    assert "\n" not in message and name in message
    assert "got a folder. Move it away" in message if how == "a folder" else "--allow-change data" in message
    assert problems(out)


def test_what_is_not_known_can_be_accepted(job: Path, out: Path) -> None:
    unfinished(out)
    (out / "env.json").unlink()
    run_recipe(load(job), out, resume=True, allow_change=["data", "backbone"], quiet=True)
    assert not problems(out)
    run_recipe(load(job), out, resume=True, quiet=True)
    (out / "recipe.yaml").unlink()
    names = ["backbone", "method", "data", "train", "decode", "score", "seed"]
    with pytest.raises(ConfigError, match=" ".join(f"--allow-change {name}" for name in names)):
        run_recipe(load(job), out, resume=True, quiet=True)
    run_recipe(load(job), out, resume=True, allow_change=names, quiet=True)


def test_data_and_weights_that_env_json_does_not_name_are_not_known(job: Path, out: Path) -> None:
    from softprompt.env import read_env

    for field in ("data", "backbones"):
        kept = (out / "env.json").read_bytes()
        env = read_env(unfinished(out) if field == "data" else out)
        setattr(env, field, {})
        env.write(out)
        with pytest.raises(ConfigError, match=r"data\.|not known: env\.json has no hash of"):
            run_recipe(load(job), out, resume=True, quiet=True)
        (out / "env.json").write_bytes(kept)


# --- F4, F7: scores, predictions, logs -------------------------------------------------------------------------------


BAD_SCORES: dict[str, Callable[[Path], object]] = {
    "another score": lambda path: edited(path, lambda kept: kept["scores"]["chrf"].update(score=99.99)),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "[]": lambda path: path.write_text("[]"),
    "{}": lambda path: path.write_text("{}"),
    "null": lambda path: path.write_text("null"),
    "not UTF-8": lambda path: path.write_bytes(b"\xff" + path.read_bytes()),
    "deep": lambda path: path.write_text("[" * 100_000),
    "no decoding": lambda path: edited(path, lambda kept: kept.update(decoding=None)),
    "text for a score": lambda path: edited(path, lambda kept: kept["scores"]["chrf"].update(score="9")),
    "NaN": lambda path: edited(path, lambda kept: kept["scores"]["chrf"].update(score=float("nan"))),
    "an unknown key": lambda path: edited(path, lambda kept: kept.update(moon="full")),
    "of another arm": lambda path: edited(path, lambda kept: kept.update(arm="other")),
    "a bit flipped": flip,
}


@pytest.mark.parametrize(
    ("how", "sealed"), [*((how, True) for how in BAD_SCORES), *((how, False) for how in ("{}", "NaN", "no decoding"))]
)
def test_damaged_scores_are_not_done_and_made_again(
    how: str, sealed: bool, job: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = json.loads((out / "scores.json").read_text())["scores"]
    if not sealed:
        as_before(out)
    BAD_SCORES[how](out / "scores.json")
    capsys.readouterr()
    (result,) = run_recipe(load(job), out, resume=True, quiet=True)
    assert result.scores == scores and "scored again" in capsys.readouterr().err
    assert not problems(out)


def test_an_edited_prediction_is_found(job: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = out / "predictions" / "test.jsonl"
    kept = path.read_bytes()
    for change in (lambda: path.write_bytes(kept.replace(b"prediction", b"Prediction", 1)), path.unlink):
        change()
        assert "predictions/test.jsonl" in problems(out)
        run_recipe(load(job), out, resume=True, quiet=True)
        assert "It is decoded and scored again" in capsys.readouterr().err and path.read_bytes() == kept


def test_one_damaged_cell_does_not_take_a_sweep_down(job: Path, tmp_path: Path) -> None:
    grid = load_grid(str(job), [*QUICK, "seed=1,2,3"])
    whole = run_sweep(grid, tmp_path / "sweep", quiet=True)
    cells = sorted((tmp_path / "sweep" / "cells").iterdir())
    edited(cells[0] / "scores.json", lambda kept: kept["scores"]["chrf"].update(score=77.7))
    (cells[1] / "scores.json").write_text("null")
    (cells[2] / "env.json").unlink()
    (cells[2] / "env.json").mkdir()
    again = run_sweep(grid, tmp_path / "sweep", resume=True, quiet=True)
    for one, other in zip(whole[:2], again[:2], strict=True):
        assert one.results and other.results and one.results[0].scores == other.results[0].scores
    assert "env.json: expected a file" in again[2].failed
    assert "env.json" in problems(tmp_path / "sweep")


@pytest.mark.parametrize("how", ["a digit", "a null byte", "a lost line feed", "not UTF-8", "deleted", "cut"])
def test_an_edited_log_of_a_stopped_run_is_refused(how: str, job: Path, out: Path) -> None:
    path = unfinished(out) / "metrics.jsonl"
    raw = path.read_bytes()
    changed = {
        "a digit": raw.replace(b'"loss": ', b'"loss": 1', 1),
        "a null byte": raw[:5] + b"\0" + raw[6:],
        "a lost line feed": raw.replace(b"\n", b" ", 1),
        "not UTF-8": raw[:5] + b"\xff" + raw[6:],
        "deleted": b"",
        "cut": raw[:40],
    }[how]
    path.unlink() if how == "deleted" else path.write_bytes(changed)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: .* Put it back, or start the run anew"):
        run_recipe(load(job), out, resume=True, quiet=True)
    assert "metrics.jsonl" in problems(out)


# --- F5: what verify misses, and what is not this run's --------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["prompt", "prompt/MANIFEST.json", "scores.json", "metrics.jsonl", "checkpoints", "splits.json", "predictions"],
)
def test_verify_says_what_is_gone(
    name: str, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["verify", str(out)], monkeypatch) == 0
    shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()
    capsys.readouterr()
    assert call(["verify", str(out)], monkeypatch) == 1
    said, err = capsys.readouterr()
    assert "NOT WHOLE" in said and name.split("/")[0] in err and err.count("\n") == 1


@pytest.mark.parametrize("how", ["gone", "a flipped bit", "an older one left aside"])
def test_resume_of_a_finished_run_makes_its_prompt_again(
    how: str, job: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = out / "prompt" / "adapter_model.safetensors"
    whole, scores = file.read_bytes(), (out / "scores.json").read_bytes()
    if how == "a flipped bit":
        flip(file)
    elif how == "gone":
        shutil.rmtree(out / "prompt")
    else:
        (out / "prompt").rename(out / ".prompt.0123456789abcdef.old")
    monkeypatch.setattr(run_module, "decode_together", None)  # the scores are whole
    run_recipe(load(job), out, resume=True, quiet=True)
    err = capsys.readouterr().err
    assert ("It is made again from the last checkpoint" in err) == (how != "an older one left aside")
    assert file.read_bytes() == whole and (out / "scores.json").read_bytes() == scores and not problems(out)


def test_a_checkpoint_of_another_run_is_refused_and_stays(job: Path, out: Path, other: Path) -> None:
    shutil.copytree(other / "checkpoints/step-000003", unfinished(out) / "checkpoints/step-000003")
    with pytest.raises(CheckpointError, match=r"step-000003: belongs to another run \(expected"):
        run_recipe(load(job), out, resume=True, quiet=True)
    assert "step-000003" in problems(out) and (out / "checkpoints/step-000003" / MANIFEST).exists()
    shutil.rmtree(out / "checkpoints/step-000003")
    run_recipe(load(job), out, resume=True, quiet=True)
    assert not problems(out)


def test_so_are_scores_and_a_prompt_of_another_run(job: Path, out: Path, other: Path) -> None:
    whole = (out / "prompt" / "adapter_model.safetensors").read_bytes()
    for name in ("prompt", "predictions"):
        shutil.rmtree(out / name)
        shutil.copytree(other / name, out / name)
    shutil.copy(other / "scores.json", out / "scores.json")
    assert "prompt: NOT WHOLE" in problems(out) and "scores.json: NOT WHOLE" in problems(out)
    run_recipe(load(job), out, resume=True, quiet=True)
    assert (out / "prompt" / "adapter_model.safetensors").read_bytes() == whole and not problems(out)


def test_checkpoints_of_before_an_accepted_change_are_the_runs_own(job: Path, out: Path) -> None:
    unfinished(out)
    run_recipe(load(job, "train.lr=0.5"), out, resume=True, allow_change=["train.lr"], quiet=True)
    assert not problems(out)
    run_recipe(load(job, "train.lr=0.5"), out, resume=True, quiet=True)


def test_a_damaged_tuned_backbone_is_not_loaded(job: Path, tmp_path: Path) -> None:
    run_recipe(load(job, "method=finetune"), tmp_path / "run", quiet=True)
    folder = tmp_path / "run" / "model"
    Backbone.load(str(folder))
    flip(folder / "model.safetensors", 0.9)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its bytes differ"):
        Backbone.load(str(folder))
    flip(folder / "model.safetensors", 0.9)
    (folder / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="no MANIFEST"):
        Backbone.load(str(folder))


def test_the_digest_of_a_recipe_is_of_what_counts(job: Path) -> None:
    one, other = load(job), load(job, "train.lr=0.5")
    assert Made.of(one, []).recipe != Made.of(other, []).recipe
    assert Made.of(one.model_copy(update={"name": "x"}), []) == Made.of(one, [])
    untuned = [Made.of(load(job, "method=untuned", rate), []).recipe for rate in ("train.lr=0.1", "train.lr=0.2")]
    assert untuned[0] == untuned[1]  # how it is trained does not act where nothing is


# --- runs of versions that kept no records ---------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_a_run_of_before_is_gone_on_with_and_that_is_said_once(
    state: str, job: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (out / "prompt" / "adapter_model.safetensors").read_bytes()
    as_before(unfinished(out) if state == "stopped" else out)
    assert not problems(out)
    for said in (1, 0):
        capsys.readouterr()
        run_recipe(load(job), out, resume=True, quiet=True)
        assert capsys.readouterr().err.count("was begun by a version that kept no checksums") == said
    assert (out / "prompt" / "adapter_model.safetensors").read_bytes() == whole and not problems(out)


@pytest.mark.parametrize("name", ["env.json", "recipe.yaml"])
def test_but_not_where_its_records_are_gone(name: str, job: Path, out: Path) -> None:
    as_before(unfinished(out))
    (out / name).unlink()
    with pytest.raises(ConfigError, match=f"{name} is missing"):
        run_recipe(load(job), out, resume=True, quiet=True)


# --- F11, F20: checkpoints in the way --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", ["a folder for the manifest", "a folder for a tensor file", "a file", "a link", "unreadable"]
)
def test_a_newest_checkpoint_that_cannot_be_read_is_passed_over(
    how: str, job: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (out / "prompt" / "adapter_model.safetensors").read_bytes()
    newest = unfinished(out) / "checkpoints" / "step-000002"
    if how.startswith("a folder"):
        path = newest / (MANIFEST if "manifest" in how else METHOD)
        path.unlink()
        path.mkdir()
    elif how == "unreadable":
        import os

        real = os.open

        def refused(path: Any, *more: Any, **named: Any) -> int:
            if str(path) == str(newest / OPTIMIZER) and (newest / ".locked").exists():
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *more, **named)

        (newest / ".locked").touch()
        monkeypatch.setattr(os, "open", refused)
    else:
        target = newest.rename(out.parent / "elsewhere")
        newest.write_text("mine") if how == "a file" else newest.symlink_to(target)
    if how == "a link":
        shutil.rmtree(out.parent / "elsewhere")
        (out.parent / "elsewhere").mkdir()
    run_recipe(load(job), out, resume=True, quiet=True)
    assert "Falling back to an earlier checkpoint" in capsys.readouterr().err
    assert {path.name.split("-")[0] for path in (out / "checkpoints").iterdir()} <= {"step", "damaged"}
    assert (out / "prompt" / "adapter_model.safetensors").read_bytes() == whole
    assert not problems(out)


def test_a_kill_between_the_last_save_and_its_pruning_leaves_nothing_for_good(job: Path, out: Path) -> None:
    short = load(job, "train.keep=1")
    run_recipe(short, out, resume=True, allow_change=["train.keep"], quiet=True)
    assert len(checkpoint.steps(out / "checkpoints")) <= 2  # the newest and the best


# --- C16 and D16 -----------------------------------------------------------------------------------------------------


def test_a_run_from_python_takes_text_and_writes_the_card(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_recipe(load(job), str(tmp_path / "python"), quiet=True)
    assert call(["run", str(job), *QUICK, "--quiet", "--out", str(tmp_path / "command")], monkeypatch) == 0
    cards = [(tmp_path / name / "README.md").read_text() for name in ("python", "command")]
    assert "## Use it" in cards[0] and cards[0].split("|")[0] == cards[1].split("|")[0]


def test_a_dev_loss_that_was_made_up_for_is_no_longer_due(job: Path, out: Path) -> None:
    last = out / "checkpoints" / "step-000003"
    edited(last / STATE, lambda state: state.update(dev_loss_due=True))
    write_manifest(last)
    (out / "scores.json").unlink()
    run_recipe(load(job), out, resume=True, quiet=True)
    assert not checkpoint.load(out / "checkpoints", 3).state.dev_loss_due and not problems(out)
