"""Sources cut at their end to fit the window: what `data.truncate: source` does, and how often it did."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from softprompt.backbone import Backbone
from softprompt.batch import encode_sources, encode_targets
from softprompt.config import Recipe
from softprompt.types import Example, Splits

_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Cut:
    """How much was cut off one part of the data."""

    examples: int
    """Sources that were cut."""
    of: int
    tokens: int
    """Tokens that they lost, all together."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """Tokens that there is room for beside the prompt; None: no limit."""

    pair: int | None
    """For a pair of train or dev: source and target of a causal backbone, the longer of them otherwise."""
    source: int | None
    """For a test source: beside what a causal backbone generates."""


def rooms(backbone: Backbone, recipe: Recipe, offset: int, answer: int) -> Rooms:
    """The room that the window and `train.max_length` leave beside `offset` positions of the prompt.

    `answer`: positions of the window that are kept free behind a test source.
    """
    limits = [limit - offset for limit in (backbone.window, recipe.train.max_length) if limit is not None]
    beside = [backbone.window - offset - answer] if backbone.window is not None else []
    return Rooms(min(limits, default=None), min([*limits, *beside], default=None))


def cut_splits(backbone: Backbone, splits: Splits, room: Rooms) -> tuple[Splits, dict[str, Cut]]:
    """All three parts with their sources cut, and how much was cut off each."""
    train, cut_train = cut_sources(backbone, splits.train, room.pair, targets=True)
    dev, cut_dev = cut_sources(backbone, splits.dev, room.pair, targets=True)
    test, cut_test = cut_sources(backbone, splits.test, room.source, targets=False)
    return Splits(train, dev, test), {"train": cut_train, "dev": cut_dev, "test": cut_test}


def cut_sources(
    backbone: Backbone, examples: Sequence[Example], room: int | None, *, targets: bool
) -> tuple[tuple[Example, ...], Cut]:
    """Shorten the sources that do not fit into `room` tokens (None: no limit); what is cut is a text's end.

    With `targets`, a causal backbone's longest target has to fit beside its source. A source that would be left with
    no text stays as it is, for `require_fit` to refuse.
    """
    sources = encode_sources(backbone, [example.source for example in examples]) if room is not None else []
    cut: list[Example] = list(examples)
    count = tokens = 0
    for index, ids in enumerate(sources):
        assert room is not None
        beside = _longest_target(backbone, examples[index]) if targets and backbone.family == "causal" else 0
        if len(ids) + beside <= room:
            continue
        text = _shortened(backbone, examples[index].source, room - beside)
        if text:
            cut[index] = replace(examples[index], source=text)
            count += 1
            tokens += len(ids) - len(encode_sources(backbone, [text])[0])
    return tuple(cut), Cut(count, len(examples), tokens)


def _longest_target(backbone: Backbone, example: Example) -> int:
    return max(len(ids) for ids in encode_targets(backbone, example.targets))


def _shortened(backbone: Backbone, text: str, room: int) -> str:
    """The words from the beginning of the text that fit into `room` tokens with its frame; "" if nothing does.

    Of a text whose first word is too long (one without spaces, say), characters.
    """

    def length(end: int) -> int:
        return len(encode_sources(backbone, [text[:end]])[0])

    for ends in ([word.end() for word in _WORD.finditer(text)], range(1, len(text) + 1)):
        fitting = bisect_right(ends, room, key=length)
        if fitting:
            return text[: ends[fitting - 1]].strip()
    return ""
