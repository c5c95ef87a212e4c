"""`softprompt inspect-data`: counts, lengths, what does not fit, and the examples as the model reads them."""

import json
import sys
from pathlib import Path

import pytest
from factories import EOS, backbone_folder, tokenizer

from softprompt.cli import main


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["softprompt", "inspect-data", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two short pairs and one that is longer than the window of 128."""
    rows = [("red inn", 0), ("hot tea", 1), ("hot tea " * 200, 1)]
    for name in ("train", "test"):
        lines = [
            "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
            *(f"{label}\t1\t2\t{text}\tpie" for text, label in rows),
        ]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines))
    given = [f"data.{name}={tmp_path / name}.tsv" for name in ("train", "test")]
    return [*given, "data.split=native", "data.template=t5"]


@pytest.mark.parametrize("family", ["gpt2", "bart"])
def test_what_it_counts_and_shows(
    family: str, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = f"backbone={backbone_folder(tmp_path / 'backbone', family)}"
    given = ["glue-mrpc", *files, backbone, "method={name: prefix, length: 3}"]
    assert call([*given, "--json"], monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)
    train, test = found["parts"]["train"], found["parts"]["test"]
    assert (train["examples"], train["too_long"], test["too_long"], train["cut"]) == (3, 1, 1, None)
    assert found["parts"]["dev"]["source"] is None
    assert found["prompt_positions"] == (3 if family == "gpt2" else 0) and found["split"] == "native"
    frame, learned = (f" {{}} {EOS}", f" {{}} {EOS}") if family == "gpt2" else ("{}", f"{{}}{EOS}")
    source = frame.format("sentence1: red inn sentence2: pie")
    assert found["examples"][0] == {"given": source, "learned": learned.format("not_equivalent")}
    ids = len(tokenizer()(source)["input_ids"])
    assert train["source"]["min"] == ids and train["source"]["p95"] == train["source"]["max"] > 128
    assert call([*given, "data.truncate=source"], monkeypatch) == 0
    out, err = capsys.readouterr()
    assert "1 (" in out and "33.3%" in out and f"  masked   {source}" in out and err == ""


def test_a_recipe_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("source,target\ntea,pie\n")
    (tmp_path / "a.yaml").write_text(
        f"backbone: {backbone_folder(tmp_path / 'b')}\ndata: {{train: {tmp_path}/a.csv}}\n"
    )
    assert call([str(tmp_path / "a.yaml")], monkeypatch) == 0
    assert f"  masked    tea {EOS}\n  learned   pie {EOS}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["glue-colla"], "unknown task 'glue-colla'; nearest: 'glue-cola'"),
        (["e2e"], "data.dir: the task 'e2e' needs the folder with trainset.csv"),
        (["glue-cola", "data.tmplate=t5"], "unknown key 'data.tmplate'; nearest: 'data.template'"),
        (["glue-cola", "data.dir=/", "data.template=t6"], "the task 'glue-cola' has no template 't6'"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_is_wrong(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(arguments, monkeypatch) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and "Traceback" not in err
