"""Recipes as plain mappings: what is laid over them, `key=value` too, and what is said of a key or a value."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from softprompt.errors import ConfigError
from softprompt.yaml_text import KeyPath as KeyPath
from softprompt.yaml_text import flaw_of
from softprompt.yaml_text import parse_yaml as parse_yaml
from softprompt.yaml_text import read_yaml as read_yaml
from softprompt.yaml_text import write_yaml as write_yaml

SHORTHANDS = {"backbone": "id", "method": "name"}
"""Sections that may be written as a plain text, and the field that the text is for."""
NAMED = ("compare", "tasks")  # sections of names of the user's, each with overrides of a recipe
SECTIONS = ("backbone", "method", "data", "train", "decode", "score", *NAMED)
ALIASES = {  # what papers and other tools call a field
    "backbone.id": ("model", "model_name", "base_model", "pretrained", "checkpoint"),
    "method.length": ("prefix_length", "prefix_len", "preseqlen", "num_virtual_tokens", "prompt_length"),
    "method.hidden": ("mid_dim", "hidden_size", "prefix_hidden_size", "width"),
    "method.reparam": ("prefix_projection", "reparameterization"),
    "data.dir": ("data_dir", "folder", "path"),
    "data.dev": ("valid", "validation", "eval_file"),
    "data.input": ("source", "source_template", "prompt_template"),
    "data.max_train": ("max_train_samples", "train_size"),
    "train.epochs": ("num_train_epochs", "num_epochs", "epoch"),
    "train.batch_size": ("bsz", "batch", "per_device_train_batch_size"),
    "train.batch_tokens": ("max_tokens", "max_tokens_per_batch", "tokens_per_batch"),
    "train.micro_batch": ("micro_batch_size", "gradient_accumulation_steps", "accumulate_grad_batches"),
    "train.lr": ("learning_rate", "rate"),
    "train.schedule": ("lr_scheduler", "lr_scheduler_type", "scheduler"),
    "train.optimizer": ("optim", "optimiser"),
    "train.decay_rate": ("beta2_decay",),
    "train.scale_parameter": ("multiply_by_parameter_scale",),
    "train.warmup_steps": ("warmup", "num_warmup_steps"),
    "train.clip": ("max_grad_norm", "grad_clip", "gradient_clipping"),
    "train.precision": ("bf16", "fp16", "mixed_precision"),
    "train.max_length": ("max_seq_length", "block_size"),
    "train.keep": ("save_total_limit",),
    "train.select": ("load_best_model_at_end",),
    "decode.beams": ("num_beams", "beam_size", "beam"),
    "decode.strategy": ("do_sample",),
    "decode.max_new_tokens": ("max_tokens", "generation_max_length"),
    "score.suite": ("metrics", "metric"),
}


def nearest(word: str, words: Iterable[str], intro: str = "; nearest: ") -> str:
    """Return `; nearest: 'a', 'b'` for the words most like `word` (at most 3), or an empty text."""
    found = get_close_matches(word[:200], list(words), n=3)
    return intro + ", ".join(map(repr, found)) if found else ""


def expand(raw: Mapping[str, Any], named: Sequence[str] = NAMED) -> dict[str, Any]:
    """Write shorthands out: `backbone: x` is `{id: x}`, `method: x` is `{name: x}`, a null section is empty.

    `named` are the sections of names that are looked into: an arm of `compare` may have `tasks`, a task has neither.
    """
    out = dict(raw)
    for key in out.keys() & set(SECTIONS):
        if out[key] is None:
            out[key] = {}
        elif isinstance(out[key], str) and key in SHORTHANDS:
            out[key] = {SHORTHANDS[key]: out[key]}
    for key in named:
        inside = ("tasks",) if key == "compare" else ()
        if isinstance(out.get(key), Mapping):
            out[key] = {
                name: expand(over or {}, inside) if over is None or isinstance(over, Mapping) else over
                for name, over in out[key].items()
            }
    return out


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `over` on a recipe's mapping: sections are merged key by key, and a null section replaces what was there.

    Where `over` names another method, the old method's fields are dropped, and with another backbone its revision.
    Arms of `compare` and entries of `tasks` merge in the same way.
    """
    below, above = expand(base), expand(over)
    out = _merge(below, {key: value for key, value in above.items() if key not in ("method", *NAMED)})
    out.update({key: {} for key in SECTIONS if key in over and over[key] is None})
    old, new = below.get("backbone"), above.get("backbone")
    if isinstance(old, Mapping) and isinstance(new, Mapping) and "id" in new and new["id"] != old.get("id", "bundled"):
        out["backbone"] = {key: value for key, value in out["backbone"].items() if key != "revision" or key in new}
    if "method" in above and over["method"] is not None:
        old, new = below.get("method", {}), above["method"]
        same = (
            isinstance(old, Mapping)
            and isinstance(new, Mapping)
            and new.get("name") in (None, old.get("name", "prefix"))
        )
        out["method"] = {**old, **new} if same else new
    for key in NAMED:
        if key in above and over[key] is not None:
            old, new = below.get(key, {}), above[key]
            if isinstance(old, Mapping) and isinstance(new, Mapping):
                new = {**old, **{name: _overlay_named(old.get(name), value) for name, value in new.items()}}
            out[key] = new
    return out


