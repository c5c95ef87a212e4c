"""Going on with a run: what must be as it was, named by field, and what the user accepts by name."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt import data
from softprompt.config import Recipe, field_names, load_recipe, to_dict
from softprompt.errors import ConfigError
from softprompt.method_config import InContextConfig, UntunedConfig
from softprompt.recipes import NAMED, nearest

ENV, RECIPE = "env.json", "recipe.yaml"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as it was when the run was started."""

    field: str
    what: str


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed since a run was started, and the arms that it reaches."""

    changes: tuple[Change, ...] = ()
    arms: frozenset[str] = frozenset()


def difference(folder: Path, recipe: Recipe, arms: Mapping[str, Recipe]) -> Difference:
    """Compare recipe and data with those that the run in `folder` was started with; nothing, where there is none.

    Raises:
        ConfigError: the folder's own recipe cannot be read, or a data file is gone.
    """
    if not (folder / RECIPE).exists():
        return Difference()
    old = _what_counts(load_recipe(str(folder / RECIPE)))
    arms = {arm: _what_counts(own) for arm, own in arms.items()}
    differ = unlike(to_dict(old), to_dict(_what_counts(recipe)))
    found = [Change(key, f"{was!r} -> {now!r}") for key, was, now in differ]
    reached = {arm for arm in arms if arm not in old.arms() or _acting(old.arm(arm)) != _acting(arms[arm])}
    known = read_env(folder).get("data", {})
    known = {**{str(Path(name).absolute()): sha for name, sha in known.items()}, **known}  # once they were relative
    for arm, own in arms.items():
        for split, name, digest in inputs(own):
            if known.get(name) not in (None, digest):
                found.append(Change(f"data.{split}", f"the content of {name}"))
                reached.add(arm)
    return Difference(tuple(dict.fromkeys(found)), frozenset(reached))


def as_started(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with what it leaves to a default as the run in `folder` was started, where that wrote it down.

    Runs of versions that had `decode.labels` off by default go on so.
    """
    if recipe.decode.labels is not None or not (folder / RECIPE).exists():
        return recipe
    before = load_recipe(str(folder / RECIPE)).decode.labels
    return recipe.model_copy(update={"decode": recipe.decode.model_copy(update={"labels": before})})


def inputs(recipe: Recipe) -> list[tuple[str, str, str]]:
    """Split, name and SHA-256 of everything that the data of a recipe and of its tasks is read from."""
    return [one for part in recipe.parts().values() for one in data.identity(part.data)]


def backbone_change(folder: Path, key: str, digest: str) -> list[Change]:
    """The change of weights since another sitting of the run in `folder`; empty where there is none."""
    was = read_env(folder).get("backbones", {}).get(key)
    return [] if was in (None, digest) else [Change("backbone.id", f"the weights of {key}")]


def require_accepted(changes: Iterable[Change], allowed: Sequence[str], folder: Path) -> None:
    """Raise `ConfigError` naming every change that no entry of `allowed` (a field or a section) names."""
    refused = [one for one in changes if not any(f"{one.field}.".startswith(f"{name}.") for name in allowed)]
    if refused:
        listed = "; ".join(f"{one.field} ({one.what})" for one in refused[:3])
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise ConfigError(
            f"cannot resume {folder}: changed since the run was started: {listed}{more}. Resume with what it was "
            f"started with, use --out for another folder, or accept it with --allow-change {refused[0].field}."
        )


def require_known(allowed: Sequence[str], resume: bool) -> None:
    """Raise `ConfigError` for accepted names that are no field of a recipe, or that are given without a resume."""
    if allowed and not resume:
        raise ConfigError("--allow-change has no effect without --resume. Add it, or drop --allow-change.")
    known = field_names()
    for name in allowed:
        if name not in known and name.split(".")[0] not in NAMED:
            raise ConfigError(f"--allow-change {name}: expected a field of a recipe{nearest(name, known)}.")


def unlike(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Dotted name, old and new value of each leaf by which two nested mappings differ; None where there is none."""
    was, now = _flat(old), _flat(new)
    return [
        (key, was.get(key), now.get(key)) for key in sorted(was.keys() | now.keys()) if was.get(key) != now.get(key)
    ]


def read_env(folder: Path) -> dict[str, Any]:
    """env.json of a run; empty where there is none or it cannot be read as one."""
    try:
        found = json.loads((folder / ENV).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _what_counts(recipe: Recipe) -> Recipe:
    """The recipe without what is only shown."""
    return recipe.model_copy(update={"published": None})


def _acting(arm: Recipe) -> Recipe:
    """An arm's recipe without what does not act in it: where nothing is trained, how that is done."""
    trains = not isinstance(arm.method, UntunedConfig | InContextConfig)
    return arm if trains else arm.model_copy(update={"train": None})


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, part in value.items():
        flat |= _flat(part, f"{prefix}.{name}".strip("."))
    return flat
