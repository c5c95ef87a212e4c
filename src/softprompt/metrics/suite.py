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
from softprompt.metrics.labels import Accuracy, Classes, MacroF1, Matthews, f1
from softprompt.metrics.meteor import Meteor, meteor_of_ptb_words
from softprompt.metrics.multirc import MultiRcExactMatch, MultiRcF1
from softprompt.metrics.nist import Nist
from softprompt.metrics.rouge import KINDS, rouge
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
    of_labels: bool = False
    """Whether its texts are labels, each of a class."""
    one_class: str | None = None
    """The metric that is about the positive class of the labels."""


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


def _labels(title: str, **metrics: MetricFactory) -> Suite:
    return Suite(title, MappingProxyType(metrics), of_labels=True, one_class="f1" if "f1" in metrics else None)


# The class that F1 is about, in the spellings of the data set and of T5, where the task's labels are not at hand.
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
        "text": _suite("texts of one's own", bleu=Bleu, rouge_l=RougeL, chrf=ChrF),
        "accuracy": _labels("classification", accuracy=Accuracy),
        "glue/cola": _labels("GLUE CoLA", matthews=Matthews),
        "glue/sst2": _labels("GLUE SST-2", accuracy=Accuracy),
        "glue/mrpc": _labels("GLUE MRPC", accuracy=Accuracy, f1=_PARAPHRASE),
        "glue/qqp": _labels("GLUE QQP", accuracy=Accuracy, f1=_DUPLICATE),
        "glue/stsb": _suite("GLUE STS-B", pearson=Pearson, spearman=Spearman),
        "glue/mnli": _labels("GLUE MNLI", accuracy=Accuracy),
        "glue/qnli": _labels("GLUE QNLI", accuracy=Accuracy),
        "glue/rte": _labels("GLUE RTE", accuracy=Accuracy),
        "glue/wnli": _labels("GLUE WNLI", accuracy=Accuracy),
        "superglue/boolq": _labels("SuperGLUE BoolQ", accuracy=Accuracy),
        "superglue/cb": _labels("SuperGLUE CB", accuracy=Accuracy, f1_macro=MacroF1),
        "superglue/copa": _labels("SuperGLUE COPA", accuracy=Accuracy),
        "superglue/multirc": _labels("SuperGLUE MultiRC", f1a=MultiRcF1, exact_match=MultiRcExactMatch),
        "superglue/record": _suite("SuperGLUE ReCoRD", f1=AnswerF1, exact_match=ExactMatch),
        "superglue/rte": _labels("SuperGLUE RTE", accuracy=Accuracy),
        "superglue/wic": _labels("SuperGLUE WiC", accuracy=Accuracy),
        "superglue/wsc": _labels("SuperGLUE WSC", accuracy=Accuracy),
    }
)
"""To add a metric: write its file, name it here."""

METRICS: Final[Mapping[str, MetricFactory]] = MappingProxyType(
    {
        **{"bleu": Bleu, "nist": Nist, "meteor": Meteor, "rouge_l": RougeL, "cider": Cider, "ter": Ter, "chrf": ChrF},
        **{name: rouge(name) for name in KINDS},
        **{f"{name}_unicode": rouge(name, every_script=True) for name in KINDS},
        **{"exact_match": ExactMatch, "squad_f1": AnswerF1, "accuracy": Accuracy, "f1_macro": MacroF1},
        **{"matthews": Matthews, "pearson": Pearson, "spearman": Spearman},
    }
)
"""Metrics that any data may be scored by: what a name means that the suite has not got."""

SHORT: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"rouge": KINDS, "rouge_unicode": tuple(f"{name}_unicode" for name in KINDS)}
)
"""One name for several metrics."""
SHORT_SUITES: Final[Mapping[str, str]] = MappingProxyType({"rouge": "summarization", "summarisation": "summarization"})
"""Other names of suites."""


