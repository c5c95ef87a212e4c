"""The loop: what a step does to the weights, what it refuses, and that recomputation changes nothing."""

import itertools
import math
import threading

import factories
import pytest
import torch
from torch import Tensor, nn

import softprompt.active
import softprompt.inject
from softprompt.backbone import Backbone
from softprompt.batch import Encoded
from softprompt.config import TrainConfig
from softprompt.errors import TrainingError
from softprompt.loss import target_nll
from softprompt.method_config import FineTuning
from softprompt.methods import METHODS, Method, Untuned, state, trained_count
from softprompt.optim import make_optimizer, optimizer_state, restore_optimizer
from softprompt.precision import autocast, has_bfloat16
from softprompt.steps import Plan
from softprompt.train import (
    Modes,
    make_plan,
    prepare_mode,
    step_seed,
    total_steps,
    training_steps,
)

FAMILIES = ["gpt2", "llama", "mistral_window"]
METHOD_NAMES = ["prefix", "finetune"]


def make_method(bone: Backbone, which: str, **options: object) -> Method:
    return factories.prefix(bone, **options) if which == "prefix" else METHODS["finetune"](bone, FineTuning())


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**{"lr": 1e-2, "batch_size": 4, "max_steps": 4, "precision": "float32", **changes})


def train(bone: Backbone, method: Method, settings: TrainConfig, *, seed: int = 7, start: int = 0):
    optimizer = make_optimizer(method, settings)
    return training_steps(bone, method, optimizer, factories.pairs(10), settings, seed=seed, start=start)


def copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("which", METHOD_NAMES)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_trainable_tensor_moves_and_nothing_else_does(name: str, which: str) -> None:
    bone = factories.backbone(name)
    method, fingerprint = make_method(bone, which), bone.hash()
    before = copy(state(method))
    records = list(train(bone, method, config()))
    assert [record.step for record in records] == [1, 2, 3, 4]
    assert [key for key, tensor in state(method).items() if torch.equal(tensor, before[key])] == []
    assert (bone.hash() == fingerprint) == (which == "prefix")


@pytest.mark.parametrize("which", METHOD_NAMES)
def test_loss_falls(which: str) -> None:
    bone = factories.backbone("gpt2")
    records = list(train(bone, make_method(bone, which), config(max_steps=40, batch_size=10)))
    assert sum(r.loss for r in records[-5:]) < 0.8 * sum(r.loss for r in records[:5])


def test_records_say_what_each_step_did() -> None:
    bone, pairs = factories.backbone("gpt2"), factories.pairs(10)
    settings = config(max_steps=6, batch_size=4, micro_batch=3, schedule="linear", clip=1e-3)
    method = factories.prefix(bone)
    records = list(train(bone, method, settings))
    batches = list(itertools.islice(make_plan(bone, method, pairs, settings, 7).from_step(0), 6))
    for index, (record, batch) in enumerate(zip(records, batches, strict=True)):
        chosen = [pairs[i] for i in batch]
        assert (record.step, record.epoch) == (index + 1, pytest.approx((index + 1) / 3))
        assert record.tokens == sum(map(len, chosen))
        assert record.target_tokens == sum(len(pair.target) for pair in chosen)
        lengths = sorted(map(len, chosen))
        micro = [lengths[i : i + 3] for i in range(0, len(lengths), 3)]
        assert record.positions == sum(len(part) * max(part) for part in micro)
        assert record.lr == pytest.approx(1e-2 * (6 - index) / 6)
        assert record.grad_norm > 1e-3


