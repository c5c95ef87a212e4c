"""From a recipe's data section to examples: `load`, the files that it reads, and their fingerprints."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files as package_files
from pathlib import Path

from softprompt.data import split as policies
from softprompt.data.rows import OWN, READERS, SHAPES, read_rows
from softprompt.data.split import record_of
from softprompt.data_config import DataConfig
from softprompt.errors import ConfigError, DataError
from softprompt.tasks import Counts, FieldValues, Policy, Source, Split, Task, Wording, load_task
from softprompt.types import Example, Splits

__all__ = ["READERS", "SHAPES", "files", "fingerprint", "label_words", "load", "policy_of", "record_of", "wording_of"]

SPLITS: tuple[Split, ...] = ("train", "dev", "test")

Examples = tuple[Example, ...]


def load(data: DataConfig, seed: int) -> Splits:
    """Read a recipe's data; pure: the same files, settings and seed give the same examples.

    Train: one Example per (source, target) pair, in file order, repeated pairs kept. Dev and test: one Example per
    unique source, in first-seen order, with the targets of all its rows as references, and its meta that of its first
    row; or one per row, where the task says so (`source.unit`) or labels are learned. `meta` holds the columns that
    no template uses. Without a dev file dev is empty; without a test split test is dev, as it is before `low_data`.

    In this order: the split policy; `hold_out` and `keep`; `low_data` or `shots`; `max_train` (pairs), `max_dev` and
    `max_test` (sources), which keep the first N of a shuffle by `seed`, in file order, so that a smaller N is a part
    of a larger one. Raises ConfigError or DataError.
    """
    task = load_task(data.task) if data.task else None
    splits = _apply_policy(data, _read(data, task))
    held_out, kept = _divided(data, task)
    for setting, apply in ((held_out, policies.hold_out), (kept, policies.keep)):
        if setting is not None:
            splits = apply(splits, setting.field, setting.values)
    source = task.source if task else OWN
    train, dev = _pairs(splits.train, 1 if source.train_targets == "first" else None), splits.dev
    test = splits.test or dev
    if data.low_data is not None:
        train, dev = policies.low_data(train, _pairs(dev), data.low_data, data.subset or 0)
    if data.shots is not None:
        train = policies.shots(train, data.shots, data.subset or 0, _class_of(wording_of(data)))
    dev, test = (_group(part) if _is_grouped(source, data) else part for part in (dev, test or dev))
    test = _test_of_another(data, seed) if data.test_task else _with_references(test, task)
    return Splits(
        train=policies.draw(train, data.max_train, seed),
        dev=policies.draw(dev, data.max_dev, seed),
        test=policies.draw(test, data.max_test, seed),
    )


def wording_of(data: DataConfig) -> Wording:
    """The templates and labels of a recipe: its own, else those of its task. ConfigError for an unknown template."""
    base = load_task(data.task).wording(data.template) if data.task else Wording(input="{source}", target="{target}")
    own = {"input": data.input, "target": data.target, "labels": data.labels}
    return base.model_copy(update={key: value for key, value in own.items() if value is not None})


def label_words(data: DataConfig) -> tuple[str, ...] | None:
    """The words that the labels of a recipe's task are learned as, in the order of the labels; None without labels."""
    labels = wording_of(data).labels
    return labels.distinct() if labels else None


def policy_of(data: DataConfig) -> Policy:
    """The split policy of a recipe, else of its task, else `native`."""
    return data.split or (load_task(data.task).split if data.task else "native")


def files(data: DataConfig) -> dict[Split, tuple[Path, ...]]:
    """Return the files of each split that is read; ConfigError if a task's folder is not given or lacks a file."""
    task = load_task(data.task) if data.task else None
    own: dict[Split, tuple[Path, ...]] = {s: (path,) for s in SPLITS if (path := getattr(data, s)) is not None}
    if data.test_task is not None:
        own["test"] = files(_other(data))["test"]
    there = {*own, *(task.source.files if task else ())}
    policy = policy_of(data)
    unread: set[Split] = set()
    if "dev" in there and policy != "native":
        unread = {"test"}
    wanted = [s for s in SPLITS if s in there and (s in own or s not in unread)]
    if task is None or all(s in own for s in wanted):
        return {s: own[s] for s in wanted}
    folder = _folder(data, task, [name for s in wanted if s not in own for name in task.source.names(s)])
    return {s: own.get(s) or tuple(folder / name for name in task.source.names(s)) for s in wanted}


def fingerprint(paths: Mapping[Split, Sequence[Path]]) -> dict[str, str]:
    """Return the SHA-256 (hexadecimal) of each file by its split; ConfigError if one cannot be read.

    The files of a split that has several are named `dev/in_domain_dev.tsv`. The hash of a folder is that of a line
    `hash  path` for each XML file in it, in the order of their paths.
    """
    out = {}
    for name, path in ((name, path) for name, several in paths.items() for path in several):
        key = name if len(paths[name]) == 1 else f"{name}/{path.name}"
        try:
            place = path.expanduser()
            if place.is_dir():
                inner = (f"{_sha256(file)}  {file.relative_to(place)}\n" for file in sorted(place.rglob("*.xml")))
                out[key] = hashlib.sha256("".join(inner).encode()).hexdigest()
            else:
                out[key] = _sha256(place)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{path}: the data file cannot be read ({reason}). Check the recipe's data.") from None
    return out


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(data: DataConfig, task: Task | None) -> dict[Split, Examples]:
    """The rows of each split as they are in the files, in file order; without those of another task."""
    fields = [setting.field for setting in _divided(data, task) if setting is not None]
    found: dict[Split, Examples] = {}
    for split, paths in files(data).items():
        if split == "test" and data.test_task is not None:
            continue
        source = task.source if task else OWN
        found[split] = tuple(read_rows(paths, source, wording_of(data), ("data.input", "data.target"), fields))
        if task is not None and getattr(data, split) is None and split in task.counts:
            _check_counts(split, found[split], task.counts[split], paths, data)
    return found


