"""Label words instead of free text: every label word is scored as a target, and the best one is the answer.

A label word is framed as the targets of training are, its end of text included, so that none is the beginning of
another (label words for which that is not so are refused). All of them are read by teacher forcing; nothing is pruned,
and the answer is exact:

`greedy` goes down the prefix tree of the label words' tokens, at each fork to the likeliest next token: what greedy
generation gives when it may only spell a label word. `beam` takes the highest log p(label) / tokens ** length_penalty:
what beam search so restricted gives when no beam is ever dropped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from softprompt.backbone import Backbone, target_logits
from softprompt.batch import (
    Encoded,
    batches_by_length,
    encode_sources,
    encode_targets,
    make_batch,
    require_pairs_fit,
)
from softprompt.config import DecodeConfig
from softprompt.errors import ConfigError
from softprompt.methods import Steering
from softprompt.per_row import PerRow, for_rows, rooms
from softprompt.types import Example

MOST = 50
"""Label words at most where they are taken from the training targets; more are not labels but texts."""


@dataclass(frozen=True, slots=True)
class LabelWords:
    """The texts that an answer may be, and how they are spelled in tokens, framed as targets."""

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, backbone: Backbone, texts: Sequence[str], config: DecodeConfig) -> "LabelWords":
        """The label words that `config` lets an answer be.

        Raises:
            ConfigError: none, one that begins like the whole of another, or one that the limits on generation rule out.
        """
        if not texts:
            raise ConfigError("decode.labels: expected at least one label word, got none. Drop decode.labels.")
        ids = encode_targets(backbone, texts)
        for text, row in zip(texts, ids, strict=True):
            longer = [other for other, its in zip(texts, ids, strict=True) if its[: len(row)] == row]
            if len(longer) > 1:
                raise ConfigError(
                    f"decode.labels: expected label words of which none is the beginning of another in tokens, got "
                    f"{longer[0]!r} and {longer[1]!r} on backbone {backbone.id!r}. Name them differently."
                )
            if not config.min_new_tokens < len(row) <= config.max_new_tokens:
                raise ConfigError(
                    f"decode.labels: label word {text!r} takes {len(row)} tokens, its end included; decode allows "
                    f"{config.min_new_tokens + 1} to {config.max_new_tokens}. "
                    "Change decode.max_new_tokens or decode.min_new_tokens."
                )
        return cls(tuple(texts), tuple(ids))

    def greedy(self, log_probs_LT: Tensor) -> int:
        """The label word at the end of the likeliest way down the prefix tree; a tie goes to the earlier one."""
        left, depth = list(range(len(self.ids))), 0
        while len(left) > 1:
            best = max(left, key=lambda label: float(log_probs_LT[label, depth]))
            left = [label for label in left if self.ids[label][depth] == self.ids[best][depth]]
            depth += 1
        return left[0]

    def totals(self, log_probs_SLT: Tensor, length_penalty: float) -> Tensor:
        """log p(label) / tokens ** length_penalty of every source and label word (S, L)."""
        tokens_L = torch.tensor([len(row) for row in self.ids])
        return log_probs_SLT.sum(2) / tokens_L**length_penalty

    def choose(self, log_probs_SLT: Tensor, config: DecodeConfig) -> list[int]:
        """The answer to each source, an index of `texts`, by the strategy of `config`."""
        if config.strategy == "greedy":
            return [self.greedy(log_probs_LT) for log_probs_LT in log_probs_SLT]
        return [int(best) for best in self.totals(log_probs_SLT, config.length_penalty).argmax(1)]


def score_labels(
    backbone: Backbone,
    steering: Steering | PerRow,
    sources: Sequence[str],
    labels: LabelWords,
    *,
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> Tensor:
    """log p(token | source, what came before) of every label word's tokens (S, L, T) in nats, on the CPU.

    T is that of the longest label word; behind a shorter one stand zeros. `on_batch` hears the sources done so far.

    Raises:
        DataError: a source and its longest label word do not fit the window beside the prompt.
    """
    longest = max(len(row) for row in labels.ids)
    log_probs_SLT = torch.zeros(len(sources), len(labels.ids), longest)
    ids = encode_sources(backbone, sources)
    pairs = [(index, label) for index in range(len(ids)) for label in range(len(labels.ids))]
    encoded = [Encoded(ids[index], labels.ids[label]) for index, label in pairs]
    scored = target_log_probs(
        backbone,
        for_rows(steering, [index for index, _ in pairs]),
        encoded,
        batch_size=batch_size,
        on_batch=None if on_batch is None else lambda done: on_batch(done // len(labels.ids)),
    )
    for (index, label), row in zip(pairs, scored, strict=True):
        log_probs_SLT[index, label, : len(row)] = row
    return log_probs_SLT


def target_log_probs(
    backbone: Backbone,
    steering: Steering | PerRow,
    pairs: Sequence[Encoded],
    *,
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """log p of each token of each pair's target, in nats, float32 on the CPU; pairs in order. No gradient.

    Raises:
        DataError: a pair does not fit the window beside the prompt.
    """
    require_pairs_fit(backbone, pairs, what="sources with a target", offset=rooms(backbone, steering, len(pairs)))
    backbone.model.eval()
    rows: dict[int, Tensor] = {}
    with torch.no_grad():
        for chunk in batches_by_length(pairs, batch_size):
            own = for_rows(steering, chunk)
            batch = make_batch(backbone, own, [pairs[index] for index in chunk])
            with own.attach(backbone):
                logits_NV = target_logits(backbone.model, batch.inputs(), batch.at_N)
            loss_N = torch.nn.functional.cross_entropy(logits_NV.float(), batch.labels_N, reduction="none")
            lengths = [len(pairs[index].target) for index in chunk]
            rows |= zip(chunk, torch.split(-loss_N.cpu(), lengths), strict=True)
            if on_batch is not None:
                on_batch(len(rows))
    return [rows[index] for index in range(len(pairs))]


def distinct_targets(examples: Sequence[Example]) -> tuple[str, ...]:
    """The training targets, each once, in first-seen order, as the label words of a task that names none itself.

    Raises:
        ConfigError: more than `MOST`.
    """
    texts = tuple(dict.fromkeys(target for example in examples for target in example.targets))
    if len(texts) > MOST:
        raise ConfigError(
            f"decode.labels: expected at most {MOST} different training targets to take as label words, got "
            f"{len(texts)}. Set decode.labels=false: this task's targets are texts."
        )
    return texts
