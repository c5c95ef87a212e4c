"""Paths in recipes: relative to the file that names them, and written down so that they work from anywhere."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILES = {"data": ("train", "dev", "test", "dir", "test_dir"), "method": ("init_file",)}
"""Section -> its fields that are paths."""
BACKBONE = "config.json"
"""What makes a folder one of a backbone, and not a namesake of a hub id."""
_NAMED = ("compare", "tasks")
_DEPTH = 2
"""An arm of `compare` may have `tasks`."""


def located(raw: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """A recipe's mapping with its relative paths made absolute; what is no path or not right stays as it is.

    A path is relative to `folder`, that of the recipe's file; where nothing is there but something is in the working
    directory, to that. None: to the working directory (overrides; the package's own recipes, whose data are the
    user's). `~` stays. A backbone is a path where it is a folder with a config.json.
    """
    return _located(raw, folder, _DEPTH, {})


def beside(ref: str, file: Path) -> str:
    """The path of `ref` next to a file where one is there, else `ref`."""
    near = file.parent / ref
    return str(near) if _is(near, "is_file") else ref


def _located(raw: Mapping[str, Any], folder: Path | None, depth: int, done: dict[int, Any]) -> dict[str, Any]:
    out = dict(raw)
    for section, names in FILES.items():
        fields = out.get(section)
        if isinstance(fields, Mapping):
            out[section] = {key: _absolute(value, folder) if key in names else value for key, value in fields.items()}
    backbone = out.get("backbone")
    if isinstance(backbone, Mapping) and "id" in backbone:
        out["backbone"] = {**backbone, "id": _backbone(backbone["id"], folder)}
    elif isinstance(backbone, str):
        out["backbone"] = _backbone(backbone, folder)
    for key in _NAMED:
        several = out.get(key)
        if depth and isinstance(several, Mapping):
            for over in several.values():
                if isinstance(over, Mapping) and id(over) not in done:
                    done[id(over)] = _located(over, folder, depth - 1, done)
            out[key] = {name: done.get(id(over), over) for name, over in several.items()}
    return out


def _absolute(value: Any, folder: Path | None) -> Any:
    if not isinstance(value, str) or not value or value.startswith("~") or os.path.isabs(value):
        return value
    if folder is not None and (_is(folder / value, "exists") or not _is(Path(value), "exists")):
        return os.path.abspath(folder / value)
    return os.path.abspath(value)


def _backbone(value: Any, folder: Path | None) -> Any:
    if not isinstance(value, str) or not value or value.startswith("~"):
        return value
    here = [Path(value)] if folder is None else [folder / value, Path(value)]
    return next((os.path.abspath(path) for path in here if _is(path / BACKBONE, "is_file")), value)


def _is(path: Path, what: str) -> bool:
    try:
        return bool(getattr(path, what)())
    except (OSError, ValueError):
        return False