def _divided(data: DataConfig, task: Task | None) -> tuple[FieldValues | None, FieldValues | None]:
    """What is held out and what is kept: the recipe's own, else the task's."""
    return (
        data.hold_out or (task.hold_out if task else None),
        data.keep or (task.keep if task else None),
    )


def _apply_policy(data: DataConfig, rows: Mapping[Split, Examples]) -> Splits:
    train, dev, test = (rows.get(split, ()) for split in SPLITS)
    policy = policy_of(data)
    if data.dev_size is not None and policy != "dev_from_train":
        raise ConfigError(
            f"data.dev_size has no effect with split {policy}. Set data.split=dev_from_train, or drop it."
        )
    if policy == "half_validation":
        if not dev:
            raise ConfigError(
                "data.split: half_validation makes dev and test out of a dev file; got none. Set data.dev."
            )
        dev, test = policies.half_validation(dev)
    elif policy == "dev_from_train":
        size = data.dev_size or (load_task(data.task).dev_size if data.task else None) or policies.DEV_SIZE
        test = test or dev
        train, dev = policies.dev_from_train(train, size)
    return Splits(train, dev, test)


def _is_grouped(source: Source, data: DataConfig) -> bool:
    return source.unit == "source" and wording_of(data).labels is None


def _with_references(test: Examples, task: Task | None) -> Examples:
    """The test rows with as many references as the official scorer has files; a blank where a row has fewer texts.

    The blank counts as a reference of no words in multi-bleu.perl, and so in the published numbers.
    """
    if task is None or task.references is None:
        return test
    most = task.references
    return tuple(replace(row, targets=(*row.targets[:most], *[""] * (most - len(row.targets)))) for row in test)


def _pairs(rows: Examples, first: int | None = None) -> Examples:
    """One example a target, of the first `first` targets of each row (None: all)."""
    return tuple(replace(row, targets=(target,)) for row in rows for target in row.targets[:first])


def _group(rows: Sequence[Example]) -> Examples:
    groups: dict[str, list[Example]] = {}
    for row in rows:
        groups.setdefault(row.source, []).append(row)
    return tuple(
        replace(group[0], targets=tuple(target for row in group for target in row.targets)) for group in groups.values()
    )


def _class_of(wording: Wording) -> Callable[[Example], str]:
    """What few-shot balances by: the label, or for numbers the half of the range (as in DePT's code)."""
    numbers = wording.numbers
    if numbers is None:
        return lambda pair: pair.targets[0]
    middle = (numbers.low + numbers.high) / 2
    return lambda pair: "high" if float(pair.targets[0]) > middle else "low"


def _other(data: DataConfig) -> DataConfig:
    """The data section of `test_task` alone."""
    assert data.test_task is not None
    task = load_task(data.test_task)
    template = data.template if data.template in task.templates else None
    return DataConfig(task=data.test_task, dir=data.test_dir, template=template)


def _test_of_another(data: DataConfig, seed: int) -> Examples:
    """The test split of `test_task`, its labels replaced by this task's in the same position."""
    other = _other(data)
    test = load(other, seed).test
    mine, theirs = label_words(data), label_words(other)
    if mine is None and theirs is None:
        return test
    if mine is None or theirs is None or len(mine) != len(theirs):
        raise ConfigError(
            f"data.test_task: expected a task whose labels correspond to this one's ({_shown(mine)}), "
            f"got {data.test_task} with {_shown(theirs)}."
        )
    words = dict(zip(theirs, mine, strict=True))
    return tuple(replace(example, targets=tuple(words[target] for target in example.targets)) for example in test)


def _shown(words: tuple[str, ...] | None) -> str:
    return ", ".join(map(repr, words)) if words else "no labels"


def _folder(data: DataConfig, task: Task, names: Sequence[str]) -> Path:
    """Return the folder of a task's files, if it holds those that are needed: the user's, else the bundled one."""
    if data.dir is None and task.source.bundled:
        return Path(str(package_files("softprompt"))) / "assets" / task.source.bundled
    source = f" Get them from {task.url}." if task.url else ""
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


def _check_counts(split: Split, rows: Examples, count: Counts, paths: Sequence[Path], data: DataConfig) -> None:
    """Refuse a task's own file of another size than published: its scores would be compared with nothing."""
    grouped = _is_grouped(load_task(str(data.task)).source, data)
    pairs = sum(len(row.targets) for row in rows)
    sources = len({row.source for row in rows}) if grouped else len(rows)
    own_template = data.input is not None or data.target is not None
    if count.pairs not in (None, pairs) or (count.sources != sources and not (own_template and grouped)):
        expected = f"{count.pairs or pairs:,} pairs and {count.sources:,} sources"
        raise DataError(
            f"{paths[0]}: expected the {data.task} {split} file of {expected}, got {pairs:,} and {sources:,}. "
            f"Fetch it again, or, to use another file on purpose, set data.{split}=FILE."
        )
