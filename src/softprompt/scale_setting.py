"""What `softprompt scale` is asked: methods, lengths, numbers of processes, a step's rows, a device's rates."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from softprompt.errors import ConfigError
from softprompt.method_config import METHOD_CONFIGS, MOST_TOKENS
from softprompt.recipes import nearest

BACKBONES = ("gpt2-medium", "google/t5-v1_1-xxl", "meta-llama/Llama-2-70b-hf")
"""What is counted where nothing else is named."""
METHODS = tuple(name for name, config in METHOD_CONFIGS.items() if "length" in config.model_fields)
DTYPES = ("bfloat16", "float32")
RATES, MOST_RATE = ("device_flops", "bandwidth", "device_memory"), 1e21
MOST_NUMBERS = 100
"""Lengths, or numbers of processes, at once."""


@dataclass(frozen=True)
class Setting:
    """A step, and what it runs on. Rows and tokens are per process; a device's rates are its maker's."""

    methods: tuple[str, ...] = ("prefix", "prompt")
    lengths: tuple[int, ...] = (5, 100, 200)
    """P, in virtual tokens."""
    processes: tuple[int, ...] = (8, 64)
    rows: int = 8
    source: int = 256
    """Tokens of each row's source."""
    target: int = 64
    """Tokens of each row's target."""
    dtype: str = "bfloat16"
    """Of the frozen weights."""
    device_flops: float = 989e12
    """Operations a second: H200, bfloat16 without sparsity."""
    bandwidth: float = 450e9
    """Bytes a second that a process sends: H200, NVLink, one direction of the 900 GB/s of both."""
    device_memory: float = 141e9
    """Bytes: H200."""


def make_setting(**given: Any) -> Setting:
    """From the words of a command line; what is None keeps its default.

    Raises:
        ConfigError: not a number, not a positive one, or no such method or type.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    for name, read in (("methods", _method), ("lengths", _number(1)), ("processes", _number(2))):
        if name in asked:
            words = str(asked[name]).split(",")
            if len(words) > MOST_NUMBERS:
                raise ConfigError(f"scale: {name}: expected at most {MOST_NUMBERS} values, got {len(words)}.")
            asked[name] = tuple(read(word.strip(), name) for word in words)
    made = Setting(**asked)
    if made.dtype not in DTYPES:
        raise ConfigError(f"scale: dtype: expected one of {', '.join(DTYPES)}, got {made.dtype!r}. Change --dtype.")
    for field in fields(made):
        value = getattr(made, field.name)
        most = MOST_RATE if field.name in RATES else MOST_TOKENS
        if isinstance(value, int | float) and not 0 < value <= most:
            option = field.name.replace("_", "-")
            raise ConfigError(
                f"scale: {option}: expected a number above 0, at most {most:g}, got {_short(value)}. Change --{option}."
            )
    return made


def _method(word: str, _: str) -> str:
    if word not in METHODS:
        raise ConfigError(
            f"scale: expected a method with a length ({', '.join(METHODS)}), got {_short(word)}"
            f"{nearest(word, METHODS)}. Change --method."
        )
    return word


def _number(least: int) -> Callable[[str, str], int]:
    def read(word: str, name: str) -> int:
        if not word.isdecimal() or len(word) > 18 or not least <= int(word) <= MOST_TOKENS:
            option = name.removesuffix("s") if name == "lengths" else name
            raise ConfigError(
                f"scale: {name}: expected whole numbers from {least} to {MOST_TOKENS} with commas between them, got "
                f"{_short(word)}. Change --{option}."
            )
        return int(word)

    return read


def _short(value: object) -> str:
    text = "a huge number" if isinstance(value, int) and abs(value) >= 10**18 else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
