"""A run's folder is scored as the run was scored: by its recipe, whatever its task, arm or age."""

import json
from pathlib import Path
from typing import Any

import pytest
from factories import backbone_folder

from softprompt.config import load_recipe
from softprompt.errors import ConfigError
from softprompt.metrics import scoring
from softprompt.resume import RECIPE
from softprompt.run import run_recipe
from softprompt.score_run import Wanted, compare_outputs, read_outputs, score_outputs
from softprompt.segments import joined
from softprompt.types import Example

LABELS = '{column: label, words: {"0": tea, "1": hot pie}, positive: "1"}'


def labelled_job(place: Path, more: str = "", data: str = "", labels: str = LABELS) -> Path:
    """A tiny recipe of two classes, on files of its own."""
    place.mkdir(exist_ok=True)
    backbone_folder(place / "backbone", "gpt2")
    for name, count in (("train", 8), ("dev", 4)):
        rows = [{"text": f"the inn sells tea {'x' * (i % 3)}".strip(), "label": i % 2} for i in range(count)]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text = f"""
backbone: {place / "backbone"}
method: {{name: prompt, length: 2}}
data: {{train: {place / "train.jsonl"}, dev: {place / "dev.jsonl"}, input: "{{text}}", target: "{{label}}",
  labels: {labels}{data}}}
train: {{max_steps: 1, batch_size: 4, lr: 1e-2, precision: float32}}
decode: {{max_new_tokens: 8}}
{more}
"""
    (place / "tiny.yaml").write_text(text, encoding="utf-8")
    return place / "tiny.yaml"


def done(recipe: Path, *overrides: str) -> Path:
    folder = recipe.parent / "run"
    run_recipe(load_recipe(str(recipe), overrides), folder, quiet=True)
    return folder


def kept(place: Path) -> dict[str, Any]:
    return dict(json.loads((place / "scores.json").read_text(encoding="utf-8")))


def scored(place: Path, **wanted: Any) -> dict[str, Any]:
    return score_outputs(read_outputs(place), Wanted(**wanted))


def test_a_run_of_labels_is_scored_by_its_own_suite_and_metrics_arms_too(tmp_path: Path) -> None:
    run = done(labelled_job(tmp_path, "score: {metrics: [accuracy, f1, f1_macro]}\ncompare: {other: {seed: 7}}"))
    for place in (run, run / "arms" / "other", run / "arms" / "untuned", run / "predictions" / "test.jsonl"):
        folder = place.parent.parent if place.suffix else place
        found = scored(place)
        assert {name: entry for name, entry in found.items() if "score" in entry} == kept(folder)["scores"]
        assert list(found) == ["accuracy", "f1", "f1_macro"] and "positive:hot pie" in found["f1"]["signature"]
    assert list(scored(run, suite="e2e", metrics=("bleu",))) == ["bleu"]
    assert list(scored(run, metrics=("matthews", "rouge"))) == ["matthews", "rouge1", "rouge2", "rougeL"]
    assert "positive:tea" in scored(run, metrics=("f1",), positive="tea")["f1"]["signature"]
    text = scoring.score_text(scored(run))
    assert "macro-F1" in text and "F1|binary|positive:hot pie" in text


def test_two_runs_are_compared_by_their_recipes(tmp_path: Path) -> None:
    a = done(labelled_job(tmp_path / "a"))
    b = done(labelled_job(tmp_path / "b"), "seed=7")
    found = compare_outputs(read_outputs(a), read_outputs(b), Wanted(), resamples=10)
    assert list(found) == ["accuracy"] and found["accuracy"]["a"] == scored(a)["accuracy"]["score"]
    c = done(labelled_job(tmp_path / "c", "score: {suite: text}"))
    with pytest.raises(ConfigError, match=r"scored alike, got suite accuracy \[\] and text"):
        compare_outputs(read_outputs(a), read_outputs(c), Wanted())
    assert list(compare_outputs(read_outputs(a), read_outputs(c), Wanted("text", ("chrf",)), resamples=5)) == ["chrf"]


def test_a_run_made_when_own_texts_were_scored_by_the_suite_of_e2e_still_is(tmp_path: Path) -> None:
    run = done(labelled_job(tmp_path), "data.labels=null", "data.target={label}", "score.suite=e2e")
    recipe = (run / RECIPE).read_text(encoding="utf-8")
    assert "suite: e2e" in recipe
    (run / RECIPE).write_text(recipe.replace("suite: e2e", "suite: null"), encoding="utf-8")
    found = scored(run)
    assert {name: entry for name, entry in found.items() if "score" in entry} == kept(run)["scores"]
    assert list(found)[:2] == ["bleu", "nist"]


def test_rows_that_the_task_scores_as_one_text_are_joined(tmp_path: Path) -> None:
    """MultiRC: the options of one question are one text, by the words that the recipe's labels have."""
    labels = '{column: label, words: {"false": "not so", "true": "it is so"}}'
    (tmp_path / RECIPE).write_text(f"name: x\nbackbone: bundled\ndata: {{task: superglue-multirc, labels: {labels}}}\n")
    rows = [
        ("it is so", "it is so", 0),
        ("not so", "not so", 0),
        ("garbage", "not so", 1),
        ("it is so", "not so", 2),
    ]
    lines = [
        {"source": "s", "prediction": given, "references": [there], "paragraph_id": 1, "question_id": question}
        for given, there, question in rows
    ]
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    outputs = read_outputs(tmp_path)
    assert outputs.test.hypotheses == ["1 0", "-", "1"] and outputs.test.references == [["1 0"], ["0"], ["0"]]
    found = score_outputs(outputs, Wanted())
    assert found["exact_match"]["score"] == pytest.approx(100 / 3)
    assert found["f1a"]["score"] == pytest.approx(100 * 2 / (3 + 1))


def test_joined_reads_labels_of_any_words() -> None:
    test = [Example("s", (there,), {"q": 1}) for there in ("no good", "good", "good")]
    told = joined(test, ["no good", "good as it is", "nothing"], ["q"], ("no good", "good"), "good")
    assert told == (["0 1 -"], [("0 1 1",)])
    assert joined(test, ["a b", "", "c"], ["q"])[0] == ["a - c"]


def test_what_is_no_run_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "test.jsonl").write_text('{"prediction": "a b", "references": ["a b"]}\n')
    with pytest.raises(ConfigError, match=r"got none with recipe.yaml.*--suite"):
        read_outputs(tmp_path)
    alone = read_outputs(tmp_path / "predictions" / "test.jsonl")
    assert alone.recipe is None and list(score_outputs(alone, Wanted("text"))) == ["bleu", "rouge_l", "chrf"]


def test_absent_answers_of_squad_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = [{"id": name, "answers": [{"text": "the"}]} for name in ("1", "2")]
    gold = {"data": [{"paragraphs": [{"qas": questions}]}]}
    (tmp_path / "gold.json").write_text(json.dumps(gold))
    (tmp_path / "answers.json").write_text('{"1": "the"}')
    outputs = read_outputs(tmp_path / "answers.json", [tmp_path / "gold.json"])
    assert "no answer to 1 of the 2 questions" in capsys.readouterr().err
    assert score_outputs(outputs, Wanted("squad"))["exact_match"]["score"] == 50
