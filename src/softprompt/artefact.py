"""A learned artefact on disk: tensors, the facts needed to use them again, the backbone they belong to, a manifest."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from softprompt.errors import CheckpointError
from softprompt.files import FACTS as FACTS
from softprompt.files import load_tensors, recover, save_tensors, verify_manifest, write_folder_atomic

TENSORS = "adapter_model.safetensors"
FORMAT = 1

Facts = Mapping[str, Any]
"""What is known of an artefact, as JSON keeps it."""


def save_artefact(
    folder: Path,
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    *,
    backbone_id: str,
    backbone_hash: str,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write `folder` at once: tensors, `facts` with the backbone's id and hash, and JSON files `more` by name."""

    def fill(into: Path) -> None:
        save_tensors({name: tensor.detach() for name, tensor in tensors.items()}, into / TENSORS)
        for name, content in (more or {}).items():
            (into / name).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    write_artefact(folder, fill, facts, backbone_id=backbone_id, backbone_hash=backbone_hash)


def write_artefact(
    folder: Path, fill: Callable[[Path], None], facts: Mapping[str, Any], *, backbone_id: str, backbone_hash: str
) -> None:
    """Write `folder` at once: what `fill` puts into it, `facts` with the backbone's id and hash, and a manifest."""
    own = {"format": FORMAT, **facts, "backbone": {"id": backbone_id, "hash": backbone_hash}}

    def fill_all(into: Path) -> None:
        fill(into)
        (into / FACTS).write_text(json.dumps(own, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    write_folder_atomic(folder, fill_all)


def load_artefact(
    folder: Path, method: str | None, backbone_hash: str | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a folder written by `save_artefact`; every byte is checked against the manifest.

    Raises:
        CheckpointError: missing or damaged, learned by another method than `method`, or (where a hash is given) on
            another backbone.
    """
    facts = read_facts(folder)
    require_match(folder, facts, method, backbone_hash)
    try:
        tensors = load_tensors(folder / TENSORS)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"prompt {folder}: its tensors cannot be read ({error!r}).") from error
    return tensors, facts


def require_match(folder: Path, facts: Mapping[str, Any], method: str | None, backbone_hash: str | None) -> None:
    """Raise `CheckpointError` where the artefact is of another method or backbone than asked for; None: any."""
    learned_by, name, kept_hash = facts["method"], facts["backbone"]["id"], facts["backbone"]["hash"]
    if method is not None and learned_by != method:
        raise CheckpointError(f"prompt {folder}: expected one of method {method!r}, got {learned_by!r}.")
    if backbone_hash is not None and backbone_hash != kept_hash:
        raise CheckpointError(
            f"prompt {folder}: learned on backbone {name!r} with hash {kept_hash[:12]}..., "
            f"got one with hash {backbone_hash[:12]}... . Load the backbone that it was learned on."
        )


def kept_in(folder: Path) -> Path:
    """The folder of the artefact in a run folder; the folder itself where it is no run's.

    Raises:
        CheckpointError: the run trained several tasks together.
    """
    if (folder / "tasks").is_dir():
        places = sorted(str(path) for path in (folder / "tasks").iterdir())
        raise CheckpointError(f"{folder}: holds a prompt for each of several tasks. Give one of: {', '.join(places)}.")
    for name in ("prompt", "adapter", "model"):
        recover(folder / name)  # a kill may have left it under another name
        if (folder / name).is_dir():
            return folder / name
    return folder


def read_facts(folder: Path) -> dict[str, Any]:
    """What is known of an artefact: `method`, `backbone` (id and hash), and the method's own.

    Raises:
        CheckpointError: missing, or any byte of the folder is not as its manifest says.
    """
    verify_manifest(folder)
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        _ = facts["method"], facts["backbone"]["id"], facts["backbone"]["hash"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"prompt {folder}: not a prompt of this version ({error!r}).") from error
    return facts
