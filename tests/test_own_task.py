"""A user's own task in five lines, through the command line: trained, scored, recorded; what is wrong with it named."""

import json
import sys
from pathlib import Path

import pytest
from factories import backbone_folder

from softprompt.cli import main

FIVE = """\
method: {name: prompt, length: 2}
data: {train: mine.csv, dev: mine.csv, input: "{inn} {tea}", target: "{label}", labels: {column: label, words: LABELS}}
train: {max_steps: 2, batch_size: 4}
decode: {strategy: greedy, max_new_tokens: 4}
score: {metrics: [accuracy, f1_macro, bleu]}
"""
ROWS = "inn,tea,label\n" + "".join(f"red inn {n},hot tea,{n % 2}\n" for n in range(12))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return backbone_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text(ROWS)
    (tmp_path / "mine.yaml").write_text(FIVE.replace("LABELS", '{"0": cold, "1": kind}'))
    return tmp_path


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["softprompt", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_five_lines_and_three_columns(
    backbone: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"backbone={backbone}", "data.split=half_validation", "data.shots=4", "untuned=false"]
    assert call(["run", "mine.yaml", *settings, "--out", "run", "-q", "--json"], monkeypatch) == 0
    (arm,) = json.loads(capsys.readouterr().out)["arms"]
    assert list(arm["scores"]) == ["accuracy", "f1_macro", "bleu"]
    recorded = json.loads((place / "run" / "splits.json").read_text())
    assert (recorded["template"], recorded["split"], recorded["split_seed"]) == (None, "half_validation", 42)
    parts = recorded["parts"]
    assert {name: part["examples"] for name, part in parts.items()} == {"train": 4, "dev": 6, "test": 6}
    assert len({part["sha256"] for part in parts.values()}) == 3
    lines = [json.loads(line) for line in (place / "run" / "predictions" / "test.jsonl").read_text().splitlines()]
    assert {tuple(line["references"]) for line in lines} <= {("cold",), ("kind",)}
    assert "shots: 4" in (place / "run" / "recipe.yaml").read_text()


def test_own_labels_are_scored_by_accuracy_where_no_metric_is_named(
    backbone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"backbone={backbone}", "method=untuned", "score=null"]
    assert call(["run", "mine.yaml", *settings, "--out", "run", "-q", "--json"], monkeypatch) == 0
    assert list(json.loads(capsys.readouterr().out)["arms"][0]["scores"]) == ["accuracy"]


WRONG = {
    "column": ("inn,te,label\na,b,0\n", [], 1, ["mine.csv:2: expected a column 'tea'; nearest: 'te'"]),
    "label": (
        "inn,tea,label\na,b,0\nc,d,7\n",
        [],
        1,
        ["mine.csv:3: expected a label out of '0' (cold), '1' (kind)", "'7'"],
    ),
    "no rows": ("inn,tea,label\n", [], 1, ["mine.csv: expected at least one row, got none"]),
    "encoding": (b"inn,tea,label\na,b,0\n\xe9,d,1\n", [], 1, ["mine.csv:3: expected UTF-8 text, got the byte 0xe9"]),
    "huge line": (
        b"inn,tea,label\n" + b"x" * (2**24 + 9),
        [],
        1,
        ["mine.csv:2: expected a line of at most 16,777,216"],
    ),
    "metric": (
        ROWS,
        ["score.metrics=[acuracy]"],
        2,
        ["Expected metrics out of", "'acuracy'", "Did you mean 'accuracy'?"],
    ),
    "metrics as a text": (ROWS, ["score.metrics=accuracy"], 2, ["score.metrics: expected a list of texts"]),
    "empty split": (
        ROWS,
        ["data.split=dev_from_train", "data.dev_size=12"],
        1,
        ["more than 12 training rows", "got 12"],
    ),
    "too few of a label": (ROWS, ["data.shots=20"], 1, ["data.shots: expected 10 pairs of the label 'cold', got 6"]),
    "held-out field": (
        ROWS,
        ["data.hold_out={field: in, values: [a]}"],
        1,
        ["mine.csv:2: expected a column 'in'; nearest: 'inn'"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_message(
    name: str, backbone: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, settings, code, words = WRONG[name]
    (place / "mine.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert call(["run", "mine.yaml", f"backbone={backbone}", *settings, "--out", "run", "-q"], monkeypatch) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and "Traceback" not in err and err.count("\n") == 1
    for word in words:
        assert word in err
    assert not (place / "run").exists()


def test_a_task_without_training_files_cannot_be_trained_on(
    backbone: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with a task that is only tested on."""
    settings = ["data.hold_out={field: label, values: ['0', '1']}", f"backbone={backbone}"]
    assert call(["run", "mine.yaml", *settings, "--out", "run", "-q"], monkeypatch) == 2
    assert "data.train: method prompt needs training pairs, and the data has none" in capsys.readouterr().err


@pytest.mark.parametrize("arm", ["prompt", "untuned"])
def test_sources_are_cut_where_the_recipe_says_so(
    arm: str, backbone: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "mine.csv").write_text("inn,tea,label\na,b,0\nthe red inn," + "hot tea " * 200 + ",1\n")
    given = ["run", "mine.yaml", f"backbone={backbone}", "--out", "run", "-q", "untuned=false"]
    given += ["method=untuned"] if arm == "untuned" else []
    assert call(given, monkeypatch) == 1
    assert "longer than the backbone's window" in capsys.readouterr().err
    assert call([*given, "data.truncate=source"], monkeypatch) == 0
    assert "test: 1 of 2 sources cut at their end" in capsys.readouterr().err
    cut = json.loads((place / "run" / "splits.json").read_text())["parts"]["test"]["cut"]
    assert (cut["examples"], cut["of"]) == (1, 2) and cut["tokens"] > 100
    line = json.loads((place / "run" / "predictions" / "test.jsonl").read_text().splitlines()[1])
    assert line["source"].startswith("the red inn hot tea hot tea") and len(line["source"]) < 1_000
