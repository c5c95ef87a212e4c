"""A backbone in 8 or 4 bits through bitsandbytes: what is learned beside it stays in full precision.

8 bit: LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339). 4 bit: NF4 with its constants quantised in turn (Dettmers
et al. 2023, arXiv:2305.14314, QLoRA). Both take the linear layers; embeddings, norms and the output layer stay as they
are.
"""

import logging
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from softprompt.errors import BackboneError

BITS = {"8bit": 8, "4bit": 4}
"""Bits a weight, by the setting's value."""
_LIBRARIES = ("bitsandbytes", "accelerate")


def require_libraries(how: str | None) -> None:
    """Raises BackboneError where `how` needs a library that is not installed."""
    missing = [name for name in _LIBRARIES if find_spec(name) is None] if how else []
    if missing:
        raise BackboneError(
            f"backbone.quantize: {how} needs {' and '.join(missing)}, which cannot be imported. "
            "Install them (pip install 'softprompt[quant]'), or set backbone.quantize=null."
        )


def loading_options(how: str | None, dtype: torch.dtype | None, device: torch.device) -> dict[str, Any]:
    """Arguments of `from_pretrained`; `dtype` is that of the arithmetic beside the quantised weights.

    Raises:
        BackboneError: an unknown setting, or a library is missing.
    """
    if how is None:
        return {}
    if how not in BITS:
        raise BackboneError(f"backbone.quantize: expected {' or '.join(BITS)}, got {how!r}.")
    require_libraries(how)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # warns of its own casts in every layer
    if how == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype or torch.float32,
        )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_frozen(model: PreTrainedModel) -> None:
    """Switch off what would change 4-bit weights in use: a layout that rounds their scales to bfloat16 on some CPUs."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def is_quantized(model: PreTrainedModel) -> bool:
    """Whether its weights are in 8 or 4 bits."""
    return bool(getattr(model, "is_quantized", False))


def constants(model: PreTrainedModel) -> dict[str, Tensor]:
    """Name -> the scales that belong to the quantised weights; they are no parameters."""
    if not is_quantized(model):
        return {}
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    return {name: value for name, value in model.state_dict().items() if name not in own and isinstance(value, Tensor)}


def weight_bytes(model: PreTrainedModel, each: int, how: str | None) -> int:
    """Memory of the weights of a model that is not quantised yet, in bytes, at `each` bytes a number where not."""
    head = model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, nn.Linear | Conv1D) and module is not head]
    taken = 0 if how is None else sum(int(module.weight.numel()) for module in linear)
    whole = sum(parameter.numel() for parameter in model.parameters())
    return int(whole - taken) * each + (0 if how is None else taken * BITS[how] // 8)
