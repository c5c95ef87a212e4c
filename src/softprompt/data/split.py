"""Split policies and protocols: pure functions on tuples of examples. The same arguments give the same examples.

What is drawn stays in file order, and a smaller draw is a part of a larger one.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from math import ceil
from typing import Any

from softprompt.errors import DataError
from softprompt.types import Example, Splits

Examples = tuple[Example, ...]

DATA_SEED = 42
"""Of the shuffles that make dev and test: fixed, whatever the run's seed (Shi & Lipani 2024, DePT)."""

DEV_SIZE = 1000
LOW_DATA_DEV = 0.3


def half_validation(validation: Examples) -> tuple[Examples, Examples]:
    """Return (dev, test): the two halves of a shuffle of a validation split, as DePT's code makes them."""
    order = _torch_order(len(validation))
    half = len(validation) // 2
    if half == 0:
        raise DataError(f"data.split: expected at least 2 validation rows to make dev and test of, got {len(order)}.")
    return _chosen(validation, order[:half]), _chosen(validation, order[half:])


def dev_from_train(train: Examples, size: int) -> tuple[Examples, Examples]:
    """Return (train, dev): dev is the first `size` examples of a shuffle of train, as in DePT's code."""
    if size >= len(train):
        raise DataError(
            f"data.split: expected more than {size:,} training rows, of which {size:,} become dev, got {len(train):,}. "
            "Lower data.dev_size."
        )
    order = _torch_order(len(train))
    return _chosen(train, order[size:]), _chosen(train, order[:size])


def low_data(train: Examples, dev: Examples, size: int, subset: int) -> tuple[Examples, Examples]:
    """Return (train, dev) of `size` training pairs and 30% as many dev pairs, draw number `subset`.

    The dev pairs come from dev or, where that is empty, from the rest of train. Li & Liang 2021, 6.3: five subsets.
    """
    spare = ceil(LOW_DATA_DEV * size)
    need = size if dev else size + spare
    if len(train) < need or (dev and len(dev) < spare):
        raise DataError(
            f"data.low_data: expected at least {need} training pairs and {spare} dev pairs, "
            f"got {len(train)} and {len(dev)}. Lower data.low_data."
        )
    order = _order(len(train), f"low_data/{subset}")
    if not dev:
        return _chosen(train, order[spare : spare + size]), _chosen(train, order[:spare])
    return _chosen(train, order[:size]), _chosen(dev, _order(len(dev), f"low_data/{subset}/dev")[:spare])


def shots(train: Examples, count: int, subset: int, label: Callable[[Example], str]) -> Examples:
    """Return `count // labels` training pairs of each label, draw number `subset`: class-balanced few-shot learning."""
    by_label: dict[str, list[int]] = {}
    for index, example in enumerate(train):
        by_label.setdefault(label(example), []).append(index)
    each = count // max(len(by_label), 1)
    if each == 0:
        shown = ", ".join(map(repr, list(by_label)[:5]))
        raise DataError(
            f"data.shots: expected at least one pair for each of the {len(by_label)} labels ({shown}"
            f"{', ...' if len(by_label) > 5 else ''}), got {count} in all. Raise data.shots."
        )
    chosen: list[int] = []
    for name, indices in sorted(by_label.items()):
        if len(indices) < each:
            raise DataError(f"data.shots: expected {each} pairs of the label {name!r}, got {len(indices)}. Lower it.")
        chosen += [indices[at] for at in _order(len(indices), f"shots/{subset}/{name}")[:each]]
    return _chosen(train, chosen)


def hold_out(splits: Splits, field: str, values: Sequence[str]) -> Splits:
    """Leave the rows whose `field` is in `values` to the test alone, which keeps no others.

    Without a test split they are those of dev or, without that, of train. Li & Liang 2021, 6.4: unseen topics.
    """
    _require_found((*splits.train, *splits.dev, *splits.test), field, values, "hold_out")
    tested = splits.test or splits.dev or splits.train
    held = tuple(example for example in tested if _holds(example, field, values))
    if not held:
        raise DataError(f"data.hold_out: no row of the test split has {field} in {', '.join(values)}. Choose others.")
    return Splits(without(splits.train, field, values), without(splits.dev, field, values), held)


def keep(splits: Splits, field: str, values: Sequence[str]) -> Splits:
    """Keep the rows of train and dev whose `field` is in `values`; the test split stays."""
    _require_found((*splits.train, *splits.dev), field, values, "keep")
    train, dev = (tuple(e for e in part if _holds(e, field, values)) for part in (splits.train, splits.dev))
    return Splits(train, dev, splits.test)


def without(examples: Examples, field: str, values: Sequence[str]) -> Examples:
    """The examples whose `field` is in none of `values`."""
    return tuple(example for example in examples if not _holds(example, field, values))


def draw(examples: Examples, most: int | None, seed: int) -> Examples:
    """The first `most` examples of a shuffle by `seed`; all of them for None."""
    if most is None or most >= len(examples):
        return examples
    return _chosen(examples, _order(len(examples), seed)[:most])


def record_of(splits: Splits) -> dict[str, dict[str, Any]]:
    """For each part: `examples`, `targets`, and the `sha256` of its texts, so that two runs can be held together."""
    parts = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    return {
        name: {
            "examples": len(part),
            "targets": sum(len(example.targets) for example in part),
            "sha256": _hash([example.source, *example.targets, *example.references] for example in part),
        }
        for name, part in parts.items()
    }


def _hash(rows: Iterable[list[str]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _holds(example: Example, field: str, values: Sequence[str]) -> bool:
    return str(example.meta.get(field)) in values


def _require_found(examples: Examples, field: str, values: Sequence[str], setting: str) -> None:
    there = {str(example.meta[field]) for example in examples if field in example.meta}
    missing = [value for value in values if value not in there]
    if missing:
        shown = ", ".join(sorted(there)[:12]) + (", ..." if len(there) > 12 else "")
        raise DataError(f"data.{setting}.values: no row has {field} {missing[0]!r}. Values here: {shown}.")


def _chosen(examples: Examples, indices: Iterable[int]) -> Examples:
    return tuple(examples[index] for index in sorted(indices))


def _order(count: int, seed: int | str) -> list[int]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def _torch_order(count: int) -> list[int]:
    """The permutation that DePT's code draws, so that dev and test hold the rows that its scores are of."""
    import torch

    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(DATA_SEED)).tolist()
    return order
