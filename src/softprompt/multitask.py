"""Several tasks trained together: a prompt for each on one frozen backbone, their rows mixed in every batch.

Each row is steered by its own task's numbers while they are trained, so a batch has the loss and the gradients of its
rows taken task by task. A task without rows in a step has no gradient there: the optimiser leaves its prompt alone.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from softprompt.errors import ConfigError
from softprompt.methods import Method
from softprompt.per_row import PerRow
from softprompt.prompt import Prompt


@runtime_checkable
class Mixable(Method, Protocol):
    """A method whose prompt can stand beside others in one batch."""

    def live(self) -> Prompt:
        """The prompt as it is now, in the graph of its parameters."""


class MultiTask:
    """A method for each task, trained as one."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        """Raises ConfigError for a method that steers all rows of a batch alike."""
        self._methods: dict[str, Mixable] = {}
        for task, method in methods.items():
            if not isinstance(method, Mixable):
                raise ConfigError(
                    f"task {task}: expected a method whose prompts mix in a batch (prefix or prompt), got "
                    f"{type(method).__name__}, which steers all rows alike. Train this task in a run of its own."
                )
            self._methods[task] = method

    def of(self, task: str) -> Method:
        """The method of one task."""
        return self._methods[task]

    def rows(self, tasks: Sequence[str]) -> PerRow:
        """What steers a batch whose rows are of these tasks; each task's prompt is made once."""
        live = {task: self._methods[task].live() for task in dict.fromkeys(tasks)}
        return PerRow(tuple(live[task] for task in tasks))

    def trainable(self) -> dict[str, nn.Parameter]:
        """`<task>/<name>` -> parameter: see `Method`."""
        return {
            f"{task}/{name}": parameter
            for task, method in self._methods.items()
            for name, parameter in method.trainable().items()
        }

    def set_mode(self, training: bool) -> None:
        """See `Method`."""
        for method in self._methods.values():
            method.set_mode(training)


Learner = Method | MultiTask
"""What one training loop trains."""


def of_task(learner: Learner, task: str) -> Method:
    """What steers rows of this task alone."""
    return learner.of(task) if isinstance(learner, MultiTask) else learner


def for_batch(learner: Learner, tasks: Sequence[str]) -> Method | PerRow:
    """What steers a batch whose rows are of these tasks."""
    return learner.rows(tasks) if isinstance(learner, MultiTask) else learner
