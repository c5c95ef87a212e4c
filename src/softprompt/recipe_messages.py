"""What is said of a recipe that is wrong: every problem with its place, what was expected, and what was got."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from softprompt.errors import ConfigError
from softprompt.method_config import METHOD_CONFIGS, PrefixTuning
from softprompt.parts import Where
from softprompt.recipes import NAMED, KeyPath, describe, nearest, show, suggest

MOST_PROBLEMS = 10
"""Problems that one message lists."""
NAMED_LIKE = {
    "compare": "arm names, each with overrides, such as {finetune: {method: finetune}}",
    "tasks": "names of tasks, each with overrides, such as {cola: {data: {task: glue-cola}}}",
}


@dataclass(frozen=True, slots=True)
class Schema:
    """The fields of a recipe, and the models of its sections; those of `method` are in `METHOD_CONFIGS`."""

    fields: Mapping[str, FieldInfo]
    sections: Mapping[str, type[BaseModel]]


def names(schema: Schema) -> list[str]:
    """Return the dotted name of every field; the fields of all methods are under `method`."""
    found = list(schema.fields)
    for model in METHOD_CONFIGS.values():
        found += [f"method.{key}" for key in model.model_fields]
    for section, config in schema.sections.items():
        found += [f"{section}.{key}" for key in config.model_fields]
    return list(dict.fromkeys(found))


def check(schema: Schema, raw: Mapping[str, Any], where: Where, root: KeyPath) -> None:
    """Raise one ConfigError for all keys that are not known and all sections that are not mappings."""
    found = itertools.islice(_problems(schema, raw, root), MOST_PROBLEMS + 1)
    problems = [f"{where((*root, *path))}: {text}" for path, text in found]
    if problems:
        raise ConfigError("\n".join(_first(problems)))


def _first(problems: Sequence[str]) -> list[str]:
    """The first of many problems, and that there are more."""
    return [*problems[:MOST_PROBLEMS], *(["... and more; mend these first."] if problems[MOST_PROBLEMS:] else [])]


def explain(schema: Schema, error: ValidationError, where: Where, root: KeyPath) -> ConfigError:
    """What pydantic says, as one error with a line for each problem."""
    found = error.errors(include_url=False)[: 10 * MOST_PROBLEMS]
    problems = list(dict.fromkeys(_explain(schema, item, where, root) for item in found))
    return ConfigError("\n".join(_first(problems)))


def _problems(schema: Schema, raw: Mapping[str, Any], root: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    sections: dict[str, type[BaseModel]] = {**schema.sections, "method": _method(raw.get("method"))}
    for key, value in raw.items():
        dotted = ".".join((*root, key[:80]))
        if key not in schema.fields:
            guess = suggest((key,), names(schema)) or f"; expected one of: {', '.join(schema.fields)}"
            yield (key,), f"unknown key {dotted!r}{guess}."
        elif key in NAMED and not (
            isinstance(value, Mapping) and all(isinstance(over, Mapping) for over in value.values())
        ):
            yield (key,), f"{dotted}: expected {NAMED_LIKE[key]}."
        elif key in sections and not isinstance(value, Mapping):
            keys = ", ".join(sections[key].model_fields)
            yield (key,), f"{dotted}: expected a section with keys such as {keys}; got {show(value)}."
        elif key in sections:
            for name in value:
                if name not in sections[key].model_fields:
                    yield (
                        (key, name),
                        f"unknown key '{dotted}.{name[:80]}'{_belongs(schema, sections[key], key, name)}.",
                    )


def _method(raw: Any) -> type[BaseModel]:
    """Return the model of a method section; of `prefix` where the name is missing or unknown (reported later)."""
    name = raw.get("name") if isinstance(raw, Mapping) else None
    return METHOD_CONFIGS.get(name, PrefixTuning) if isinstance(name, str) else PrefixTuning


def _belongs(schema: Schema, section: type[BaseModel], key: str, name: str) -> str:
    owners = [method for method, config in METHOD_CONFIGS.items() if key == "method" and name in config.model_fields]
    if owners:
        mine = section.model_fields["name"].default
        return f" for the method {mine!r}: it belongs to {', '.join(map(repr, owners))}. Drop it, or change method.name"
    return suggest((key, name), names(schema)) or f"; {key} has: {', '.join(section.model_fields)}"


def _explain(schema: Schema, error: Any, where: Where, root: KeyPath) -> str:
    """Turn one of pydantic's errors into `where: key: expected ..., got .... What the key is, and its default.`"""
    loc = [str(part) for part in error["loc"]]
    if loc[:1] == ["method"]:
        loc[1:2] = ["name"] if error["type"].startswith("union_tag") else []
    path = tuple(loc[: 2 if loc and loc[0] in {*schema.sections, "method"} else 1])
    start = f"{where((*root, *path))}: {'.'.join((*root, *path)) or 'recipe'}"
    if error["type"] == "value_error":
        return f"{start}: {error['ctx']['error']}."
    value = error["input"]
    if path == ("method", "name"):
        got = value.get("name") if isinstance(value, Mapping) else value
        guess = nearest(got, METHOD_CONFIGS) if isinstance(got, str) else ""
        return f"{start}: expected one of {', '.join(METHOD_CONFIGS)}; got {show(got)}{guess}."
    method = METHOD_CONFIGS.get(str(error["loc"][1]), PrefixTuning) if len(error["loc"]) > 1 else PrefixTuning
    sections: dict[str, type[BaseModel]] = {**schema.sections, "method": method}
    fields = sections[path[0]].model_fields if len(path) == 2 else schema.fields
    info = fields.get(path[-1]) if path else None
    if info is None:
        return f"{start}: {error['msg']}, got {show(value)}."
    inner = ".".join(loc[len(path) :])
    if inner and any(isinstance(part, type) and issubclass(part, BaseModel) for part in get_args(info.annotation)):
        said = error["msg"].replace("a valid tuple", "a list")
        unknown = "unknown key" if error["type"] == "extra_forbidden" else f"{said}, got {show(value)}"
        return f"{start}.{inner}: {unknown}. Expected {describe(info.annotation, ())}: {info.description}."
    default = "" if info.is_required() or info.default_factory else f" (default: {_plain(info.default)})"
    high = error["type"].startswith("less_than")  # bounds against the absurd are said where they are met
    bounds = [item for item in info.metadata if high or getattr(item, "le", 0) <= 1]
    wanted = describe(info.annotation, bounds)
    return f"{start}: expected {wanted}; got {show(value)}. It means: {info.description}{default}."


def _plain(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else value if isinstance(value, str) else show(value)
