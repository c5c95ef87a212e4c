"""Full fine-tuning through the same loop: every parameter of the backbone is trained."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from softprompt.backbone import Backbone


class FineTuning:
    """All parameters, tied ones once; the backbone's dropout is on during training, as it was in pretraining."""

    position_offset = 0

    def __init__(self, backbone: Backbone) -> None:
        self.model = backbone.model
        self.model.requires_grad_(True)

    @classmethod
    def build(cls, backbone: Backbone, config: Any) -> "FineTuning":
        """From the `method` part of a recipe (it has no fields). Unfreezes `backbone` in place."""
        return cls(backbone)

    def place(self, backbone: Backbone, source: Sequence[int]) -> tuple[int, ...]:
        return tuple(source)

    def attach(self, backbone: Backbone, *, shared: bool = False) -> AbstractContextManager[None]:
        return nullcontext()

    def trainable(self) -> dict[str, nn.Parameter]:
        return dict(self.model.named_parameters())

    def set_mode(self, training: bool) -> None:
        self.model.train(training)

    def stored_count(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def fold(self) -> None:
        """The tuned backbone itself is what is kept."""
