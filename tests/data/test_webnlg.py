"""WebNLG 2017: counts, JSON against XML, the official references, seen and unseen, and refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from softprompt.config import DataConfig
from softprompt.data import digest, load
from softprompt.data.webnlg import SEEN, read_webnlg
from softprompt.errors import ConfigError, DataError
from softprompt.metrics import SUITES

CASES = Path(__file__).resolve().parents[3] / "shared" / "scoring" / "cases"
TRIPLE = {"subject": "Aarhus_Airport", "property": "cityServed", "object": '"Aarhus, Denmark"'}
XML = """<benchmark><entries>
<entry category="Artist" eid="Id1" size="2">
  <originaltripleset><otriple>x | y | z</otriple></originaltripleset>
  <modifiedtripleset><mtriple> A | b | c, d </mtriple><mtriple>c, d | e | f</mtriple></modifiedtripleset>
  <lex comment="good" lid="Id1">One &amp; two.</lex><lex comment="toFix" lid="Id2">Bad.</lex>
</entry>
<entry category="Food" eid="Id2" size="1">
  <modifiedtripleset><mtriple>A | b | c</mtriple></modifiedtripleset><lex comment="toFix" lid="Id1">Bad.</lex>
</entry>
<entry category="Food" eid="Id3" size="1">
  <modifiedtripleset><mtriple>A | b | c</mtriple></modifiedtripleset><lex comment="good" lid="Id1">Three.</lex>
