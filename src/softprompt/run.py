"""A recipe carried out: train, decode, score and report every arm, into one run folder that can be resumed."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from softprompt import data
from softprompt.answers import kept_answers
from softprompt.backbone import Backbone, default_device
from softprompt.config import MAIN, UNTUNED, Recipe, dump_yaml
from softprompt.console import Progress
from softprompt.decode import Decoded, decode_together
from softprompt.distributed import World, joined
from softprompt.errors import ConfigError, TrainingError, first_line, is_out_of_memory
from softprompt.files import write_text_atomic
from softprompt.fit_tasks import fit_tasks
from softprompt.folder import SCORES, RunFolder, require_free
from softprompt.lock import locked
from softprompt.machine import peak_memory_bytes, reset_peak_memory
from softprompt.methods import Method, Steering, room_taken
from softprompt.prepare import Job, build_method, build_untrained, prepare
from softprompt.results import ArmResult, read_back, score_arm, write_down
from softprompt.resume import RECIPE, Difference, as_started, difference, require_accepted, require_known
from softprompt.sharding import shard
from softprompt.signals import stoppable

SPLITS = "splits.json"


def run_recipe(
    recipe: Recipe, folder: Path, *, resume: bool = False, allow_change: Sequence[str] = (), quiet: bool = False
) -> list[ArmResult]:
    """Carry out all arms of `recipe` in `folder`; the main arm lies at the top, the others under `arms/`.

    With `resume`, finished arms are read back and an unfinished one goes on from its newest checkpoint.
    `allow_change` names fields or sections of the recipe that may differ from those the run was started with; a
    finished arm that such a change reaches goes on from its last checkpoint and is decoded and scored again.

    Under `torchrun` its processes share every batch and every test set. The first of them alone reads and writes
    `folder` and gets the results; the others get none.

    Raises:
        ConfigError: the folder is in use and `resume` is off; another process is at it; recipe, data or backbone
            changed and `allow_change` does not name the field.
        DataError, BackboneError: before anything is written.
        Interrupted: SIGTERM or SIGINT came; everything up to there can be resumed.
    """
    require_known(allow_change, resume)
    with (
        stoppable("stopped; what was done so far is kept. Run the same command with --resume to go on."),
        joined() as world,
    ):
        recipe = as_started(recipe, folder) if resume else recipe
        arms = {arm: recipe.arm(arm) for arm in arm_order(recipe)}
        changed = Difference()
        if world.leads:
            require_free(folder, resume)
            changed = difference(folder, recipe, arms)
            require_accepted(changed.changes, allow_change, folder)
        parts = {(arm, task): part for arm, whole in arms.items() for task, part in whole.parts().items()}
        jobs = prepare(parts)
        _require_same(world, [dump_yaml(recipe), *(json.dumps(job.splits) for job in jobs.values())], "recipe and data")
        with locked(folder) if world.leads else nullcontext():
            if world.leads:
                require_free(folder, resume)  # another process may have been faster
            kept = RunFolder(folder, tuple(allow_change), writes=world.leads)
            kept.begin(recipe, changed)
            try:
                results = [
                    result
                    for arm, whole in arms.items()
                    for result in _arm(
                        kept, arm, whole, {task: jobs[arm, task] for task in whole.parts()}, world, quiet
                    )
                ]
            except BaseException as error:
                kept.note_end(error)
                raise
            kept.status("done")
            return results


def _require_same(world: World, facts: Sequence[str], what: str) -> None:
    """Raise `ConfigError` in every process where one of them has read something else than the leader."""
    if not world.agrees("\n".join(facts)):
        raise ConfigError(
            f"{what}: expected the same in all {world.size} processes, got others than the leader's in one of them. "
            "Put the same files on every machine."
        )


def arm_order(recipe: Recipe) -> list[str]:
    """The untuned backbone first, then the method, then what it is compared with: as the table reads."""
    arms = list(recipe.arms())
    return [arm for arm in arms if arm == UNTUNED] + [arm for arm in arms if arm != UNTUNED]


def _arm(
    kept: RunFolder, arm: str, recipe: Recipe, jobs: Mapping[str, Job], world: World, quiet: bool
) -> list[ArmResult]:
    if all(_is_done(kept, arm, task, world) for task in jobs):
        return [read_back(kept.place(arm, task)) for task in jobs if kept.writes]
    try:
        return _run_arm(kept, arm, recipe, jobs, world, quiet)
    except (RuntimeError, MemoryError, OSError) as error:  # a training step has its own answer to this
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"{arm}: out of memory outside of training steps ({first_line(error)}). What is trained is kept: "
            "lower decode.batch_size (or set train.micro_batch, for dev losses) and use --resume with --allow-change."
        ) from error


def _is_done(kept: RunFolder, arm: str, task: str, world: World) -> bool:
    """Whether the scores are there, as the leader sees it."""
    return world.any(kept.writes and (kept.place(arm, task) / SCORES).exists())


def _run_arm(
    kept: RunFolder, arm: str, recipe: Recipe, jobs: Mapping[str, Job], world: World, quiet: bool
) -> list[ArmResult]:
    backbone, whole_hash = _loaded(recipe, world)
    total = backbone.parameter_count()
    kept.note_inputs(recipe, backbone, whole_hash, world)
    methods = {task: build_method(backbone, job.recipe) for task, job in jobs.items()}
    kept.status("running")
    _write_plan(kept, arm, recipe, jobs)
    learners = {task: method for task, method in methods.items() if method is not None}
    trainings: dict[str, dict[str, Any]] = {}
    if learners:
        train, dev = ({task: getattr(job, part) for task, job in jobs.items()} for part in ("train", "dev"))
        trainings = fit_tasks(
            backbone, learners, train, dev, recipe, kept.place(arm), label=arm, quiet=quiet, world=world
        )
    results = []
    for task, job in jobs.items():
        place, method, training = kept.place(arm, task), methods[task], trainings.get(task)
        if _is_done(kept, arm, task, world):
            results += [read_back(place)] if kept.writes else []
            continue
        if method is None or training is None:
            steering = build_untrained(backbone, job.recipe, job.examples)
        else:
            if kept.writes:
                _keep(method, job, place, whole_hash, training)
            steering = method.fold()
        rows, decoding = _decode(backbone, steering, job, f"{arm} {task}".strip(), world, quiet)
        if kept.writes:
            result = score_arm(arm, task, job, rows, training, decoding, total, method)
            write_down(place, result, job.test, rows)
            results.append(result)
    if arm != MAIN:
        kept.status("done", arm)
    return results


def _loaded(recipe: Recipe, world: World) -> tuple[Backbone, str]:
    """The recipe's backbone, split over the processes where the recipe says so, and its hash."""
    wanted = recipe.backbone
    backbone = Backbone.load(
        wanted.id,
        revision=wanted.revision,
        dtype=wanted.dtype,
        attention=wanted.attention,
        quantize=wanted.quantize,
        device="cpu" if wanted.shard else None,
    )
    digest = backbone.hash()
    _require_same(world, [digest], f"weights of backbone {wanted.id!r}")
    if wanted.shard:
        shard(backbone.model, world, default_device())
    return backbone, digest


