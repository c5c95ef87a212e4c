"""What a recipe's tasks set for themselves, as plain mappings: defaults that a task brings, and who covers whom."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from softprompt.decode_config import DecodeConfig
from softprompt.errors import ConfigError
from softprompt.recipes import KeyPath, overlay
from softprompt.tasks import Task, load_task

PART_SECTIONS = ("data", "method", "decode", "score")
"""Sections of a recipe that each of several tasks may set for itself."""
Where = Callable[[KeyPath], str]


def without_methods(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's mapping whose tasks have no method fields of their own: they are of another method."""
    tasks = {
        name: {key: value for key, value in over.items() if key != "method"} for name, over in raw["tasks"].items()
    }
    return {**raw, "tasks": tasks}


def hidden(over: Mapping[str, Any], tasks: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Section, key and task of what an arm's overrides set and a task's own settings cover."""
    for section in PART_SECTIONS:
        for key in section_of(over, section):
            for task, own in tasks.items():
                theirs = section_of(section_of(section_of(over, "tasks"), task), section)
                if key in section_of(own, section) and key not in theirs:
                    yield section, key, task


def section_of(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A section, or an empty one where there is none, or none that is one (reported when the recipe is built)."""
    found = raw.get(key)
    return found if isinstance(found, Mapping) else {}


def with_tasks(raw: dict[str, Any], where: Where) -> dict[str, Any]:
    """`_with_task`, or each of several tasks over its own decode settings; what the recipe sets for all goes first."""
    tasks = raw.get("tasks")
    if not tasks or not isinstance(tasks, Mapping):
        return _with_task(raw, where)
    filled = {name: _own_decode(raw, name, over, where) for name, over in tasks.items()}
    return {**raw, "tasks": filled}


def with_typed_decode(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved recipe's mapping without the decode settings that nobody typed: its tasks' own, and defaults.

    What is laid over it then meets what the recipe says, and `with_tasks` fills in what fits the strategy that comes
    out. A setting that is as its task has it counts as the task's.
    """
    tasks = {name: {**over, "decode": dict(section_of(over, "decode"))} for name, over in raw["tasks"].items()}
    decode = dict(raw["decode"])
    strategy, labels = decode["strategy"], decode["labels"]
    brought = {name: _brought({"data": {**raw["data"], **section_of(over, "data")}}) for name, over in tasks.items()}
    covered = {
        key
        for name, task in brought.items()
        if task
        for key in task.decode_for(strategy, labels)
        if key not in tasks[name]["decode"]
    }
    task = _brought(raw) if not tasks else None
    own = {} if task is None else task.decode_for(strategy, labels)
    usual = DecodeConfig(**{"strategy": strategy, "labels": labels}).model_dump()
    usual |= {key: DecodeConfig.model_fields[key].default for key in ("strategy", "labels")} | own
    usual["strategy"] = "beam" if task is None else task.decode.get("strategy", "beam")
    for key, value in list(decode.items()):
        if value == usual[key] and key not in covered:
            del decode[key]
    for name, over in tasks.items():
        found = brought[name]
        theirs = over["decode"]
        its = {} if found is None else found.decode_for(theirs.get("strategy", strategy), theirs.get("labels", labels))
        over["decode"] = {key: value for key, value in theirs.items() if key not in its or its[key] != value}
    kept = {name: {k: v for k, v in over.items() if k != "decode" or v} for name, over in tasks.items()}
    return {**raw, "decode": decode, "tasks": kept}


def _brought(raw: Mapping[str, Any]) -> Task | None:
    name = section_of(raw, "data").get("task")
    return load_task(name) if isinstance(name, str) else None


def _own_decode(raw: Mapping[str, Any], name: str, over: Any, where: Where) -> Any:
    if not isinstance(over, Mapping):
        return over
    given = {
        key: overlay({key: raw.get(key, {})}, {key: over[key]} if key in over else {})[key]
        for key in ("data", "decode")
    }
    filled = _with_task(given, lambda path: where(("tasks", name, *path)))["decode"]
    if not isinstance(given["decode"], Mapping) or filled == given["decode"]:
        return over
    return overlay({"decode": {key: value for key, value in filled.items() if key not in given["decode"]}}, over)


def _with_task(raw: dict[str, Any], where: Where) -> dict[str, Any]:
    """Lay a recipe's mapping over its task's decode settings; those of another strategy are left out."""
    data = raw.get("data")
    if not isinstance(data, Mapping):
        return raw
    named = {key: _task(data[key], key, where) for key in ("task", "test_task") if isinstance(data.get(key), str)}
    if "task" not in named:
        return raw
    if isinstance(data.get("template"), str):
        try:
            named["task"].wording(data["template"])
        except ConfigError as error:
            raise ConfigError(f"{where(('data', 'template'))}: {error}") from None
    strategy, labels = (section_of(raw, "decode").get(key) for key in ("strategy", "labels"))
    return overlay({"decode": named["task"].decode_for(strategy, labels)}, raw)


def _task(name: str, key: str, where: Where) -> Task:
    try:
        return load_task(name)
    except ConfigError as error:
        raise ConfigError(f"{where(('data', key))}: data.{key}: {error}") from None
