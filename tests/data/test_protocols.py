"""A recipe's data settings carried out: policies, low data, shots, hold-out, another task's test, own labels."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from softprompt.config import DataConfig
from softprompt.data import identity, label_words, load, origins, policy_of
from softprompt.errors import ConfigError, DataError

HEAD = {
    "glue-mrpc": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "glue-qqp": "id\tquestion1\tquestion2\tis_duplicate",
}


def mrpc(folder: Path, rows: int) -> Path:
    lines = [HEAD["glue-mrpc"], *(f"{number % 2}\t1\t2\ta{number}\tb{number}" for number in range(rows))]
    path = folder / f"mrpc{rows}.tsv"
    path.write_text("\n".join(lines))
    return path


def qqp(folder: Path, rows: int) -> Path:
    lines = [HEAD["glue-qqp"], *(f"{number}\tq{number}\tr{number}\t{number % 2}" for number in range(rows))]
    path = folder / f"qqp{rows}.tsv"
    path.write_text("\n".join(lines))
    return path


def own(folder: Path, name: str = "a.jsonl", rows: int = 40, **columns: Any) -> Path:
    path = folder / name
    made = [{"text": f"t{n}", "label": n % 2, "topic": "xy"[n % 2], **columns} for n in range(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def settings(**given: Any) -> DataConfig:
    labels = {"column": "label", "words": {"0": "bad", "1": "good"}}
    return DataConfig.model_validate({"input": "{text}", "target": "{label}", "labels": labels, **given})


def sizes(data: DataConfig, seed: int = 1) -> tuple[int, int, int]:
    splits = load(data, seed)
    return len(splits.train), len(splits.dev), len(splits.test)


def test_own_labels(tmp_path: Path) -> None:
    data = settings(train=own(tmp_path))
    assert label_words(data) == ("bad", "good")
    assert [example.targets for example in load(data, 1).train[:2]] == [("bad",), ("good",)]
    path = tmp_path / "b.csv"
    path.write_text("text,label\nx,0\ny,2\n")
    with pytest.raises(
        DataError, match=r"b.csv:3: expected a label out of '0' \(bad\), '1' \(good\) in column 'label'"
    ):
        load(settings(train=path), 1)
    path.write_text("text,lable\nx,0\n")
    with pytest.raises(DataError, match=r"b.csv:2: expected a column 'label'; nearest: 'lable'"):
        load(settings(train=path), 1)


def test_rows_of_one_source_stay_apart_where_labels_are_learned(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text("text,label\nx,0\nx,0\nx,1\n")
    assert [e.targets for e in load(settings(train=path, dev=path), 1).dev] == [("bad",), ("bad",), ("good",)]
    alike = load(DataConfig(train=path, dev=path, input="{text}", target="{label}"), 1).dev
    assert [e.targets for e in alike] == [("0", "0", "1")]


def test_policies(tmp_path: Path) -> None:
    train, dev = own(tmp_path), own(tmp_path, "dev.jsonl", rows=9)
    assert sizes(settings(train=train, dev=dev)) == (40, 9, 9)
    assert sizes(settings(train=train, dev=dev, split="half_validation")) == (40, 4, 5)
    taken = settings(train=train, dev=dev, split="dev_from_train", dev_size=10)
    assert sizes(taken) == (30, 10, 9)
    assert load(taken, 1) == load(taken, 2), "the recipe's seed plays no part"
    assert sizes(settings(train=train, test=dev, split="dev_from_train", dev_size=10)) == (30, 10, 9)
    assert sizes(settings(train=train, split="dev_from_train", dev_size=10)) == (30, 10, 10)
    with pytest.raises(DataError, match="more than 1,000 training rows"):
        load(settings(train=train, dev=dev, split="dev_from_train"), 1)
    with pytest.raises(ConfigError, match="half_validation makes dev and test out of a dev file"):
        load(settings(train=train, split="half_validation"), 1)
    with pytest.raises(ConfigError, match="dev_size has no effect with split native"):
        load(settings(train=train, dev_size=10), 1)


def test_a_tasks_own_policy_and_that_of_the_recipe(tmp_path: Path) -> None:
    train, test = mrpc(tmp_path, 500), mrpc(tmp_path, 20)
    data = DataConfig(task="glue-mrpc", train=train, test=test)
    assert policy_of(data) == "dev_from_train" and sizes(data) == (92, 408, 20)
    assert sizes(data.model_copy(update={"split": "native"})) == (500, 0, 20)
    assert label_words(data) == ("0", "1")
    t5 = data.model_copy(update={"template": "t5"})
    assert label_words(t5) == ("not_equivalent", "equivalent")
    assert load(t5, 1).test[1].targets == ("equivalent",)
    with pytest.raises(
        ConfigError, match=r"data.template: the task 'glue-mrpc' has no template 'dep'; nearest: 'dept'"
    ):
        load(data.model_copy(update={"template": "dep"}), 1)


def test_a_split_of_several_files_and_one_that_is_not_read(tmp_path: Path) -> None:
    for name in ("in_domain_train.tsv", "in_domain_dev.tsv", "out_of_domain_dev.tsv"):
        (tmp_path / name).write_text("a\t1\t\tGood.\n")
    data = DataConfig(task="glue-cola", dir=tmp_path)
    assert [path.name for path in origins(data)["dev"]] == ["in_domain_dev.tsv", "out_of_domain_dev.tsv"]
    assert [split for split, _, _ in identity(data)] == ["train", "dev", "dev"]
    with pytest.raises(DataError, match=r"in_domain_train.tsv: expected the glue-cola train file of 8,551 pairs"):
        load(data, 1)
    half = DataConfig(task="glue-stsb", dir=tmp_path, split="half_validation")
    with pytest.raises(ConfigError, match=r"lacks sts-train.csv, sts-dev.csv; it holds"):
        load(half, 1)


def test_low_data_and_shots(tmp_path: Path) -> None:
    train, dev = own(tmp_path), own(tmp_path, "dev.jsonl", rows=12)
    assert sizes(settings(train=train, dev=dev, low_data=20)) == (20, 6, 12)
    assert sizes(settings(train=train, low_data=20)) == (20, 6, 6)
    picked = load(settings(train=train, dev=dev, shots=8, subset=2), 1)
    assert sorted(pair.targets[0] for pair in picked.train) == ["bad"] * 4 + ["good"] * 4
    assert picked == load(settings(train=train, dev=dev, shots=8, subset=2), 7)
    assert picked.train != load(settings(train=train, dev=dev, shots=8), 1).train


def test_hold_out_by_a_column_that_the_template_uses(tmp_path: Path) -> None:
    path = own(tmp_path)
    data = settings(train=path, dev=path, hold_out={"field": "topic", "values": ["y"]}, input="{text} on {topic}")
    assert sizes(data) == (20, 20, 20)
    assert {example.meta["topic"] for example in load(data, 1).test} == {"y"}
    number = settings(
        train=path, hold_out={"field": "label", "values": ["1"]}, keep={"field": "topic", "values": ["x"]}
    )
    assert sizes(number) == (20, 0, 20)


def test_another_tasks_test_with_its_labels_by_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softprompt.data._check_counts", lambda *arguments: None)
    other = tmp_path / "mrpc"
    other.mkdir()
    mrpc(other, 500).rename(other / "msr_paraphrase_train.txt")
    mrpc(other, 4).rename(other / "msr_paraphrase_test.txt")
    train = qqp(tmp_path, 30)
    data = DataConfig(
        task="glue-qqp", template="t5", train=train, dev=train, split="native", test_task="glue-mrpc", test_dir=other
    )
    splits = load(data, 1)
    assert [(e.source, e.targets) for e in splits.test[:2]] == [
        ("sentence1: a0 sentence2: b0", ("not_duplicate",)),
        ("sentence1: a1 sentence2: b1", ("duplicate",)),
    ]
    assert splits.dev[0].source == "question1: q0 question2: r0" and len(splits.test) == 4
    assert [path.name for path in origins(data)["test"]] == ["msr_paraphrase_test.txt"]
    labels = {"column": "is_duplicate", "words": {"0": "no", "1": "yes"}}
    renamed = DataConfig.model_validate(
        {**data.model_dump(), "template": None, "labels": {**labels, "column": "label"}}
    )
    assert [e.targets for e in load(renamed, 1).test[:2]] == [("no",), ("yes",)]
    no_labels = DataConfig(
        train=train, input="{question1}", target="{is_duplicate}", test_task="glue-mrpc", test_dir=other
    )
    with pytest.raises(
        ConfigError, match=r"labels correspond to this one's \(no labels\), got glue-mrpc with '0', '1'"
    ):
        load(no_labels, 1)


def test_labels_of_the_same_words_correspond_by_the_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WNLI's first label is not_entailment, RTE's is entailment. Of RTE's validation, its policy tests on a half."""
    monkeypatch.setattr("softprompt.data._check_counts", lambda *arguments: None)
    rows = [{"premise": f"p{n}", "hypothesis": "h", "label": "entailment"} for n in range(7)]
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = tmp_path / "wnli.tsv"
    train.write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\t0\n")
    given = {"task": "glue-wnli", "template": "t5", "train": train, "dev": train, "split": "native"}
    splits = load(DataConfig(**given, test_task="superglue-rte", test_dir=tmp_path), 1)
    assert splits.train[0].targets == ("not_entailment",)
    assert len(splits.test) == 4 and {example.targets for example in splits.test} == {("entailment",)}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"subset": 1}, "data.subset numbers the draws"),
        ({"low_data": 50, "shots": 4}, "data.low_data and data.shots exclude each other"),
        ({"test_dir": "x"}, "data.test_dir is the folder of test_task's files"),
        ({"template": "t5"}, "data.template is one of a task's templates"),
        ({"test": "a", "test_task": "e2e"}, "data.test and data.test_task exclude each other"),
        ({"test": "a", "split": "half_validation"}, "makes the test split out of dev"),
        ({"split": "native", "dev_size": 5}, "data.dev_size has no effect"),
        ({"hold_out": {"field": "a", "values": []}}, "at least 1"),
        ({"hold_out": {"feild": "a", "values": ["b"]}}, "hold_out.feild"),
        ({"labels": {"column": "a", "words": {}}}, "at least 1"),
    ],
)
def test_settings_without_effect_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DataConfig.model_validate({"train": "a.csv", **given})
    assert words in str(caught.value)
