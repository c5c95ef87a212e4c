"""`softprompt scale`: what it predicts is what small real jobs do, to the byte, and its page is current."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import factories
import pytest
import scale_bodies
import torch
from typer.testing import CliRunner
from worlds import together

import softprompt.cli
from softprompt.errors import ConfigError, DataError
from softprompt.footprint import full_batch, measure, weightless
from softprompt.method_config import METHOD_CONFIGS, PrefixTuning, PromptTuning
from softprompt.methods import METHODS
from softprompt.scale import costs, layout
from softprompt.scale_page import checks, memory_rows, scale_page, sending_rows
from softprompt.scale_setting import BACKBONES, Setting, make_setting
from softprompt.scale_setting import METHODS as COUNTED
from softprompt.table import as_markdown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scale.md"
KEPT = json.loads((files("softprompt") / "assets" / "scale.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("number", "job"), list(enumerate(scale_bodies.JOBS)), ids=[kept["job"] for kept in KEPT])
def test_a_real_job_sends_and_keeps_what_is_predicted(number: int, job: Any, tmp_path: Path) -> None:
    """If the last line fails alone: python benchmarks/scale.py > src/softprompt/assets/scale.json, and the page."""
    measured, predicted = scale_bodies.measured(job), scale_bodies.predicted(job, tmp_path)
    assert {name: count for name, count in measured.items() if count is not None} == {
        name: predicted[name] for name, count in measured.items() if count is not None
    }
    assert KEPT[number]["measured"] == measured and KEPT[number]["predicted"] == predicted


@pytest.mark.parametrize(("family", "size"), [("gpt2", 2), ("gpt2", 3), ("t5", 4), ("llama", 4)])
def test_every_process_of_a_real_job_has_the_part_that_the_pretended_one_has(
    family: str, size: int, tmp_path: Path
) -> None:
    factories.model(family).config.save_pretrained(tmp_path)
    pretended = [layout(str(tmp_path), size, 4, rank).parts for rank in range(size)]
    assert together(size, scale_bodies.parts_of, family) == pretended
    assert all(sum(parts.values()) <= sum(pretended[0].values()) for parts in pretended)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", [PrefixTuning(length=5), PrefixTuning(length=3, reparam="none"), PromptTuning()])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "t5_v1_1", "bart"])
def test_a_step_without_memory_is_the_step(family: str, method: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    """As many operations, and the same bytes kept."""
    real = factories.backbone(family, **({"max_position_embeddings": 256} if family == "bart" else {}))
    real.model.config.save_pretrained(tmp_path)
    real.model.to(dtype)
    if family in ("llama", "qwen2"):  # as loading has it: buffers stay in float32
        real.model.model.rotary_emb.float()
    made = METHODS[method.name](real, method)
    bone, planned = weightless(str(tmp_path), method, dtype)
    shape = {"rows": 3, "source": 9, "target": 7}
    assert measure(bone, planned, full_batch(bone, planned, **shape)) == measure(
        real, made, full_batch(real, made, **shape)
    )


def test_a_step_of_known_size() -> None:
    """Llama-2 7B: two operations a weight and token forward, and two backward, since no weight has a gradient."""
    setting = Setting(("prompt",), (5,), (8,), rows=1, source=50, target=9)
    (whole, split) = costs("meta-llama/Llama-2-7b-hf", setting)
    blocks, head = 32 * (4 * 4096**2 + 3 * 4096 * 11008), 4096 * 32000
    matrices = 4 * (64 * blocks + 9 * head)
    assert matrices < whole.flops < 1.01 * matrices  # attention is the rest
    assert whole.trained == 5 * 4096 and whole.summed == 4 * 5 * 4096 + 8 + 16 + 8
    assert whole.memory["weights"] == 2 * 6_738_415_616 and split.memory["weights"] * 8 == whole.memory["weights"]
    assert split.gathered == 2 * (2 * (blocks + 64 * 4096) + 2 * head + 4096)
    assert split.sent_gathering == split.gathered * 7 / 8 and whole.sent_summing == 2 * whole.summed * 7 / 8
    fast = replace(setting, bandwidth=1e30, device_flops=1.0)
    assert costs("meta-llama/Llama-2-7b-hf", fast)[1].bound_seconds == pytest.approx(split.flops)


def test_the_page_is_current() -> None:
    """If not: softprompt scale --markdown > docs/scale.md (minutes). Here its text, and one line of each table."""
    page = PAGE.read_text(encoding="utf-8")
    setting = Setting()
    assert page.startswith(scale_page({}, setting).split("\n## gpt2")[0].split("\n## Checked")[0].rstrip())
    assert page.endswith(checks())
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")][1:-1] == list(BACKBONES)
    found = costs(BACKBONES[0], replace(setting, lengths=(5,)))
    for rows in (memory_rows(found, setting), sending_rows(found)):
        assert set(as_markdown(rows).splitlines()) <= set(page.splitlines())


@pytest.mark.slow
def test_the_whole_page_is_current() -> None:
    setting = Setting()
    assert PAGE.read_text(encoding="utf-8") == scale_page({id: costs(id, setting) for id in BACKBONES}, setting)


def test_the_command(tmp_path: Path) -> None:
    factories.model("gpt2").config.save_pretrained(tmp_path)
    words = ["scale", str(tmp_path), "--method", "prompt", "--length", "2,3", "--processes", "2", "--source", "5"]
    call = CliRunner().invoke
    text = call(softprompt.cli.app, words, catch_exceptions=False).stdout
    assert "split over 2" in text and "5 source and 64 target tokens" in text
    found = json.loads(call(softprompt.cli.app, [*words, "--json"], catch_exceptions=False).stdout)
    assert found["setting"]["source"] == 5
    (counted,) = found["backbones"].values()
    assert [(cost["length"], cost["split"]) for cost in counted] == [(2, False), (2, True), (3, False), (3, True)]
    assert call(softprompt.cli.app, [*words, "--markdown"], catch_exceptions=False).stdout.startswith("# Scale")
    with pytest.raises(ConfigError, match="--json or --markdown, got both"):
        call(softprompt.cli.app, [*words, "--json", "--markdown"], catch_exceptions=False)
    with pytest.raises(DataError, match="1 of 1 rows are longer than the backbone's window"):
        call(softprompt.cli.app, [*words, "--target", "200"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": "lora"}, r"expected a method with a length \(prefix, prompt, dept\), got 'lora'"),
        ({"lengths": "5,x"}, r"lengths: expected whole numbers from 1 .* got 'x'. Change --length"),
        ({"processes": "1"}, r"processes: expected whole numbers from 2 .* got '1'. Change --processes"),
        ({"dtype": "int8"}, "expected one of bfloat16, float32, got 'int8'"),
        ({"device_flops": 0.0}, "device-flops: expected a number above 0"),
        ({"rows": -1}, "rows: expected a number above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_setting(**given)


def test_all_methods_with_a_length_can_be_counted() -> None:
    assert set(COUNTED) == {name for name in METHODS if "length" in METHOD_CONFIGS[name].model_fields}
