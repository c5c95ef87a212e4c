"""Start and end of an encoder-decoder's target: one place for training and decoding, and room for an answer."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from jobs import tiny_job
from tokenizers import processors
from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationConfig

from softprompt.attached import attach
from softprompt.backbone import Backbone
from softprompt.batch import encode_pairs, encode_sources, encode_targets, make_batch, make_source_batch
from softprompt.config import DecodeConfig, load_recipe
from softprompt.decode import decode_texts, generation_options
from softprompt.errors import BackboneError, ConfigError, DataError
from softprompt.inspection import inspect_recipe
from softprompt.labels import LabelWords, score_labels
from softprompt.loss import target_nll
from softprompt.method_config import PromptTuning
from softprompt.methods import Untuned
from softprompt.run import run_recipe
from softprompt.types import Example

EOS = factories.tokenizer().eos_token_id
LANGUAGE = 7
WITHOUT_A_SHIFT = ["m2m_100", "nllb-moe", "blenderbot", "blenderbot-small"]
"""Architectures whose class has no method that makes the decoder's input of a target."""


def framed(bone: Backbone, template: str | None) -> Backbone:
    """The backbone with a tokenizer that frames a text so; `<7>` is a language."""
    words = copy.deepcopy(factories.tokenizer())
    language = words.convert_ids_to_tokens(LANGUAGE)
    words.add_special_tokens({"additional_special_tokens": [language]})
    if template is not None:
        words.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=template.replace("<7>", language).replace("</s>", factories.EOS),
            special_tokens=[(factories.EOS, EOS), (language, LANGUAGE)],
        )
    return replace(bone, tokenizer=words)


def tiny(kind: str, **changes: Any) -> Backbone:
    sizes = {k: v for k, v in factories.BART.items() if k != "forced_eos_token_id"}
    ids = {"vocab_size": len(factories.tokenizer()), "bos_token_id": 0, "eos_token_id": EOS, "pad_token_id": 1}
    config = AutoConfig.for_model(kind, **ids | sizes | {"decoder_layers": 2, "decoder_start_token_id": 3} | changes)
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return Backbone(kind, model.eval(), factories.tokenizer())


@pytest.mark.parametrize("name", ["t5", "bart", "mbart"])
@pytest.mark.parametrize(
    "template", [None, "$A", "$A </s>", "</s> $A </s>", "$A </s> </s>", "$A </s> <7>", "<7> $A </s>", "<7> $A"]
)
def test_a_target_ends_once_whatever_the_tokenizer_does(name: str, template: str | None) -> None:
    bone = framed(factories.backbone(name), template)
    for text, ids in zip(
        ("tea", "hot tea and pie", ""), encode_targets(bone, ["tea", "hot tea and pie", ""]), strict=True
    ):
        words = bone.tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[misc]
        begin = [LANGUAGE] if template and "<7> $A" in template else []
        assert ids == (*begin, *words, EOS)


@pytest.mark.parametrize(
    ("name", "template", "start"),
    [
        ("t5", "$A </s>", 0),
        ("bart", "$A </s>", 0),
        ("mbart", "$A </s> <7>", LANGUAGE),  # the language, whatever decoder_start_token_id says
        ("mbart", "<7> $A </s>", EOS),
        ("mbart", None, 0),  # its method would start with the text's last word
    ],
)
def test_decoding_starts_as_training_does(name: str, template: str | None, start: int) -> None:
    bone = framed(factories.backbone(name), template)
    batch = make_batch(bone, Untuned(), encode_pairs(bone, factories.examples(5)))
    assert batch.decoder_input_ids_BT is not None
    assert batch.decoder_input_ids_BT[:, 0].tolist() == [start] * batch.rows
    assert generation_options(bone, DecodeConfig(strategy="greedy")).decoder_start_token_id == start
    assert bone.decoder_start_id == start


@pytest.mark.parametrize("name", ["bart", "pegasus", "t5", "t5_v1_1"])
def test_the_shift_is_the_architectures_own(name: str) -> None:
    bone = factories.backbone(name)
    targets = torch.tensor([[5, 6, EOS], [8, 9, EOS]])
    assert torch.equal(bone.shifted(targets), bone.model.prepare_decoder_input_ids_from_labels(targets))


