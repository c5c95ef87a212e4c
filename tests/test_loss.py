"""The loss: logits only at target positions, equal to transformers' own; the two normalisations; accumulation."""

from dataclasses import replace

import factories
import pytest
import torch
from torch import Tensor, nn

from softprompt import loss as loss_module
from softprompt.backbone import Backbone, selecting
from softprompt.batch import IGNORED, Batch, collate
from softprompt.config import TrainConfig
from softprompt.inject import inject
from softprompt.loss import by_length, mean_token_nll, target_nll
from softprompt.methods import Untuned, trained_count
from softprompt.passes import Passes

FAMILIES = list(factories.ARCHITECTURES)  # among them soft-capped and scaled logits


def own_loss(name: str, pairs: list, side: str) -> float:
    """transformers' `labels=` path on a model that never met the package: the mean over target tokens."""
    rows = collate(pairs, factories.tokenizer().eos_token_id, side=side)
    labels = torch.full_like(rows.input_ids_BT, IGNORED)
    for row, pair in enumerate(pairs):
        real = rows.attention_mask_BT[row].nonzero()[:, 0]
        labels[row, real[len(pair.source) :]] = torch.tensor(pair.target)
    model = factories.model(name, attn_implementation="eager")
    with torch.no_grad():
        loss = model(
            input_ids=rows.input_ids_BT,
            attention_mask=rows.attention_mask_BT,
            position_ids=rows.position_ids_BT,
            labels=labels,
        ).loss
    return float(loss)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", FAMILIES)
def test_loss_equals_transformers_own_on_labelled_targets(name: str, side: str) -> None:
    bone, pairs = factories.backbone(name, attention="eager"), factories.pairs(4)
    rows = collate(pairs, bone.eos_id, side=side)
    with torch.no_grad():
        mine = float(target_nll(bone, rows)) / len(rows.labels_N)
    assert mine == pytest.approx(own_loss(name, pairs, side), rel=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_exist_at_target_positions_alone(name: str) -> None:
    bone, rows = factories.backbone(name), factories.batch(3)
    seen = []
    bone.model.get_output_embeddings().register_forward_hook(lambda module, args, out: seen.append(out.shape))
    with torch.no_grad():
        target_nll(bone, rows)
        whole = factories.logits(bone, rows)
        with selecting(bone.model, rows.at_N):
            selected = factories.logits(bone, rows)
        again = factories.logits(bone, rows)
    assert seen[0] == (len(rows.labels_N), len(factories.tokenizer()))
    torch.testing.assert_close(selected, whole[rows.predicts_BT], atol=1e-5, rtol=1e-5)
    assert again.shape == whole.shape


@pytest.mark.parametrize("positions", ["shifted", "unshifted"])
@pytest.mark.parametrize("name", FAMILIES)
def test_loss_under_a_prefix_is_the_cross_entropy_of_text_that_starts_at_the_offset(name: str, positions: str) -> None:
    bone, rows = factories.backbone(name), factories.batch(3)
    how = factories.prefix(bone, positions=positions).fold()
    with torch.no_grad(), how.attach(bone):
        got = target_nll(bone, rows)
        elsewhere = target_nll(bone, replace(rows, position_ids_BT=rows.position_ids_BT + 3))
    moved = replace(rows, position_ids_BT=rows.position_ids_BT + (5 if positions == "shifted" else 0))
    with torch.no_grad(), inject(bone.model, how.keys_and_values()):
        logits = factories.logits(bone, moved)
    chances = logits[:, :-1].log_softmax(dim=-1).gather(2, rows.input_ids_BT[:, 1:, None])[..., 0]
    want = -chances[rows.predicts_BT[:, :-1]].sum()
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-6)
    assert abs(float(elsewhere - want)) > 1e-3


def test_the_head_is_whole_again_after_an_error() -> None:
    bone, rows = factories.backbone("gpt2"), factories.batch(3)
    with pytest.raises(ZeroDivisionError), selecting(bone.model, rows.at_N):
        raise ZeroDivisionError
    assert factories.logits(bone, rows).shape[:2] == rows.input_ids_BT.shape


