"""A prompt of its own, or none, for each row of one batch: prefixes and virtual tokens, of any lengths, side by side.

Every row comes out as it would alone: another row's virtual tokens are not in it, and another row's prefix is masked.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from softprompt.active import alone
from softprompt.backbone import Backbone
from softprompt.embed import virtual_tokens, vocabulary_size
from softprompt.errors import ConfigError
from softprompt.forms import PrefixForm
from softprompt.inject import PrefixKV, PrefixRows, inject
from softprompt.methods import Steering, room_taken
from softprompt.positions import text_starts_at
from softprompt.prompt import Prompt

Ids = tuple[int, ...]


@dataclass(frozen=True)
class PerRow:
    """A prompt, or None for the backbone as it is, for each row in order."""

    prompts: tuple[Prompt | None, ...]

    def __post_init__(self) -> None:
        """Raises ConfigError for prompts that cannot stand side by side."""
        kinds = {(form.place_name, form.attention) for prompt in self._distinct() if (form := _prefix(prompt))}
        if len(set(map(id, self.prompts))) > 1 and kinds - {("before", "joined")}:
            raise ConfigError(
                "prompts by row: expected prefixes before the text, in the text's own softmax (place: before, "
                "attention: joined), got one that is not. Decode its rows apart."
            )

    def take(self, rows: Sequence[int]) -> "PerRow":
        """The same for some of the rows, in the order given."""
        return PerRow(tuple(self.prompts[row] for row in rows))

    def place(self, backbone: Backbone, sources: Sequence[Sequence[int]]) -> list[Ids]:
        """Every row's ids with its own prompt's virtual tokens among them; a source a row."""
        first, starts = vocabulary_size(backbone.model), self._starts()
        placed = []
        for prompt, source in zip(self.prompts, sources, strict=True):
            ids = tuple(source) if prompt is None else prompt.place(backbone, source)
            start = starts.get(id(prompt), 0)
            placed.append(tuple(token + start if token >= first else token for token in ids))
        return placed

    def rooms(self, backbone: Backbone) -> list[int]:
        """Positions of the window that each row's prompt takes."""
        taken = {id(prompt): room_taken(backbone, prompt) for prompt in self._distinct()}
        return [taken[id(prompt)] if prompt else 0 for prompt in self.prompts]

    @contextmanager
    def attach(self, backbone: Backbone, *, shared: bool = False) -> Iterator[None]:
        """Steer each row of the block's batches, and its beams, by its own prompt.

        `shared` is of use where all rows have the same one: see `softprompt.inject.inject`.
        """
        distinct = self._distinct()
        if len(distinct) == 1 and None not in self.prompts:
            with distinct[0].attach(backbone, shared=shared):
                yield
            return
        with alone(backbone.model), ExitStack() as stack:
            tables = [prompt.numbers for prompt in distinct if not _prefix(prompt)]
            if tables:
                stack.enter_context(virtual_tokens(backbone.model, torch.cat(tables).to(backbone.device)))
            if any(_prefix(prompt) for prompt in distinct):
                stack.enter_context(inject(backbone.model, self._prefixes(backbone)))
                offsets = [prompt.position_offset if prompt else 0 for prompt in self.prompts]
                if any(offsets):
                    starts_B = torch.tensor(offsets, device=backbone.device)
                    first = backbone.promises.first_position
                    stack.enter_context(text_starts_at(backbone.model, starts_B, first=first))
            yield

    def _distinct(self) -> list[Prompt]:
        return list({id(prompt): prompt for prompt in self.prompts if prompt is not None}.values())

    def _starts(self) -> dict[int, int]:
        """Where each prompt's rows begin in the table of all virtual tokens, by the prompt's identity."""
        starts, total = {}, 0
        for prompt in self._distinct():
            if not _prefix(prompt):
                starts[id(prompt)] = total
                total += prompt.length
        return starts

    def _prefixes(self, backbone: Backbone) -> dict[str, PrefixRows]:
        """Site name -> the rows' prefixes there, padded to the longest."""
        kept = {id(prompt): prompt.keys_and_values(backbone.device) for prompt in self._distinct() if _prefix(prompt)}
        names = dict.fromkeys(name for sites in kept.values() for name in sites)
        rows = [id(prompt) for prompt in self.prompts]
        return {
            name: _padded({key: sites[name] for key, sites in kept.items() if name in sites}, rows) for name in names
        }


def _prefix(prompt: Prompt) -> PrefixForm | None:
    return prompt.form if isinstance(prompt.form, PrefixForm) else None


def _padded(prefixes: Mapping[int, PrefixKV], rows: Sequence[int]) -> PrefixRows:
    """One site's prefix for each of `rows`, which are keys of `prefixes`, or none; padded to the longest.

    A row is a copy of a prefix that is padded once, so a gradient is summed over rows in their order on any device.
    """
    longest = max(kv.length for kv in prefixes.values())

    def stacked(halves: Mapping[int, Tensor]) -> Tensor:
        padded = {key: nn.functional.pad(half, (0, 0, 0, longest - half.shape[1])) for key, half in halves.items()}
        nothing = torch.zeros_like(next(iter(padded.values())))
        return torch.stack([padded.get(row, nothing) for row in rows])

    keys = stacked({key: kv.key for key, kv in prefixes.items()})
    values = stacked({key: kv.value for key, kv in prefixes.items()})
    lengths = torch.tensor([prefixes[row].length if row in prefixes else 0 for row in rows], device=keys.device)
    return PrefixRows(keys, values, torch.arange(longest, device=keys.device)[None] < lengths[:, None])


def for_rows(steering: Steering | PerRow, rows: Sequence[int]) -> Steering | PerRow:
    """The steering of a batch of these rows."""
    return steering.take(rows) if isinstance(steering, PerRow) else steering


def placed(backbone: Backbone, steering: Steering | PerRow, sources: Sequence[Sequence[int]]) -> list[Ids]:
    """The ids of every row of a batch with the steering's virtual tokens among them."""
    if isinstance(steering, PerRow):
        return steering.place(backbone, sources)
    return [steering.place(backbone, source) for source in sources]


def rooms(backbone: Backbone, steering: Steering | PerRow, rows: int) -> list[int]:
    """Positions of the window that the steering takes from the text of each row."""
    return steering.rooms(backbone) if isinstance(steering, PerRow) else [room_taken(backbone, steering)] * rows
