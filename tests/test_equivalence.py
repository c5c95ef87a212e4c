"""The promise, for every architecture of the factories: however a text is run, the answer is one."""

from pathlib import Path

import factories
import pytest
import torch
from torch import Tensor

from softprompt.backbone import Backbone
from softprompt.batch import collate, collate_sources
from softprompt.config import DecodeConfig
from softprompt.decode import decode_texts, generation_options
from softprompt.methods import Steering, Untuned
from softprompt.prompt import Prompt

FAMILIES = list(factories.ARCHITECTURES)
STEERINGS = ["prefix", "untuned"]
NEW = 8


def steering(bone: Backbone, which: str = "prefix", **options: object) -> Steering:
    return factories.prefix(bone, **options).fold() if which == "prefix" else Untuned()


def sources(count: int = 4) -> list[tuple[int, ...]]:
    """Uneven, and longer than the window of `mistral_window`."""
    return [pair.source for pair in factories.pairs(count, longest=20)]


def generate(bone: Backbone, how: Steering, ids: list[tuple[int, ...]], *, shared: bool = True, **options: object):
    eos = bone.eos_id
    rows = collate_sources(ids, eos)
    settings = generation_options(bone, DecodeConfig(max_new_tokens=NEW, ban_newline=False, **options))
    settings.update(output_logits=True, output_scores=True, return_dict_in_generate=True)
    with torch.no_grad(), how.attach(bone, shared=shared):
        return bone.model.generate(
            rows.input_ids_BT,
            attention_mask=rows.attention_mask_BT,
            position_ids=rows.position_ids_BT,
            generation_config=settings,
        )


