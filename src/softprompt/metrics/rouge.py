"""ROUGE-1, ROUGE-2 and ROUGE-L for summaries: F1 of stemmed words, mean over segments.

Computed by the package rouge-score (Google Research), which follows ROUGE-1.5.5 with `-m` (Porter's stemmer; words are
runs of a-z and 0-9, lower case). With several references, a segment counts with the one that gives the highest F1.
A text without such words scores 0, also against another such text.

So it does not see texts of other scripts. A reference most of whose letters and digits are no a-z and 0-9 is unseen:
the signature says how many there are, and where they are more than one in twenty the metric is missing, with reason.
`rouge1_unicode`, `rouge2_unicode` and `rougeL_unicode` see every script: words are runs of letters, marks and digits,
each character of a script that is written without spaces (Chinese, Japanese, Thai, ...) a word of its own, no stems.

Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries".
Differences: ROUGE-1.5.5 adds a bootstrap to its means; numbers of the two agree to about a tenth of a point. The
Unicode words are ours; there is no official program for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any, Final, Literal

from softprompt.metrics.base import Metric, MetricFactory, References, Sums, Unavailable, mean_of, there

Kind = Literal["rouge1", "rouge2", "rougeL"]
KINDS: Final[tuple[Kind, ...]] = ("rouge1", "rouge2", "rougeL")
_UNSEEN_AT_MOST: Final = 0.05  # of the segments


class Rouge(Metric):
    """One of `KINDS`, times 100."""

    def __init__(self, references: References, kind: Kind, every_script: bool = False) -> None:
        """Keeps the references; each is read when the first system is scored.

        Raises:
            DataError: A segment has no reference.
            Unavailable: More than one segment in twenty is written in a script that ROUGE does not see.
        """
        super().__init__(references)
        self._kind, self._every_script = kind, every_script
        self.name = f"{kind}_unicode" if every_script else kind
        self._references = [tuple(there(group)) for group in references]
        self._unseen = 0 if every_script else sum(map(_is_unseen, self._references))
        if self._unseen > _UNSEEN_AT_MOST * self.num_segments:
            raise Unavailable(
                f"ROUGE's words are runs of a-z and 0-9, and the references of {self._unseen} of {self.num_segments} "
                f"segments are mostly written in other letters, which it drops: equal texts would score 0. Take "
                f"{kind}_unicode, or chrf."
            )

    @property
    def signature(self) -> str:
        from importlib.metadata import version

        of = f"rouge-score:{version('rouge-score')}"
        if self._every_script:
            return f"{self._kind.upper()}|F1|stem:no|case:lc|tok:unicode|refs:best|{of}"
        unseen = f"|unseen:{self._unseen}/{self.num_segments}" if self._unseen else ""
        return f"{self._kind.upper()}|F1|stem:porter|case:lc|tok:ascii|refs:best{unseen}|{of}"

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """F1 of each segment."""
        pairs = zip(hypotheses, self._references, strict=True)
        return mean_of(
            (_f1(hypothesis, group, self._every_script)[self._kind] for hypothesis, group in pairs), scale=100.0
        )


def _is_unseen(group: Sequence[str]) -> bool:
    """Whether most letters, marks and digits of a segment's references are none that ROUGE's words are made of."""
    if all(text.isascii() for text in group):
        return False
    seen = all_of = 0
    for character in "".join(group).lower():
        if character.isascii():
            seen += character.isalnum()
            all_of += character.isalnum()
        else:
            all_of += character.isalnum() or character.isidentifier() or ("_" + character).isidentifier()
    return 2 * seen < all_of


class _EveryScript:
    """The package's tokenizer, for all scripts."""

    def __init__(self) -> None:
        import regex  # type: ignore[import-untyped]  # knows scripts and marks; comes with sacrebleu

        spaceless = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
        letters = r"[\p{L}\p{M}\p{N}]"
        self._word = regex.compile(rf"[{spaceless}]\p{{M}}*|(?:(?![{spaceless}]){letters})+")

    def tokenize(self, text: str) -> list[str]:
        from unicodedata import normalize

        words: list[str] = self._word.findall(normalize("NFC", text).lower())
        return words


@cache
def _scorer(every_script: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # slow to import

    if every_script:
        return RougeScorer(list(KINDS), tokenizer=_EveryScript())
    return RougeScorer(list(KINDS), use_stemmer=True)


@cache
def _f1(hypothesis: str, references: tuple[str, ...], every_script: bool) -> dict[str, float]:
    """All kinds at once: the three metrics of a suite ask for the same segments."""
    scores = _scorer(every_script).score_multi(references, hypothesis)
    return {kind: float(scores[kind].fmeasure) for kind in KINDS}


def rouge(kind: Kind, every_script: bool = False) -> MetricFactory:
    """The metric `kind`, as a suite names it; with the words of every script, where asked."""
    return partial(Rouge, kind=kind, every_script=every_script)
