"""From a recipe's data section to examples: `load`, the files that it reads, and their fingerprints."""

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files as package_files
from pathlib import Path

from softprompt.config import DataConfig
from softprompt.data.e2e import read_e2e
from softprompt.data.hub import hub_fingerprint, read_hub
from softprompt.data.mrqa import read_mrqa
from softprompt.data.qa import qa_record
from softprompt.data.squad import read_squad
from softprompt.data.table import Record, need_columns, read_table
from softprompt.errors import ConfigError, DataError
from softprompt.tasks import Counts, Hub, Source, Task, load_task
from softprompt.template import Template, parse_template
from softprompt.types import Example, Splits

READERS: dict[str, Callable[[Path], Iterable[Record]]] = {
    "table": read_table,
    "e2e": read_e2e,
    "squad": read_squad,
    "mrqa": read_mrqa,
}
"""Reader by a task's `source.kind`: file -> records in file order."""

HUB_ROWS: dict[str, Callable[[Record], Record]] = {"squad": qa_record, "mrqa": qa_record}
"""By a task's `source.kind`: what makes the reader's columns of a row from the hub; none: the row has them."""

USER_FILES = Source(kind="table", files={"train": "data.train"})
"""What holds for the user's own files."""

SPLITS = ("train", "dev", "test")


def load(data: DataConfig, seed: int) -> Splits:
    """Read a recipe's data; pure: the same files, settings and seed give the same examples.

    Train: one Example per (source, target) pair, in file order, repeated pairs kept; where the task says so, only the
    first target of a row. Dev and test: one Example per unique source, in first-seen order, with the targets of all its
    rows as references; its meta is that of its first row. Where the task says so, each row is an Example of its own.
    `meta` holds the columns that no template uses, or those that the task keeps. Without a dev file dev is empty;
    without a test file test is dev; a task that is only tested on has no train. `max_train` (pairs), `max_dev` and
    `max_test` (sources) keep the first N of a shuffle by `seed`, in file order, so that a smaller N is a part of a
    larger one. Raises ConfigError or DataError.
    """
    task = load_task(data.task) if data.task else None
    source = task.source if task else USER_FILES
    input_, target = _templates(data, task)
    found = _records(data, task)
    rows = {split: _rows(where, records, source, input_, target) for split, (where, records) in found.items()}
    for split, count in task.counts.items() if task is not None else ():
        if split in rows and getattr(data, split) is None:
            _check_counts(split, rows[split], count, found[split][0], data)
    examples = tuple if source.unit == "row" else _group
    first = 1 if source.train_targets == "first" else None
    train = tuple(replace(row, targets=(text,)) for row in rows.get("train", ()) for text in row.targets[:first])
    dev = examples(rows.get("dev", ()))
    test = examples(rows["test"]) if "test" in rows else dev
    return Splits(
        train=_draw(train, data.max_train, seed),
        dev=_draw(dev, data.max_dev, seed),
        test=_draw(test, data.max_test, seed),
    )


def files(data: DataConfig) -> dict[str, Path]:
    """Return the file of each split that there is; ConfigError if a task's folder is not given or lacks a file.

    A split that is read from the hub has no file.
    """
    own: dict[str, Path] = {split: path for split in SPLITS if (path := getattr(data, split)) is not None}
    if data.task is None or hub_of(data) is not None:
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


def hub_of(data: DataConfig) -> Hub | None:
    """Return the hub data set that the splits without a file of the user's are read from, if they are."""
    return load_task(data.task).source.hub if data.task and data.dir is None else None


def identity(data: DataConfig) -> dict[str, str]:
    """Return the SHA-256 of what each split is read from: its file, or the hub's cached copy."""
    hub = hub_of(data)
    splits = [split for split in hub.splits if getattr(data, split) is None] if hub else []
    return fingerprint(files(data)) | {split: hub_fingerprint(hub, split) for split in splits if hub}


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
    source = f" Get them by `softprompt fetch {task.name}`." if task.source.fetch else ""
    source = source or (f" Get them from {task.url}." if task.url else "")
    if folder is None:
        raise ConfigError(
            f"data.dir: the task {task.name!r} needs the folder with {', '.join(names)}; got none.{source} "
            f"Then set data.dir=FOLDER."
        )
    try:
        folder = folder.expanduser()
        there = sorted(path.name for path in folder.iterdir())
        missing = [name for name in names if not (folder / name).exists()]
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"data.dir: {folder} cannot be read as a folder ({reason}). Check data.dir.") from None
    if missing:
        shown = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "") if there else "nothing"
        raise ConfigError(f"data.dir: {folder} lacks {', '.join(missing)}; it holds {shown}.{source}")
    return folder


def _records(data: DataConfig, task: Task | None) -> dict[str, tuple[str, Iterable[Record]]]:
    """Return each split's records with the name of what they come from."""
    kind = task.source.kind if task else USER_FILES.kind
    if kind not in READERS:
        raise ConfigError(f"the task {task and task.name!r} names the reader {kind!r}; there are {', '.join(READERS)}.")
    found: dict[str, tuple[str, Iterable[Record]]] = {
        split: (str(path), READERS[kind](path)) for split, path in files(data).items()
    }
    hub = hub_of(data)
    if hub is not None:
        finish = HUB_ROWS.get(kind, lambda row: row)
        for split in hub.splits:
            if split not in found:
                found[split] = (f"{hub.id} ({hub.splits[split]})", map(finish, read_hub(hub, split)))
    return found


def _rows(
    where: str, records: Iterable[Record], kind: Source, input_: Template, target: Template
) -> tuple[Example, ...]:
    """Fill the templates in: one Example for each record, with all its targets, in order."""
    used = {*input_.columns, *target.columns}
    out: list[Example] = []
    for record in records:
        if not out:
            need_columns(record, input_.columns + target.columns)
        kept = set(record.values) - used if kind.keep is None else set(kind.keep)
        meta = {key: value for key, value in record.values.items() if key in kept}
        source = input_.render(record.values, record.where)
        out.append(Example(source, target.expand(record.values, record.where), meta))
    if not out:
        raise DataError(f"{where}: expected at least one row, got none. Is it the right file?")
    return tuple(out)


def _group(rows: Sequence[Example]) -> tuple[Example, ...]:
    groups: dict[str, list[Example]] = {}
    for row in rows:
        groups.setdefault(row.source, []).append(row)
    return tuple(
        replace(group[0], targets=tuple(text for row in group for text in row.targets)) for group in groups.values()
    )


def _draw(examples: tuple[Example, ...], most: int | None, seed: int) -> tuple[Example, ...]:
    if most is None or most >= len(examples):
        return examples
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    return tuple(examples[index] for index in sorted(order[:most]))


def _check_counts(split: str, rows: Sequence[Example], count: Counts, where: str, data: DataConfig) -> None:
    """Refuse a task's own file of another size than published: its scores would be compared with nothing."""
    by_row = load_task(str(data.task)).source.unit == "row"
    pairs = sum(len(row.targets) for row in rows)
    sources = len(rows) if by_row else len({row.source for row in rows})
    own_template = data.input is not None or data.target is not None
    same_sources = sources == count.sources or (own_template and not by_row)
    if count.pairs not in (None, pairs) or not same_sources:
        expected = f"{count.pairs or pairs:,} pairs and {count.sources:,} sources"
        raise DataError(
            f"{where}: expected the {data.task} {split} file of {expected}, got {pairs:,} and {sources:,}. "
            f"Fetch it again, or, to use another file on purpose, set data.{split}=FILE."
        )
