"""Whether everything that was kept is there and unchanged: of a prompt, a checkpoint, a whole run, or a sweep."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from softprompt.checkpoint import STATE, read_state, steps
from softprompt.config import Recipe, load_recipe
from softprompt.env import FORMAT, Env, read_env
from softprompt.errors import CheckpointError, ConfigError
from softprompt.files import FACTS, MANIFEST, recover, verify_manifest
from softprompt.folder import RunFolder
from softprompt.identity import Identity, Made, read_record
from softprompt.methods.sound import require_sound
from softprompt.metrics_log import prefix_digest
from softprompt.places import (
    ARMS,
    CARD,
    CHECKPOINTS,
    ENV,
    KEPT_IN,
    METRICS,
    PREDICTIONS,
    RECIPE,
    SCORES,
    SPLITS,
    STATUS,
    TASKS,
    TEST,
    kept_folders,
    require_clear,
)
from softprompt.plain import read_plain
from softprompt.results import read_result
from softprompt.sealed import read_sealed_json, read_sealed_text
from softprompt.sweep import CELLS, PLAN, read_plan

SAYS_A_RUN = (RECIPE, ENV, STATUS, SCORES, SPLITS, METRICS, CHECKPOINTS, PREDICTIONS, ARMS, TASKS)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one file or folder is found to be."""

    path: Path
    problem: str = ""
    """What is wrong with it, in words; empty where it is whole."""
    unchecked: bool = False
    """It was written by a version that kept no checksum of it."""

    def __str__(self) -> str:
        if self.problem:
            return f"{self.path}: NOT WHOLE: {self.problem}"
        return (
            f"{self.path}: {'there; written without a checksum by an earlier version' if self.unchecked else 'whole'}"
        )


def verify(folder: str | Path) -> list[Finding]:
    """Look at everything that is kept in a folder: that it is there, whole, and of one run.

    tb/ is left out: it is for a viewer, and read back by nothing.

    Raises:
        CheckpointError: there is no such folder, or it is none of ours.
    """
    folder = Path(folder)
    recover(folder)
    if (folder / PLAN).exists() or ((folder / CELLS).is_dir() and not (folder / RECIPE).exists()):
        return list(_sweep(folder))
    if not (folder / MANIFEST).exists() and any((folder / name).exists() for name in SAYS_A_RUN):
        return list(_run(folder))
    verify_manifest(folder)
    _require_sound(folder)
    return [Finding(folder)]


def require_whole(found: list[Finding], folder: Path) -> None:
    """Raise `CheckpointError` where anything is not whole."""
    wrong = [one for one in found if one.problem]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{folder}: {len(wrong)} of {len(found)} not whole: {wrong[0].path}: {wrong[0].problem.rstrip('.')}{more}. "
            "Run its command with --resume to have made again what can be."
        )


def _sweep(folder: Path) -> Iterator[Finding]:
    plan = None
    try:
        plan = read_plan(folder / PLAN)
        yield Finding(folder / PLAN)
    except (ConfigError, FileNotFoundError) as error:
        yield Finding(folder / PLAN, _reason(error, folder / PLAN))
    there = {path.name for path in (folder / CELLS).glob("*") if path.is_dir()}
    done = (folder / "sweep.json").exists()
    for name in sorted(there | (set(plan["cells"]) if plan and done else set())):
        if name in there:
            yield from _run(folder / CELLS / name)
        else:
            yield Finding(folder / CELLS / name, "missing, though the sweep has its report")


def _run(root: Path) -> Iterator[Finding]:
    """A run's records first, then every arm and task as far as they say that it has come."""
    recipe, env = None, None
    try:
        env = read_env(root)
        yield Finding(root / ENV, unchecked=env.format < FORMAT)
    except (FileNotFoundError, CheckpointError) as error:
        yield Finding(root / ENV, _reason(error, root / ENV))
    of_old = env is not None and (env.unrecorded or env.format < FORMAT)
    yield (found := _text(root / RECIPE, of_old))
    try:
        recipe = load_recipe(str(root / RECIPE)) if not found.problem else None
        arms = {arm: recipe.arm(arm) for arm in recipe.arms()} if recipe else {}
    except ConfigError as error:
        yield Finding(root / RECIPE, f"no recipe of this version ({error})")
        arms = {}
    status, said = _status(root / STATUS, of_old)
    yield said
    if status == "done" or (root / CARD).exists():
        yield _text(root / CARD, of_old)
    if not arms or env is None:  # nothing says what there has to be
        for path in sorted(one.parent for one in root.rglob(MANIFEST)):
            yield _manifest(path)
        return
    kept = RunFolder(root, made={arm: Made.of(own, None) for arm, own in arms.items()})
    for arm, own in arms.items():
        yield from _arm(kept, arm, own, env, finished=status == "done")


