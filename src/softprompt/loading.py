"""Reading a backbone's folder, in which nothing is trusted: no code of its own is run, and no weight may be missing."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from softprompt.console import say
from softprompt.errors import BackboneError, SoftpromptError

BUNDLED = "bundled"
"""Id of the backbone that lies in the package."""
DTYPES = ("float32", "bfloat16", "float16", "auto")
ATTENTION = ("sdpa", "eager")
_UNREACHED = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError", "TimeoutException"}
"""Classes of errors by which huggingface_hub says that it got no answer."""


@contextmanager
def guarded(id: str) -> Iterator[None]:
    """Turn whatever a broken folder raises inside the block into a `BackboneError` that names it, and the class.

    transformers, safetensors and tokenizers raise anything from ZeroDivisionError to RecursionError there.
    """
    try:
        yield
    except SoftpromptError:
        raise
    except Exception as error:
        raise BackboneError(_cannot_load(id, error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a panic of the tokenizers library, which is no Exception
            raise
        raise BackboneError(_cannot_load(id, error)) from error


def read_config(source: str, revision: str | None) -> PreTrainedConfig:
    """The config of a folder or hub id. Errors as they come: see `guarded`."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    return config


def auto_class(config: PreTrainedConfig) -> Any:
    """transformers' class for language models of this family."""
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def read_model(
    id: str, source: str, revision: str | None, config: PreTrainedConfig, dtype: Any, options: Mapping[str, Any]
) -> PreTrainedModel:
    """The weights of a folder or hub id, all of them; pickles are read as plain tensors or not at all.

    Raises:
        BackboneError: weights are missing, or it is the folder of an adapter. Others as they come: see `guarded`.
    """
    model, report = auto_class(config).from_pretrained(
        source,
        revision=revision,
        dtype=dtype,
        trust_remote_code=False,
        weights_only=True,
        output_loading_info=True,
        **options,
    )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise BackboneError(
            f"backbone {id!r}: expected a backbone, got the folder of a PEFT adapter (adapter_config.json), which is "
            "weights on top of another one. Merge the two and save them, or give the backbone alone."
        )
    _require_whole(id, report)
    _say_unused(id, model, report["unexpected_keys"])
    made: PreTrainedModel = model
    return made


def _require_whole(id: str, report: Mapping[str, Any]) -> None:
    """Refuse a model some of whose weights are random because its files have none, or others, under their names."""
    mismatched = [name for name, *_ in report["mismatched_keys"]]
    for what, names in (("missing", report["missing_keys"]), ("of another shape", mismatched)):
        if names:
            first = ", ".join(sorted(names)[:3])
            raise BackboneError(
                f"backbone {id!r}: expected every weight in its files, got {len(names)} {what}, first {first}. They "
                "would be random numbers. Copy its files again, and check that config.json belongs to them."
            )
    if report["error_msgs"]:
        raise BackboneError(f"backbone {id!r}: its weights could not be read: {report['error_msgs'][0]}")


def _say_unused(id: str, model: PreTrainedModel, names: set[str]) -> None:
    """Say which weights a config leaves out of the model's own parts (blocks, say); another head is none of them."""
    there = {name for name, _ in model.named_modules() if name}
    inside = sorted(name for name in names if any(part in there for part in _parents(name)))
    if inside:
        say(
            f"backbone {id!r}: {len(inside)} weights of its files are not used, first {inside[0]}. "
            "If its config.json is of a smaller model, it is not the model that was published."
        )


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def read_tokenizer(id: str, source: str, revision: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id.

    Raises:
        BackboneError: it names no end of text. Others as they come: see `guarded`.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        source, revision=revision, trust_remote_code=False
    )
    if tokenizer.eos_token_id is None:
        raise BackboneError(
            f"backbone {id!r}: its tokenizer names no end-of-text token, which separates source from target. "
            "Set eos_token in its tokenizer_config.json."
        )
    # Texts that are too long for the window are refused or cut by this package, and said so.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    return tokenizer


def blank_model(source: str, revision: str | None) -> PreTrainedModel:
    """The architecture on the meta device, with the weights that its published files have.

    T5's classes tie the head to the embeddings whatever config.json says, and part them again where the files hold
    both (T5 1.1); without files, config.json is what says so.
    """
    config = read_config(source, revision)
    with torch.device("meta"):
        model: PreTrainedModel = auto_class(config).from_config(config, trust_remote_code=False)
    written, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if written.get("tie_word_embeddings") is False and head is not None and head.weight is embedding.weight:
        head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
    return model


def require_known(dtype: str, attention: str) -> None:
    """Raises BackboneError for settings that there are not."""
    for name, got, known in (("dtype", dtype, DTYPES), ("attention", attention, ATTENTION)):
        if got not in known:
            raise BackboneError(f"backbone.{name}: expected one of {', '.join(known)}, got {got!r}.")


def _cannot_load(id: str, error: BaseException) -> str:
    reason = " ".join(str(error).split())
    if "trust_remote_code" in reason:
        return (
            f"backbone {id!r} brings code of its own, which is never run here (trust_remote_code is False). Expected "
            "an architecture that is part of transformers. Take another backbone, or a conversion to such a one."
        )
    here = id == BUNDLED or Path(id).expanduser().exists()
    if type(error).__name__ == "UnpicklingError":
        reason = "its pytorch_model.bin is more than plain tensors, or damaged. Convert it to safetensors."
    if not here and _UNREACHED & {type(cause).__name__ for cause in _causes(error)}:
        return (
            f"backbone {id!r}: no such folder here, and the hub was not reached ({type(error).__name__}). Give a "
            "folder with config.json, or go online."
        )
    return (
        f"backbone {id!r}{'' if here else ': no such folder here, and from the hub it'} could not be loaded as a "
        f"language model that generates text ({type(error).__name__}): {reason[:300]} "
        "Expected a hub id, or a folder with config.json, model.safetensors and tokenizer files."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, the latest first."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


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
