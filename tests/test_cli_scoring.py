"""`softprompt score` and `softprompt compare` as they are typed."""

import json
from pathlib import Path

import pytest
from factories import bert_folder
from jobs import tiny_job
from test_cli import call, refused

from softprompt.metrics import score_suite

OUTPUTS = ["the red inn sells hot tea", "a quiet river bank", "kind guests"]
FIRST = ["the old inn sells hot tea", "a quiet river bank", "kind guests pay ten pounds"]
SECOND = ["tea is sold at the red inn", "", "guests are kind"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Outputs, parallel references, grouped references, labels of parts."""
    groups = "\n\n".join("\n".join(text for text in pair if text) for pair in zip(FIRST, SECOND, strict=True))
    files = {"hyp": OUTPUTS, "ref0": FIRST, "ref1": SECOND, "parts": ["seen", "unseen", "seen"]}
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "groups").write_text(groups + "\n\n", encoding="utf-8")
    return tmp_path


def scores(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, dict[str, float]]:
    assert call([*arguments, "--json"], monkeypatch) == 0
    found: dict[str, dict[str, float]] = json.loads(capsys.readouterr().out)
    return found


def test_options_with_many_values_stand_where_one_likes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hyp, ref0, ref1 = (str(folder / name) for name in ("hyp", "ref0", "ref1"))
    after = scores(["score", hyp, "--refs", ref0, ref1, "--suite", "dart"], monkeypatch, capsys)
    before = scores(["score", "--refs", ref0, ref1, "--suite", "dart", hyp], monkeypatch, capsys)
    repeated = scores(["score", hyp, "--refs", ref0, "--refs", ref1, "--suite=dart"], monkeypatch, capsys)
    direct = score_suite("dart", OUTPUTS, list(zip(FIRST, SECOND, strict=True)))
    assert after == before == repeated
    assert after["bleu"]["score"] == direct.scores["bleu"].value and after["ter"]["score"] == direct.scores["ter"].value
    chosen = ["score", hyp, "--metrics", "bleu", "nist", "--refs", str(folder / "groups"), "--suite", "e2e"]
    assert list(scores(chosen, monkeypatch, capsys)) == ["bleu", "nist"]


def test_groups_parts_and_intervals(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["score", str(folder / "hyp"), "--refs", str(folder / "groups"), "--parts", str(folder / "parts")]
    found = scores([*arguments, "--bootstrap", "50"], monkeypatch, capsys)
    assert list(found["parts"]) == ["seen", "unseen"]
    assert found["bleu"]["interval"]["low"] <= found["bleu"]["score"] <= found["bleu"]["interval"]["high"]
    assert call(arguments, monkeypatch) == 0
    table = capsys.readouterr().out
    assert "BLEU seen" in table and "METEOR is missing" in table and "BLEU|nrefs:var" in table


def test_a_run_is_scored_as_it_was_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_job(tmp_path)
    run = tmp_path / "run"
    assert call(["run", str(tmp_path / "tiny.yaml"), "-q", "--out", str(run)], monkeypatch) == 0
    capsys.readouterr()
    kept = json.loads((run / "scores.json").read_text())["scores"]
    for place in (run, run / "predictions" / "test.jsonl"):
        found = scores(["score", str(place)], monkeypatch, capsys)
        assert {name: entry for name, entry in found.items() if "score" in entry} == kept


def test_compare(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", str(folder / "hyp"), str(folder / "ref0"), "--refs", str(folder / "groups")]
    found = scores([*arguments, "--bootstrap", "100"], monkeypatch, capsys)
    assert found["rouge_l"]["b"] - found["rouge_l"]["a"] == pytest.approx(found["rouge_l"]["difference"])
    assert 0 < found["rouge_l"]["p_value"] <= 1
    assert call(arguments, monkeypatch) == 0
    assert "B - A" in capsys.readouterr().out


BAD = {
    "line counts": (["hyp", "--refs", "short"], 1, ["short has 2 lines", "hyp has 3"]),
    "group counts": (["hyp", "--refs", "few"], 1, ["few has 2 groups", "hyp has 3"]),
    "parts": (["hyp", "--refs", "groups", "--parts", "short"], 1, ["short has 2 lines", "3 outputs"]),
    "no file": (["nowhere", "--refs", "groups"], 2, ["nowhere", "no such file"]),
    "no references": (["hyp"], 2, ["--refs"]),
    "suite": (["hyp", "--refs", "groups", "--suite", "webnl"], 2, ["webnl", "Did you mean 'webnlg'"]),
    "metric": (["hyp", "--refs", "groups", "--metrics", "terr"], 2, ["got 'terr'", "Did you mean 'ter'"]),
    "not a number": (["hyp", "--refs", "ref0", "--suite", "glue/stsb"], 1, ["Expected a number", "segment 1"]),
    "bertscore's layer": (["hyp", "--refs", "groups", "--bertscore", "mine"], 2, ["mine:LAYER"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "short").write_text("one\ntwo\n")
    (folder / "few").write_text("one\n\ntwo\nthree\n")
    words, code, said = BAD[case]
    monkeypatch.chdir(folder)
    refused(["score", *words], code, *said, monkeypatch=monkeypatch, capsys=capsys)


def test_an_unknown_suite_stops_a_run_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_job(tmp_path)
    capsys.readouterr()
    arguments = ["run", str(tmp_path / "tiny.yaml"), "-q", "--out", str(tmp_path / "run"), "score.suite=dartt"]
    refused(arguments, 2, "Did you mean 'dart'", monkeypatch=monkeypatch, capsys=capsys)
    assert not (tmp_path / "run").exists()


def test_bertscore_names_its_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = bert_folder(tmp_path / "bert", [*OUTPUTS, *FIRST, *SECOND])
    arguments = ["score", str(folder / "hyp"), "--refs", str(folder / "groups"), "--bertscore"]
    found = scores([*arguments, f"{model}:1"], monkeypatch, capsys)["bertscore"]
    assert 0 < found["score"] < 1
    assert f"model:{model}|layer:1" in str(found["signature"])
    missing = scores([*arguments, f"{model}:9"], monkeypatch, capsys)["bertscore"]
    assert "has 2 layers, layer 9 was asked for" in str(missing["missing"])
