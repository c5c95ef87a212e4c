"""Generation: order, limits, bans, and that nothing but the recipe decides."""

from pathlib import Path

import factories
import pytest
import torch
from transformers import AutoTokenizer

from softprompt.backbone import Backbone, resolve
from softprompt.batch import encode_sources
from softprompt.config import DecodeConfig
from softprompt.decode import Decoded, decode_texts, decode_together, generation_options, newline_ids
from softprompt.distributed import ALONE
from softprompt.errors import DataError
from softprompt.methods import Untuned

PHRASES = factories.texts(5)
SHARED = Path(__file__).parents[2] / "shared"


def decode(bone: Backbone, seed: int = 0, **options: object) -> list[Decoded]:
    return decode_texts(bone, Untuned(), PHRASES, DecodeConfig(**{"max_new_tokens": 10, **options}), seed=seed)


def greedy(bone: Backbone, **options: object) -> list[Decoded]:
    return decode(bone, strategy="greedy", **options)


def test_rows_come_in_the_order_of_the_sources_and_progress_is_told() -> None:
    bone, heard = factories.backbone("gpt2"), []
    config = DecodeConfig(strategy="greedy", max_new_tokens=4, batch_size=2)
    rows = decode_texts(bone, Untuned(), PHRASES, config, on_batch=heard.append)
    backwards = decode_texts(bone, Untuned(), PHRASES[::-1], config)
    assert [row.index for row in rows] == [0, 1, 2, 3, 4] and heard == [2, 4, 5]
    assert [row.text for row in rows] == [row.text for row in backwards[::-1]]
    assert decode_texts(bone, Untuned(), [], config) == []


def test_the_end_of_text_ends_a_row_and_is_counted() -> None:
    bone = factories.backbone("gpt2")
    limit, lengths = 10, set()
    for row in greedy(bone, max_new_tokens=limit):
        assert factories.EOS not in row.text and 1 <= row.tokens <= limit
        lengths.add(row.tokens)
    head = bone.model.get_output_embeddings()
    head.register_forward_hook(lambda module, args, out: ended(out, bone.eos_id))
    assert [(row.text, row.tokens) for row in greedy(bone)] == [("", 1)] * len(PHRASES)
    assert {row.tokens for row in greedy(bone, min_new_tokens=3)} == {4}


def ended(logits: torch.Tensor, eos: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(eos), logits.shape[-1]).float().expand_as(logits) * 99


def test_newlines_are_banned_unless_allowed() -> None:
    bone = factories.backbone("gpt2")
    ids = newline_ids(bone)
    assert ids == [bone.tokenizer.convert_tokens_to_ids("Ċ")]
    head = bone.model.get_output_embeddings()
    head.register_forward_hook(lambda module, args, out: out.index_fill(-1, torch.tensor(ids), 99.0))
    assert {row.text for row in greedy(bone, ban_newline=False)} == {""}  # nothing but white space
    assert all(row.text for row in greedy(bone, min_new_tokens=10))
    assert bone.eos_id not in (generation_options(bone, DecodeConfig()).suppress_tokens or [])


@pytest.mark.parametrize("name", ["bundled", "gpt2", "t5"])
def test_newlines_are_found_whichever_way_tokens_are_decoded(name: str) -> None:
    folder = Path(resolve("bundled")) if name == "bundled" else SHARED / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"{name}'s tokenizer files are not beside this checkout")
    tokenizer, bone = AutoTokenizer.from_pretrained(folder), factories.backbone("gpt2", vocab_size=50257)
    texts = [tokenizer.decode([index]) for index in range(len(tokenizer))]
    want = [index for index, text in enumerate(texts) if "\n" in text and index != tokenizer.eos_token_id]
    assert newline_ids(Backbone(name, bone.model, tokenizer)) == (want or None)


def test_white_space_is_made_single() -> None:
    bone = factories.backbone("gpt2")
    assert all(row.text == " ".join(row.text.split()) for row in greedy(bone, ban_newline=False))


def test_sampling_depends_on_the_seed_alone() -> None:
    bone = factories.backbone("gpt2")
    one, again, other = (decode(bone, seed, strategy="sample", temperature=2.0) for seed in (1, 1, 2))
    assert one == again != other
    assert decode(bone, strategy="sample", top_k=1) == greedy(bone)
    assert decode(bone, strategy="sample", top_p=1e-6) == greedy(bone)


