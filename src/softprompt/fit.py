"""One method trained in one run folder: the loop's records written down, dev losses, checkpoints, resume, signals."""

import json
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from io import RawIOBase
from pathlib import Path
from types import FrameType
from typing import Any

from softprompt import checkpoint
from softprompt.backbone import Backbone
from softprompt.batch import Encoded
from softprompt.checkpoint import Checkpoint, State
from softprompt.config import TrainConfig
from softprompt.console import Progress, say
from softprompt.errors import CheckpointError, Interrupted
from softprompt.loss import mean_token_nll
from softprompt.methods import Method, state
from softprompt.optim import make_optimizer, optimizer_state, restore_optimizer
from softprompt.train import StepRecord, autocast, make_plan, total_steps, training_steps

METRICS = "metrics.jsonl"
EXIT_SAVED, EXIT_INTERRUPTED = 75, 130


@dataclass(frozen=True, slots=True)
class Fitted:
    """What training came to. The method holds the selected weights."""

    steps: int
    selected_step: int
    dev_loss: float | None
    """Dev loss of the selected weights, nats per target token; None without dev data."""
    seconds: float
    """Time in the loop, dev losses and checkpoints included, over all sittings."""
    tokens_per_second: float
    """Real tokens (source and target) through forward and backward, in this sitting's training steps alone."""
    padding: float
    """Share of the computed positions that were pads, in this sitting."""


def fit(
    backbone: Backbone,
    method: Method,
    train_pairs: Sequence[Encoded],
    dev_pairs: Sequence[Encoded],
    config: TrainConfig,
    folder: Path,
    *,
    seed: int,
    label: str = "train",
    quiet: bool = False,
) -> Fitted:
    """Train `method` to the end, going on from the newest whole checkpoint in `folder` if there is one.

    metrics.jsonl gets one line a step and one a dev loss, and holds nothing that depends on the clock: a run that was
    killed and resumed writes the same bytes as one that was not.

    Raises:
        TrainingError: non-finite loss; the last checkpoint stays.
        Interrupted: SIGTERM or SIGINT came; the run was saved at the end of the current step.
    """
    run = _Sitting(backbone, method, dev_pairs, config, folder, seed=seed, label=label, quiet=quiet)
    total = run.begin(train_pairs)
    with _signals() as caught, run:
        steps = training_steps(backbone, method, run.optimizer, train_pairs, config, seed=seed, start=run.state.step)
        for record in run.timed(steps):
            last = record.step == total
            run.log(record)
            improved = (last or record.step % run.eval_every == 0) and run.evaluate(record.step)
            if last or improved or record.step % run.save_every == 0 or caught:
                run.save(record.step)
            if caught and not last:
                raise _interrupted(caught[0], record.step, total)
    return run.finish()


