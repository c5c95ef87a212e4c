"""softprompt: steer a frozen language model with a small learned prompt.

Public names are imported on first use, so that `import softprompt` costs nothing and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Backbone": "softprompt.backbone",
    "Decoded": "softprompt.decode",
    "Example": "softprompt.types",
    "FinetuneMethod": "softprompt.methods",
    "PrefixKV": "softprompt.inject",
    "PrefixMethod": "softprompt.methods",
    "Prompt": "softprompt.prompt",
    "Recipe": "softprompt.config",
    "Site": "softprompt.inject",
    "SoftpromptError": "softprompt.errors",
    "decode_texts": "softprompt.decode",
    "load_recipe": "softprompt.config",
    "run_recipe": "softprompt.run",
    "score_suite": "softprompt.metrics",
}

if TYPE_CHECKING:
    from softprompt.backbone import Backbone
    from softprompt.config import Recipe, load_recipe
    from softprompt.decode import Decoded, decode_texts
    from softprompt.errors import SoftpromptError
    from softprompt.inject import PrefixKV, Site
    from softprompt.methods import FinetuneMethod, PrefixMethod
    from softprompt.metrics import score_suite
    from softprompt.prompt import Prompt
    from softprompt.run import run_recipe
    from softprompt.types import Example

__all__ = [
    "Backbone",
    "Decoded",
    "Example",
    "FinetuneMethod",
    "PrefixKV",
    "PrefixMethod",
    "Prompt",
    "Recipe",
    "Site",
    "SoftpromptError",
    "decode_texts",
    "load_recipe",
    "run_recipe",
    "score_suite",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'softprompt' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
