"""One look at encoded data: what the backbone's vocabulary lacks, what decoding never writes, what was merged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from softprompt.backbone import Backbone
from softprompt.batch import Encoded, encode_given
from softprompt.config import DecodeConfig
from softprompt.texts import excerpt, unknown_id
from softprompt.types import Example, Merged, Splits

TRIED = 2_000
"""Targets of a part that are spelled and read back."""


@dataclass(frozen=True, slots=True)
class Found:
    """Texts of one part that have something in them."""

    texts: int
    of: int
    count: int
    """How often, over all texts."""
    first: str
    """Where the first of them stands, and its beginning."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one part of the data holds that is lost on the way through tokens; None: nothing."""

    unknown_sources: Found | None = None
    unknown_targets: Found | None = None
    """Unknown tokens: characters or words that the vocabulary lacks."""
    respelled: Found | None = None
    """Among the first `TRIED` targets: those that the tokenizer gives back in another spelling."""
    line_feeds: Found | None = None
    """Line feeds in targets."""
    merged: Merged | None = None
    """Rows of own files that became references of another row with the same source."""


def look(
    backbone: Backbone,
    examples: Sequence[Example],
    *,
    sources: Sequence[Sequence[int]] = (),
    targets: Sequence[Sequence[int]] = (),
    merged: Merged | None = None,
) -> Look:
    """Look through a part: the ids of its `sources`, one an example, and of its `targets`; empty: not looked at."""
    assert backbone.tokenizer is not None
    unknown = unknown_id(backbone.tokenizer)
    of_target = [(example, text) for example in examples for text in example.targets]
    of_source = [(example, example.source) for example in examples]

    def found(texts: Sequence[tuple[Example, str]], counts: Sequence[int]) -> Found | None:
        holding = [at for at, count in enumerate(counts) if count]
        if not holding:
            return None
        example, text = texts[holding[0]]
        index = next(index for index, one in enumerate(examples) if one is example)
        first = f"{example.where(index)}, {excerpt(text)}"
        return Found(len(holding), len(counts), sum(counts), first)

    return Look(
        found(of_source, [ids.count(unknown) for ids in sources] if unknown is not None else []),
        found(of_target, [ids.count(unknown) for ids in targets] if unknown is not None else []),
        _respelled(backbone, examples, of_target[:TRIED], targets[:TRIED], unknown),
        found(of_target, [text.count("\n") for _, text in of_target]),
        merged,
    )


def _respelled(
    backbone: Backbone,
    examples: Sequence[Example],
    texts: Sequence[tuple[Example, str]],
    targets: Sequence[Sequence[int]],
    unknown: int | None,
) -> Found | None:
    """What an uncased or otherwise normalising tokenizer changes for good; white space aside, as in predictions."""
    assert backbone.tokenizer is not None
    back = backbone.tokenizer.batch_decode([list(ids) for ids in targets], skip_special_tokens=True) if targets else []
    changed = [
        at
        for at, ((_, text), again) in enumerate(zip(texts, back, strict=False))
        if again.split() != text.split() and unknown not in targets[at]
    ]
    if not changed:
        return None
    example, text = texts[changed[0]]
    index = next(index for index, one in enumerate(examples) if one is example)
    first = f"{example.where(index)}, {excerpt(text)} comes back as {excerpt(' '.join(back[changed[0]].split()))}"
    return Found(len(changed), len(targets), len(changed), first)


def look_through(
    backbone: Backbone, splits: Splits, train: Sequence[Encoded], dev: Sequence[Encoded]
) -> dict[str, Look]:
    """All three parts, of which train and dev are encoded."""
    assert backbone.tokenizer is not None
    asked = unknown_id(backbone.tokenizer) is not None
    test = encode_given(backbone, splits.test, "test") if asked else []
    return {
        "train": _look_at_pairs(backbone, splits.train, train, None),
        "dev": _look_at_pairs(backbone, splits.dev, dev, splits.merged.get("dev")),
        "test": look(backbone, splits.test, sources=test, merged=splits.merged.get("test")),
    }


def _look_at_pairs(
    backbone: Backbone, examples: Sequence[Example], pairs: Sequence[Encoded], merged: Merged | None
) -> Look:
    starts = accumulate((len(example.targets) for example in examples[:-1]), initial=0) if examples else []
    sources = [pairs[start].source for start in starts]
    return look(backbone, examples, sources=sources, targets=[pair.target for pair in pairs], merged=merged)


def remarks(looks: Mapping[str, Look], decode: DecodeConfig) -> list[str]:
    """What of it a user should know, a line each; parts of which the same is to be said are named together."""
    parts: dict[str, list[str]] = {}
    for name, one in looks.items():
        for text in _remarks(one, decode):
            parts.setdefault(text, []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in parts.items()]


def _remarks(one: Look, decode: DecodeConfig) -> list[str]:
    said = []
    for side, found in (("sources", one.unknown_sources), ("targets", one.unknown_targets)):
        if found is not None:
            why = "read as the unknown token" if side == "sources" else "learned as the unknown token, never decoded"
            said.append(
                f"{found.count:,} unknown tokens in {found.texts:,} of {found.of:,} {side} (the backbone's vocabulary "
                f"lacks something there; it is {why}); first: {found.first}"
            )
    if one.respelled is not None:
        said.append(
            f"{one.respelled.texts:,} of the first {one.respelled.of:,} targets are spelled otherwise by the backbone's"
            f" tokenizer, so no prediction can equal them; first: {one.respelled.first}"
        )
    feeds = one.line_feeds
    if feeds is not None and not decode.labels:
        lost = (
            "decode.ban_newline forbids to generate them; set decode.ban_newline=false, or write targets in one line"
            if decode.ban_newline
            else "predictions are written in one line, with spaces in their place"
        )
        said.append(
            f"{feeds.texts:,} of {feeds.of:,} targets hold line feeds ({feeds.count:,}); {lost}; first: {feeds.first}"
        )
    if one.merged is not None:
        said.append(
            f"{one.merged.rows:,} rows have {one.merged.sources:,} sources: rows with the same source are merged, and "
            f"their targets are references of one answer; first merged: {one.merged.first}. If targets are labels, set "
            "data.labels or decode.labels=true, and each row is scored by itself"
        )
    return said
