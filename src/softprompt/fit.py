"""One method trained in one run folder: the loop's records written down, dev losses, checkpoints, resume, signals."""

import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from softprompt import checkpoint
from softprompt.backbone import Backbone
from softprompt.batch import Encoded
from softprompt.board import Board
from softprompt.checkpoint import Checkpoint, State
from softprompt.config import TrainConfig
from softprompt.console import Progress, say
from softprompt.distributed import ALONE, World
from softprompt.errors import CheckpointError, TrainingError
from softprompt.identity import Identity
from softprompt.loss import mean_token_nll
from softprompt.methods import state
from softprompt.metrics_log import MetricsLog, dev_losses_at
from softprompt.multitask import Learner, of_task
from softprompt.optim import make_optimizer, optimizer_state, restore_optimizer
from softprompt.precision import autocast
from softprompt.signals import Caught, Stopped, collected, interrupted
from softprompt.train import NonFiniteError, StepRecord, make_plan, require_finite, total_steps, training_steps

METRICS = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class Fitted:
    """What training came to. The method holds the selected weights."""

    steps: int
    selected_step: int
    dev_loss: float | None
    """Dev loss of the selected weights, nats per target token; None without dev data. Of several tasks: their mean."""
    seconds: float
    """Time in the loop, dev losses and checkpoints included, over all sittings."""
    tokens_per_second: float
    """Real tokens (source and target) through forward and backward, in this sitting's training steps alone."""
    padding: float
    """Share of the computed positions that were pads, in this sitting."""
    dev_losses: dict[str, float] = field(default_factory=dict)
    """Dev loss of the selected weights of each task, where several are trained together."""


def fit(
    backbone: Backbone,
    method: Learner,
    train_pairs: Sequence[Encoded],
    dev_pairs: Sequence[Encoded],
    config: TrainConfig,
    folder: Path,
    *,
    seed: int,
    label: str = "train",
    quiet: bool = False,
    world: World = ALONE,
    identity: Identity | None = None,
) -> Fitted:
    """Train `method` to the end, going on from the newest whole checkpoint in `folder` if there is one.

    The processes of `world` train together; its leader alone reads and writes `folder`. With an `identity`, checkpoints
    carry its record, and one that is of another run is refused.

    metrics.jsonl gets one line a step and one a dev loss, and holds nothing that depends on the clock: a run that was
    killed and resumed writes the same bytes as one that was not. A signal is answered at the end of the current step;
    a dev loss that it finds due or half done is left to the next sitting.

    Raises:
        TrainingError: a loss, a gradient, a dev loss or what is trained is not finite; the last checkpoint that can be
            gone on with stays. Or the folder was moved or removed.
        CheckpointError: no checkpoint can be gone on with, or metrics.jsonl is not what it knows of.
        Interrupted: SIGTERM or SIGINT came; the run was saved at the end of the current step.
    """
    run = _Sitting(
        backbone, method, dev_pairs, config, folder, identity, seed=seed, label=label, quiet=quiet, world=world
    )
    run.begin(train_pairs)
    with collected() as caught, run, run.going_back():
        run.catch_up(caught)
        steps = training_steps(
            backbone,
            method,
            run.optimizer,
            train_pairs,
            config,
            seed=seed,
            start=run.state.step,
            micro_batch=run.state.micro_batch,
            world=world,
        )
        for record in run.timed(steps):
            run.log(record)
            run.settle(record.step, caught)
    return run.finish()


