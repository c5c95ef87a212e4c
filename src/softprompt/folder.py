"""A run folder: where things lie in it, and the record of what the run was made from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt.backbone import Backbone
from softprompt.config import MAIN, Recipe, dump_yaml
from softprompt.console import say
from softprompt.distributed import World
from softprompt.errors import ConfigError, Interrupted
from softprompt.files import write_text_atomic
from softprompt.lock import LOCK
from softprompt.machine import environment
from softprompt.resume import ENV, RECIPE, Change, Difference, backbone_change, inputs, read_env, require_accepted
from softprompt.signals import Stopped

SCORES, STATUS = "scores.json", "status.json"


def require_free(folder: Path, resume: bool) -> None:
    """Raise `ConfigError` where `folder` is a file, or holds something and the run is not to go on with it."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"run folder {folder}: expected a folder, got a file. Use --out for another place.")
    if not resume and folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
        raise ConfigError(
            f"run folder {folder} is not empty. Use --resume to go on with it, or --out for another folder."
        )


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, and the changes that its user accepts by name."""

    root: Path
    allowed: tuple[str, ...] = ()
    writes: bool = True
    """Off in the processes of a job that do not lead it: nothing here touches the disk."""

    def place(self, arm: str, task: str = "") -> Path:
        """The main arm lies at the top, the others under `arms/`; a task of several under `tasks/` of its arm."""
        place = self.root if arm == MAIN else self.root / "arms" / arm
        return place / "tasks" / task if task else place

    def begin(self, recipe: Recipe, changed: Difference) -> None:
        """Write the recipe down; arms that an accepted change reaches are no longer done."""
        if not self.writes:
            return
        self.accept(changed.changes)
        for arm in changed.arms:
            for scores in (self.place(arm) / SCORES, *self.place(arm).glob(f"tasks/*/{SCORES}")):
                scores.unlink(missing_ok=True)
        write_text_atomic(self.root / RECIPE, dump_yaml(recipe))

    def accept(self, changes: Sequence[Change]) -> None:
        """Say and record changes that the user named. Raises `ConfigError` where one is not named."""
        require_accepted(changes, self.allowed, self.root)
        for one in changes:
            say(f"warning: {one.field} changed ({one.what}); going on, as --allow-change says")
        if changes:
            before = read_env(self.root)
            accepted = [*before.get("accepted", []), *(f"{one.field}: {one.what}" for one in changes)]
            self._write_env({**before, "accepted": accepted})

    def note_inputs(self, recipe: Recipe, backbone: Backbone, digest: str, world: World) -> None:
        """Put machine, data and backbone into env.json; weights other than an earlier sitting's are refused."""
        if not self.writes:
            return
        at = f"@{recipe.backbone.revision}" if recipe.backbone.revision else ""
        key = f"{recipe.backbone.id}{at} in {recipe.backbone.dtype}"
        self.accept(backbone_change(self.root, key, digest))
        before = read_env(self.root)
        known = {
            "data": before.get("data", {}) | {name: sha for _, name, sha in inputs(recipe)},
            "backbones": before.get("backbones", {}) | {key: digest},
        }
        self._write_env({**before, **environment(backbone.device), "processes": world.size, **known})

    def status(self, status: str, arm: str = MAIN, **more: str) -> None:
        if self.writes:
            write_text_atomic(self.place(arm) / STATUS, json.dumps({"status": status, **more}) + "\n")

    def note_end(self, error: BaseException) -> None:
        """Leave the reason in status.json where the disk still allows it."""
        try:
            if isinstance(error, (Interrupted, Stopped, KeyboardInterrupt)):
                self.status("interrupted")
            else:
                self.status("failed", reason=str(error))
        except OSError:
            say(f"could not write {self.root / STATUS}")

    def _write_env(self, env: Mapping[str, Any]) -> None:
        write_text_atomic(self.root / ENV, json.dumps(env, indent=2) + "\n")