def test_first_step_is_adamw_on_the_clipped_gradient() -> None:
    bone, pairs = factories.backbone("gpt2"), factories.pairs(3)
    settings = config(batch_size=3, max_steps=1, clip=0.5, weight_decay=0.1, betas=(0.8, 0.9), loss="sentence_sum")
    mine, theirs = factories.prefix(bone), factories.prefix(bone)
    (record,) = training_steps(bone, mine, make_optimizer(mine, settings), pairs, settings, seed=0)

    with theirs.attach(bone, shared=True):
        loss = target_nll(bone, factories.collate(pairs, bone.eos_id)) / 3
        loss.backward()
    norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
    torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.8, 0.9), eps=1e-8, weight_decay=0.1).step()
    assert record.loss == pytest.approx(loss.item(), rel=1e-6)
    assert record.grad_norm == pytest.approx(float(norm), rel=1e-5) and float(norm) > 0.5
    for key, tensor in state(mine).items():
        torch.testing.assert_close(tensor, state(theirs)[key], atol=1e-6, rtol=1e-5)


def test_gradients_are_not_clipped_where_clip_is_null() -> None:
    weights = []
    for clip in (None, 1e6, 1e-6):
        bone = factories.backbone("gpt2")
        method = factories.prefix(bone)
        list(train(bone, method, config(clip=clip, eps=1.0, max_steps=2)))
        weights.append(copy(state(method)))
    assert same(weights[0], weights[1]) and not same(weights[0], weights[2])


def test_total_steps_rounds_up_and_max_steps_wins() -> None:
    plan = Plan(tuple(range(1, 11)), 4, 0)
    assert total_steps(config(max_steps=None, epochs=2), plan) == 6
    assert total_steps(config(max_steps=None, epochs=0.5), plan) == 2
    assert total_steps(config(max_steps=5, epochs=9), plan) == 5


@pytest.mark.parametrize("which", METHOD_NAMES)
def test_a_step_depends_on_its_number_and_the_seed_alone(which: str) -> None:
    """Going on from saved tensors and moments gives the bits of a run that was never stopped, dropout included."""

    def fresh(seed: int) -> tuple[Backbone, Method]:
        bone = factories.backbone("gpt2")
        return bone, make_method(bone, which, **({"dropout": 0.3} if which == "prefix" else {}))

    settings = config(max_steps=7)
    bone, whole = fresh(0)
    whole_records = list(train(bone, whole, settings))

    bone, first = fresh(0)
    optimizer = make_optimizer(first, settings)
    steps = training_steps(bone, first, optimizer, factories.pairs(10), settings, seed=7)
    records = list(itertools.islice(steps, 3))
    tensors, moments = copy(state(first)), copy(optimizer_state(first, optimizer))

    torch.manual_seed(999)
    bone, second = fresh(1)
    with torch.no_grad():
        for key, parameter in second.trainable().items():
            parameter.copy_(tensors[key])
    optimizer = make_optimizer(second, settings)
    restore_optimizer(second, optimizer, moments)
    records += training_steps(bone, second, optimizer, factories.pairs(10), settings, seed=7, start=3)
    assert records == whole_records
    assert same(state(second), state(whole))


def test_other_seeds_draw_other_batches_and_other_dropout() -> None:
    def losses(seed: int, batch_size: int) -> list[float]:
        bone = factories.backbone("gpt2")
        method = factories.prefix(bone, dropout=0.3)
        return [r.loss for r in train(bone, method, config(batch_size=batch_size, max_steps=3), seed=seed)]

    assert losses(1, 4) != losses(2, 4)
    assert losses(1, 10) != losses(2, 10)
    assert losses(1, 4) == losses(1, 4)
    assert len({step_seed(seed, step) for seed in range(20) for step in range(20)}) == 400


def poison(bone: Backbone, method: Method, how: str) -> None:
    with torch.no_grad():
        if how == "prefix":
            method.trainable()["banks.decoder.prefix"][0, 0] = math.nan
        else:
            bone.model.get_output_embeddings().weight[1, 0] = math.inf


