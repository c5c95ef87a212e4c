"""Suites: the metrics that a data set's papers report, in their order, scored in one call."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from softprompt.errors import ConfigError
from softprompt.metrics.base import (
    Metric,
    MetricFactory,
    References,
    Score,
    Segments,
    Unavailable,
    check_hypotheses,
    check_references,
)
from softprompt.metrics.bertscore import bertscore
from softprompt.metrics.bleu import Bleu, multi_bleu, multi_bleu_detok
from softprompt.metrics.chrf import ChrF
from softprompt.metrics.cider import Cider
from softprompt.metrics.correlation import Pearson, Spearman
from softprompt.metrics.labels import Accuracy, MacroF1, Matthews, f1
from softprompt.metrics.meteor import Meteor, meteor_of_ptb_words
from softprompt.metrics.multirc import MultiRcExactMatch, MultiRcF1
from softprompt.metrics.nist import Nist
from softprompt.metrics.rouge import rouge
from softprompt.metrics.rouge_l import RougeL
from softprompt.metrics.squad import AnswerF1, ExactMatch
from softprompt.metrics.ter import Ter
from softprompt.metrics.words import split_ascii_words, split_words


def _as_it_is(text: str) -> str:
    return text


@dataclass(frozen=True)
class Suite:
    """What a data set's papers report and what they do to a text before that."""

    title: str
    metrics: Mapping[str, MetricFactory]
    """Name -> metric, in the papers' order."""
    words: Callable[[str], str] = _as_it_is
    """Applied to hypotheses and references; applied again it changes nothing."""


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """The scores of one system, and the reasons for those that are missing, in the papers' order."""

    scores: dict[str, Score]
    missing: dict[str, str] = field(default_factory=dict)


class PreparedSuite:
    """A suite's metrics made ready for one test set: the references are read once, then many systems are scored."""

    def __init__(self, suite: Suite, references: References) -> None:
        """Prepares each metric; notes those that cannot be computed here.

        Raises:
            DataError: There is no segment, or a segment has no reference.
        """
        check_references(references)
        self.num_segments = len(references)
        self._words = suite.words
        prepared = [[suite.words(reference) for reference in group] for group in references]
        self.metrics: dict[str, Metric] = {}
        self._missing: dict[str, str] = {}
        for name, factory in suite.metrics.items():
            try:
                self.metrics[name] = factory(prepared)
            except Unavailable as reason:
                self._missing[name] = str(reason)

    def take_apart(self, hypotheses: Sequence[str]) -> tuple[dict[str, Segments], dict[str, str]]:
        """One system's outputs taken apart by each metric, and the reasons for the metrics that are missing.

        Raises:
            DataError: The number of hypotheses is not the number of segments.
        """
        check_hypotheses(hypotheses, self.num_segments)
        prepared = [self._words(hypothesis) for hypothesis in hypotheses]
        found: dict[str, Segments] = {}
        missing = dict(self._missing)
        for name, metric in self.metrics.items():
            try:
                found[name] = metric.segments(prepared)
            except Unavailable as reason:
                missing[name] = str(reason)
        return found, missing

    def score(self, hypotheses: Sequence[str]) -> SuiteResult:
        """Scores one system, a hypothesis for each segment.

        Raises:
            DataError: The number of hypotheses is not the number of segments.
        """
        found, missing = self.take_apart(hypotheses)
        return SuiteResult({name: self.metrics[name].score_of(segments) for name, segments in found.items()}, missing)


def _suite(title: str, *, words: Callable[[str], str] = _as_it_is, **metrics: MetricFactory) -> Suite:
    return Suite(title, MappingProxyType(metrics), words)


# The spellings of the class that F1 is about: the data set's number and T5's word for it.
_PARAPHRASE: Final = f1("1", "equivalent")
_DUPLICATE: Final = f1("1", "duplicate")

