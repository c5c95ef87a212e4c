"""Exact match and F1 of answers: by hand, and four published systems against the scores on the leaderboard."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from softprompt.metrics.files import read_test_set
from softprompt.metrics.scoring import score
from softprompt.metrics.squad import AnswerF1, ExactMatch

UNPACK = Path(__file__).resolve().parents[3] / "shared" / "data" / "unpack"
SYSTEMS = {
    "BERT_ensemble_Google_AI_Language_": (86.206, 92.196),
    "SLQA_ensemble_Alibaba_iDST_NLP_": (81.949, 88.384),
    "Match_LSTM_with_Ans_Ptr_Boundary_Ensemble_Singapore_Management_University_": (67.635, 76.756),
    "Logistic_Regression_Baseline_Stanford_University_": (40.142, 50.982),
}


@pytest.fixture(scope="module")
def squad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the data set."""
    if not (UNPACK.parent / "squad.tar.xz").is_file():
        pytest.skip(f"the packed data set is not in {UNPACK.parent}")
    folder = tmp_path_factory.mktemp("data")
    subprocess.run([sys.executable, UNPACK, folder, "squad"], check=True, capture_output=True)
    return folder / "squad"


@pytest.mark.parametrize("system", SYSTEMS)
def test_published_systems(squad: Path, system: str) -> None:
    test = read_test_set(squad / "dev_predictions" / f"{system}.json", [squad / "dev-v1.1.recovered.json"])
    scores = score(test, "squad")
    assert len(test.hypotheses) == 10570
    assert tuple(round(entry["score"], 3) for entry in scores.values()) == SYSTEMS[system]


def both(answer: str, *gold: str) -> tuple[float, float]:
    return ExactMatch([gold]).score([answer]).value, AnswerF1([gold]).score([answer]).value


def test_case_articles_and_punctuation_do_not_count() -> None:
    assert both("The Denver  Broncos!", "denver, broncos") == (100, 100)
    assert both("Theatre", "atre")[0] == 0


def test_f1_is_that_of_the_bags_of_words() -> None:
    # 2 of 3 words given, 2 of 4 there: a word counts as often as both have it.
    assert both("red red blue", "red red green green") == (0, pytest.approx(100 * 2 * 2 / (3 + 4)))


def test_the_best_answer_counts() -> None:
    assert both("in Paris", "Paris", "the city of Paris", "in Paris") == (100, 100)
    assert both("in Paris", "Paris", "London")[1] == pytest.approx(100 * 2 / 3)


def test_an_answer_without_words_has_no_f1() -> None:
    assert both("the", "a") == (100, 0)
    assert both("", "Paris") == (0, 0)