# What a backbone's own generation_config.json may hold; None of it is in the recipe, so none of it may matter.
STORED = [
    {"do_sample": True, "temperature": 5.0, "top_k": 3},
    {"num_beams": 4},
    {"repetition_penalty": 5.0},
    {"no_repeat_ngram_size": 1},
    {"min_new_tokens": 9},
    {"min_length": 60},
    {"max_length": 3},
    {"suppress_tokens": list(range(1, 300, 2))},
    {"begin_suppress_tokens": list(range(1, 300, 2))},
    {"bad_words_ids": [[index] for index in range(1, 300, 2)]},
    {"forced_eos_token_id": 77},
    {"forced_bos_token_id": 77},
    {"sequence_bias": [[[7], 90.0]]},
    {"exponential_decay_length_penalty": [1, 9.0]},
    {"encoder_repetition_penalty": 5.0},
    {"length_penalty": -3.0},
    {"early_stopping": True},
    {"num_return_sequences": 2},
    {"min_p": 0.9},
    {"typical_p": 0.1},
    {"use_cache": False},
]


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: next(iter(stored)))
@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "greedy", "ban_newline": False},
        {"strategy": "beam", "beams": 3, "ban_newline": False},
        {"strategy": "sample", "temperature": 1.2, "ban_newline": False},
    ],
    ids=["greedy", "beam", "sample"],
)
def test_settings_stored_with_the_backbone_play_no_part(options: dict[str, object], stored: dict[str, object]) -> None:
    bone = factories.backbone("gpt2", seed=3)
    likely_end = torch.nn.functional.one_hot(torch.tensor(bone.eos_id), len(factories.tokenizer())) * 3.5
    bone.model.get_output_embeddings().register_forward_hook(lambda module, args, out: out + likely_end)
    want = decode(bone, **options)
    assert len({row.tokens for row in want}) > 1
    for key, value in stored.items():
        setattr(bone.model.generation_config, key, value)
    assert decode(bone, **options) == want


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(("positions", "start"), [("shifted", 5), ("unshifted", 0)])
def test_text_starts_at_the_prompts_offset_and_counts_on(positions: str, start: int, beams: int) -> None:
    bone, seen = factories.backbone("gpt2"), []
    bone.model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    how = factories.prefix(bone, positions=positions).fold()
    seen.clear()
    config = DecodeConfig(strategy="beam", beams=beams, max_new_tokens=4, min_new_tokens=4)
    decode_texts(bone, how, PHRASES, config)
    lengths = sorted(len(row) for row in encode_sources(bone, PHRASES) for _ in range(beams))
    first, *later = [kwargs["position_ids"] for kwargs in seen]
    assert [row[-length:].tolist() for row, length in zip(first, lengths, strict=True)] == [
        list(range(start, start + length)) for length in lengths
    ]
    assert len(later) == 3
    for step, positions_B1 in enumerate(later):
        assert positions_B1[:, 0].tolist() == [start + length + step for length in lengths]


def test_a_backbone_left_in_training_mode_decodes_without_dropout() -> None:
    bone = factories.backbone("gpt2")
    want = greedy(bone)
    bone.model.train()
    assert greedy(bone) == want


def test_a_source_that_leaves_no_room_is_refused() -> None:
    bone = factories.backbone("gpt2")
    how = factories.prefix(bone, length=8).fold()
    lengths = [len(row) for row in encode_sources(bone, PHRASES)]
    longest = max(lengths)
    room = bone.window - 8 - longest
    config = DecodeConfig(strategy="greedy", max_new_tokens=room)
    assert len(decode_texts(bone, how, PHRASES, config)) == len(PHRASES)
    with pytest.raises(
        DataError, match=rf"{lengths.count(longest)} of 5 sources .*beside {8 + room + 1} pos.*got {longest} "
    ):
        decode_texts(bone, how, PHRASES, DecodeConfig(strategy="greedy", max_new_tokens=room + 1))


def test_more_beams_find_no_less_likely_texts() -> None:
    bone = factories.backbone("llama")

    def scores(beams: int) -> torch.Tensor:
        from softprompt.batch import collate_sources

        rows = collate_sources(encode_sources(bone, PHRASES), bone.eos_id)
        settings = generation_options(bone, DecodeConfig(beams=beams, max_new_tokens=2, length_penalty=0.0))
        settings.update(return_dict_in_generate=True, output_scores=True)
        return bone.model.generate(
            rows.input_ids_BT, attention_mask=rows.attention_mask_BT, generation_config=settings
        ).sequences_scores

    two, all_of_them = scores(2), scores(len(factories.tokenizer()))
    assert (all_of_them >= two - 1e-4).all()


def test_one_process_decodes_together_as_it_does_alone() -> None:
    bone = factories.backbone("gpt2")
    sources = [example.source for example in factories.examples(9, seed=4)]
    config = DecodeConfig(strategy="sample", temperature=2.0, max_new_tokens=6, batch_size=3)
    alone = decode_texts(bone, Untuned(), sources, config, seed=5)
    assert decode_together(bone, Untuned(), sources, config, world=ALONE, seed=5) == alone
