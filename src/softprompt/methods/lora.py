"""LoRA as a modern baseline (Hu et al. 2021, arXiv:2106.09685), by the package PEFT under this package's loop.

PEFT puts the low-rank matrices into the backbone in place; its own format is what is kept, so PEFT and everything that
reads PEFT's folders can use it.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from softprompt.artefact import Facts, read_facts, require_match, write_artefact
from softprompt.backbone import Backbone
from softprompt.errors import ConfigError
from softprompt.files import load_tensors, save_tensors

_TENSORS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


class LoraMethod:
    """The low-rank matrices inside `backbone`; everything else stays frozen."""

    position_offset, kept_in = 0, "adapter"

    def __init__(self, backbone: Backbone, peft_config: Any) -> None:
        from peft import inject_adapter_in_model

        try:
            inject_adapter_in_model(peft_config, backbone.model)
        except ValueError as error:
            raise ConfigError(f"method.targets: PEFT cannot put LoRA into backbone {backbone.id!r}: {error}") from error
        self.model, self.peft_config = backbone.model, peft_config
        self.set_mode(False)

    @classmethod
    def build(cls, backbone: Backbone, config: Any) -> "LoraMethod":
        """From the `method` part of a recipe. Changes `backbone` in place.

        Raises:
            ConfigError: PEFT is not installed, or knows no such targets in this backbone.
        """
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise ConfigError("method lora needs the package peft: pip install softprompt[peft]") from error
        return cls(
            backbone,
            LoraConfig(
                r=config.rank,
                lora_alpha=config.alpha,
                lora_dropout=config.dropout,
                target_modules=config.targets,
                task_type="CAUSAL_LM" if backbone.family == "causal" else "SEQ_2_SEQ_LM",
            ),
        )

    def place(self, backbone: Backbone, source: Sequence[int]) -> tuple[int, ...]:
        return tuple(source)

    def attach(self, backbone: Backbone, *, shared: bool = False) -> AbstractContextManager[None]:
        return nullcontext()

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def set_mode(self, training: bool) -> None:
        """LoRA's own dropout; the backbone's is not the method's to switch."""
        for name, module in self.model.named_modules():
            if "lora_dropout" in name:
                module.train(training)

    def stored_count(self) -> int:
        """What is trained is what is kept."""
        return sum(parameter.numel() for parameter in self.trainable().values())

    def fold(self) -> "LoraMethod":
        """Itself: the matrices stay in the backbone."""
        return self

    def save(self, folder: Path, *, backbone_id: str, backbone_hash: str, extra: Facts | None = None) -> None:
        """PEFT's two files, our facts with the backbone's hash, and a manifest."""
        from peft import get_peft_model_state_dict

        tensors = {f"base_model.model.{name}": tensor for name, tensor in get_peft_model_state_dict(self.model).items()}
        self.peft_config.base_model_name_or_path = backbone_id

        def fill(into: Path) -> None:
            save_tensors(tensors, into / _TENSORS)
            self.peft_config.save_pretrained(into)

        facts = {"method": "lora", **(extra or {})}
        write_artefact(folder, fill, facts, backbone_id=backbone_id, backbone_hash=backbone_hash)

    @classmethod
    def load(cls, backbone: Backbone, folder: str | Path) -> "LoraMethod":
        """Put the matrices of a folder written by `save` into `backbone`, in place.

        Raises:
            CheckpointError: missing, damaged, or made for another backbone.
        """
        from peft import LoraConfig, set_peft_model_state_dict

        folder = Path(folder)
        require_match(folder, read_facts(folder), "lora", backbone.hash())
        made = cls(backbone, LoraConfig.from_pretrained(str(folder)))
        tensors = {name.removeprefix("base_model.model."): t for name, t in load_tensors(folder / _TENSORS).items()}
        set_peft_model_state_dict(backbone.model, tensors)
        for parameter in made.trainable().values():
            parameter.data = parameter.data.to(torch.float32)
        return made
