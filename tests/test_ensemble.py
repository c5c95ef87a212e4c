"""Prompts that vote: the count and its ties by hand, one batch as each alone, and runs from the command line."""

import json
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from jobs import tiny_job
from typer.testing import CliRunner

from softprompt.backbone import Backbone
from softprompt.batch import encode_pairs
from softprompt.cli import app
from softprompt.config import DecodeConfig, load_recipe
from softprompt.decode import decode_texts
from softprompt.ensemble import _elect, ensemble
from softprompt.ensemble_runs import ensemble_runs
from softprompt.errors import ConfigError
from softprompt.labels import target_log_probs
from softprompt.method_config import PromptTuning
from softprompt.methods import METHODS
from softprompt.metrics import score_suite
from softprompt.prompt import Prompt
from softprompt.run import run_recipe
from softprompt.types import Example

SOURCES = factories.texts(6, seed=8)
WORDS = ["tea", "cold pie", "inn"]


def prompts(bone: Backbone, kind: str) -> list[Prompt]:
    if kind == "prefix":
        return [factories.prefix(bone, length=2 + seed, seed=seed).fold() for seed in range(3)]
    made = []
    for seed in range(3):
        torch.manual_seed(seed)
        method = METHODS["prompt"](bone, PromptTuning(length=2 + seed, init="normal", init_scale=1.0))
        made.append(method.fold())
    return made


def config(**options: Any) -> DecodeConfig:
    return DecodeConfig(**{"strategy": "greedy", "max_new_tokens": 12, "batch_size": 4, **options})


def weight(bone: Backbone, voters: list[Prompt], source: str, text: str) -> float:
    """log p(text | source) a token, averaged over the voters, one row at a time."""
    pairs = encode_pairs(bone, [Example(source, (text,))])
    rows = [target_log_probs(bone, voter, pairs, batch_size=1)[0] for voter in voters]
    return sum(float(row.mean()) for row in rows) / len(rows)


@pytest.mark.parametrize(
    ("answers", "weights", "majority", "logprob"),
    [
        (["a", "b", "a"], {"a": -3.0, "b": -1.0}, "a", "b"),
        (["a", "b"], {"a": -3.0, "b": -1.0}, "b", "b"),
        (["a", "b", "c", "c", "b"], {"a": -0.1, "b": -2.0, "c": -1.0, "d": -0.05}, "c", "d"),
    ],
)
def test_votes_and_ties(answers: list[str], weights: dict[str, float], majority: str, logprob: str) -> None:
    assert _elect((answers, weights), "majority") == majority
    assert _elect((answers, weights), "logprob") == logprob


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart"])
def test_label_words_by_both_votes(name: str, kind: str) -> None:
    bone = factories.backbone(name)
    voters, how = prompts(bone, kind), config(labels=True)
    weights = [{word: weight(bone, voters, source, word) for word in WORDS} for source in SOURCES]
    for vote in ("majority", "logprob"):
        got = ensemble(bone, voters, SOURCES, how, vote=vote, labels=WORDS)
        for voter, answers in zip(voters, got.each, strict=True):
            assert answers == [row.text for row in decode_texts(bone, voter, SOURCES, how, labels=WORDS)]
        for source, text in enumerate(got.texts):
            said = [answers[source] for answers in got.each]
            assert text == _elect((said, weights[source]), vote)


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_free_texts_are_weighed_under_all_prompts(kind: str) -> None:
    bone = factories.backbone("gpt2")
    voters = prompts(bone, kind)[:2]
    for vote in ("majority", "logprob"):
        got = ensemble(bone, voters, SOURCES, config(max_new_tokens=2), vote=vote)
        assert any(first != second for first, second in zip(*got.each, strict=True))
        for source, text, *said in zip(SOURCES, got.texts, *got.each, strict=True):
            assert text == max(said, key=lambda answer, source=source: weight(bone, voters, source, answer))


def test_one_prompt_is_its_own_ensemble_and_batches_do_not_matter() -> None:
    bone = factories.backbone("gpt2")
    voters = prompts(bone, "prompt")
    alone = ensemble(bone, voters[:1], SOURCES, config())
    assert [alone.texts] == alone.each
    small, large = (ensemble(bone, voters, SOURCES, config(batch_size=size)) for size in (1, 18))
    assert small == large
    assert ensemble(bone, voters, [], config()).texts == []


