"""A learned artefact on disk: tensors, the facts needed to use them again, the backbone they belong to, a manifest."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from softprompt.errors import CheckpointError
from softprompt.facts import FORMAT, FinetuneFacts, KeptFacts, parse_facts, printable, read_strict_json
from softprompt.files import MANIFEST, save_tensors, verify_manifest, write_folder_atomic
from softprompt.tensors import Header, read_finite, read_header, require_header

TENSORS, FACTS = "adapter_model.safetensors", "softprompt.json"

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
    parse_facts(own, folder)  # what is written can be read back

    def fill_all(into: Path) -> None:
        fill(into)
        (into / FACTS).write_text(json.dumps(own, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    write_folder_atomic(folder, fill_all)


def load_artefact(
    folder: Path,
    methods: Collection[str],
    backbone_hash: str | None,
    fits: Callable[[Any], None] = lambda _: None,
) -> tuple[dict[str, Tensor], Any]:
    """The tensors and facts of a folder written by `save_artefact`; every byte is checked against the manifest.

    `fits` looks at the facts before a number is read, and raises where they are not of the backbone at hand.

    Raises:
        CheckpointError: missing, damaged, not what a method writes, of a method that is none of `methods`, not finite,
            or (where a hash is given) learned on another backbone.
    """
    facts = read_facts(folder)
    require_match(folder, facts, methods, backbone_hash)
    fits(facts)
    require_tensors(folder, facts)
    return read_finite(folder / TENSORS), facts


def require_match(folder: Path, facts: KeptFacts, methods: Collection[str], backbone_hash: str | None) -> None:
    """Raise `CheckpointError` where the artefact is of other methods or another backbone; None: of any."""
    if facts.method not in methods:
        wanted = " or ".join(map(repr, methods))
        raise CheckpointError(
            f"prompt {folder}: expected one of method {wanted}, got {facts.method!r}. Take such a run."
        )
    if backbone_hash is not None and backbone_hash != facts.backbone.hash:
        raise CheckpointError(
            f"prompt {folder}: learned on backbone {printable(facts.backbone.id)!r} with hash "
            f"{printable(facts.backbone.hash[:12])}..., got one with hash {backbone_hash[:12]}... . "
            "Load the backbone that it was learned on."
        )


def require_tensors(folder: Path, facts: KeptFacts) -> Header | None:
    """The header of the tensors, which must be exactly those that go with the facts; None where another file says it.

    Raises:
        CheckpointError: it is not.
    """
    path = folder / TENSORS
    if isinstance(facts, FinetuneFacts):
        return None
    header = read_header(path)
    try:
        expected = facts.shapes(header.shapes)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}. It goes with other facts.") from None
    if expected is not None:
        require_header(path, header, expected)
    return header


def kept_in(folder: Path) -> Path:
    """The folder of the artefact in a run folder; the folder itself where it is no run's.

    Raises:
        CheckpointError: the run trained several tasks together.
    """
    if (folder / "tasks").is_dir():
        places = sorted(str(path) for path in (folder / "tasks").iterdir())
        raise CheckpointError(f"{folder}: holds a prompt for each of several tasks. Give one of: {', '.join(places)}.")
    return next((folder / name for name in ("prompt", "adapter", "model") if (folder / name).is_dir()), folder)


def read_facts(folder: Path) -> KeptFacts:
    """What is known of an artefact: its method, its backbone, and the method's own: see `softprompt.facts`.

    Raises:
        CheckpointError: missing, any byte of the folder is not as its manifest says, or facts that no method writes.
    """
    if (folder / "adapter_config.json").is_file() and not any((folder / name).exists() for name in (MANIFEST, FACTS)):
        raise CheckpointError(
            f"{folder}: is a folder of PEFT's own, without {MANIFEST} and {FACTS}. `softprompt.load` reads it on its "
            "backbone; nothing else can say what it is."
        )
    verify_manifest(folder)
    return parse_facts(read_strict_json(folder / FACTS), folder)
