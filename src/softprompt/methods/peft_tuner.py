"""Tuners of the package PEFT under this package's loop: LoRA (Hu et al. 2021, arXiv:2106.09685) and all others.

PEFT puts its modules into the backbone in place; its own format is what is kept, so PEFT and everything that reads
PEFT's folders can use it. PEFT's prompt-learning types are left out: `prefix` and `prompt` are what this package is
for; so are types that PEFT itself does not put into a model in place (VeRA).
"""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from softprompt.active import alone
from softprompt.artefact import TENSORS, Facts, read_facts, require_match, write_artefact
from softprompt.backbone import Backbone
from softprompt.errors import CheckpointError, ConfigError, is_out_of_memory
from softprompt.facts import printable
from softprompt.files import save_tensors
from softprompt.methods.peft_config import PEFT_CONFIG, read_raw_config, tuner_config
from softprompt.recipes import nearest
from softprompt.sharding import is_sharded
from softprompt.tensors import FLOATS, Header, read_finite, read_header, require_header

_PREFIX = "base_model.model."
"""What PEFT puts before the names of a model's modules in its files."""


_SPLIT = (
    "method {name}: PEFT cannot do this to a backbone that is split over processes ({why}). "
    "Set backbone.shard=false, or take LoRA with its default start."
)


def _said(error: Exception) -> str:
    """An error of PEFT's in one line; what is no message in itself with its type."""
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, ValueError | TypeError) and text else f"{type(error).__name__}: {text}"


def tuners() -> dict[str, Any]:
    """PEFT's types that change a model -> PEFT's class of config. Raises ImportError without PEFT."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return {key.value: made for key, made in PEFT_TYPE_TO_CONFIG_MAPPING.items() if key.value not in prompt_types()}


def prompt_types() -> list[str]:
    """PEFT's types that learn a prompt. Raises ImportError without PEFT."""
    from peft import PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return [key.value for key, made in PEFT_TYPE_TO_CONFIG_MAPPING.items() if issubclass(made, PromptLearningConfig)]


