"""`softprompt score` and `softprompt compare` as functions: files in, plain objects out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from softprompt.errors import DataError
from softprompt.metrics.files import TestSet
from softprompt.metrics.resampling import interval, paired
from softprompt.metrics.suite import PreparedSuite, Suite, choose_suite
from softprompt.table import as_text, metric_title, show_score

Scores = dict[str, dict[str, Any]]


def score(
    test: TestSet,
    suite: str | Suite,
    *,
    metrics: Sequence[str] = (),
    bertscore: str | None = None,
    bootstrap: int = 0,
    seed: int = 1,
) -> Scores:
    """Metric -> {"score", "signature"[, "interval"]} or {"missing"}; parts of the test set under `parts`.

    Each part is scored as a corpus of its own. `metrics` and `bertscore` are those of a suite given by its name.

    Raises:
        ConfigError: no such suite or metric.
        DataError: nothing to score, or counts differ.
    """
    chosen = choose_suite(suite, metrics, bertscore) if isinstance(suite, str) else suite
    scores = _score(chosen, test.hypotheses, test.references, bootstrap, seed)
    if test.parts:
        scores["parts"] = {
            name: _score(chosen, [test.hypotheses[i] for i in at], [test.references[i] for i in at], bootstrap, seed)
            for name, at in test.parts.items()
        }
    return scores


def compare(
    a: TestSet, b: TestSet, suite: str | Suite, *, metrics: Sequence[str] = (), resamples: int = 1000, seed: int = 1
) -> Scores:
    """Metric -> scores of both systems, their difference with its interval, and the p-value of the paired bootstrap.

    Raises:
        ConfigError: no such suite or metric.
        DataError: nothing to score, counts differ, or the systems have different references.
    """
    if a.references != b.references:
        raise DataError("expected two systems on one test set, got different references. Give both the same --refs.")
    chosen = choose_suite(suite, metrics) if isinstance(suite, str) else suite
    prepared = PreparedSuite(chosen, a.references)
    (of_a, missing_a), (of_b, missing_b) = prepared.take_apart(a.hypotheses), prepared.take_apart(b.hypotheses)
    missing = missing_a | missing_b
    results: Scores = {}
    for name in (name for name in of_a if name not in missing):
        metric = prepared.metrics[name]
        found = paired(of_a[name], of_b[name], metric.num_segments, resamples, seed)
        values = {"a": metric.score_of(of_a[name]).value, "b": metric.score_of(of_b[name]).value}
        results[name] = {**values, **asdict(found), "signature": metric.signature}
    return results | {name: {"missing": reason} for name, reason in missing.items()}


def _score(
    suite: Suite, hypotheses: Sequence[str], references: Sequence[Sequence[str]], bootstrap: int, seed: int
) -> Scores:
    prepared = PreparedSuite(suite, references)
    found, missing = prepared.take_apart(hypotheses)
    scores: Scores = {}
    for name, segments in found.items():
        metric = prepared.metrics[name]
        scores[name] = {"score": metric.score_of(segments).value, "signature": metric.signature}
        if bootstrap:
            scores[name]["interval"] = asdict(interval(segments, metric.num_segments, bootstrap, seed))
    return scores | {name: {"missing": reason} for name, reason in missing.items()}


def score_text(scores: Scores) -> str:
    """The scores as a table, with the signatures and what is missing below it."""
    corpora = {"": {name: entry for name, entry in scores.items() if name != "parts"}, **scores.get("parts", {})}
    rows = [["", "score", *(["95% interval"] if _has_intervals(corpora[""]) else [])]]
    for corpus, entries in corpora.items():
        for name, entry in entries.items():
            if "score" in entry:
                rows.append([f"{metric_title(name)} {corpus}".strip(), show_score(name, entry["score"])])
                if "interval" in entry:
                    rows[-1].append(_show_interval(name, entry["interval"]))
    return "\n".join([as_text(rows), "", *_notes(corpora[""])])


def compare_text(results: Scores) -> str:
    """Both systems, the difference and its p-value, as a table."""
    rows = [["", "A", "B", "B - A", "95% interval", "p"]]
    for name, entry in results.items():
        if "missing" not in entry:
            values = [show_score(name, entry[key]) for key in ("a", "b", "difference")]
            rows.append(
                [metric_title(name), *values, _show_interval(name, entry["interval"]), f"{entry['p_value']:.4f}"]
            )
    return "\n".join([as_text(rows), "", *_notes(results)])


def _has_intervals(entries: Scores) -> bool:
    return any("interval" in entry for entry in entries.values())


def _show_interval(name: str, found: dict[str, float]) -> str:
    return f"{show_score(name, found['low'])} to {show_score(name, found['high'])}"


def _notes(entries: Scores) -> list[str]:
    missing = [f"{metric_title(name)} is missing: {e['missing']}" for name, e in entries.items() if "missing" in e]
    return [*(f"{metric_title(name)}: {e['signature']}" for name, e in entries.items() if "signature" in e), *missing]
