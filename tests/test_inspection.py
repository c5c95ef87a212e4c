"""`softprompt inspect`: the papers' parameter counts, printed without weights, and what a kept prompt is."""

import json
from pathlib import Path
from typing import Any

import factories
import pytest
from jobs import tiny_job
from typer.testing import CliRunner

from softprompt.attached import attach
from softprompt.backbone import Backbone
from softprompt.cli import app
from softprompt.config import load_recipe
from softprompt.errors import ConfigError
from softprompt.inspection import arm_counts, inspect_recipe
from softprompt.method_config import PrefixTuning

SEQ2SEQ = ["compare=null", "untuned=false", "decode.strategy=greedy"]
PAPERS = [
    # what, recipe, overrides, trained, stored
    ("prefix, GPT-2 medium, P=5", "e2e-gpt2-medium", [], 25_744_896, 245_760),
    ("prefix, GPT-2 medium, P=10", "e2e-gpt2-medium", ["method.length=10"], 25_739_776 + 10_240, 491_520),
    (
        "prefix, BART-large, three banks, P=200",
        "gazette",
        [
            *SEQ2SEQ,
            "backbone=facebook/bart-large",
            "method={name: prefix, length: 200, hidden: 800, reparam: mlp, init: random, init_text: null}",
        ],
        3 * (20_505_376 + 1024 * 200),
        14_745_600,
    ),
    (
        "prompt tuning, T5-base, P=100",
        "gazette",
        [*SEQ2SEQ, "backbone=t5-base", "method={name: prompt, length: 100}"],
        76_800,
        76_800,
    ),
    (
        "DePT, T5-base, m=40, s=256",
        "gazette",
        [*SEQ2SEQ, "backbone=t5-base", "method={name: dept, length: 40, text_length: 256}"],
        76_800,
        76_800,
    ),
]


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    result = CliRunner().invoke(app, ["inspect", *args], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize(("what", "recipe", "overrides", "trained", "stored"), PAPERS, ids=[row[0] for row in PAPERS])
def test_counts_of_the_papers(
    what: str, recipe: str, overrides: list[str], trained: int, stored: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(printed(capsys, recipe, *overrides, "--dry-run", "--json"))
    main = found["arms"][0]
    assert (main["trained"], main["stored"]) == (trained, stored)
    text = printed(capsys, recipe, *overrides, "--dry-run")
    assert f"{trained:,}" in text and f"{stored:,}" in text


@pytest.mark.parametrize("share", [0.03, 0.001])
def test_adapters_of_the_papers(share: float) -> None:
    """Li & Liang's 3% and 0.1% of GPT-2 medium: the widest bottleneck that stays below the share."""
    recipe = load_recipe("e2e-gpt2-medium", [f"method={{name: adapter, share: {share}}}"])
    (counts,) = arm_counts(recipe)
    each = 24 * (2 * 1024 + 1)
    assert share * counts.backbone - each < counts.trained <= share * counts.backbone
    assert counts.trained == 24 * ((2 * 1024 + 1) * {0.03: 214, 0.001: 5}[share] + 3 * 1024)


def test_every_arm_that_trains_is_counted() -> None:
    recipe = load_recipe("methods")
    counted = arm_counts(recipe)
    assert [counts.arm for counts in counted] == [arm for arm in recipe.arms() if arm not in ("untuned", "incontext")]
    assert counted[-1].trained == counted[-1].backbone
    assert {counts.arm: counts.room for counts in counted if counts.method == "prompt"} == {
        "embedding-only": 19,
        "prompt": 100,
    }


def test_a_whole_inspection_reads_weights_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, str(tiny_job(tmp_path)))
    assert "hash " in text and "train pairs" in text
    dry = printed(capsys, str(tiny_job(tmp_path)), "--dry-run")
    assert "hash" not in dry and "train pairs" not in dry


def test_the_hash_is_of_the_backbone_as_the_run_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantised weights have another hash; the run's own options reach the loading."""
    asked: list[dict[str, Any]] = []
    real = Backbone.load.__func__  # type: ignore[attr-defined]

    def spy(cls: type[Backbone], id: str, **options: Any) -> Backbone:
        asked.append(dict(options))
        found: Backbone = real(cls, id, **options | {"quantize": None, "device": "cpu"})
        return found

    monkeypatch.setattr(Backbone, "load", classmethod(spy))
    monkeypatch.setattr("softprompt.prepare.require_libraries", lambda *_: None)
    recipe = load_recipe(str(tiny_job(tmp_path)), ["backbone.quantize=8bit", "backbone.dtype=bfloat16"])
    assert inspect_recipe(recipe, whole=True)["hash"]
    assert asked[-1]["quantize"] == "8bit" and asked[-1]["dtype"] == "bfloat16"


def test_a_kept_prompt_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bone = factories.backbone("llama")
    attach(bone, PrefixTuning(length=3, hidden=8)).save(tmp_path / "run" / "prompt")
    for folder in (tmp_path / "run", tmp_path / "run" / "prompt"):
        text = printed(capsys, str(folder))
        assert "method: prefix" in text and "prompt_embeddings: 3 x 64" in text and "numbers: 192" in text
        assert f"llama (hash {bone.hash()[:12]})" in text
    assert json.loads(printed(capsys, str(tmp_path / "run"), "--json"))["tensors"] == {"prompt_embeddings": [3, 64]}
    with pytest.raises(ConfigError, match="a folder is read as it is"):
        printed(capsys, str(tmp_path / "run"), "--dry-run")