class PeftMethod:
    """PEFT's modules inside `backbone`, in float32 whatever the backbone's type is; everything else stays frozen."""

    position_offset, kept_in = 0, "adapter"

    def __init__(self, backbone: Backbone, peft_config: Any, name: str) -> None:
        from peft import inject_adapter_in_model

        try:
            inject_adapter_in_model(peft_config, backbone.model)
        except Exception as error:  # its options are the user's, and what is wrong with them shows anywhere inside it
            if isinstance(error, RuntimeError) and is_sharded(backbone.model) and not is_out_of_memory(error):
                raise ConfigError(_SPLIT.format(name=name, why=str(error).splitlines()[0])) from error
            raise ConfigError(
                f"method {name}: PEFT cannot change backbone {backbone.id!r} so: {_said(error)}"
            ) from error
        if any(isinstance(one, DTensor) for one in backbone.model.parameters() if one.requires_grad):
            raise ConfigError(_SPLIT.format(name=name, why="it trains weights of the backbone itself"))
        self.model, self.peft_config, self.name = backbone.model, peft_config, name
        self._in_float32()
        self.set_mode(False)
        if name == "peft":
            self._require_forward(backbone)

    @classmethod
    def build_lora(cls, backbone: Backbone, config: Any) -> "PeftMethod":
        """LoRA from the `method` part of a recipe. Changes `backbone` in place.

        Raises:
            ConfigError: PEFT is not installed, or knows no such targets in this backbone.
        """
        options = {"r": config.rank, "lora_alpha": config.alpha, "lora_dropout": config.dropout}
        return cls._build(backbone, "lora", "LORA", options | {"target_modules": config.targets})

    @classmethod
    def build(cls, backbone: Backbone, config: Any) -> "PeftMethod":
        """Any tuner of PEFT, by its type and its own options. Changes `backbone` in place.

        Raises:
            ConfigError: PEFT is not installed, has no such type or option, or cannot put it into this backbone.
        """
        return cls._build(backbone, "peft", config.type.upper(), config.options)

    @classmethod
    def _build(cls, backbone: Backbone, name: str, kind: str, options: dict[str, Any]) -> "PeftMethod":
        try:
            there, prompts = tuners(), prompt_types()
        except ImportError as error:
            raise ConfigError(f"method {name} needs the package peft: pip install softprompt[peft]") from error
        if kind not in there:
            what = "learns a prompt: take method prefix or prompt" if kind in prompts else "is none of PEFT's types"
            known = sorted(there)
            raise ConfigError(f"method.type: {kind} {what}{nearest(kind, known)}. Expected one of: {', '.join(known)}.")
        task = "CAUSAL_LM" if backbone.family == "causal" else "SEQ_2_SEQ_LM"
        try:
            config = there[kind](task_type=task, **options)
        except Exception as error:
            raise ConfigError(f"method.options: PEFT's {kind} does not take them: {_said(error)}.") from error
        return cls(backbone, config, name)

    def _require_forward(self, backbone: Backbone) -> None:
        """Raise `ConfigError` where the changed backbone does not compute two tokens, forward and backward.

        Some tuners want more than ids; some have weights of the backbone in float32 beside others in half precision.
        """
        if backbone.device.type == "meta" or is_sharded(backbone.model):
            return
        ids = torch.zeros(1, 2, dtype=torch.long, device=backbone.device)
        target = {"decoder_input_ids": ids} if backbone.family == "seq2seq" else {}
        try:
            with torch.enable_grad():
                logits = backbone.model(input_ids=ids, use_cache=False, **target).logits
                torch.autograd.grad(logits.float().sum(), list(self.trainable().values()), allow_unused=True)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            half = backbone.model.dtype in (torch.float16, torch.bfloat16)
            way = "Set backbone.dtype=float32 (train.precision=bfloat16 computes as fast)" if half else "Take another"
            raise ConfigError(
                f"method.type: PEFT's {self.peft_config.peft_type.value} does not compute in backbone {backbone.id!r}, "
                f"what is trained being in float32: {str(error).splitlines()[0]}. {way}."
            ) from error

    def place(self, backbone: Backbone, source: Sequence[int]) -> tuple[int, ...]:
        return tuple(source)

    def attach(self, backbone: Backbone, *, shared: bool = False) -> AbstractContextManager[None]:
        return alone(backbone.model)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def set_mode(self, training: bool) -> None:
        """The dropout of PEFT's modules; the backbone's is not the method's to switch."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for layer in self.model.modules():
            if isinstance(layer, BaseTunerLayer):
                for name, module in layer.named_children():
                    if name != "base_layer":
                        module.train(training)

    def stored_count(self) -> int:
        """What is trained is what is kept."""
        return sum(parameter.numel() for parameter in self.trainable().values())

    def fold(self) -> "PeftMethod":
        """Itself: PEFT's modules stay in the backbone."""
        return self

    def save(self, folder: Path, *, backbone_id: str, backbone_hash: str, extra: Facts | None = None) -> None:
        """PEFT's two files, our facts with the backbone's hash, and a manifest."""
        from peft import get_peft_model_state_dict

        tensors = {_PREFIX + name: tensor for name, tensor in get_peft_model_state_dict(self.model).items()}
        self.peft_config.base_model_name_or_path = backbone_id

        def fill(into: Path) -> None:
            save_tensors(tensors, into / TENSORS)
            self.peft_config.save_pretrained(into)

        facts = {"method": self.name, **(extra or {})}
        write_artefact(folder, fill, facts, backbone_id=backbone_id, backbone_hash=backbone_hash)

    @classmethod
    def load(cls, backbone: Backbone, folder: str | Path) -> "PeftMethod":
        """Put the modules of a folder written by `save` into `backbone`, in place.

        Raises:
            CheckpointError: missing, damaged, not finite, or made for another backbone.
        """
        folder = Path(folder)
        facts = read_facts(folder)
        require_match(folder, facts, ("lora", "peft"), backbone.hash())
        return cls.load_into(backbone, folder, facts.method)

    @classmethod
    def load_into(cls, backbone: Backbone, folder: Path, name: str) -> "PeftMethod":
        """The same, in PEFT's two files alone: what PEFT would make of the config is first made without memory.

        Raises:
            CheckpointError: a config that PEFT does not take on this backbone, or tensors that do not go with it;
                `backbone` is as it was.
        """
        try:
            known = tuners()
        except ImportError as error:
            raise ConfigError(f"method {name} needs the package peft: pip install softprompt[peft]") from error
        config, path = tuner_config(folder / PEFT_CONFIG, read_raw_config(folder), known), folder / TENSORS
        require_fits(backbone, folder, config, name, read_header(path))
        tensors = {key.removeprefix(_PREFIX): tensor for key, tensor in read_finite(path).items()}
        from peft import set_peft_model_state_dict

        made = cls(backbone, config, name)
        set_peft_model_state_dict(backbone.model, tensors)
        made._in_float32()
        return made

    def _in_float32(self) -> None:
        """As all methods train: updates of a small rate would be rounded away in half precision."""
        for parameter in self.trainable().values():
            parameter.data = parameter.data.to(torch.float32)


def require_fits(backbone: Backbone, folder: Path, config: Any, name: str, header: Header) -> None:
    """Raise `CheckpointError` unless the tensors are those that PEFT keeps of this config on this backbone.

    What these are is found on the meta device, so nothing is put into memory, and `backbone` is as it was.
    """
    from peft import get_peft_model_state_dict

    model_class = type(backbone.model)
    try:
        with torch.device("meta"):
            model = model_class(copy.deepcopy(backbone.model.config))
            PeftMethod(Backbone(backbone.id, model, None), copy.deepcopy(config), name)
            kept = get_peft_model_state_dict(model)
    except Exception as error:  # whatever PEFT makes of what a stranger wrote
        raise CheckpointError(
            f"{folder / PEFT_CONFIG}: PEFT cannot change backbone {backbone.id!r} so: "
            f"{printable(f'{type(error).__name__}: {error}')}. It belongs to another backbone, or is damaged."
        ) from None
    expected = {_PREFIX + key: tuple(tensor.shape) for key, tensor in kept.items()}
    require_header(folder / TENSORS, header, expected, FLOATS)
