"""Several processes of one job, forked from a warm parent: what `torchrun` would start, without its start-up."""

import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import factories
import torch
from sittings import config, die, pairs, processes, setup, start

from softprompt import loss, passes
from softprompt.backbone import Backbone
from softprompt.batch import Encoded
from softprompt.config import DecodeConfig, load_recipe
from softprompt.decode import decode_together
from softprompt.distributed import World, joined
from softprompt.errors import ConfigError, SoftpromptError, TrainingError
from softprompt.fit import METRICS, fit
from softprompt.loss import mean_token_nll
from softprompt.method_config import Adapter, DePT, FineTuning, LoRA, MethodConfig, Peft, PrefixTuning, PromptTuning
from softprompt.methods import METHODS, state
from softprompt.multitask import Learner, MultiTask, of_task
from softprompt.optim import make_optimizer
from softprompt.passes import Passes
from softprompt.run import run_recipe
from softprompt.sharding import is_sharded, shard
from softprompt.train import training_steps


@dataclass
class Job:
    """The running processes of a job and where their answers come from."""

    members: list[BaseProcess]
    answers: list[Connection]

    def ends(self, seconds: float = 100) -> list[int | None]:
        """Exit codes of all members, once they have ended."""
        deadline = time.monotonic() + seconds
        for member in self.members:
            member.join(max(0.0, deadline - time.monotonic()))
        codes = [member.exitcode for member in self.members]
        for member in self.members:
            member.kill()
        return codes

    def results(self) -> list[Any]:
        """What the body returned in each member, in order of rank."""
        got = [answer.recv() if answer.poll(100) else "no answer" for answer in self.answers]
        assert self.ends() == [0] * len(self.members), got
        return got


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def begin(size: int, body: Callable[..., Any], *args: Any) -> Job:
    """Start `body(world, *args)` in `size` processes that make up a world."""
    port = free_port()
    members, answers = [], []
    for rank in range(size):
        answer, speaker = processes().Pipe(duplex=False)
        torchrun = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1"}
        torchrun |= {"MASTER_PORT": port}
        member = start(_member, torchrun, speaker, body, args)
        members.append(member)
        answers.append(answer)
    return Job(members, answers)


def _member(torchrun: dict[str, Any], answer: Connection, body: Callable[..., Any], args: Sequence[Any]) -> None:
    torch.set_num_threads(1)
    os.environ.update({name: str(value) for name, value in torchrun.items()})
    try:
        with joined() as world:
            answer.send(body(world, *args))
    except SoftpromptError as error:
        answer.send(str(error))
        os._exit(error.exit_code)  # as the command line does; a broken group is not taken apart politely
    except BaseException:
        answer.send(traceback.format_exc())
        os._exit(99)


def together(size: int, body: Callable[..., Any], *args: Any) -> list[Any]:
    """`begin`, and the results of all."""
    return begin(size, body, *args).results()


# --- bodies ----------------------------------------------------------------------------------------------------------

STILL: dict[str, dict[str, MethodConfig]] = {
    "prefix": {"": PrefixTuning(length=5, hidden=16)},
    "prompt": {"": PromptTuning(length=4, init="vocabulary")},
    "dept": {"": DePT(length=3, text_length=8, rank=2, lowrank_lr=1e-2)},
    "adapter": {"": Adapter(bottleneck=4)},
    "lora": {"": LoRA(rank=2)},
    "finetune": {"": FineTuning()},
    "two tasks": {"tea": PrefixTuning(length=5, hidden=8), "pie": PromptTuning(length=3)},
}
"""Methods without dropout, which every process draws for itself."""


def learner(kind: str, world: World, *, split: bool, family: str = "gpt2") -> tuple[Backbone, Learner]:
    """The same start in every process; `split`: on a backbone in parts."""
    dropout = {f"{part}_pdrop": 0.0 for part in ("embd", "resid", "attn")} if family == "gpt2" else {}
    bone = factories.backbone(family, **dropout)
    if split:
        shard(bone.model, world, torch.device("cpu"))
    torch.manual_seed(3)
    methods = {task: METHODS[own.name](bone, own) for task, own in STILL[kind].items()}
    return bone, methods[""] if "" in methods else MultiTask(methods)


