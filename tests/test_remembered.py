"""`load(RUN)` does what the run did: its decoding, its label words, its seed, on its backbone."""

import json
import re
import shutil
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from jobs import tiny_job

from softprompt import Backbone, load
from softprompt.artefact import FACTS
from softprompt.batch import encode_targets
from softprompt.config import load_recipe
from softprompt.errors import ConfigError
from softprompt.files import write_manifest
from softprompt.report import write_card
from softprompt.run import run_recipe

LABELS = ["red inn", "old bank"]
WAYS: dict[str, list[str]] = {
    "beams and lengths": [
        "decode.beams=3",
        "decode.length_penalty=0.3",
        "decode.min_new_tokens=3",
        "decode.max_new_tokens=8",
    ],
    "greedy": ["decode={strategy: greedy, max_new_tokens: 7, ban_newline: false}"],
    "sampled": ["decode={strategy: sample, top_k: 20, max_new_tokens: 6}", "seed=7"],
    "labels": ["decode={labels: true, strategy: greedy, max_new_tokens: 12}"],
    "labels by beam": ["decode={labels: true, length_penalty: 0.5, max_new_tokens: 12}"],
}


def ran(place: Path, *overrides: str, labelled: bool = False) -> tuple[Path, list[dict[str, Any]]]:
    """A finished tiny run and its predictions."""
    path = tiny_job(place, "untuned: false")
    path.write_text(path.read_text().replace("decode: {beams: 2, max_new_tokens: 5}\n", ""))
    if labelled:
        for file in (place / "train.jsonl", place / "dev.jsonl"):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            rows = [row | {"target": LABELS[number % 2]} for number, row in enumerate(rows)]
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = f"data.test={place / 'dev.jsonl'}"
    run_recipe(load_recipe(str(path), [data, "train.max_steps=2", *overrides]), place / "run", quiet=True)
    lines = (place / "run" / "predictions" / "test.jsonl").read_text().splitlines()
    return place / "run", [json.loads(line) for line in lines]


@pytest.mark.parametrize("way", WAYS)
def test_load_of_a_run_decodes_as_the_run_did(way: str, tmp_path: Path) -> None:
    run, rows = ran(tmp_path, *WAYS[way], labelled="labels" in way)
    bone = Backbone.load(str(tmp_path / "backbone"))
    sources, want = [row["source"] for row in rows], [row["prediction"] for row in rows]
    shutil.copytree(run / "prompt", tmp_path / "copied")
    assert load(bone, run).generate(sources) == want
    assert load(bone, tmp_path / "copied").generate(sources) == want
    assert load(run).generate(sources) == want
    facts = json.loads((run / "prompt" / FACTS).read_text())  # as version 0.1.0 left it
    del facts["decode"]
    facts.pop("labels", None)
    (run / "prompt" / FACTS).write_text(json.dumps(facts))
    write_manifest(run / "prompt")
    assert load(bone, run).generate(sources) == want


@pytest.mark.parametrize("method", ["finetune", "lora", "adapter"])
def test_so_it_is_for_every_method_and_arm(method: str, tmp_path: Path) -> None:
    arm = f"compare={{other: {{method: {{name: {method}{', bottleneck: 2' if method == 'adapter' else ''}}}}}}}"
    run, _ = ran(tmp_path, arm, "decode={beams: 3, max_new_tokens: 6}")
    place = run / "arms" / "other"
    rows = [json.loads(line) for line in (place / "predictions" / "test.jsonl").read_text().splitlines()]
    assert load(place).generate([row["source"] for row in rows]) == [row["prediction"] for row in rows]


def test_options_override_what_the_run_did(tmp_path: Path) -> None:
    run, rows = ran(tmp_path, *WAYS["labels"], labelled=True)
    model, sources = load(run), [row["source"] for row in rows]
    assert set(model.generate(sources)) <= set(LABELS)
    assert set(model.generate(sources, labels=["tea", "cold pie"])) <= {"tea", "cold pie"}
    free = model.generate(sources, labels=[], max_new_tokens=5)
    assert free == model.generate(sources, labels=[], strategy="greedy", max_new_tokens=5)
    assert not set(free) & set(LABELS)
    beams = model.generate(sources, labels=[], strategy="beam", beams=2, max_new_tokens=5)
    assert len(beams) == len(sources)
    with pytest.raises(ConfigError, match=r"generate\(beam_size=3\)"):
        model.generate(sources, beam_size=3)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bart", "t5"])
def test_the_cards_own_example_decodes_as_the_run_did(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(str(tiny_job(tmp_path, architecture=name)), ["train.max_steps=1", "untuned=false"])
    write_card(recipe, tmp_path / "run", run_recipe(recipe, tmp_path / "run", quiet=True))
    card = (tmp_path / "run" / "README.md").read_text()
    (use,) = [block for block in re.findall(r"```python\n(.*?)```", card, re.S) if "softprompt.load" in block]
    row = json.loads((tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()[0])
    said = StringIO()
    with chdir(tmp_path / "run"), redirect_stdout(said):
        exec(use.replace('"name : ... | area : ..."', json.dumps(row["source"])), {})
    assert said.getvalue() == row["prediction"] + "\n"


def test_load_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match=r"load\(Backbone.load"):
        load("bundled", "runs/x")


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_the_card_says_how_a_text_is_framed(name: str, tmp_path: Path) -> None:
    """Its code gives the ids that decoding sees, and the words beside it say the same of the tokenizer alone."""
    recipe = load_recipe(str(tiny_job(tmp_path, architecture=name)), ["train.max_steps=1", "untuned=false"])
    write_card(recipe, tmp_path / "run", run_recipe(recipe, tmp_path / "run", quiet=True))
    card = (tmp_path / "run" / "README.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", card, re.S) if "encode_sources" in block]
    bone, space = Backbone.load(str(tmp_path / "backbone")), dict[str, Any]()
    space["backbone"], source = bone, "the red old inn"
    exec(code.replace("name : ... | area : ...", source), space)
    alone = bone.tokenizer(f" {source} ")["input_ids"] + [bone.tokenizer.eos_token_id]
    assert list(space["ids"]) == (alone if bone.family == "causal" else bone.tokenizer(source)["input_ids"])
    assert space["end"] == encode_targets(bone, ["tea"])[0][-1]
    assert '" " + source + " "' in card
