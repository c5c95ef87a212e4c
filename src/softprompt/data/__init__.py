"""From a recipe's data section to examples: `load`, and what is said of a recipe's data without reading it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from softprompt.data import split as policies
from softprompt.data.rows import OWN, READERS, SHAPES, Origin, own_source, read_rows
from softprompt.data.sources import (
    PARTS,
    digest,
    hub_of,
    identity,
    origins,
    origins_of,
    own_parts,
    policy_of,
    reads_hub,
    tested_part,
    tested_task,
)
from softprompt.data.split import record_of
from softprompt.data_config import DataConfig
from softprompt.errors import ConfigError, DataError
from softprompt.tasks import Counts, FieldValues, Source, Split, Task, Wording, load_task
from softprompt.types import Example, Merged, Splits

__all__ = [
    "READERS",
    "SHAPES",
    "choices_of",
    "digest",
    "hub_of",
    "identity",
    "label_words",
    "load",
    "origins",
    "policy_of",
    "positive_word",
    "reads_hub",
    "record_of",
    "wording_of",
]

Examples = tuple[Example, ...]


def load(data: DataConfig, seed: int, *, labelled: bool = False) -> Splits:
    """Read a recipe's data; pure: the same files, settings and seed give the same examples.

    Train: one Example per (source, target) pair, in file order, repeated pairs kept. Dev and test: one Example per
    unique source, in first-seen order, with the targets and references of all its rows, and its meta that of its first
    row; or one per row, where the task says so (`source.unit`), labels are learned, or the answers on one's own files
    are `labelled` (decoded or scored as labels: of two labels of one source, one is wrong). `merged` counts rows of own
    files that became references of another's source. `meta` holds the columns that no template uses. Without a dev file
    dev is empty; without a test split test is dev, as it is before `low_data`; a task that is only tested on has no
    train.

    In this order: the split policy; `hold_out` and `keep`; `low_data` or `shots`; `max_train` (pairs), `max_dev` and
    `max_test` (sources), which keep the first N of a shuffle by `seed`, in file order, so that a smaller N is a part
    of a larger one. Raises ConfigError or DataError.
    """
    task = load_task(data.task) if data.task else None
    splits = _apply_policy(data, _read(data, own_parts(data)))
    hold_out, keep = _divisions(data, task)
    if hold_out is not None:
        splits = policies.hold_out(splits, hold_out.field, hold_out.values)
    if keep is not None:
        splits = policies.keep(splits, keep.field, keep.values)
    source = task.source if task else OWN
    train, dev = _pairs(splits.train, 1 if source.train_targets == "first" else None), splits.dev
    test = splits.test or dev
    if data.low_data is not None:
        train, dev = policies.low_data(train, _pairs(dev), data.low_data, data.subset or 0)
    if data.shots is not None:
        train = policies.shots(train, data.shots, data.subset or 0, _class_of(wording_of(data)))
    merged: dict[str, Merged] = {}
    if _is_grouped(source, data) and not (labelled and task is None):
        own = {"dev": dev, "test": test or dev}
        dev, test = (_group(part) for part in own.values())
        if task is None and data.low_data is None:
            merged = {name: _merged(part, now) for name, part, now in zip(own, own.values(), (dev, test), strict=True)}
    else:
        test = test or dev
    if data.test_task is not None:
        merged.pop("test", None)
        test = _test_of_another(data)
    elif splits.test:
        test = _with_references(test, task)
    return Splits(
        train=policies.draw(train, data.max_train, seed),
        dev=policies.draw(dev, data.max_dev, seed),
        test=policies.draw(test, data.max_test, seed),
        merged={name: one for name, one in merged.items() if one.rows > one.sources},
    )


def wording_of(data: DataConfig) -> Wording:
    """The templates and labels of a recipe: its own, else those of its task. ConfigError for an unknown template."""
    base = load_task(data.task).wording(data.template) if data.task else Wording(input="{source}", target="{target}")
    own = {"input": data.input, "target": data.target, "labels": data.labels}
    given: dict[str, Any] = {key: value for key, value in own.items() if value is not None}
    scored = {"references": None} if "target" in given else {}  # the task's are of its own targets
    return base.model_copy(update=given | scored)


def label_words(data: DataConfig) -> tuple[str, ...] | None:
    """The words that the labels of a recipe's task are learned as, in the order of the labels; None without labels."""
    labels = wording_of(data).labels
    return labels.distinct() if labels else None


def positive_word(data: DataConfig) -> str | None:
    """The word of the class that F1 is about: as the recipe's labels say, else its task's for the same column."""
    labels = wording_of(data).labels
    if labels is None:
        return None
    value = labels.positive
    if value is None and data.task is not None:
        theirs = load_task(data.task).wording(data.template).labels
        value = theirs.positive if theirs is not None and theirs.column == labels.column else None
    if value is None:
        return None
    return labels.words.get(value, value if value in labels.words.values() else None)


def choices_of(data: DataConfig) -> dict[str, Any]:
    """What a recipe's nulls stand for: its template and split policy, and what that needs."""
    policy = policy_of(data)
    template = data.template or (next(iter(load_task(data.task).templates)) if data.task else None)
    seeded = {} if policy == "native" else {"split_seed": policies.DATA_SEED}
    sized = {"dev_size": _dev_size(data)} if policy == "dev_from_train" else {}
    return {"template": template, "split": policy, **seeded, **sized}