SUITES: Final[Mapping[str, Suite]] = MappingProxyType(
    {
        # Dušek et al. 2020, "Evaluating the State-of-the-Art of End-to-End Natural Language Generation": the columns
        # of Li & Liang's Table 1.
        "e2e": _suite(
            "E2E NLG challenge", bleu=Bleu, nist=Nist, meteor=meteor_of_ptb_words, rouge_l=RougeL, cider=Cider
        ),
        "webnlg": _suite("WebNLG 2017 challenge", words=split_ascii_words, bleu=multi_bleu, meteor=Meteor, ter=Ter),
        "webnlg2020": _suite("WebNLG 2020 challenge", bleu=multi_bleu_detok, meteor=Meteor, chrf=ChrF),
        "dart": _suite("DART leaderboard", words=split_words, bleu=multi_bleu, meteor=Meteor, ter=Ter),
        "summarization": _suite("summaries", rouge1=rouge("rouge1"), rouge2=rouge("rouge2"), rougeL=rouge("rougeL")),
        "squad": _suite("extractive QA", exact_match=ExactMatch, f1=AnswerF1),
        "accuracy": _suite("classification", accuracy=Accuracy),
        "glue/cola": _suite("GLUE CoLA", matthews=Matthews),
        "glue/sst2": _suite("GLUE SST-2", accuracy=Accuracy),
        "glue/mrpc": _suite("GLUE MRPC", accuracy=Accuracy, f1=_PARAPHRASE),
        "glue/qqp": _suite("GLUE QQP", accuracy=Accuracy, f1=_DUPLICATE),
        "glue/stsb": _suite("GLUE STS-B", pearson=Pearson, spearman=Spearman),
        "glue/mnli": _suite("GLUE MNLI", accuracy=Accuracy),
        "glue/qnli": _suite("GLUE QNLI", accuracy=Accuracy),
        "glue/rte": _suite("GLUE RTE", accuracy=Accuracy),
        "glue/wnli": _suite("GLUE WNLI", accuracy=Accuracy),
        "superglue/boolq": _suite("SuperGLUE BoolQ", accuracy=Accuracy),
        "superglue/cb": _suite("SuperGLUE CB", accuracy=Accuracy, f1_macro=MacroF1),
        "superglue/copa": _suite("SuperGLUE COPA", accuracy=Accuracy),
        "superglue/multirc": _suite("SuperGLUE MultiRC", f1a=MultiRcF1, exact_match=MultiRcExactMatch),
        "superglue/record": _suite("SuperGLUE ReCoRD", f1=AnswerF1, exact_match=ExactMatch),
        "superglue/rte": _suite("SuperGLUE RTE", accuracy=Accuracy),
        "superglue/wic": _suite("SuperGLUE WiC", accuracy=Accuracy),
        "superglue/wsc": _suite("SuperGLUE WSC", accuracy=Accuracy),
    }
)
"""To add a metric: write its file, name it here."""

METRICS: Final[Mapping[str, MetricFactory]] = MappingProxyType(
    {
        **{"bleu": Bleu, "nist": Nist, "meteor": Meteor, "rouge_l": RougeL, "cider": Cider, "ter": Ter, "chrf": ChrF},
        **{name: rouge(name) for name in ("rouge1", "rouge2", "rougeL")},
        **{"exact_match": ExactMatch, "f1": AnswerF1, "accuracy": Accuracy, "f1_macro": MacroF1},
        **{"matthews": Matthews, "pearson": Pearson, "spearman": Spearman},
    }
)
"""Metrics that any data may be scored by: what a name means that the suite has not got."""


def find_suite(name: str) -> Suite:
    """The suite called `name`.

    Raises:
        ConfigError: There is no such suite.
    """
    if name not in SUITES:
        close = difflib.get_close_matches(name, SUITES, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "Choose one of these."
        raise ConfigError(f"Expected a metric suite out of {', '.join(SUITES)}, got {name!r}. {hint}")
    return SUITES[name]


def with_metrics(suite: Suite, names: Sequence[str]) -> Suite:
    """The suite with these metrics only, in this order: its own where it has them, else those of `METRICS`; (): as is.

    Raises:
        ConfigError: There is no such metric.
    """
    known = {**METRICS, **suite.metrics}
    unknown = [name for name in names if name not in known]
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"Expected metrics out of {', '.join(known)}, got {unknown[0]!r}.{hint}")
    return replace(suite, metrics=MappingProxyType({name: known[name] for name in names})) if names else suite


def with_bertscore(suite: Suite, model: str | None) -> Suite:
    """The suite with BERTScore by `model` (hub id or folder, `:LAYER` behind it) after its own metrics; None: as is."""
    if model is None:
        return suite
    return replace(suite, metrics=MappingProxyType({**suite.metrics, "bertscore": bertscore(model)}))


def prepare_suite(
    name: str, references: References, bertscore_model: str | None = None, metrics: Sequence[str] = ()
) -> PreparedSuite:
    """The suite `name`, or only some `metrics`, ready to score systems against `references`.

    Raises:
        ConfigError: There is no such suite or metric.
        DataError: There is no segment, or a segment has no reference.
    """
    return PreparedSuite(with_bertscore(with_metrics(find_suite(name), metrics), bertscore_model), references)


def score_suite(
    name: str,
    hypotheses: Sequence[str],
    references: References,
    bertscore_model: str | None = None,
    metrics: Sequence[str] = (),
) -> SuiteResult:
    """Scores one system by the suite `name`, or only some `metrics`: `hypotheses[i]` against all of `references[i]`.

    Raises:
        ConfigError: There is no such suite or metric.
        DataError: Nothing to score, unequal counts, or a segment without a reference.
    """
    if not isinstance(hypotheses, str) and len(references):
        check_hypotheses(hypotheses, len(references))  # before the slow part
    return prepare_suite(name, references, bertscore_model, metrics).score(hypotheses)
