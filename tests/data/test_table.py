"""JSONL, CSV, TSV, Parquet: values, line numbers, messages with file and line, and memory that does not grow."""

import gzip
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softprompt.data import lines
from softprompt.data.table import Record
from softprompt.data.table import read_table as stream
from softprompt.errors import ConfigError, DataError


def read_table(path: Path, **options: Any) -> list[Record]:
    return list(stream(path, **options))


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
        ("a.csv", b"mr,ref\na,b\n\xff,c\n", "a.csv:3: expected UTF-8 text, got the byte 0xff"),
        ("a.csv", "mr,ref\na," + "x" * 200_000, "a.csv:2: not a valid row"),
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
        assert all(record.path == path for record in read_table(path))
    except DataError as error:
        assert str(error).startswith(str(path))


def test_headerless_fields_without_quoting(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "x\t1\t\"It's\ttail\ny\t0\tb\n")
    rows = read_table(path, separator="\t", columns=["id", "label", "text"], quoting=False, surplus=True)
    assert [dict(row.values) for row in rows] == [
        {"id": "x", "label": "1", "text": "\"It's"},
        {"id": "y", "label": "0", "text": "b"},
    ]
    assert [row.line for row in rows] == [1, 2]
    with pytest.raises(DataError, match=r"a.csv:1: expected 3 fields \(id, label, text\), got 4"):
        read_table(path, separator="\t", columns=["id", "label", "text"], quoting=False)
    with pytest.raises(DataError, match=r"a.csv:1: expected 5 fields .*, got 4"):
        read_table(path, separator="\t", columns=list("abcde"), quoting=False, surplus=True)


def test_rename(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"answer": true, "q": 1}\n{"label": false, "q": 2}')
    rows = read_table(path, rename={"answer": "label"})
    assert [row.values for row in rows] == [{"label": True, "q": 1}, {"label": False, "q": 2}]


def test_packed(tmp_path: Path) -> None:
    packed = gzip.compress(b"a,b\n1,2\n")
    assert read_table(write(tmp_path, "a.csv.gz", packed))[0].values == {"a": "1", "b": "2"}
    with pytest.raises(DataError, match=r"a.csv.gz:3: the file cannot be read on from here"):
        read_table(write(tmp_path, "a.csv.gz", packed[:-8]))
    with pytest.raises(DataError, match=r"a.csv.gz:1: the file cannot be read on from here"):
        read_table(write(tmp_path, "a.csv.gz", b"a,b\n1,2\n"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_huge_line_is_refused_before_it_is_read_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n' if name == "a.jsonl" else b"a\n1\n")
        file.truncate(2**30)  # a sparse file: the second line is a gigabyte of zeros
    line = 2 if name == "a.jsonl" else 3
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"{name}:{line}: expected a line of at most 16,777,216 bytes, got a longer"):
        read_table(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * lines.LONGEST


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.gz"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    def peak(count: int) -> int:
        row, head = (b"1,some words\n", b"a,b\n") if "csv" in name else (b'{"a": 1, "b": "some words"}\n', b"")
        body = head + row * count
        path = write(tmp_path, name, gzip.compress(body) if name.endswith(".gz") else body)
        del body
        tracemalloc.start()
        assert sum(1 for _ in stream(path)) == count
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    few, many = peak(1_000), peak(20_000)
    assert many < few + 20_000


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"a": number, "b": ["x", "y"]} for number in range(2_000)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet")
    assert [row.values for row in found] == rows and found[-1].line == 2_000
    with pytest.raises(DataError, match=r"b.parquet:1: not a whole Parquet file"):
        read_table(write(tmp_path, "b.parquet", (tmp_path / "a.parquet").read_bytes()[:-100]))


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ConfigError, match=r"a.parquet: reading Parquet needs pyarrow.*pip install 'softprompt\[data\]'"
    ):
        read_table(write(tmp_path, "a.parquet", b""))


def test_records_come_one_by_one(tmp_path: Path) -> None:
    good = json.dumps({"a": 1}).encode()
    rows = stream(write(tmp_path, "a.jsonl", good + b"\n\xff\n"))
    assert next(rows).values == {"a": 1}
    with pytest.raises(DataError, match=r"a.jsonl:2: expected UTF-8"):
        next(rows)
