"""What is promised of a backbone, tried on the one at hand: causal, padded = alone, positions taken, ids below V."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from jobs import tiny_job
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from softprompt.attached import attach
from softprompt.backbone import Backbone
from softprompt.batch import Encoded, encode_pairs, make_batch
from softprompt.config import DecodeConfig, load_recipe
from softprompt.decode import decode_texts
from softprompt.errors import BackboneError, ConfigError
from softprompt.labels import target_log_probs
from softprompt.loss import target_nll
from softprompt.method_config import DePT, PrefixTuning, PromptTuning
from softprompt.methods import METHODS, Untuned
from softprompt.promises import Promises
from softprompt.run import run_recipe
from softprompt.types import Example

BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
}
BART = {k: v for k, v in factories.BART.items() if k not in ("decoder_start_token_id", "forced_eos_token_id")} | {
    "decoder_layers": 2
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    # encoders; with is_decoder they read from left to right
    **{name: (name, BERT) for name in ("bert", "roberta", "xlm-roberta", "electra", "rembert", "megatron-bert")},
    "xlnet": ("xlnet", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}),
    # decoders that take no positions
    **{name: (name, BART) for name in ("bart", "mbart", "pegasus", "blenderbot")},
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    # a recurrence that does not mask pads
    "rwkv": ("rwkv", {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2, "context_length": 64}),
    # encoder-decoders
    "prophetnet": (
        "prophetnet",
        {
            "hidden_size": 32,
            **{f"num_{side}_layers": 2 for side in ("encoder", "decoder")},
            **{f"num_{side}_attention_heads": 4 for side in ("encoder", "decoder")},
            **{f"{side}_ffn_dim": 48 for side in ("encoder", "decoder")},
            "max_position_embeddings": 64,
            "decoder_start_token_id": 0,
        },
    ),
    "pegasus_x": ("pegasus_x", {**BART, "decoder_start_token_id": 0, "block_size": 8, "num_global_tokens": 2}),
    "nllb-moe": (
        "nllb-moe",
        {**BART, "num_experts": 2, "encoder_sparse_step": 0, "decoder_sparse_step": 0, "decoder_start_token_id": 0},
    ),
}
ENCODERS = ["bert", "roberta", "xlm-roberta", "electra", "rembert", "megatron-bert", "xlnet"]


def loud(kind: str, **changes: Any) -> PreTrainedModel:
    """A random model whose every input shows in its logits."""
    name, settings = KINDS[kind]
    ids = {"vocab_size": len(factories.tokenizer()), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    config = AutoConfig.for_model(name, **ids | settings | changes)
    torch.manual_seed(0)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    made: PreTrainedModel = auto.from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3 if parameter.ndim > 1 else 0.1)
    return made.eval()


def folder(place: Path, kind: str, **changes: Any) -> str:
    loud(kind, **changes).save_pretrained(place)
    factories.tokenizer().save_pretrained(place)
    return str(place)


def alone_as_the_model_has_it(bone: Backbone, pair: Encoded) -> float:
    """log p of a target by a plain forward of one row: no positions given, no padding."""
    with torch.no_grad():
        logits = bone.model(input_ids=torch.tensor([[*pair.source, *pair.target]]), use_cache=False).logits[0]
    logs = logits.log_softmax(-1)
    at = range(len(pair.source) - 1, len(pair) - 1)
    return float(sum(logs[step, token] for step, token in zip(at, pair.target, strict=True)))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, "float32") for kind in ENCODERS), *((kind, "bfloat16") for kind in ENCODERS if kind != "xlnet")],
)
def test_an_encoder_is_no_language_model(kind: str, dtype: str, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"a later token moves an earlier one's logits.*is_decoder"):
        Backbone.load(folder(tmp_path, kind), dtype=dtype)


@pytest.mark.parametrize("kind", [kind for kind in ENCODERS if kind != "xlnet"])
def test_an_encoder_that_is_told_to_be_a_decoder_is_one(kind: str, tmp_path: Path) -> None:
    """RoBERTa's kin number their texts from behind the padding's position on, and so do we."""
    bone = Backbone.load(folder(tmp_path, kind, is_decoder=True))
    pairs = factories.pairs(4)
    scored = target_log_probs(bone, Untuned(), pairs, batch_size=4)
    for pair, logs in zip(pairs, scored, strict=True):
        assert float(logs.sum()) == pytest.approx(alone_as_the_model_has_it(bone, pair), abs=1e-3)
    first = 2 if "roberta" in kind else 0
    assert bone.promises == Promises(first_position=first) and bone.window == 66 - first
    assert Backbone.plan(str(tmp_path)).window == bone.window


@pytest.mark.parametrize("kind", ["roberta", "bart", "mbart", "pegasus", "blenderbot", "rwkv", "bloom"])
def test_a_batch_is_decoded_as_one_by_one(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where pads are read, or positions are not taken, one by one is what is done, and said."""
    changes = {"is_decoder": kind not in ("rwkv", "bloom"), "is_encoder_decoder": False}
    bone = Backbone.load(folder(tmp_path, kind, **changes))
    assert ("one by one" in capsys.readouterr().err) == (not bone.promises.padded)
    assert bone.promises.padded == (kind in ("roberta", "bloom"))
    sources, config = factories.texts(6, seed=3), DecodeConfig(strategy="greedy", max_new_tokens=6, batch_size=6)
    together = decode_texts(bone, Untuned(), sources, config)
    assert [row.text for row in together] == [decode_texts(bone, Untuned(), [text], config)[0].text for text in sources]


