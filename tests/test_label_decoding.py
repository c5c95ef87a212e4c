"""Answers limited to label words: always one of them, and the one that scoring each by hand finds."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from jobs import tiny_job
from tokenizers import processors

from softprompt.attached import Attached
from softprompt.backbone import Backbone
from softprompt.batch import encode_sources, encode_targets
from softprompt.config import DecodeConfig, load_recipe
from softprompt.decode import decode_texts
from softprompt.errors import ConfigError, DataError
from softprompt.labels import MOST, LabelWords, distinct_targets, score_labels
from softprompt.method_config import PromptTuning
from softprompt.methods import METHODS, Steering, Untuned
from softprompt.run import run_recipe
from softprompt.types import Example

NAMES = ["gpt2", "llama", "t5", "bart"]
WORDS = ["tea", "hot tea", "hot pie", "hot pie near a quiet river", "inn"]
"""Words that share first tokens, and one that goes on where another ends."""
SOURCES = factories.texts(7, seed=5)


def backbone(name: str) -> Backbone:
    """As of the factories, with a tokenizer that ends an encoder-decoder's texts, as T5's and BART's do."""
    bone = factories.backbone(name)
    if bone.family == "causal":
        return bone
    words = copy.deepcopy(factories.tokenizer())
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {factories.EOS}", special_tokens=[(factories.EOS, bone.eos_id)]
    )
    return replace(bone, tokenizer=words)


def config(**options: Any) -> DecodeConfig:
    return DecodeConfig(**{"labels": True, "strategy": "beam", "max_new_tokens": 20, "batch_size": 4, **options})


def steering(bone: Backbone, kind: str) -> Steering:
    if kind == "prefix":
        return factories.prefix(bone).fold()
    if kind == "untuned":
        return Untuned()
    torch.manual_seed(1)
    return METHODS["prompt"](bone, PromptTuning(length=3, init="normal", init_scale=1.0)).fold()


@torch.no_grad()
def by_hand(bone: Backbone, how: Steering, source: str, word: str) -> list[float]:
    """log p of each token of one label word after one source: one row, no padding, all logits."""
    (given,), (target,) = encode_sources(bone, [source]), encode_targets(bone, [word])
    given = how.place(bone, given)
    with how.attach(bone):
        if bone.family == "seq2seq":
            start = torch.tensor([[bone.decoder_start_id, *target[:-1]]])
            logits = bone.model(input_ids=torch.tensor([given]), decoder_input_ids=start, use_cache=False).logits[0]
        else:
            row = torch.tensor([[*given, *target]])
            logits = bone.model(input_ids=row, use_cache=False).logits[0, len(given) - 1 : -1]
    return [float(row[token]) for row, token in zip(logits.log_softmax(-1), target, strict=True)]


