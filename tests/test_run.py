"""The whole job on a tiny random backbone: what a run folder holds, and that a run goes on as if never stopped."""

import json
from pathlib import Path

import pytest
from jobs import tiny_job

from softprompt.backbone import Backbone
from softprompt.config import Recipe, load_recipe
from softprompt.decode import decode_texts
from softprompt.errors import ConfigError
from softprompt.files import verify_manifest
from softprompt.prompt import Prompt
from softprompt.report import table, write_card
from softprompt.run import run_recipe
from softprompt.table import as_text


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    more = "compare:\n  finetune: {method: finetune}"
    return load_recipe(str(tiny_job(tmp_path_factory.mktemp("job"), more)))


@pytest.fixture(scope="module")
def done(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    write_card(recipe, folder, run_recipe(recipe, folder, quiet=True))
    return folder


def test_run_folder_holds_everything(done: Path) -> None:
    names = {path.name for path in done.iterdir()}
    assert {"recipe.yaml", "env.json", "status.json", "metrics.jsonl", "README.md", "prompt", "checkpoints"} <= names
    assert {"predictions", "scores.json", "arms"} <= names
    assert json.loads((done / "status.json").read_text())["status"] == "done"
    assert {path.name for path in (done / "arms").iterdir()} == {"untuned", "finetune"}
    verify_manifest(done / "prompt")


def test_scores_carry_signatures_and_every_arm_is_reported(recipe: Recipe, done: Path) -> None:
    scores = json.loads((done / "scores.json").read_text())["scores"]
    assert list(scores) == ["bleu", "rouge_l", "chrf"]
    assert all(score["signature"] for score in scores.values())
    results = run_recipe(recipe, done, resume=True, quiet=True)
    text = as_text(table(results))
    assert [result.arm for result in results] == ["untuned", "main", "finetune"]
    assert "untuned" in text and "prefix" in text and "finetune" in text and "stored" in text


def test_predictions_keep_source_and_references(done: Path) -> None:
    rows = [json.loads(line) for line in (done / "predictions" / "test.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    assert all(row["source"] and row["references"] and isinstance(row["prediction"], str) for row in rows)


def test_saved_prompt_decodes_what_the_run_decoded(recipe: Recipe, done: Path) -> None:
    backbone = Backbone.load(recipe.backbone.id)
    prompt = Prompt.load(done / "prompt", backbone_hash=backbone.hash())
    rows = [json.loads(line) for line in (done / "predictions" / "test.jsonl").read_text().splitlines()]
    texts = [row.text for row in decode_texts(backbone, prompt, [row["source"] for row in rows], recipe.decode)]
    assert texts == [row["prediction"] for row in rows]


def test_finetuned_backbone_is_a_transformers_folder(done: Path) -> None:
    tuned = Backbone.load(str(done / "arms" / "finetune" / "model"))
    assert tuned.parameter_count() > 0


def test_metrics_hold_every_step_and_each_dev_loss(done: Path) -> None:
    lines = [json.loads(line) for line in (done / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == list(range(1, len(steps) + 1))
    assert [line["step"] for line in lines if "dev_loss" in line] == [len(steps) // 2, len(steps)]


def test_run_twice_gives_the_same_bytes(recipe: Recipe, done: Path, tmp_path: Path) -> None:
    run_recipe(recipe, tmp_path / "again", quiet=True)
    for name in ("metrics.jsonl", "prompt/adapter_model.safetensors", "predictions/test.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (done / name).read_bytes()


def test_used_folder_is_refused_without_resume(recipe: Recipe, done: Path) -> None:
    with pytest.raises(ConfigError, match="--resume"):
        run_recipe(recipe, done, quiet=True)


def test_resume_refuses_another_recipe_and_names_the_field(recipe: Recipe, done: Path) -> None:
    other = recipe.model_copy(update={"seed": recipe.seed + 1})
    with pytest.raises(ConfigError, match="seed"):
        run_recipe(other, done, resume=True, quiet=True)


def test_prompt_of_another_backbone_is_refused(done: Path) -> None:
    with pytest.raises(Exception, match="learned on backbone"):
        Prompt.load(done / "prompt", backbone_hash="0" * 64)
