"""Which pairs make up which step: each once an epoch, from any step on, and never over the budget."""

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import factories
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softprompt.batch import make_batch
from softprompt.config import load_recipe
from softprompt.errors import ConfigError
from softprompt.method_config import DePT, PrefixTuning, PromptTuning
from softprompt.methods import METHODS
from softprompt.multitask import MultiTask
from softprompt.optim import make_optimizer
from softprompt.plan import dry_run
from softprompt.steps import Plan
from softprompt.train import make_plan, training_steps
from softprompt.train_config import TrainConfig


def epoch_of(plan: Plan, epoch: int) -> list[list[int]]:
    """Its batches."""
    return list(itertools.islice(plan.from_step(plan.start(epoch)), plan.start(epoch + 1) - plan.start(epoch)))


plans = st.builds(
    Plan,
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=130).map(tuple),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)


@settings(max_examples=60, deadline=None)
@given(plans, st.integers(0, 3))
def test_every_example_comes_exactly_once_an_epoch(plan: Plan, epoch: int) -> None:
    batches = epoch_of(plan, epoch)
    assert sorted(itertools.chain(*batches)) == list(range(len(plan.lengths)))
    sizes = sorted(map(len, batches), reverse=True)
    assert all(size == plan.batch_size for size in sizes[:-1]) and 1 <= sizes[-1] <= plan.batch_size


@settings(max_examples=60, deadline=None)
@given(plans, st.integers(0, 60))
def test_batches_from_a_step_are_those_of_a_run_that_got_there(plan: Plan, step: int) -> None:
    whole = list(itertools.islice(plan.from_step(0), step + 5))
    assert list(itertools.islice(plan.from_step(step), 5)) == whole[step:]


def test_epochs_and_seeds_shuffle_differently() -> None:
    def epoch(seed: int, number: int) -> list[list[int]]:
        plan = Plan(tuple(range(1, 41)), 4, seed)
        return list(itertools.islice(plan.from_step(10 * number), 10))

    orders = [epoch(seed, number) for seed in (1, 2) for number in (0, 1)]
    assert all(one != other for one, other in itertools.combinations(orders, 2))
    assert epoch(1, 0) == orders[0]


def test_batches_hold_similar_lengths_but_come_in_random_order() -> None:
    plan = Plan(tuple(length for length in range(1, 101) for _ in range(4)), 8, 7)
    batches = epoch_of(plan, 0)
    spread = [max(plan.lengths[i] for i in batch) - min(plan.lengths[i] for i in batch) for batch in batches]
    assert max(spread) <= 2
    means = [sum(plan.lengths[i] for i in batch) for batch in batches]
    assert means != sorted(means)


@st.composite
def budgeted(draw: st.DrawFn) -> Plan:
    """Plans under a budget, of one task or two, of one side or two."""
    count = draw(st.integers(1, 130))
    width = draw(st.integers(1, 2))
    sides = draw(st.lists(st.tuples(*[st.integers(1, 30)] * width), min_size=count, max_size=count).map(tuple))
    tasks = draw(st.sampled_from([(), tuple("ab"[index % 3 == 0] for index in range(count))]))
    budget, seed = draw(st.integers(1, 400)), draw(st.integers(0, 2**32 - 1))
    return Plan(tuple(map(sum, sides)), 10, seed, tasks, draw(st.booleans()), budget, sides)


def taken(plan: Plan, batch: list[int]) -> int:
    return len(batch) * sum(max(side) for side in zip(*(plan.sides[index] for index in batch), strict=True))


@settings(max_examples=80, deadline=None)
@given(budgeted(), st.integers(0, 3))
def test_no_batch_is_over_the_budget_and_every_example_comes_once_an_epoch(plan: Plan, epoch: int) -> None:
    batches = epoch_of(plan, epoch)
    drawn = sorted(itertools.chain(*batches))
    if plan.equal:
        assert len(drawn) == plan.pairs_per_epoch and set(drawn) == set(range(len(plan.lengths)))
    else:
        assert drawn == list(range(len(plan.lengths)))
    assert all(taken(plan, batch) <= plan.budget or len(batch) == 1 for batch in batches)
    assert all(1 <= len(batch) <= plan.most_rows for batch in batches)


