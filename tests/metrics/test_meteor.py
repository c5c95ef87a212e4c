"""METEOR by its program, where Java is; and what is said where it is not, or where the program misbehaves."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from softprompt.metrics import Unavailable, meteor, score_suite
from softprompt.metrics.meteor import Meteor

REFERENCES = [["the red cat sat on the mat", "a cat sat there"], ["dogs are running in the park"], ["it rains"]]
HYPOTHESES = ["the cat was sitting on the red mat", "a dog runs in a park", "sunny"]


@pytest.fixture
def program() -> None:
    try:
        Meteor(REFERENCES)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.usefixtures("program")
def test_equal_texts_score_the_maximum() -> None:
    assert Meteor(REFERENCES).score([group[-1] for group in REFERENCES]).value == pytest.approx(100)


@pytest.mark.usefixtures("program")
def test_a_resample_scores_as_the_test_set_that_it_is() -> None:
    counts = [2, 0, 3]
    at = np.repeat(range(3), counts)
    drawn = Meteor([REFERENCES[i] for i in at]).score([HYPOTHESES[i] for i in at]).value
    assert Meteor(REFERENCES).segments(HYPOTHESES).scores(np.array([counts], float)) == pytest.approx([drawn])


@pytest.mark.usefixtures("program")
def test_odd_texts_have_defined_scores() -> None:
    odd = ["", " ", ".", "|||", "a ||| b", "a\nb", "\u2028\x85\r", "日本語 😀", "%s \\ \"'"]
    references = [[text, "a cat"] for text in odd]
    there, back = Meteor(references).score(odd[::-1]).value, Meteor(references[::-1]).score(odd).value
    assert math.isfinite(there) and back == pytest.approx(there)


@pytest.mark.usefixtures("no_java")
def test_without_java_the_reason_is_given() -> None:
    with pytest.raises(Unavailable, match="needs Java"):
        Meteor(REFERENCES)


def test_without_the_jar_the_reason_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name: sys.executable)
    monkeypatch.setenv("SOFTPROMPT_METEOR_JAR", str(tmp_path / "meteor-1.5.jar"))
    with pytest.raises(Unavailable, match="needs its jar"):
        Meteor(REFERENCES)


@pytest.mark.parametrize(
    "code",
    ["pass", "input()", "input(); print('1 2 3', flush=True); input()", "input(); print('Error: no', flush=True)"],
    ids=["gone", "dies", "too few counts", "no counts"],
)
def test_a_program_that_misbehaves_leaves_meteor_missing(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(meteor, "_command", lambda: (sys.executable, "-c", code))
    result = score_suite("webnlg", HYPOTHESES, REFERENCES)
    assert list(result.scores) == ["bleu", "ter"]
    assert "program answered" in result.missing["meteor"]
