"""softprompt: steer a frozen language model with a small learned prompt.

Public names are imported on first use, so that `import softprompt` costs nothing and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Adapter": "softprompt.method_config",
    "Attached": "softprompt.attached",
    "Backbone": "softprompt.backbone",
    "DePT": "softprompt.method_config",
    "Decoded": "softprompt.decode",
    "Example": "softprompt.types",
    "FineTuning": "softprompt.method_config",
    "LoRA": "softprompt.method_config",
    "PerRow": "softprompt.per_row",
    "PrefixKV": "softprompt.inject",
    "PrefixTuning": "softprompt.method_config",
    "Prompt": "softprompt.prompt",
    "PromptTuning": "softprompt.method_config",
    "Recipe": "softprompt.config",
    "Site": "softprompt.inject",
    "SoftpromptError": "softprompt.errors",
    "attach": "softprompt.attached",
    "decode_texts": "softprompt.decode",
    "load": "softprompt.attached",
    "load_recipe": "softprompt.config",
    "run_recipe": "softprompt.run",
    "score_suite": "softprompt.metrics",
}

if TYPE_CHECKING:
    from softprompt.attached import Attached, attach, load
    from softprompt.backbone import Backbone
    from softprompt.config import Recipe, load_recipe
    from softprompt.decode import Decoded, decode_texts
    from softprompt.errors import SoftpromptError
    from softprompt.inject import PrefixKV, Site
    from softprompt.method_config import Adapter, DePT, FineTuning, LoRA, PrefixTuning, PromptTuning
    from softprompt.metrics import score_suite
    from softprompt.per_row import PerRow
    from softprompt.prompt import Prompt
    from softprompt.run import run_recipe
    from softprompt.types import Example

__all__ = [
    "Adapter",
    "Attached",
    "Backbone",
    "DePT",
    "Decoded",
    "Example",
    "FineTuning",
    "LoRA",
    "PerRow",
    "PrefixKV",
    "PrefixTuning",
    "Prompt",
    "PromptTuning",
    "Recipe",
    "Site",
    "SoftpromptError",
    "attach",
    "decode_texts",
    "load",
    "load_recipe",
    "run_recipe",
    "score_suite",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'softprompt' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
