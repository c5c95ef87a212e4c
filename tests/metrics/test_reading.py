"""Hypotheses and references from disk, in the shapes that editors and scripts leave them in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from softprompt.errors import ConfigError, DataError
from softprompt.metrics.files import TestSet, read_lines, read_test_set
from softprompt.metrics.scoring import score


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(hypotheses: str, *references: str, parts: str | None = None) -> TestSet:
    """Writes the texts to files and reads them back."""
    files = {"hyp.txt": hypotheses, **{f"ref{i}.txt": text for i, text in enumerate(references)}, "parts.txt": parts}
    for name, text in files.items():
        if text is not None:
            Path(name).write_bytes(text.encode())
    return read_test_set(
        Path("hyp.txt"), [Path(f"ref{i}.txt") for i in range(len(references))], Path("parts.txt") if parts else None
    )


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\nb", ["a", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\r\n\r\nb", ["a", "", "b"]),
        ("\ufeffa\nb\n", ["a", "b"]),
        ("a\u2028b\x85c\x0bd\x1ce\n", ["a\u2028b\x85c\x0bd\x1ce"]),
        ("a\rb\n", ["a\rb"]),
        ("a\n\n", ["a", ""]),
        ("\n", [""]),
        ("", []),
    ],
)
def test_lines(tmp_path: Path, text: str, lines: list[str]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    assert read_lines(path) == lines


@pytest.mark.usefixtures("folder")
class TestText:
    def test_groups_between_blank_lines(self) -> None:
        groups = [["a", "b"], ["c"]]
        assert read("x\ny\n", "a\nb\n\nc\n").references == groups
        assert read("x\ny", "\ufeffa\nb\n\nc").references == groups
        assert read("x\r\ny\r\n", "a\r\nb\r\n\r\nc\r\n").references == groups
        assert read("x\ny\n", "\n\na\nb\n \n\nc\n\n").references == groups

    def test_one_reference_a_line(self) -> None:
        assert read("x\ny\nz\n", "a\n\nc\n") == TestSet(["x", "y", "z"], [["a"], [""], ["c"]])

    def test_parallel_files_keep_their_blank_lines(self) -> None:
        assert read("x\ny\n", "a\nb\n", "c\n\n", "\r\nd").references == [["a", "c", ""], ["b", "", "d"]]

    def test_blank_outputs_are_outputs(self) -> None:
        assert read("\ny\n\n", "a\nb\nc\n").hypotheses == ["", "y", ""]

    def test_parts(self) -> None:
        assert read("x\ny\nz\nw\n", "a\nb\nc\nd\n", parts="unseen\nseen \n\nunseen\n").parts == {
            "seen": [1],
            "unseen": [0, 3],
        }

    @pytest.mark.parametrize(
        ("references", "message"),
        [
            (["a\nb\n", "a\nb\nc\n"], r"ref0.txt has 2 lines, hyp.txt has 3"),
            (["a\nb\nc\n", "a\nb\nc\nd\n"], r"ref1.txt has 4 lines, hyp.txt has 3"),
            (["a\nb\n\nc\n"], r"ref0.txt has 2 groups .* hyp.txt has 3 lines"),
            (["a\nb\nc\nd\n"], r"ref0.txt has 4 lines.* hyp.txt has 3"),
            ([""], r"ref0.txt has 0 .* hyp.txt has 3"),
        ],
        ids=["parallel, shorter", "parallel, longer", "groups", "one a line", "empty"],
    )
    def test_counts_that_differ_are_refused_with_both_and_the_files(self, references: list[str], message: str) -> None:
        with pytest.raises(DataError, match=message):
            read("x\ny\nz\n", *references)

    def test_parts_that_differ_in_count_are_refused(self) -> None:
        with pytest.raises(DataError, match=r"parts.txt has 1 lines, hyp.txt has 2"):
            read("x\ny\n", "a\nb\n", parts="seen\n")

    def test_what_is_missing_is_named(self) -> None:
        with pytest.raises(ConfigError, match=r"hyp.txt: expected references, got none.*--refs"):
            read("x\n")
        with pytest.raises(ConfigError, match=r"nothing.txt: no such file"):
            read_test_set(Path("hyp.txt"), [Path("nothing.txt")])

    def test_other_encodings_are_refused(self) -> None:
        read("caf\n", "café\n")
        Path("hyp.txt").write_bytes("ab\ncafé\n".encode("latin-1"))
        with pytest.raises(DataError, match=r"hyp.txt: expected UTF-8, got byte 0xe9 at 6"):
            read_test_set(Path("hyp.txt"), [Path("ref0.txt")])


ROWS = [
    {"prediction": "x\u2028y", "references": ["a", "b"], "seen": True},
    {"prediction": "", "references": ["c"], "seen": False},
    {"prediction": "z", "references": ["d"], "seen": None},
]


class TestPredictions:
    def test_hold_their_references_and_parts(self, folder: Path) -> None:
        path = folder / "run" / "predictions" / "test.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), encoding="utf-8")
        expected = TestSet(["x\u2028y", "", "z"], [["a", "b"], ["c"], ["d"]], {"seen": [0], "unseen": [1]})
        assert read_test_set(path, []) == read_test_set(folder / "run", []) == expected

    def test_other_references_may_be_given(self, folder: Path) -> None:
        (folder / "p.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
        (folder / "refs.txt").write_text("e\nf\ng\n")
        assert read_test_set(folder / "p.jsonl", [folder / "refs.txt"]).references == [["e"], ["f"], ["g"]]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "line 2: expected JSON"),
            ("[]", "line 2: expected an object with a text `prediction`"),
            ('{"prediction": 3}', "line 2: expected an object with a text `prediction`"),
            ('{"prediction": "a", "references": []}', "line 2: expected a list of texts as `references`"),
            ('{"prediction": "a", "references": "b"}', "line 2: expected a list of texts as `references`"),
        ],
    )
    def test_a_damaged_line_is_refused_with_its_number(self, folder: Path, line: str, message: str) -> None:
        (folder / "p.jsonl").write_text(f"{json.dumps(ROWS[0])}\n{line}\n", encoding="utf-8")
        with pytest.raises(DataError, match=rf"p\.jsonl: {message}"):
            read_test_set(folder / "p.jsonl", [])


class TestSquad:
    GOLD = json.dumps(
        {
            "version": "1.1",
            "data": [
                {
                    "paragraphs": [
                        {"context": "", "qas": [{"id": "1", "answers": [{"text": "Paris"}, {"text": "in París"}]}]},
                        {"context": "", "qas": [{"id": "2", "answers": [{"text": "5"}]}]},
                    ]
                }
            ],
        },
        ensure_ascii=False,
    )

    def read(self, answers: bytes, gold: bytes) -> TestSet:
        Path("answers.json").write_bytes(answers)
        Path("gold.json").write_bytes(gold)
        return read_test_set(Path("answers.json"), [Path("gold.json")])

    @pytest.mark.usefixtures("folder")
    @pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
    def test_answers_find_their_questions(self, mark: str) -> None:
        test = self.read(f'{mark}{{"1": "", "2": "5.", "7": "x"}}'.encode(), f"{mark}{self.GOLD}".encode())
        assert test == TestSet(["", "5."], [["Paris", "in París"], ["5"]])

    @pytest.mark.usefixtures("folder")
    def test_an_absent_answer_is_said_and_wrong_even_where_the_right_one_has_no_words(self) -> None:
        with pytest.warns(UserWarning, match="no answer to 1 of the 2 questions.*'1'"):
            test = self.read(b'{"2": "5."}', self.GOLD.replace("Paris", "the").encode())
        assert {name: entry["score"] for name, entry in score(test, "squad").items()} == {"exact_match": 50, "f1": 50}

    @pytest.mark.usefixtures("folder")
    @pytest.mark.parametrize(
        ("answers", "gold", "message"),
        [
            (b'{"7": "x"}', GOLD.encode(), "1 answers.* 2 questions, and no id is in both"),
            (b'["x"]', GOLD.encode(), "answers.json: expected a JSON object from question id"),
            (b'{"1": ["x"]}', GOLD.encode(), "answers.json: expected a JSON object from question id"),
            (b'{"1": "x"', GOLD.encode(), "answers.json: expected JSON"),
            (b'{"1": "x"}', b'{"data": [{}]}', "gold.json: expected the form of SQuAD"),
            (b'{"1": "x"}', b"[]", "gold.json: expected the form of SQuAD"),
            (b'{"1": "\xe9"}', GOLD.encode(), "answers.json: expected UTF-8"),
        ],
        ids=["other ids", "a list", "not texts", "cut off", "no paragraphs", "no articles", "Latin-1"],
    )
    def test_other_forms_are_refused(self, answers: bytes, gold: bytes, message: str) -> None:
        with pytest.raises(DataError, match=message):
            self.read(answers, gold)

    def test_one_file_of_references_is_expected(self, folder: Path) -> None:
        self_made = [folder / name for name in ("answers.json", "a.json", "b.json")]
        for path in self_made:
            path.write_text("{}")
        with pytest.raises(ConfigError, match="expected one SQuAD file in --refs, got 2"):
            read_test_set(self_made[0], self_made[1:])
