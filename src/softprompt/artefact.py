"""A learned artefact on disk: tensors, the facts needed to use them again, the backbone they belong to, a manifest."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from softprompt.errors import CheckpointError
from softprompt.files import load_tensors, save_tensors, verify_manifest, write_folder_atomic

TENSORS, FACTS = "adapter_model.safetensors", "softprompt.json"
FORMAT = 1


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
    own = {"format": FORMAT, **facts, "backbone": {"id": backbone_id, "hash": backbone_hash}}

    def fill(into: Path) -> None:
        save_tensors({name: tensor.detach() for name, tensor in tensors.items()}, into / TENSORS)
        for name, content in {FACTS: own, **(more or {})}.items():
            (into / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    write_folder_atomic(folder, fill)


def load_artefact(
    folder: Path, method: str | None, backbone_hash: str | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a folder written by `save_artefact`; every byte is checked against the manifest.

    Raises:
        CheckpointError: missing or damaged, learned by another method than `method`, or (where a hash is given) on
            another backbone.
    """
    verify_manifest(folder)
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        learned_on, learned_by = facts["backbone"], facts["method"]
        name, kept_hash = learned_on["id"], learned_on["hash"]
        tensors = load_tensors(folder / TENSORS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"prompt {folder}: not a prompt of this version ({error!r}).") from error
    if method is not None and learned_by != method:
        raise CheckpointError(f"prompt {folder}: expected one of method {method!r}, got {learned_by!r}.")
    if backbone_hash is not None and backbone_hash != kept_hash:
        raise CheckpointError(
            f"prompt {folder}: learned on backbone {name!r} with hash {kept_hash[:12]}..., "
            f"got one with hash {backbone_hash[:12]}... . Load the backbone that it was learned on."
        )
    return tensors, facts
