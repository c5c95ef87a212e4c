"""A run of several tasks: recipes, what lies in the folder, scores by each task's own suite, and going on."""

import json
from pathlib import Path
from typing import Any

import factories
import pytest
from typer.testing import CliRunner

import softprompt
from softprompt.backbone import Backbone
from softprompt.cli import app
from softprompt.config import Recipe, dump_yaml, load_recipe
from softprompt.data_inspection import inspect_data
from softprompt.decode import decode_texts, decode_together
from softprompt.errors import CheckpointError, ConfigError, TrainingError
from softprompt.inspection import inspect_kept, inspect_recipe
from softprompt.plan import dry_run
from softprompt.prompt import Prompt
from softprompt.report import notes, table, write_card
from softprompt.run import run_recipe

TEXT, LABEL = "tell", "taste"


def write(folder: Path, more: str = "", **changes: Any) -> Path:
    """A recipe of two tasks: texts scored by BLEU and the like, and label words scored by accuracy."""
    if not (folder / "backbone").exists():
        factories.backbone_folder(folder / "backbone", n_layer=1)
        for part, count, seed in (("train", 12, 0), ("dev", 4, 50)):
            drawn = factories.examples(count, seed=seed)
            texts = [{"source": one.source, "target": one.targets[0]} for one in drawn]
            words = [{"source": one.source, "target": ("hot", "cold")[row % 2]} for row, one in enumerate(drawn[:8])]
            for name, rows in ((TEXT, texts), (LABEL, words)):
                lines = "".join(json.dumps(row) + "\n" for row in rows)
                (folder / f"{name}-{part}.jsonl").write_text(lines, encoding="utf-8")
    files = {
        name: {"train": str(folder / f"{name}-train.jsonl"), "dev": str(folder / f"{name}-dev.jsonl")}
        for name in (TEXT, LABEL)
    }
    recipe: dict[str, Any] = {
        "backbone": str(folder / "backbone"),
        "method": {"name": "prefix", "length": 3, "hidden": 8, "dropout": 0.1},
        "train": {"epochs": 2, "batch_size": 5, "lr": 1e-2, "precision": "float32"},
        "decode": {"strategy": "greedy", "max_new_tokens": 5},
        "tasks": {
            TEXT: {"data": files[TEXT]},
            LABEL: {
                "data": files[LABEL],
                "method": {"length": 2},
                "decode": {"labels": True},
                "score": {"suite": "accuracy"},
            },
        },
        "untuned": False,
    }
    path = folder / "two.yaml"
    path.write_text(json.dumps({**recipe, **changes}) + more, encoding="utf-8")  # JSON is YAML
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return load_recipe(str(write(tmp_path_factory.mktemp("job"), untuned=True)))


@pytest.fixture(scope="module")
def done(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    write_card(recipe, folder, run_recipe(recipe, folder, quiet=True))
    return folder


def kept(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "predictions" / "test.jsonl").read_text().splitlines()]


def test_a_folder_holds_one_training_and_each_tasks_prompt_predictions_and_scores(done: Path) -> None:
    assert {path.name for path in (done / "tasks").iterdir()} == {TEXT, LABEL}
    for task in (TEXT, LABEL):
        names = {path.name for path in (done / "tasks" / task).iterdir()}
        assert names == {"recipe.yaml", "splits.json", "prompt", "predictions", "scores.json"}
        untuned = {path.name for path in (done / "arms" / "untuned" / "tasks" / task).iterdir()}
        assert untuned == names - {"prompt"}
    top = {path.name for path in done.iterdir()}
    assert {"metrics.jsonl", "checkpoints", "recipe.yaml", "README.md", "env.json", "status.json"} <= top
    assert not top & {"prompt", "scores.json", "predictions"}
    lines = [json.loads(line) for line in (done / "metrics.jsonl").read_text().splitlines()]
    assert sum("loss" in line for line in lines) == 8  # 12 + 8 pairs in batches of 5, twice
    evaluated = [line for line in lines if "dev_loss" in line]
    assert all(line["dev_losses"].keys() == {TEXT, LABEL} for line in evaluated) and len(evaluated) == 2


