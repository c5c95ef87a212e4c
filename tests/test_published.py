"""Published scores: shown beside the run's own, and of no effect on the run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from jobs import tiny_job

from softprompt import report
from softprompt.config import load_recipe
from softprompt.errors import ConfigError
from softprompt.results import ArmResult
from softprompt.run import run_recipe

PUBLISHED = "published: {table: 'A 2021, Table 2, B', scores: {bleu: 70.3, ter: 0.42}, groups: {seen: {bleu: 62.9}}}"
SCORE = {"score": 12.345, "signature": "x"}
RESULT = ArmResult(
    arm="main",
    method="prefix",
    scores={"bleu": SCORE},
    missing={},
    parameters={"backbone": 1, "trained": 1, "stored": 1, "trained_share": 1.0, "stored_share": 1.0},
    training=None,
    decoding={},
    groups={"seen": {"bleu": SCORE | {"score": 20.0}}},
)


def test_the_report_has_both_scores(tmp_path: Path) -> None:
    recipe = load_recipe(str(tiny_job(tmp_path, PUBLISHED)))
    assert report.published(recipe, [replace(RESULT, arm="untuned", method="untuned", scores={}), RESULT]) == [
        "The recipe, as it comes, stands for A 2021, Table 2, B.",
        "Published (in brackets: this run): BLEU 70.30 (12.35), TER 0.4200 (not scored).",
        "Published on seen (in brackets: this run): BLEU 62.90 (20.00).",
    ]
    found = json.loads(report.as_json(recipe, tmp_path, [RESULT]))
    assert found["published"] == recipe.published.model_dump()
    silent = load_recipe(str(tiny_job(tmp_path / "silent")))
    assert report.published(silent, [RESULT]) == []


def test_other_arms_stand_for_nothing(tmp_path: Path) -> None:
    recipe = load_recipe(str(tiny_job(tmp_path, f"{PUBLISHED}\ncompare: {{tuned: {{method: finetune}}}}")))
    assert recipe.arm("main").published == recipe.published
    assert recipe.arm("tuned").published is None and recipe.arm("untuned").published is None
    with pytest.raises(ConfigError, match=r"compare.tuned.published: an arm cannot set this"):
        load_recipe(str(tmp_path / "tiny.yaml"), ["compare.tuned.published={table: x}"])


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ("published: {scores: {bleu: 1}}", "published.table: Field required, got a section with the keys scores"),
        ("published: {table: x, score: {bleu: 1}}", "published.score: unknown key. Expected a section with table"),
        (
            "published: {table: x, scores: {bleu: high}}",
            "published.scores.bleu: Input should be a valid number",
        ),
        ("published: 70.3", "published: expected a section with table, scores, groups or null"),
    ],
)
def test_refusals(wrong: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=part):
        load_recipe(str(tiny_job(tmp_path, wrong)))


def test_a_run_goes_on_whatever_has_been_published_since(tmp_path: Path) -> None:
    path, quick = tiny_job(tmp_path), ["train.max_steps=1", "untuned=false"]
    first = run_recipe(load_recipe(str(path), quick), tmp_path / "run", quiet=True)
    path.write_text(path.read_text() + PUBLISHED)
    again = run_recipe(load_recipe(str(path), quick), tmp_path / "run", resume=True, quiet=True)
    assert again == first
