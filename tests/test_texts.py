"""Texts to ids: what looks like a special token is text, or refused by its line; what is lost on the way is said."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import factories
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from softprompt import data
from softprompt.backbone import Backbone
from softprompt.batch import encode_pairs, encode_sources, encode_targets, encode_text
from softprompt.cli import main
from softprompt.config import DataConfig, DecodeConfig, load_recipe
from softprompt.errors import DataError
from softprompt.init import text_embeddings
from softprompt.labels import LabelWords
from softprompt.prepare import prepare
from softprompt.types import Example

WORDS = ["▁", "▁a", "▁b", "▁tea", "a", "b", "t", "e", "s", "/", ">", "<"]
SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def unigram(**changes: str) -> PreTrainedTokenizerFast:
    """As T5's: the special tokens are pieces of the vocabulary, so that no setting keeps a text from them."""
    pieces = [(name, 0.0) for name in SPECIAL.values()]
    made = Tokenizer(models.Unigram([*pieces, *((word, -2.0) for word in WORDS)], unk_id=2, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, **(SPECIAL | changes))


def words_only() -> PreTrainedTokenizerFast:
    """A vocabulary of whole words; anything else is `[UNK]`."""
    vocabulary = {word: index for index, word in enumerate(["[UNK]", "</s>", "item", "tea", "pie"])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="[UNK]")


def bone(name: str, words: PreTrainedTokenizerFast | None = None) -> Backbone:
    made = factories.backbone(name)
    return replace(made, tokenizer=words) if words else made


@pytest.mark.parametrize("name", ["gpt2", "llama", "bart"])
def test_a_special_string_in_a_text_is_text_wherever_texts_become_ids(name: str) -> None:
    backbone = bone(name)
    assert backbone.tokenizer is not None
    text = f"tea {factories.EOS} pie"
    eos = backbone.eos_id
    (pair,) = encode_pairs(backbone, [Example(text, (text,))])
    sources, targets = encode_sources(backbone, [text]), encode_targets(backbone, [text])
    labels = LabelWords.of(backbone, [text, "pie"], DecodeConfig(strategy="greedy"))
    for ids in (pair.source, pair.target, sources[0], targets[0], labels.ids[0]):
        assert eos not in ids[1:-1]
    assert eos not in encode_text(backbone, text)
    assert backbone.tokenizer.decode(encode_text(backbone, text)) == text
    assert text_embeddings(backbone, text, 40).shape[0] == 40


def test_a_texts_own_tokens_do_not_change_by_it() -> None:
    """Only what looks like a special token is read in another way."""
    backbone = bone("gpt2")
    assert backbone.tokenizer is not None
    for text in ("the red old inn", "<b> & |x|", "a\nb  c", "Café ☕"):
        assert list(encode_text(backbone, text)) == backbone.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("string", ["</s>", "<pad>"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_what_a_tokenizer_cannot_tell_from_text_is_refused_by_its_line(string: str, side: str) -> None:
    backbone = bone("bart", unigram())
    rows = [Example("a tea", ("b",), at=2), Example("a", ("b tea",), at=3)]
    bad = Example(*(("a " + string, ("b",)) if side == "source" else ("b", (f"tea {string} a",))), at=4)
    with pytest.raises(DataError, match=rf"line 4, {side}: expected a text, got the special token '{string}'.*1 of 3"):
        encode_pairs(backbone, [*rows, bad])
    (pair, *_) = encode_pairs(backbone, rows)
    assert pair.source[-1] == pair.target[-1] == 1 and 1 not in pair.source[:-1]


def test_refused_where_the_data_are_looked_at_and_where_they_are_run(tmp_path: Path) -> None:
    place = factories.backbone_folder(tmp_path / "b", "bart")
    unigram().save_pretrained(place)
    (tmp_path / "a.csv").write_text("source,target\na,b\na tea,b </s> a\n")
    recipe = load_recipe("own-data", [f"backbone={place}", f"data.train={tmp_path}/a.csv", "data.dev=null"])
    with pytest.raises(DataError, match=r"train, line 3, target: expected a text, got the special token '</s>'"):
        prepare({"": recipe})


@pytest.mark.parametrize("words", [None, unigram()])
def test_a_text_that_is_no_unicode_is_refused(words: PreTrainedTokenizerFast | None, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="number 2: expected Unicode text, got a lone surrogate"):
        encode_sources(bone("gpt2", words), ["tea", "a\ud800"])
    (tmp_path / "a.jsonl").write_text('{"source": "a", "target": "b"}\n{"source": "a", "target": "\\udc80"}\n')
    with pytest.raises(DataError, match=r"a.jsonl:2: expected Unicode text"):
        data.load(DataConfig(train=tmp_path / "a.jsonl"), 1)


def recipe_of(tmp_path: Path, rows: list[dict[str, str]], words: PreTrainedTokenizerFast | None, *more: str) -> str:
    place = factories.backbone_folder(tmp_path / "b", "gpt2", vocab_size=400)
    (words or factories.tokenizer()).save_pretrained(place)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.yaml").write_text(
        f"backbone: {place}\nmethod: {{name: prompt, length: 2}}\nuntuned: false\n"
        f"data: {{train: {tmp_path}/a.jsonl, dev: {tmp_path}/a.jsonl}}\n" + "\n".join(more)
    )
    return str(tmp_path / "r.yaml")


def inspected(recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    monkeypatch.setattr(sys, "argv", ["softprompt", "inspect-data", recipe, *more])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    return capsys.readouterr().out


def prepared(recipe: str, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    """What a run says before it trains."""
    prepare({"": load_recipe(recipe, overrides)})
    return capsys.readouterr().err


def test_unknown_tokens_are_counted_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"source": "item", "target": "tea"}, {"source": "item ☕", "target": "{ pie }"}]
    recipe = recipe_of(tmp_path, rows, words_only())
    for said in (inspected(recipe, monkeypatch, capsys), prepared(recipe, capsys)):
        assert "2 unknown tokens in 1 of 2 targets" in said and "first: line 2, '{ pie }'" in said
        assert "1 unknown tokens in 1 of 2 sources" in said and "first: line 2, 'item ☕'" in said
    found = json.loads(inspected(recipe, monkeypatch, capsys, "--json"))
    unknown = found["parts"]["train"]["look"]["unknown_targets"]
    assert (unknown["count"], unknown["texts"], unknown["of"]) == (2, 1, 2)


def test_nothing_is_said_of_data_that_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(tmp_path, [{"source": "tea ☕", "target": "{ pie }"}, {"source": "red", "target": "inn"}], None)
    assert "Note:" not in inspected(recipe, monkeypatch, capsys) and "note:" not in prepared(recipe, capsys)


def test_line_feeds_in_targets_that_decoding_never_writes_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"source": "red", "target": "inn"}, {"source": "tea", "target": "hot\ntea\npie"}]
    recipe = recipe_of(tmp_path, rows, None)
    for said in (inspected(recipe, monkeypatch, capsys), prepared(recipe, capsys)):
        assert "train, dev, test: 1 of 2 targets hold line feeds (2); decode.ban_newline forbids" in said
        assert "first: line 2, 'hot\\ntea\\npie'" in said
    said = prepared(recipe, capsys, "decode.ban_newline=false")
    assert "1 of 2 targets hold line feeds (2); predictions are written in one line" in said