@pytest.mark.parametrize("how", ["prefix", "backbone"])
def test_a_loss_that_is_not_finite_names_step_and_pairs_and_changes_nothing(how: str) -> None:
    bone = factories.backbone("llama")
    method, settings = factories.prefix(bone), config()
    optimizer = make_optimizer(method, settings)
    steps = training_steps(bone, method, optimizer, factories.pairs(10), settings, seed=7)
    next(steps), next(steps)
    poison(bone, method, how)
    before, moments = copy(state(method)), copy(optimizer_state(method, optimizer))
    pairs = next(make_plan(bone, method, factories.pairs(10), settings, 7).from_step(2))
    with pytest.raises(TrainingError) as caught:
        next(steps)
    assert str(caught.value).startswith("step 3: ") and f"training pairs {pairs}" in str(caught.value)
    after = state(method)
    assert all(torch.equal(after[key].nan_to_num(), before[key].nan_to_num()) for key in before)
    assert same(optimizer_state(method, optimizer), moments)


def test_a_gradient_that_is_not_finite_is_refused_though_the_loss_is_finite() -> None:
    bone = factories.backbone("gpt2")
    method, settings = factories.prefix(bone), config()
    method.trainable()["banks.decoder.prefix"].register_hook(lambda gradient: gradient * math.inf)
    before = copy(state(method))
    with pytest.raises(TrainingError, match=r"step 1: .*loss \d.*gradient norm (nan|inf)"):
        list(train(bone, method, settings))
    assert same(state(method), before)


def test_a_broken_step_leaves_no_gradient_for_the_next_call() -> None:
    """A notebook's Ctrl-C in the middle of a backward pass must not leak into the step that follows."""
    weights = []
    for broken in (False, True):
        bone = factories.backbone("gpt2")
        method, settings = factories.prefix(bone), config(batch_size=6, micro_batch=2)
        if broken:
            calls = itertools.count()

            def stop(module: nn.Module, args: object, calls: itertools.count = calls) -> None:
                if next(calls) == 2:
                    raise KeyboardInterrupt

            hook = bone.model.register_forward_pre_hook(stop)
            with pytest.raises(KeyboardInterrupt):
                list(train(bone, method, settings))
            hook.remove()
        list(train(bone, method, settings))
        weights.append(copy(state(method)))
    assert same(*weights)


