"""Every system whose official scores are known, against those scores (perl, pymteval, COCO, multi-bleu, tercom)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from softprompt.metrics import SUITES, PreparedSuite, SuiteResult
from softprompt.metrics.files import TestSet, read_test_set
from softprompt.metrics.nist import Nist
from softprompt.metrics.scoring import Scores, score

SCORING = Path(__file__).resolve().parents[3] / "shared" / "scoring"
SCORES = SCORING / "reference_scores.json"

pytestmark = pytest.mark.skipif(not SCORES.is_file(), reason=f"the official scores are not at {SCORES}")

CASES: Mapping[str, dict[str, Any]] = (
    {case["id"]: case for case in json.loads(SCORES.read_text(encoding="utf-8"))["cases"]} if SCORES.is_file() else {}
)


def of_task(*tasks: str) -> list[str]:
    return [case_id for case_id, case in CASES.items() if case["task"] in tasks]


E2E = of_task("e2e")
SPLIT_WORDS = of_task("dart", "webnlg")
QUICK = [*E2E[:1], *of_task("webnlg")[:1]]


@cache
def test_set(case_id: str) -> TestSet:
    case = CASES[case_id]
    return read_test_set(SCORING / case["hyp"], [SCORING / path for path in case["refs"]])


test_set.__test__ = False  # type: ignore[attr-defined]


@cache
def prepared_e2e(references: str) -> tuple[PreparedSuite, Nist]:
    """The suite but METEOR, and the other NIST, read once for all systems."""
    groups = next(test_set(case_id).references for case_id in E2E if CASES[case_id]["refs"] == [references])
    metrics = {name: factory for name, factory in SUITES["e2e"].metrics.items() if name != "meteor"}
    return PreparedSuite(replace(SUITES["e2e"], metrics=metrics), groups), Nist(groups, "pymteval")


@cache
def scored_e2e(case_id: str) -> tuple[SuiteResult, float]:
    suite, pymteval = prepared_e2e(*CASES[case_id]["refs"])
    hypotheses = test_set(case_id).hypotheses
    return suite.score(hypotheses), pymteval.score(hypotheses).value


@cache
def scored(case_id: str) -> Scores:
    suite = CASES[case_id]["task"]
    return score(test_set(case_id), suite, metrics=["bleu"])


@pytest.mark.parametrize("case_id", E2E)
class TestE2E:
    def test_bleu(self, case_id: str) -> None:
        value = scored_e2e(case_id)[0].scores["bleu"].value / 100
        assert value == pytest.approx(CASES[case_id]["official"]["BLEU_perl"], abs=5e-5)
        assert value == pytest.approx(CASES[case_id]["official"]["BLEU_pymteval"], abs=1e-8)

    def test_nist_of_the_perl_program(self, case_id: str) -> None:
        value = scored_e2e(case_id)[0].scores["nist"].value
        assert value == pytest.approx(CASES[case_id]["official"]["NIST_perl"], abs=5e-5)
        assert value == pytest.approx(CASES[case_id]["verified_extra"]["NIST_perl_port_full_precision"], abs=1e-8)

    def test_nist_of_the_python_program(self, case_id: str) -> None:
        assert scored_e2e(case_id)[1] == pytest.approx(CASES[case_id]["official"]["NIST_pymteval"], abs=1e-8)

    def test_rouge_l(self, case_id: str) -> None:
        value = scored_e2e(case_id)[0].scores["rouge_l"].value / 100
        assert value == pytest.approx(CASES[case_id]["official"]["ROUGE_L"], abs=1e-10)

    def test_cider(self, case_id: str) -> None:
        value = scored_e2e(case_id)[0].scores["cider"].value
        assert value == pytest.approx(CASES[case_id]["official"]["CIDEr"], abs=1e-10)


@pytest.mark.parametrize("case_id", SPLIT_WORDS)
class TestWebNlgAndDart:
    def test_preparing_the_prepared_files_changes_nothing(self, case_id: str) -> None:
        test = test_set(case_id)
        words = SUITES[CASES[case_id]["task"]].words
        assert [text for text in sum(test.references, test.hypotheses) if words(text) != text] == []

    def test_bleu(self, case_id: str) -> None:
        official = CASES[case_id]["official"]["BLEU_multibleu"]
        assert scored(case_id)["bleu"]["score"] == pytest.approx(official, abs=1e-6)


@pytest.mark.parametrize(
    "case_id", [pytest.param(id, marks=() if id.endswith("seen") else pytest.mark.slow) for id in SPLIT_WORDS]
)
def test_ter_is_tercoms_to_the_last_digit(case_id: str) -> None:
    found = score(test_set(case_id), CASES[case_id]["task"], metrics=["ter"])
    assert found["ter"]["score"] == CASES[case_id]["official"]["TER_tercom"]


@pytest.mark.parametrize("case_id", of_task("webnlg2020"))
def test_bleu_of_webnlg_2020(case_id: str) -> None:
    official = CASES[case_id]["official"]["BLEU_multibleu_detok"]
    assert scored(case_id)["bleu"]["score"] == pytest.approx(official, abs=1e-6)


@pytest.mark.parametrize(
    "case_id",
    [pytest.param(id, marks=() if id in QUICK else pytest.mark.slow) for id in [*E2E, *SPLIT_WORDS]],
)
def test_meteor(case_id: str) -> None:
    official = CASES[case_id]["official"]
    entry = score(test_set(case_id), CASES[case_id]["task"], metrics=["meteor"])["meteor"]
    if "missing" in entry:
        pytest.skip(entry["missing"])
    assert entry["score"] / 100 == pytest.approx(official.get("METEOR", official.get("METEOR_jar")), abs=1e-6)


def test_order_of_segments_and_references_does_not_matter() -> None:
    case_id = "e2e_gpt-5e5-beam"
    test = test_set(case_id)
    suite = replace(
        SUITES["e2e"], metrics={name: SUITES["e2e"].metrics[name] for name in scored_e2e(case_id)[0].scores}
    )
    there = scored_e2e(case_id)[0].scores
    back = PreparedSuite(suite, [group[::-1] for group in test.references][::-1]).score(test.hypotheses[::-1]).scores
    assert {name: score.value for name, score in back.items()} == pytest.approx(
        {name: score.value for name, score in there.items()}, rel=1e-12
    )
    assert {name: score.signature for name, score in back.items()} == {
        name: score.signature for name, score in there.items()
    }
