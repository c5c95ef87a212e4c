"""ROUGE of summaries by hand; the counting is the package's."""

from __future__ import annotations

import pytest

from softprompt.metrics import score_suite
from softprompt.metrics.base import Unavailable
from softprompt.metrics.rouge import Kind, rouge


def score(kind: Kind, hypotheses: list[str], references: list[list[str]]) -> float:
    return rouge(kind)(references).score(hypotheses).value


def test_by_hand() -> None:
    texts = ["a b c d"], [["b a c"]]
    assert score("rouge1", *texts) == pytest.approx(100 * 2 * 3 / (4 + 3))
    assert score("rouge2", *texts) == 0
    assert score("rougeL", *texts) == pytest.approx(100 * 2 * 2 / (4 + 3))


def test_words_are_stemmed_and_punctuation_does_not_count() -> None:
    assert score("rouge1", ["The dogs running!"], [["the dog runs"]]) == pytest.approx(100)


def test_the_best_reference_counts_then_the_mean_over_segments() -> None:
    assert score("rouge1", ["a b", "x"], [["c", "a b"], ["y"]]) == pytest.approx(50)


SCRIPTS = [
    "पूर्व प्रधानमन्त्री काठमाडौं",
    "今天天气很好",
    "สวัสดี ครับ",
    "Москва в 2020 году",
    "مرحبا بالعالم 12",
    "서울 날씨",
]


@pytest.mark.parametrize("text", SCRIPTS)
def test_texts_that_it_does_not_see_are_no_silent_zero(text: str) -> None:
    result = score_suite("summarization", [text], [[text]])
    assert not result.scores and list(result.missing) == ["rouge1", "rouge2", "rougeL"]
    assert "1 of 1 segments" in result.missing["rouge1"] and "rouge1_unicode" in result.missing["rouge1"]
    seen = score_suite("summarization", [text, "x"], [[text], ["y"]], metrics=["rouge_unicode"])
    assert seen.scores["rouge1_unicode"].value == pytest.approx(50) and not seen.missing
    assert "tok:unicode" in seen.scores["rouge1_unicode"].signature


def test_the_signature_says_which_words_and_how_many_segments_are_unseen() -> None:
    references = [["a b c"]] * 39 + [["今天天气很好"]]
    metric = rouge("rouge1")(references)
    assert "|tok:ascii|" in metric.signature and "|unseen:1/40|" in metric.signature
    assert "unseen" not in rouge("rouge1")([["café à la carte", "naïve"]]).signature
    with pytest.raises(Unavailable, match="2 of 3 segments"):
        rouge("rouge1")([["今天"], ["天气"], ["a"]])


def test_rouge_is_a_name_of_its_own() -> None:
    texts = ["a b c d"], [["b a c"]]
    assert list(score_suite("text", *texts, metrics=["rouge", "bleu"]).scores) == ["rouge1", "rouge2", "rougeL", "bleu"]
    assert list(score_suite("rouge", *texts).scores) == ["rouge1", "rouge2", "rougeL"]