def test_dev_loss_is_the_mean_over_all_target_tokens_however_they_are_batched() -> None:
    bone, pairs = factories.backbone("llama"), factories.pairs(9)
    how = factories.prefix(bone).fold()
    total = 0.0
    with torch.no_grad(), how.attach(bone):
        for pair in pairs:
            total += float(target_nll(bone, collate([pair], bone.eos_id)))
    want = total / sum(len(pair.target) for pair in pairs)
    for size in (1, 4, 100):
        assert mean_token_nll(bone, how, pairs, batch_size=size) == pytest.approx(want, rel=1e-6)
    assert mean_token_nll(bone, Untuned(), pairs, batch_size=4) != pytest.approx(want, rel=1e-3)


def test_by_length_takes_every_pair_once_in_order_of_length() -> None:
    pairs = factories.pairs(10)
    chunks = list(by_length(pairs, 4))
    assert [len(chunk) for chunk in chunks] == [4, 4, 2]
    flat = [pair for chunk in chunks for pair in chunk]
    assert sorted(flat, key=pairs.index) == pairs and [len(p) for p in flat] == sorted(map(len, pairs))


@pytest.mark.parametrize("loss", ["token_mean", "sentence_sum"])
def test_the_two_normalisations_are_what_their_names_say(loss: str) -> None:
    bone, pairs = factories.backbone("gpt2"), factories.pairs(5)
    method = factories.prefix(bone)
    sums = []
    with torch.no_grad(), method.attach(bone):
        for pair in pairs:
            sums.append(float(target_nll(bone, collate([pair], bone.eos_id))))
    tokens = sum(len(pair.target) for pair in pairs)
    want = sum(sums) / (tokens if loss == "token_mean" else len(pairs))
    got, positions = Passes(bone, method, TrainConfig(loss=loss, precision="float32")).accumulate(pairs, len(pairs))
    assert got == pytest.approx(want, rel=1e-6)
    assert positions == len(pairs) * max(map(len, pairs))


@pytest.mark.parametrize("loss", ["token_mean", "sentence_sum"])
@pytest.mark.parametrize("micro", [1, 2, 3])
def test_accumulated_gradients_are_those_of_the_whole_batch(loss: str, micro: int) -> None:
    bone, pairs = factories.backbone("llama"), factories.pairs(7)
    assert len({len(pair.target) for pair in pairs}) > 2
    results = []
    for size in (7, micro):
        method = factories.prefix(bone)
        config = TrainConfig(batch_size=7, loss=loss, precision="float32")
        value, _ = Passes(bone, method, config).accumulate(pairs, size)
        flat = nn.utils.parameters_to_vector(factories.gradients(list(method.trainable().values())))
        assert flat.numel() == trained_count(method)
        results.append((value, flat))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    scale = results[0][1].abs().max()
    torch.testing.assert_close(results[0][1] / scale, results[1][1] / scale, atol=1e-6, rtol=1e-5)


# --- dev losses keep to what memory holds ----------------------------------------------------------------------------


@pytest.mark.parametrize("fits", [1, 2, 3, 5])
def test_a_dev_loss_that_does_not_fit_is_taken_by_halves(fits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bone, pairs = factories.backbone("gpt2"), factories.pairs(11)
    want, real, rows = mean_token_nll(bone, Untuned(), pairs, batch_size=11), loss_module.target_nll, []

    def limited(bone: Backbone, batch: Batch) -> Tensor:
        if batch.rows > fits:
            raise torch.OutOfMemoryError("pretended")
        rows.append(batch.rows)
        return real(bone, batch)

    monkeypatch.setattr(loss_module, "target_nll", limited)
    assert mean_token_nll(bone, Untuned(), pairs, batch_size=11) == pytest.approx(want, rel=1e-6)
    assert sum(rows) == 11 and max(rows) <= fits


def test_one_pair_that_does_not_fit_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("pretended")

    monkeypatch.setattr(loss_module, "target_nll", full)
    with pytest.raises(torch.OutOfMemoryError):
        mean_token_nll(factories.backbone("gpt2"), Untuned(), factories.pairs(3), batch_size=3)