class _Sitting:
    """The mutable side of one call of `fit`: open files, counters, the best so far."""

    def __init__(
        self,
        backbone: Backbone,
        method: Learner,
        dev_pairs: Sequence[Encoded],
        config: TrainConfig,
        folder: Path,
        identity: Identity | None,
        *,
        seed: int,
        label: str,
        quiet: bool,
        world: World,
    ) -> None:
        self.world = world
        self.backbone, self.method, self.config = backbone, method, config
        tasks = dict.fromkeys(pair.task for pair in dev_pairs)
        self.dev_pairs = {task: [pair for pair in dev_pairs if pair.task == task] for task in tasks}
        self.folder, self.seed, self.label, self.quiet = folder, seed, label, quiet or not world.leads
        self.checkpoints, self.identity = folder / "checkpoints", identity
        self.optimizer = make_optimizer(method, config)
        self.state = State(step=0, metrics_bytes=0, optimizer=config.optimizer)
        self.loop_seconds, self.tokens, self.positions = 0.0, 0, 0
        self.metrics: MetricsLog | None = None
        self.board: Board | None = None

    def begin(self, train_pairs: Sequence[Encoded]) -> None:
        """Restore the newest checkpoint if there is one."""
        self.train_pairs = train_pairs
        self.plan = make_plan(self.backbone, self.method, train_pairs, self.config, self.seed)
        self.total = total_steps(self.config, self.plan)
        found = self._newest() if self.world.leads else None
        found = checkpoint.told(found, self.world)
        if found is not None:
            checkpoint.restore_into(self.method.trainable(), found.method)
            if found.state.optimizer != self.config.optimizer:
                raise CheckpointError(
                    f"checkpoint does not fit the optimiser: expected moments of {self.config.optimizer}, got those of "
                    f"{found.state.optimizer}. Resume with train.optimizer={found.state.optimizer}, or start anew."
                )
            restore_optimizer(self.method, self.optimizer, found.optimizer)
            self.state = found.state
            if not self.quiet:
                say(f"{self.label}: going on after step {found.state.step} of {self.total}")
        self.world.copy_leader(list(self.method.trainable().values()))  # devices may have drawn other starts
        self.sitting_start = time.monotonic()
        self.seconds_before = self.state.seconds

    def _newest(self) -> Checkpoint | None:
        """The newest whole checkpoint; its best is forgotten where a later best, since lost, had taken its place."""
        found = checkpoint.load_newest(self.checkpoints, self.identity)
        if found is None or found.state.best_step in (None, found.state.step, *checkpoint.steps(self.checkpoints)):
            return found
        return replace(found, state=replace(found.state, best_step=None, best_loss=None))

    def __enter__(self) -> "_Sitting":
        self.progress = Progress(self.label, self.total, "steps", done=self.state.step, quiet=self.quiet)
        if not self.world.leads:
            return self
        known = self.state
        self.metrics = MetricsLog(
            self.folder / METRICS, kept=known.metrics_bytes, digest=known.metrics_sha256, step=known.step
        )
        self.board = Board(self.folder / "tb", purge=self.state.step)
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.close()
        if self.metrics is not None:
            self.metrics.close()
        if self.board is not None:
            self.board.close()

    def timed(self, steps: Iterator[StepRecord]) -> Iterator[StepRecord]:
        """Pass records on, adding up the time spent making them."""
        while True:
            started = time.perf_counter()
            record = next(steps, None)
            if record is None:
                return
            self.loop_seconds += time.perf_counter() - started
            self.tokens += record.tokens
            self.positions += record.positions
            yield record

    def log(self, record: StepRecord) -> None:
        self._write({name: getattr(record, name) for name in StepRecord.__slots__})
        if record.micro_batch != self.state.micro_batch:
            self.state = replace(self.state, micro_batch=record.micro_batch)
        last = record.step == self.total
        self.progress.update(record.step, f"loss {record.loss:.4f}", force=last)
        if self.metrics is not None and record.step % self.config.log_every == 0:
            self._require_there()
        if self.board is not None and (record.step % self.config.log_every == 0 or last):
            self.board.add(
                record.step, {f"train/{name}": getattr(record, name) for name in ("loss", "lr", "grad_norm")}
            )

    def settle(self, step: int, caught: Caught) -> None:
        """What follows a step: dev loss and checkpoint where they are due. `Interrupted` where a signal came."""
        last = step == self.total
        due = last or self._due(self.config.eval_every, step)
        improved = due and self.evaluate(step, caught)
        stop = self.world.any(bool(caught))
        if last or improved or self._due(self.config.save_every or self.config.eval_every, step) or stop:
            self.save(step)
            stop = self.world.any(bool(caught))  # nobody leaves before the leader has saved; a signal may have come
        self._stop_if(stop, caught)

    def _due(self, every: int | None, step: int) -> bool:
        """Whether what is done so often, or at the end of each epoch, is due after `step`."""
        return step % every == 0 if every is not None else self.plan.ends_epoch(step)

    def catch_up(self, caught: Caught) -> None:
        """The dev loss that a signal left undone, and the checkpoint of its step once more, which knows of it now."""
        if self.state.dev_loss_due:
            self.evaluate(self.state.step, caught)
            self._stop_if(self.world.any(bool(caught)), caught)
            self.save(self.state.step)

    def evaluate(self, step: int, caught: Caught) -> bool:
        """Dev loss; True where it is the lowest so far. Without dev data the newest weights count as the best.

        The last weights are tried on training pairs there: no later step shows whether they can be used.
        """
        if not self.dev_pairs:
            if step == self.total:
                for task in dict.fromkeys(pair.task for pair in self.train_pairs):
                    tried = [pair for pair in self.train_pairs if pair.task == task][: self._rows()]
                    self._require_usable(step, self._mean_nll(task, tried, Caught()), "loss")
            self.state = replace(self.state, best_step=step)
            return True
        losses = self._dev_losses(caught)
        self.state = replace(self.state, dev_loss_due=losses is None)
        if losses is None:
            return False
        loss = sum(losses.values()) / len(losses)
        self._require_usable(step, loss, "dev loss")
        self._write({"step": step, "dev_loss": loss} | ({} if "" in losses else {"dev_losses": losses}))
        if self.board is not None:
            self.board.add(step, {"dev/loss": loss})
        self.progress.update(step, f"dev loss {loss:.4f}", force=True)
        if self.state.best_loss is not None and loss >= self.state.best_loss:
            return False
        self.state = replace(self.state, best_step=step, best_loss=loss)
        return True

    def _dev_losses(self, caught: Caught) -> dict[str, float] | None:
        """Nats per target token over each task's dev pairs; None where a signal came before they were known.

        Alone, a signal ends it at once; of several processes all end it together, after a batch of each.
        """
        try:
            with caught.at_once() if self.world.size == 1 else nullcontext():
                return (
                    None
                    if self.world.any(bool(caught))
                    else {task: self._mean_nll(task, pairs, caught) for task, pairs in self.dev_pairs.items()}
                )
        except Stopped:
            return None

    def _mean_nll(self, task: str, pairs: Sequence[Encoded], caught: Caught) -> float:
        """Nats per target token over pairs of one task, without dropout."""
        self.backbone.model.eval()
        self.method.set_mode(False)

        def stop_together() -> None:
            if self.world.size > 1 and self.world.any(bool(caught)):
                raise Stopped(0)

        return mean_token_nll(
            self.backbone,
            of_task(self.method, task),
            pairs,
            batch_size=self._rows(),
            autocast=autocast(self.backbone.device, self.config.precision, self.backbone.model.dtype),
            world=self.world,
            between=stop_together,
        )

    def _rows(self) -> int:
        """Pairs per forward pass of a dev loss: no more than memory is known, or said, to hold in training."""
        usual, micro = max(32, self.config.batch_size), self.config.micro_batch
        held = self.state.micro_batch if micro == "auto" else micro
        return min(usual, held or usual)

    def _require_usable(self, step: int, loss: float, what: str) -> None:
        if not math.isfinite(loss):
            raise NonFiniteError(
                step,
                f"step {step}: expected a finite {what}, got {loss}. Nothing of this step was kept. Lower train.lr, "
                "and go on with --resume --allow-change train.lr; where the first steps do the same, look at "
                "backbone.dtype and the data.",
            )

    @contextmanager
    def going_back(self) -> Iterator[None]:
        """Where the weights of a checkpoint turn out not to be usable, set it aside: none is gone on with for ever."""
        try:
            yield
        except NonFiniteError as error:
            said = checkpoint.go_back(self.checkpoints, error.step, state(self.method)) if self.world.leads else ""
            raise TrainingError(f"{error} {said}".rstrip()) from error

    def save(self, step: int) -> None:
        seconds = self.seconds_before + time.monotonic() - self.sitting_start
        self.state = replace(self.state, step=step, seconds=seconds)
        moments = optimizer_state(self.method, self.optimizer)
        require_finite(moments, step, "what the optimiser keeps", squares=False)
        if self.metrics is None:
            return
        self._require_there()
        length, digest = self.metrics.mark()
        record = self.identity.record if self.identity else None
        self.state = replace(self.state, metrics_bytes=length, metrics_sha256=digest, record=record)
        whole = Checkpoint(state(self.method), moments, self.state)
        checkpoint.save(self.checkpoints, whole, keep=self.config.keep)

    def _require_there(self) -> None:
        """Raise `TrainingError` where the log is no longer in its place: nothing is written beside what is gone."""
        assert self.metrics is not None
        path = self.folder / METRICS
        try:
            there = os.path.samestat(path.stat(), os.fstat(self.metrics.fileno()))
        except (FileNotFoundError, NotADirectoryError):
            there = False
        if not there:
            raise TrainingError(
                f"{path}: expected the log that this run writes, which was moved, removed or replaced. The run stopped "
                "and wrote nothing more. Put the folder back and use --resume, or start anew."
            )

    def finish(self) -> Fitted:
        """Put the selected weights into the method."""
        chosen = self.state.best_step if self.config.select == "best" and self.state.best_step else self.state.step
        if chosen != self.state.step and self.world.leads:
            best = checkpoint.load(self.checkpoints, chosen, self.identity)
            checkpoint.restore_into(self.method.trainable(), best.method)
        self.world.copy_leader(list(self.method.trainable().values()))
        self.backbone.model.eval()
        self.method.set_mode(False)
        found = dev_losses_at(self.folder / METRICS, chosen) if self.world.leads else {}
        if self.world.leads:  # a kill between the last save and its pruning leaves one too many
            checkpoint.prune(self.checkpoints, self.state, keep=self.config.keep)
        return Fitted(
            steps=self.state.step,
            selected_step=chosen,
            dev_loss=found.get("dev_loss"),
            dev_losses=found.get("dev_losses", {}),
            seconds=self.state.seconds,
            tokens_per_second=self.tokens / self.loop_seconds if self.loop_seconds else 0.0,
            padding=1 - self.tokens / self.positions if self.positions else 0.0,
        )

    def _stop_if(self, stop: bool, caught: Caught) -> None:
        if stop:
            number = caught.numbers[0] if caught else signal.SIGTERM  # it came to another process
            said = f"saved after step {self.state.step} of {self.total}. Run the same command with --resume to go on."
            raise interrupted(number, said)

    def _write(self, line: dict[str, Any]) -> None:
        if self.metrics is not None:
            self.metrics.write(line)


__all__ = ["METRICS", "Fitted", "fit"]
