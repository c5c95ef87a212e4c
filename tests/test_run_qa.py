"""Question answering through a whole run: trained on first answers, scored against all, predictions found by id."""

import json
from pathlib import Path

import pytest
from factories import backbone_folder

from softprompt.config import Recipe, load_recipe
from softprompt.errors import ConfigError
from softprompt.run import run_recipe


def squad_file(path: Path, count: int) -> Path:
    """`count` questions on one paragraph, all the same but for their ids, with two answers each."""
    answers = [{"text": "red inn", "answer_start": 8}, {"text": "the red inn", "answer_start": 4}]
    asked = [{"id": f"q{i}", "question": "which inn", "answers": answers} for i in range(count)]
    article = {"title": "t", "paragraphs": [{"context": "at the red inn", "qas": asked}]}
    path.write_text(json.dumps({"data": [article]}))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qa")
    backbone_folder(folder / "backbone")
    return folder


def recipe(place: Path, *more: str) -> Recipe:
    path = place / "qa.yaml"
    path.write_text(
        f"{{backbone: {place / 'backbone'}, method: {{name: prefix, length: 2, hidden: 8}}, untuned: false, "
        "train: {epochs: 1, batch_size: 2, precision: float32}, decode: {max_new_tokens: 3}}"
    )
    return load_recipe(str(path), more)


def test_run(place: Path, tmp_path: Path) -> None:
    train, dev = squad_file(tmp_path / "train.json", 4), squad_file(tmp_path / "dev.json", 3)
    asked = recipe(place, "data.task=squad", f"data.train={train}", f"data.dev={dev}")
    assert (asked.decode.strategy, asked.decode.max_new_tokens) == ("greedy", 3)
    (result,) = run_recipe(asked, tmp_path / "run", quiet=True)
    assert set(result.scores) == {"exact_match", "f1"}
    assert result.training is not None and result.training["steps"] == 2
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()]
    assert [row["meta"]["id"] for row in rows] == ["q0", "q1", "q2"]
    assert [row["references"] for row in rows] == [["red inn", "the red inn"]] * 3
    assert set(rows[0]) == {"source", "prediction", "references", "meta"}
    assert set(json.loads((tmp_path / "run" / "env.json").read_text())["data"]) == {str(train), str(dev)}


def test_a_task_without_a_training_part(place: Path, tmp_path: Path) -> None:
    """It is scored with nothing learned, and refused where something is to be learned."""
    test = squad_file(tmp_path / "test.json", 2)
    alone = ["data.task=xquad-en", f"data.test={test}"]
    for more in ([], ["untuned=true"]):
        with pytest.raises(ConfigError, match=r"data.train: .*the task 'xquad-en' has none.*method=untuned"):
            run_recipe(recipe(place, *alone, *more), tmp_path / "refused", quiet=True)
    assert not (tmp_path / "refused").exists()
    (result,) = run_recipe(recipe(place, *alone, "method=untuned"), tmp_path / "run", quiet=True)
    assert set(result.scores) == {"exact_match", "f1"}
