"""What a recipe's data comes to on its backbone: counts, lengths in tokens, what does not fit, and examples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from softprompt import data
from softprompt.backbone import Backbone, quiet_transformers
from softprompt.batch import encode_given, encode_pairs, positions_taken
from softprompt.config import Recipe
from softprompt.errors import ConfigError
from softprompt.look import Look, look, remarks
from softprompt.methods import room_taken
from softprompt.prepare import answer_room, build_method, build_untrained, is_labelled
from softprompt.table import as_text
from softprompt.truncate import Cut, cut_splits, rooms
from softprompt.types import Example, Merged, Splits

SHOWN, SHOWN_CHARACTERS = 3, 600


@dataclass(frozen=True)
class Lengths:
    """Of texts in their frame, in tokens; `p95`: 95 of 100 texts are no longer."""

    min: int
    mean: float
    p95: int
    max: int


@dataclass(frozen=True)
class Part:
    """One part of the data. Lengths are those before a cut; None where there is nothing to measure."""

    source: Lengths | None
    target: Lengths | None
    too_long: int
    """Pairs (in the test: sources) that do not fit the window beside the prompt (and beside what is generated)."""
    examples: int = 0
    targets: int = 0
    sha256: str = ""
    cut: Cut | None = None
    look: Look = field(default_factory=Look)


@dataclass(frozen=True)
class Shown:
    """A training pair as the model reads it: special tokens written out, and which part carries the loss."""

    given: str
    """No loss: masked out of the labels."""
    learned: str


@dataclass(frozen=True)
class Inspection:
    """What `softprompt inspect-data` prints."""

    window: int | None
    """Tokens that the backbone can read; None: it has no fixed limit."""
    prompt_positions: int
    split: str
    parts: Mapping[str, Part]
    examples: tuple[Shown, ...]
    remarks: tuple[str, ...] = ()
    """What is lost on the way through tokens, in words."""

    def lines(self) -> list[str]:
        """For people."""
        head = ["", "examples", "targets", "source tokens", "target tokens", "too long", "share", "cut"]
        rows = [[name, *_cells(part)] for name, part in self.parts.items()]
        window = f"{self.window:,} tokens" if self.window is not None else "not limited"
        lines = [
            as_text([head, *rows]),
            "",
            "Tokens: min / mean / 95th percentile / max, with the frame's special tokens.",
            f"Window: {window}, {self.prompt_positions} of them for the prompt. Split policy: {self.split}.",
            *(f"Note: {text}." for text in self.remarks),
        ]
        for number, example in enumerate(self.examples, 1):
            lines += [
                "",
                f"example {number}",
                f"  masked   {_cut(example.given)}",
                f"  learned  {_cut(example.learned)}",
            ]
        return lines


def inspect_data(recipe: Recipe) -> Inspection:
    """Read and tokenise a recipe's data; no weights are loaded and nothing is written.

    Raises ConfigError, DataError or BackboneError, as a run does, but texts that do not fit are counted.
    """
    if recipe.tasks:
        raise ConfigError(
            f"recipe {recipe.name}: expected one task to inspect, got {', '.join(recipe.tasks)}. Give each part."
        )
    splits = data.load(recipe.data, recipe.seed, labelled=is_labelled(recipe))
    with quiet_transformers():  # it warns of texts that are too long: they are what is counted
        return _inspected(recipe, splits)


def _inspected(recipe: Recipe, splits: Splits) -> Inspection:
    plan = Backbone.plan(recipe.backbone.id, revision=recipe.backbone.revision, tokenizer=True)
    method = build_method(plan, recipe)
    offset = room_taken(plan, method or build_untrained(plan, recipe, splits.train))
    room = rooms(plan, recipe, offset, answer_room(plan, recipe, splits.train))
    record = data.record_of(splits)
    cut, cuts = cut_splits(plan, splits, room) if recipe.data.truncate == "source" else (splits, {})
    measured = {
        "train": _measure("train", plan, splits.train, room.pair, None),
        "dev": _measure("dev", plan, splits.dev, room.pair, splits.merged.get("dev")),
        "test": _measure("test", plan, splits.test, room.source, splits.merged.get("test"), pairs=False),
    }
    parts = {name: replace(part, cut=cuts.get(name), **record[name]) for name, part in measured.items()}
    said = remarks({name: part.look for name, part in parts.items()}, recipe.decode)
    shown = _shown(plan, cut.train or cut.test)
    return Inspection(plan.window, offset, data.policy_of(recipe.data), parts, shown, tuple(said))


def _measure(
    name: str,
    backbone: Backbone,
    examples: Sequence[Example],
    room: int | None,
    merged: Merged | None,
    *,
    pairs: bool = True,
) -> Part:
    """Lengths, and how many do not fit into `room`: pairs of source and target, or sources alone."""
    encoded, sources = encode_pairs(backbone, examples, name), encode_given(backbone, examples, name)
    needed = [positions_taken(backbone, pair) for pair in encoded] if pairs else [len(ids) for ids in sources]
    too_long = sum(length > room for length in needed) if room is not None else 0
    source, target = _lengths([len(ids) for ids in sources]), _lengths([len(pair.target) for pair in encoded])
    found = look(backbone, examples, sources=sources, targets=[pair.target for pair in encoded], merged=merged)
    return Part(source=source, target=target, too_long=too_long, look=found)


def _lengths(lengths: Sequence[int]) -> Lengths | None:
    if not lengths:
        return None
    ordered = sorted(lengths)
    return Lengths(ordered[0], sum(ordered) / len(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1], ordered[-1])


def _shown(backbone: Backbone, examples: Sequence[Example]) -> tuple[Shown, ...]:
    tokenizer = backbone.tokenizer
    assert tokenizer is not None
    first = [replace(example, targets=example.targets[:1]) for example in examples[:SHOWN]]
    return tuple(Shown(tokenizer.decode(p.source), tokenizer.decode(p.target)) for p in encode_pairs(backbone, first))


def _cut(text: str) -> str:
    """A text as it is shown: of a long one its two ends, where the frame is."""
    if len(text) <= SHOWN_CHARACTERS:
        return text
    left = f" [... {len(text) - SHOWN_CHARACTERS:,} characters ...] "
    return text[: SHOWN_CHARACTERS * 2 // 3] + left + text[-SHOWN_CHARACTERS // 3 :]


def _cells(part: Part) -> list[str]:
    cut = f"{part.cut.examples:,} ({part.cut.tokens:,} tokens)" if part.cut else "-"
    lengths = [
        f"{found.min:,} / {found.mean:,.1f} / {found.p95:,} / {found.max:,}" if found else "-"
        for found in (part.source, part.target)
    ]
    share = f"{part.too_long / part.examples:.1%}" if part.examples else "-"
    return [f"{part.examples:,}", f"{part.targets:,}", *lengths, f"{part.too_long:,}", share, cut]
