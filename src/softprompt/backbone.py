"""The frozen language model and its tokenizer: loading, freezing, hashing, and a weightless form for dry runs."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from softprompt import framing
from softprompt.active import HEAD, Handle, again, hooked
from softprompt.console import say
from softprompt.errors import BackboneError
from softprompt.files import verify_if_ours
from softprompt.inject import Site, install, probe
from softprompt.loading import (
    BUNDLED,
    blank_model,
    guarded,
    quiet_transformers,
    read_config,
    read_model,
    read_tokenizer,
    require_known,
)
from softprompt.promises import Promises, presumed, tried
from softprompt.quantize import constants, keep_frozen, loading_options
from softprompt.sharding import in_parts

__all__ = ["BUNDLED", "Backbone", "default_device", "quiet_transformers", "resolve", "selecting", "target_logits"]

# oneDNN (bfloat16 on a CPU) keeps a kernel with its scratch memory for every shape seen, 1,024 of them by default:
# with batches of every length that is gigabytes. Read when the first kernel is made, so it is set here.
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_name, "32")


@dataclass(frozen=True)
class Backbone:
    """A pretrained language model, frozen, with attention routed through `softprompt.inject`."""

    id: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    """None only in the weightless form of `Backbone.plan`."""
    promises: Promises = field(default_factory=Promises)
    """What `load` found to hold of it, and what `plan` takes its architecture to keep."""
    probed: dict[Any, tuple[Site, ...]] = field(default_factory=dict, repr=False, compare=False)
    """Sites by how the model is built (see `sites`); what `replace` makes of a backbone shares them with it."""

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

        `quantize`: `8bit` or `4bit`, see `softprompt.quantize`. No code of a folder is run. What is promised of every
        backbone is tried on this one by two forward passes of a few tokens, see `softprompt.promises`.

        Raises:
            BackboneError: not found, damaged, or not whole; code of its own; no language model that generates text,
                or not causal; no usable end-of-text token; a setting that there is not, or no library to quantise with.
            CheckpointError: a folder that a run wrote is damaged.
        """
        require_known(dtype, attention)
        source, place = resolve(id, revision), torch.device(device or default_device())
        verify_if_ours(Path(source))
        with guarded(id), quiet_transformers():
            config = read_config(source, revision)
            tokenizer = read_tokenizer(id, source, revision)
            asked = getattr(torch, dtype) if dtype != "auto" else None
            options = loading_options(quantize, asked or getattr(config, "dtype", None), place)
            model = read_model(id, source, revision, config, asked or "auto", options)
            install(model, attention)
            if options:
                keep_frozen(model)
            else:  # quantised weights are made where they stay
                model.to(place)
        model.eval().requires_grad_(False)
        return cls(id, model, tokenizer, presumed(model))._tried()

    @classmethod
    def plan(
        cls, id: str, *, revision: str | None = None, attention: str = "sdpa", tokenizer: bool = False
    ) -> "Backbone":
        """The same architecture on the meta device: shapes and counts, no weights; the tokenizer where asked for.

        The configs of the papers' backbones come with the package, so that a dry run needs no network. What only a
        forward pass shows (see `softprompt.promises`) is taken for granted.

        Raises:
            BackboneError: as `load`, but for the weights.
        """
        built_in, own = files("softprompt") / "assets" / "configs" / id, resolve(id, revision)
        source = str(built_in) if (built_in / "config.json").is_file() else own
        require_known("auto", attention)
        with guarded(id), quiet_transformers():
            model = blank_model(source, revision)
            install(model, attention)
            words = read_tokenizer(id, own, revision) if tokenizer else None
        return cls(id, model.eval().requires_grad_(False), words, presumed(model))

    def _tried(self) -> "Backbone":
        """The same with what holds of its model. Raises `BackboneError` for what cannot be put up with."""
        size = self.model.get_input_embeddings().weight.shape[0]
        for name, token in (("end-of-text", self.eos_id), ("padding", self.pad_id)):
            if not 0 <= token < size:
                raise BackboneError(
                    f"backbone {self.id!r}: its tokenizer's {name} token has id {token}; expected one of the model's "
                    f"{size} embeddings. Resize the model (resize_token_embeddings) and save it, or take its tokenizer."
                )
        if self.family == "seq2seq":
            _ = self.decoder_start_id
        promises = tried(self.id, self.model, self.pad_id, self.window)
        if not promises.padded:
            say(
                f"backbone {self.id!r}: it reads a text behind padding otherwise than alone (its forward takes no "
                "positions, or no mask), so texts are decoded one by one, which is slower."
            )
        return replace(self, promises=promises)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = self.model.device
        return device

    @property
    def window(self) -> int | None:
        """Longest input in tokens (learned or trained positions), or None where the config states no such limit."""
        limit = _positions_of(self.model.config, "encoder", "source")
        return None if limit is None else limit - self.promises.first_position

    @property
    def answer_window(self) -> int | None:
        """Longest target of an encoder-decoder in tokens, or None: no limit, or in the window of all the text."""
        return None if self.family == "causal" else _positions_of(self.model.config, "decoder", "target")

    @cached_property
    def family(self) -> str:
        """`seq2seq` for an encoder-decoder, else `causal`."""
        return "seq2seq" if self.model.config.is_encoder_decoder else "causal"

    @property
    def eos_id(self) -> int:
        """End of text: ends the target, and separates it from the source in the causal family."""
        assert self.tokenizer is not None
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def pad_id(self) -> int:
        """What fills short rows: the end of text in the causal family, the tokenizer's pad token in the other.

        Looked up once, as every batch asks for it and a tokenizer takes long to answer.
        """
        pad = None if self.tokenizer is None or self.family == "causal" else self.tokenizer.pad_token_id
        return self.eos_id if pad is None else int(pad)

    @cached_property
    def decoder_start_id(self) -> int:
        """The token that the decoder of an encoder-decoder starts from, in training and in decoding."""
        start = framing.start_of_target(self.model, self.tokenizer)
        if start is None:
            raise BackboneError(
                f"backbone {self.id!r}: expected decoder_start_token_id in its config.json, got none. Set it there."
            )
        return start

    def shifted(self, targets_BT: Tensor) -> Tensor:
        """What an encoder-decoder's decoder reads to predict these targets."""
        return framing.shifted(targets_BT, self.decoder_start_id)

    def sites(self, *, one_call: bool = False) -> tuple[Site, ...]:
        """The attention sites. Raises `BackboneError` as `inject.probe` does, whose forward is made once for a model.

        Once for all that are built as it is, that is: of modules and parameters with the same names, classes and
        shapes, with the same config. What was met there with `one_call` is what is met without.
        """
        built = _built(self.model)
        for strict in (True, one_call):
            if (built, strict) in self.probed:
                return self.probed[built, strict]
        self.probed[built, one_call] = sites = probe(self.model, one_call=one_call)
        return sites

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
        enable({"use_reentrant": False, "context_fn": again})
        for module in self.model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module._gradient_checkpointing_func = _recompute


