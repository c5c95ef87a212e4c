"""The learned artefact of a run, folded: one table of numbers and the facts needed to use it again."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from softprompt.artefact import Facts, load_artefact, save_artefact
from softprompt.backbone import Backbone
from softprompt.errors import CheckpointError
from softprompt.forms import FORMS, PrefixForm, VirtualTokenForm, split
from softprompt.inject import PrefixKV

PEFT_CONFIG = "adapter_config.json"


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

    def save(self, folder: Path, *, backbone_id: str, backbone_hash: str, extra: Facts | None = None) -> None:
        """Write the folder: PEFT's two files, ours (the form, the backbone's hash), and a manifest.

        Where PEFT has no such form `adapter_config.json` is left out.
        """
        peft = self.form.peft_config(backbone_id, self.length)
        save_artefact(
            folder,
            {"prompt_embeddings": self.numbers},
            {"method": self.form.method, **self.form.facts(), **(extra or {})},
            backbone_id=backbone_id,
            backbone_hash=backbone_hash,
            more={} if peft is None else {PEFT_CONFIG: peft},
        )

    @classmethod
    def load_on(cls, backbone: Backbone, folder: str | Path) -> "Prompt":
        """`load`, checked to be of `backbone`, and put where it is."""
        kept = cls.load(folder, backbone_hash=backbone.hash())
        return cls(kept.numbers.to(backbone.device), kept.form)

    @classmethod
    def load(cls, folder: str | Path, *, backbone_hash: str | None = None) -> "Prompt":
        """Read a folder written by `save`; every byte is checked against the manifest.

        Raises:
            CheckpointError: missing, damaged, or (where `backbone_hash` is given) learned on another backbone.
        """
        tensors, facts = load_artefact(Path(folder), None, backbone_hash)
        try:
            form = FORMS[facts["method"]].from_facts(facts)
            numbers = tensors["prompt_embeddings"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"prompt {folder}: not a prompt of this version ({error!r}).") from error
        if numbers.ndim != 2 or numbers.shape[1] != form.width:
            raise CheckpointError(f"prompt {folder}: expected numbers (P, {form.width}), got {tuple(numbers.shape)}.")
        return cls(numbers, form)
