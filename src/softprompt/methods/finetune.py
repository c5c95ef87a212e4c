"""Fine-tuning through the same loop: every parameter of the backbone is trained, or the top k blocks (FT-top2)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from softprompt.active import alone
from softprompt.artefact import Facts, write_artefact
from softprompt.backbone import Backbone, quiet_transformers
from softprompt.console import say
from softprompt.errors import ConfigError
from softprompt.quantize import is_quantized


class FinetuneMethod:
    """The parameters trained, tied ones once; the backbone's dropout is on in training, as it was in pretraining."""

    position_offset, kept_in = 0, "model"

    def __init__(self, backbone: Backbone, top: int | None = None) -> None:
        """Unfreezes `backbone` in place: all of it, or its `top` highest blocks.

        Raises:
            ConfigError: there are fewer blocks, or the weights are quantised.
        """
        self.backbone, self.model = backbone, backbone.model
        if is_quantized(backbone.model):
            raise ConfigError(
                f"method finetune trains the weights themselves; those of backbone {backbone.id!r} are in 8 or 4 bits. "
                "Load it without quantize, or take method lora."
            )
        blocks = backbone.blocks() if top is not None else []
        if top is not None and top > len(blocks):
            raise ConfigError(
                f"method.top: expected at most {len(blocks)}, the blocks of backbone {backbone.id!r}, got {top}."
            )
        for module in [self.model] if top is None else blocks[-top:]:
            module.requires_grad_(True)

    @classmethod
    def build(cls, backbone: Backbone, config: Any) -> "FinetuneMethod":
        """From the `method` part of a recipe. Unfreezes `backbone` in place, warning where it is in half precision."""
        made, dtype = cls(backbone, config.top), backbone.model.dtype
        if backbone.device.type != "meta" and dtype in (torch.bfloat16, torch.float16):
            say(
                f"warning: method finetune trains the {str(dtype).removeprefix('torch.')} weights as they are: small "
                "updates are rounded away, and the other methods train in float32. For a fair comparison set "
                "backbone.dtype=float32; train.precision=bfloat16 computes as fast."
            )
        return made

    def place(self, backbone: Backbone, source: Sequence[int]) -> tuple[int, ...]:
        return tuple(source)

    def attach(self, backbone: Backbone, *, shared: bool = False) -> AbstractContextManager[None]:
        return alone(backbone.model)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def set_mode(self, training: bool) -> None:
        self.model.train(training)

    def stored_count(self) -> int:
        """What differs from the backbone: all that is trained."""
        return sum(parameter.numel() for parameter in self.trainable().values())

    def fold(self) -> "FinetuneMethod":
        """Itself: the backbone has changed."""
        return self

    def save(self, folder: Path, *, backbone_id: str, backbone_hash: str, extra: Facts | None = None) -> None:
        """The tuned backbone and its tokenizer as transformers keeps them, our facts, and a manifest."""

        def fill(into: Path) -> None:
            assert self.backbone.tokenizer is not None
            with quiet_transformers():
                self.backbone.model.save_pretrained(into)
                self.backbone.tokenizer.save_pretrained(into)

        facts = {"method": "finetune", **(extra or {})}
        write_artefact(folder, fill, facts, backbone_id=backbone_id, backbone_hash=backbone_hash)