@settings(max_examples=60, deadline=None)
@given(budgeted(), st.integers(0, 200))
def test_under_a_budget_batches_from_a_step_are_those_of_a_run_that_got_there(plan: Plan, step: int) -> None:
    whole = list(itertools.islice(plan.from_step(0), step + 5))
    fresh = Plan(plan.lengths, 10, plan.seed, plan.tasks, plan.equal, plan.budget, plan.sides)
    assert list(itertools.islice(fresh.from_step(step), 5)) == whole[step:]


@settings(max_examples=60, deadline=None)
@given(budgeted(), st.integers(0, 100))
def test_passes_and_ends_of_epochs_follow_the_epochs_own_numbers_of_steps(plan: Plan, steps: int) -> None:
    ends = [plan.start(epoch) for epoch in range(steps + 3)]
    assert ends == sorted(set(ends)) and plan.ends_epoch(steps) == (steps in ends)
    epoch = math.floor(plan.passes(steps))
    assert ends[epoch] <= steps < ends[epoch + 1]
    assert plan.passes(steps) == pytest.approx(epoch + (steps - ends[epoch]) / (ends[epoch + 1] - ends[epoch]))
    assert [plan.steps_in(epoch) for epoch in (1, 2)] == ends[1:3]
    assert plan.steps_in(1.5) == ends[1] + math.ceil((ends[2] - ends[1]) / 2)


def test_epochs_may_differ_in_steps_and_pad_little() -> None:
    sides = tuple(((index * 37) % 200 + 1,) for index in range(3000))
    plan = Plan(tuple(map(sum, sides)), 10, 3, budget=900, sides=sides)
    assert len({plan.start(epoch + 1) - plan.start(epoch) for epoch in range(8)}) > 1
    batches = epoch_of(plan, 0)
    real, padded = sum(map(sum, sides)), sum(taken(plan, batch) for batch in batches)
    assert padded < 1.05 * real and len(batches) < 1.15 * real / plan.budget


@pytest.mark.parametrize("method", [PrefixTuning(length=5, hidden=8), PromptTuning(length=5), DePT(length=5, rank=1)])
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_a_step_computes_no_more_positions_than_the_budget(family: str, method: object) -> None:
    bone, pairs = factories.backbone(family), factories.pairs(30)
    learner = METHODS[method.name](bone, method)
    config = TrainConfig(batch_tokens=90, epochs=2, precision="float32")
    plan = make_plan(bone, learner, pairs, config, 7)
    records = list(training_steps(bone, learner, make_optimizer(learner, config), pairs, config, seed=7))
    assert [record.positions for record in records] == [
        make_batch(bone, learner, [pairs[index] for index in batch]).positions
        for batch in itertools.islice(plan.from_step(0), len(records))
    ]
    assert 60 < max(record.positions for record in records) <= 90
    assert [record.epoch for record in records if record.epoch % 1 == 0] == [1.0, 2.0]
    assert sum(record.tokens for record in records) == 2 * sum(map(len, pairs)) and records[-1].epoch == 2.0


def test_of_several_tasks_each_prompt_counts_in_its_own_rows() -> None:
    bone = factories.backbone("gpt2")
    own = {"tea": PromptTuning(length=2, init="normal"), "pie": PromptTuning(length=20, init="normal")}
    learner = MultiTask({task: METHODS["prompt"](bone, config) for task, config in own.items()})
    pairs = [replace(pair, task=("tea", "pie")[index % 2]) for index, pair in enumerate(factories.pairs(20))]
    config = TrainConfig(batch_tokens=120, epochs=2, precision="float32")
    records = list(training_steps(bone, learner, make_optimizer(learner, config), pairs, config, seed=7))
    assert 80 < max(record.positions for record in records) <= 120
    assert sum(record.tokens for record in records) == 2 * sum(map(len, pairs))


