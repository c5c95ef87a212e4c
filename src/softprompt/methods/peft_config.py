"""PEFT's adapter_config.json, read back: compared with PEFT's own fields and bounded before PEFT sees it."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from softprompt.errors import CheckpointError
from softprompt.facts import printable, read_strict_json

PEFT_CONFIG = "adapter_config.json"
_MOST, _LONGEST, _DEEPEST = 10_000_000, 10_000, 4
_ALONE = ("runtime_config", "layer_replication", "megatron_config")
"""Fields that are of a running process, change the backbone's depth, or name code to import: null in what we read."""
_PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern", "modules_to_save")
"""Fields whose texts PEFT may take for regular expressions."""


def read_raw_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json as a mapping that says a type of PEFT.

    Raises:
        CheckpointError: missing, no JSON, or none.
    """
    path = folder / PEFT_CONFIG
    raw = read_strict_json(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("peft_type"), str):
        raise CheckpointError(f"{path}: expected an object with a text peft_type, got none. It is none of PEFT's.")
    _require_bounded(path, raw)
    return raw


def tuner_config(path: Path, raw: Mapping[str, Any], tuners: Mapping[str, Any]) -> Any:
    """The config of one of `tuners` (type -> PEFT's class) that the file says.

    Raises:
        CheckpointError: another type, a field that PEFT does not know, or a value that it does not take.
    """
    kind = raw["peft_type"]
    if kind not in tuners:
        raise CheckpointError(f"{path}: expected a tuner of PEFT ({', '.join(sorted(tuners))}), got {printable(kind)}.")
    fields = {field.name for field in dataclasses.fields(tuners[kind]) if field.init}
    hints = _hints(tuners[kind])
    known = {}
    for key, value in raw.items():
        if key in fields and not (key in _ALONE and value is not None):
            if not _accepts(hints.get(key, Any), value):
                raise CheckpointError(f"{path}: {key}: expected a value of the type that PEFT says, got another.")
            known[key] = value
        elif value not in (None, False, "", [], {}):
            raise CheckpointError(
                f"{path}: {printable(key)}: expected none with PEFT's {kind} here, got a value. Install the version of "
                "PEFT that it was made with, or drop the key if it is not needed."
            )
    for text in _patterns(known):
        _require_simple(path, text)
    try:
        return tuners[kind](**known | {"auto_mapping": None, "base_model_name_or_path": None})  # neither is looked up
    except Exception as error:  # whatever PEFT makes of what a stranger wrote
        said = printable(f"{type(error).__name__}: {error}")
        raise CheckpointError(
            f"{path}: PEFT does not take it: {said}. It was changed, or is of another PEFT."
        ) from None


def _hints(config: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(config)
    except (NameError, TypeError, AttributeError):
        return {}


def _require_bounded(path: Path, value: Any, key: str = "", depth: int = 0) -> None:
    """Raise `CheckpointError` for numbers, texts and lists of a size that no adapter has."""
    most = 2**64 if key.endswith(("seed", "_key")) else _MOST
    if isinstance(value, dict | list):
        for inner in value:
            own, name = (value[inner], inner) if isinstance(value, dict) else (inner, key)
            _require_bounded(path, own, name, depth + 1)
        odd = depth >= _DEEPEST or len(value) > _LONGEST
    elif isinstance(value, str):
        odd = len(value) > _LONGEST or not value.isprintable()
    else:
        odd = isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= most)
    if odd:
        raise CheckpointError(f"{path}: {printable(key) or 'it'}: larger or deeper than anything PEFT writes.")


def _accepts(hint: Any, value: Any) -> bool:
    """Whether a value of JSON is of a field's type; a number may be of either kind, as alpha 16 and 16.0."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_accepts(one, value) for one in args)
    if origin is typing.Literal:
        return value in args or (isinstance(value, str) and any(isinstance(one, str) and "[" in one for one in args))
    if hint is None or hint is types.NoneType:
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if (origin or hint) in (list, tuple, set):
        inner = args[0] if args else Any
        return isinstance(value, list) and all(_accepts(inner, one) for one in value)
    if isinstance(hint, type) and issubclass(hint, str):
        return isinstance(value, str)
    if (origin or hint) is dict or dataclasses.is_dataclass(hint):
        return isinstance(value, dict)
    return True


def _patterns(known: Mapping[str, Any]) -> Iterator[str]:
    for key in _PATTERNS:
        value = known.get(key)
        yield from [value] if isinstance(value, str) else [one for one in value or [] if isinstance(one, str)]


def _require_simple(path: Path, pattern: str) -> None:
    """Raise `CheckpointError` for a regular expression that could be tried for ever."""
    repeats = len(re.findall(r"[*+{]", pattern))
    if len(pattern) > 500 or repeats > 4 or pattern.count("?") > 10 or re.search(r"\)[*+{]", pattern):
        raise CheckpointError(
            f"{path}: expected names of modules or a plain pattern of them, got {printable(pattern[:80])!r}. "
            "Write the names out as a list."
        )
