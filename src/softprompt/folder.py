"""A run folder being written: its records of what the run was made from, and what of it is done and whole."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from softprompt.backbone import Backbone
from softprompt.checkpoint import STATE, read_state
from softprompt.config import MAIN, Recipe, dump_yaml
from softprompt.console import say
from softprompt.distributed import World
from softprompt.env import FORMAT, Env, read_env
from softprompt.errors import CheckpointError, Interrupted, SoftpromptError
from softprompt.files import FACTS, verify_manifest
from softprompt.identity import Identity, Made, Record, backbone_key, read_record
from softprompt.machine import environment
from softprompt.places import ARMS, CHECKPOINTS, KEPT_IN, RECIPE, SCORES, STATUS, TASKS, require_clear, require_run
from softprompt.plain import read_json
from softprompt.resume import Change, Difference, Inputs, backbone_change, has_results, require_accepted
from softprompt.sealed import write_sealed_json, write_sealed_text
from softprompt.signals import Stopped


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, and the changes that its user accepts by name."""

    root: Path
    allowed: tuple[str, ...] = ()
    writes: bool = True
    """Off in the processes of a job that do not lead it: nothing here touches the disk."""
    made: Mapping[str, Made] = field(default_factory=dict)
    """Arm -> what it is made from."""

    def place(self, arm: str, task: str = "") -> Path:
        """The main arm lies at the top, the others under `arms/`; a task of several under `tasks/` of its arm."""
        place = self.root if arm == MAIN else self.root / ARMS / arm
        return place / TASKS / task if task else place

    def require_clear(self, arms: Mapping[str, Recipe]) -> None:
        """Raise `ConfigError` where the folder is no run's, or something that is not ours is in the way."""
        require_run(self.root)
        learns: dict[Path, str | None] = {}
        for arm, recipe in arms.items():
            learns[self.place(arm)] = None
            learns |= {self.place(arm, task): part.method.name for task, part in recipe.parts().items()}
        require_clear(learns, self.root)

    def begin(self, recipe: Recipe, changed: Difference) -> None:
        """Write the recipe down; arms that an accepted change reaches are no longer done."""
        if not self.writes:
            return
        if changed.unrecorded:
            say(
                f"warning: {self.root} was begun by a version that kept no checksums: whether its checkpoints, prompts "
                "and scores are its own cannot be checked"
            )
        self._accept(changed.changes, changed.unrecorded)
        for arm in changed.arms:
            for scores in (self.place(arm) / SCORES, *self.place(arm).glob(f"{TASKS}/*/{SCORES}")):
                scores.unlink(missing_ok=True)
        write_sealed_text(self.root / RECIPE, dump_yaml(recipe))

    def _accept(self, changes: Sequence[Change], unrecorded: bool = False) -> None:
        """Say and record changes that the user named. Raises `ConfigError` where one is not named."""
        require_accepted(changes, self.allowed, self.root)
        for one in changes:
            say(f"warning: {one.field} changed ({one.what}); going on, as --allow-change says")
        if not (changes or unrecorded):
            return
        env, lost = self.env()
        env.accepted += [f"{one.field}: {one.what}" for one in changes]
        env.unrecorded = env.unrecorded or unrecorded
        if lost:  # what is there was accepted by its user
            for arm in self.made:
                env.records[arm] = self._records_found(arm)
        env.write(self.root)

    def env(self) -> tuple[Env, bool]:
        """env.json; an empty one, and True, where there is none that can be read."""
        try:
            return read_env(self.root), False
        except (FileNotFoundError, CheckpointError):
            return Env(), True

    def _records_found(self, arm: str) -> list[Record]:
        """The records that an arm's checkpoints carry."""
        found = []
        for path in self.place(arm).glob(f"{CHECKPOINTS}/step-*/{STATE}"):
            try:
                found.append(read_state(path).record)
            except CheckpointError:
                continue
        return list(dict.fromkeys(record for record in found if record is not None))

    def note_inputs(
        self, arm: str, recipe: Recipe, read: Inputs, backbone: Backbone, digest: str, world: World, changed: Difference
    ) -> Identity | None:
        """Put machine, data and backbone into env.json; weights other than an earlier sitting's are refused.

        Returns whose files the arm takes for its own; None in a process that does not write.
        """
        if not self.writes:
            return None
        key, env = backbone_key(recipe), self.env()[0]
        parts = [self.place(arm), *(self.place(arm, task) for task in recipe.tasks)]
        begun = any(map(has_results, parts)) and not changed.backbone
        self._accept(backbone_change(env, key, digest, begun))
        env, record = self.env()[0], self.made[arm].record(digest)
        known = [one for one in env.records.get(arm, []) if one != record]
        own = Env(
            data=env.data | {name: sha for _, name, sha in read},
            backbones=env.backbones | {key: digest},
            accepted=env.accepted,
            records=env.records | {arm: [*known, record]},
            unrecorded=env.unrecorded,
            **{**(env.model_extra or {}), **environment(backbone.device), "processes": world.size},
        )
        own.write(self.root)
        return Identity(record, tuple(known), env.unrecorded)

    def expected(self, arm: str) -> Identity | None:
        """Whose files a finished arm's are, without its backbone at hand; None where that is not known."""
        env, lost = self.env()
        made = self.made[arm]
        records = env.records.get(arm, [])
        if lost or not records or env.backbones.get(made.backbone) != records[-1].backbone:
            return None
        return Identity(records[-1], (), env.unrecorded) if made.fits(records[-1]) else None

    def of_old(self) -> bool:
        """Whether nothing can be said of what is there, the run being of a version without records."""
        env, lost = self.env()
        return not lost and (env.unrecorded or env.format < FORMAT)

    def require_kept(self, arm: str, task: str, method: str) -> None:
        """Raise `CheckpointError` unless what an arm or task has learned is there, whole and of this run."""
        if method not in KEPT_IN:
            return
        folder, expected = self.place(arm, task) / KEPT_IN[method], self.expected(arm)
        verify_manifest(folder)
        facts = read_json(folder / FACTS)
        if not isinstance(facts, dict):
            raise CheckpointError(f"{folder / FACTS}: damaged: expected a JSON object.")
        record = read_record(facts.get("record"), folder)
        if expected is not None:
            expected.require(record, folder)
        elif record is not None or not self.of_old():
            raise CheckpointError(f"{folder}: it is not known what run it belongs to.")
        if record is not None and facts.get("task", "") != task:
            raise CheckpointError(f"{folder}: expected what was learned for task {task!r}, got {facts.get('task')!r}.")

    def status(self, status: str, arm: str = MAIN, **more: str) -> None:
        if self.writes:
            write_sealed_json(self.place(arm) / STATUS, {"status": status, **more})

    def note_end(self, error: BaseException) -> None:
        """Leave the reason in status.json where the disk still allows it."""
        try:
            if isinstance(error, (Interrupted, Stopped, KeyboardInterrupt)):
                self.status("interrupted")
            else:
                self.status("failed", reason=str(error))
        except (OSError, SoftpromptError):
            say(f"could not write {self.root / STATUS}")


def extra_facts(record: Record, task: str) -> dict[str, object]:
    """What an artefact carries of its run."""
    return {"record": asdict(record), **({"task": task} if task else {})}
