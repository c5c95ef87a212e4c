"""Text to ids, and ids to padded rows."""

from dataclasses import replace
from pathlib import Path

import factories
import pytest
import torch

from softprompt.backbone import Backbone
from softprompt.batch import (
    Encoded,
    collate,
    collate_sources,
    encode_pairs,
    encode_sources,
    encode_targets,
    require_fit,
)
from softprompt.errors import DataError
from softprompt.types import Example

GPT2_TOKENIZER = Path(__file__).parents[2] / "shared" / "tokenizers" / "gpt2"


@pytest.fixture(scope="module")
def bone() -> Backbone:
    return factories.backbone("gpt2")


def with_gpt2_tokenizer() -> Backbone:
    from transformers import AutoTokenizer

    if not (GPT2_TOKENIZER / "tokenizer.json").is_file():
        pytest.skip("GPT-2's tokenizer files are not beside this checkout")
    return replace(
        factories.backbone("gpt2", vocab_size=50257), tokenizer=AutoTokenizer.from_pretrained(GPT2_TOKENIZER)
    )


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("name : Blue Spice | Type : pub", "Blue Spice is a pub ."),
        ("1234 5678", "£ 20-25, 'cheap'; naïve café\u3000日本"),
        ("a  double  space", "line\nbreak"),
        ("x", "y"),
    ],
)
def test_frame_equals_the_papers_whole_string_under_gpt2s_tokenizer(source: str, target: str) -> None:
    real = with_gpt2_tokenizer()
    whole = real.tokenizer(" " + source + " <|endoftext|> " + target + " <|endoftext|>")["input_ids"]
    (pair,) = encode_pairs(real, [Example(source, (target,))])
    assert [*pair.source, *pair.target] == whole
    assert pair.source[-1] == pair.target[-1] == 50256 and whole.count(50256) == 2


def test_frame_reads_back_as_source_separator_target_end(bone: Backbone) -> None:
    (pair,) = encode_pairs(bone, [Example("the red inn", ("sells hot tea",))])
    eos = factories.EOS
    assert bone.tokenizer.decode([*pair.source, *pair.target]) == f" the red inn {eos} sells hot tea {eos}"
    assert (pair.source.count(bone.eos_id), pair.target.count(bone.eos_id)) == (1, 1)


def test_every_target_of_an_example_is_a_pair_in_order(bone: Backbone) -> None:
    given_examples = [Example("inn", ("tea", "pie")), Example("river", ()), Example("bank", ("ten",))]
    pairs = encode_pairs(bone, given_examples)
    sources, targets = encode_sources(bone, ["inn", "inn", "bank"]), encode_targets(bone, ["tea", "pie", "ten"])
    assert pairs == [Encoded(source, target) for source, target in zip(sources, targets, strict=True)]
    assert encode_pairs(bone, []) == [] and encode_sources(bone, []) == [] and encode_targets(bone, []) == []


def test_special_tokens_of_the_tokenizer_come_once_at_the_start_and_never_before_a_target(bone: Backbone) -> None:
    import copy

    from tokenizers import processors

    other = copy.deepcopy(bone.tokenizer)
    eos = factories.EOS
    other.add_special_tokens({"bos_token": "<s>"})
    bos = other.bos_token_id
    other.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"<s> $A {eos}", special_tokens=[("<s>", bos), (eos, bone.eos_id)]
    )
    wrapped = replace(factories.backbone("gpt2", vocab_size=len(other)), tokenizer=other)
    (pair,) = encode_pairs(wrapped, [Example("inn", ("tea",))])
    (plain,) = encode_pairs(bone, [Example("inn", ("tea",))])
    assert pair == Encoded((bos, *plain.source), plain.target)


@pytest.mark.parametrize("side", ["left", "right"])
def test_collate_keeps_the_ids_positions_and_labels_of_real_tokens(side: str) -> None:
    pairs, pad = factories.pairs(5), 0
    rows = collate(pairs, pad, side=side)
    longest = max(map(len, pairs))
    assert rows.rows == 5 and rows.input_ids_BT.shape == (5, longest)
    labels = iter(rows.labels_N.tolist())
    for row, pair in enumerate(pairs):
        mask = rows.attention_mask_BT[row].bool()
        gap = longest - len(pair)
        assert mask.tolist() == (
            [False] * gap + [True] * len(pair) if side == "left" else [True] * len(pair) + [False] * gap
        )
        assert rows.input_ids_BT[row][mask].tolist() == [*pair.source, *pair.target]
        assert (rows.input_ids_BT[row][~mask] == pad).all() and (rows.position_ids_BT[row][~mask] == 0).all()
        assert rows.position_ids_BT[row][mask].tolist() == list(range(len(pair)))
        where = rows.predicts_BT[row][mask].nonzero()[:, 0].tolist()
        assert where == list(range(len(pair.source) - 1, len(pair) - 1))
        assert [next(labels) for _ in where] == list(pair.target)
        assert not rows.predicts_BT[row][~mask].any()
    assert next(labels, None) is None


@pytest.mark.parametrize("side", ["left", "right"])
def test_nothing_predicts_the_first_token_of_a_row_without_a_source(side: str) -> None:
    rows = collate([Encoded((), (5, 6, 7)), Encoded((8, 9), (4, 3)), Encoded((), (2,))], 0, side=side, first=2)
    starts = [1, 0, 3] if side == "left" else [0, 0, 0]
    assert rows.at_N.tolist() == [starts[0], starts[0] + 1, 4 + 1, 4 + 2]
    assert rows.labels_N.tolist() == [6, 7, 4, 3]
    assert [row[start] for row, start in zip(rows.position_ids_BT.tolist(), starts, strict=True)] == [2, 2, 2]


def test_sources_are_padded_on_the_left_and_carry_no_labels() -> None:
    rows = collate_sources([(5, 6, 7), (8,)], 0)
    assert rows.input_ids_BT.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert rows.attention_mask_BT.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert rows.position_ids_BT.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert rows.labels_N.numel() == 0 and not rows.predicts_BT.any()


def test_batch_moves_as_a_whole() -> None:
    moved = factories.batch(2).to(torch.device("meta"))
    parts = [getattr(moved, name) for name in moved.__slots__]
    assert {part.device.type for part in parts if isinstance(part, torch.Tensor)} == {"meta"}


def test_require_fit_says_how_many_which_and_what_there_is_room_for() -> None:
    require_fit([10, 12], 12, what="pairs")
    require_fit([10, 10], 12, what="pairs", offset=2)
    require_fit([1000], None, what="pairs")
    require_fit([], 12, what="pairs")
    with pytest.raises(DataError) as caught:
        require_fit([11, 9, 14, 10], 12, what="training pairs", offset=2)
    for part in ("2 of 4 training pairs", "at most 10 tokens", "12 beside 2 positions", "got 14 in number 3"):
        assert part in str(caught.value)