def test_targets_that_a_tokenizer_never_gives_back_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uncased = words_only()
    uncased.backend_tokenizer.normalizer = normalizers.Lowercase()
    rows = [{"source": "item", "target": "tea  pie"}, {"source": "tea", "target": "Pie tea"}]
    recipe = recipe_of(tmp_path, rows, uncased)
    for said in (inspected(recipe, monkeypatch, capsys), prepared(recipe, capsys)):
        assert "1 of the first 2 targets are spelled otherwise by the backbone's tokenizer" in said
        assert "first: line 2, 'Pie tea' comes back as 'pie tea'" in said


def test_rows_with_one_source_are_merged_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"source": "red", "target": "kind"},
        {"source": "tea", "target": "cold"},
        {"source": "red", "target": "cold"},
    ]
    recipe = recipe_of(tmp_path, rows, None)
    for said in (inspected(recipe, monkeypatch, capsys), prepared(recipe, capsys)):
        assert "dev, test: 3 rows have 2 sources: rows with the same source are merged" in said
        assert "first merged: line 3" in said


@pytest.mark.parametrize("override", ["decode.labels=true", "score.metrics=[accuracy]", "score.suite=accuracy"])
def test_contradicting_labels_are_never_both_right(
    override: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"source": "red", "target": "kind"}, {"source": "red", "target": "cold"}]
    (job,) = prepare({"": load_recipe(recipe_of(tmp_path, rows, None), [override])}).values()
    assert [example.targets for example in job.test] == [("kind",), ("cold",)]
    assert "merged" not in capsys.readouterr().err


def test_sources_that_are_too_long_lead_to_the_setting_that_cuts_them(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, [{"source": "tea " * 400, "target": "pie"}], None)
    with pytest.raises(DataError, match=r"Set data.truncate=source") as caught:
        prepare({"": load_recipe(recipe)})
    assert str(caught.value).index("data.truncate=source") < 330
    prepare({"": load_recipe(recipe, ["data.truncate=source", "decode.max_new_tokens=5"])})