def find_suite(name: str) -> Suite:
    """The suite called `name`.

    Raises:
        ConfigError: There is no such suite.
    """
    name = SHORT_SUITES.get(name, name)
    if name not in SUITES:
        close = difflib.get_close_matches(name, SUITES, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "Choose one of these."
        raise ConfigError(f"Expected a metric suite out of {', '.join(SUITES)}, got {name!r}. {hint}")
    return SUITES[name]


def with_metrics(suite: Suite, names: Sequence[str], classes: Classes | None = None) -> Suite:
    """The suite with these metrics only, in this order: its own where it has them, else those of `METRICS`; (): as is.

    `classes` are those of the texts, where they are labels: F1 is then of the class that is called positive.

    Raises:
        ConfigError: There is no such metric, or one that is not of labels (or of one class) is asked for them.
    """
    own = dict(suite.metrics)
    positive = classes.positive if classes is not None else None
    if positive is not None and (suite.one_class or "f1" not in own):
        own[suite.one_class or "f1"] = f1(positive)
    if not names:
        return replace(suite, metrics=MappingProxyType({name: own[name] for name in suite.metrics}))
    known = {**METRICS, **own}
    wanted = tuple(dict.fromkeys(one for name in names for one in SHORT.get(name, (name,))))
    for name in wanted:
        if name in own:
            continue
        if name == "f1" or (name == "exact_match" and (suite.of_labels or classes is not None)):
            raise ConfigError(_AMBIGUOUS[name])
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"Expected metrics out of {', '.join(known)}, got {name!r}.{hint}")
    return replace(suite, metrics=MappingProxyType({name: known[name] for name in wanted}))


_AMBIGUOUS: Final = {
    "f1": "metric 'f1': f1 of which class? Name the label that it is about (data.labels.positive, or --positive), take "
    "f1_macro for the mean over classes, or squad_f1 for the overlap of words with an answer, as SQuAD has it.",
    "exact_match": "metric 'exact_match' compares answers without case, articles and punctuation, as SQuAD has it; "
    "labels are compared as they are. Take accuracy.",
}


def with_bertscore(suite: Suite, model: str | None) -> Suite:
    """The suite with BERTScore by `model` (hub id or folder, `:LAYER` behind it) after its own metrics; None: as is."""
    if model is None:
        return suite
    return replace(suite, metrics=MappingProxyType({**suite.metrics, "bertscore": bertscore(model)}))


def choose_suite(
    name: str, metrics: Sequence[str] = (), bertscore_model: str | None = None, classes: Classes | None = None
) -> Suite:
    """The suite `name`, or only some `metrics`, and BERTScore where a model is named. Errors as `with_metrics`."""
    return with_bertscore(with_metrics(find_suite(name), metrics, classes), bertscore_model)


def prepare_suite(
    name: str,
    references: References,
    bertscore_model: str | None = None,
    metrics: Sequence[str] = (),
    classes: Classes | None = None,
) -> PreparedSuite:
    """The suite `name`, or only some `metrics`, ready to score systems against `references`.

    `classes`: what the labels are, where the texts are labels.

    Raises:
        ConfigError: There is no such suite or metric.
        DataError: There is no segment, or a segment has no reference.
    """
    return PreparedSuite(choose_suite(name, metrics, bertscore_model, classes), references)


def score_suite(
    name: str,
    hypotheses: Sequence[str],
    references: References,
    bertscore_model: str | None = None,
    metrics: Sequence[str] = (),
    classes: Classes | None = None,
) -> SuiteResult:
    """Scores one system by the suite `name`, or only some `metrics`: `hypotheses[i]` against all of `references[i]`.

    `classes`: what the labels are, where the texts are labels.

    Raises:
        ConfigError: There is no such suite or metric.
        DataError: Nothing to score, unequal counts, or a segment without a reference.
    """
    if not isinstance(hypotheses, str) and len(references):
        check_hypotheses(hypotheses, len(references))  # before the slow part
    return prepare_suite(name, references, bertscore_model, metrics, classes).score(hypotheses)
