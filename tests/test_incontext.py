"""In-context prompting: the tokens that stand before a source, what fits, and a whole run beside a learned prompt."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import pytest
from jobs import tiny_job
from tokenizers import processors

from softprompt import report
from softprompt.backbone import Backbone
from softprompt.batch import encode_pairs, encode_sources
from softprompt.config import DecodeConfig, load_recipe
from softprompt.decode import decode_texts
from softprompt.errors import ConfigError, DataError
from softprompt.incontext import InContext
from softprompt.method_config import InContextConfig
from softprompt.methods import Untuned, room_taken
from softprompt.run import run_recipe

EXAMPLES = factories.examples(9)
BEGIN = 7
"""Used as the begin token of a tokenizer that puts one in front of every text."""


def made(bone: Backbone, seed: int = 0, **options: Any) -> InContext:
    return InContext.build(bone, InContextConfig(**options), EXAMPLES, seed)


def beginning(bone: Backbone) -> Backbone:
    """The same with a tokenizer that frames texts: begin token, text, and (encoder-decoders) end of text."""
    words = copy.deepcopy(factories.tokenizer())
    words.bos_token = words.convert_ids_to_tokens(BEGIN)
    end = f" {factories.EOS}" if bone.family == "seq2seq" else ""
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{words.bos_token} $A{end}",
        special_tokens=[(words.bos_token, BEGIN), (factories.EOS, bone.eos_id)],
    )
    return replace(bone, tokenizer=words)


@pytest.mark.parametrize("begins", [False, True])
def test_causal_examples_are_framed_as_the_pairs_of_training(begins: bool) -> None:
    bone = factories.backbone("gpt2")
    bone = beginning(bone) if begins else bone
    how = made(bone, instruction="hot tea", shots=3)
    (source,) = encode_sources(bone, ["cold pie"])
    shown = [pair.source + pair.target for pair in encode_pairs(bone, EXAMPLES)]
    (first,) = encode_sources(bone, ["hot tea"])
    placed, cut = how.place(bone, source), int(begins)
    assert placed[:cut] == source[:cut] and placed[cut : cut + len(first[cut:])] == first[cut:]
    rest, count = placed[len(first) :], 0
    while rest != source[cut:]:
        row = next(row[cut:] for row in shown if rest[: len(row) - cut] == row[cut:])
        rest, count = rest[len(row) :], count + 1
    assert count == 3 and placed.count(BEGIN) == cut


@pytest.mark.parametrize("begins", [False, True])
def test_seq2seq_reads_one_text(begins: bool) -> None:
    bone = factories.backbone("bart")
    bone = beginning(bone) if begins else bone
    how = made(bone, instruction="hot tea", shots=2)
    (source,) = encode_sources(bone, ["cold pie"])
    text = bone.tokenizer.decode(how.place(bone, source), skip_special_tokens=True)
    text = text.removeprefix(bone.tokenizer.decode([BEGIN]))
    shown = [f"{example.source} {example.targets[0]}" for example in EXAMPLES]
    assert any(text == f"hot tea {one} {other} cold pie" for one in shown for other in shown if one != other)


def test_examples_are_drawn_by_the_seed_and_each_once() -> None:
    bone = factories.backbone("gpt2")
    assert made(bone, shots=4) == made(bone, shots=4) != made(bone, 1, shots=4)
    assert len(made(bone, shots=9).context) == sum(map(len, encode_pairs(bone, EXAMPLES)))
    assert made(bone, instruction="hot tea", shots=0).context == encode_sources(bone, ["hot tea"])[0]


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart"])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_context_matters_and_rows_do_not_influence_each_other(name: str, beams: int) -> None:
    bone = factories.backbone(name)
    how = made(bone, instruction="hot tea", shots=1)
    config = DecodeConfig(beams=beams, max_new_tokens=6, batch_size=2)
    sources = factories.texts(5, seed=2)
    rows = decode_texts(bone, how, sources, config)
    assert [row.text for row in rows] != [row.text for row in decode_texts(bone, Untuned(), sources, config)]
    for source, row in zip(sources, rows, strict=True):
        assert decode_texts(bone, how, [source], config)[0].text == row.text


def test_what_does_not_fit_is_refused() -> None:
    bone = factories.backbone("gpt2")
    with pytest.raises(ConfigError, match="at most 9, the number of training pairs, got 10"):
        made(bone, shots=10)
    with pytest.raises(ConfigError, match=r"9 examples take \d+ tokens; expected fewer than the window of 128"):
        made(bone, shots=9, instruction="hot tea " * 30)
    how = made(bone, shots=4)
    assert room_taken(bone, how) == len(how.context)
    with pytest.raises(DataError, match=f"beside {len(how.context) + 20} positions"):
        decode_texts(bone, how, ["tea " * (128 - len(how.context) - 20)], DecodeConfig(max_new_tokens=20))
    with pytest.raises(ConfigError, match="got neither"):
        load_recipe("quickstart", ["method={name: incontext, shots: 0}"])


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_whole_run_beside_a_learned_prompt(name: str, tmp_path: Path) -> None:
    more = "compare: {shown: {method: {name: incontext, instruction: hot tea, shots: 2}}}"
    recipe = load_recipe(str(tiny_job(tmp_path, more, architecture=name)), ["train.max_steps=1"])
    results = {result.arm: result for result in run_recipe(recipe, tmp_path / "run", quiet=True)}
    shown = results["shown"]
    assert (shown.method, shown.training, shown.parameters["trained"], shown.parameters["stored"]) == (
        "incontext",
        None,
        0,
        0,
    )
    kept = json.loads((tmp_path / "run" / "arms" / "shown" / "scores.json").read_text())
    room = kept["decoding"]["room_taken"]
    assert room > 4 and results["untuned"].decoding["room_taken"] == 0
    rows = {row[0]: row for row in report.table(list(results.values()))}
    header = report.table([shown])[0]
    assert rows["shown"][header.index("trained")] == rows["shown"][header.index("stored")] == "0"
    assert f"shown puts {room} tokens of instruction and examples before each source." in report.notes([shown])
    alone = load_recipe(str(tmp_path / "tiny.yaml"), ["method={name: incontext, shots: 2}", "compare=null"])
    results_alone = run_recipe(alone, tmp_path / "alone", quiet=True)
    report.write_card(alone, tmp_path / "alone", results_alone)
    assert "Nothing was learned" in (tmp_path / "alone" / "README.md").read_text()


def test_a_run_whose_examples_do_not_fit_writes_nothing(tmp_path: Path) -> None:
    path = str(tiny_job(tmp_path))
    for shots, error in ((17, ConfigError), (16, (ConfigError, DataError))):
        recipe = load_recipe(path, [f"method={{name: incontext, shots: {shots}}}", "untuned=false"])
        with pytest.raises(error):
            run_recipe(recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
