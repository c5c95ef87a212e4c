"""The trainable prefix: its counts, its layout, its initialisation and its dropout."""

import factories
import pytest
import torch
from factories import ARCHITECTURES

from softprompt.backbone import Backbone
from softprompt.method_config import PrefixTuning
from softprompt.methods import METHODS, PrefixMethod, state, trained_count

WIDTHS = {"gpt2": 2 * 2 * 32, "gpt_bigcode": 2 * 2 * 8, "llama": 2 * 2 * 2 * 8, "qwen3": 2 * 2 * 2 * 16}


@pytest.mark.parametrize("name", WIDTHS)
def test_counts_equal_the_formula(name: str) -> None:
    bone, width, embed, length, hidden = factories.backbone(name), WIDTHS[name], 32, 7, 16
    mlp = factories.prefix(bone, length=length, hidden=hidden)
    direct = factories.prefix(bone, length=length, reparam="none")
    assert trained_count(mlp) == length * embed + (embed * hidden + hidden) + (hidden * width + width)
    assert trained_count(direct) == mlp.stored_count() == direct.stored_count() == length * width
    assert mlp.fold().numbers.shape == direct.fold().numbers.shape == (length, width)


def test_counts_of_the_papers_gpt2_medium_without_its_weights() -> None:
    bone = Backbone.plan("gpt2-medium")
    method = METHODS["prefix"](bone, PrefixTuning(length=5, hidden=512))
    width = 24 * 2 * 1024
    assert bone.parameter_count() == 354_823_168
    assert method.stored_count() == 5 * width == 245_760
    assert trained_count(method) == 5 * 1024 + (1024 * 512 + 512) + (512 * width + width)
    assert {parameter.device.type for parameter in method.trainable().values()} == {"meta"}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("reparam", ["mlp", "none"])
def test_every_trainable_tensor_gets_a_gradient_in_every_place(name: str, reparam: str) -> None:
    from softprompt.loss import target_nll

    bone = factories.backbone(name)
    method, rows = factories.prefix(bone, reparam=reparam), factories.batch(3)
    method.set_mode(True)
    with method.attach(bone):
        target_nll(bone, rows).backward()
    for key, parameter in method.trainable().items():
        assert parameter.grad is not None and bool((parameter.grad != 0).all()), key
    assert all(parameter.grad is None for parameter in bone.model.parameters())


def test_trainable_and_state_name_the_same_tensors_in_a_fixed_order() -> None:
    bone = factories.backbone("gpt2")
    method = factories.prefix(bone)
    parts = ["prefix", "mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias"]
    names = [f"banks.decoder.{part}" for part in parts]
    assert list(method.trainable()) == list(state(method)) == names
    assert list(factories.prefix(bone, reparam="none").trainable()) == ["banks.decoder.prefix"]
    assert all(not tensor.requires_grad for tensor in state(method).values())


def test_layout_is_site_then_keys_then_values_then_heads() -> None:
    bone = factories.backbone("llama")
    sites = bone.sites()
    prompt = factories.prefix(bone, length=3, reparam="none").fold()
    numbers = prompt.numbers.view(3, len(sites), 2, sites[0].kv_heads, sites[0].key_dim)
    for index, site in enumerate(sites):
        kv = prompt.keys_and_values()[site.name]
        assert torch.equal(kv.key, numbers[:, index, 0].transpose(0, 1)) and kv.length == 3
        assert torch.equal(kv.value, numbers[:, index, 1].transpose(0, 1))


def test_initialisation_is_the_papers_codes() -> None:
    bone = factories.backbone("gpt2")
    torch.manual_seed(0)
    method = PrefixMethod(bone.sites(), embed=32, length=400, hidden=64)
    bank = method.banks["decoder"]
    seed, weight = bank.prefix.detach(), bank.mlp[2].weight.detach()
    assert abs(float(seed.mean())) < 0.05 and float(seed.std()) == pytest.approx(1, abs=0.05)
    bound = 64**-0.5
    assert float(weight.abs().max()) <= bound and float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    want = bank.mlp[2](torch.tanh(bank.mlp[0](bank.prefix)))
    assert torch.equal(method(), want)


def test_dropout_acts_on_the_produced_numbers_in_training_mode_alone() -> None:
    method = factories.prefix(factories.backbone("gpt2"), length=50, dropout=0.25)
    method.set_mode(False)
    plain = method()
    assert torch.equal(plain, method())
    method.set_mode(True)
    torch.manual_seed(0)
    dropped = method()
    kept = dropped != 0
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.03)
    torch.testing.assert_close(dropped[kept], plain[kept] / 0.75)
    assert not torch.equal(dropped, method())


@pytest.mark.parametrize(("positions", "offset"), [("shifted", 6), ("unshifted", 0)])
def test_text_starts_after_a_shifted_prefix_only(positions: str, offset: int) -> None:
    method = factories.prefix(factories.backbone("gpt2"), length=6, positions=positions)
    assert method.position_offset == method.fold().position_offset == offset
    assert method.length == 6


def test_build_takes_every_field_of_the_recipe() -> None:
    bone = factories.backbone("gpt2")
    config = PrefixTuning(length=3, hidden=11, dropout=0.5, positions="unshifted")
    method = METHODS["prefix"](bone, config)
    bank = method.banks["decoder"]
    assert (method.length, bank.mlp[0].out_features, method.dropout.p) == (3, 11, 0.5)
    assert method.position_offset == 0 and bank.prefix.dtype == torch.float32
    assert METHODS["prefix"](bone, PrefixTuning(reparam="none")).banks["decoder"].mlp is None
    deep = METHODS["prefix"](bone, PrefixTuning(reparam="deep", hidden=11)).banks["decoder"].mlp
    assert [layer.out_features for layer in deep if isinstance(layer, torch.nn.Linear)] == [11, 11, 2 * 2 * 32]
