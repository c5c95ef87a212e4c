"""One's own files in the forms that they come in: delimiters, encodings, quotes, line ends, lists, paths."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from softprompt.config import DataConfig, load_recipe
from softprompt.data import digest, load
from softprompt.data.table import read_table
from softprompt.errors import ConfigError, DataError


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def targets(path: Path, **options: Any) -> list[tuple[str, tuple[str, ...]]]:
    return [(row.source, row.targets) for row in load(DataConfig(train=path, **options), 1).train]


PAIRS = [("a", ("b",)), ("c", ("d",))]


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", "source;target\na;b\nc;d\n", {"delimiter": ";"}),
        ("a.csv", "source|target\na|b\nc|d\n", {"delimiter": "|"}),
        ("a.csv", "source\ttarget\na\tb\nc\td\n", {"delimiter": "tab"}),
        ("a.txt", "source;target\na;b\nc;d\n", {"delimiter": ";"}),
        ("a.csv", "source,target\ra,b\rc,d\r", {}),
        ("a.csv", "source,target\r\na,b\r\nc,d", {}),
        ("a.jsonl", '{"source": "a", "target": "b"}\r{"source": "c", "target": "d"}\r', {}),
        ("a.csv", "source,target\na,b\nc,d\n".encode("utf-16"), {}),
        ("a.csv", "source,target\na,b\nc,d\n".encode("utf-32"), {}),
        ("a.csv", "source,target\ra,b\rc,d\r".encode("utf-16"), {}),
        ("a.csv", "source,target\na,b\nc,d\n".encode("utf-16-be"), {"encoding": "utf-16-be"}),
        ("a.jsonl", '{"source": "a", "target": "b"}\n{"source": "c", "target": "d"}'.encode("utf-16"), {}),
        ("a.json", '[{"source": "a", "target": "b"},\n {"source": "c", "target": "d"}]', {}),
        ("a.json", '\n \ufeff[{"source": "a", "target": "b"}, {"source": "c", "target": "d"}]'.lstrip(), {}),
        ("a.json", '[{"source": "a", "target": "b"}, {"source": "c", "target": "d"}]'.encode("utf-16"), {}),
        ("a.json", '{"source": "a", "target": "b"}\n{"source": "c", "target": "d"}', {}),
    ],
)
def test_the_same_rows_in_every_form(tmp_path: Path, name: str, content: str | bytes, options: dict[str, str]) -> None:
    path = put(tmp_path / name, content)
    assert targets(path, **options) == PAIRS
    assert len(digest(path)) == 64


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8", "utf-8-sig"])
def test_an_encoding_by_name(tmp_path: Path, encoding: str) -> None:
    text = "source,target\n" + "".join(f"Café {n},Ünß\n" for n in range(3))
    assert targets(put(tmp_path / "a.csv", text.encode(encoding)), encoding=encoding)[2] == ("Café 2", ("Ünß",))


def test_a_list_names_its_item_and_a_place_in_it(tmp_path: Path) -> None:
    for content, part in [
        ('[{"source": "a", "target": "b"}, 3]', "a.json: item 2: expected a JSON object, got int"),
        ('[{"source": "a", "target": "b"},\n {"source": "a", "target": null}]', "a.json: item 2: expected a text"),
        ('[{"source": "a"},\n {"source": }]', "a.json:2: expected one JSON list of objects"),
        ("[]", "a.json: expected at least one row"),
    ]:
        with pytest.raises(DataError, match=part):
            targets(put(tmp_path / "a.json", content))


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.csv", "source;target\na;b\n", "separated by ';'[?] Then set data.delimiter: ';'"),
        ("a.csv", "source;target\na, b;c\n", "separated by ';'[?] Then set data.delimiter: ';'"),
        ("a.tsv", "source,target\na,b\n", "separated by ','[?] Then set data.delimiter"),
        ("a.csv", "red,inn\ntea,pie\n", "Has this file a header row"),
        ("a.csv", "source,target\na,b\nCafé,d\n".encode("latin-1"), "a.csv:3: .*0xe9.*data.encoding=latin-1"),
        ("a.csv", "source,target\na,b\n".encode("utf-16-le"), "a.csv:1: .*data.encoding=utf-16-le"),
        ("a.jsonl", '[{"source": "a", "target": "b"}]', "is one JSON list ends in .json"),
        ("a.csv", "source,target\na\rb,c\n", "a.csv:2: not a valid row: a carriage return"),
        ("a.csv", 'source,target\n"a"b,c\n', "a.csv:2: not a valid row: a quote closes a field .*data.quoting=false"),
        ("a.csv", 'source,target\n"a,b\nc,d\n', "a.csv:2: not a valid row: a quote that opens .* never closed"),
        ("a.csv", "source,target\na," + "x" * 200_000, "a.csv:2: not a valid row: a field is longer than 131,072"),
        ("a.tsv", 'source\ttarget\n"a\tb\nc"\td\n', "a.tsv:2: .*tab.*data.quoting=false"),
        ("a.jsonl", '{"source": "a", "target": [{"x": 1}, null]}', "a.jsonl:1: .*null"),
        ("a.jsonl", '{"source": [{"role": "user", "content": "a"}], "target": "b"}', "chat messages.*two columns"),
    ],
)
def test_what_is_wrong_leads_to_the_way_out(tmp_path: Path, name: str, content: str | bytes, part: str) -> None:
    with pytest.raises(DataError, match=f"(?s){part}"):
        targets(put(tmp_path / name, content))


REVIEWS = '"It was great\tpos\nbad film\tneg\nthe end"\tneg\nfine\tpos\n'


def test_stray_quotes_in_a_tsv_swallow_no_rows(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tsv", "source\ttarget\n" + REVIEWS)
    with pytest.raises(DataError, match=r"a.tsv:2: .*'It was great\\tpos"):
        targets(path)
    assert [source for source, _ in targets(path, quoting=False)] == ['"It was great', "bad film", 'the end"', "fine"]
    assert len(targets(path, quoting=True)) == 2
    quoted = put(tmp_path / "b.tsv", 'source\ttarget\n"a ""b"" c"\td\n"two\nlines"\te\n')
    assert targets(quoted) == [('a "b" c', ("d",)), ("two\nlines", ("e",))]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"delimiter": ";;"}, "expected one character"),
        ({"delimiter": ""}, "expected one character"),
        ({"delimiter": '"'}, "expected one character"),
        ({"encoding": "latin-11"}, "expected an encoding"),
        ({"encoding": "rot13"}, "expected an encoding"),
        ({"encoding": "hex"}, "expected an encoding"),
        ({"target": ()}, "at least one template"),
        ({"task": "glue-cola", "delimiter": ";"}, "task glue-cola says how its are read"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(options: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        DataConfig(train=Path("a.csv"), **options)


@pytest.mark.parametrize("options", [{"delimiter": ";"}, {"quoting": False}])
def test_a_setting_without_effect_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    path = put(tmp_path / "a.jsonl", '{"source": "a", "target": "b"}')
    with pytest.raises(ConfigError, match=r"has no effect on files that end in \.jsonl"):
        targets(path, **options)


def test_overrides_take_signs_of_yaml_as_they_stand(tmp_path: Path) -> None:
    put(tmp_path / "r.yaml", f"data: {{train: {put(tmp_path / 'a.csv', 'x|y')}}}")
    for sign in ("|", ",", ";"):
        assert load_recipe(str(tmp_path / "r.yaml"), [f"data.delimiter={sign}"]).data.delimiter == sign
    for text, want in [('["{a}", "{b}"]', ("{a}", "{b}")), ("[{a}]", "[{a}]"), ("{a}", "{a}")]:
        assert load_recipe(str(tmp_path / "r.yaml"), [f"data.target={text}"]).data.target == want


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    return put(path, "".join(json.dumps(row) + "\n" for row in rows))


def test_paths_into_objects_and_lists(tmp_path: Path) -> None:
    row = {"meta": {"name": "Inn", "place": {"area": "river", "a.b": 1}}, "tags": ["tea", "pie"], "text": ["x", "y"]}
    path = lines(tmp_path / "a.jsonl", row)
    assert targets(path, input="{meta.name} {meta.place.area} {meta.place.a.b} : {tags}", target="{text}") == [
        ("Inn river 1 : tea, pie", ("x",)),
        ("Inn river 1 : tea, pie", ("y",)),
    ]
    own_dots = lines(tmp_path / "b.jsonl", {"meta.name": "whole", "meta": {"name": "path"}, "target": "t"})
    assert targets(own_dots, input="{meta.name}") == [("whole", ("t",))]
    labels = {"column": "meta.label", "words": {"0": "cold", "1": "kind"}}
    of_path = lines(tmp_path / "c.jsonl", {"source": "s", "meta": {"label": 1}})
    assert targets(of_path, target="{meta.label}", labels=labels) == [("s", ("kind",))]
    with pytest.raises(DataError, match=r"a.jsonl:1: expected a column 'meta.nmae'"):
        targets(path, input="{meta.nmae}", target="{text}")


def test_several_target_columns_are_references(tmp_path: Path) -> None:
    train = put(tmp_path / "train.csv", "source,target\ns,t\n")
    dev = put(tmp_path / "dev.csv", "source,ref1,ref2\nx,one,two\ny,only,\n")
    found = load(DataConfig(train=train, dev=dev, target=["{target}", "{ref1}", "{ref2}"]), 1)
    assert [row.targets for row in found.train] == [("t",)]
    assert [row.targets for row in found.test] == [("one", "two"), ("only",)]
    with pytest.raises(ConfigError, match=r"no file has the columns of the template '\{rfe2\}'"):
        load(DataConfig(train=train, dev=dev, target=["{target}", "{ref1}", "{rfe2}"]), 1)
    with pytest.raises(DataError, match=r"dev.csv:2: expected a text for one of the targets"):
        load(DataConfig(train=train, dev=put(dev, "source,ref1,ref2\nx,,\n"), target=["{target}", "{ref1}"]), 1)
    with pytest.raises(DataError, match=r"train.csv:2: expected a column 'ref1'.*data.target may be a list"):
        load(DataConfig(train=train, dev=dev, target="{ref1}"), 1)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "null", '["a", NaN]', '[["a"]]'])
@pytest.mark.parametrize("column", ["source", "target"])
def test_values_that_are_no_text(tmp_path: Path, value: str, column: str) -> None:
    row = {"source": '"a"', "target": '"b"'} | {column: value}
    text = ", ".join(f'"{key}": {written}' for key, written in row.items())
    path = put(tmp_path / "a.jsonl", f'{{"source": "x", "target": "y"}}\n{{{text}}}\n')
    with pytest.raises(DataError, match=rf"a.jsonl:2: expected a text in column '{column}', got"):
        targets(path)
    inside = put(tmp_path / "b.jsonl", f'{{"source": {{"in": {value}}}, "target": "y"}}\n')
    if value[0] != "[":
        with pytest.raises(DataError, match=r"b.jsonl:1: expected a text in column 'source', got"):
            targets(inside)


def test_values_that_are_no_text_in_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for number, values in enumerate(([1.0, float("nan")], [1.0, float("inf")], [b"a", b"\xff"], ["a", None])):
        path = tmp_path / f"{number}.parquet"
        parquet.write_table(pyarrow.table({"source": ["a", "c"], "target": values}), path)
        with pytest.raises(DataError, match=r"parquet:\d: expected a text in column 'target', got"):
            targets(path)


def test_words_that_look_like_nothing_are_texts(tmp_path: Path) -> None:
    words = ["NA", "null", "None", "nan", "inf", "0123", "1e5", "TRUE", "NaN"]
    path = put(tmp_path / "a.csv", "source,target\n" + "".join(f"s{i},{word}\n" for i, word in enumerate(words)))
    assert [texts for _, texts in targets(path)] == [(word,) for word in words]


def test_a_fifo_or_a_device_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    for path, kind in ((tmp_path / "a.csv", "a fifo"), (Path("/dev/zero"), "a device")):
        with pytest.raises(ConfigError, match=f"expected a file, got {kind}"):
            next(read_table(path, separator=","))
        with pytest.raises(ConfigError, match=f"expected a file, got {kind}"):
            digest(path)


def test_lines_end_where_they_did_before(tmp_path: Path) -> None:
    """Carriage returns inside quotes stay, and a line is counted as an editor counts it."""
    path = put(tmp_path / "a.csv", 'source,target\r\n"a\rb","c\r\nd"\r\ne,"  "\r\n')
    rows = list(read_table(path))
    assert rows[0].values == {"source": "a\rb", "target": "c\r\nd"} and [row.line for row in rows] == [2, 4]
    wide = put(tmp_path / "b.csv", "source,target\n" + "é,ü\n" * 300_000)
    packed = sum(1 for _ in read_table(wide, encoding="utf-8"))
    assert packed == sum(1 for _ in read_table(put(wide, wide.read_text().encode("utf-16")))) == 300_000
