"""DART v1.1.1: counts, JSON against XML, the official references, and refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from softprompt.config import DataConfig
from softprompt.data import load, record_of
from softprompt.data.dart import read_dart
from softprompt.errors import DataError
from softprompt.metrics import SUITES

CASES = Path(__file__).resolve().parents[3] / "shared" / "scoring" / "cases"


def entry(**changes: Any) -> dict[str, Any]:
    triples = [["Mars Hill College", "JOINED", "1973"], ["Mars Hill College", "LOCATION", "Mars Hill, N.C."]]
    texts = [{"source": "WikiSQL_lily", "text": "It joined in 1973."}, {"source": "e2e", "text": "Two."}]
    return {"tripleset": triples, "subtree_was_extended": True, "annotations": texts} | changes


def write(path: Path, *entries: Any) -> Path:
    path.write_text(json.dumps(entries))
    return path


def test_an_entry(tmp_path: Path) -> None:
    (record,) = read_dart(write(tmp_path / "a.json", entry()))
    assert record.values == {
        "triples": [["Mars Hill College", "JOINED", "1973"], ["Mars Hill College", "LOCATION", "Mars Hill, N.C."]],
        "table": "Mars Hill College : joined : 1973 | Mars Hill College : location : Mars Hill, N.C.",
        "texts": ["It joined in 1973.", "Two."],
        "origins": ["WikiSQL_lily", "e2e"],
        "size": 2,
        "id": 1,
    }


def test_a_blank_text_is_left_out(tmp_path: Path) -> None:
    texts = [{"source": "a", "text": None}, {"source": "b", "text": "Two."}, {"source": "c", "text": " "}]
    (record,) = read_dart(write(tmp_path / "a.json", entry(annotations=texts)))
    assert record.values["texts"] == ["Two."] and record.values["origins"] == ["b"]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('[{"tripleset": [["a",', "a.json:1: expected one JSON document, got an error"),
        ("{}", "a.json: expected a list of entries, got an empty one"),
        ('{"entries": 1}', "a.json: expected a list of entries, got dict"),
        ("[3]", "a.json: entry 1: expected the key 'tripleset', got int"),
    ],
)
def test_a_file_that_is_no_dart(tmp_path: Path, content: str, part: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError) as caught:
        list(read_dart(tmp_path / "a.json"))
    assert str(caught.value).startswith(str(tmp_path)) and part in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"tripleset": []}, "expected at least one triple, got an empty set"),
        ({"tripleset": None}, "expected a list under 'tripleset', got NoneType"),
        ({"tripleset": [["a", "b"]]}, "expected a subject, a property and an object, got 'a | b'"),
        ({"tripleset": [["a", None, "c"]]}, "expected [subject, relation, object], got ['a', None, 'c']"),
        ({"tripleset": ["a | b | c"]}, "expected [subject, relation, object], got a | b | c"),
        ({"annotations": []}, "expected at least one text, got none"),
        ({"annotations": [{"text": "x"}]}, "expected the key 'source', got 'text'"),
        ({"annotations": [{"source": "x"}]}, "expected the key 'text', got 'source'"),
        ({"annotations": [{"source": "x", "text": 3}]}, "expected a str under 'text', got int"),
        ({"annotations": [{"source": "x", "text": None}]}, "expected a text, got only white space"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, wrong: dict[str, Any], part: str) -> None:
    path = write(tmp_path / "a.json", entry(), entry(**wrong))
    with pytest.raises(DataError) as caught:
        list(read_dart(path))
    assert str(caught.value).startswith(f"{path}: entry 2: ") and part in str(caught.value)


def test_official_counts(dart_folder: Path) -> None:
    """The training file is not in the folder; dev stands in for it."""
    dev = dart_folder / "dart-v1.1.1-full-dev.json"
    splits = load(DataConfig(task="dart", dir=dart_folder, train=dev), 1)
    assert len(splits.train) == 6_980
    assert len(splits.dev) == 2_768 and sum(len(row.targets) for row in splits.dev) == 6_980
    assert len(splits.test) == 5_097 and {len(row.scored_against) for row in splits.test} == {3}
    assert record_of(splits)["test"]["targets"] == 12_551, "no blank is counted"
    texts = [record.values["texts"] for record in read_dart(dart_folder / "dart-v1.1.1-full-test.json")]
    assert sum(map(len, texts)) == 12_552 - 1, "one of the published 12,552 is blank"
    assert len(texts[115]) == 1
    official = dart_folder / "dart-v1.1.1-full-train.json"
    official.symlink_to(dev)
    with pytest.raises(DataError, match=r"expected the dart train file of 62,659 pairs .* got 6,980 and 2,768"):
        load(DataConfig(task="dart", dir=dart_folder), 1)
    official.unlink()


@pytest.mark.parametrize("split", ["dev", "test"])
def test_xml_gives_the_same_records(dart_folder: Path, split: str) -> None:
    of_json = read_dart(dart_folder / f"dart-v1.1.1-full-{split}.json")
    of_xml = read_dart(dart_folder / "xml" / f"dart-v1.1.1-full-{split}.xml")
    assert [record.values for record in of_xml] == [record.values for record in of_json]


def test_the_file_of_the_papers_gives_the_same_records(dart_folder: Path) -> None:
    name = "dart-v1.1.1-full-dev.json"
    theirs = [record.values for record in read_dart(dart_folder / "lora_prefixtuning_version" / name)]
    assert theirs == [record.values for record in read_dart(dart_folder / name)]


def test_references_are_those_of_the_leaderboard(dart_folder: Path) -> None:
    """All 5,097 lines of its three files, in order, blank ones too."""
    files = [CASES / f"dart_ref{number}.txt" for number in range(3)]
    if not files[0].is_file():
        pytest.skip(f"the official references are not here: {files[0]}")
    data = DataConfig(task="dart", dir=dart_folder, train=dart_folder / "dart-v1.1.1-full-dev.json")
    test, words = load(data, 1).test, SUITES["dart"].words
    for number, file in enumerate(files):
        lines = file.read_text(encoding="utf-8").split("\n")
        assert [words(row.scored_against[number]) for row in test] == [line.strip() for line in lines[: len(test)]]