def _built(model: PreTrainedModel) -> tuple[Any, ...]:
    """What decides which attention sites a model has."""
    modules = tuple((name, type(module)) for name, module in model.named_modules())
    shapes = tuple((name, parameter.shape) for name, parameter in model.named_parameters())
    return model.config.to_json_string(), model.config._attn_implementation, modules, shapes


def _digest(parameters: Mapping[str, Tensor], of_split: Callable[[DTensor], Tensor]) -> str:
    digest = hashlib.sha256()
    for name, parameter in sorted(parameters.items()):
        digest.update(f"{name}:{parameter.dtype}:{tuple(parameter.shape)}".encode())
        own = of_split(parameter) if isinstance(parameter, DTensor) else parameter
        raw = own.detach().reshape(-1).contiguous().cpu().view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def recompute_layers(model: nn.Module) -> None:
    """Put the layers into the mode in which transformers recomputes them; inside, they keep that of their children."""
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True


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

    return checkpoint(run, *args, use_reentrant=False, context_fn=again)


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
    waits for a device. A head that reads something else than (B, T, E) sees all of it: see `target_logits`.
    """
    head = model.get_output_embeddings()

    def register(acts: Callable[[], bool]) -> list[Handle]:
        def select(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if not acts() or not args or args[0].ndim != 3:
                return None
            return (args[0].flatten(0, 1).index_select(0, at_N), *args[1:])

        return [] if head is None else [head.register_forward_pre_hook(select)]

    with hooked(model, HEAD, register):
        yield


def target_logits(model: PreTrainedModel, inputs: Mapping[str, Tensor], at_N: Tensor) -> Tensor:
    """(N, V): the logits at the positions `at_N` (see `Batch`) alone, where the head can be told so."""
    with selecting(model, at_N):
        logits: Tensor = model(**inputs, use_cache=False).logits
    return logits if logits.ndim == 2 else logits.flatten(0, 1).index_select(0, at_N)


def default_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _positions_of(config: Any, side: str, end: str) -> int | None:
    """The number of positions that a config states for one side; what is not above 0 (XLNet: -1) states none."""
    part = getattr(config, "text_config", None) or (getattr(config, side, None) if config.is_encoder_decoder else None)
    names = [f"max_{side}_position_embeddings", f"max_{end}_positions"] if config.is_encoder_decoder else []
    for own in (part, config) if part is not None else (config,):
        for name in [*names, "max_position_embeddings"]:
            limit = getattr(own, name, None)
            if isinstance(limit, int | float) and limit > 0:
                return int(limit)
    return None