def still_pairs(kind: str, count: int) -> list[Encoded]:
    tasks = list(STILL[kind])
    return [replace(pair, task=tasks[number % len(tasks)]) for number, pair in enumerate(factories.pairs(count))]


def losses(world: World, kind: str, split: bool, family: str, changes: dict[str, Any]) -> dict[str, Any]:
    """What the steps of a run came to in this process, and all its trained numbers at the end."""
    bone, method = learner(kind, world, split=split, family=family)
    before = bone.frozen_hash()
    if world.size > 1 and "at_once" in changes:
        passes.target_nll = partial(passes.target_nll, at_once=changes["at_once"])
    settings = config(**{name: value for name, value in changes.items() if name != "at_once"})
    optimizer = make_optimizer(method, settings)
    steps = training_steps(bone, method, optimizer, still_pairs(kind, 11), settings, seed=7, world=world)
    records = list(steps)
    dev = mean_token_nll(bone, of_task(method, next(iter(STILL[kind]))), factories.pairs(7), batch_size=2, world=world)
    return {
        "losses": [record.loss for record in records],
        "norms": [record.grad_norm for record in records],
        "numbers": torch.cat([value.flatten() for value in state(method).values()]).tolist(),
        "dev": dev,
        "frozen": bone.frozen_hash() == before,
        "split": is_sharded(bone.model),
    }


def sitting(
    world: World, folder: Path, kind: str = "prefix", dies: tuple[int, int] | None = None, **changes: Any
) -> tuple[dict[str, list[float]], bytes, int]:
    """One call of `fit` by all; `dies`: (rank, step) of a process that is killed before that step's optimiser."""
    if world.leads:
        folder.mkdir(parents=True, exist_ok=True)
    bone, method = setup(kind)
    if dies is not None and dies[0] == world.rank:
        act_at_step(dies[1], die)
    fitted = fit(
        bone, method, pairs(kind, 11), pairs(kind, 5), config(**changes), folder, seed=7, quiet=True, world=world
    )
    kept = {name: value.flatten().tolist() for name, value in state(method).items()}
    return kept, (folder / METRICS).read_bytes() if world.leads else b"", fitted.selected_step


def signalled(world: World, folder: Path, rank: int, step: int) -> Any:
    """One call of `fit` by all, in which process `rank` gets SIGTERM in the middle of a step."""
    if rank == world.rank:
        act_at_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    return sitting(world, folder)


def act_at_step(number: int, act: Callable[[], None]) -> None:
    """Call `act` in this process between the gradient of a step and its sum."""
    count, real = iter(range(1, 10**6)), World.sum_gradients

    def acting(own: World, parameters: Any) -> None:
        if next(count) == number:
            act()
        real(own, parameters)

    World.sum_gradients = acting  # type: ignore[method-assign]


def short_of_memory(world: World, rank: int) -> list[tuple[float, int]]:
    """Loss and micro-batch of each step, where process `rank` cannot hold more than one row."""
    bone, method = learner("prefix", world, split=False)
    real = Passes.accumulate

    def tight(own: Passes, chosen: Any, rows: int, *rest: Any) -> Any:
        if own.world.rank == rank and rows > 1:
            raise torch.OutOfMemoryError("no room")
        return real(own, chosen, rows, *rest)

    Passes.accumulate = tight  # type: ignore[method-assign]
    settings = config(max_steps=3, batch_size=8, micro_batch="auto")
    steps = training_steps(
        bone, method, make_optimizer(method, settings), still_pairs("prefix", 11), settings, seed=7, world=world
    )
    return [(record.loss, record.micro_batch) for record in steps]


