"""The official files, where a neighbouring folder `shared` holds them: every row is read, and as many as published."""

from pathlib import Path

import pytest
from archives import unpacked

from softprompt.config import DataConfig
from softprompt.data import load
from softprompt.data.rows import read_rows
from softprompt.tasks import load_task

FILES = {
    # (task, archive, folder in it): file -> rows. A split's whole size is the task's own count.
    ("glue-cola", "glue", "CoLA/raw"): {
        "in_domain_train.tsv": 8_551, "in_domain_dev.tsv": 527, "out_of_domain_dev.tsv": 516,
    },
    ("glue-sst2", "glue", "SST-2"): {"train.tsv": 67_349, "dev.tsv": 872, "test-labeled.tsv": 1_821},
    ("glue-mrpc", "glue", "MRPC"): {"msr_paraphrase_train.txt": 4_076, "msr_paraphrase_test.txt": 1_725},
    ("glue-stsb", "glue", "STS-B"): {"sts-train.csv": 5_749, "sts-dev.csv": 1_500, "sts-test.csv": 1_379},
    ("glue-qnli", "glue", "QNLI"): {"dev.tsv": 5_463},
    ("superglue-boolq", "superglue", "BoolQ"): {"dev.jsonl": 3_270, "train_part.jsonl": 1_886},
    ("superglue-cb", "superglue", "CB"): {"train.jsonl": 250, "val.jsonl": 56},
    ("superglue-copa", "superglue", "COPA"): {
        "pet_train.jsonl": 368, "pet_unlabeled.jsonl": 32, "pet_val.jsonl": 100,
    },
    ("superglue-rte", "superglue", "RTE"): {"train.jsonl": 2_490, "val.jsonl": 277},
    ("superglue-wic", "superglue", "WiC"): {"train.jsonl": 5_428},
    ("superglue-wsc", "superglue", "WSC"): {"train.jsonl": 554, "val.jsonl": 104},
    ("winogrande", "winogrande", "."): {
        "train_xs.jsonl": 160, "train_s.jsonl": 640, "train_m.jsonl": 2_558, "train_l.jsonl": 10_234,
        "dev.jsonl": 1_267,
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "archive", "folder"), FILES, ids=lambda value: value)
def test_every_row_is_read(name: str, archive: str, folder: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = unpacked(archive, tmp_path_factory) / folder
    task, counts = load_task(name), FILES[name, archive, folder]
    for file, wanted in counts.items():
        assert sum(1 for _ in read_rows([place / file], task.source, task.template, ("input", "target"))) == wanted
    whole = [split for split in task.source.files if set(task.source.names(split)) <= counts.keys()]
    for split in whole:
        assert sum(counts[file] for file in task.source.names(split)) == task.counts[split].sources


def test_record(tmp_path_factory: pytest.TempPathFactory) -> None:
    """32 of its training rows: all answers are among the entities that are shown."""
    task = load_task("superglue-record")
    path = unpacked("superglue", tmp_path_factory) / "FewGLUE" / "ReCoRD" / "train.jsonl"
    rows = list(read_rows([path], task.source, task.template, ("input", "target")))
    assert len(rows) == 32
    for row in rows:
        entities = row.source.partition(" entities: ")[2].partition(" passage: ")[0].split(", ")
        assert set(row.targets) <= set(entities) and "@highlight" not in row.source


def test_cola_and_its_halves(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = DataConfig(task="glue-cola", dir=unpacked("glue", tmp_path_factory) / "CoLA" / "raw")
    splits = load(data, 1)
    assert [len(part) for part in (splits.train, splits.dev, splits.test)] == [8_551, 521, 522]
    native = load(data.model_copy(update={"split": "native", "template": "t5"}), 1)
    assert len(native.dev) == 1_043 and native.dev == native.test
    assert {target for example in native.dev for target in example.targets} == {"acceptable", "unacceptable"}


def test_mrpc_and_stsb(tmp_path_factory: pytest.TempPathFactory) -> None:
    place = unpacked("glue", tmp_path_factory)
    mrpc = load(DataConfig(task="glue-mrpc", dir=place / "MRPC"), 1)
    assert [len(part) for part in (mrpc.train, mrpc.dev, mrpc.test)] == [3_668, 408, 1_725]
    stsb = load(DataConfig(task="glue-stsb", dir=place / "STS-B", shots=16), 1)
    assert len(stsb.train) == 16 and sum(float(pair.targets[0]) > 2.5 for pair in stsb.train) == 8
    assert len(stsb.test) == 1_379
    assert (
        len({pair.targets for pair in load(DataConfig(task="glue-stsb", dir=place / "STS-B", template="t5"), 1).dev})
        <= 26
    )


def test_winogrande_shows_both_options(tmp_path_factory: pytest.TempPathFactory) -> None:
    task = load_task("winogrande")
    place = Path(unpacked("winogrande", tmp_path_factory))
    for row in read_rows([place / "dev.jsonl"], task.source, task.template, ("input", "target")):
        options = row.source.rpartition(" option0: ")[2].split(" option1: ")
        assert len(options) == 2 and options[0] != options[1]