</entry>
</entries></benchmark>"""


def entry(**changes: Any) -> dict[str, Any]:
    text = {"comment": "good", "lang": "", "lex": "It serves Aarhus.", "xml_id": "Id1"}
    return {"category": "Airport", "lexicalisations": [text], "modifiedtripleset": [TRIPLE], "size": "1"} | changes


def write(path: Path, *entries: Any) -> Path:
    path.write_text(json.dumps({"entries": [{str(i): row} for i, row in enumerate(entries, 1)]}, indent=1))
    return path


def test_an_entry(tmp_path: Path) -> None:
    records = list(read_webnlg(write(tmp_path / "a.json", entry(modifiedtripleset=[TRIPLE, TRIPLE]))))
    bar = ' | Aarhus_Airport : cityServed : "Aarhus, Denmark"'
    assert [record.values for record in records] == [
        {
            "triples": [["Aarhus_Airport", "cityServed", '"Aarhus, Denmark"']] * 2,
            "table": bar + bar,
            "texts": ["It serves Aarhus."],
            "category": "Airport",
            "seen": True,
            "size": 2,
            "id": 1,
        }
    ]
    assert records[0].where == f"{tmp_path / 'a.json'}: entry 1"


def test_xml_file_and_folder(tmp_path: Path) -> None:
    for name in ("b/2.xml", "a/9.xml"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(XML)
    one = list(read_webnlg(tmp_path / "a" / "9.xml"))
    assert [record.values["table"] for record in one] == [" | A : b : c, d | c, d : e : f", " | A : b : c"]
    assert [record.values["texts"] for record in one] == [["One & two."], ["Three."]]
    assert [(record.values["seen"], record.values["id"]) for record in one] == [(False, 1), (True, 3)]
    both = list(read_webnlg(tmp_path))
    assert [(record.path.name, record.place, record.values["id"]) for record in both] == [
        ("9.xml", "entry 1", 1),
        ("9.xml", "entry 3", 3),
        ("2.xml", "entry 1", 4),
        ("2.xml", "entry 3", 6),
    ]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="expected XML files in the folder"):
        list(read_webnlg(empty))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('{"entries": [{"1": {"category"', "a.json:1: expected one JSON document, got an error"),
        ('{"entries":\n[\n{"1": 3},,]}', "a.json:3: expected one JSON document"),
        ("[" * 100_000, "a.json: expected one JSON document"),
        ("[]", "a.json: expected the key 'entries', got list"),
        ('{"entries": []}', "a.json: expected at least one entry"),
        ('{"entries": [{"2": {}}]}', "a.json: entry 1: expected the key '1', got '2'"),
        ('{"entries": [{"1": []}]}', "a.json: entry 1: expected a dict under '1', got list"),
    ],
)
def test_a_file_that_is_no_webnlg(tmp_path: Path, content: str, part: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError) as caught:
        list(read_webnlg(tmp_path / "a.json"))
    assert str(caught.value).startswith(str(tmp_path)) and part in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"modifiedtripleset": []}, "expected at least one triple, got an empty set"),
        (
            {"modifiedtripleset": [{"subject": "a", "object": "c"}]},
            "expected the key 'property', got",
        ),
        ({"modifiedtripleset": [TRIPLE | {"object": " "}]}, "expected a subject, a property and an object"),
        ({"modifiedtripleset": [TRIPLE | {"object": 3}]}, "expected a str under 'object', got int"),
        ({"lexicalisations": []}, "expected at least one text, got none. Is it the file with the references?"),
        ({"lexicalisations": [{"comment": "good", "lex": " "}]}, "expected a text, got only white space"),
        ({"lexicalisations": [{"comment": "good"}]}, "expected the key 'lex', got 'comment'"),
        ({"category": None}, "expected a str under 'category', got NoneType"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, wrong: dict[str, Any], part: str) -> None:
    path = write(tmp_path / "a.json", entry(), entry(**wrong))
    with pytest.raises(DataError) as caught:
        list(read_webnlg(path))
    assert str(caught.value).startswith(f"{path}: entry 2: ") and part in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("</benchmark>", "", "a.xml:13: expected XML, got an error"),
        ("</mtriple><mtriple>", "<mtriple>", "a.xml:4: expected XML"),
        ("entries", "rows", "a.xml: expected <benchmark> with <entries> of <entry>"),
        ('category="Food" eid="Id3"', "", 'a.xml: entry 3: expected the attribute "category"'),
        ("modifiedtripleset", "tripleset", "a.xml: entry 1: expected <modifiedtripleset> in <entry>"),
        ("<mtriple>A | b | c</mtriple>", "", "a.xml: entry 2: expected at least one triple"),
        ("<mtriple>A | b | c</mtriple>", "<mtriple>A | b</mtriple>", "a.xml: entry 2: expected a subject"),
        ('<lex comment="good" lid="Id1">Three.</lex>', "", "a.xml: entry 3: expected at least one text"),
    ],
)
def test_wrong_xml(tmp_path: Path, old: str, new: str, part: str) -> None:
    path = tmp_path / "a.xml"
    assert old in XML
    path.write_text(XML.replace(old, new))
    with pytest.raises(DataError) as caught:
        list(read_webnlg(path))
    assert str(caught.value).startswith(str(tmp_path)) and part in str(caught.value)


def test_official_counts(webnlg_folder: Path) -> None:
    splits = load(DataConfig(task="webnlg", dir=webnlg_folder), 1)
    assert len(splits.train) == 18_025
    assert len(splits.dev) == 871 and sum(len(row.targets) for row in splits.dev) == 2_258
    assert len(splits.test) == 1_862
    assert sum(row.meta["seen"] for row in splits.test) == 971
    assert sum(not row.meta["seen"] for row in splits.test) == 891
    assert {row.meta["category"] for row in splits.train} == SEEN
    assert {len(row.scored_against) for row in splits.test} == {3}
    records = list(read_webnlg(webnlg_folder / "test.json"))
    assert sum(len(record.values["texts"]) for record in records) == 4_928
    assert sum(len(record.values["texts"]) for record in records if not record.values["seen"]) == 2_433


def test_xml_gives_the_same_records(webnlg_folder: Path) -> None:
    for split, path in {"train": "train", "dev": "dev", "test": "test/testdata_with_lex.xml"}.items():
        of_xml, of_json = read_webnlg(webnlg_folder / "xml" / path), read_webnlg(webnlg_folder / f"{split}.json")
        assert [record.values for record in of_xml] == [record.values for record in of_json]
    with pytest.raises(DataError, match=r"testdata_no_lex.xml: entry 1: expected at least one text, got none"):
        list(read_webnlg(webnlg_folder / "xml" / "test" / "testdata_no_lex.xml"))


def test_a_folder_is_data_of_a_run(webnlg_folder: Path) -> None:
    dev = webnlg_folder / "xml" / "dev"
    data = DataConfig(task="webnlg", dir=webnlg_folder, train=dev, max_train=3)
    assert load(data, 1).train[0].source.startswith("| ")
    assert digest(dev) != digest(dev / "7triples")


@pytest.mark.parametrize("part", ["all", "seen"])
def test_references_are_those_of_the_official_scripts(webnlg_folder: Path, part: str) -> None:
    """All lines of the three files that the challenge scores against, blank ones too."""
    files = [CASES / f"webnlg_{part}_ref{number}.txt" for number in range(3)]
    if not files[0].is_file():
        pytest.skip(f"the official references are not here: {files[0]}")
    test = load(DataConfig(task="webnlg", dir=webnlg_folder), 1).test
    chosen = [row for row in test if part == "all" or row.meta["seen"]]
    words = SUITES["webnlg"].words
    for number, file in enumerate(files):
        lines = file.read_text(encoding="utf-8").split("\n")
        assert [words(row.scored_against[number]) for row in chosen] == [line.strip() for line in lines[: len(chosen)]]
        assert not any(lines[len(chosen) :])


LATER = """<?xml version="1.0"?><benchmark><entries>
<entry category="Airport" eid="Id1" size="1" shape="(X (X))" shape_type="NA">
  <modifiedtripleset><mtriple>A | b | C</mtriple></modifiedtripleset>
  <lex comment="" lid="Id1" lang="en">A has b C.</lex><lex comment="" lid="Id2" lang="ru">ru</lex>
  <lex comment="toFix" lid="Id3" lang="en">Bad.</lex>
</entry></entries></benchmark>"""


def test_files_of_later_years_have_unjudged_texts_in_several_languages(tmp_path: Path) -> None:
    path = tmp_path / "later.xml"
    path.write_text(LATER)
    (row,) = read_webnlg(path)
    assert row.values["texts"] == ["A has b C."]
    text = {"comment": "", "lang": "en", "lex": "A has b C.", "xml_id": "Id1"}
    (same,) = read_webnlg(write(tmp_path / "later.json", entry(lexicalisations=[text, text | {"lang": "br"}])))
    assert same.values["texts"] == ["A has b C."]


def test_a_file_without_a_text_to_use_says_what_was_left_out(tmp_path: Path) -> None:
    path = tmp_path / "other.xml"
    path.write_text(LATER.replace('lang="en">A', 'lang="ru">A'))
    with pytest.raises(DataError, match=r"comment `good` or none, got only others \(2 lang=ru, 1 toFix\)"):
        list(read_webnlg(path))
