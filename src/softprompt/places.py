"""Where things lie in a run folder, and that nothing lies in their way: no link, no folder for a file, nobody's own."""

from collections.abc import Iterator
from pathlib import Path

from softprompt.errors import CheckpointError, ConfigError
from softprompt.files import MANIFEST, require_replaceable
from softprompt.plain import is_temporary, read_json, require_file, require_folder
from softprompt.sealed import has_seal

LOCK = ".lock"
RECIPE, ENV, STATUS = "recipe.yaml", "env.json", "status.json"
SCORES, SPLITS, METRICS, CARD = "scores.json", "splits.json", "metrics.jsonl", "README.md"
CHECKPOINTS, PREDICTIONS, BOARD, ARMS, TASKS = "checkpoints", "predictions", "tb", "arms", "tasks"
TEST = "test.jsonl"
FILES = (RECIPE, ENV, STATUS, SCORES, SPLITS, METRICS, CARD, f"{PREDICTIONS}/{TEST}")
FOLDERS = (CHECKPOINTS, PREDICTIONS, BOARD, ARMS, TASKS)
KEPT_IN = {
    **{"prefix": "prompt", "prompt": "prompt"},
    **{"dept": "adapter", "adapter": "adapter", "lora": "adapter", "peft": "adapter", "finetune": "model"},
}
"""Method -> folder in a run that its artefact is kept in; of no other method anything is kept."""


def entries(folder: Path) -> list[str]:
    """What is in a folder, but for the lock and what a write leaves beside something; empty where there is none."""
    if not folder.exists():
        return []
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK and not is_temporary(path.name))


def require_free(folder: Path, resume: bool) -> None:
    """Raise `ConfigError` where `folder` is a file, or holds something and the run is not to go on with it."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"run folder {folder}: expected a folder, got a file. Use --out for another place.")
    if not resume and entries(folder):
        raise ConfigError(
            f"run folder {folder} is not empty. Use --resume to go on with it, or --out for another folder."
        )


def require_run(folder: Path) -> None:
    """Raise `ConfigError` where `folder` holds something and is no run's: nobody's own files are written among."""
    there = entries(folder)
    if there and not is_run(folder):
        listed = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
        raise ConfigError(
            f"run folder {folder}: expected none, an empty one, or that of a run with its {RECIPE}, got one that no "
            f"run wrote, with {listed}. Use --out for another folder."
        )


def is_run(folder: Path) -> bool:
    """Whether a run wrote this folder: by the seals of its records, or as versions before them wrote them."""
    if any(has_seal(folder / name) for name in (RECIPE, ENV, STATUS)):
        return True
    known = _has_key(folder / ENV, "packages") or _has_key(folder / STATUS, "status")
    return known or any(path.is_file() for path in folder.glob(f"{CHECKPOINTS}/step-*/{MANIFEST}"))


def require_clear(places: dict[Path, str | None], root: Path) -> None:
    """Raise `ConfigError` where a link, or something of somebody's own, is where a run is going to write.

    Args:
        places: folder of an arm or task -> its method, or None where it learns nothing.
        root: the run's folder, which may itself be a link.
    """
    for place, method in places.items():
        for parent in reversed([one for one in place.parents if one.is_relative_to(root) and one != root]):
            require_folder(parent)
        if place != root:
            require_folder(place)
        for name in FOLDERS:
            require_folder(place / name)
        for name in FILES:
            require_file(place / name)
        if method in KEPT_IN:
            require_replaceable(place / KEPT_IN[method])


def kept_folders(place: Path) -> Iterator[Path]:
    """The artefacts that lie in the folder of an arm or task."""
    for name in dict.fromkeys(KEPT_IN.values()):
        if (place / name).is_dir():
            yield place / name


def _has_key(path: Path, key: str) -> bool:
    try:
        found = read_json(path)
    except (FileNotFoundError, CheckpointError):
        return False
    return isinstance(found, dict) and key in found