def test_each_task_is_scored_by_its_own_suite_and_answers_with_its_own_words(done: Path) -> None:
    scores = {task: json.loads((done / "tasks" / task / "scores.json").read_text()) for task in (TEXT, LABEL)}
    assert list(scores[TEXT]["scores"]) == ["bleu", "rouge_l", "chrf"]
    assert list(scores[LABEL]["scores"]) == ["accuracy"]
    rows = kept(done / "tasks" / LABEL)
    assert {row["prediction"] for row in rows} <= {"hot", "cold"}
    right = sum(row["prediction"] in row["references"] for row in rows) / len(rows)
    assert scores[LABEL]["scores"]["accuracy"]["score"] == pytest.approx(100 * right)
    assert scores[TEXT]["training"]["dev_loss"] != scores[LABEL]["training"]["dev_loss"]
    assert scores[TEXT]["parameters"]["stored"] * 2 == scores[LABEL]["parameters"]["stored"] * 3


@pytest.mark.parametrize("task", [TEXT, LABEL])
def test_a_saved_prompt_is_used_alone(recipe: Recipe, done: Path, task: str) -> None:
    place, backbone = done / "tasks" / task, Backbone.load(recipe.backbone.id)
    prompt = Prompt.load(place / "prompt", backbone_hash=backbone.hash())
    part, rows = load_recipe(str(place / "recipe.yaml")), kept(place)
    assert part == recipe.parts()[task] and prompt.length == {TEXT: 3, LABEL: 2}[task]
    words = ("hot", "cold") if part.decode.labels else None
    again = decode_texts(backbone, prompt, [row["source"] for row in rows], part.decode, labels=words)
    assert [row.text for row in again] == [row["prediction"] for row in rows]


def test_one_table_and_a_card_name_every_task(recipe: Recipe, done: Path) -> None:
    results = run_recipe(recipe, done, resume=True, quiet=True)
    rows = table(results)
    assert [row[0] for row in rows] == ["", f"untuned {TEXT}", f"untuned {LABEL}", f"prefix {TEXT}", f"prefix {LABEL}"]
    accuracy = rows[0].index("accuracy")
    assert rows[3][accuracy] == "-" and rows[4][accuracy] != "-" and notes(results) is not None
    card = (done / "README.md").read_text()
    assert "(trained together, a prompt each)" in card and f'"tasks/{TEXT}"' in card and "- accuracy: `" in card
    assert load_recipe(str(done / "recipe.yaml")) == recipe


