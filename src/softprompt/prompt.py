"""The learned artefact of a run, folded: one table of numbers and the facts needed to use it again."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from softprompt.artefact import Facts, load_artefact, save_artefact
from softprompt.backbone import Backbone
from softprompt.errors import CheckpointError
from softprompt.facts import PrefixFacts, PromptFacts, read_strict_json
from softprompt.forms import METHODS_OF_FORMS, PrefixForm, VirtualTokenForm, form_of, split
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
            {"prompt_embeddings": self.numbers.float()},
            {"method": self.form.method, **self.form.facts(), **(extra or {})},
            backbone_id=backbone_id,
            backbone_hash=backbone_hash,
            more={} if peft is None else {PEFT_CONFIG: peft},
        )

    @classmethod
    def load_on(cls, backbone: Backbone, folder: str | Path) -> "Prompt":
        """`load`, checked to be of `backbone`, and put where it is."""
        kept = cls._load(Path(folder), backbone.hash(), lambda form: form.require_fits(backbone))
        return cls(kept.numbers.to(backbone.device), kept.form)

    @classmethod
    def load(cls, folder: str | Path, *, backbone_hash: str | None = None) -> "Prompt":
        """Read a folder written by `save`; every byte is checked against the manifest.

        Raises:
            CheckpointError: missing, damaged, not finite, or (where `backbone_hash` is given) learned on another
                backbone.
        """
        return cls._load(Path(folder), backbone_hash, lambda _: None)

    @classmethod
    def _load(
        cls, folder: Path, backbone_hash: str | None, fits: Callable[[PrefixForm | VirtualTokenForm], None]
    ) -> "Prompt":
        tensors, facts = load_artefact(folder, METHODS_OF_FORMS, backbone_hash, lambda facts: fits(form_of(facts)))
        made = cls(tensors["prompt_embeddings"], form_of(facts))
        require_peft_agrees(folder, facts, made.length)
        return made


def require_peft_agrees(folder: Path, facts: PrefixFacts | PromptFacts, length: int) -> None:
    """Raise `CheckpointError` where adapter_config.json, which PEFT reads, says another thing than softprompt.json."""
    path = folder / PEFT_CONFIG
    if path.exists() and read_strict_json(path) != form_of(facts).peft_config(facts.backbone.id, length):
        raise CheckpointError(f"{path}: says another thing of the prompt than softprompt.json. It is none of ours.")
