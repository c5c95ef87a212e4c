"""What a new user gets wrong first, in Python and on the command line: answered in one message, nothing written."""

import json
from pathlib import Path

import factories
import pytest
import torch
from jobs import tiny_job
from typer.testing import CliRunner

from softprompt import attach
from softprompt.attached import Attached
from softprompt.backbone import Backbone
from softprompt.batch import require_fit
from softprompt.cli import app
from softprompt.config import load_recipe
from softprompt.data.table import read_table
from softprompt.ensemble_runs import ensemble_runs
from softprompt.errors import BackboneError, CheckpointError, ConfigError, DataError, SoftpromptError
from softprompt.method_config import PrefixTuning
from softprompt.precision import autocast
from softprompt.run import run_recipe


@pytest.fixture(scope="module")
def model() -> Attached:
    return attach(factories.backbone("gpt2"), PrefixTuning(length=3, hidden=4), seed=1)


def test_calls_in_python_that_cannot_be_meant(model: Attached) -> None:
    with pytest.raises(DataError, match="expected a list of sources, got one text"):
        model.generate("tea")
    with pytest.raises(ConfigError, match=r"strateg=.*unknown option; nearest: 'strategy'"):
        model.generate(["tea"], strateg="greedy")
    with pytest.raises(DataError, match=r"at least one .* pair, got none"):
        model.loss([])
    with pytest.raises(DataError, match="pairs, got 'ab' as number 2"):
        model.loss([("tea", "pie"), "ab"])  # type: ignore[list-item]
    with pytest.raises(DataError, match="1 of 2 pairs are longer than the backbone's window"):
        model.loss([("tea", "pie"), ("tea " * 500, "pie")])
    with pytest.raises(ConfigError, match=r"such as PrefixTuning\(length=5\), got 'prefix'"):
        attach(factories.backbone("gpt2"), "prefix")  # type: ignore[arg-type]


def test_a_prompt_wider_than_the_window_is_told_as_that() -> None:
    with pytest.raises(DataError, match=r"no room for the sources: expected fewer than 8 .* got 9. Lower"):
        require_fit([3], 8, what="sources", offset=9)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_job(tmp_path_factory.mktemp("job"))


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (["method.init=file", "method.init_file=nowhere"], CheckpointError, "method.init_file: .* got '.*nowhere'"),
        (["backbone.revision=main"], BackboneError, "backbone.revision: 'main' names a commit on the hub"),
        (["data.train=."], ConfigError, "got a folder"),
    ],
)
def test_nothing_is_written_before_it_is_refused(
    settings: list[str], error: type[SoftpromptError], words: str, recipe: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        run_recipe(load_recipe(str(recipe), settings), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_start_of_another_length_is_refused(recipe: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    run_recipe(load_recipe(str(recipe), ["train.max_steps=1", "untuned=false"]), first, quiet=True)
    start = [f"method={{init: file, init_file: {first}, length: 5}}", "untuned=false"]
    with pytest.raises(ConfigError, match=r"expected 5 virtual tokens .* got 3 .* Set method.length=3 or null"):
        run_recipe(load_recipe(str(recipe), start), tmp_path / "second", quiet=True)
    assert not (tmp_path / "second").exists()


def test_float16_weights_and_bfloat16_arithmetic_are_kept_apart(recipe: Path) -> None:
    assert torch.is_autocast_enabled("cpu") is False
    with autocast(torch.device("cpu"), "auto", torch.float16):
        assert torch.is_autocast_enabled("cpu") is False
    with pytest.raises(ConfigError, match=r"beside float16 weights, got bfloat16"):
        autocast(torch.device("cpu"), "bfloat16", torch.float16)
    with pytest.raises(ConfigError, match=r"does not go with backbone.dtype float16"):
        load_recipe(str(recipe), ["backbone.dtype=float16", "train.precision=bfloat16"])


def test_a_field_of_any_method_is_explained(recipe: Path) -> None:
    with pytest.raises(ConfigError, match=r"method.lowrank_lr: expected a number or null, > 0; got 0\. It means: rate"):
        load_recipe(str(recipe), ["method={name: dept, lowrank_lr: 0}"])


def told(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    return str(done.exception) if isinstance(done.exception, SoftpromptError) else done.output


def test_names_of_tasks_and_recipes_are_told_apart(tmp_path: Path) -> None:
    assert "'glue-sst2' is a task, not a recipe" in told("run", "glue-sst2")
    assert "Window: " in told("inspect-data", "quickstart")
    (tmp_path / "file").touch()
    assert "expected a folder, got a file" in told("run", "quickstart", "--out", str(tmp_path / "file"))
    wrong = told("inspect-data", "gazette", "data.keep={field: seen, values: yes}")
    assert "data.keep.values: Input should be a list, got the text 'yes'" in wrong


def test_a_file_without_an_ending_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("a\n")
    with pytest.raises(ConfigError, match=r"got a name without an ending\."):
        list(read_table(tmp_path / "rows"))


def test_a_whole_run_is_verified_and_no_test_data_is_said(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = CliRunner().invoke(
        app, ["run", str(recipe), "data.dev=null", "train.max_steps=2", "untuned=false", "--out", str(run), "-q"]
    )
    assert "No test data, no scores" in done.output
    said = told("verify", str(run))
    for name in ("prompt", "checkpoints/step-000002", "metrics.jsonl", "scores.json", "env.json", "recipe.yaml"):
        assert f"{run / name}: whole\n" in said
    (weights,) = run.glob("checkpoints/*/method.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "method.safetensors" in told("verify", str(run))
    assert "no MANIFEST.json" in told("verify", str(tmp_path / "nowhere"))


def test_an_ensemble_scores_and_answers_as_its_runs_do(recipe: Path, tmp_path: Path) -> None:
    """Cut sources, the task's label words though the training pairs lack one, and the metrics that were asked for."""
    data = recipe.parent
    rows = [{"source": text, "label": "b"} for text in factories.texts(6, seed=3)]
    (data / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    long = {"source": "red inn " * 200, "label": "b"}
    (data / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*rows[:3], long)))
    own = f"data={{train: {data / 'labels.jsonl'}, dev: null, test: {data / 'long.jsonl'}, truncate: source}}"
    settings = [own, "data.target={label}", "data.labels={column: label, words: {a: tea, b: pie}}"]
    settings += ["decode={strategy: greedy, beams: null, labels: true}", "score.metrics=[f1_macro, accuracy]"]
    runs = [tmp_path / "1", tmp_path / "2"]
    for length, run in enumerate(runs, 2):
        more = [*settings, f"method={{name: prompt, length: {length}}}", "train.max_steps=1", "untuned=false"]
        run_recipe(load_recipe(str(recipe), more), run, quiet=True)
    together = ensemble_runs(runs, quiet=True)
    assert list(together.ensemble) == ["f1_macro", "accuracy"]
    for run in runs:
        kept = json.loads((run / "scores.json").read_text())["scores"]
        assert together.runs[str(run)] == {metric: pytest.approx(kept[metric]["score"]) for metric in kept}


def test_backbones_in_folders_have_no_revision(recipe: Path) -> None:
    with pytest.raises(BackboneError, match="is a folder here"):
        Backbone.load("bundled", revision="main")
