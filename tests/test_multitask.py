"""Several tasks in one training loop: each prompt learns what it would learn from its own rows, and nothing else."""

from collections import Counter
from pathlib import Path

import factories
import pytest
import torch
from sittings import SETTINGS, Crash, assert_same, config, crash, crash_at_forward, kill_and_resume, result, sit
from torch import Tensor

from softprompt.backbone import Backbone
from softprompt.batch import Encoded, make_batch
from softprompt.errors import ConfigError
from softprompt.fit import METRICS, fit
from softprompt.loss import target_nll
from softprompt.method_config import Adapter, DePT, FineTuning, LoRA, MethodConfig, PrefixTuning, PromptTuning
from softprompt.methods import METHODS, Method, state
from softprompt.multitask import Learner, MultiTask, for_batch
from softprompt.optim import make_optimizer
from softprompt.steps import Plan
from softprompt.train import training_steps

FAMILIES = ["gpt2", "llama", "mistral_window", "gemma3", "bart", "t5"]
MIXES: dict[str, dict[str, MethodConfig]] = {
    "prefixes": {"tea": PrefixTuning(length=5, hidden=8), "pie": PrefixTuning(length=2, reparam="none")},
    "prompts": {"tea": PromptTuning(length=5, init="normal"), "pie": PromptTuning(length=2, reparam="mlp")},
    "both": {"tea": PrefixTuning(length=3, hidden=8), "pie": PromptTuning(length=4, place="after", init="normal")},
}
TASKS = ["tea", "pie", "pie", "tea", "pie"]


def built(bone: Backbone, own: MethodConfig) -> Method:
    torch.manual_seed(3)
    return METHODS[own.name](bone, own)


def labelled(count: int, tasks: list[str], *, seed: int = 0) -> list[Encoded]:
    drawn = factories.pairs(count, seed=seed)
    return [Encoded(pair.source, pair.target, tasks[row % len(tasks)]) for row, pair in enumerate(drawn)]


