"""The learned artefact of a prefix run, folded: one tensor and the facts needed to use it again."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompt.backbone import Backbone
from softprompt.errors import CheckpointError
from softprompt.files import load_tensors, save_tensors, verify_manifest, write_folder_atomic
from softprompt.inject import PrefixKV, Site, inject

TENSORS = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
OWN_CONFIG = "softprompt.json"


@dataclass(frozen=True)
class Prompt:
    """A folded prefix: `numbers_PW` holds, per virtual token, keys then values of every site (heads, dims).

    That order is PEFT's (layer, key | value, head, dim), so the tensor is stored under PEFT's name.
    """

    numbers_PW: Tensor
    sites: tuple[Site, ...]
    positions: str
    """`shifted`: text starts at position P; `unshifted`: at 0."""

    @property
    def position_offset(self) -> int:
        return self.numbers_PW.shape[0] if self.positions == "shifted" else 0

    @contextmanager
    def attach(self, backbone: Backbone, *, shared: bool = False) -> Iterator[None]:
        """Steer `backbone` inside the block."""
        with inject(backbone.model, self.keys_and_values(backbone.device), shared=shared):
            yield

    def keys_and_values(self, device: torch.device | None = None) -> dict[str, PrefixKV]:
        """Site name -> (H, P, D) keys and values."""
        return split(self.numbers_PW.to(device), self.sites)

    def save(self, folder: Path, *, backbone_id: str, backbone_hash: str, extra: dict[str, Any] | None = None) -> None:
        """Write the folder: PEFT's two files, ours (sites, positions, hash of the backbone), and a manifest.

        PEFT reads it where all sites are alike and positions are shifted (decoder-only backbones); otherwise
        `adapter_config.json` is left out.
        """
        own = {
            "format": 1,
            "method": "prefix",
            "positions": self.positions,
            "sites": [asdict(site) for site in self.sites],
            "backbone": {"id": backbone_id, "hash": backbone_hash},
            **(extra or {}),
        }
        alike = len({(site.kind, site.kv_heads, site.key_dim, site.value_dim) for site in self.sites}) == 1

        def fill(into: Path) -> None:
            save_tensors({"prompt_embeddings": self.numbers_PW}, into / TENSORS)
            _write_json(own, into / OWN_CONFIG)
            if alike and self.positions == "shifted":
                _write_json(self._peft_config(backbone_id), into / PEFT_CONFIG)

        write_folder_atomic(folder, fill)

    def _peft_config(self, backbone_id: str) -> dict[str, Any]:
        site = self.sites[0]
        return {
            "base_model_name_or_path": backbone_id,
            "inference_mode": True,
            "num_attention_heads": site.kv_heads,
            "num_layers": len(self.sites),
            "num_transformer_submodules": 1,
            "num_virtual_tokens": self.numbers_PW.shape[0],
            "peft_type": "PREFIX_TUNING",
            "prefix_projection": False,
            "task_type": "CAUSAL_LM",
            "token_dim": site.kv_heads * site.key_dim,
        }

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
            learned_on, positions = own["backbone"], own["positions"]
            sites = tuple(Site(**site) for site in own["sites"])
            numbers = load_tensors(folder / TENSORS)["prompt_embeddings"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"prompt {folder}: not a prompt of this version ({error!r}).") from error
        if backbone_hash is not None and backbone_hash != learned_on["hash"]:
            raise CheckpointError(
                f"prompt {folder}: learned on backbone {learned_on['id']!r} with hash {learned_on['hash'][:12]}..., "
                f"got one with hash {backbone_hash[:12]}... . Load the backbone that it was learned on."
            )
        expected = sum(site.width for site in sites)
        if numbers.ndim != 2 or numbers.shape[1] != expected:
            raise CheckpointError(f"prompt {folder}: expected numbers (P, {expected}), got {tuple(numbers.shape)}.")
        return cls(numbers, sites, positions)


def _write_json(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def split(numbers_PW: Tensor, sites: Sequence[Site]) -> dict[str, PrefixKV]:
    """Cut (P, W) into each site's keys and values (H, P, D)."""
    parts = torch.split(numbers_PW, [site.width for site in sites], dim=1)
    return {site.name: _site_kv(part, site) for site, part in zip(sites, parts, strict=True)}


def join(keys_and_values: Mapping[str, PrefixKV], sites: Sequence[Site]) -> Tensor:
    """Inverse of `split`: (P, W)."""
    parts = ((keys_and_values[site.name].key, keys_and_values[site.name].value) for site in sites)
    return torch.cat([half_HPD.transpose(0, 1).flatten(1) for pair in parts for half_HPD in pair], dim=1)


def _site_kv(part_PW: Tensor, site: Site) -> PrefixKV:
    widths = [site.kv_heads * site.key_dim, site.kv_heads * site.value_dim]
    keys, values = torch.split(part_PW, widths, dim=1)
    return PrefixKV(
        keys.reshape(-1, site.kv_heads, site.key_dim).transpose(0, 1),
        values.reshape(-1, site.kv_heads, site.value_dim).transpose(0, 1),
    )
