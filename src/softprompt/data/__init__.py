"""From a recipe's data section to examples: `load`, the files that it reads, and their fingerprints."""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files as package_files
from pathlib import Path

from softprompt.config import DataConfig
from softprompt.data.dart import read_dart
from softprompt.data.e2e import read_e2e
from softprompt.data.scitldr import read_scitldr
from softprompt.data.table import Record, need_columns, read_table
from softprompt.data.webnlg import read_webnlg
from softprompt.data.xsum import read_xsum
from softprompt.errors import ConfigError, DataError
from softprompt.tasks import Counts, FieldValues, Task, load_task
from softprompt.template import Template, parse_template
from softprompt.types import Example, Splits

READERS: dict[str, Callable[..., Iterator[Record]]] = {
    "table": read_table,
    "e2e": read_e2e,
    "webnlg": read_webnlg,
    "dart": read_dart,
    "xsum": read_xsum,
    "scitldr": read_scitldr,
}
"""Reader by a task's `source.kind`: file -> records in file order."""

SPLITS = ("train", "dev", "test")

Examples = tuple[Example, ...]


def load(data: DataConfig, seed: int) -> Splits:
    """Read a recipe's data; pure: the same files, settings and seed give the same examples.

    Train: one Example per (source, target) pair, in file order, repeated pairs kept. Dev and test: one Example per
    unique source, in first-seen order, with the targets of all its rows as references, and its meta that of its first
    row; or one per row, where the task says so (`source.unit`). `meta` holds the columns that no template uses.
    Without a dev file dev is empty; without a test file test is dev. A task's `hold_out` and `keep` are obeyed.
    `max_train` (pairs), `max_dev` and `max_test` (sources) keep the first N of a shuffle by `seed`, in file order,
    so that a smaller N is a part of a larger one. Raises ConfigError or DataError.
    """
    task = load_task(data.task) if data.task else None
    input_, target = _templates(data, task)
    found = files(data)
    parts = {split: _examples(path, task, input_, target) for split, path in found.items()}
    if task is not None:
        for split, count in task.counts.items():
            if getattr(data, split) is None:
                _check_counts(split, parts[split], count, found[split], task, data)
        parts = _hold_out(parts, task)
    dev = _united(parts.get("dev", ()), task)
    test = _with_references(_united(parts["test"], task), task) if "test" in parts else dev
    return Splits(
        train=_draw(_pairs(parts["train"]), data.max_train, seed),
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
    """Return the SHA-256 (hexadecimal) of each file, under the same names; ConfigError if one cannot be read.

    That of a folder is the SHA-256 of a line `hash  path` for each XML file in it, in the order of their paths.
    """
    out = {}
    for name, path in paths.items():
        try:
            place = path.expanduser()
            if place.is_dir():
                inner = (f"{_sha256(file)}  {file.relative_to(place)}\n" for file in sorted(place.rglob("*.xml")))
                out[name] = hashlib.sha256("".join(inner).encode()).hexdigest()
            else:
                out[name] = _sha256(place)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{path}: the data file cannot be read ({reason}). Check the recipe's data.") from None
    return out


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _examples(path: Path, task: Task | None, input_: Template, target: Template) -> Examples:
    """Read one split: one example a row, with all its targets, in file order."""
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
        out.append(Example(source, target.expand(record.values, record.where), meta))
    return tuple(out)


def _pairs(rows: Iterable[Example]) -> Examples:
    return tuple(replace(row, targets=(target,)) for row in rows for target in row.targets)


def _united(rows: Sequence[Example], task: Task | None) -> Examples:
    """The rows as units of decoding and scoring."""
    if task is not None and task.source.unit == "row":
        return tuple(rows)
    groups: dict[str, list[Example]] = {}
    for row in rows:
        groups.setdefault(row.source, []).append(row)
    return tuple(
        replace(group[0], targets=tuple(text for row in group for text in row.targets)) for group in groups.values()
    )


def _with_references(test: Examples, task: Task | None) -> Examples:
    """The test rows with as many references as the official scorer has files; a blank where a row has fewer texts.

    The blank counts as a reference of no words in multi-bleu.perl, and so in the published numbers.
    """
    if task is None or task.references is None:
        return test
    most = task.references
    return tuple(replace(row, targets=(*row.targets[:most], *[""] * (most - len(row.targets)))) for row in test)


def _hold_out(parts: Mapping[str, Examples], task: Task) -> dict[str, Examples]:
    """Leave the rows of `hold_out` to the test alone, which keeps no others, and to train and dev those of `keep`."""
    out = dict(parts)
    for split, rows in parts.items():
        if task.hold_out is not None:
            rows = tuple(row for row in rows if _holds(row, task.hold_out, task) == (split == "test"))
        if task.keep is not None and split != "test":
            rows = tuple(row for row in rows if _holds(row, task.keep, task))
        if parts[split] and not rows:
            raise DataError(f"the task {task.name!r} holds out or keeps no row of its {split} split. Check the file.")
        out[split] = rows
    return out


def _holds(row: Example, setting: FieldValues, task: Task) -> bool:
    if setting.field not in row.meta:
        raise DataError(
            f"the task {task.name!r} divides its rows by the column {setting.field!r}, which is not there. "
            f"Columns here: {', '.join(map(repr, row.meta))}."
        )
    return str(row.meta[setting.field]) in setting.values


def _draw(examples: tuple[Example, ...], most: int | None, seed: int) -> tuple[Example, ...]:
    if most is None or most >= len(examples):
        return examples
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    return tuple(examples[index] for index in sorted(order[:most]))


def _check_counts(split: str, rows: Sequence[Example], count: Counts, path: Path, task: Task, data: DataConfig) -> None:
    """Refuse a task's own file of another size than published: its scores would be compared with nothing."""
    pairs, sources = sum(len(row.targets) for row in rows), len(_united(rows, task))
    own_template = data.input is not None or data.target is not None
    if pairs != count.pairs or (sources != count.sources and not own_template):
        raise DataError(
            f"{path}: expected the {task.name} {split} file of {count.pairs:,} pairs and {count.sources:,} sources, "
            f"got {pairs:,} and {sources:,}. Fetch it again, or, to use another file on purpose, set data.{split}=FILE."
        )