def test_what_cannot_vote_is_refused() -> None:
    bone = factories.backbone("gpt2")
    with pytest.raises(ConfigError, match="at least one prompt"):
        ensemble(bone, [], SOURCES, config())
    with pytest.raises(ConfigError, match="expected majority or logprob, got 'most'"):
        ensemble(bone, prompts(bone, "prompt"), SOURCES, config(), vote="most")
    with pytest.raises(ConfigError, match="together"):
        ensemble(bone, prompts(bone, "prompt"), SOURCES, config(), labels=WORDS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("runs")
    path = str(tiny_job(place, "compare: {prompt: {method: {name: prompt, length: 2}}}"))
    folders = [place / "one", place / "two"]
    for seed, folder in enumerate(folders):
        run_recipe(load_recipe(path, [f"seed={seed}", "train.max_steps=2", "untuned=false"]), folder, quiet=True)
    return [*folders, folders[0] / "arms" / "prompt"]


def test_runs_from_the_command_line(runs: list[Path]) -> None:
    done = CliRunner().invoke(app, ["ensemble", *map(str, runs), "--vote", "logprob", "--json", "-q"])
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)
    for folder in runs:
        kept = json.loads((folder / "scores.json").read_text())["scores"]
        assert scores["runs"][str(folder)] == {metric: pytest.approx(kept[metric]["score"]) for metric in kept}
    bleu = {folder: scores["runs"][str(folder)]["bleu"] for folder in runs}
    assert scores["mean"]["bleu"] == pytest.approx(sum(bleu.values()) / 3)
    assert scores["best"]["bleu"] == max(bleu.values()) and scores["vote"] == "logprob"
    shown = CliRunner().invoke(app, ["ensemble", *map(str, runs), "-q"])
    names = [line.split("  ")[0] for line in shown.stdout.splitlines()[2:]]
    assert names[:4] == [*map(str, runs), "mean"] and names[5] == "ensemble (majority)"
    again = ensemble_runs(runs, quiet=True)
    texts = ensemble_texts(runs)
    rows = [json.loads(line) for line in (runs[0] / "predictions" / "test.jsonl").read_text().splitlines()]
    want = score_suite("text", texts, [row["references"] for row in rows])
    assert again.ensemble == {metric: score.value for metric, score in want.scores.items()}


def ensemble_texts(runs: list[Path]) -> list[str]:
    bone = Backbone.load(load_recipe(str(runs[0] / "recipe.yaml")).backbone.id)
    rows = [json.loads(line) for line in (runs[0] / "predictions" / "test.jsonl").read_text().splitlines()]
    voters = [Prompt.load(folder / "prompt") for folder in runs]
    settings = load_recipe(str(runs[0] / "recipe.yaml")).decode
    return ensemble(bone, voters, [row["source"] for row in rows], settings).texts


def test_runs_that_do_not_belong_together_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two or more different run folders, got 1"):
        ensemble_runs(runs[:1])
    with pytest.raises(ConfigError, match="two or more different run folders, got 2"):
        ensemble_runs([runs[0], runs[0]])
    with pytest.raises(ConfigError, match="expected majority or logprob"):
        ensemble_runs(runs, vote="most")
    with pytest.raises(ConfigError, match="expected a finished run of method prefix or prompt"):
        ensemble_runs([runs[0], tmp_path])
    text = (runs[1] / "recipe.yaml").read_text()
    other = tmp_path / "other"
    (other / "prompt").mkdir(parents=True)
    for old, new, what in (
        ("beams: 2", "beams: 3", "decode"),
        ("attention: sdpa", "attention: eager", "backbone"),
        ("max_test: null", "max_test: 2", "test set"),
        ("suite: null", "suite: dart", "score"),
    ):
        assert old in text
        (other / "recipe.yaml").write_text(text.replace(old, new))
        with pytest.raises(ConfigError, match=f"expected runs of one {what}.*has another than"):
            ensemble_runs([runs[0], other])
