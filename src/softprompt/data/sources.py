"""Which files, or splits of the hub, a recipe's data section reads, and their fingerprints."""

import hashlib
from collections.abc import Sequence
from importlib.resources import files as package_files
from pathlib import Path

from softprompt.data.hub import HubPart, hub_fingerprint
from softprompt.data.lines import require_file
from softprompt.data_config import DataConfig
from softprompt.errors import ConfigError
from softprompt.tasks import Hub, Policy, Split, Task, load_task

PARTS: tuple[Split, ...] = ("train", "dev", "test")


def policy_of(data: DataConfig) -> Policy:
    """The split policy of a recipe, else of its task, else `native`."""
    return data.split or (load_task(data.task).split if data.task else "native")


def own_parts(data: DataConfig) -> list[Split]:
    """The splits whose files are read, without those of `test_task`: a policy leaves a task's test file aside."""
    tested = tested_part(data) if data.test_task is None else None
    return [split for split in _given(data) if split != "test" or tested == "test"]


def tested_part(data: DataConfig) -> Split:
    """The split whose files the test examples come from: a policy makes them of dev, but for the user's own test."""
    given = _given(data)
    if data.test is None and "dev" in given and (policy_of(data) != "native" or "test" not in given):
        return "dev"
    return "test"


def tested_task(data: DataConfig) -> DataConfig:
    """The data section of `test_task` alone."""
    assert data.test_task is not None
    task = load_task(data.test_task)
    if not {"dev", "test"} & task.source.files.keys():
        raise ConfigError(f"data.test_task: expected a task with a dev or test split, got {task.name!r} without one.")
    template = data.template if data.template in task.templates else None
    return DataConfig(task=data.test_task, dir=data.test_dir, template=template)


def hub_of(data: DataConfig) -> Hub | None:
    """Return the hub data set that the splits without a file of the user's are read from, if they are."""
    return load_task(data.task).source.hub if data.task and data.dir is None else None


def origins(data: DataConfig) -> dict[Split, tuple[Path | HubPart, ...]]:
    """Return what each split is read from; ConfigError if a task's folder is not given or lacks a file.

    That is files, or a split of the hub where a task names a data set there and no folder is given.
    """
    found = origins_of(data, own_parts(data))
    if data.test_task is not None:
        other = tested_task(data)
        found["test"] = origins_of(other, [tested_part(other)])[tested_part(other)]
    return found


def origins_of(data: DataConfig, parts: Sequence[Split]) -> dict[Split, tuple[Path | HubPart, ...]]:
    """Return what these splits are read from: the user's files, else the task's; errors as `origins`."""
    found: dict[Split, tuple[Path | HubPart, ...]] = {
        split: (path,) for split in parts if (path := getattr(data, split)) is not None
    }
    lacking = [split for split in parts if split not in found]
    hub = hub_of(data)
    if hub is not None:
        found |= {split: (HubPart(hub, split),) for split in lacking}
    elif data.task is not None and lacking:
        task = load_task(data.task)
        folder = _folder(data, task, [name for split in lacking for name in task.source.names(split)])
        found |= {split: tuple(folder / name for name in task.source.names(split)) for split in lacking}
    return {split: found[split] for split in parts}


def reads_hub(data: DataConfig) -> bool:
    """Whether a split is read from the hub, which may download it; errors as `origins`."""
    return any(isinstance(origin, HubPart) for several in origins(data).values() for origin in several)


def identity(data: DataConfig) -> list[tuple[Split, str, str]]:
    """Return split, name and SHA-256 (hexadecimal) of everything that is read; errors as `origins` and `digest`."""
    return [(split, str(origin), digest(origin)) for split, several in origins(data).items() for origin in several]


def digest(origin: Path | HubPart) -> str:
    """Return the SHA-256 (hexadecimal) of a file, or of the hub's cached copy; ConfigError if it cannot be read.

    That of a folder is of a line `hash  path` for each XML file in it, in the order of their paths.
    """
    if isinstance(origin, HubPart):
        return hub_fingerprint(origin)
    try:
        return _sha256(origin.expanduser())
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{origin}: the data file cannot be read ({reason}). Check the recipe's data.") from None


def _sha256(path: Path) -> str:
    if path.is_dir():
        lines = (f"{_sha256(file)}  {file.relative_to(path)}\n" for file in sorted(path.rglob("*.xml")))
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    require_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _given(data: DataConfig) -> list[Split]:
    """The splits that the user's files and the task's are for."""
    hub = hub_of(data)
    of_task = hub.splits if hub else load_task(data.task).source.files if data.task else {}
    return [split for split in PARTS if getattr(data, split) is not None or split in of_task]


def _folder(data: DataConfig, task: Task, names: Sequence[str]) -> Path:
    """Return the folder of a task's files, if it holds those that are needed: the user's, else the bundled one."""
    if data.dir is None and task.source.bundled:
        return Path(str(package_files("softprompt"))) / "assets" / task.source.bundled
    source = f" Get them by `softprompt fetch {task.name}`." if task.source.fetch else ""
    source = source or (f" Get them from {task.url}." if task.url else "")
    folder = data.dir
    if folder is None:
        raise ConfigError(
            f"data.dir: the task {task.name!r} needs the folder with {', '.join(names)}; got none.{source} "
            f"Then set data.dir=FOLDER."
        )
    try:
        folder = folder.expanduser()
        there = sorted(str(path.relative_to(folder)) for path in folder.iterdir())
        missing = [name for name in names if not (folder / name).is_file()]
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"data.dir: {folder} cannot be read as a folder ({reason}). Check data.dir.") from None
    if missing:
        shown = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "") if there else "nothing"
        raise ConfigError(f"data.dir: {folder} lacks {', '.join(missing)}; it holds {shown}.{source}")
    return folder
