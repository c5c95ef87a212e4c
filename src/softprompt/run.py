"""A recipe carried out: train, decode, score and report every arm, into one run folder that can be resumed."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from softprompt import data
from softprompt.answers import kept_answers
from softprompt.backbone import Backbone, default_device
from softprompt.config import MAIN, UNTUNED, Recipe, dump_yaml
from softprompt.console import Progress, say
from softprompt.decode import Decoded, decode_together
from softprompt.distributed import World, joined
from softprompt.errors import CheckpointError, ConfigError, TrainingError, first_line, is_out_of_memory
from softprompt.fit_tasks import fit_tasks
from softprompt.folder import RunFolder, extra_facts
from softprompt.identity import Identity, Made
from softprompt.lock import locked
from softprompt.machine import peak_memory_bytes, reset_peak_memory
from softprompt.methods import Method, Steering, room_taken
from softprompt.places import RECIPE, SCORES, SPLITS, require_free
from softprompt.prepare import Job, build_method, build_untrained, prepare
from softprompt.report import write_card
from softprompt.results import ArmResult, read_result, score_arm, write_down
from softprompt.resume import Difference, Inputs, as_started, difference, inputs, require_accepted, require_known
from softprompt.sealed import write_sealed_json, write_sealed_text
from softprompt.sharding import shard
from softprompt.signals import stoppable

_STOPPED = (
    "stopped; checkpoints, prompts and scores so far are kept, a decoding that was under way starts again. "
    "Run the same command with --resume to go on."
)


def run_recipe(
    recipe: Recipe, folder: str | Path, *, resume: bool = False, allow_change: Sequence[str] = (), quiet: bool = False
) -> list[ArmResult]:
    """Carry out all arms of `recipe` in `folder`; the main arm lies at the top, the others under `arms/`.

    With `resume`, finished arms are read back and an unfinished one goes on from its newest checkpoint. What is damaged
    or missing of a finished one is made again: its prompt from the last checkpoint, its scores by decoding.
    `allow_change` names fields or sections of the recipe that may differ from those the run was started with; a
    finished arm that such a change reaches goes on from its last checkpoint and is decoded and scored again.

    Under `torchrun` its processes share every batch and every test set. The first of them alone reads and writes
    `folder` and gets the results; the others get none.

    Raises:
        ConfigError: the folder is in use and `resume` is off, or no run's; another process is at it; something that is
            not ours is in the way; recipe, data or backbone changed, or are not known, and `allow_change` does not name
            the field.
        DataError, BackboneError: before anything is written.
        Interrupted: SIGTERM or SIGINT came; everything up to there can be resumed.
    """
    require_known(allow_change, resume)
    folder = Path(folder)
    with (
        stoppable(_STOPPED),
        joined() as world,
    ):
        recipe = as_started(recipe, folder) if resume else recipe
        arms = {arm: recipe.arm(arm) for arm in arm_order(recipe)}
        changed, read = Difference(), dict[str, Inputs]()
        if world.leads:
            require_free(folder, resume)
            RunFolder(folder).require_clear(arms)
            read = {arm: inputs(own) for arm, own in arms.items()}
            changed = difference(folder, recipe, arms, read)
            require_accepted(changed.changes, allow_change, folder)
        parts = {(arm, task): part for arm, whole in arms.items() for task, part in whole.parts().items()}
        jobs = prepare(parts)
        _require_same(world, [dump_yaml(recipe), *(json.dumps(job.splits) for job in jobs.values())], "recipe and data")
        with locked(folder) if world.leads else nullcontext():
            if world.leads:
                require_free(folder, resume)  # another process may have been faster
            made = {arm: Made.of(arms[arm], own) for arm, own in read.items()}
            kept = RunFolder(folder, tuple(allow_change), writes=world.leads, made=made)
            kept.begin(recipe, changed)
            run = _Run(kept, read, changed, world, quiet)
            try:
                results = [
                    result
                    for arm, whole in arms.items()
                    for result in _arm(run, arm, whole, {task: jobs[arm, task] for task in whole.parts()})
                ]
                kept.status("done")
                if world.leads:
                    write_card(recipe, folder, results)
            except BaseException as error:
                kept.note_end(error)
                raise
            return results


@dataclass(frozen=True)
class _Run:
    """What all arms of one run share."""

    kept: RunFolder
    read: Mapping[str, Inputs]
    changed: Difference
    world: World
    quiet: bool


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


def _arm(run: _Run, arm: str, recipe: Recipe, jobs: Mapping[str, Job]) -> list[ArmResult]:
    done = {task: _result(run, arm, task) for task in jobs}
    scored = {task: run.world.any(result is not None) for task, result in done.items()}
    whole = {task: run.world.any(_is_kept(run, arm, task, job)) for task, job in jobs.items()}
    if all(scored.values()) and all(whole.values()):
        if run.kept.writes:
            _write_plan(run.kept, arm, recipe, jobs, run.kept.expected(arm))
        if arm != MAIN:
            run.kept.status("done", arm)
        return [result for result in done.values() if result is not None]
    try:
        return _run_arm(run, arm, recipe, jobs, done, {task: scored[task] and whole[task] for task in jobs})
    except (RuntimeError, MemoryError, OSError) as error:  # a training step has its own answer to this
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"{arm}: out of memory outside of training steps ({first_line(error)}). What is trained is kept: "
            "lower decode.batch_size (or set train.micro_batch, for dev losses) and use --resume with --allow-change."
        ) from error


def _result(run: _Run, arm: str, task: str) -> ArmResult | None:
    """What a task came to before, as the leader reads it; None where it is to be decoded and scored."""
    if not run.kept.writes:
        return None
    place = run.kept.place(arm, task)
    try:
        result = read_result(place, arm, task, run.kept.expected(arm), of_old=run.kept.of_old())
    except FileNotFoundError:
        return None
    except CheckpointError as error:
        say(f"warning: {error} It is decoded and scored again.")
        return None
    say(f"{place}: done before, read back")
    return result


def _is_kept(run: _Run, arm: str, task: str, job: Job) -> bool:
    """Whether what a task has learned is there and whole, as the leader sees it."""
    if not run.kept.writes:
        return False
    try:
        run.kept.require_kept(arm, task, job.recipe.method.name)
    except CheckpointError as error:
        if (run.kept.place(arm, task) / SCORES).exists():
            say(f"warning: {error} It is made again from the last checkpoint.")
        return False
    return True


def _run_arm(
    run: _Run,
    arm: str,
    recipe: Recipe,
    jobs: Mapping[str, Job],
    done: Mapping[str, ArmResult | None],
    whole: Mapping[str, bool],
) -> list[ArmResult]:
    """The tasks of an arm that are not `whole`; what is `done` of one was decoded and scored before."""
    kept, world = run.kept, run.world
    backbone, digest = _loaded(recipe, world)
    total = backbone.parameter_count()
    identity = kept.note_inputs(arm, recipe, run.read.get(arm, ()), backbone, digest, world, run.changed)
    methods = {task: build_method(backbone, job.recipe) for task, job in jobs.items()}
    kept.status("running")
    _write_plan(kept, arm, recipe, jobs, identity)
    learners = {task: method for task, method in methods.items() if method is not None}
    trainings: dict[str, dict[str, Any]] = {}
    if learners:
        train, dev = ({task: getattr(job, part) for task, job in jobs.items()} for part in ("train", "dev"))
        trainings = fit_tasks(
            backbone,
            learners,
            train,
            dev,
            recipe,
            kept.place(arm),
            label=arm,
            quiet=run.quiet,
            world=world,
            identity=identity,
        )
    results = []
    for task, job in jobs.items():
        place, method, training, before = kept.place(arm, task), methods[task], trainings.get(task), done[task]
        if whole[task]:
            results += [before] if before is not None else []
            continue
        if method is None or training is None:
            steering = build_untrained(backbone, job.recipe, job.examples)
        else:
            if kept.writes:
                _keep(method, job, place, digest, training, identity, task)
            steering = method.fold()
        if world.any(before is not None):
            results += [before] if before is not None else []
            continue
        rows, decoding = _decode(backbone, steering, job, f"{arm} {task}".strip(), world, run.quiet)
        if kept.writes:
            result = score_arm(arm, task, job, rows, training, decoding, total, method)
            write_down(place, result, job.test, rows, identity.record if identity else None)
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


def _write_plan(kept: RunFolder, arm: str, recipe: Recipe, jobs: Mapping[str, Job], identity: Identity | None) -> None:
    """The recipes of an arm and of its tasks, and what their data came to."""
    if not kept.writes:
        return
    recipes = {kept.place(arm): recipe} | {kept.place(arm, task): job.recipe for task, job in jobs.items()}
    for place, own in recipes.items():
        place.mkdir(parents=True, exist_ok=True)
        if place != kept.root:
            write_sealed_text(place / RECIPE, dump_yaml(own))
    record = asdict(identity.record) if identity else None
    for task, job in jobs.items():
        chosen = {**data.choices_of(job.recipe.data), "parts": job.splits, "record": record}
        write_sealed_json(kept.place(arm, task) / SPLITS, chosen)


def _keep(
    method: Method,
    job: Job,
    place: Path,
    before: str,
    training: Mapping[str, Any],
    identity: Identity | None,
    task: str,
) -> None:
    """Write the artefact, how it answers and what it belongs to; `before` is the backbone's hash before training."""
    recipe = job.recipe
    extra = {"step": training["selected_step"], "dev_loss": training["dev_loss"], "seed": recipe.seed}
    extra |= kept_answers(job.decode, job.labels)
    extra |= extra_facts(identity.record, task) if identity else {}
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
