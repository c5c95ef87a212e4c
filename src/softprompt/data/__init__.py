"""From a recipe's data section to examples: `load`, the files that it reads, and their fingerprints."""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files as package_files
from pathlib import Path

from softprompt.config import DataConfig
from softprompt.data.e2e import read_e2e
from softprompt.data.table import Record, need_columns, read_table
from softprompt.errors import ConfigError, DataError
from softprompt.tasks import Counts, Task, load_task
from softprompt.template import Template, parse_template
from softprompt.types import Example, Splits

READERS: dict[str, Callable[..., Iterator[Record]]] = {"table": read_table, "e2e": read_e2e}
"""Reader by a task's `source.kind`: file -> records in file order."""

SPLITS = ("train", "dev", "test")


def load(data: DataConfig, seed: int) -> Splits:
    """Read a recipe's data; pure: the same files, settings and seed give the same examples.

    Train: one Example per (source, target) pair, in file order, repeated pairs kept. Dev and test: one Example per
    unique source, in first-seen order, with the targets of all its rows as references; its meta is that of its first
    row. `meta` holds the columns that no template uses. Without a dev file dev is empty; without a test file test is
    dev. `max_train` (pairs), `max_dev` and `max_test` (sources) keep the first N of a shuffle by `seed`, in file order,
    so that a smaller N is a part of a larger one. Raises ConfigError or DataError.
    """
    task = load_task(data.task) if data.task else None
    input_, target = _templates(data, task)
    found = files(data)
    pairs = {split: _pairs(path, task, input_, target) for split, path in found.items()}
    if task is not None:
        for split, count in task.counts.items():
            if getattr(data, split) is None:
                _check_counts(split, pairs[split], count, found[split], task, data)
    dev = _group(pairs.get("dev", []))
    test = _group(pairs["test"]) if "test" in pairs else dev
    return Splits(
        train=_draw(tuple(pairs["train"]), data.max_train, seed),
        dev=_draw(dev, data.max_dev, seed),
        test=_draw(test, data.max_test, seed),
    )


def files(data: DataConfig) -> dict[str, Path]:
    """Return the file of each split that there is; ConfigError if a task's folder is not given or lacks a file."""
    own: dict[str, Path] = {split: path for split in SPLITS if (path := getattr(data, split)) is not None}
    if data.task is None:
        return own
    task = load_task(data.task)
    names = {split: name for split, name in task.source.files.items() if split not in own}
    if not names:
        return own
    folder = Path(str(package_files("softprompt"))) / "assets" / task.source.bundled if task.source.bundled else None
    if data.dir is not None or folder is None:
        folder = _folder(data.dir, task, list(names.values()))
    found = {split: folder / name for split, name in names.items()} | own
    return {split: found[split] for split in SPLITS if split in found}


def fingerprint(paths: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 (hexadecimal) of each file, under the same names; ConfigError if one cannot be read."""
    out = {}
    for name, path in paths.items():
        try:
            with path.expanduser().open("rb") as file:
                out[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{path}: the data file cannot be read ({reason}). Check the recipe's data.") from None
    return out


def _templates(data: DataConfig, task: Task | None) -> tuple[Template, Template]:
    input_ = data.input or (task.template.input if task else "{source}")
    target = data.target or (task.template.target if task else "{target}")
    return parse_template(input_, "data.input"), parse_template(target, "data.target")


def _folder(folder: Path | None, task: Task, names: Sequence[str]) -> Path:
    """Return the user's folder, expanded, if it holds the task's files."""
    source = f" Get them from {task.url}." if task.url else ""
    if folder is None:
        raise ConfigError(
            f"data.dir: the task {task.name!r} needs the folder with {', '.join(names)}; got none.{source} "
            f"Then set data.dir=FOLDER."
        )
    try:
        folder = folder.expanduser()
        there = sorted(path.name for path in folder.iterdir())
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"data.dir: {folder} cannot be read as a folder ({reason}). Check data.dir.") from None
    missing = [name for name in names if name not in there]
    if missing:
        shown = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "") if there else "nothing"
        raise ConfigError(f"data.dir: {folder} lacks {', '.join(missing)}; it holds {shown}.{source}")
    return folder


def _pairs(path: Path, task: Task | None, input_: Template, target: Template) -> list[Example]:
    """Read one split into (source, one target) examples, in file order."""
    kind = task.source.kind if task else "table"
    if kind not in READERS:
        raise ConfigError(f"the task {task and task.name!r} names the reader {kind!r}; there are {', '.join(READERS)}.")
    used = {*input_.columns, *target.columns}
    out: list[Example] = []
    for record in READERS[kind](path):
        if not out:
            need_columns(record, input_.columns + target.columns)
        source = input_.render(record.values, record.where)
        meta = {key: value for key, value in record.values.items() if key not in used}
        out += [Example(source, (text,), meta) for text in target.expand(record.values, record.where)]
    return out


def _group(pairs: Sequence[Example]) -> tuple[Example, ...]:
    groups: dict[str, list[Example]] = {}
    for pair in pairs:
        groups.setdefault(pair.source, []).append(pair)
    return tuple(replace(group[0], targets=tuple(pair.targets[0] for pair in group)) for group in groups.values())


def _draw(examples: tuple[Example, ...], most: int | None, seed: int) -> tuple[Example, ...]:
    if most is None or most >= len(examples):
        return examples
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    return tuple(examples[index] for index in sorted(order[:most]))


def _check_counts(
    split: str, pairs: Sequence[Example], count: Counts, path: Path, task: Task, data: DataConfig
) -> None:
    """Refuse a task's own file of another size than published: its scores would be compared with nothing."""
    got = (len(pairs), len({pair.source for pair in pairs}))
    own_template = data.input is not None or data.target is not None
    if got[0] != count.pairs or (got[1] != count.sources and not own_template):
        raise DataError(
            f"{path}: expected the {task.name} {split} file of {count.pairs:,} pairs and {count.sources:,} sources, "
            f"got {got[0]:,} and {got[1]:,}. Fetch it again, or, to use another file on purpose, set data.{split}=FILE."
        )
