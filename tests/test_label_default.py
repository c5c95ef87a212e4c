"""Where the data has labels, answers are label words and their classes are scored, unless a recipe says otherwise."""

import json
from pathlib import Path

import pytest
from test_score_run import done, kept, labelled_job

from softprompt import data, load
from softprompt.backbone import Backbone
from softprompt.config import load_recipe, task_recipe
from softprompt.errors import ConfigError
from softprompt.metrics import Unavailable
from softprompt.resume import RECIPE
from softprompt.run import run_recipe
from softprompt.score_recipe import chosen_suite, classes_of, suite_of, wants_labels


def answers(run: Path) -> list[str]:
    lines = (run / "predictions" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prediction"] for line in lines]


def test_answers_are_label_words_by_default_and_free_where_one_says_so(tmp_path: Path) -> None:
    run = done(labelled_job(tmp_path / "a"), "untuned=false")
    assert set(answers(run)) <= {"tea", "hot pie"} and list(kept(run)["scores"]) == ["accuracy"]
    free = done(labelled_job(tmp_path / "b"), "untuned=false", "decode.labels=false")
    assert not set(answers(free)) <= {"tea", "hot pie"} and list(kept(free)["scores"]) == ["accuracy"]


def test_beams_have_no_effect_on_label_words_which_is_said_and_what_was_learned_answers_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = done(labelled_job(tmp_path), "untuned=false", "decode.beams=3")
    assert "decode.beams=3 has no effect" in capsys.readouterr().err
    model = load(Backbone.load(str(tmp_path / "backbone")), run)
    assert model.generate(["the inn sells tea", "the inn sells tea x"]) == answers(run)[:2]


def test_it_is_off_where_nothing_is_a_label_or_answers_are_sampled(tmp_path: Path) -> None:
    path = str(labelled_job(tmp_path))
    assert wants_labels(load_recipe(path)) and load_recipe(path).decode.labels is None
    assert not wants_labels(load_recipe(path, ["decode.strategy=sample"]))
    assert not wants_labels(load_recipe(path, ["data.labels=null"]))
    assert not wants_labels(load_recipe(path, ["decode.labels=false"]))
    assert wants_labels(task_recipe("glue-sst2")) and not wants_labels(task_recipe("e2e"))


@pytest.mark.parametrize(
    "name", ["dept/glue-sst2", "dept/superglue-cb", "prompt-tuning/sst2-base", "prompt-tuning/mrpc-base"]
)
def test_recipes_of_papers_that_generate_freely_go_on_so(name: str) -> None:
    assert load_recipe(name).decode.labels is False


def test_label_words_that_cannot_be_answers_are_generated_freely_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = labelled_job(tmp_path)
    run = done(recipe, "untuned=false", "decode.max_new_tokens=2")
    said = capsys.readouterr().err
    assert "answers are generated freely" in said and "'tea' takes 3 tokens" in said
    assert list(kept(run)["scores"]) == ["accuracy"]
    with pytest.raises(ConfigError, match="takes 3 tokens"):
        run_recipe(load_recipe(str(recipe), ["decode.labels=true", "decode.max_new_tokens=2"]), tmp_path / "no")


def test_a_run_that_was_started_when_the_default_was_off_goes_on_so(tmp_path: Path) -> None:
    recipe = labelled_job(tmp_path)
    run = done(recipe, "untuned=false", "decode.labels=false")
    before = answers(run)
    (run / "scores.json").unlink()
    assert "labels: false" in (run / RECIPE).read_text(encoding="utf-8")
    run_recipe(load_recipe(str(recipe), ["untuned=false"]), run, resume=True, quiet=True)
    assert answers(run) == before and kept(run)["scores"]


def test_own_data_has_a_small_suite(tmp_path: Path) -> None:
    path = str(labelled_job(tmp_path))
    assert suite_of(load_recipe(path)) == "accuracy"
    texts = load_recipe(path, ["data.labels=null"])
    assert suite_of(texts) == "text" and list(chosen_suite(texts).metrics) == ["bleu", "rouge_l", "chrf"]
    assert suite_of(load_recipe(path, ["data.labels=null", "decode.labels=true"])) == "accuracy"
    assert suite_of(task_recipe("glue-mrpc")) == "glue/mrpc" and suite_of(task_recipe("e2e")) == "e2e"


@pytest.mark.parametrize("task", ["glue-mrpc", "glue-qqp"])
def test_the_positive_class_is_the_tasks_label_whatever_its_word(task: str) -> None:
    for template, word in (("dept", "1"), ("t5", "equivalent" if task == "glue-mrpc" else "duplicate")):
        assert data.positive_word(task_recipe(task, [f"data.template={template}"]).data) == word
    column = data.wording_of(task_recipe(task).data).labels
    assert column is not None
    own = f'data.labels={{column: {column.column}, words: {{"0": "1", "1": same}}}}'
    recipe = task_recipe(task, [own])
    classes = classes_of(recipe)
    assert classes is not None and classes.positive == "same"
    metric = chosen_suite(recipe).metrics["f1"]([["same"], ["1"]])
    assert metric.score(["same", "same"]).value == pytest.approx(200 / 3)
    with pytest.raises(Unavailable, match="'same'"):
        chosen_suite(recipe).metrics["f1"]([["1"], ["1"]])


def test_f1_of_own_labels_needs_the_class_before_anything_is_trained(tmp_path: Path) -> None:
    recipe = labelled_job(tmp_path, labels='{column: label, words: {"0": tea, "1": hot pie}}')
    with pytest.raises(ConfigError, match=r"f1 of which class.*data.labels.positive"):
        run_recipe(load_recipe(str(recipe), ["score.metrics=[f1, accuracy]"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for said in ("1", "hot pie"):
        own = f'data.labels={{column: label, words: {{"0": tea, "1": hot pie}}, positive: "{said}"}}'
        assert data.positive_word(load_recipe(str(recipe), [own]).data) == "hot pie"
    with pytest.raises(ConfigError, match=r"labels\.positive: expected one of '0', '1'"):
        load_recipe(str(recipe), ['data.labels={column: label, words: {"0": tea}, positive: "2"}'])
