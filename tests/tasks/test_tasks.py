"""Task files: what they say, and that each is complete."""

from inspect import signature
from pathlib import Path

import pytest

from softprompt.config import DecodeConfig
from softprompt.data import READERS, SHAPES
from softprompt.errors import ConfigError
from softprompt.metrics import find_suite
from softprompt.tasks import list_tasks, load_task
from softprompt.template import parse_template


def test_all_tasks_are_complete() -> None:
    tasks = list_tasks()
    names = {task.name for task in tasks}
    assert {"e2e", "gazette", "webnlg", "dart", "xsum", "xsum-news-to-sports", "xsum-within-news", "scitldr"} <= names
    for task in tasks:
        assert task.title and task.citation and task.licence and task.suite
        assert task.source.kind in READERS and set(task.source.files) <= {"train", "dev", "test"}
        assert task.source.shape is None or task.source.shape in SHAPES
        signature(READERS[task.source.kind]).bind(Path(), **task.source.options)
        find_suite(task.suite)
        assert task.source.files.keys() & {"train", "test"}
        for wording in task.templates.values():
            if wording.references is not None:
                assert parse_template(wording.references, "x").columns
            assert parse_template(wording.input, "x").columns and parse_template(wording.target, "x").columns
        DecodeConfig.model_validate(dict(task.decode))


def test_e2e() -> None:
    task = load_task("e2e")
    counts = {split: (count.pairs, count.sources) for split, count in task.counts.items()}
    assert counts == {"train": (42061, 4862), "dev": (4672, 547), "test": (4693, 630)}
    assert task.mean_tokens is not None and (task.mean_tokens.source, task.mean_tokens.target) == (28.5, 27.8)


def test_decode_settings_of_another_strategy_are_left_out() -> None:
    task = load_task("e2e")
    assert task.decode_for(None) == task.decode_for("beam") == dict(task.decode)
    assert task.decode_for("greedy") == {"max_new_tokens": 100, "ban_newline": True}


@pytest.mark.parametrize("name", ["e2", "../e2e", "", "a" * 9999])
def test_unknown(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown task .*Expected one of: dart, e2e, gazette"):
        load_task(name)
