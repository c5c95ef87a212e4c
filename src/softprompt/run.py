"""A recipe carried out: train, decode, score and report every arm, into one run folder that can be resumed."""

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from softprompt import data
from softprompt.backbone import Backbone
from softprompt.batch import Encoded, encode_pairs, encode_sources, positions_taken, require_fit
from softprompt.config import MAIN, UNTUNED, Recipe, dump_yaml
from softprompt.console import Progress, say
from softprompt.decode import Decoded, decode_texts
from softprompt.errors import ConfigError, TrainingError
from softprompt.files import write_text_atomic
from softprompt.fit_tasks import fit_tasks
from softprompt.folder import SCORES, RunFolder, require_free
from softprompt.incontext import InContext
from softprompt.labels import LabelWords, distinct_targets
from softprompt.lock import locked
from softprompt.machine import peak_memory_bytes, reset_peak_memory
from softprompt.method_config import InContextConfig
from softprompt.methods import METHODS, Method, Steering, Untuned, room_taken, trained_count
from softprompt.metrics import SuiteResult, find_suite, score_suite, with_bertscore, with_metrics
from softprompt.quantize import require_libraries
from softprompt.resume import RECIPE, difference, require_accepted, require_known
from softprompt.segments import joined
from softprompt.signals import stoppable
from softprompt.tasks import load_task
from softprompt.truncate import cut_splits, rooms
from softprompt.types import Example, Splits

SPLITS = "splits.json"
Key = TypeVar("Key")