def poisoned(world: World, rank: int) -> Any:
    """A run in which one process meets a loss that is not a number."""
    bone, method = learner("prefix", world, split=False)
    real = passes.target_nll
    passes.target_nll = lambda *args: real(*args) * (float("nan") if world.rank == rank else 1.0)
    settings = config(max_steps=3)
    before = [value.clone() for value in state(method).values()]
    steps = training_steps(
        bone, method, make_optimizer(method, settings), still_pairs("prefix", 11), settings, seed=7, world=world
    )
    try:
        list(steps)
    except TrainingError as error:
        return str(error), all(map(torch.equal, before, state(method).values()))
    return "no error"


def answers(world: World, split: bool, family: str, count: int, options: dict[str, Any]) -> list[Any]:
    """Texts that all decode together, with a prefix that means something."""
    bone, method = learner("prefix", world, split=split, family=family)
    sources = [example.source for example in factories.examples(count)]
    labels = ("red inn", "old tea") if options.get("labels") else None
    settings = DecodeConfig(**{"batch_size": 2, **options})
    rows = decode_together(bone, method.fold(), sources, settings, world=world, labels=labels)
    return [asdict(row) for row in rows]


def talk(world: World) -> dict[str, Any]:
    """What the words of a world mean."""
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.full((2,), float(world.rank + 1))
    if world.rank == 1:
        parameters[1].grad = torch.ones(2)
    world.sum_gradients(parameters)
    mine = torch.full((3,), float(world.rank))
    world.copy_leader([mine])
    return {
        "sums": world.sums([1.0, world.rank]),
        "any": [world.any(world.rank == 1), world.any(False)],
        "told": [world.told(b"all" if world.leads else b"nobody").decode(), world.told(b"").decode()],
        "gathered": world.gathered([{"rank": world.rank, "text": "\u00e4" * world.rank}] * world.rank),
        "share": world.share(range(5)),
        "grads": [None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters],
        "leader": mine.tolist(),
    }


def chunks(world: World, family: str) -> tuple[float, bool]:
    """The loss of a step whose longest target alone is to be chunked, and whether it was chunked here."""
    bone, method = learner("prefix", world, split=world.size > 1, family=family)
    chunked, real = list[bool](), loss.chunked_nll

    def watched(*args: Any) -> Any:
        found = real(*args)
        chunked.append(found is not None)
        return found

    loss.chunked_nll = watched
    long, short = Encoded((5, 6, 7), tuple(range(5, 18))), Encoded((5, 6), (7, 8))
    passes.target_nll = partial(loss.target_nll, at_once=len(factories.tokenizer()) * 5)
    value, _ = Passes(bone, method, config(max_steps=1), world).accumulate([short, long], 2)
    loss.chunked_nll, passes.target_nll = real, loss.target_nll
    return world.sums([value])[0], all(chunked)


def run(world: World, recipe: Path, folder: Path, split: bool) -> list[str]:
    """A whole run with a baseline; the methods of its results."""
    more = ["compare.lora.method=lora", "method.dropout=0", "compare.lora.method.dropout=0", "decode.max_new_tokens=8"]
    made = load_recipe(str(recipe), [*more, f"backbone.shard={str(split).lower()}"])
    return [result.method for result in run_recipe(made, folder, resume=True, quiet=True)]


def run_with_other_data(world: World, recipe: Path, folder: Path) -> Any:
    """A run in which the second process reads other training pairs."""
    if not world.leads:
        text = recipe.read_text().replace("train.jsonl", "dev.jsonl")
        (recipe.parent / "other.yaml").write_text(text)
        recipe = recipe.parent / "other.yaml"
    return run(world, recipe, folder, False)


def tuned_norms(world: World) -> tuple[str, str]:
    """What is said to a tuner of the backbone's own weights, which are in parts; and the backbone's hash before."""
    bone = factories.backbone("gpt2")
    shard(bone.model, world, torch.device("cpu"))
    digest = bone.hash()
    try:
        METHODS["peft"](bone, Peft(type="LN_TUNING", options={"target_modules": ["ln_1"]}))
    except ConfigError as error:
        return str(error), digest
    return "not refused", digest