@pytest.mark.parametrize("kind", WITHOUT_A_SHIFT)
def test_architectures_without_a_shift_are_trained_as_they_train_and_decode_what_they_learned(kind: str) -> None:
    bone = tiny(kind)
    assert not hasattr(bone.model, "prepare_decoder_input_ids_from_labels") and bone.decoder_start_id == 3
    pairs = factories.pairs(4)
    batch = make_batch(bone, Untuned(), pairs)
    labels = torch.full(batch.predicts_BT.shape, -100)
    labels[batch.predicts_BT] = batch.labels_N
    with torch.no_grad():
        mean = bone.model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT, labels=labels).loss
        nll = target_nll(bone, batch)
    assert float(nll) / len(batch.labels_N) == pytest.approx(float(mean), rel=1e-5)
    bone.model.generation_config = GenerationConfig()  # as decoding does: what is stored plays no part
    source = make_source_batch(bone, Untuned(), [pair.source for pair in pairs])
    options = generation_options(bone, DecodeConfig(strategy="greedy", max_new_tokens=5, ban_newline=False))
    with torch.no_grad():
        out = bone.model.generate(**source.inputs(), generation_config=options)
        logits = bone.model(**source.inputs(), decoder_input_ids=out[:, :-1], use_cache=False).logits
    assert out[:, 0].tolist() == [3] * 4
    for row, own in zip(out[:, 1:].tolist(), logits.argmax(-1).tolist(), strict=True):
        end = row.index(EOS) + 1 if EOS in row else len(row)
        assert row[:end] == own[:end]


def test_label_words_are_scored_from_the_same_start() -> None:
    bone = framed(factories.backbone("mbart"), "$A </s> <7>")
    config = DecodeConfig(labels=True, strategy="beam", max_new_tokens=20)
    words = LabelWords.of(bone, ["tea", "pie"], config)
    scores_SLT = score_labels(bone, Untuned(), ["hot"], words, batch_size=2)
    (source,) = encode_sources(bone, ["hot"])
    for label, ids in enumerate(words.ids):
        read = torch.tensor([[LANGUAGE, *ids[:-1]]])
        with torch.no_grad():
            logits = bone.model(input_ids=torch.tensor([source]), decoder_input_ids=read, use_cache=False).logits[0]
        want = [float(row[token]) for row, token in zip(logits.log_softmax(-1), ids, strict=True)]
        assert scores_SLT[0, label, : len(ids)].tolist() == pytest.approx(want, abs=1e-4)


def test_no_start_is_said_at_load(tmp_path: Path) -> None:
    bone = tiny("m2m_100")
    bone.model.config.decoder_start_token_id = bone.model.generation_config.decoder_start_token_id = None
    bone.model.save_pretrained(tmp_path)
    factories.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="expected decoder_start_token_id in its config"):
        Backbone.load(str(tmp_path))


@pytest.mark.parametrize("kind", ["bart", "mbart", "m2m_100"])
def test_an_answer_longer_than_the_decoder_is_refused(kind: str) -> None:
    """BART has learned positions; what fits is generated to the last one."""
    bone = tiny(kind, max_position_embeddings=24)
    model = attach(bone, PromptTuning(length=2), seed=0)
    with pytest.raises(ConfigError, match=r"decode\.max_new_tokens: expected at most 24.*got 60"):
        model.generate(["hot tea"], strategy="greedy", max_new_tokens=60, min_new_tokens=59)
    assert decode_texts(
        bone, Untuned(), ["hot tea"], DecodeConfig(strategy="greedy", max_new_tokens=24, min_new_tokens=23)
    )
    with pytest.raises(DataError, match=r"targets of pairs are longer.*at most 24"):
        model.loss([("tea", " ".join(["hot"] * 30))])


def test_an_answer_longer_than_the_decoder_is_refused_before_training(tmp_path: Path) -> None:
    recipe = load_recipe(str(tiny_job(tmp_path, architecture="bart")), ["decode.max_new_tokens=65"])
    with pytest.raises(ConfigError, match=r"decode\.max_new_tokens: expected at most 64"):
        run_recipe(recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"decode\.max_new_tokens: expected at most 64"):
        inspect_recipe(recipe, whole=True)


def test_a_prompt_takes_positions_of_the_source_alone() -> None:
    bone = factories.backbone("bart")
    model = attach(bone, PromptTuning(length=10), seed=0)
    assert model.loss([("tea", " ".join(["hot"] * 59))]) > 0
    with pytest.raises(DataError, match=r"sources of pairs are longer.*at most 54"):
        model.loss([(" ".join(["hot"] * 59), "tea")])


def test_pairs_of_examples_are_as_their_targets() -> None:
    bone = factories.backbone("t5")
    (pair,) = encode_pairs(bone, [Example("tea", ("pie",))])
    assert (pair.target,) == tuple(encode_targets(bone, ["pie"])) and pair.target[-1] == EOS