class _Sitting:
    """The mutable side of one call of `fit`: open files, counters, the best so far."""

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        dev_pairs: Sequence[Encoded],
        config: TrainConfig,
        folder: Path,
        *,
        seed: int,
        label: str,
        quiet: bool,
    ) -> None:
        self.backbone, self.method, self.dev_pairs, self.config = backbone, method, dev_pairs, config
        self.folder, self.seed, self.label, self.quiet = folder, seed, label, quiet
        self.checkpoints = folder / "checkpoints"
        self.optimizer = make_optimizer(method, config)
        self.state = State(step=0, metrics_bytes=0)
        self.loop_seconds, self.tokens, self.positions = 0.0, 0, 0
        self.metrics: RawIOBase | None = None
        self.board: Any = None

    def begin(self, train_pairs: Sequence[Encoded]) -> int:
        """Restore the newest checkpoint if there is one; return the total number of steps."""
        plan = make_plan(train_pairs, self.config, self.seed)
        self.total = total_steps(self.config, plan)
        self.eval_every = self.config.eval_every or plan.steps_per_epoch
        self.save_every = self.config.save_every or self.eval_every
        found = checkpoint.load_newest(self.checkpoints)
        if found is not None:
            checkpoint.restore_into(self.method.trainable(), found.method)
            restore_optimizer(self.method, self.optimizer, found.optimizer)
            self.state = found.state
            if not self.quiet:
                say(f"{self.label}: going on after step {found.state.step} of {self.total}")
        self.sitting_start = time.monotonic()
        self.seconds_before = self.state.seconds
        return self.total

    def __enter__(self) -> "_Sitting":
        path = self.folder / METRICS
        size = path.stat().st_size if path.exists() else 0
        if size < self.state.metrics_bytes:
            raise CheckpointError(
                f"{path}: expected at least {self.state.metrics_bytes} bytes (those that the checkpoint of step "
                f"{self.state.step} knows of), got {size}. Restore the file, or start the run anew."
            )
        self.metrics = path.open("ab", buffering=0)
        self.metrics.truncate(self.state.metrics_bytes)
        self.metrics.seek(0, os.SEEK_END)
        self.board = _tensorboard(self.folder / "tb", purge=self.state.step)
        self.progress = Progress(self.label, self.total, "steps", done=self.state.step, quiet=self.quiet)
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
        self._write(asdict(record))
        last = record.step == self.total
        self.progress.update(record.step, f"loss {record.loss:.4f}", force=last)
        if self.board is not None and (record.step % self.config.log_every == 0 or last):
            for name in ("loss", "lr", "grad_norm"):
                self.board.add_scalar(f"train/{name}", getattr(record, name), record.step)

    def evaluate(self, step: int) -> bool:
        """Dev loss; True where it is the lowest so far. Without dev data the newest weights count as the best."""
        if not self.dev_pairs:
            self.state = replace(self.state, best_step=step)
            return True
        self.backbone.model.eval()
        self.method.set_mode(False)
        loss = mean_token_nll(
            self.backbone,
            self.method,
            self.dev_pairs,
            batch_size=max(32, self.config.batch_size),
            autocast=autocast(self.backbone.device, self.config.precision),
        )
        self._write({"step": step, "dev_loss": loss})
        if self.board is not None:
            self.board.add_scalar("dev/loss", loss, step)
        self.progress.update(step, f"dev loss {loss:.4f}", force=True)
        if math.isnan(loss) or (self.state.best_loss is not None and loss >= self.state.best_loss):
            return False
        self.state = replace(self.state, best_step=step, best_loss=loss)
        return True

    def save(self, step: int) -> None:
        assert self.metrics is not None
        os.fsync(self.metrics.fileno())
        seconds = self.seconds_before + time.monotonic() - self.sitting_start
        self.state = replace(self.state, step=step, metrics_bytes=self.metrics.tell(), seconds=seconds)
        whole = Checkpoint(state(self.method), optimizer_state(self.method, self.optimizer), self.state)
        checkpoint.save(self.checkpoints, whole, keep=self.config.keep)

    def finish(self) -> Fitted:
        """Put the selected weights into the method."""
        chosen = self.state.best_step if self.config.select == "best" and self.state.best_step else self.state.step
        if chosen != self.state.step:
            checkpoint.restore_into(self.method.trainable(), checkpoint.load(self.checkpoints, chosen).method)
        self.backbone.model.eval()
        self.method.set_mode(False)
        loss = self.state.best_loss if chosen == self.state.best_step else _last_dev_loss(self.folder / METRICS)
        return Fitted(
            steps=self.state.step,
            selected_step=chosen,
            dev_loss=loss,
            seconds=self.state.seconds,
            tokens_per_second=self.tokens / self.loop_seconds if self.loop_seconds else 0.0,
            padding=1 - self.tokens / self.positions if self.positions else 0.0,
        )

    def _write(self, line: dict[str, Any]) -> None:
        assert self.metrics is not None
        rest = memoryview(json.dumps(line).encode() + b"\n")
        while rest:  # unbuffered: a full disk takes a part and then says so
            rest = rest[self.metrics.write(rest) or 0 :]


def _last_dev_loss(metrics: Path) -> float | None:
    losses = [json.loads(line).get("dev_loss") for line in metrics.read_text(encoding="utf-8").splitlines()]
    return next((loss for loss in reversed(losses) if loss is not None), None)


def _tensorboard(folder: Path, *, purge: int) -> Any:
    """A SummaryWriter, or None where the extra `tb` is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=purge or None)


def _interrupted(number: int, step: int, total: int) -> Interrupted:
    name = signal.Signals(number).name
    code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_SAVED
    return Interrupted(
        f"{name}: saved after step {step} of {total}. Run the same command with --resume to go on.", code
    )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying of them; a second SIGINT is let through."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and caught:
            raise KeyboardInterrupt
        caught.append(number)

    numbers = (signal.SIGTERM, signal.SIGINT)
    try:
        previous = {number: signal.signal(number, note) for number in numbers}
    except ValueError:  # not the main thread: signals are not ours to handle
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


__all__ = ["METRICS", "Fitted", "fit"]