@pytest.fixture
def attention_calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Filled, at every call of the attention function, with whether a prefix was active."""
    calls: list[bool] = []
    real = softprompt.inject._attend

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(any(slot == softprompt.active.PREFIX for _, slot in softprompt.active._ACTING.get()))
        return real(*args, **kwargs)

    monkeypatch.setattr(softprompt.inject, "_attend", counted)
    return calls


def loss_and_gradients(
    name: str, which: str, settings: TrainConfig, *, backward_elsewhere: bool = False, **changes: object
) -> tuple[float, list[Tensor]]:
    bone = factories.backbone(name, **changes)
    method = make_method(bone, which)
    if settings.gradient_checkpointing:
        bone.enable_gradient_checkpointing()
    prepare_mode(bone, method, settings)
    torch.manual_seed(5)
    with method.attach(bone):
        loss = target_nll(bone, factories.batch(3))
        if not backward_elsewhere:
            loss.backward()
    if backward_elsewhere:
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
    return loss.item(), factories.gradients(list(method.trainable().values()))


def test_modes_are_as_they_were_whatever_was_done_between_steps() -> None:
    bone = factories.backbone("gpt2")
    method = factories.prefix(bone)
    modes = Modes(bone, method, config(frozen_dropout=True))
    modules = [*bone.model.modules(), *method.modules()]
    wanted = [module.training for module in modules]
    assert all(wanted)
    for change in (bone.model.eval, method.eval, modules[-1].eval, bone.model.transformer.drop.eval):
        change()
        assert [module.training for module in modules] != wanted
        modes.restore()
        assert [module.training for module in modules] == wanted


CHECKPOINTED = [
    ("gpt2", {}),
    ("llama", {"attention_dropout": 0.2}),
    ("mistral_window", {}),
    ("opt", {"dropout": 0.2, "layerdrop": 0.5}),  # drops inside the layer itself, and drops layers
]


@pytest.mark.parametrize("backward_elsewhere", [False, True], ids=["same thread", "another thread"])
@pytest.mark.parametrize(("name", "changes"), CHECKPOINTED, ids=[name for name, _ in CHECKPOINTED])
def test_gradient_checkpointing_recomputes_with_the_prefix_and_changes_nothing(
    name: str, changes: dict[str, object], backward_elsewhere: bool, attention_calls: list[bool]
) -> None:
    want = loss_and_gradients(name, "prefix", config(), **changes)
    steered = attention_calls.count(True)
    assert steered == 2
    attention_calls.clear()
    on = config(gradient_checkpointing=True)
    got = loss_and_gradients(name, "prefix", on, backward_elsewhere=backward_elsewhere, **changes)
    assert attention_calls.count(True) == 2 * steered
    assert got[0] == want[0]
    for one, other in zip(got[1], want[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("which", METHOD_NAMES)
def test_gradient_checkpointing_repeats_the_same_dropout(which: str, attention_calls: list[bool]) -> None:
    """The backbone's dropout is on: in fine-tuning always, with a prefix where `frozen_dropout` asks for it."""
    plain = loss_and_gradients("gpt2", which, config())
    want = loss_and_gradients("gpt2", which, config(frozen_dropout=True))
    count = len(attention_calls)
    got = loss_and_gradients("gpt2", which, config(frozen_dropout=True, gradient_checkpointing=True))
    assert len(attention_calls) > count * 3 // 2
    assert got[0] == want[0] and (plain[0] == want[0]) == (which == "finetune")
    for one, other in zip(got[1], want[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "recomputed"])
@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_frozen_dropout_is_off_unless_asked_for(name: str, checkpointing: bool) -> None:
    def losses(frozen_dropout: bool) -> list[float]:
        bone = factories.backbone(name)
        method = factories.prefix(bone)
        settings = config(frozen_dropout=frozen_dropout, gradient_checkpointing=checkpointing)
        if checkpointing:
            bone.enable_gradient_checkpointing()
        out = []
        for seed in (1, 2):
            prepare_mode(bone, method, settings)
            torch.manual_seed(seed)
            with torch.enable_grad(), method.attach(bone):
                out.append(float(target_nll(bone, factories.batch(3)).detach()))
        return out

    quiet, noisy = losses(False), losses(True)
    assert quiet[0] == quiet[1] and noisy[0] != noisy[1]


def test_precision_says_what_the_forward_pass_is_computed_in() -> None:
    cpu, product = torch.device("cpu"), torch.ones(2, 2)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(cpu, precision):
            assert (product @ product).dtype == dtype
    with autocast(cpu, "auto"):
        assert ((product @ product).dtype == torch.bfloat16) == has_bfloat16(cpu)


def test_training_in_bfloat16_keeps_float32_weights_and_comes_near() -> None:
    bone = factories.backbone("gpt2")
    method = factories.prefix(bone)
    (low,) = train(bone, method, config(precision="bfloat16", max_steps=1))
    (full,) = train(bone, factories.prefix(bone), config(max_steps=1))
    assert low.loss != full.loss and low.loss == pytest.approx(full.loss, rel=0.02)
    assert {tensor.dtype for tensor in state(method).values()} == {torch.float32}
    assert trained_count(method) == sum(tensor.numel() for tensor in state(method).values())


def test_pairs_are_taken_as_they_are_given() -> None:
    """The plan's indices refer to the caller's order, so an error's pair numbers can be looked up."""
    pairs: list[Encoded] = factories.pairs(4)
    bone = factories.backbone("gpt2")
    plan = make_plan(bone, Untuned(), pairs, config(batch_size=2), 0)
    assert plan.lengths == tuple(map(len, pairs))
