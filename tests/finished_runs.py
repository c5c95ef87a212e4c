"""What tests do to the folder of a tiny run that is done: stop it, damage it, edit it, age it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from softprompt.checkpoint import STATE
from softprompt.files import write_manifest
from softprompt.sealed import SEAL, write_sealed_json
from softprompt.verify import verify


def unfinished(run: Path) -> Path:
    """The same as if it had been stopped after step 2."""
    for path in (run / "scores.json", run / "README.md"):
        path.unlink()
    for name in ("prompt", "predictions", "checkpoints/step-000003"):
        shutil.rmtree(run / name)
    write_sealed_json(run / "status.json", {"status": "interrupted"})
    return run


def flip(path: Path, at: float = 0.5) -> None:
    raw = bytearray(path.read_bytes())
    raw[int(len(raw) * at)] ^= 1
    path.write_bytes(raw)


def problems(run: Path) -> str:
    return "\n".join(str(one) for one in verify(run) if one.problem)


def unsealed(path: Path) -> None:
    if path.suffix == ".json":
        path.write_text(json.dumps({key: v for key, v in json.loads(path.read_text()).items() if key != SEAL}))
    else:
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=2) + "\n")


def as_before(run: Path) -> None:
    """A run folder as versions without checksums and records wrote it."""
    for path in [*run.rglob("recipe.yaml"), *run.rglob("README.md"), run / "env.json", run / "status.json"]:
        if path.exists():
            unsealed(path)
    edited(run / "env.json", lambda env: [env.pop(key) for key in ("format", "records", "unrecorded")])
    for path in run.rglob("scores.json"):
        edited(path, lambda kept: [kept.pop(key) for key in (SEAL, "record", "predictions")])
    for path in run.rglob("splits.json"):
        edited(path, lambda kept: [kept.pop(key) for key in (SEAL, "record")])
    for path in run.glob(f"checkpoints/*/{STATE}"):
        edited(path, lambda state: [state.pop(key) for key in ("metrics_sha256", "record")])
        write_manifest(path.parent)
    for path in run.glob("prompt/softprompt.json"):
        edited(path, lambda facts: facts.pop("record"))
        write_manifest(path.parent)