def backward(bone: Backbone, learner: Learner, pairs: list[Encoded]) -> tuple[float, dict[str, Tensor]]:
    """Loss over all target tokens and gradients, in the mode of evaluation."""
    learner.set_mode(False)
    for parameter in learner.trainable().values():
        parameter.grad = None
    steering = for_batch(learner, [pair.task for pair in pairs])
    with steering.attach(bone):
        nll = target_nll(bone, make_batch(bone, steering, pairs))
        nll.backward()  # type: ignore[no-untyped-call]
    return float(nll.detach()), {n: p.grad.clone() for n, p in learner.trainable().items() if p.grad is not None}


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_mixed_batch_has_the_loss_and_gradients_of_each_task_alone(name: str, mix: str) -> None:
    bone, pairs = factories.backbone(name), labelled(5, TASKS)
    methods = {task: built(bone, own) for task, own in MIXES[mix].items()}
    loss, gradients = backward(bone, MultiTask(methods), pairs)
    total, named = 0.0, {}
    for task, method in methods.items():
        alone, own = backward(bone, method, [pair for pair in pairs if pair.task == task])
        total += alone
        named |= {f"{task}/{key}": gradient for key, gradient in own.items()}
    assert loss == pytest.approx(total, rel=1e-5) and gradients.keys() == named.keys()
    for key, gradient in named.items():
        assert gradient.abs().max() > 0, key
        torch.testing.assert_close(gradients[key], gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_accumulated_and_recomputed_mixed_batches_have_the_same_gradients(checkpointing: bool) -> None:
    def learned(**changes: object) -> dict[str, Tensor]:
        bone = factories.backbone("gpt2")
        learner = MultiTask({task: built(bone, own) for task, own in MIXES["both"].items()})
        settings = config(max_steps=2, lr=1e-3, batch_size=6, **changes)
        for _ in training_steps(
            bone, learner, make_optimizer(learner, settings), labelled(12, TASKS), settings, seed=1
        ):
            pass
        return state(learner)

    whole, parts = learned(), learned(micro_batch=2, gradient_checkpointing=checkpointing)
    for key, tensor in whole.items():
        torch.testing.assert_close(parts[key], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("own", [PrefixTuning(length=4, hidden=8, dropout=0.3), PromptTuning(length=4)], ids=str)
@pytest.mark.parametrize("mixing", ["proportional", "equal"])
def test_one_task_is_the_plain_run_to_the_bit(own: MethodConfig, mixing: str, tmp_path: Path) -> None:
    def run(task: str, folder: Path) -> tuple[dict[str, Tensor], list[bytes], float | None]:
        folder.mkdir()
        bone = factories.backbone("gpt2", n_layer=1)
        method = built(bone, own)
        learner = MultiTask({task: method}) if task else method
        train, dev = labelled(10, [task]), labelled(5, [task], seed=9)
        fitted = fit(bone, learner, train, dev, config(mixing=mixing), folder, seed=7, quiet=True)
        steps = [line for line in (folder / METRICS).read_bytes().splitlines() if b'"loss"' in line]
        return state(method), steps, fitted.dev_loss

    one, plain = run("tea", tmp_path / "one"), run("", tmp_path / "plain")
    assert one[1:] == plain[1:] and len(one[1]) == 9 and one[0].keys() == plain[0].keys()
    assert all(torch.equal(one[0][key], plain[0][key]) for key in one[0])


def test_a_task_without_rows_in_a_step_is_left_alone() -> None:
    bone = factories.backbone("gpt2", n_layer=1)
    learner = MultiTask({task: built(bone, own) for task, own in MIXES["prefixes"].items()})
    settings = config(max_steps=3, weight_decay=0.1)
    before = {name: tensor.clone() for name, tensor in state(learner).items()}
    for _ in training_steps(bone, learner, make_optimizer(learner, settings), labelled(8, ["tea"]), settings, seed=1):
        pass
    moved = {name for name, tensor in state(learner).items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if name.startswith("tea/")}


def test_dev_losses_are_each_tasks_and_their_mean_selects(tmp_path: Path) -> None:
    fitted, learner = sit(tmp_path, "two tasks")
    assert isinstance(learner, MultiTask) and fitted.dev_loss is not None
    assert fitted.dev_losses.keys() == {"tea", "pie"} and fitted.dev_losses["tea"] != fitted.dev_losses["pie"]
    assert fitted.dev_loss == sum(fitted.dev_losses.values()) / 2
    assert not sit(tmp_path / "plain")[0].dev_losses


@pytest.mark.parametrize("setting", SETTINGS)
def test_stopped_again_and_again_equals_never_stopped(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = result(tmp_path / "whole", "two tasks", **SETTINGS[setting])
    for forward in (1, 6, 3, 5):
        with monkeypatch.context() as patch:
            crash_at_forward(patch, forward, crash)
            with pytest.raises(Crash):
                sit(tmp_path / "stopped", "two tasks", **SETTINGS[setting])
    assert_same(result(tmp_path / "stopped", "two tasks", **SETTINGS[setting]), whole)


def test_killed_and_resumed_equals_never_killed(tmp_path: Path) -> None:
    """Batches of one: some checkpoints lie before a task's first row, so the optimiser has no moments of it yet."""
    changes = {"batch_size": 1, "save_every": 1}
    whole = result(tmp_path / "whole", "two tasks", **changes)
    places = [("forward", 2), ("before rename", 2)]
    kill_and_resume(tmp_path / "killed", "two tasks", "adamw", places, whole, **changes)


def plan(sizes: dict[str, int], *, batch_size: int = 6, equal: bool = False, longest: int = 40) -> Plan:
    tasks = tuple(task for task, size in sizes.items() for _ in range(size))
    lengths = tuple((index * 7) % longest + 1 for index in range(len(tasks)))
    return Plan(lengths, batch_size, 5, tasks, equal)


def epochs(drawn: Plan, count: int) -> list[list[list[int]]]:
    batches = drawn.from_step(0)
    return [[next(batches) for _ in range(drawn.start(1))] for _ in range(count)]


def test_proportional_batches_mix_the_tasks_and_an_epoch_has_each_pair_once() -> None:
    drawn = plan({"tea": 40, "pie": 20})
    for epoch in epochs(drawn, 2):
        assert sorted(index for batch in epoch for index in batch) == list(range(60))
        assert [Counter(drawn.tasks[index] for index in batch) for batch in epoch] == [{"tea": 4, "pie": 2}] * 10
    first = [set(batch) for batch in epochs(drawn, 1)[0]]
    by_length = sorted(first, key=lambda batch: sum(drawn.lengths[index] for index in batch))
    assert max(drawn.lengths[index] for index in by_length[0]) < min(drawn.lengths[index] for index in by_length[-1])


def test_equal_mixing_repeats_the_smaller_task() -> None:
    drawn = plan({"tea": 25, "pie": 10}, equal=True)
    assert drawn.start(1) == 9 and drawn.pairs_per_epoch == 50
    extra = []
    for epoch in epochs(drawn, 3):
        counts = Counter(index for batch in epoch for index in batch)
        assert all(counts[index] == 1 for index in range(25))
        assert sorted(counts[index] for index in range(25, 35)) == [2] * 5 + [3] * 5
        extra.append({index for index in range(25, 35) if counts[index] == 3})
    assert len({frozenset(chosen) for chosen in extra}) > 1


def test_plans_of_one_task_are_those_without_tasks() -> None:
    drawn = plan({"tea": 31}, batch_size=4)
    plain = Plan(drawn.lengths, 4, 5)
    assert epochs(drawn, 2) == epochs(plain, 2) == epochs(Plan(drawn.lengths, 4, 5, drawn.tasks, True), 2)


@pytest.mark.parametrize(
    "own", [DePT(length=2, rank=1, text_length=4), Adapter(bottleneck=2), LoRA(rank=1), FineTuning()], ids=type
)
def test_methods_that_steer_all_rows_alike_are_refused(own: MethodConfig) -> None:
    bone = factories.backbone("gpt2", n_layer=1)
    with pytest.raises(
        ConfigError, match=r"task pie: expected a method whose prompts mix .* got .*Method, which steers"
    ):
        MultiTask({"tea": built(bone, PromptTuning(length=2)), "pie": built(bone, own)})