def forced(bone: Backbone, how: Steering, source: tuple[int, ...], target: list[int]) -> Tensor:
    """Logits (len(target), V) for each target token, in one forward over the unpadded row."""
    ids = torch.tensor([[*source, *target]])
    with torch.no_grad(), how.attach(bone):
        out = bone.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=torch.arange(ids.shape[1])[None],
            use_cache=False,
        ).logits
    return out[0, len(source) - 1 : -1]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_padded_equals_unpadded(name: str, shared: bool, side: str) -> None:
    bone = factories.backbone(name)
    how, pairs = steering(bone), factories.pairs(4, longest=20)
    rows = collate(pairs, bone.eos_id, side=side)
    with torch.no_grad(), how.attach(bone, shared=shared):
        together = factories.logits(bone, rows)
        for row, pair in enumerate(pairs):
            alone = factories.logits(bone, collate([pair], bone.eos_id))[0]
            torch.testing.assert_close(together[row][rows.attention_mask_BT[row].bool()], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("which", STEERINGS)
@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_generation_is_the_argmax_of_a_teacher_forced_forward(name: str, which: str) -> None:
    bone = factories.backbone(name)
    how, ids = steering(bone, which), sources()
    out = generate(bone, how, ids, strategy="greedy", min_new_tokens=NEW)
    steps = torch.stack(out.logits, dim=1)
    for row, source in enumerate(ids):
        tokens = out.sequences[row, -NEW:].tolist()
        want = forced(bone, how, source, tokens)
        torch.testing.assert_close(steps[row], want, atol=1e-5, rtol=1e-4)
        want[:, bone.eos_id] = -torch.inf
        assert want.argmax(dim=1).tolist() == tokens


@pytest.mark.parametrize("penalty", [1.0, 0.0, 2.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_beam_scores_are_the_teacher_forced_log_probabilities(name: str, penalty: float) -> None:
    bone = factories.backbone(name)
    how, ids = steering(bone), sources()
    out = generate(bone, how, ids, strategy="beam", beams=3, length_penalty=penalty)
    width = max(map(len, ids))
    for row, source in enumerate(ids):
        tokens = out.sequences[row, width:].tolist()
        tokens = tokens[: tokens.index(bone.eos_id) + 1] if bone.eos_id in tokens else tokens
        each = forced(bone, how, source, tokens).log_softmax(dim=1)[range(len(tokens)), tokens]
        want = float(each.sum()) / len(tokens) ** penalty
        assert float(out.sequences_scores[row]) == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("options", [{"strategy": "greedy"}, {"strategy": "beam", "beams": 3}], ids=["greedy", "beam"])
@pytest.mark.parametrize("name", FAMILIES)
def test_cached_equals_uncached(name: str, options: dict[str, object]) -> None:
    bone = factories.backbone(name)
    how, ids = steering(bone), sources()
    results = []
    for use_cache in (True, False):
        bone.model.generation_config.use_cache = use_cache
        bone.model.config.use_cache = use_cache
        calls = count_query_lengths(bone)
        results.append(generate(bone, how, ids, **options))
        assert (min(calls) == 1) == use_cache
    assert torch.equal(results[0].sequences, results[1].sequences)
    torch.testing.assert_close(torch.stack(results[0].logits), torch.stack(results[1].logits), atol=1e-5, rtol=1e-4)


def count_query_lengths(bone: Backbone) -> list[int]:
    """Filled with the number of tokens of every forward from now on."""
    lengths: list[int] = []
    bone.model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    return lengths


@pytest.mark.parametrize("options", [{"strategy": "greedy"}, {"strategy": "beam", "beams": 3}], ids=["greedy", "beam"])
@pytest.mark.parametrize("name", FAMILIES)
def test_batched_decoding_equals_one_by_one(name: str, options: dict[str, object]) -> None:
    bone = factories.backbone(name)
    how, phrases = steering(bone), factories.texts(7)
    settings = {"max_new_tokens": 12, "min_new_tokens": 6, "ban_newline": False, **options}
    together = decode_texts(bone, how, phrases, DecodeConfig(batch_size=4, **settings))
    alone = decode_texts(bone, how, phrases, DecodeConfig(batch_size=1, **settings))
    assert together == alone
    assert [row.index for row in together] == list(range(7))
    assert len({row.text for row in together}) > 1 and all(row.text for row in together)


@pytest.mark.parametrize("reparam", ["mlp", "none"])
@pytest.mark.parametrize("name", FAMILIES)
def test_folded_equals_unfolded_to_the_bit(name: str, reparam: str) -> None:
    bone, rows = factories.backbone(name), factories.batch(3)
    method = factories.prefix(bone, reparam=reparam, dropout=0.5)
    folded = method.fold()
    with torch.no_grad():
        with method.attach(bone):
            want = factories.logits(bone, rows)
        with folded.attach(bone):
            got = factories.logits(bone, rows)
    assert torch.equal(got, want)
    assert folded.position_offset == method.position_offset == 5


def test_folding_in_training_mode_drops_nothing_out_and_keeps_the_mode() -> None:
    method = factories.prefix(factories.backbone("gpt2"), dropout=0.5)
    want = method.fold().numbers
    method.set_mode(True)
    assert not torch.equal(method(), want)
    assert torch.equal(method.fold().numbers, want) and method.training
    assert not method.fold().numbers.requires_grad


@pytest.mark.parametrize("positions", ["shifted", "unshifted"])
@pytest.mark.parametrize("name", FAMILIES)
def test_saved_and_loaded_equals_before_to_the_bit(name: str, positions: str, tmp_path: Path) -> None:
    bone, rows = factories.backbone(name), factories.batch(3)
    before = factories.prefix(bone, positions=positions).fold()
    before.save(tmp_path / "prompt", backbone_id=name, backbone_hash=bone.hash())
    after = Prompt.load(tmp_path / "prompt", backbone_hash=bone.hash())
    assert (after.form.sites, after.form.positions) == (before.form.sites, before.form.positions)
    results = []
    for prompt in (before, after):
        with torch.no_grad(), prompt.attach(bone):
            results.append(factories.logits(bone, rows))
    assert torch.equal(*results)


@pytest.mark.parametrize("which", STEERINGS)
def test_a_run_of_decoding_leaves_nothing_behind(which: str) -> None:
    bone, phrases = factories.backbone("llama"), factories.texts(3)
    config = DecodeConfig(strategy="greedy", max_new_tokens=6)
    first = decode_texts(bone, Untuned(), phrases, config)
    decode_texts(bone, steering(bone, which), phrases, config)
    assert decode_texts(bone, Untuned(), phrases, config) == first


@pytest.mark.parametrize("name", FAMILIES)
def test_shifted_and_unshifted_positions_differ_only_in_where_text_starts(name: str) -> None:
    bone = factories.backbone(name)
    shifted, unshifted = steering(bone), steering(bone, positions="unshifted")
    assert torch.equal(shifted.numbers, unshifted.numbers)
    assert (shifted.position_offset, unshifted.position_offset) == (5, 0)
    rows = factories.batch(2)
    seen = record_positions(bone)
    results = []
    for how in (shifted, unshifted):
        with torch.no_grad(), how.attach(bone):
            results.append(factories.logits(bone, rows))
    assert not torch.allclose(*results, atol=1e-2)
    generate(bone, unshifted, sources(1), strategy="greedy", min_new_tokens=NEW)
    first, *later = [position for position in seen[2:]]
    length = len(sources(1)[0])
    assert first == list(range(length))
    assert later == [[length + step] for step in range(len(later))] and later


def record_positions(bone: Backbone) -> list[list[int]]:
    """Filled with the positions of row 0 of every forward from now on."""
    seen: list[list[int]] = []
    bone.model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["position_ids"][0].tolist()), with_kwargs=True
    )
    return seen