def _write_plan(kept: RunFolder, arm: str, recipe: Recipe, jobs: Mapping[str, Job]) -> None:
    """The recipes of an arm and of its tasks, and what their data came to."""
    if not kept.writes:
        return
    recipes = {kept.place(arm): recipe} | {kept.place(arm, task): job.recipe for task, job in jobs.items()}
    for place, own in recipes.items():
        place.mkdir(parents=True, exist_ok=True)
        if place != kept.root:
            write_text_atomic(place / RECIPE, dump_yaml(own))
    for task, job in jobs.items():
        chosen = {**data.choices_of(job.recipe.data), "parts": job.splits}
        write_text_atomic(kept.place(arm, task) / SPLITS, json.dumps(chosen, indent=2) + "\n")


def _keep(method: Method, job: Job, place: Path, before: str, training: Mapping[str, Any]) -> None:
    """Write the artefact, and how it answers; `before` is the backbone's hash before training."""
    recipe = job.recipe
    extra = {"step": training["selected_step"], "dev_loss": training["dev_loss"], "seed": recipe.seed}
    extra |= kept_answers(job.decode, job.labels)
    method.save(place / method.kept_in, backbone_id=recipe.backbone.id, backbone_hash=before, extra=extra)


def _decode(
    backbone: Backbone, steering: Steering, job: Job, label: str, world: World, quiet: bool
) -> tuple[list[Decoded], dict[str, Any]]:
    recipe, test = job.recipe, job.test
    progress = Progress(f"{label}: decode", len(test), "sources", quiet=quiet or not world.leads)
    reset_peak_memory(backbone.device)
    started = time.monotonic()
    rows = decode_together(
        backbone,
        steering,
        [example.source for example in test],
        job.decode,
        labels=job.labels,
        seed=recipe.seed,
        world=world,
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