def _read(data: DataConfig, parts: Sequence[Split]) -> dict[Split, Examples]:
    """The rows of these splits as they are in the files, in file order."""
    task = load_task(data.task) if data.task else None
    fields = [setting.field for setting in _divisions(data, task) if setting is not None]
    found: dict[Split, Examples] = {}
    source, wording, met = task.source if task else own_source(data), wording_of(data), set[str]()
    for split, several in origins_of(data, parts).items():
        found[split] = tuple(read_rows(several, source, wording, ("data.input", "data.target"), fields, met))
        if task is not None and getattr(data, split) is None and split in task.counts:
            _check_counts(split, found[split], task.counts[split], several, data)
    unmet = [] if isinstance(wording.target, str) or len(wording.target) == 1 else [*set(wording.target) - met]
    if unmet:
        raise ConfigError(f"data.target: no file has the columns of the template {unmet[0]!r}. Correct or drop it.")
    return found


def _apply_policy(data: DataConfig, rows: Mapping[Split, Examples]) -> Splits:
    train, dev, test = (rows.get(split, ()) for split in PARTS)
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
        test = test or dev
        train, dev = policies.dev_from_train(train, _dev_size(data))
    return Splits(train, dev, test)


def _dev_size(data: DataConfig) -> int:
    return data.dev_size or (load_task(data.task).dev_size if data.task else None) or policies.DEV_SIZE


def _divisions(data: DataConfig, task: Task | None) -> tuple[FieldValues | None, FieldValues | None]:
    """What is held out and what is kept: the recipe's word, else the task's."""
    return data.hold_out or (task.hold_out if task else None), data.keep or (task.keep if task else None)


def _is_grouped(source: Source, data: DataConfig) -> bool:
    return source.unit == "source" and wording_of(data).labels is None


def _with_references(test: Examples, task: Task | None) -> Examples:
    """The test rows with as many references as the official scorer has files; a blank where a row has fewer texts.

    The targets stay as they are. The blank counts as a reference of no words in multi-bleu.perl, and so in the
    published numbers.
    """
    if task is None or task.references is None:
        return test
    most = task.references
    return tuple(replace(row, references=(*row.scored_against, *[""] * most)[:most]) for row in test)


def _pairs(rows: Examples, first: int | None = None) -> Examples:
    """One example a target, of the first `first` targets of each row (None: all)."""
    return tuple(replace(row, targets=(target,), references=()) for row in rows for target in row.targets[:first])


def _group(rows: Sequence[Example]) -> Examples:
    groups: dict[str, list[Example]] = {}
    for row in rows:
        groups.setdefault(row.source, []).append(row)
    return tuple(
        replace(
            group[0],
            targets=tuple(text for row in group for text in row.targets),
            references=tuple(text for row in group for text in row.references),
        )
        for group in groups.values()
    )


def _merged(rows: Examples, groups: Examples) -> Merged:
    seen: set[str] = set()
    for index, row in enumerate(rows):
        if row.source in seen:
            return Merged(len(rows), len(groups), row.where(index))
        seen.add(row.source)
    return Merged(len(rows), len(groups), "")


def _class_of(wording: Wording) -> Callable[[Example], str]:
    """What few-shot balances by: the label, or for numbers the half of the range (as in DePT's code)."""
    numbers = wording.numbers
    if numbers is None:
        return lambda pair: pair.targets[0]
    middle = (numbers.low + numbers.high) / 2
    return lambda pair: "high" if float(pair.targets[0]) > middle else "low"


def _test_of_another(data: DataConfig) -> Examples:
    """The test split of `test_task`, with its labels put into this task's words.

    Labels with the same words correspond by the word, others by their position: duplicate and equivalent.
    """
    other = tested_task(data)
    tested_on = tested_part(other)
    rows = _read(other, [tested_on])[tested_on]
    test = policies.half_validation(rows)[1] if policy_of(other) == "half_validation" else rows
    task = load_task(str(other.task))
    test = _with_references(_group(test) if _is_grouped(task.source, other) else test, task)
    mine, theirs = label_words(data), label_words(other)
    if mine is None and theirs is None:
        return test
    if mine is None or theirs is None or len(mine) != len(theirs):
        raise ConfigError(
            f"data.test_task: expected a task whose labels correspond to this one's ({_shown(mine)}), "
            f"got {data.test_task} with {_shown(theirs)}."
        )
    words = dict(zip(theirs, theirs if set(mine) == set(theirs) else mine, strict=True))
    return tuple(replace(example, targets=tuple(words[target] for target in example.targets)) for example in test)


def _shown(words: tuple[str, ...] | None) -> str:
    return ", ".join(map(repr, words)) if words else "no labels"


def _check_counts(split: Split, rows: Examples, count: Counts, several: Sequence[Origin], data: DataConfig) -> None:
    """Refuse a task's own file of another size than published: its scores would be compared with nothing."""
    grouped = _is_grouped(load_task(str(data.task)).source, data)
    pairs = sum(len(row.targets) for row in rows)
    sources = len({row.source for row in rows}) if grouped else len(rows)
    own_template = data.input is not None or data.target is not None
    if count.pairs not in (None, pairs) or (count.sources != sources and not (own_template and grouped)):
        expected = f"{count.pairs or pairs:,} pairs and {count.sources:,} sources"
        raise DataError(
            f"{several[0]}: expected the {data.task} {split} file of {expected}, got {pairs:,} and {sources:,}. "
            f"Fetch it again, or, to use another file on purpose, set data.{split}=FILE."
        )