@dataclass(frozen=True)
class ArmResult:
    """What one arm came to: everything a report needs, as kept in its scores.json."""

    arm: str
    method: str
    scores: dict[str, dict[str, Any]]
    """Metric -> {"score", "signature"}, in the papers' scale."""
    missing: dict[str, str]
    """Metric of the suite -> why it was not computed."""
    parameters: dict[str, float]
    """`backbone`, `trained` and `stored` counts; `stored_share` and `trained_share` of the backbone's parameters."""
    training: dict[str, Any] | None
    """Fields of `Fitted` and `peak_memory_bytes`; None where nothing was trained."""
    decoding: dict[str, Any]
    """`seconds`, `tokens_per_second`, `sources`, `peak_memory_bytes`; `room_taken` from each source's window."""
    groups: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Scores of parts of the test set (seen and unseen categories), each as a corpus of its own."""
    task: str = ""
    """Which of the tasks that are trained together; empty where there is one."""


def run_recipe(
    recipe: Recipe, folder: Path, *, resume: bool = False, allow_change: Sequence[str] = (), quiet: bool = False
) -> list[ArmResult]:
    """Carry out all arms of `recipe` in `folder`; the main arm lies at the top, the others under `arms/`.

    With `resume`, finished arms are read back and an unfinished one goes on from its newest checkpoint.
    `allow_change` names fields or sections of the recipe that may differ from those the run was started with; a
    finished arm that such a change reaches goes on from its last checkpoint and is decoded and scored again.

    Raises:
        ConfigError: the folder is in use and `resume` is off; another process is at it; recipe, data or backbone
            changed and `allow_change` does not name the field.
        DataError, BackboneError: before anything is written.
        Interrupted: SIGTERM or SIGINT came; everything up to there can be resumed.
    """
    require_known(allow_change, resume)
    with stoppable("stopped; what was done so far is kept. Run the same command with --resume to go on."):
        arms = {arm: recipe.arm(arm) for arm in arm_order(recipe)}
        require_free(folder, resume)
        changed = difference(folder, recipe, arms)
        require_accepted(changed.changes, allow_change, folder)
        parts = {(arm, task): part for arm, whole in arms.items() for task, part in whole.parts().items()}
        jobs = prepare(parts)
        with locked(folder):
            require_free(folder, resume)  # another process may have been faster
            kept = RunFolder(folder, tuple(allow_change))
            kept.begin(recipe, changed)
            try:
                results = [
                    result
                    for arm, whole in arms.items()
                    for result in _arm(kept, arm, whole, {task: jobs[arm, task] for task in whole.parts()}, quiet)
                ]
            except BaseException as error:
                kept.note_end(error)
                raise
            kept.status("done")
            return results


@dataclass(frozen=True)
class Job:
    """One arm, or a task of it, with its data read, tokenised and checked against the backbone's window."""

    recipe: Recipe
    examples: Sequence[Example]
    """The training pairs as texts."""
    train: Sequence[Encoded]
    dev: Sequence[Encoded]
    test: Sequence[Example]
    splits: Mapping[str, Any]
    """What splits.json keeps of train, dev and test: their sizes and checksums, and what was cut off them."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """What an answer may be, where the recipe wants label words."""
        return label_choices(self.recipe, self.examples)


def prepare(parts: Mapping[Key, Recipe]) -> dict[Key, Job]:
    """Check every recipe on the weightless backbone before anything is written; those that ask for the same share it.

    Raises:
        ConfigError: no such suite, or nothing to train on.
        DataError: malformed data, or texts that do not fit the window.
        BackboneError: no such backbone, one that the method cannot steer, or no library to quantise it with.
    """
    known: list[tuple[Any, Backbone, Splits, Job]] = []
    jobs = {}
    for key, own in parts.items():
        with_bertscore(with_metrics(find_suite(suite_of(own)), own.score.metrics), own.score.bertscore)
        require_libraries(own.backbone.quantize)
        asked = (own.backbone, own.data, own.seed)
        if not any(asked == seen for seen, *_ in known):
            plan = Backbone.plan(own.backbone.id, revision=own.backbone.revision, tokenizer=True)
            splits = data.load(own.data, own.seed)
            known.append((asked, plan, splits, _encoded(plan, own, splits)))
        plan, splits, shared = next((plan, splits, job) for seen, plan, splits, job in known if seen == asked)
        jobs[key] = _with_room(plan, replace(shared, recipe=own), splits)
    return jobs


def _encoded(plan: Backbone, recipe: Recipe, splits: Splits) -> Job:
    train, dev = encode_pairs(plan, splits.train), encode_pairs(plan, splits.dev)
    return Job(recipe, splits.train, train, dev, splits.test, data.record_of(splits))


def _with_room(plan: Backbone, job: Job, splits: Splits) -> Job:
    """The job with its texts cut to the window where the recipe says so; DataError if they do not fit."""
    method = build_method(replace(plan, model=copy.deepcopy(plan.model)), job.recipe)  # some methods change the model
    if method is not None and not job.train:
        lacking = f"the task {job.recipe.data.task!r} has none" if job.recipe.data.task else "the data has none"
        raise ConfigError(
            f"data.train: method {job.recipe.method.name} needs training pairs, and {lacking}. "
            "Set data.train=FILE, or method=untuned to score the backbone alone."
        )
    offset = room_taken(plan, method or build_untrained(plan, job.recipe, job.examples))
    answer = answer_room(plan, job.recipe, job.examples)
    if job.recipe.data.truncate == "source":
        splits, cuts = cut_splits(plan, splits, rooms(plan, job.recipe, offset, answer))
        job = _encoded(plan, job.recipe, splits)
        job = replace(job, splits={name: {**job.splits[name], "cut": asdict(cut)} for name, cut in cuts.items()})
        for name, cut in cuts.items():
            if cut.examples:
                say(f"{name}: {cut.examples} of {cut.of} sources cut at their end, by {cut.tokens} tokens")
    _require_room(plan, job, offset, answer, learns=method is not None)
    return job


def _require_room(plan: Backbone, job: Job, offset: int, answer: int, *, learns: bool) -> None:
    sources = encode_sources(plan, [example.source for example in job.test])
    require_fit([len(row) for row in sources], plan.window, what="test sources", offset=offset + answer)
    if learns:
        limits = [limit for limit in (plan.window, job.recipe.train.max_length) if limit is not None]
        room = min(limits) if limits else None
        for what, pairs in (("training pairs", job.train), ("dev pairs", job.dev)):
            require_fit([positions_taken(plan, pair) for pair in pairs], room, what=what, offset=offset)


def label_choices(recipe: Recipe, train: Sequence[Example]) -> tuple[str, ...] | None:
    """What an answer may be, where the recipe wants label words: those of its task, else the training targets."""
    if not recipe.decode.labels:
        return None
    return data.label_words(recipe.data) or distinct_targets(train)


def answer_room(backbone: Backbone, recipe: Recipe, train: Sequence[Example]) -> int:
    """Positions of the window that an answer takes behind its source: none in an encoder's. Errors as `LabelWords`."""
    labels, answer = label_choices(recipe, train), recipe.decode.max_new_tokens
    if labels is not None:
        answer = max(map(len, LabelWords.of(backbone, labels, recipe.decode).ids))
    return answer if backbone.family == "causal" else 0


