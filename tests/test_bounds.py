"""Recipes beyond measure, and settings that fit nothing, are refused with what was expected; arms are as overrides."""

from pathlib import Path
from typing import Any

import pytest
from factories import backbone
from jobs import tiny_job

from softprompt import prepare as prepare_module
from softprompt.config import DecodeConfig, build, load_recipe, to_dict
from softprompt.errors import ConfigError, DataError
from softprompt.method_config import Peft, PrefixTuning, PromptTuning
from softprompt.methods.peft_tuner import PeftMethod
from softprompt.metrics.files import read_test_set
from softprompt.metrics.resampling import interval
from softprompt.metrics.suite import score_suite
from softprompt.prepare import prepare
from softprompt.recipe_files import list_recipes
from softprompt.recipes import expand
from softprompt.scale_setting import make_setting
from softprompt.yaml_text import MOST_BYTES, parse_yaml


def write(folder: Path, text: str) -> str:
    (folder / "r.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    return str(folder / "r.yaml")


def fail(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(write(folder, text), overrides)
    return str(caught.value)


# --- numbers ---------------------------------------------------------------------------------------------------------

HUGE = 10**18
NUMBERS = [
    *[f"method={{name: {name}, length: {HUGE}}}" for name in ("prefix", "prompt", "dept")],
    f"method={{name: dept, rank: {HUGE}}}",
    f"method={{name: lora, rank: {HUGE}}}",
    f"method={{name: adapter, bottleneck: {HUGE}}}",
    f"method={{name: prompt, reparam: mlp, bottleneck: {HUGE}}}",
    *["method.hidden=100000", f"method.hidden={HUGE}", "method={name: prompt, init: normal, init_scale: 1e300}"],
    *["decode.beams=100000", "decode.max_new_tokens=10000000000", f"decode.batch_size={HUGE}"],
    *["decode.length_penalty=1e308", "decode.length_penalty=-1e308"],
    *[f"decode={{strategy: sample, temperature: {value}}}" for value in ("1e-320", "1e308")],
    *["decode={strategy: sample, top_p: 1e-300}", f"decode={{strategy: sample, top_k: {HUGE}}}"],
    *["train.epochs=1e300", f"train.max_steps={HUGE}", f"train.batch_size={HUGE}", f"train.batch_tokens={HUGE}"],
    *[f"train.warmup_steps={HUGE}", f"train.micro_batch={HUGE}", f"train.eval_every={HUGE}", f"train.keep={HUGE}"],
    *[f"data.max_train={HUGE}", f"data.shots={HUGE}", "method={name: lora, alpha: 1e300}"],
]


@pytest.mark.parametrize("override", NUMBERS)
def test_numbers_have_a_bound_that_is_said(override: str) -> None:
    with pytest.raises(ConfigError, match=r"expected .*([<>]= ?-?[\d.e-]+|auto or null).*; got "):
        load_recipe("quickstart", [override])


def test_more_than_fits_the_memory_is_refused_before_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(tiny_job(tmp_path)), ["untuned=false", "method={name: lora, rank: 16384}"])
    monkeypatch.setattr(prepare_module, "memory_bytes", lambda device: 2**20)
    with pytest.raises(ConfigError, match=r"method lora: .* trained numbers .* GiB, expected at most .* Lower"):
        prepare({"main": recipe})


@pytest.mark.parametrize(
    "given",
    [
        {"rows": 10**30},
        {"source": 10**30},
        {"target": -1},
        {"lengths": "9" * 30},
        {"processes": "9" * 5000},
        {"lengths": ",".join("1" * 500)},
        {"device_flops": 1e300},
        {"bandwidth": float("nan")},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_scale_is_asked_is_bounded(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected") as caught:
        make_setting(**given)
    assert len(str(caught.value)) < 400


# --- what is read ----------------------------------------------------------------------------------------------------


def test_aliases_that_explode_are_refused(tmp_path: Path) -> None:
    bomb = "x0: &x0 {method: finetune}\n" + "".join(
        f"x{n}: &x{n} {{compare: {{a: *x{n - 1}, b: *x{n - 1}, c: *x{n - 1}}}}}\n" for n in range(1, 15)
    )
    assert "with all aliases written out" in fail(tmp_path, f"data: {{task: e2e}}\n{bomb}")
    assert "an alias stands inside" in fail(tmp_path, "data: &a {labels: *a}\n")
    shared = "data: {task: e2e}\nmethod: &m {name: prefix, length: 3}\ncompare: {a: {method: *m}, b: {method: *m}}\n"
    assert load_recipe(write(tmp_path, shared)).arm("b").method == PrefixTuning(length=3)


def test_arms_are_not_looked_into_deeper_than_they_may_go(tmp_path: Path) -> None:
    inner = {"compare": {"b": {"compare": {"c": {"method": "prompt"}}}}, "tasks": {"t": {"method": "prompt"}}}
    found = expand({"compare": {"a": inner}})["compare"]["a"]
    assert found["compare"] == inner["compare"] and found["tasks"]["t"]["method"] == {"name": "prompt"}
    nested = "data: {task: e2e}\ncompare: {a: {compare: {b: {seed: 1}}}}\n"
    assert "compare.a.compare: an arm cannot set this" in fail(tmp_path, nested)


def test_many_unknown_keys_are_a_short_message(tmp_path: Path) -> None:
    for indent, start in (("", ""), ("  ", "train:\n")):
        keys = "".join(f"{indent}lernrate{n}: 1\n" for n in range(20_000))
        message = fail(tmp_path, f"data: {{task: e2e}}\n{start}{keys}")
        assert len(message.splitlines()) == 11 and message.endswith("... and more; mend these first.")
    assert len(fail(tmp_path, f"data: {{task: e2e}}\n{'x' * 50_000}: 1\n")) < 1000


def test_many_arms_and_tasks_are_refused(tmp_path: Path) -> None:
    arms = "".join(f"  a{n}: {{method: finetune}}\n" for n in range(5_000))
    assert "compare: expected" in fail(tmp_path, f"data: {{task: e2e}}\ncompare:\n{arms}")
    tasks = "".join(f"  t{n}: {{data: {{task: e2e}}}}\n" for n in range(90))
    few = "".join(f"  a{n}: {{seed: {n}}}\n" for n in range(90))
    assert "at most 400 prompts in all" in fail(tmp_path, f"data: {{}}\ntasks:\n{tasks}compare:\n{few}")


@pytest.mark.parametrize("opener", ["[", "{a: ", "- ", "? ", "a: [\n"])
@pytest.mark.parametrize("count", [150, 20_000])
def test_nesting_has_a_bound(opener: str, count: int, tmp_path: Path) -> None:
    assert "not valid YAML" in fail(tmp_path, "x: " * (opener not in "- ? ") + opener * count)


def test_a_file_has_a_bound(tmp_path: Path) -> None:
    assert "at most 1,000,000 bytes" in fail(tmp_path, "# " + "x" * MOST_BYTES)


def test_a_chain_of_bases_has_a_bound(tmp_path: Path) -> None:
    write(tmp_path, "data: {task: e2e}\n")
    for number in range(40):
        below = tmp_path / (f"r{number - 1}.yaml" if number else "r.yaml")
        (tmp_path / f"r{number}.yaml").write_text(f"base: {below}\n")
    assert load_recipe(str(tmp_path / "r14.yaml")).data.task == "e2e"
    with pytest.raises(ConfigError, match="at most 16 recipes based on one another"):
        load_recipe(str(tmp_path / "r39.yaml"))


SURROGATES = [
    r'data: {task: e2e, input: "\ud800"}',
    r'data: {train: "\ud800.csv"}',
    r'data: {task: e2e, labels: {column: a, words: {"1": "\ud800"}}}',
    r'data: {task: e2e, "\ud800": 1}',
    'data: {task: e2e}\nmethod: {name: prefix, init: text, init_text: "\\udfff"}',
    'data: {task: e2e}\nmethod: {name: prompt, init: labels, labels: [a, "\\ud800"]}',
    'data: {task: e2e}\nbackbone: "\\0"',
    'data: {task: e2e}\nmethod: {name: peft, type: IA3, options: {a: {b: ["\\ud800"]}}}',
    'data: {task: e2e}\nscore: {suite: "a\\0b"}',
]


@pytest.mark.parametrize("text", SURROGATES)
def test_text_is_text_wherever_it_stands(text: str, tmp_path: Path) -> None:
    assert "expected text, got a " in fail(tmp_path, text)


def test_text_is_text_in_overrides_and_in_python() -> None:
    for override in ("data.input={a}\ud800", "name=\ud800", "\ud800=1", 'data.train="\\udc80"', "data.input={a}\0"):
        with pytest.raises(ConfigError, match=r"surrogate|NUL|broken character"):
            load_recipe("quickstart", [override])
    with pytest.raises(ValueError, match="init_text: expected text, got a lone surrogate"):
        PromptTuning(init="text", init_text="a\ud800")
    with pytest.raises(ConfigError, match="lone surrogate"):
        parse_yaml('a: "\\ud800"', "x")


# --- outputs to score ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prediction": "a\\ud800", "references": ["b"]}', "line 1: expected text, got a lone surrogate"),
        ('{"prediction": "a", "references": ["b", "\\udc00"]}', "line 1: expected text, got a lone surrogate"),
        ("[" * 100_000, "line 1: expected JSON"),
        ('{"a":' * 100_000, "line 1: expected JSON"),
        ("1" * 5_000, "line 1: expected"),
        ('{"prediction": NaN, "references": ["b"]}', "expected an object with a text"),
    ],
    ids=["prediction", "reference", "brackets", "braces", "digits", "nan"],
)
def test_predictions_that_are_none_are_refused_with_their_line(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=words):
        read_test_set(path, [])


def test_deep_json_of_squad_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="expected JSON"):
        read_test_set(tmp_path / "a.json", [tmp_path / "a.json"])


@pytest.mark.parametrize(
    ("hypotheses", "references"), [(["a\ud800"], [["b"]]), (["a"], [["\udc00"]]), ([None], [["b"]])]
)
def test_texts_to_score_are_texts(hypotheses: list[Any], references: list[list[str]]) -> None:
    with pytest.raises(DataError, match=r"[Ee]xpected text"):
        score_suite("e2e", hypotheses, references)


def test_a_negative_seed_of_the_bootstrap_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected seed >= 0"):
        interval(None, 3, 10, -1)  # type: ignore[arg-type]


# --- METEOR's program ------------------------------------------------------------------------------------------------


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called `java` that a test writes, and a jar that is not looked into."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "meteor.jar").write_text("")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("SOFTPROMPT_METEOR_JAR", str(tmp_path / "meteor.jar"))
    return tmp_path / "bin" / "java"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("exec sleep 600", "gave no answer in 0.3 s"),
        ("while read line; do echo " + "nan " * 23 + "; done", "answered 'nan nan"),
        ("while read line; do echo " + "inf " * 23 + "; done", "answered 'inf inf"),
        ("while read line; do echo " + "-1 " * 23 + "; done", "answered '-1 -1"),
        ("exit 3", "answered ''"),
    ],
    ids=["silence", "nan", "infinity", "negative", "death"],
)
def test_a_program_that_is_not_meteor_is_named_as_missing(
    program: str, words: str, java: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java.write_text(f"#!/bin/sh\n{program}\n")
    java.chmod(0o755)
    monkeypatch.setenv("SOFTPROMPT_METEOR_TIMEOUT", "0.3" if "sleep" in program else "30")
    found = score_suite("e2e", ["tea"], [["tea"]], metrics=["meteor"])
    assert "meteor" not in found.scores and words in found.missing["meteor"]


# --- PEFT ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LORA", {"runtime_config": {"a": 1}}),
        ("LORA", {"target_modules": 3}),
        ("LORA", {"r": -1}),
        ("LORA", {"rank_pattern": [1]}),
        ("LORA", {"nonsense": 1}),
        ("LORA", {"r": 10**15}),
    ],
)
def test_what_peft_cannot_do_is_told_as_that(kind: str, options: dict[str, Any]) -> None:
    pytest.importorskip("peft")
    with pytest.raises(ConfigError, match="PEFT"):
        PeftMethod.build(backbone("gpt2"), Peft(type=kind, options=options))


