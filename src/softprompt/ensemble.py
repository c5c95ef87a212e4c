"""Several prompts on one frozen backbone vote on each answer (Lester et al. 2021, sec. 7: "Prompt Ensembling").

Each source stands in the batch once for every prompt, so an ensemble of N is one pass with N times the rows, not N
passes with N models. The paper takes the majority; it does not say how a tie is broken (here: by log-probability).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from softprompt.backbone import Backbone
from softprompt.batch import Encoded, encode_sources, encode_targets
from softprompt.config import DecodeConfig
from softprompt.decode import decode_texts
from softprompt.errors import ConfigError
from softprompt.labels import LabelWords, score_labels, target_log_probs
from softprompt.per_row import PerRow
from softprompt.prompt import Prompt

VOTES = ("majority", "logprob")
_Ballot = tuple[Sequence[str], Mapping[str, float]]
"""A source's answers, one a prompt, and the weight of each candidate."""


@dataclass(frozen=True, slots=True)
class Ensembled:
    """What the ensemble says, and what each prompt says alone."""

    texts: list[str]
    """The answer voted for, a source each."""
    each: list[list[str]]
    """The answers of the prompts alone: `each[prompt][source]`."""


def ensemble(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    sources: Sequence[str],
    config: DecodeConfig,
    *,
    vote: str = "majority",
    labels: Sequence[str] | None = None,
    seed: int = 0,
    on_batch: Callable[[int], None] | None = None,
) -> Ensembled:
    """Let `prompts` answer together.

    Args:
        vote: `majority`: the answer that most prompts give; among those that as many give, the one of higher weight.
            `logprob`: the candidate of highest weight. The weight of a candidate is log p(candidate | source, prompt) /
            tokens ** length_penalty, averaged over all prompts; candidates are the label words, or without them the
            different answers that the prompts give (framed as targets).
        labels: what an answer may be, where `config.labels` is on: see `softprompt.labels`.
        on_batch: hears the number of rows (sources x prompts) done.

    Raises:
        ConfigError: no prompt, an unknown vote, or prompts that cannot stand side by side.
        DataError: a source does not fit the window beside one of the prompts.
    """
    require_vote(vote)
    if not prompts:
        raise ConfigError("ensemble: expected at least one prompt, got none.")
    how = PerRow(tuple(prompts) * len(sources))
    copies = [source for source in sources for _ in prompts]
    if config.labels and labels is not None:
        words = LabelWords.of(backbone, labels, config)
        scores_RLT = score_labels(backbone, how, copies, words, batch_size=config.batch_size, on_batch=on_batch)
        answers = [words.texts[label] for label in words.choose(scores_RLT, config)]
        totals_SPL = words.totals(scores_RLT, config.length_penalty).view(len(sources), len(prompts), len(words.texts))
        weights = [dict(zip(words.texts, row, strict=True)) for row in totals_SPL.mean(1).tolist()]
    else:
        rows = decode_texts(backbone, how, copies, config, labels=labels, seed=seed, on_batch=on_batch)
        answers = [row.text for row in rows]
        weights = _weights(backbone, prompts, sources, _by_source(answers, len(prompts)), config)
    ballots = zip(_by_source(answers, len(prompts)), weights, strict=True)
    texts = [_elect(ballot, vote) for ballot in ballots]
    return Ensembled(texts, [answers[prompt :: len(prompts)] for prompt in range(len(prompts))])


def require_vote(vote: str) -> None:
    """Raises ConfigError for a vote that there is not."""
    if vote not in VOTES:
        raise ConfigError(f"vote: expected {' or '.join(VOTES)}, got {vote!r}.")


def _by_source(answers: Sequence[str], prompts: int) -> list[Sequence[str]]:
    return [answers[start : start + prompts] for start in range(0, len(answers), prompts)]


def _elect(ballot: _Ballot, vote: str) -> str:
    answers, weights = ballot
    if vote == "logprob":
        return max(weights, key=lambda text: weights[text])
    votes = Counter(answers)
    return max(votes, key=lambda text: (votes[text], weights[text]))


def _weights(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    sources: Sequence[str],
    answers: Sequence[Sequence[str]],
    config: DecodeConfig,
) -> list[dict[str, float]]:
    """The weight of every different answer to every source under all prompts; 0 where there is nothing to choose."""
    weights = [dict.fromkeys(given, 0.0) for given in answers]
    open_ = [(index, text) for index, given in enumerate(weights) if len(given) > 1 for text in given]
    ids, targets = encode_sources(backbone, sources), encode_targets(backbone, [text for _, text in open_])
    pairs = [Encoded(ids[index], target) for (index, _), target in zip(open_, targets, strict=True) for _ in prompts]
    how = PerRow(tuple(prompts) * len(open_))
    scored = target_log_probs(backbone, how, pairs, batch_size=config.batch_size)
    for place, ((index, text), target) in enumerate(zip(open_, targets, strict=True)):
        rows = scored[place * len(prompts) : (place + 1) * len(prompts)]
        mean = float(torch.stack([row.sum() for row in rows]).mean())
        weights[index][text] = mean / len(target) ** config.length_penalty
    return weights
