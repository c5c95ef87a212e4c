"""The frozen language model and its tokenizer: loading, freezing, hashing, and a weightless form for dry runs."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging as transformers_logging

from softprompt.errors import BackboneError
from softprompt.inject import Site, checkpoint_contexts, install, probe
from softprompt.quantize import constants, keep_frozen, loading_options
from softprompt.sharding import in_parts

# oneDNN (bfloat16 on a CPU) keeps a kernel with its scratch memory for every shape seen, 1,024 of them by default:
# with batches of every length that is gigabytes. Read when the first kernel is made, so it is set here.
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_name, "32")

BUNDLED = "bundled"
"""Id of the backbone that lies in the package."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained language model, frozen, with attention routed through `softprompt.inject`."""

    id: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    """None only in the weightless form of `Backbone.plan`."""

    @classmethod
    def load(
        cls,
        id: str = BUNDLED,
        *,
        revision: str | None = None,
        dtype: str = "float32",
        attention: str = "sdpa",
        quantize: str | None = None,
        device: str | torch.device | None = None,
    ) -> "Backbone":
        """Load by hub id, local folder, or `bundled`; every parameter is frozen and the model is in eval mode.

        `quantize`: `8bit` or `4bit`, see `softprompt.quantize`.

        Raises:
            BackboneError: not found, no language model that generates text, no usable end-of-text token, or no
                library to quantise with.
        """
        source, place = resolve(id, revision), torch.device(device or default_device())
        try:
            with quiet_transformers():
                config = AutoConfig.from_pretrained(source, revision=revision)
                tokenizer = _tokenizer(id, source, revision)
                asked = getattr(torch, dtype) if dtype != "auto" else None
                options = loading_options(quantize, asked or getattr(config, "dtype", None), place)
                model = _auto_class(config).from_pretrained(source, revision=revision, dtype=asked or "auto", **options)
        except (OSError, ValueError, KeyError) as error:
            raise BackboneError(_cannot_load(id, error)) from error
        with quiet_transformers():
            install(model, attention)
        if options:
            keep_frozen(model)
        else:  # quantised weights are made where they stay
            model.to(place)
        model.eval().requires_grad_(False)
        return cls(id, model, tokenizer)

    @classmethod
    def plan(
        cls, id: str, *, revision: str | None = None, attention: str = "sdpa", tokenizer: bool = False
    ) -> "Backbone":
        """The same architecture on the meta device: shapes and counts, no weights; the tokenizer where asked for.

        The configs of the papers' backbones come with the package, so that a dry run needs no network.
        """
        built_in, own = files("softprompt") / "assets" / "configs" / id, resolve(id, revision)
        source = str(built_in) if (built_in / "config.json").is_file() else own
        try:
            with quiet_transformers():
                config = AutoConfig.from_pretrained(source, revision=revision)
                with torch.device("meta"):
                    model = _auto_class(config).from_config(config)
                install(model, attention)
                words = _tokenizer(id, own, revision) if tokenizer else None
        except (OSError, ValueError, KeyError) as error:
            raise BackboneError(_cannot_load(id, error)) from error
        return cls(id, model.eval().requires_grad_(False), words)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = self.model.device
        return device

    @property
    def window(self) -> int | None:
        """Longest input in tokens (learned or trained positions), or None where the config states none."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        return int(limit) if limit else None

    @property
    def family(self) -> str:
        """`seq2seq` for an encoder-decoder, else `causal`."""
        return "seq2seq" if self.model.config.is_encoder_decoder else "causal"

    @property
    def eos_id(self) -> int:
        """End of text: ends the target, and separates it from the source in the causal family."""
        assert self.tokenizer is not None
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """What fills short rows: the end of text in the causal family, the tokenizer's pad token in the other."""
        pad = None if self.tokenizer is None or self.family == "causal" else self.tokenizer.pad_token_id
        return self.eos_id if pad is None else int(pad)

    @property
    def decoder_start_id(self) -> int:
        """The token that the decoder of an encoder-decoder starts from."""
        start = getattr(self.model.config, "decoder_start_token_id", None)
        if start is None:
            raise BackboneError(
                f"backbone {self.id!r}: expected decoder_start_token_id in its config.json, got none. Set it there."
            )
        return int(start)

    def shifted(self, targets_BT: Tensor) -> Tensor:
        """What an encoder-decoder's decoder reads to predict these targets: as the architecture itself shifts them."""
        shifted: Tensor = self.model.prepare_decoder_input_ids_from_labels(targets_BT)
        return shifted

    def sites(self) -> tuple[Site, ...]:
        """The attention sites, found by a probe forward. Raises `BackboneError` where there are none."""
        return probe(self.model)

    def blocks(self, kind: str = "decoder") -> list[nn.Module]:
        """The blocks of the decoder (or `encoder`) from bottom to top: what the layers of a paper are.

        Found as the members of the outermost module lists that hold attention sites.
        """
        wanted = {site.name for site in self.sites() if site.kind == kind}
        for name, module in self.model.named_modules():  # outer modules come before what is in them
            if isinstance(module, nn.ModuleList):
                inside = {site for site in wanted if site.startswith(f"{name}.")}
                if inside == wanted:
                    return list(module)
        raise BackboneError(f"backbone {self.id!r}: found no list of blocks that holds its attention.")

    def parameter_count(self) -> int:
        """Number of parameters, tied ones counted once; quantised ones as they were before."""
        return int(self.model.num_parameters())

    def hash(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes of all parameters, and of the scales of quantised ones.

        Of a split backbone too: its parts are put together one by one, by all processes.
        """
        in_parts(self.model)
        return _digest({**dict(self.model.named_parameters()), **constants(self.model)}, DTensor.full_tensor)

    def frozen_hash(self) -> str:
        """The same over those that are not trained at the moment; of a split backbone, over this process's part."""
        in_parts(self.model)
        frozen = {name: p for name, p in self.model.named_parameters() if not p.requires_grad}
        return _digest({**frozen, **constants(self.model)}, DTensor.to_local)

    def hidden_width(self) -> int:
        """E, the width of the input embeddings."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass, with the prefix that the forward saw."""
        enable = getattr(self.model, "activation_checkpointing_enable", self.model.gradient_checkpointing_enable)
        enable({"use_reentrant": False, "context_fn": checkpoint_contexts})
        for module in self.model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module._gradient_checkpointing_func = _recompute


def _digest(parameters: Mapping[str, Tensor], of_split: Callable[[DTensor], Tensor]) -> str:
    digest = hashlib.sha256()
    for name, parameter in sorted(parameters.items()):
        digest.update(f"{name}:{parameter.dtype}:{tuple(parameter.shape)}".encode())
        own = of_split(parameter) if isinstance(parameter, DTensor) else parameter
        raw = own.detach().reshape(-1).contiguous().cpu().view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def _recompute(forward: "partial[Any]", *args: Any) -> Any:
    """Checkpoint one layer's forward, run in the mode of the layer's children.

    The layer itself is in training mode only so that transformers recomputes it; some (OPT) have dropout of their own.
    """
    layer: nn.Module = forward.args[0]
    mode = next((child.training for child in layer.children()), True)

    def run(*inputs: Any) -> Any:
        layer.training = mode
        try:
            return forward(*inputs)
        finally:
            layer.training = True

    return checkpoint(run, *args, use_reentrant=False, context_fn=checkpoint_contexts)


def resolve(id: str, revision: str | None = None) -> str:
    """The folder of the bundled backbone for `bundled`; else the id itself (a local folder or a hub id).

    Raises:
        BackboneError: a file, a path to nothing, or a `revision` of what is not on the hub.
    """
    if revision is not None and (id == BUNDLED or Path(id).expanduser().is_dir()):
        raise BackboneError(
            f"backbone.revision: {revision!r} names a commit on the hub, but backbone {id!r} is a folder here. "
            "Set backbone.revision=null."
        )
    if id == BUNDLED:
        return str(files("softprompt") / "assets" / "backbone")
    path = Path(id).expanduser()
    if path.exists() and not path.is_dir():
        raise BackboneError(f"backbone {id!r} is a file; expected a folder with config.json, or a hub id.")
    if not path.exists() and (id.startswith((".", "/", "~")) or id.count("/") > 1):
        raise BackboneError(f"backbone folder {id!r} does not exist. Give a folder with config.json, or a hub id.")
    return str(path) if path.exists() else id


@contextmanager
def selecting(model: PreTrainedModel, at_N: Tensor) -> Iterator[None]:
    """Inside the block the LM head sees only the positions `at_N` (see `Batch`), so logits come as (N, V).

    A hook in front of the head, so whatever the architecture does after it (scaling, soft caps) still happens. By
    number, not by mask: shapes are then known where hidden states have no values (`softprompt.footprint`), and nobody
    waits for a device.
    """
    head = model.get_output_embeddings()

    def select(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].flatten(0, 1).index_select(0, at_N), *args[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def default_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _tokenizer(id: str, source: str, revision: str | None) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    if tokenizer.eos_token_id is None:
        raise BackboneError(
            f"backbone {id!r}: its tokenizer names no end-of-text token, which separates source from target. "
            "Set eos_token in its tokenizer_config.json."
        )
    # Texts that are too long for the window are refused or cut by this package, and said so.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    return tokenizer


def _auto_class(config: Any) -> Any:
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _cannot_load(id: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return (
        f"backbone {id!r} could not be loaded as a language model that generates text: {reason[:300]} "
        "Expected a hub id, or a folder with config.json, model.safetensors and tokenizer files."
    )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' loading chatter: what matters is raised as an error or printed by us."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()
