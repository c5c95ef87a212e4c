"""The command line with bad input: one clear message, the right exit code, nothing half-written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from jobs import bloom_folder, tiny_job

from softprompt.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    tiny_job(folder)
    return folder


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["softprompt", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def refused(
    arguments: list[str], code: int, *words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command exits with `code` and says one message with all `words`; stdout stays empty."""
    assert call(arguments, monkeypatch) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\nerror: ") == 0 and "Traceback" not in err
    for word in words:
        assert word in err


def test_run_prints_a_table_and_json(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(place / "tiny.yaml"), "-q", "--out", str(tmp_path / "a")]
    assert call(arguments, monkeypatch) == 0
    assert "BLEU" in capsys.readouterr().out
    assert call([*arguments, "--resume", "--json"], monkeypatch) == 0
    whole = json.loads(capsys.readouterr().out)
    assert [arm["arm"] for arm in whole["arms"]] == ["untuned", "main"]


BAD = {
    "unknown key": (["train.learing_rate=1"], 2, ["learing_rate", "train.lr"]),
    "bad value": (["train.lr=fast"], 2, ["train.lr", "fast"]),
    "missing backbone": (["backbone=./nowhere"], 1, ["nowhere"]),
    "missing data file": (["data.train=nowhere.jsonl"], 2, ["nowhere.jsonl"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_override_is_refused(
    name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides, code, words = BAD[name]
    out = tmp_path / "run"
    arguments = ["run", str(place / "tiny.yaml"), *overrides, "--out", str(out)]
    refused(arguments, code, *words, monkeypatch=monkeypatch, capsys=capsys)
    assert not out.exists()


def test_unknown_recipe_names_the_nearest(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["run", "quickstrat"], 2, "quickstart", monkeypatch=monkeypatch, capsys=capsys)


DATA = {
    "a malformed CSV row": ("bad.csv", 'mr,ref\n"a","b"\n"c","d","e"\n', ["bad.csv:3"]),
    "an empty file": ("empty.jsonl", "", ["empty.jsonl"]),
    "a line that is not JSON": ("bad.jsonl", '{"source": "a", "target": "b"}\n{"source": \n', ["bad.jsonl:2"]),
    "no such column": ("other.jsonl", '{"src": "a", "target": "b"}\n', ["source", "src"]),
}


@pytest.mark.parametrize("name", DATA)
def test_bad_data_is_refused_with_its_line(
    name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, text, words = DATA[name]
    (tmp_path / file).write_text(text, encoding="utf-8")
    columns = ["data.input={mr}", "data.target={ref}"] if file.endswith(".csv") else []
    arguments = ["run", str(place / "tiny.yaml"), f"data.train={tmp_path / file}", *columns]
    out = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["softprompt", *arguments, "--out", str(out)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code in (1, 2)
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "Traceback" not in err and all(word in err for word in words)
    assert not out.exists()


def test_source_longer_than_the_window_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"source": "tea", "target": "pie"}, {"source": "red inn " * 200, "target": "pie"}]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = tmp_path / "run"
    arguments = ["run", str(place / "tiny.yaml"), f"data.train={tmp_path / 'long.jsonl'}", "--out", str(out)]
    refused(arguments, 1, "1 of 2", "window", "number 2", monkeypatch=monkeypatch, capsys=capsys)
    assert not out.exists()


def test_backbone_without_sites_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ["run", str(place / "tiny.yaml"), f"backbone={bloom_folder(tmp_path / 'bloom')}", "--out", str(out)]
    refused(arguments, 1, "bloom", "0 such calls", monkeypatch=monkeypatch, capsys=capsys)
    assert not out.exists()


def test_dry_run_counts_the_paper_exactly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["run", "e2e-gpt2-medium", "--dry-run", "--json"], monkeypatch) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["trained"] == 25_744_896
    assert plan["stored"] == 245_760
    assert plan["steps"] == 5 * 4207
    assert plan["memory"]["total"] > plan["memory"]["weights"] > 354_823_168 * 4


def test_lists_name_recipes_tasks_methods(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for what, name in {"recipes": "quickstart", "tasks": "e2e", "methods": "prefix", "backbones": "bundled"}.items():
        assert call(["list", what], monkeypatch) == 0
        assert name in capsys.readouterr().out


def test_verify_finds_a_flipped_bit(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["run", str(place / "tiny.yaml"), "-q", "--out", str(tmp_path / "run")], monkeypatch) == 0
    file = tmp_path / "run" / "prompt" / "adapter_model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    capsys.readouterr()
    refused(["verify", str(file.parent)], 1, "bytes differ", monkeypatch=monkeypatch, capsys=capsys)


@pytest.mark.faults
def test_full_disk_ends_in_one_message_and_leaves_whole_files(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs privileges that this process lacks")
    try:
        more = ["method=finetune", "untuned=false", "train.epochs=3"]
        command = ["run", str(place / "tiny.yaml"), "-q", "--out", str(disk / "run"), *more]
        refused(command, 1, "space", monkeypatch=monkeypatch, capsys=capsys)
        assert not [path for path in (disk / "run").rglob("*.tmp")]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
