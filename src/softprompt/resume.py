"""Going on with a run: what must be as it was, named by field, and what the user accepts by name."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt import data
from softprompt.config import MAIN, Recipe, field_names, load_recipe, to_dict
from softprompt.env import FORMAT, Env, read_env
from softprompt.errors import CheckpointError, ConfigError
from softprompt.method_config import InContextConfig, UntunedConfig
from softprompt.places import ARMS, CHECKPOINTS, ENV, PREDICTIONS, RECIPE, SCORES, TASKS, kept_folders
from softprompt.recipes import NAMED, SECTIONS, nearest
from softprompt.sealed import read_sealed_text

Inputs = Sequence[tuple[str, str, str]]
"""Split, name and SHA-256 of everything that the data of an arm is read from."""


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
    unrecorded: bool = False
    """The run was begun by a version that kept no checksums and records."""

    @property
    def backbone(self) -> bool:
        """Whether the recipe names another backbone."""
        return any(f"{one.field}.".startswith("backbone.") for one in self.changes)


def difference(
    folder: Path, recipe: Recipe, arms: Mapping[str, Recipe], read: Mapping[str, Inputs] | None = None
) -> Difference:
    """Compare recipe and data with those that the run in `folder` was started with; nothing, where there is none.

    A record that is missing or damaged where there are results is a change of all that it holds: it is not known.

    Args:
        arms: arm -> its recipe.
        read: arm -> what its data is read from, where that is known already.

    Raises:
        ConfigError: the folder's own recipe is none of this version, or a data file is gone.
    """
    env, no_env = _env(folder)
    old, no_recipe, sealed = _recipe(folder, env)
    if sealed and env is not None and env.format < FORMAT:
        env, no_env = None, f"{ENV} has no checksum, as {RECIPE} has"
    found: list[Change] = []
    reached: set[str] = set()
    begun = any(has_results(place) for place in places(folder))
    if old is not None:
        old, counting = _what_counts(old), {arm: _what_counts(own) for arm, own in arms.items()}
        differ = unlike(to_dict(old), to_dict(_what_counts(recipe)))
        found += [Change(key, f"{was!r} -> {now!r}") for key, was, now in differ]
        reached |= {
            arm for arm, own in counting.items() if arm not in old.arms() or _acting(old.arm(arm)) != _acting(own)
        }
    elif begun:
        sections = [*(section for section in SECTIONS if section not in NAMED), "seed"]
        found += [Change(section, f"not known: {no_recipe}") for section in sections]
        reached |= arms.keys()
    if env is not None:
        read = {arm: inputs(own) for arm, own in arms.items()} if read is None else read
        for arm, split, name in _changed_data(folder, env, read):
            found.append(Change(f"data.{split}", f"the content of {name}"))
            reached.add(arm)
    elif begun:
        found += [Change(section, f"not known: {no_env}") for section in ("data", "backbone")]
        reached |= arms.keys()
    earlier = begun and not sealed and (env is None or env.format < FORMAT)
    return Difference(tuple(dict.fromkeys(found)), frozenset(reached), earlier)


def _env(folder: Path) -> tuple[Env | None, str]:
    """env.json, or why there is none to be had."""
    try:
        return read_env(folder), ""
    except FileNotFoundError:
        return None, f"{ENV} is missing"
    except CheckpointError as error:
        return None, str(error).rstrip(".")


def _recipe(folder: Path, env: Env | None) -> tuple[Recipe | None, str, bool]:
    """recipe.yaml, or why there is none to be had; and whether it is sealed."""
    path = folder / RECIPE
    try:
        _, sealed = read_sealed_text(path)
    except FileNotFoundError:
        return None, f"{RECIPE} is missing", False
    except CheckpointError as error:
        return None, str(error).rstrip("."), True
    if not sealed and env is not None and env.format == FORMAT and not env.unrecorded:
        return None, f"{path}: damaged: its checksum is gone", True
    return load_recipe(str(path)), "", sealed


def _changed_data(folder: Path, env: Env, read: Mapping[str, Inputs]) -> Iterator[tuple[str, str, str]]:
    """Arm, split and name of what is not as env.json has it, or is not in it though the arm was begun."""
    for arm, several in read.items():
        begun = any(map(has_results, _of_arm(folder, arm)))
        for split, name, digest in several:
            was = env.data.get(name, None if begun and digest not in env.data.values() else digest)
            if was != digest:
                yield arm, split, name


def places(folder: Path) -> Iterator[Path]:
    """The folders of all arms and tasks that lie in a run's."""
    for arm in (folder, *sorted(path for path in (folder / ARMS).glob("*") if path.is_dir())):
        yield arm
        yield from sorted(path for path in (arm / TASKS).glob("*") if path.is_dir())


def _of_arm(folder: Path, arm: str) -> Iterator[Path]:
    place = folder if arm == MAIN else folder / ARMS / arm
    yield place
    yield from (path for path in (place / TASKS).glob("*") if path.is_dir())


def has_results(place: Path) -> bool:
    """Whether anything that a run made lies in the folder of an arm or task."""
    made = (place / SCORES, place / PREDICTIONS, *place.glob(f"{CHECKPOINTS}/step-*"), *kept_folders(place))
    return any(path.exists() for path in made)


def as_started(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with what it leaves to a default as the run in `folder` was started, where that wrote it down.

    Runs of versions that had `decode.labels` off by default go on so. A recipe that is damaged is for `difference`.
    """
    if recipe.decode.labels is not None or not (folder / RECIPE).is_file():
        return recipe
    try:
        read_sealed_text(folder / RECIPE)
        before = load_recipe(str(folder / RECIPE)).decode.labels
    except (CheckpointError, ConfigError):
        return recipe
    return recipe.model_copy(update={"decode": recipe.decode.model_copy(update={"labels": before})})


def inputs(recipe: Recipe) -> list[tuple[str, str, str]]:
    """Split, name and SHA-256 of everything that the data of a recipe and of its tasks is read from."""
    return [one for part in recipe.parts().values() for one in data.identity(part.data)]


def backbone_change(env: Env, key: str, digest: str, begun: bool) -> list[Change]:
    """The change of weights since another sitting of a run; empty where there is none.

    `begun`: something was made on it before, so that it has to be known.
    """
    was = env.backbones.get(key)
    if was is None and begun:
        return [Change("backbone.id", f"not known: {ENV} has no hash of {key}")]
    return [] if was in (None, digest) else [Change("backbone.id", f"the weights of {key}")]


def require_accepted(changes: Iterable[Change], allowed: Sequence[str], folder: Path) -> None:
    """Raise `ConfigError` naming every change that no entry of `allowed` (a field or a section) names."""
    refused = [one for one in changes if not any(f"{one.field}.".startswith(f"{name}.") for name in allowed)]
    if refused:
        listed = "; ".join(f"{one.field} ({one.what})" for one in refused[:3])
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise ConfigError(
            f"cannot resume {folder}: changed since the run was started: {listed}{more}. Resume with what it was "
            f"started with, use --out for another folder, or accept it with {_flags(refused)}."
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


def _flags(refused: Sequence[Change]) -> str:
    fields = list(dict.fromkeys(one.field for one in refused))
    named = fields if len(fields) <= 8 else list(dict.fromkeys(field.split(".")[0] for field in fields))
    return " ".join(f"--allow-change {name}" for name in named)


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
