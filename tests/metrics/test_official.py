"""Every E2E system whose official scores are known, against those scores (perl, pymteval, COCO caption scorer)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from softprompt.metrics import PreparedSuite, SuiteResult, prepare_suite
from softprompt.metrics.nist import Nist

SCORING = Path(__file__).resolve().parents[3] / "shared" / "scoring"
SCORES = SCORING / "reference_scores.json"

pytestmark = pytest.mark.skipif(not SCORES.is_file(), reason=f"the official scores are not at {SCORES}")


def cases() -> dict[str, dict[str, Any]]:
    if not SCORES.is_file():
        return {}
    listed = json.loads(SCORES.read_text(encoding="utf-8"))["cases"]
    return {case["id"]: case for case in listed if case["task"] == "e2e"}


CASES = cases()


@cache
def references(path: str) -> list[list[str]]:
    groups = (SCORING / path).read_text(encoding="utf-8").strip("\n").split("\n\n")
    return [group.split("\n") for group in groups]


@cache
def prepared(path: str) -> tuple[PreparedSuite, Nist]:
    return prepare_suite("e2e", references(path)), Nist(references(path), "pymteval")


@cache
def scored(case_id: str) -> tuple[SuiteResult, float]:
    case = CASES[case_id]
    suite, pymteval = prepared(case["refs"][0])
    hypotheses = (SCORING / case["hyp"]).read_text(encoding="utf-8").splitlines()
    return suite.score(hypotheses), pymteval.score(hypotheses).value


@pytest.mark.parametrize("case_id", CASES)
class TestOfficialScores:
    def test_bleu(self, case_id: str) -> None:
        value = scored(case_id)[0].scores["bleu"].value / 100
        assert value == pytest.approx(CASES[case_id]["official"]["BLEU_perl"], abs=5e-5)
        assert value == pytest.approx(CASES[case_id]["official"]["BLEU_pymteval"], abs=1e-8)

    def test_nist_of_the_perl_program(self, case_id: str) -> None:
        value = scored(case_id)[0].scores["nist"].value
        assert value == pytest.approx(CASES[case_id]["official"]["NIST_perl"], abs=5e-5)
        assert value == pytest.approx(CASES[case_id]["verified_extra"]["NIST_perl_port_full_precision"], abs=1e-8)

    def test_nist_of_the_python_program(self, case_id: str) -> None:
        assert scored(case_id)[1] == pytest.approx(CASES[case_id]["official"]["NIST_pymteval"], abs=1e-8)

    def test_rouge_l(self, case_id: str) -> None:
        value = scored(case_id)[0].scores["rouge_l"].value / 100
        assert value == pytest.approx(CASES[case_id]["official"]["ROUGE_L"], abs=1e-10)

    def test_cider(self, case_id: str) -> None:
        value = scored(case_id)[0].scores["cider"].value
        assert value == pytest.approx(CASES[case_id]["official"]["CIDEr"], abs=1e-10)


def test_order_of_segments_and_references_does_not_matter() -> None:
    case = CASES["e2e_gpt-5e5-beam"]
    hypotheses = (SCORING / case["hyp"]).read_text(encoding="utf-8").splitlines()
    backwards = [group[::-1] for group in references(case["refs"][0])][::-1]
    there = scored("e2e_gpt-5e5-beam")[0].scores
    back = prepare_suite("e2e", backwards).score(hypotheses[::-1]).scores
    assert {name: score.value for name, score in back.items()} == pytest.approx(
        {name: score.value for name, score in there.items()}, rel=1e-12
    )
    assert {name: score.signature for name, score in back.items()} == {
        name: score.signature for name, score in there.items()
    }
