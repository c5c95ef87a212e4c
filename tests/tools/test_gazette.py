"""The bundled data set gazette: made by its generator, and kept apart from the pretraining data."""

import hashlib
import json
from pathlib import Path

import pytest

from tools.gazette.generate import SEEN, SIZES, UNSEEN, write

DATA = Path(__file__).parents[2] / "src" / "softprompt" / "assets" / "data" / "gazette"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gazette")
    write(out, seed=7)
    return out


def _lines(folder: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("split", sorted(SIZES))
def test_committed_files_are_the_generators_output(made: Path, split: str) -> None:
    digests = [hashlib.sha256((folder / f"{split}.jsonl").read_bytes()).hexdigest() for folder in (made, DATA)]
    assert digests[0] == digests[1], "run: python -m tools.gazette --out src/softprompt/assets/data/gazette --seed 7"


def test_another_seed_gives_other_data(made: Path, tmp_path: Path) -> None:
    write(tmp_path, seed=8)
    assert _lines(tmp_path, "dev") != _lines(made, "dev")


def test_sizes_categories_and_targets() -> None:
    for split, size in SIZES.items():
        lines = _lines(DATA, split)
        assert len(lines) == size
        for line in lines:
            assert len(set(line["targets"])) == len(line["targets"])
            assert len(line["targets"]) == 3 if split == "train" else len(line["targets"]) in (4, 5)
            assert line["seen"] == (line["category"] in SEEN)
            assert f"type : {line['category']}" in line["source"]
        unseen = sum(not line["seen"] for line in lines)
        assert unseen == (size // 2 if split == "test" else 0)
    assert {line["category"] for line in _lines(DATA, "test")} == {*SEEN, *UNSEEN}


def test_splits_share_no_source_and_no_name() -> None:
    names = [line["source"].split(" | ")[0] for split in SIZES for line in _lines(DATA, split)]
    assert len(set(names)) == len(names) == sum(SIZES.values())


def test_targets_name_the_record_and_are_sentences() -> None:
    for split in SIZES:
        for line in _lines(DATA, split):
            name = line["source"].split(" | ")[0].removeprefix("name : ")
            for target in line["targets"]:
                assert name in target
                assert target[0].isupper() or not target[0].isalpha()
                assert target.endswith(".") and "  " not in target and "{" not in target


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 2_000_000