# --- decoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["greedy", "sample"])
@pytest.mark.parametrize("beams", [2, 5, 8])
def test_beams_without_a_search_are_refused_whatever_their_number(strategy: str, beams: int) -> None:
    with pytest.raises(ConfigError, match=f"decode.beams has no effect with strategy {strategy}"):
        load_recipe("quickstart", [f"decode.strategy={strategy}", f"decode.beams={beams}"])
    with pytest.raises(ConfigError, match=r"decode\.beams has no effect with decode\.labels"):
        load_recipe("quickstart", ["decode.labels=true", f"decode.beams={beams}"])


def test_beams_are_five_where_there_are_any() -> None:
    assert DecodeConfig().beams == 5 and DecodeConfig(strategy="beam", beams=None).beams == 5
    assert DecodeConfig(strategy="greedy").beams is None and DecodeConfig(labels=True).beams is None
    assert load_recipe("quickstart", ["decode.strategy=greedy"]).decode.beams is None


def test_recipes_that_older_versions_resolved_are_read(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", ["decode.strategy=greedy"])
    old = to_dict(recipe)
    old["decode"]["beams"] = 5
    again = build(old, lambda path: "old")
    assert again == recipe and again.arm("finetune") == recipe.arm("finetune")


TASKS = {"xsum": 6, "xsum-within-news": 6, "scitldr": 5}
OVERS = [
    "strategy: greedy",
    "strategy: sample, top_k: 5",
    "beams: 2",
    "max_new_tokens: 7, min_new_tokens: 0",
    "labels: true",
]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("over", OVERS)
def test_an_arm_over_a_tasks_decode_settings_is_as_an_override(task: str, over: str, tmp_path: Path) -> None:
    text = f"backbone: bundled\ndata: {{task: {task}}}\n"
    alone = load_recipe(write(tmp_path, text), [f"decode={{{over}}}"])
    recipe = load_recipe(write(tmp_path, f"{text}compare: {{g: {{decode: {{{over}}}}}}}\n"))
    assert recipe.decode.beams == TASKS[task]
    assert recipe.arm("g").decode == alone.decode
    assert build(to_dict(recipe), lambda path: "resolved").arm("g").decode == alone.decode


def test_an_arm_of_several_tasks_over_their_decode_settings(tmp_path: Path) -> None:
    text = "backbone: bundled\ndata: {}\ntasks: {x: {data: {task: xsum}}, s: {data: {task: scitldr}}}\n"
    recipe = load_recipe(write(tmp_path, f"{text}compare: {{g: {{decode: {{strategy: greedy}}}}}}\n"))
    alone = load_recipe(write(tmp_path, text), ["decode.strategy=greedy"])
    for name, part in recipe.arm("g").parts().items():
        assert part.decode == alone.parts()[name].decode and part.decode.strategy == "greedy"


def test_what_a_recipe_says_itself_is_kept_in_its_arms(tmp_path: Path) -> None:
    text = "data: {task: xsum}\ndecode: {beams: 5, max_new_tokens: 33}\n"
    text += "compare: {a: {seed: 1}, g: {decode: {strategy: greedy}}}\n"
    assert "decode.beams has no effect with strategy greedy" in fail(tmp_path, text)
    kept = load_recipe(write(tmp_path, text.replace(", g: {decode: {strategy: greedy}}", "")))
    assert (kept.arm("a").decode.beams, kept.arm("a").decode.max_new_tokens) == (5, 33)


def test_arms_of_bundled_recipes_decode_as_their_main_arm() -> None:
    for info in list_recipes():
        recipe = load_recipe(info.name)
        for name, over in recipe.compare.items():
            if "decode" not in over:
                assert recipe.arm(name).decode == recipe.decode, (info.name, name)