TEMPLATES = {("data", "input"), ("data", "target")}
"""Keys whose override is text as it stands when it holds a brace: `data.input={name}` is a template, not a mapping.

A list of quoted templates is one: `data.target=["{first}", "{second}"]`.
"""
VERBATIM = {("data", "delimiter")}
"""Keys of which one character is text as it stands: `|` and `,` are signs of YAML's."""


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Turn `train.lr=1e-3` texts into one nested mapping, the later over the earlier; values are read as YAML."""
    out, nulls = dict[str, Any](), dict[str, Any]()
    for text in overrides:
        shown = f"override {text[:200]!r}"
        key, equals, value = text.partition("=")
        path = key.strip().split(".")
        template = tuple(path) in TEMPLATES and "{" in value
        if flaw := flaw_of(text if template else key):
            raise ConfigError(f"{shown}: expected text, got {flaw}. Take it out.")
        if len(path) > 100:
            raise ConfigError(f"{shown}: expected a key of a recipe, got one of {len(path)} parts.")
        if not equals or not all(path):
            raise ConfigError(f"{shown}: expected key=value with a dotted key, such as train.lr=1e-4.")
        nested = _override(tuple(path), value, shown)
        if path[0] in SECTIONS and len(path) == 1 and nested is None:
            nulls[path[0]] = None
        else:
            for part in reversed(path):
                nested = {part: nested}
            out = _merge(expand(out), expand(nested))
        if nulls.keys() & out.keys():
            raise ConfigError(f"{shown}: {path[0]} is set to null and to something else. Drop one of the two.")
    return out | nulls


def _override(path: KeyPath, value: str, shown: str) -> Any:
    if path in VERBATIM and len(value) == 1:
        return value
    if path in TEMPLATES and "{" in value:
        try:
            found = parse_yaml(value, shown).data
        except ConfigError:
            return value
        return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else value
    return parse_yaml(value, shown).data


def locator(path: Path, places: Mapping[KeyPath, str], overrides: Sequence[str]) -> Callable[[KeyPath], str]:
    """Return a function that says where a key was set: by which override, or in which file and line (`places`)."""

    keys = [tuple(text.partition("=")[0].strip().split(".")) for text in overrides]

    def where(key: KeyPath) -> str:
        for parts, text in zip(reversed(keys), reversed(overrides), strict=True):
            if parts == key[: len(parts)]:
                return f"recipe {path}, override {text[:200]!r}"
        if any(parts[: len(key)] == key for parts in keys):
            return f"recipe {path} with its overrides"
        length = next((n for n in range(len(key), 0, -1) if key[:n] in places), None)
        return f"recipe {places[key[:length]]}" if length else f"recipe {path}"

    return where


def show(value: Any) -> str:
    """Return a value as a message shows it: short, and with its type where that is the likely mistake."""
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else f"the text {value[:60]!r}..."
    if isinstance(value, Mapping):
        return "a section with the keys " + ", ".join(map(str, list(value)[:5])) if value else "an empty section"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.6g}" if isinstance(value, float) else f"{value!r:.60}" if abs(value) < 10**50 else "a huge number"


def describe(annotation: Any, bounds: Iterable[Any]) -> str:
    """Say in words what a field takes: its type, and its bounds as pydantic keeps them (`ge`, `gt`, ... attributes)."""
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path (text)"}
    parts = list(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else [annotation]
    kinds: list[str] = []
    for part in (
        get_args(part)[0] if get_origin(part) is Annotated else part for part in parts if part is not NoneType
    ):
        if get_origin(part) is Literal:
            kinds.append("one of " * (len(get_args(part)) > 1) + ", ".join(map(str, get_args(part))))
        else:
            section = f"a section with {', '.join(getattr(part, 'model_fields', ()))}"
            kinds.append(_collection(part) if get_origin(part) in (tuple, list, dict) else words.get(part, section))
    kinds = ["a number"] if kinds == ["a whole number", "a number"] else kinds
    kinds += ["null"] if NoneType in parts else []
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >=", "max_length": "length <="}
    limits = [f"{sign} {getattr(item, key)}" for item in bounds for key, sign in signs.items() if hasattr(item, key)]
    limits += ["of letters, digits, '.', '_' and '-'" for item in bounds if getattr(item, "pattern", None)]
    return ", ".join([" or ".join(kinds), *limits])


def _collection(kind: Any) -> str:
    if get_origin(kind) is dict:
        return "a section of names"
    if get_origin(kind) is list and str not in get_args(kind):
        return "a list of " + ", ".join(str(one) for part in get_args(kind) for one in get_args(part))
    return "a list of texts" if str in get_args(kind) else "a list of 2 numbers"


def suggest(path: KeyPath, names: Iterable[str]) -> str:
    """Return `; nearest: 'train.lr'` for an unknown key: by whole name, by last part anywhere, and by `ALIASES`."""
    wanted, leaf = ".".join(path)[:80], path[-1][:80].lower()
    scores: dict[str, float] = {}
    for name in names:
        near = 0.1 if len(path) > 1 and name.startswith(path[0] + ".") else 0.0
        words = (name.rpartition(".")[2], *ALIASES.get(name, ()))
        by_leaf = max(SequenceMatcher(None, leaf, word).ratio() for word in words) - 0.05 + near
        scores[name] = max(SequenceMatcher(None, wanted, name).ratio(), by_leaf)
    best = sorted((name for name in scores if scores[name] >= 0.7), key=lambda name: -scores[name])[:3]
    return "; nearest: " + ", ".join(map(repr, best)) if best else ""


def _overlay_named(old: Any, new: Any) -> Any:
    return overlay(old, new) if isinstance(old, Mapping) and isinstance(new, Mapping) else new


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out
