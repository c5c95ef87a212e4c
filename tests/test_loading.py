"""A backbone's folder: whole or refused, whatever is broken in it is one error of ours, and its code is never run."""

import io
import json
import pickle
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from jobs import tiny_job
from safetensors.torch import load_file, save_file

from softprompt.backbone import Backbone
from softprompt.config import load_recipe
from softprompt.errors import BackboneError
from softprompt.plan import dry_run
from softprompt.run import run_recipe

HOSTILE = Path(__file__).parents[2] / "shared" / "cases" / "hostile" / "backbone_remote_code"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factories.backbone_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "backbone"))


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "name", ["transformer.h.1.attn.c_attn.weight", "transformer.ln_f.bias", "transformer.wte.weight"]
)
def test_a_weight_that_is_missing_is_not_drawn_at_random(folder: Path, name: str) -> None:
    change_weights(folder, lambda tensors: tensors.pop(name))
    with pytest.raises(BackboneError, match=rf"expected every weight in its files, got \d missing, .*{name}"):
        Backbone.load(str(folder))


def test_blocks_that_are_missing_are_not_drawn_at_random(folder: Path) -> None:
    change_json(folder / "config.json", n_layer=4)
    with pytest.raises(BackboneError, match=r"got 24 missing, first transformer\.h\.2\."):
        Backbone.load(str(folder))


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({"transformer.ln_f.bias": torch.zeros(5)}))
    with pytest.raises(BackboneError, match="could not be loaded"):
        Backbone.load(str(folder))


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "t5", "t5_v1_1", "bart"])
def test_weights_that_are_tied_are_in_the_file_once(name: str, tmp_path: Path) -> None:
    model = factories.model(name)
    model.save_pretrained(tmp_path)
    factories.tokenizer().save_pretrained(tmp_path)
    assert Backbone.load(str(tmp_path)).parameter_count() == model.num_parameters()


def test_blocks_that_a_config_leaves_out_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_json(folder / "config.json", n_layer=1)
    Backbone.load(str(folder))
    assert re.search(r"1\d weights of its files are not used, first transformer\.h\.1\.", capsys.readouterr().err)


def test_another_head_beside_the_backbone_is_nobodys_business(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_weights(folder, lambda tensors: tensors.update({"score.weight": torch.zeros(2, 32)}))
    Backbone.load(str(folder))
    assert capsys.readouterr().err == ""


def test_a_run_with_missing_weights_trains_nothing(tmp_path: Path) -> None:
    recipe = load_recipe(str(tiny_job(tmp_path)))
    change_weights(tmp_path / "backbone", lambda tensors: tensors.pop("transformer.ln_f.bias"))
    with pytest.raises(BackboneError, match="expected every weight"):
        run_recipe(recipe, tmp_path / "run", quiet=True)
    assert not list((tmp_path / "run").rglob("step-*"))


def code_of_its_own(folder: Path, config: str, **auto_map: str) -> None:
    """Code that leaves a mark where it is run, and a file that asks for it."""
    code = "from pathlib import Path\nPath(__file__).with_name('was-run').touch()\nraise SystemExit('run')\n"
    (folder / "evil.py").write_text(code)
    changes: dict[str, Any] = {"auto_map": auto_map}
    if config == "config.json":
        changes["model_type"] = "evil"
    else:
        changes["tokenizer_class"] = "EvilTokenizer"
    change_json(folder / config, **changes)


@pytest.mark.parametrize(
    ("config", "auto_map"),
    [
        ("config.json", {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]}),
    ],
)
def test_code_in_a_folder_is_not_run_and_nobody_is_asked(
    folder: Path, config: str, auto_map: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code_of_its_own(folder, config, **auto_map)
    monkeypatch.setattr("builtins.input", lambda *given: pytest.fail("a question was asked"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    for read in (Backbone.load, lambda id: Backbone.plan(id, tokenizer=True)):
        try:
            read(str(folder))
        except BackboneError as error:
            assert "code of its own, which is never run" in str(error)
        else:
            assert config == "tokenizer_config.json"  # transformers has a class of its own for it, and takes that
    assert not list(folder.rglob("was-run"))


def test_the_hostile_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not HOSTILE.is_dir():
        pytest.skip("the hostile folders are not beside this checkout")
    shutil.copytree(HOSTILE, folder, dirs_exist_ok=True)
    monkeypatch.setattr("builtins.input", lambda *given: "y")
    for read in (Backbone.load, Backbone.plan):
        with pytest.raises(BackboneError, match="code of its own"):
            read(str(folder))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def pickled(folder: Path) -> None:
    """pytorch_model.bin that would call something."""
    (folder / WEIGHTS).unlink()

    class Call:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (folder / "was-run",))

    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Call()))
        archive.writestr("archive/version", "3")