def test_generated_is_teacher_forced_where_positions_begin_later(tmp_path: Path) -> None:
    bone = Backbone.load(folder(tmp_path, "roberta", is_decoder=True))
    for steering in (Untuned(), factories.prefix(bone).fold()):
        (row,) = decode_texts(bone, steering, ["the red old inn"], DecodeConfig(strategy="greedy", max_new_tokens=5))
        (pair,) = encode_pairs(bone, [Example("the red old inn", ("x",))])
        with torch.no_grad(), steering.attach(bone):
            read, places = [*pair.source], torch.arange(2, 30)
            for _ in range(row.tokens):
                ids = torch.tensor([read])
                made = bone.model(input_ids=ids, position_ids=places[None, : len(read)], use_cache=False).logits[0, -1]
                read.append(int(made.index_fill(0, newlines(bone), -torch.inf).argmax()))
        text = bone.tokenizer.decode(read[len(pair.source) :], skip_special_tokens=True)  # type: ignore[union-attr]
        assert " ".join(text.split()) == row.text


def test_a_loop_of_ones_own_that_numbers_nothing_has_the_same_positions(tmp_path: Path) -> None:
    bone = Backbone.load(folder(tmp_path, "roberta", is_decoder=True))
    batch = make_batch(bone, Untuned(), factories.pairs(1))
    for place in ("before", "between"):
        method = factories.prefix(bone, place=place)
        batch = make_batch(bone, method, factories.pairs(1))
        with torch.no_grad(), method.attach(bone):
            numbered = bone.model(**batch.inputs(), use_cache=False).logits
            plain = bone.model(input_ids=batch.input_ids_BT, use_cache=False).logits
        torch.testing.assert_close(plain, numbered)


def newlines(bone: Backbone) -> torch.Tensor:
    from softprompt.decode import newline_ids

    return torch.tensor(newline_ids(bone) or [], dtype=torch.long)


def test_positions_that_are_not_taken_are_not_shifted(tmp_path: Path) -> None:
    bone = Backbone.load(folder(tmp_path, "bart", is_decoder=True, is_encoder_decoder=False))
    assert not bone.promises.positions and not Backbone.plan(str(tmp_path)).promises.positions
    with pytest.raises(ConfigError, match=r"method\.positions: expected unshifted .* takes no positions"):
        METHODS["prefix"](bone, PrefixTuning(length=3, positions="shifted"))
    assert METHODS["prefix"](bone, PrefixTuning(length=3)).position_offset == 0


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral_window", "gemma3", "opt"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_holds_is_found_to_hold(name: str, dtype: str, tmp_path: Path) -> None:
    bone = Backbone.load(str(factories.backbone_folder(tmp_path, name)), dtype=dtype)
    assert bone.promises == Promises() == Backbone.plan(str(tmp_path)).promises


@pytest.mark.parametrize("name", ["bart", "t5", "t5_v1_1"])
def test_what_holds_of_encoder_decoders(name: str, tmp_path: Path) -> None:
    assert Backbone.load(str(factories.backbone_folder(tmp_path, name))).promises == Promises()


def test_an_encoder_decoder_whose_logits_depend_on_the_length_of_a_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="read padded as they are alone"):
        Backbone.load(folder(tmp_path, "prophetnet"))


def test_a_head_that_reads_several_streams_gives_the_first_ones_loss() -> None:
    model = loud("prophetnet")
    bone, pair = Backbone("prophetnet", model, factories.tokenizer()), factories.pairs(1)[0]
    with torch.no_grad():
        nll, chunked = (float(target_nll(bone, make_batch(bone, Untuned(), [pair]), at_once=n)) for n in (10**9, 1))
        start = torch.tensor([[0, *pair.target[:-1]]])
        logits = model(input_ids=torch.tensor([pair.source]), decoder_input_ids=start, use_cache=False).logits[0]
    logs = logits.log_softmax(-1)
    want = -float(sum(row[token] for row, token in zip(logs, pair.target, strict=True)))
    assert (nll, chunked) == (pytest.approx(want, rel=1e-5), pytest.approx(want, rel=1e-5))


