"""JSONL, CSV and TSV: values, line numbers, and messages with file and line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softprompt.data.table import read_table
from softprompt.errors import ConfigError, DataError


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv(tmp_path: Path) -> None:
    text = 'mr,ref\na,"x, ""y"""\n\n"b\nc","two\r\nlines"\r\nd,e'
    rows = read_table(write(tmp_path, "a.csv", text))
    assert [row.values for row in rows] == [
        {"mr": "a", "ref": 'x, "y"'},
        {"mr": "b\nc", "ref": "two\r\nlines"},
        {"mr": "d", "ref": "e"},
    ]
    assert [row.line for row in rows] == [2, 4, 7]
    assert rows[1].where == f"{tmp_path / 'a.csv'}:4"


def test_byte_order_mark_and_tsv(tmp_path: Path) -> None:
    rows = read_table(write(tmp_path, "a.tsv", b"\xef\xbb\xbfmr\tref\n\xc3\xa9, f\tx\n"))
    assert [dict(row.values) for row in rows] == [{"mr": "é, f", "ref": "x"}]
    assert read_table(write(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"a": 1}\n'))[0].values == {"a": 1}


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.ndjson", "A.JSONL"])
def test_jsonl(tmp_path: Path, name: str) -> None:
    rows = read_table(write(tmp_path, name, '{"s": "a\u2028b", "t": ["x", "y"]}\r\n\n{"s": "c", "t": "z"}'))
    assert [row.values for row in rows] == [{"s": "a\u2028b", "t": ["x", "y"]}, {"s": "c", "t": "z"}]
    assert [row.line for row in rows] == [1, 3]


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.csv", "mr,ref\na,b\nc,d,e\n", "a.csv:3: expected 2 fields (mr, ref), got 3."),
        ("a.csv", "mr,ref\na\n", "a.csv:2: expected 2 fields (mr, ref), got 1."),
        ("a.csv", 'mr,ref\n"a\n\nb",c\nd\n', "a.csv:5: expected 2 fields"),
        ("a.csv", 'mr,ref\na,"b"c\n', "a.csv:2: not a valid row"),
        ("a.csv", 'mr,ref\na,b\n"c,d\ne,f\n', "a.csv:3: not a valid row"),
        ("a.csv", "mr,mr\na,b\n", "a.csv:1: expected different column names, got 'mr' twice"),
        ("a.csv", "mr,ref\n", "expected at least one row, got none"),
        ("a.csv", "", "expected at least one row, got none"),
        ("a.csv", b"mr,ref\na,b\n\xff,c\n", "a.csv:3: expected UTF-8 text, got the byte 0xff"),
        ("a.csv", "mr,ref\n".encode("utf-16"), "a.csv:1: expected UTF-8"),
        ("a.csv", "mr,ref\na," + "x" * 200_000, "a.csv:2: not a valid row"),
        ("a.jsonl", "", "expected at least one row"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "a.jsonl:2: expected one JSON object a line"),
        ("a.jsonl", '[{"a": 1}]', "a.jsonl:1: expected one JSON object a line, such as"),
        ("a.jsonl", "\n3\n", "a.jsonl:2: expected one JSON object a line"),
        ("a.jsonl", '{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: expected one JSON object"),
        ("a.jsonl", '{"a": ' + "9" * 5000 + "}", "a.jsonl:1: expected one JSON object"),
    ],
)
def test_wrong_content(tmp_path: Path, name: str, content: str | bytes, part: str) -> None:
    with pytest.raises(DataError) as caught:
        read_table(write(tmp_path, name, content))
    assert part in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_wrong_path(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", "a\nb\n")
    with pytest.raises(ConfigError, match=r"no such data file; nearest there: 'train.csv'"):
        read_table(tmp_path / "trian.csv")
    for path, part in [
        (tmp_path / "a.txt", "ends in"),
        (tmp_path / "no" / "a.csv", "no such"),
        (Path("a\0.csv"), "cannot"),
    ]:
        with pytest.raises(ConfigError, match=part):
            read_table(path)
    (tmp_path / "dir.csv").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_table(tmp_path / "dir.csv")


@given(content=st.binary(max_size=80), name=st.sampled_from(["a.csv", "a.tsv", "a.jsonl"]))
@settings(max_examples=200, deadline=None)
def test_fuzz(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    path = write(tmp_path_factory.getbasetemp(), name, content)
    try:
        assert read_table(path)
    except DataError as error:
        assert str(error).startswith(str(path))
