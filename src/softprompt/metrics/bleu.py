"""BLEU-4 as the E2E challenge's scorer reports it (mteval-v13a).

    BLEU = min(1, exp(1 - r/c)) * exp(1/4 * sum_n ln p_n)

p_n is the share of the hypotheses' n-grams that also occur in a reference (clipped by the most any one reference has),
c the words of the hypotheses, r the words of each segment's closest reference (of two as close, the shorter).
An order without a match gets 1/2^k of a match, k counting such orders.

Source: Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation"; computed by sacrebleu
(Post 2018, "A Call for Clarity in Reporting BLEU Scores").
Differences from mteval-v13a.pl: every letter is lowered, not A-Z only.
"""

from __future__ import annotations

from collections.abc import Sequence

from softprompt.metrics.base import References, Score, check_hypotheses, check_references


class Bleu:
    """Corpus BLEU, lower case, 13a tokens, any number of references a segment. An empty reference counts as one."""

    def __init__(self, references: References) -> None:
        """Counts the n-grams of the references.

        Raises:
            DataError: A segment has no reference.
        """
        from sacrebleu.metrics import BLEU  # slow to import

        check_references(references)
        self._num_segments = len(references)
        most = max(len(group) for group in references)
        streams = [[group[rank] if rank < len(group) else None for group in references] for rank in range(most)]
        # `force` only silences the advice against tokenized text, which E2E outputs are by design.
        self._bleu = BLEU(lowercase=True, tokenize="13a", smooth_method="exp", references=streams, force=True)

    def score(self, hypotheses: Sequence[str]) -> Score:
        """BLEU times 100 with sacrebleu's own signature.

        Raises:
            DataError: The number of hypotheses is not the number of segments.
        """
        check_hypotheses(hypotheses, self._num_segments)
        value = float(self._bleu.corpus_score(list(hypotheses), None).score)
        return Score("bleu", value, f"BLEU|{self._bleu.get_signature()}")