@pytest.mark.parametrize("kind", ["untuned", "prefix", "prompt"])
@pytest.mark.parametrize("name", NAMES)
def test_beam_is_the_best_of_all_and_batched_is_one_by_one(name: str, kind: str) -> None:
    bone = backbone(name)
    how = steering(bone, kind)
    hands = [[by_hand(bone, how, source, word) for word in WORDS] for source in SOURCES]
    scores_SLT = score_labels(bone, how, SOURCES, LabelWords.of(bone, WORDS, config()), batch_size=4)
    for scores_LT, hand in zip(scores_SLT, hands, strict=True):
        for scores_T, want in zip(scores_LT, hand, strict=True):
            torch.testing.assert_close(scores_T[: len(want)], torch.tensor(want), rtol=1e-4, atol=1e-4)
            assert not scores_T[len(want) :].any()
    for penalty in (0.0, 1.0):
        want_texts = [
            max(zip(WORDS, hand, strict=True), key=lambda item: sum(item[1]) / len(item[1]) ** penalty)[0]
            for hand in hands
        ]
        rows = decode_texts(bone, how, SOURCES, config(length_penalty=penalty), labels=WORDS)
        assert [row.text for row in rows] == want_texts and [row.index for row in rows] == list(range(len(SOURCES)))
        alone = [
            decode_texts(bone, how, [source], config(length_penalty=penalty), labels=WORDS)[0] for source in SOURCES
        ]
        assert [(row.text, row.tokens) for row in alone] == [(row.text, row.tokens) for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_greedy_is_what_generation_gives_that_may_only_spell_label_words(name: str) -> None:
    bone = backbone(name)
    how = steering(bone, "prefix")
    spelled = encode_targets(bone, WORDS)
    rows = decode_texts(bone, how, SOURCES, config(strategy="greedy"), labels=WORDS)
    assert {row.text for row in rows} <= set(WORDS)
    for source, row in zip(SOURCES, rows, strict=True):
        given = how.place(bone, encode_sources(bone, [source])[0])
        start = len(given) if bone.family == "causal" else 1

        def allowed(_: int, ids: torch.Tensor, start: int = start) -> list[int]:
            done = tuple(ids[start:].tolist())
            return [word[len(done)] for word in spelled if word[: len(done)] == done and len(word) > len(done)]

        with torch.no_grad(), how.attach(bone):
            out = bone.model.generate(
                torch.tensor([given]),
                attention_mask=torch.ones(1, len(given), dtype=torch.long),
                max_new_tokens=20,
                do_sample=False,
                prefix_allowed_tokens_fn=allowed,
                eos_token_id=bone.eos_id,
                pad_token_id=bone.pad_id,
            )
        assert tuple(out[0, start:].tolist()) == spelled[WORDS.index(row.text)]


def test_greedy_and_beam_differ_where_the_likeliest_first_token_leads_to_a_worse_word() -> None:
    labels = LabelWords(("a b", "a c", "d"), ((1, 2, 0), (1, 3, 0), (4, 0)))
    scores = torch.tensor([[[-0.5, -1.0, -0.1], [-0.5, -0.9, -0.3], [-1.0, -0.1, 0.0]]])
    assert labels.choose(scores, config(strategy="greedy")) == [1]
    assert labels.choose(scores, config(length_penalty=0.0)) == [2]
    assert labels.choose(scores, config(length_penalty=1.0)) == [0]


def test_one_label_word_is_always_the_answer() -> None:
    bone = factories.backbone("gpt2")
    for strategy in ("greedy", "beam"):
        rows = decode_texts(bone, Untuned(), SOURCES[:2], config(strategy=strategy), labels=["pie"])
        assert [row.text for row in rows] == ["pie", "pie"]
    assert decode_texts(bone, Untuned(), [], config(), labels=["pie"]) == []


def test_progress_counts_sources() -> None:
    bone, heard = factories.backbone("gpt2"), []
    decode_texts(bone, Untuned(), SOURCES, config(), labels=WORDS, on_batch=heard.append)
    assert heard == sorted(heard) and heard[-1] == len(SOURCES)


def test_what_cannot_be_answered_is_refused() -> None:
    bone = factories.backbone("gpt2")
    for words, options, part in (
        ([], {}, "at least one"),
        (["tea", "tea"], {}, "got 'tea' and 'tea' on"),
        (WORDS, {"max_new_tokens": 3}, "takes .* tokens, its end included; decode allows 1 to 3"),
        (["tea"], {"min_new_tokens": 10}, "decode allows 11 to 20"),
    ):
        with pytest.raises(ConfigError, match=part):
            decode_texts(bone, Untuned(), SOURCES, config(**options), labels=words)
    with pytest.raises(ConfigError, match="got 'tea' and 'tea' on"):
        decode_texts(factories.backbone("t5"), Untuned(), SOURCES, config(), labels=["tea", "tea"])
    with pytest.raises(ConfigError, match="together"):
        decode_texts(bone, Untuned(), SOURCES, config(labels=False), labels=WORDS)
    with pytest.raises(ConfigError, match="together"):
        decode_texts(bone, Untuned(), SOURCES, config())
    with pytest.raises(DataError, match="with a target are longer"):
        decode_texts(bone, Untuned(), ["tea " * 127], config(), labels=WORDS)


@pytest.mark.parametrize(
    ("override", "part"),
    [("decode.strategy=sample", "not sample"), ("decode.beams=3", "decode.beams has no effect with decode.labels")],
)
def test_settings_without_an_effect_are_refused(override: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        load_recipe("own-data", ["decode.labels=true", override])


def test_label_words_of_the_training_targets() -> None:
    pairs = [Example("a", ("yes",)), Example("b", ("no",)), Example("c", ("yes",))]
    assert distinct_targets(pairs) == ("yes", "no")
    with pytest.raises(ConfigError, match=f"at most {MOST} different"):
        distinct_targets([Example(str(index), (str(index),)) for index in range(MOST + 1)])


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_whole_run_predicts_label_words_alone(name: str, tmp_path: Path) -> None:
    path = tiny_job(tmp_path, architecture=name)
    overrides = ["decode={strategy: greedy, labels: true, beams: 1, max_new_tokens: 20}", "train.max_steps=1"]
    overrides.append("data.target={target} |")  # this tokenizer ends no text of an encoder-decoder
    with pytest.raises(ConfigError, match="decode allows 1 to 2"):
        run_recipe(load_recipe(str(path), [*overrides, "decode.max_new_tokens=2"]), tmp_path / "refused", quiet=True)
    assert not (tmp_path / "refused").exists()
    results = run_recipe(load_recipe(str(path), overrides), tmp_path / "run", quiet=True)
    targets = {f"{json.loads(line)['target']} |" for line in (tmp_path / "train.jsonl").read_text().splitlines()}
    lines = (tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()
    assert len(results) == 2 and {json.loads(line)["prediction"] for line in lines} <= targets


def test_the_front_door_takes_label_words() -> None:
    model = Attached(factories.backbone("gpt2"), Untuned())
    want = decode_texts(model.backbone, Untuned(), SOURCES, config(), labels=WORDS)
    assert model.generate(SOURCES, labels=WORDS, max_new_tokens=20) == [row.text for row in want]