def arm_order(recipe: Recipe) -> list[str]:
    """The untuned backbone first, then the method, then what it is compared with: as the table reads."""
    arms = list(recipe.arms())
    return [arm for arm in arms if arm == UNTUNED] + [arm for arm in arms if arm != UNTUNED]


def _arm(kept: RunFolder, arm: str, recipe: Recipe, jobs: Mapping[str, Job], quiet: bool) -> list[ArmResult]:
    if all((kept.place(arm, task) / SCORES).exists() for task in jobs):
        return [_finished(kept.place(arm, task)) for task in jobs]
    try:
        return _run_arm(kept, arm, recipe, jobs, quiet)
    except torch.OutOfMemoryError as error:  # a training step has its own answer to this
        raise TrainingError(
            f"{arm}: out of memory outside of training steps ({str(error).splitlines()[0]}). What is trained is kept: "
            "lower decode.batch_size (or train.batch_size, for dev losses) and use --resume with --allow-change."
        ) from error


def _run_arm(kept: RunFolder, arm: str, recipe: Recipe, jobs: Mapping[str, Job], quiet: bool) -> list[ArmResult]:
    backbone = Backbone.load(
        recipe.backbone.id,
        revision=recipe.backbone.revision,
        dtype=recipe.backbone.dtype,
        attention=recipe.backbone.attention,
        quantize=recipe.backbone.quantize,
    )
    whole_hash, total = backbone.hash(), backbone.parameter_count()
    kept.note_inputs(recipe, backbone, whole_hash)
    methods = {task: build_method(backbone, job.recipe) for task, job in jobs.items()}
    kept.status("running")
    _write_plan(kept, arm, recipe, jobs)
    learners = {task: method for task, method in methods.items() if method is not None}
    trainings: dict[str, dict[str, Any]] = {}
    if learners:
        train, dev = ({task: getattr(job, part) for task, job in jobs.items()} for part in ("train", "dev"))
        trainings = fit_tasks(backbone, learners, train, dev, recipe, kept.place(arm), label=arm, quiet=quiet)
    results = []
    for task, job in jobs.items():
        place, method, training = kept.place(arm, task), methods[task], trainings.get(task)
        if (place / SCORES).exists():
            results.append(_finished(place))
            continue
        if method is None or training is None:
            steering = build_untrained(backbone, job.recipe, job.examples)
        else:
            steering = _keep(method, job.recipe, place, whole_hash, training)
        rows, decoding = _decode(backbone, steering, job, f"{arm} {task}".strip(), quiet)
        result = _score(arm, task, job, rows, training, decoding, total, method)
        _write_predictions(place, job.test, rows)
        write_text_atomic(place / SCORES, json.dumps(asdict(result), indent=2) + "\n")
        results.append(result)
    if arm != MAIN:
        kept.status("done", arm)
    return results


def _write_plan(kept: RunFolder, arm: str, recipe: Recipe, jobs: Mapping[str, Job]) -> None:
    """The recipes of an arm and of its tasks, and what their data came to."""
    recipes = {kept.place(arm): recipe} | {kept.place(arm, task): job.recipe for task, job in jobs.items()}
    for place, own in recipes.items():
        place.mkdir(parents=True, exist_ok=True)
        if place != kept.root:
            write_text_atomic(place / RECIPE, dump_yaml(own))
    for task, job in jobs.items():
        chosen = {**data.choices_of(job.recipe.data), "parts": job.splits}
        write_text_atomic(kept.place(arm, task) / SPLITS, json.dumps(chosen, indent=2) + "\n")


def build_method(backbone: Backbone, recipe: Recipe) -> Method | None:
    """The recipe's method on `backbone`, seeded by the recipe; None where nothing is trained."""
    if recipe.method.name not in METHODS:
        return None
    torch.manual_seed(recipe.seed)
    return METHODS[recipe.method.name](backbone, recipe.method)


def build_untrained(backbone: Backbone, recipe: Recipe, examples: Sequence[Example]) -> Steering:
    """The steering of a recipe by which nothing is trained; `examples`: the training pairs that it may show.

    Raises:
        ConfigError: see `InContext.build`.
    """
    if isinstance(recipe.method, InContextConfig):
        return InContext.build(backbone, recipe.method, examples, recipe.seed)
    return Untuned()


