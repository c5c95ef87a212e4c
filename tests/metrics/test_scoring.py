"""Scoring and comparing test sets: what `softprompt score` and `softprompt compare` print."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType

import pytest

from softprompt.errors import ConfigError, DataError
from softprompt.metrics import SUITES, Suite, Unavailable, score_suite
from softprompt.metrics.base import Sums
from softprompt.metrics.bleu import Bleu
from softprompt.metrics.files import TestSet
from softprompt.metrics.scoring import compare, compare_text, score, score_text

pytestmark = pytest.mark.usefixtures("no_java")

REFERENCES = [["a b c d e"], ["f g h i", "f g x"], ["k l m n o p"], ["q r s t"]]
GOOD = TestSet(["a b c d e", "f g h i", "k l m n o", "q r s"], REFERENCES, {"seen": [0, 3], "unseen": [2]})
BAD = TestSet(["a b", "x f h", "p k", ""], REFERENCES)


def test_scores_have_a_signature_and_what_is_missing_a_reason() -> None:
    scores = score(GOOD, "webnlg")
    direct = score_suite("webnlg", GOOD.hypotheses, GOOD.references)
    assert json.loads(json.dumps(scores)) == scores
    assert scores["bleu"] == {"score": direct.scores["bleu"].value, "signature": direct.scores["bleu"].signature}
    assert scores["meteor"] == {"missing": direct.missing["meteor"]}
    assert list(scores) == ["bleu", "ter", "meteor", "parts"]


def test_a_part_is_a_corpus_of_its_own() -> None:
    parts = score(GOOD, "webnlg", metrics=["bleu"])["parts"]
    assert list(parts) == ["seen", "unseen"]
    assert parts["unseen"]["bleu"]["score"] == Bleu([REFERENCES[2]]).score([GOOD.hypotheses[2]]).value


def test_intervals_are_computed_on_demand() -> None:
    entry = score(GOOD, "e2e", bootstrap=100, seed=3)["rouge_l"]
    assert entry["interval"]["low"] <= entry["score"] <= entry["interval"]["high"]
    assert (entry["interval"]["level"], entry["interval"]["resamples"]) == (0.95, 100)
    assert "interval" not in score(GOOD, "e2e")["rouge_l"]


def test_metrics_of_the_suite_or_any_other_can_be_asked_for() -> None:
    assert list(score(GOOD, "e2e", metrics=["cider", "bleu", "ter"])) == ["cider", "bleu", "ter", "parts"]
    with pytest.raises(ConfigError, match=r"Expected metrics out of bleu, .*got 'terr'.*Did you mean 'ter'"):
        score(GOOD, "e2e", metrics=["bleu", "terr"])
    with pytest.raises(ConfigError, match="Expected a metric suite out of"):
        score(GOOD, "nonsense")


def test_comparison() -> None:
    results = compare(BAD, GOOD, "webnlg", resamples=200)
    assert json.loads(json.dumps(results)) == results
    for name in ("bleu", "ter"):
        entry = results[name]
        assert entry["a"] == score(BAD, "webnlg")[name]["score"]
        assert entry["b"] == score(GOOD, "webnlg")[name]["score"]
        assert entry["difference"] == pytest.approx(entry["b"] - entry["a"])
        assert 0 < entry["p_value"] < 0.1
    assert results["bleu"]["difference"] > 0 > results["ter"]["difference"]
    assert "needs Java" in results["meteor"]["missing"]
    assert compare(GOOD, GOOD, "webnlg", resamples=50)["ter"]["p_value"] == 1


def test_systems_with_different_references_are_not_compared() -> None:
    with pytest.raises(DataError, match="different references"):
        compare(GOOD, replace(BAD, references=[*REFERENCES[:3], ["other"]]), "webnlg")


class _OnlyOnce(Bleu):
    """A metric whose program dies at the second system."""

    systems = 0

    def segments(self, hypotheses: object) -> Sums:
        self.systems += 1
        if self.systems > 1:
            raise Unavailable("the program died")
        return super().segments(hypotheses)  # type: ignore[arg-type]


def test_what_fails_for_one_of_two_systems_is_missing() -> None:
    suite = Suite("test", MappingProxyType({"bleu": _OnlyOnce, "ter": SUITES["dart"].metrics["ter"]}))
    results = compare(GOOD, BAD, suite, resamples=10)
    assert results["bleu"] == {"missing": "the program died"}
    assert "p_value" in results["ter"]


def test_tables_show_all_numbers_and_how_they_were_made() -> None:
    scores = score(GOOD, "webnlg", bootstrap=20)
    table = score_text(scores)
    assert f"{scores['bleu']['score']:.2f}" in table and f"{scores['parts']['seen']['ter']['score']:.4f}" in table
    assert "95% interval" in table and scores["ter"]["signature"] in table and "METEOR is missing: " in table
    results = compare(BAD, GOOD, "webnlg", resamples=20)
    table = compare_text(results)
    assert f"{results['ter']['difference']:.4f}" in table and f"{results['ter']['p_value']:.4f}" in table
    assert results["bleu"]["signature"] in table and "METEOR is missing: " in table