def test_batch_size_beside_a_budget_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected one of batch_size and batch_tokens, got 4 and 100. Drop"):
        load_recipe("e2e-gpt2-medium", ["train.batch_size=4", "train.batch_tokens=100"])
    assert load_recipe("e2e-gpt2-medium", ["train.batch_size=10", "train.batch_tokens=100"]).train.batch_tokens == 100
    assert load_recipe("e2e-gpt2-medium", ["train.batch_tokens=4096", "train.micro_batch=16"]).train.micro_batch == 16


def test_a_dry_run_says_that_steps_under_a_budget_are_estimated() -> None:
    exact = dry_run(load_recipe("e2e-gpt2-medium"))
    rough = dry_run(load_recipe("e2e-gpt2-medium", ["train.batch_tokens=1024"]))
    assert not exact.steps_estimated and rough.steps_estimated and rough.steps is not None
    assert "(estimated)" in "".join(rough.lines()) and "(estimated)" not in "".join(exact.lines())
    assert not dry_run(load_recipe("e2e-gpt2-medium", ["train.batch_tokens=1024", "train.max_steps=7"])).steps_estimated


# --- as it always was, in less work ----------------------------------------------------------------------------------

LENGTHS = tuple(index * 7919 % 61 + 4 for index in range(1000))
SIDES = tuple((length // 2, length - length // 2) for length in LENGTHS)
TASKS = tuple("abc"[index % 7 % 3] for index in range(1000))
ORDERS = [
    (Plan(LENGTHS, 10, 1), "57985f170ee1b0a1", "f4f2f11640cb08f4"),
    (Plan(LENGTHS, 7, 2, TASKS), "edadaa3b5c952f4d", "725e42b8aeeaf250"),
    (Plan(LENGTHS, 7, 2, TASKS, True), "d4f778ba114a3db9", "a9545d07b9e84c4e"),
    (Plan(LENGTHS, 10, 3, (), False, 300, SIDES), "5fe93698841836d9", "38e2bf5305224106"),
    (Plan(LENGTHS, 10, 3, TASKS, True, 300, SIDES), "39661e498da2bafb", "3a59012b554d5e6d"),
]
"""Plans, and the checksums of their batches from step 0 and from step 777 since the first version."""


@pytest.mark.parametrize(("plan", "first", "later"), ORDERS)
def test_the_order_of_batches_is_that_of_every_version(plan: Plan, first: str, later: str) -> None:
    def digest(start: int, count: int) -> str:
        batches = list(itertools.islice(plan.from_step(start), count))
        return hashlib.sha256(repr(batches).encode()).hexdigest()[:16]

    assert (digest(0, 400), digest(777, 50)) == (first, later)


class Counted(tuple[int, ...]):
    """Lengths that count how often one of them, or how many there are, is asked for."""

    asked = 0

    def __getitem__(self, index: Any) -> Any:
        Counted.asked += 1
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[int]:
        Counted.asked += len(self)
        return super().__iter__()


@pytest.mark.parametrize("budget", [None, 300])
def test_a_step_of_a_large_set_asks_no_more_of_the_plan_than_one_of_a_small_set(
    budget: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the loop and the run folder ask at each step; an epoch's batches are made once."""
    made: list[int] = []
    real = Plan._epoch
    monkeypatch.setattr(Plan, "_epoch", lambda self, epoch: (made.append(epoch), real(self, epoch))[1])
    monkeypatch.setattr(Plan, "_by_task", lambda self: pytest.fail("all examples gone through"))
    plan = Plan(Counted(LENGTHS), 10, 3, budget=budget, sides=SIDES)
    batches = plan.from_step(0)
    Counted.asked, steps = 0, 250
    for step in range(steps):
        next(batches)
        plan.passes(step + 1), plan.ends_epoch(step + 1), plan.most_rows
    epochs = int(plan.passes(steps)) + 1
    assert sorted(made) == list(range(len(made))) and epochs <= len(made) <= epochs + 1
    assert Counted.asked <= len(made) * 4 * len(LENGTHS)