def _arm(kept: RunFolder, arm: str, recipe: Recipe, env: Env, *, finished: bool) -> Iterator[Finding]:
    """One arm: its training, and each of its tasks."""
    place, of_old = kept.place(arm), kept.of_old()
    records = env.records.get(arm, [])
    begun = finished or bool(records) or any((place / name).exists() for name in SAYS_A_RUN if place != kept.root)
    if not begun:
        return
    if place != kept.root:
        yield _text(place / RECIPE, of_old)
        scored = all((kept.place(arm, task) / SCORES).exists() for task in recipe.parts())
        status, found = _status(place / STATUS, of_old, needed=finished or scored)
        yield found
        finished = finished or status == "done"
    identity = Identity(records[-1], tuple(records[:-1]), of_old) if records else None
    if recipe.method.name in KEPT_IN:
        yield from _training(place, identity, finished=finished)
    for task, part in recipe.parts().items():
        yield from _task(kept, arm, task, part, identity, finished=finished)


def _training(place: Path, identity: Identity | None, *, finished: bool) -> Iterator[Finding]:
    """Every checkpoint, and metrics.jsonl against the newest of them."""
    folder, newest = place / CHECKPOINTS, None
    if finished and not steps(folder):
        yield Finding(folder, "no checkpoint there, though training is done")
    for step in steps(folder):
        path = folder / f"step-{step:06d}"
        yield (found := _manifest(path))
        if found.problem:
            continue
        try:
            state = read_state(path / STATE)
            if state.step != step:
                raise CheckpointError(f"{path}: is that of step {state.step}")
            if identity is not None:
                identity.require(state.record, path)
            newest = state
        except CheckpointError as error:
            yield Finding(path, _reason(error, path))
    path = place / METRICS
    if newest is None or newest.metrics_sha256 is None:
        if path.exists() or newest is not None:
            yield Finding(path, "" if path.exists() else "missing", unchecked=True)
        return
    try:
        same = prefix_digest(path, newest.metrics_bytes) == newest.metrics_sha256
        longer = finished and len(read_plain(path)) != newest.metrics_bytes
        yield Finding(path, "" if same and not longer else f"not the log that step {newest.step}'s checkpoint knows of")
    except (FileNotFoundError, CheckpointError) as error:
        yield Finding(path, _reason(error, path))


def _task(
    kept: RunFolder, arm: str, task: str, recipe: Recipe, identity: Identity | None, *, finished: bool
) -> Iterator[Finding]:
    """Splits, prompt, predictions and scores of a task of an arm."""
    place, of_old, method = kept.place(arm, task), kept.of_old(), recipe.method.name
    if task:
        yield _text(place / RECIPE, of_old)
    try:
        require_clear({place: method}, kept.root)
    except ConfigError as error:
        yield Finding(place, str(error))
    yield _splits(place / SPLITS, identity, of_old)
    if method in KEPT_IN and (finished or (place / SCORES).exists() or list(kept_folders(place))):
        path = place / KEPT_IN[method]
        try:
            kept.require_kept(arm, task, method)
            _require_sound(path)
            yield Finding(path)
        except CheckpointError as error:
            yield Finding(path, _reason(error, path))
    if finished or (place / SCORES).exists() or (place / PREDICTIONS / TEST).exists():
        path = place / SCORES
        try:
            expected = kept.expected(arm)
            read_result(place, arm, task, expected, of_old=of_old)
            yield Finding(path, unchecked=expected is None)
            yield Finding(place / PREDICTIONS / TEST, unchecked=expected is None)
        except (FileNotFoundError, CheckpointError) as error:
            yield Finding(path, _reason(error, path))


def _splits(path: Path, identity: Identity | None, of_old: bool) -> Finding:
    try:
        found, sealed = read_sealed_json(path)
        if not (sealed or of_old):
            return Finding(path, "its checksum is gone")
        if sealed and identity is not None:
            identity.require(read_record(found.get("record"), path), path)
        return Finding(path, unchecked=not sealed)
    except (FileNotFoundError, CheckpointError) as error:
        return Finding(path, _reason(error, path))


def _status(path: Path, of_old: bool, needed: bool = True) -> tuple[str, Finding]:
    """The status that it says, empty where that is not known."""
    try:
        found, sealed = read_sealed_json(path)
        status = found.get("status")
        if status not in ("running", "done", "failed", "interrupted") or not (sealed or of_old):
            return "", Finding(path, "no status of a run with a checksum")
        return str(status), Finding(path, unchecked=not sealed)
    except FileNotFoundError:
        return "", Finding(path, "missing" if needed else "", unchecked=True)
    except CheckpointError as error:
        return "", Finding(path, _reason(error, path))


def _text(path: Path, of_old: bool) -> Finding:
    try:
        _, sealed = read_sealed_text(path)
        return Finding(path, "" if sealed or of_old else "its checksum is gone", unchecked=not sealed)
    except (FileNotFoundError, CheckpointError) as error:
        return Finding(path, _reason(error, path))


def _require_sound(folder: Path) -> None:
    """Raise `CheckpointError` where an artefact says of itself what none of ours says; a checkpoint says nothing."""
    if (folder / FACTS).exists():
        require_sound(folder)


def _manifest(folder: Path) -> Finding:
    try:
        verify_manifest(folder)
        _require_sound(folder)
        return Finding(folder)
    except CheckpointError as error:
        return Finding(folder, _reason(error, folder))


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    return str(error).removeprefix(f"{path}: ")