def _keep(method: Method, recipe: Recipe, place: Path, before: str, training: Mapping[str, Any]) -> Steering:
    """Write the artefact and return what to decode with."""
    extra = {"step": training["selected_step"], "dev_loss": training["dev_loss"], "seed": recipe.seed}
    method.save(place / method.kept_in, backbone_id=recipe.backbone.id, backbone_hash=before, extra=extra)
    return method.fold()


def _decode(
    backbone: Backbone, steering: Steering, job: Job, label: str, quiet: bool
) -> tuple[list[Decoded], dict[str, Any]]:
    recipe, test = job.recipe, job.test
    progress = Progress(f"{label}: decode", len(test), "sources", quiet=quiet)
    reset_peak_memory(backbone.device)
    started = time.monotonic()
    rows = decode_texts(
        backbone,
        steering,
        [example.source for example in test],
        recipe.decode,
        labels=job.labels,
        seed=recipe.seed,
        on_batch=lambda done: progress.update(done, force=done == len(test)),
    )
    progress.close()
    seconds = time.monotonic() - started
    return rows, {
        "seconds": seconds,
        "sources": len(test),
        "room_taken": room_taken(backbone, steering),
        "tokens_per_second": sum(row.tokens for row in rows) / seconds if rows else 0.0,
        "peak_memory_bytes": peak_memory_bytes(backbone.device),
    }


def _score(
    arm: str,
    task: str,
    job: Job,
    rows: Sequence[Decoded],
    training: dict[str, Any] | None,
    decoding: dict[str, Any],
    total: int,
    method: Method | None,
) -> ArmResult:
    recipe, test, texts = job.recipe, job.test, [row.text for row in rows]
    scored = score_outputs(recipe, test, texts) if test else None
    trained = trained_count(method) if method else 0
    stored = method.stored_count() if method else 0
    return ArmResult(
        arm=arm,
        method=recipe.method.name,
        scores=_plain(scored) if scored else {},
        missing=dict(scored.missing) if scored else {},
        parameters={
            "backbone": total,
            "trained": trained,
            "stored": stored,
            "trained_share": trained / total,
            "stored_share": stored / total,
        },
        training=training,
        decoding=decoding,
        groups=_group_scores(recipe, test, texts),
        task=task,
    )


def suite_of(recipe: Recipe) -> str:
    """The recipe's own suite, else its task's, else `accuracy` where labels are learned, else `e2e`."""
    otherwise = "accuracy" if recipe.data.labels else "e2e"
    return recipe.score.suite or (load_task(recipe.data.task).suite if recipe.data.task else otherwise)


def score_outputs(recipe: Recipe, test: Sequence[Example], texts: Sequence[str]) -> SuiteResult:
    """The recipe's suite over the decoded texts of its test rows."""
    columns = load_task(recipe.data.task).join if recipe.data.task else ()
    outputs, references = joined(test, texts, columns)
    return score_suite(suite_of(recipe), outputs, references, recipe.score.bertscore, recipe.score.metrics)


def _group_scores(
    recipe: Recipe, test: Sequence[Example], texts: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Seen and unseen categories apart, where the task says which is which."""
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(test):
        if isinstance(example.meta.get("seen"), bool):
            groups.setdefault("seen" if example.meta["seen"] else "unseen", []).append(index)
    return {
        name: _plain(score_outputs(recipe, [test[i] for i in chosen], [texts[i] for i in chosen]))
        for name, chosen in sorted(groups.items())
    }


def _plain(scored: SuiteResult) -> dict[str, dict[str, Any]]:
    return {name: {"score": score.value, "signature": score.signature} for name, score in scored.scores.items()}


def _write_predictions(place: Path, test: Sequence[Example], rows: Sequence[Decoded]) -> None:
    (place / "predictions").mkdir(exist_ok=True)
    lines = [
        json.dumps(
            {"source": each.source, "prediction": row.text, "references": list(each.scored_against), **each.meta},
            ensure_ascii=False,
        )
        for each, row in zip(test, rows, strict=True)
    ]
    write_text_atomic(place / "predictions" / "test.jsonl", "".join(f"{line}\n" for line in lines))


def _finished(place: Path) -> ArmResult:
    say(f"{place}: done before, read back")
    return ArmResult(**json.loads((place / SCORES).read_text(encoding="utf-8")))
