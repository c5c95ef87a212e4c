"""Items made in a thread: the same, in order; errors arrive; the thread ends; training is the same to the bit."""

import itertools
import threading
from collections.abc import Iterator

import factories
import pytest
import torch

from softprompt import batch as batch_module
from softprompt import passes as passes_module
from softprompt.ahead import ahead
from softprompt.method_config import PromptTuning
from softprompt.methods import METHODS, state
from softprompt.optim import make_optimizer
from softprompt.train import training_steps
from softprompt.train_config import TrainConfig


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_same_items_in_order_and_the_thread_is_gone(depth: int) -> None:
    assert list(ahead(iter(range(50)), depth)) == list(range(50))
    assert list(ahead(iter([]), depth)) == [] and list(ahead(iter([None, None]), depth)) == [None, None]
    assert threads() == []


def test_an_error_comes_behind_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield from (1, 2)
        raise ZeroDivisionError("third")

    items = ahead(broken(), 2)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ZeroDivisionError, match="third"):
        next(items)
    assert threads() == []


def test_no_more_are_made_than_may_wait() -> None:
    made, gate = [], threading.Semaphore(0)

    def counted() -> Iterator[int]:
        for number in itertools.count():
            made.append(number)
            gate.release()
            yield number

    items = ahead(counted(), 2)
    assert next(items) == 0
    for _ in range(4):  # the one taken, two that wait, and one that waits for room
        gate.acquire()
    assert not gate.acquire(timeout=0.05) and made == [0, 1, 2, 3]
    items.close()
    assert threads() == []


@pytest.mark.parametrize("forgotten", [False, True])
def test_the_thread_ends_when_nobody_asks_any_more(forgotten: bool) -> None:
    items = ahead(itertools.count(), 1)
    assert next(items) == 0 and len(threads()) == 1
    if forgotten:
        del items
    else:
        items.close()
    assert threads() == []


@pytest.mark.parametrize("changes", [{}, {"micro_batch": 2}, {"batch_tokens": 60, "batch_size": 10}])
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_training_is_the_same_to_the_bit(
    family: str, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    settings = TrainConfig(**{"batch_size": 4, "max_steps": 7, "precision": "float32", "lr": 1e-2, **changes})
    for threaded in (False, True):
        if threaded:
            monkeypatch.setattr(passes_module, "_computes_beside_the_host", lambda device: True)
            monkeypatch.setattr(batch_module.Batch, "pinned", lambda self: self)
        bone = factories.backbone(family)
        torch.manual_seed(0)
        method = METHODS["prompt"](bone, PromptTuning(length=3, init="normal"))
        optimizer = make_optimizer(method, settings)
        records = list(training_steps(bone, method, optimizer, factories.pairs(10), settings, seed=7))
        results.append((records, [tensor.clone() for tensor in state(method).values()]))
    assert results[0][0] == results[1][0] and threads() == []
    assert all(torch.equal(one, other) for one, other in zip(results[0][1], results[1][1], strict=True))


def test_after_memory_ran_out_smaller_batches_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes_module, "_computes_beside_the_host", lambda device: True)
    monkeypatch.setattr(batch_module.Batch, "pinned", lambda self: self)
    real, seen = passes_module.target_nll, []

    def small(bone: object, rows: batch_module.Batch) -> torch.Tensor:
        seen.append(rows.rows)
        if rows.rows > 3:
            raise torch.OutOfMemoryError("too many")
        return real(bone, rows)

    monkeypatch.setattr(passes_module, "target_nll", small)
    bone = factories.backbone("gpt2")
    method = factories.prefix(bone)
    settings = TrainConfig(batch_size=6, micro_batch="auto", max_steps=5, precision="float32")
    optimizer = make_optimizer(method, settings)
    records = list(training_steps(bone, method, optimizer, factories.pairs(30), settings, seed=7))
    assert seen == [6] + [3, 3] * 5 and {record.micro_batch for record in records} == {3}