@pytest.mark.parametrize("kind", ["pegasus_x", "nllb-moe"])
def test_decoders_without_fused_attention_are_causal_all_the_same(kind: str, tmp_path: Path) -> None:
    bone = Backbone.load(folder(tmp_path, kind))
    with torch.no_grad():
        rows = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]])
        logits = bone.model(input_ids=torch.tensor([[4, 3]] * 2), decoder_input_ids=rows, use_cache=False).logits
    torch.testing.assert_close(logits[0, :3], logits[1, :3], rtol=1e-4, atol=1e-4)


def test_weights_that_give_no_numbers_are_refused(tmp_path: Path) -> None:
    model = factories.model("gpt2")
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = torch.nan
    model.save_pretrained(tmp_path)
    factories.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="expected numbers as logits, got NaN"):
        Backbone.load(str(tmp_path))


@pytest.mark.parametrize("limit", [-1, 0])
def test_a_window_that_is_none_limits_nothing(limit: int) -> None:
    """XLNet's config says -1."""
    bone = factories.backbone("llama")
    bone.model.config.max_position_embeddings = limit
    assert bone.window is None
    xlnet = Backbone("xlnet", loud("xlnet"), factories.tokenizer())
    assert xlnet.window is None


def test_each_side_of_an_encoder_decoder_has_a_window_of_its_own() -> None:
    bone = factories.backbone("bart")
    assert (bone.window, bone.answer_window) == (64, 64)
    bone.model.config.max_encoder_position_embeddings = 512  # as LED's
    assert (bone.window, bone.answer_window) == (512, 64)
    assert factories.backbone("t5").answer_window is None and factories.backbone("gpt2").answer_window is None


def with_added_words(bone: Backbone) -> Backbone:
    words = copy.deepcopy(factories.tokenizer())
    words.add_tokens(["<ent>"])
    return replace(bone, tokenizer=words)


@pytest.mark.parametrize("name", ["gpt2", "t5"])
@pytest.mark.parametrize(
    "config",
    [
        PromptTuning(length=4),
        DePT(length=2, rank=2, text_length=8),
        PrefixTuning(length=3, hidden=8),
        PrefixTuning(length=3, hidden=8, place="between"),
    ],
    ids=["prompt", "dept", "prefix", "infix"],
)
def test_a_word_that_the_model_has_not_is_no_virtual_token(name: str, config: Any) -> None:
    bone = with_added_words(factories.backbone(name))
    if name == "t5" and getattr(config, "place", "") == "between":
        config = PrefixTuning(length=3, hidden=8)
    model, first = attach(bone, config, seed=0), len(factories.tokenizer())
    for act in (
        lambda: model.loss([("tea <ent>", "pie")]),
        lambda: model.loss([("tea", "pie <ent>")]),
        lambda: model.generate(["tea <ent>"], strategy="greedy", max_new_tokens=2),
        lambda: model(torch.tensor([[5, first, 7]]), labels=torch.tensor([[-100, first, 7]])),
    ):
        with pytest.raises(BackboneError, match=rf"from 0 to {first - 1}.* got {first} \('<ent>'\).*resize_token"):
            act()
    assert model.loss([("tea", "pie")]) > 0


def test_a_text_to_start_from_is_of_words_too() -> None:
    bone = with_added_words(factories.backbone("gpt2"))
    with pytest.raises(BackboneError, match="'<ent>'"):
        attach(bone, PromptTuning(length=3, init="text", init_text="tea <ent>"))


def test_special_tokens_beyond_the_vocabulary_are_refused_at_load(tmp_path: Path) -> None:
    factories.backbone_folder(tmp_path, "t5")
    words = copy.deepcopy(factories.tokenizer())
    words.add_special_tokens({"pad_token": "<pad>"})
    words.save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=rf"padding token has id {len(words) - 1}.*resize_token_embeddings"):
        Backbone.load(str(tmp_path))


def test_a_run_on_an_encoder_ends_before_it_trains(tmp_path: Path) -> None:
    recipe = load_recipe(str(tiny_job(tmp_path)))
    folder(tmp_path / "backbone", "bert")
    with pytest.raises(BackboneError, match="a later token moves"):
        run_recipe(recipe, tmp_path / "run", quiet=True)
    assert not list((tmp_path / "run").rglob("step-*"))
