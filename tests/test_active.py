"""Two steerings at once, one inside the other or in two threads: each is what it is alone."""

import threading
from collections.abc import Callable
from itertools import product

import factories
import pytest
import torch
from torch import Tensor

from softprompt.backbone import Backbone
from softprompt.batch import Encoded, make_batch
from softprompt.decode import decode_texts
from softprompt.decode_config import DecodeConfig
from softprompt.forms import PrefixForm, VirtualTokenForm
from softprompt.inject import probe
from softprompt.loss import target_nll
from softprompt.method_config import Adapter
from softprompt.methods import AdapterMethod, DeptMethod, Steering, Untuned
from softprompt.per_row import PerRow
from softprompt.prompt import Prompt

PAIRS = [Encoded((5, 9, 30, 0), (7, 12, 0)), Encoded((41, 0), (3, 0))]


def prefix(bone: Backbone, seed: int, positions: str = "shifted", place: str = "before") -> Prompt:
    torch.manual_seed(seed)
    form = PrefixForm(bone.sites(), positions, place)
    return Prompt(torch.randn(2 + seed, form.width), form)


def prompt(bone: Backbone, seed: int) -> Prompt:
    torch.manual_seed(seed)
    form = VirtualTokenForm(bone.hidden_width(), family=bone.family)
    return Prompt(torch.randn(2 + seed, form.width), form)


def dept(bone: Backbone, seed: int) -> DeptMethod:
    torch.manual_seed(seed)
    made = DeptMethod(embed=bone.hidden_width(), length=2 + seed, text_length=6, rank=2, scale="none")
    torch.nn.init.normal_(made.lowrank_b)
    return made


def adapter(bone: Backbone, seed: int) -> AdapterMethod:
    torch.manual_seed(seed)
    made = AdapterMethod.build(bone, Adapter(bottleneck=4))
    for bottleneck in made.bottlenecks:
        torch.nn.init.normal_(bottleneck.up.weight, std=0.5)
    return made


def rows(bone: Backbone, seed: int) -> PerRow:
    return PerRow((prefix(bone, seed), prompt(bone, seed)))


KINDS: dict[str, Callable[[Backbone, int], Steering | PerRow]] = {
    "prefix": lambda bone, seed: prefix(bone, seed, "unshifted"),
    "position shift": prefix,
    "infix": lambda bone, seed: prefix(bone, seed, place="between"),
    "prompt": prompt,
    "dept": dept,
    "adapter": adapter,
    "rows": rows,
    "untuned": lambda bone, seed: Untuned(),
}


def loss(bone: Backbone, steering: Steering | PerRow) -> Tensor:
    """Of two pairs, inside the steering's block."""
    return target_nll(bone, make_batch(bone, steering, PAIRS))


def alone(bone: Backbone, steering: Steering | PerRow) -> Tensor:
    with torch.no_grad(), steering.attach(bone):
        return loss(bone, steering)


@pytest.mark.parametrize(("outer", "inner"), list(product(KINDS, KINDS)))
def test_one_inside_the_other_is_alone_and_the_outer_comes_back(outer: str, inner: str) -> None:
    bone = factories.backbone("gpt2")
    first, second = KINDS[outer](bone, 1), KINDS[inner](bone, 2)
    want = alone(bone, first), alone(bone, second)
    with torch.no_grad(), first.attach(bone):
        before = loss(bone, first)
        with second.attach(bone):
            inside = loss(bone, second)
        behind = loss(bone, first)
    assert torch.equal(before, want[0]) and torch.equal(inside, want[1]) and torch.equal(behind, want[0])


@pytest.mark.parametrize(("here", "there"), list(product(KINDS, KINDS)))
def test_in_another_thread_it_is_alone(here: str, there: str) -> None:
    bone = factories.backbone("gpt2")
    first, second = KINDS[here](bone, 1), KINDS[there](bone, 2)
    want = alone(bone, first), alone(bone, second), alone(bone, Untuned())
    seen: list[Tensor] = []
    with torch.no_grad(), first.attach(bone):
        thread = threading.Thread(target=lambda: seen.extend([alone(bone, second), alone(bone, Untuned())]))
        thread.start()
        thread.join()
        seen.append(loss(bone, first))
    assert torch.equal(torch.stack(seen), torch.stack([want[1], want[2], want[0]]))


def test_threads_that_run_at_the_same_time_disturb_no_one() -> None:
    bone = factories.backbone("gpt2")
    steerings = [make(bone, seed) for seed in (1, 2) for make in KINDS.values()]
    want = [alone(bone, steering) for steering in steerings]
    wrong: list[object] = []

    def work(index: int) -> None:
        try:
            wrong.extend(index for _ in range(8) if not torch.equal(alone(bone, steerings[index]), want[index]))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(steerings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_texts_generated_in_threads_are_those_generated_alone() -> None:
    bone = factories.backbone("gpt2")
    bone.model.generation_config.repetition_penalty = 5.0
    stored = bone.model.generation_config
    config = DecodeConfig(strategy="greedy", beams=1, max_new_tokens=8)
    steerings: list[Steering | PerRow] = [KINDS[kind](bone, 1) for kind in ("prefix", "prompt", "adapter", "dept")]
    want = [decode_texts(bone, steering, ["the red old inn"], config) for steering in steerings]
    got: dict[int, object] = {}

    def work(index: int) -> None:
        for _ in range(3):
            got[index] = decode_texts(bone, steerings[index], ["the red old inn"], config)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(steerings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[index] for index in range(len(steerings))] == want
    assert bone.model.generation_config is stored


@pytest.mark.parametrize("kind", ["prefix", "infix", "adapter"])
def test_a_recomputation_in_another_thread_sees_what_its_forward_saw(kind: str) -> None:
    """As on a device whose backward pass has a thread of its own."""
    gradients = []
    for checkpointing in (False, True):
        bone = factories.backbone("llama")  # has no dropout
        steering = KINDS[kind](bone, 1)
        learned = (
            steering.numbers.requires_grad_() if isinstance(steering, Prompt) else steering.bottlenecks[0].up.weight
        )
        if checkpointing:
            bone.enable_gradient_checkpointing()
            bone.model.train()
        with steering.attach(bone):
            nll = loss(bone, steering)
            thread = threading.Thread(target=nll.backward)
            thread.start()
            thread.join()
        gradients.append(learned.grad)
    torch.testing.assert_close(*gradients)


def test_sites_are_found_under_any_steering() -> None:
    bone = factories.backbone("llama")
    want = probe(bone.model)
    for make in KINDS.values():
        with make(bone, 1).attach(bone):
            assert probe(bone.model) == want


def test_a_steering_of_another_backbone_stays() -> None:
    one, other = factories.backbone("gpt2"), factories.backbone("llama")
    for make in KINDS.values():
        steering = make(one, 1)
        want = alone(one, steering)
        with torch.no_grad(), steering.attach(one), prefix(other, 2).attach(other):
            assert torch.equal(loss(one, steering), want)
