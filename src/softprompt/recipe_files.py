"""Recipe files: the bundled ones by name, a user's by path, and a recipe laid over the one that it names as `base`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from softprompt.errors import ConfigError
from softprompt.paths import beside, located
from softprompt.recipes import KeyPath, nearest, overlay, read_yaml, show

FORMER_NAMES = {
    "e2e-gpt2-medium": "prefix-tuning/e2e",
    "e2e-gpt2-medium-finetune": "prefix-tuning/e2e-finetune",
}
"""Names that bundled recipes had once: they are found, and not listed."""
OWN_KEYS = ("name", "published")
"""What a recipe says of itself alone: not taken over from its base."""
MOST_BASES = 16
"""Recipes, one based on the other."""


@dataclass(frozen=True, slots=True)
class RecipeInfo:
    """One bundled recipe: its name, the first line of its leading comment, and its file."""

    name: str
    title: str
    path: Path

    @property
    def group(self) -> str:
        """The paper that it is of: the folder in its name; "" where it has none."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class RecipeText:
    """What a recipe file says, its base included, and where it says it."""

    path: Path
    name: str
    """What its run folder is called where the recipe does not say."""
    data: dict[str, Any]
    places: Mapping[KeyPath, str]
    """Key -> `file:line`."""


def recipe_folder() -> Path:
    """Return the folder of the bundled recipes; those of a paper are in a folder of it."""
    return Path(str(files("softprompt"))) / "assets" / "recipes"


def list_recipes() -> list[RecipeInfo]:
    """Return the bundled recipes, group by group; reads only each file's first line."""
    infos = [RecipeInfo(name, _title(path), path) for name, path in _bundled().items()]
    return sorted(infos, key=lambda info: (info.group, info.name))


def find_recipe(ref: str) -> Path:
    """Return the file of a bundled recipe's name or of a path to a YAML file; ConfigError if there is none."""
    bundled = _bundled()
    known = FORMER_NAMES.get(ref, ref)
    if known in bundled:
        return bundled[known]
    path = Path(ref)
    try:
        if path.is_file():
            return path
        state = "it is a folder, not a file" if path.is_dir() else "there is no such file or bundled recipe"
    except (OSError, ValueError) as error:
        state = f"it cannot be read ({getattr(error, 'strerror', None) or error})"
    wanted = ref.removesuffix(".yaml").removesuffix(".yml")
    guess = nearest(wanted, bundled) or nearest(Path(wanted).name, bundled)
    raise ConfigError(
        f"recipe {ref[:200]!r}: {state}{guess}. Expected a YAML file, or one of `softprompt list recipes`."
    )


def read_recipe(ref: str) -> RecipeText:
    """Read a recipe, laid over its base, and that over its own; ConfigError with `file:line`.

    `base: NAME_OR_PATH` names the recipe that holds where this one is silent: sections are merged as those of an
    override are, all but `OWN_KEYS`. Paths are relative to the file that names them: see `softprompt.paths`.
    """
    return _read(find_recipe(ref), ())


def _read(path: Path, above: tuple[Path, ...]) -> RecipeText:
    document = read_yaml(path)
    if not isinstance(document.data, dict):
        raise ConfigError(f"recipe {path}: expected keys such as method and data, got {show(document.data)}.")
    data = located(document.data, None if path.is_relative_to(recipe_folder()) else path.parent)
    places = {key: f"{path}:{line}" for key, line in document.lines.items()}
    if "base" in data:
        base = data.pop("base")
        near = beside(base, path) if isinstance(base, str) and base not in _bundled() else base
        below = _base(near, f"recipe {places['base',]}: base", (*above, path))
        data = overlay({key: value for key, value in below.data.items() if key not in OWN_KEYS}, data)
        places = {**below.places, **places}
    return RecipeText(path, _run_name(path), data, places)


def _base(ref: Any, where: str, above: tuple[Path, ...]) -> RecipeText:
    if not isinstance(ref, str):
        raise ConfigError(f"{where}: expected the name or the file of a recipe, got {show(ref)}.")
    try:
        path = find_recipe(ref)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    if path.resolve() in [one.resolve() for one in above]:
        raise ConfigError(f"{where}: {ref!r} is based on this recipe itself. Name another.")
    if len(above) > MOST_BASES:
        raise ConfigError(f"{where}: expected at most {MOST_BASES} recipes based on one another, got more. Merge some.")
    return _read(path, above)


def _bundled() -> dict[str, Path]:
    folder = recipe_folder()
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def _run_name(path: Path) -> str:
    """`dept-glue-cola` for the bundled recipe `dept/glue-cola`, else the file's name."""
    folder = recipe_folder()
    name = path.relative_to(folder).with_suffix("").as_posix() if path.is_relative_to(folder) else path.stem
    return re.sub(r"[^\w.-]", "-", name)[:100].lstrip(".-") or "recipe"


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        first = next(lines, "")
    return first.lstrip("#").strip() if first.startswith("#") else ""
