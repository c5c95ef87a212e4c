"""The learned artefact of a run, folded: one table of numbers and the facts needed to use it again."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompt.backbone import Backbone
from softprompt.errors import CheckpointError
from softprompt.files import load_tensors, save_tensors, verify_manifest, write_folder_atomic
from softprompt.forms import FORMS, PrefixForm, VirtualTokenForm, split
from softprompt.inject import PrefixKV

TENSORS = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
OWN_CONFIG = "softprompt.json"


@dataclass(frozen=True)
class Prompt:
    """A folded prompt: P rows of `form.width` numbers each. The tensor is stored under PEFT's name."""

    numbers: Tensor
    form: PrefixForm | VirtualTokenForm

    @property
    def length(self) -> int:
        """P, in virtual tokens."""
        return self.numbers.shape[0]

    @property
    def position_offset(self) -> int:
        """The position of the first real token."""
        return self.form.position_offset(self.length)

    def place(self, backbone: Backbone, source: Sequence[int]) -> tuple[int, ...]:
        """A source's ids with the virtual tokens among them, where the form has any."""
        return self.form.place(backbone, source, self.length)

    def attach(self, backbone: Backbone, *, shared: bool = False) -> AbstractContextManager[None]:
        """Steer `backbone` inside the block."""
        return self.form.attach(backbone, self.numbers, shared=shared)

    def keys_and_values(self, device: torch.device | None = None) -> dict[str, PrefixKV]:
        """Site name -> (H, P, D) keys and values of a prefix."""
        assert isinstance(self.form, PrefixForm)
        return split(self.numbers.to(device), self.form.sites)

    def save(self, folder: Path, *, backbone_id: str, backbone_hash: str, extra: dict[str, Any] | None = None) -> None:
        """Write the folder: PEFT's two files, ours (the form, the backbone's hash), and a manifest.

        Where PEFT has no such form `adapter_config.json` is left out.
        """
        own = {
            "format": 1,
            "method": self.form.method,
            **self.form.facts(),
            "backbone": {"id": backbone_id, "hash": backbone_hash},
            **(extra or {}),
        }
        peft = self.form.peft_config(backbone_id, self.length)

        def fill(into: Path) -> None:
            save_tensors({"prompt_embeddings": self.numbers}, into / TENSORS)
            _write_json(own, into / OWN_CONFIG)
            if peft is not None:
                _write_json(peft, into / PEFT_CONFIG)

        write_folder_atomic(folder, fill)

    @classmethod
    def load(cls, folder: str | Path, *, backbone_hash: str | None = None) -> "Prompt":
        """Read a folder written by `save`; every byte is checked against the manifest.

        Raises:
            CheckpointError: missing, damaged, or (where `backbone_hash` is given) learned on another backbone.
        """
        folder = Path(folder)
        verify_manifest(folder)
        try:
            own = json.loads((folder / OWN_CONFIG).read_text(encoding="utf-8"))
            learned_on = own["backbone"]
            form = FORMS[own["method"]].from_facts(own)
            numbers = load_tensors(folder / TENSORS)["prompt_embeddings"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"prompt {folder}: not a prompt of this version ({error!r}).") from error
        if backbone_hash is not None and backbone_hash != learned_on["hash"]:
            raise CheckpointError(
                f"prompt {folder}: learned on backbone {learned_on['id']!r} with hash {learned_on['hash'][:12]}..., "
                f"got one with hash {backbone_hash[:12]}... . Load the backbone that it was learned on."
            )
        if numbers.ndim != 2 or numbers.shape[1] != form.width:
            raise CheckpointError(f"prompt {folder}: expected numbers (P, {form.width}), got {tuple(numbers.shape)}.")
        return cls(numbers, form)


def _write_json(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