def test_run_again_or_stopped_between_two_tasks_it_gives_the_same_bytes(
    recipe: Recipe, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "again"
    with monkeypatch.context() as patch:

        def dies(*_: object, **options: Any) -> None:
            if options.get("labels"):
                raise TrainingError("stop")

        real = decode_together
        patch.setattr("softprompt.run.decode_together", lambda *a, **k: dies(*a, **k) or real(*a, **k))
        with pytest.raises(TrainingError, match="stop"):
            run_recipe(recipe.arm("main"), again, quiet=True)
    assert (again / "tasks" / TEXT / "scores.json").exists() and not (again / "tasks" / LABEL / "scores.json").exists()
    first = (again / "tasks" / TEXT / "scores.json").read_bytes()
    run_recipe(recipe.arm("main"), again, resume=True, quiet=True)
    assert (again / "tasks" / TEXT / "scores.json").read_bytes() == first
    assert (again / "metrics.jsonl").read_bytes() == (done / "metrics.jsonl").read_bytes()
    for task in (TEXT, LABEL):
        for name in ("prompt/adapter_model.safetensors", "predictions/test.jsonl"):
            assert (again / "tasks" / task / name).read_bytes() == (done / "tasks" / task / name).read_bytes()


def test_one_task_is_the_plain_run_to_the_bit(tmp_path: Path) -> None:
    whole = load_recipe(str(write(tmp_path)))
    one = load_recipe(str(write(tmp_path, tasks={TEXT: {"data": whole.tasks[TEXT]["data"]}})))
    plain = load_recipe(str(write(tmp_path, tasks={}, data=whole.tasks[TEXT]["data"])))
    alone, together = (run_recipe(own, tmp_path / name, quiet=True)[0] for name, own in (("a", plain), ("b", one)))
    assert alone.scores == together.scores and (alone.task, together.task) == ("", TEXT)
    assert alone.training and together.training and alone.training["dev_loss"] == together.training["dev_loss"]
    plans = [json.loads((place / "splits.json").read_text()) for place in (tmp_path / "a", tmp_path / "b/tasks" / TEXT)]
    assert plans[0]["parts"] == plans[1]["parts"]
    for name in ("prompt/adapter_model.safetensors", "predictions/test.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / "tasks" / TEXT / name).read_bytes()


def test_a_changed_file_of_one_task_is_seen_when_going_on(tmp_path: Path) -> None:
    recipe = load_recipe(str(write(tmp_path, train={"max_steps": 1, "batch_size": 4, "precision": "float32"})))
    run_recipe(recipe, tmp_path / "run", quiet=True)
    with (tmp_path / f"{LABEL}-train.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"source": "tea", "target": "hot"}\n')
    with pytest.raises(ConfigError, match=rf"changed since .* data.train \(the content of .*{LABEL}-train.jsonl\)"):
        run_recipe(recipe, tmp_path / "run", resume=True, quiet=True)
    other = load_recipe(str(tmp_path / "two.yaml"), [f"tasks.{LABEL}.decode.max_new_tokens=4"])
    with pytest.raises(ConfigError, match=rf"tasks.{LABEL}.decode.max_new_tokens \(None -> 4\)"):
        run_recipe(other, tmp_path / "run", resume=True, quiet=True)
    accepted = ["tasks", "train", "data"]
    results = run_recipe(other, tmp_path / "run", resume=True, allow_change=accepted, quiet=True)
    assert [result.task for result in results] == [TEXT, LABEL]


def test_counts_are_of_all_tasks(recipe: Recipe) -> None:
    planned, found = dry_run(recipe), inspect_recipe(recipe, whole=True)
    methods = {name: dry_run(part) for name, part in recipe.parts().items()}
    assert planned.stored == sum(one.stored for one in methods.values()) == found["arms"][0]["stored"]
    assert planned.trained == sum(one.trained for one in methods.values()) == found["arms"][0]["trained"]
    assert (planned.train_pairs, planned.steps) == (20, 8) and found["arms"][0]["room"] == 3
    assert found["data"] == {"train pairs": 20, "dev pairs": 8, "test sources": 8}
    equal = recipe.model_copy(update={"train": recipe.train.model_copy(update={"mixing": "equal"})})
    assert (dry_run(equal).train_pairs, dry_run(equal).steps) == (24, 10)


def test_the_folder_of_several_tasks_names_their_places(recipe: Recipe, done: Path) -> None:
    backbone = Backbone.load(recipe.backbone.id)
    for read in (lambda: softprompt.load(backbone, done), lambda: inspect_kept(done)):
        with pytest.raises(CheckpointError, match=rf"several tasks. Give one of: .*tasks/{LABEL}, .*tasks/{TEXT}"):
            read()
    assert inspect_kept(done / "tasks" / TEXT)["method"] == "prefix"
    assert softprompt.load(backbone, done / "tasks" / TEXT).generate(["tea"])


def test_inspect_data_shows_every_task(recipe: Recipe, done: Path) -> None:
    run = CliRunner()
    shown = run.invoke(app, ["inspect-data", str(done / "recipe.yaml")])
    assert shown.exit_code == 0 and f"task {TEXT}\n" in shown.stdout and f"\n\ntask {LABEL}\n" in shown.stdout
    facts = json.loads(run.invoke(app, ["inspect-data", str(done / "recipe.yaml"), "--json"]).stdout)
    assert {name: one["parts"]["train"]["examples"] for name, one in facts.items()} == {TEXT: 12, LABEL: 8}
    with pytest.raises(ConfigError, match="expected one task to inspect, got tell, taste"):
        inspect_data(recipe)


def test_arms_have_every_task(tmp_path: Path) -> None:
    compare = {"prompts": {"method": {"name": "prompt", "length": 4}, "train": {"lr": 0.1, "mixing": "equal"}}}
    recipe = load_recipe(str(write(tmp_path, compare=compare)))
    results = run_recipe(recipe, tmp_path / "run", quiet=True)
    assert [(result.arm, result.task, result.method) for result in results] == [
        ("main", TEXT, "prefix"),
        ("main", LABEL, "prefix"),
        ("prompts", TEXT, "prompt"),
        ("prompts", LABEL, "prompt"),
    ]
    lengths = [
        Prompt.load(tmp_path / "run" / "arms" / "prompts" / "tasks" / t / "prompt").length for t in (TEXT, LABEL)
    ]
    assert lengths == [4, 4]


def test_recipes_read_back_and_a_tasks_own_settings_come_from_its_task(tmp_path: Path) -> None:
    text = """
method: {name: prompt, length: 5}
data: {max_train: 40}
decode: {batch_size: 3}
tasks:
  rte: {data: {task: glue-rte, dir: x}}
  e2e: {data: {task: e2e, dir: y}, decode: {max_new_tokens: 9}}
"""
    (tmp_path / "r.yaml").write_text(text)
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    rte, e2e = recipe.parts().values()
    assert (rte.name, rte.decode.strategy, rte.decode.max_new_tokens) == ("r-rte", "greedy", 16)
    assert (e2e.decode.strategy, e2e.decode.max_new_tokens) == ("beam", 9)
    assert {part.data.max_train for part in (rte, e2e)} == {40} and rte.tasks == {} and rte.decode.batch_size == 3
    (tmp_path / "r.yaml").write_text(dump_yaml(recipe))
    assert load_recipe(str(tmp_path / "r.yaml")) == recipe
    low = load_recipe(str(tmp_path / "r.yaml"), ["tasks.rte.data.max_train=7"])
    assert [part.data.max_train for part in low.parts().values()] == [7, 40]


WAY = "several tasks at once"


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["method={name: adapter, bottleneck: 2}"], ["tasks.tell.method: adapter cannot", WAY, "all rows of a batch"]),
        (["method=lora"], ["tasks.tell.method: lora cannot", WAY, "change of the weights"]),
        (["method=finetune"], ["tasks.tell.method: finetune cannot", WAY, "weights are of all rows"]),
        (["method=dept"], ["tasks.tell.method: dept cannot", WAY, "word embeddings"]),
        (["method.place=between"], ["tasks.tell.method: prefix cannot", WAY, "place: before"]),
        (["method.attention=beside"], ["tasks.tell.method: prefix cannot", WAY, "attention: joined"]),
        (["compare.x.method=lora"], ["compare.x.tasks.tell.method: lora cannot", WAY]),
        (["tasks.taste.train.lr=1"], ["tasks.taste.train: a task of several has its own data, method", "at the top"]),
        (["tasks.taste.data.tset=1"], ["unknown key 'tasks.taste.data.tset'", "override 'tasks.taste.data.tset=1'"]),
        (["tasks.taste.data.task=glue-rt"], ["data.task: unknown task 'glue-rt'; nearest: 'glue-rte'"]),
        (["tasks.new.data.max_train=3"], ["tasks.new.data: expected a task name or a training file, got neither"]),
        (["tasks.a/b.data.task=e2e"], ["expected a task's name of letters", "'a/b'. Rename it"]),
        (["tasks=3"], ["tasks: expected names of tasks, each with overrides"]),
        (["tasks.taste=3"], ["tasks: expected names of tasks, each with overrides"]),
        (["tasks.taste.decode=3"], ["tasks.taste.decode: expected a section"]),
        (["tasks=null"], ["data: expected a task name or a training file, got neither"]),
        (["tasks=null", "data.task=gazette", "train.mixing=equal"], ["train.mixing has no effect without tasks"]),
        (
            ["compare.x.method.length=9"],
            ["compare.x.method.length does not reach task 'taste'", "Set compare.x.tasks.taste.method.length"],
        ),
        (["compare.x.method=3"], ["compare.x.method: expected a section"]),
        (["compare.x.tasks=3"], ["compare.x.tasks: expected names of tasks"]),
        (["compare.x.decode=3"], ["compare.x.decode: expected a section"]),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(tmp_path: Path, overrides: list[str], parts: list[str]) -> None:
    place = write(tmp_path, method={"name": "prefix", "length": 3}, tasks=tasks_of(tmp_path))
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(place), overrides)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def tasks_of(folder: Path) -> dict[str, Any]:
    own = {"train": str(folder / "train.jsonl")}
    return {TEXT: {"data": own}, LABEL: {"data": own, "method": {"length": 2}}}
