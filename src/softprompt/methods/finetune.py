"""Fine-tuning through the same loop: every parameter of the backbone is trained, or the top k blocks (FT-top2)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from softprompt.backbone import Backbone
from softprompt.errors import ConfigError


class FinetuneMethod:
    """The parameters trained, tied ones once; the backbone's dropout is on in training, as it was in pretraining."""

    position_offset = 0

    def __init__(self, backbone: Backbone, top: int | None = None) -> None:
        """Unfreezes `backbone` in place: all of it, or its `top` highest blocks.

        Raises:
            ConfigError: there are fewer blocks.
        """
        self.model = backbone.model
        blocks = backbone.blocks() if top is not None else []
        if top is not None and top > len(blocks):
            raise ConfigError(
                f"method.top: expected at most {len(blocks)}, the blocks of backbone {backbone.id!r}, got {top}."
            )
        for module in [self.model] if top is None else blocks[-top:]:
            module.requires_grad_(True)

    @classmethod
    def build(cls, backbone: Backbone, config: Any) -> "FinetuneMethod":
        """From the `method` part of a recipe. Unfreezes `backbone` in place."""
        return cls(backbone, config.top)

    def place(self, backbone: Backbone, source: Sequence[int]) -> tuple[int, ...]:
        return tuple(source)

    def attach(self, backbone: Backbone, *, shared: bool = False) -> AbstractContextManager[None]:
        return nullcontext()

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def set_mode(self, training: bool) -> None:
        self.model.train(training)

    def stored_count(self) -> int:
        """What differs from the backbone: all that is trained."""
        return sum(parameter.numel() for parameter in self.trainable().values())

    def fold(self) -> None:
        """The tuned backbone itself is what is kept."""
