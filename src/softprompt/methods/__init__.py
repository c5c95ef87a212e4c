"""What is learned. `METHODS` maps a method's name to its builder; one file a method."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from softprompt.active import alone
from softprompt.artefact import Facts, kept_in, read_facts
from softprompt.backbone import Backbone
from softprompt.errors import CheckpointError
from softprompt.methods.adapter import AdapterMethod
from softprompt.methods.dept import DeptMethod
from softprompt.methods.finetune import FinetuneMethod
from softprompt.methods.peft_folder import is_pefts, load_pefts
from softprompt.methods.peft_tuner import PeftMethod
from softprompt.methods.prefix import PrefixMethod
from softprompt.methods.prompt import PromptMethod
from softprompt.prompt import Prompt


class Steering(Protocol):
    """Anything that the loss and the decoder can run the backbone under."""

    @property
    def position_offset(self) -> int:
        """Positions of the window that the steering takes beside its virtual tokens; `attach` sees to them."""

    def place(self, backbone: Backbone, source: Sequence[int]) -> tuple[int, ...]:
        """A source's token ids with the steering's virtual tokens among them, where it has any."""

    def attach(self, backbone: Backbone, *, shared: bool = False) -> AbstractContextManager[None]:
        """Make it act on `backbone` inside the block. `shared`: see `softprompt.inject.inject`."""


class Trainable(Protocol):
    """What the optimiser and a checkpoint see of a method."""

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name -> parameter, in a fixed order. Exactly what the optimiser updates and a checkpoint keeps."""

    def set_mode(self, training: bool) -> None:
        """Switch the method's own dropout, and the backbone's where the method says so."""


class Method(Steering, Trainable, Protocol):
    """A steering that can be trained."""

    def stored_count(self) -> int:
        """Numbers that the folded artefact keeps."""

    def fold(self) -> Steering:
        """The same without what only training needs; itself where nothing falls away."""

    @property
    def kept_in(self) -> str:
        """Name of the folder in a run that the artefact is kept in."""

    def save(self, folder: Path, *, backbone_id: str, backbone_hash: str, extra: Facts | None = None) -> None:
        """Write the artefact as `folder`; the hash is that of the backbone before training, `extra` is kept with it."""


@runtime_checkable
class OwnRates(Protocol):
    """A method some of whose tensors have learning rates of their own."""

    def rates(self) -> Mapping[str, float]:
        """Name of a trainable tensor -> rate, where it is not the recipe's."""


@dataclass(frozen=True)
class Untuned:
    """The backbone as it is."""

    position_offset: int = 0

    def place(self, backbone: Backbone, source: Sequence[int]) -> tuple[int, ...]:
        return tuple(source)

    def attach(self, backbone: Backbone, *, shared: bool = False) -> AbstractContextManager[None]:
        return alone(backbone.model)


METHODS: Mapping[str, Callable[[Backbone, Any], Method]] = {
    "prefix": PrefixMethod.build,
    "prompt": PromptMethod.build,
    "dept": DeptMethod.build,
    "finetune": FinetuneMethod.build,
    "adapter": AdapterMethod.build,
    "lora": PeftMethod.build_lora,
    "peft": PeftMethod.build,
}


LOADERS: Mapping[str, Callable[[Backbone, Path], Steering]] = {
    "prefix": Prompt.load_on,
    "prompt": Prompt.load_on,
    "dept": DeptMethod.load,
    "adapter": AdapterMethod.load,
    "lora": PeftMethod.load,
    "peft": PeftMethod.load,
}


def load(backbone: Backbone, folder: str | Path) -> Steering:
    """What a run kept: a folder written by a method's `save`, the run folder that it lies in, or a folder of PEFT's.

    LoRA changes `backbone` in place.

    Raises:
        CheckpointError: missing, damaged, or learned on another backbone.
    """
    folder = kept_in(Path(folder).expanduser())
    if is_pefts(folder):
        return load_pefts(backbone, folder)
    method = read_facts(folder).method
    if method not in LOADERS:
        raise CheckpointError(
            f"{folder}: is a backbone tuned by {method!r}. Give it to Backbone.load, or the folder alone to load."
        )
    return LOADERS[method](backbone, folder)


def trained_count(method: Trainable) -> int:
    """Number of trained parameters."""
    return sum(parameter.numel() for parameter in method.trainable().values())


def room_taken(backbone: Backbone, steering: Steering) -> int:
    """Positions of the window that the steering takes from the text."""
    return steering.position_offset + len(steering.place(backbone, (0,))) - 1


def state(method: Trainable) -> dict[str, Tensor]:
    """The trainable tensors, detached, by name."""
    return {name: parameter.detach() for name, parameter in method.trainable().items()}


__all__ = [
    "LOADERS",
    "METHODS",
    "AdapterMethod",
    "DeptMethod",
    "FinetuneMethod",
    "Method",
    "OwnRates",
    "PeftMethod",
    "PrefixMethod",
    "PromptMethod",
    "Steering",
    "Trainable",
    "Untuned",
    "is_pefts",
    "load",
    "room_taken",
    "state",
    "trained_count",
]