BROKEN: dict[str, Callable[[Path], Any]] = {
    "weights cut": lambda folder: cut(folder / WEIGHTS, 1000),
    "weights cut at their end": lambda folder: cut(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 10),
    "weights empty": lambda folder: cut(folder / WEIGHTS, 0),
    "weights garbage": lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 4000),
    "weights a folder": lambda folder: ((folder / WEIGHTS).unlink(), (folder / WEIGHTS).mkdir()),
    "weights gone": lambda folder: (folder / WEIGHTS).unlink(),
    "weights pickled": pickled,
    "weights no archive": lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin"),
    "other vocabulary": lambda folder: change_json(folder / "config.json", vocab_size=99),
    "wrong type": lambda folder: change_json(folder / "config.json", n_embd="wide"),
    "null": lambda folder: change_json(folder / "config.json", n_embd=None),
    "list": lambda folder: change_json(folder / "config.json", n_layer=[2]),
    "no heads": lambda folder: change_json(folder / "config.json", n_head=0),
    "negative": lambda folder: change_json(folder / "config.json", n_layer=-3, n_embd=-32),
    "heads that do not divide": lambda folder: change_json(folder / "config.json", n_head=5),
    "unknown activation": lambda folder: change_json(folder / "config.json", activation_function="none such"),
    "unknown model": lambda folder: change_json(folder / "config.json", model_type="none such"),
    "unknown dtype": lambda folder: change_json(folder / "config.json", dtype="float1000"),
    "config a list": lambda folder: (folder / "config.json").write_text("[]"),
    "config null": lambda folder: (folder / "config.json").write_text("null"),
    "config no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "config no text": lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"),
    "config deep": lambda folder: (folder / "config.json").write_text('{"a":' * 100_000),
    "config gone": lambda folder: (folder / "config.json").unlink(),
    "tokenizer a list": lambda folder: (folder / "tokenizer.json").write_text("[]"),
    "tokenizer without a vocabulary": lambda folder: change_json(folder / "tokenizer.json", model={"type": "BPE"}),
    "tokenizer null": lambda folder: (folder / "tokenizer.json").write_text("null"),
    "tokenizer deep": lambda folder: (folder / "tokenizer.json").write_text('{"a":' * 100_000),
    "tokenizer cut": lambda folder: cut(folder / "tokenizer.json", 300),
    "tokenizer config a list": lambda folder: (folder / "tokenizer_config.json").write_text("[]"),
    "tokenizer class a number": lambda folder: change_json(folder / "tokenizer_config.json", tokenizer_class=7),
    "end of text a list": lambda folder: change_json(folder / "tokenizer_config.json", eos_token=[1]),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_folder_is_an_error_of_ours(folder: Path, how: str) -> None:
    BROKEN[how](folder)
    with pytest.raises(BackboneError) as caught:
        Backbone.load(str(folder))
    assert str(folder) in str(caught.value) and len(str(caught.value)) < 1000
    assert not (folder / "was-run").exists()
    if how.startswith(("config", "tokenizer", "no heads")):
        with pytest.raises(BackboneError):
            Backbone.plan(str(folder), tokenizer=True)


def test_the_class_of_what_went_wrong_is_named(folder: Path) -> None:
    BROKEN["no heads"](folder)
    with pytest.raises(BackboneError, match=r"could not be loaded .*\(ZeroDivisionError\)"):
        Backbone.load(str(folder))


def test_an_adapter_on_top_of_a_backbone_is_not_loaded_with_it(folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    adapter = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(task_type="CAUSAL_LM"))
    shutil.copytree(folder, tmp_path / "both")
    adapter.save_pretrained(tmp_path / "both")
    with pytest.raises(BackboneError, match="the folder of a PEFT adapter"):
        Backbone.load(str(tmp_path / "both"))


def test_a_missing_folder_is_not_the_networks_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for read in (Backbone.load, Backbone.plan):
        with pytest.raises(BackboneError, match="no such folder here, and the hub was not reached"):
            read("my/backbone")


@pytest.mark.parametrize(("key", "value"), [("dtype", "float8"), ("dtype", "nn"), ("attention", "flash")])
def test_settings_that_there_are_not_are_refused(folder: Path, key: str, value: str) -> None:
    with pytest.raises(BackboneError, match=rf"backbone\.{key}: expected one of .*, got '{value}'"):
        Backbone.load(str(folder), **{key: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("id", "count"),
    [
        ("t5-base", 222_903_552),
        ("google/t5-v1_1-base", 247_577_856),
        ("google/t5-base-lm-adapt", 247_577_856),
        ("google/t5-v1_1-xxl", 11_135_332_352),
        ("google/t5-xxl-lm-adapt", 11_135_332_352),
    ],
)
def test_a_dry_run_counts_what_is_published(id: str, count: int) -> None:
    """T5 1.1 has a head of its own; T5 shares it with the embeddings."""
    assert Backbone.plan(id).parameter_count() == count
    if id == "google/t5-base-lm-adapt":
        assert dry_run(load_recipe("prompt-tuning/sst2-base")).backbone_parameters == count


def test_a_folder_is_counted_as_its_weights_are(tmp_path: Path) -> None:
    for name in ("t5", "t5_v1_1", "llama", "gpt2"):
        place = factories.backbone_folder(tmp_path / name, name)
        assert Backbone.plan(str(place)).parameter_count() == Backbone.load(str(place)).parameter_count()
