"""SQuAD's JSON: official counts, unanswerable questions, and refusals that name the place."""

import json
from pathlib import Path
from typing import Any

import pytest

from softprompt.config import DataConfig
from softprompt.data import load
from softprompt.data.rows import records
from softprompt.data.table import Record
from softprompt.errors import ConfigError, DataError
from softprompt.metrics import score_suite
from softprompt.tasks import load_task

QUESTION = {"id": "q1", "question": "Where?", "answers": [{"text": "here", "answer_start": 0}]}


def read_squad(path: Path) -> list[Record]:
    """The records as the task has them: read, and shaped."""
    return list(records(path, load_task("squad").source))


def write(path: Path, *questions: Any, **changes: Any) -> Path:
    paragraph = {"context": "here it is", "qas": list(questions), **changes}
    path.write_text(json.dumps({"version": "x", "data": [{"title": "t", "paragraphs": [paragraph]}]}))
    return path


def test_unanswerable_questions_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "v2.json", {"id": "q0", "question": "?", "answers": [], "is_impossible": True}, QUESTION)
    with pytest.warns(UserWarning, match=r"v2.json: 1 of 2 questions have no answer .* left out"):
        assert [record.values["id"] for record in read_squad(path)] == ["q1"]


BAD: dict[str, tuple[str, str]] = {
    "cut short": ('{"data": [\n{"title": "t", "para', r":2: expected one JSON document, got an error: Unterminated"),
    "not json": ("question,answer", r":1: expected one JSON document, got an error"),
    "nested": ("[" * 100_000, r": expected one JSON document, got an error: maximum recursion"),
    "a list": ("[]", r": expected the key 'data', got list"),
    "jsonl": ('{"question": "?", "answer": "!"}', r": expected the key 'data', got 'question', 'answer'"),
    "no articles": ('{"data": {}}', r": expected a list under 'data', got dict"),
    "article": ('{"data": ["x"]}', r": data\[0\]: expected the key 'paragraphs', got str"),
    "no paragraphs": ('{"data": [{}]}', r": data\[0\]: expected the key 'paragraphs', got an empty object"),
    "no questions": (
        '{"data": [{"paragraphs": [{"context": "c"}]}]}',
        r": data\[0\].paragraphs\[0\]: expected the key 'qas', got 'context'",
    ),
    "no rows": ('{"data": []}', "expected at least one row, got none"),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    text, message = BAD[name]
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load(DataConfig(task="squad", train=path, dev=path), 1)
    assert str(caught.value).startswith(str(path))


BAD_QUESTIONS: dict[str, tuple[Any, str]] = {
    "not an object": ("where?", r"qas\[1\]: expected the key 'answers', got str"),
    "no id": ({**QUESTION, "id": None}, r"qas\[1\]: expected a text as 'id', got None"),
    "blank question": ({**QUESTION, "question": " "}, r"qas\[1\]: expected a text as 'question', got ' '"),
    "no answers": ({"id": "q", "question": "?"}, r"qas\[1\]: expected the key 'answers', got 'id', 'question'"),
    "empty answers": ({**QUESTION, "answers": [{"text": " "}]}, r"expected at least one answer to 'q1', got none"),
    "an answer as text": ({**QUESTION, "answers": ["here"]}, r"qas\[1\]: expected the key 'text', got str"),
    "an answer without text": (
        {**QUESTION, "answers": [{"answer_start": 3}]},
        r"qas\[1\]: expected the key 'text', got 'answer_start'",
    ),
}


@pytest.mark.parametrize("name", BAD_QUESTIONS)
def test_malformed_questions(name: str, tmp_path: Path) -> None:
    question, message = BAD_QUESTIONS[name]
    with pytest.raises(DataError, match=message) as caught:
        read_squad(write(tmp_path / "bad.json", QUESTION, question))
    assert str(caught.value).startswith(f"{tmp_path / 'bad.json'}: data[0].paragraphs[0].qas[1]")


def test_a_context_that_is_missing_and_a_file_that_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a text as 'context', got 7"):
        read_squad(write(tmp_path / "bad.json", QUESTION, context=7))
    with pytest.raises(ConfigError, match=r"no such data file; nearest there: 'bad.json'"):
        read_squad(tmp_path / "bed.json")


def test_official_counts(squad_folder: Path, squadshifts_folder: Path) -> None:
    """Train on one domain, select on SQuAD: all 10,570 questions stay apart (10,535 texts), with all their answers."""
    data = DataConfig(
        task="squad",
        train=squadshifts_folder / "new_wiki_v1.0.json",
        dev=squad_folder / "dev-v1.1.recovered.json",
    )
    splits = load(data, 1)
    assert len(splits.train) == 7_938 and all(len(x.targets) == 1 for x in splits.train)
    assert len(splits.dev) == 10_570 and sum(len(x.targets) for x in splits.dev) == 34_726
    assert len({x.meta["id"] for x in splits.dev}) == 10_570 and len({x.source for x in splits.dev}) == 10_535
    assert splits.test == splits.dev


def test_predictions_are_scored_by_id(squad_folder: Path) -> None:
    """The published predictions of the BERT ensemble: 86.2 and 92.2 in its paper."""
    path = squad_folder / "dev-v1.1.recovered.json"
    test = load(DataConfig(task="squad", train=path, dev=path), 1).test
    (given,) = (squad_folder / "dev_predictions").glob("BERT*.json")
    answers = json.loads(given.read_text(encoding="utf-8"))
    scores = score_suite("squad", [answers[x.meta["id"]] for x in test], [x.targets for x in test]).scores
    assert scores["exact_match"].value == pytest.approx(86.206, abs=5e-4)
    assert scores["f1"].value == pytest.approx(92.196, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "questions", "answers"), [("wiki", 7_938, 22_794), ("reddit", 9_803, 27_692), ("amazon", 9_885, 27_318)]
)
def test_squadshifts_counts(squadshifts_folder: Path, name: str, questions: int, answers: int) -> None:
    splits = load(DataConfig(task=f"squadshifts-{name}", dir=squadshifts_folder), 1)
    assert splits.train == splits.dev == ()
    assert (len(splits.test), sum(len(x.targets) for x in splits.test)) == (questions, answers)


def test_xquad_counts(xquad_folder: Path) -> None:
    test = load(DataConfig(task="xquad-en", dir=xquad_folder), 1).test
    assert len(test) == len({x.meta["id"] for x in test}) == 1_190


def test_another_file_under_the_official_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "xquad.en.json", QUESTION)
    with pytest.raises(DataError, match=r"xquad-en test file of 1,190 pairs and 1,190 sources, got 1 and 1"):
        load(DataConfig(task="xquad-en", dir=tmp_path), 1)
