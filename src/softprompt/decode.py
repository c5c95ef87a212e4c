"""Source text to generated text under one steering, or one a row, by transformers' `generate`; or to a label word."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from softprompt.backbone import Backbone
from softprompt.batch import (
    Batch,
    batches_by_length,
    encode_sources,
    make_source_batch,
    require_answer_fits,
    require_fit,
)
from softprompt.config import DecodeConfig
from softprompt.distributed import World
from softprompt.errors import BackboneError, ConfigError
from softprompt.labels import LabelWords, score_labels
from softprompt.methods import Steering
from softprompt.per_row import PerRow, for_rows, rooms
from softprompt.sharding import is_sharded


@dataclass(frozen=True, slots=True)
class Decoded:
    """The text generated for one source."""

    index: int
    """Position in the list of sources."""
    text: str
    tokens: int
    """Generated tokens, the end of text included."""


def decode_texts(
    backbone: Backbone,
    steering: Steering | PerRow,
    sources: Sequence[str],
    config: DecodeConfig,
    *,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    on_batch: Callable[[int], None] | None = None,
) -> list[Decoded]:
    """Generate for each source, in the order given.

    Sources are sorted by length and left-padded in batches; rows do not influence each other. One prefix for all has no
    batch axis: all rows and beams read the same one. `PerRow` gives each source a prompt of its own. `on_batch` hears
    the number of sources done. `seed` fixes sampling. Where `config.labels` is on, the answer is one of `labels` and
    nothing else: see `softprompt.labels`. Where a backbone reads padded texts otherwise (see `softprompt.promises`),
    they are decoded one by one.

    Raises:
        ConfigError: not a prompt for each source; `labels` without `config.labels`, or the other way round; label
            words that cannot be answers; or more `max_new_tokens` than an encoder-decoder's decoder has positions.
        DataError: a source and `max_new_tokens` do not fit the window beside the prompt.
    """
    if isinstance(steering, PerRow) and len(steering.prompts) != len(sources):
        raise ConfigError(f"expected a prompt for each of {len(sources)} sources, got {len(steering.prompts)}.")
    if bool(config.labels) != (labels is not None):
        got = f"decode.labels: {str(bool(config.labels)).lower()} and {'label words' if labels else 'no label words'}"
        raise ConfigError(f"expected decode.labels and the label words together, got {got}. Give both or neither.")
    if labels is not None:
        return _choose_labels(backbone, steering, sources, config, labels, on_batch)
    ids = encode_sources(backbone, sources)
    require_answer_fits(backbone, config.max_new_tokens)
    answer = config.max_new_tokens if backbone.family == "causal" else 0
    reserved = [room + answer for room in rooms(backbone, steering, len(ids))]
    require_fit([len(row) for row in ids], backbone.window, what="sources", offset=reserved)
    options = generation_options(backbone, config)
    backbone.model.eval()
    torch.manual_seed(seed)
    done: list[Decoded] = []
    with torch.no_grad():
        for chunk in batches_by_length(ids, config.batch_size if backbone.promises.padded else 1):
            own = for_rows(steering, chunk)
            with own.attach(backbone, shared=True):
                done += _decode_batch(backbone, own, ids, chunk, options)
            if on_batch is not None:
                on_batch(len(done))
    return sorted(done, key=lambda row: row.index)


def decode_together(
    backbone: Backbone,
    steering: Steering,
    sources: Sequence[str],
    config: DecodeConfig,
    *,
    world: World,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    on_batch: Callable[[int], None] | None = None,
) -> list[Decoded]:
    """`decode_texts` by all processes of `world`, each a share of the sources; all get all rows, in order.

    Sampled texts depend on the number of processes. `on_batch` hears an estimate: as if all were as far as this one.
    """
    order = sorted(range(len(sources)), key=lambda index: len(sources[index]))
    own = sorted(world.share(order))
    spare = order[: -(-len(order) // world.size) - len(own)]  # so that all make equally many passes
    rows = decode_texts(
        backbone,
        steering,
        [sources[index] for index in own + spare],
        config,
        labels=labels,
        seed=seed + world.rank,
        on_batch=on_batch and (lambda done: on_batch(min(done * world.size, len(sources)))),
    )
    kept = [asdict(row) | {"index": own[row.index]} for row in rows if row.index < len(own)]
    return sorted((Decoded(**row) for row in world.gathered(kept)), key=lambda row: row.index)


def _choose_labels(
    backbone: Backbone,
    steering: Steering | PerRow,
    sources: Sequence[str],
    config: DecodeConfig,
    texts: Sequence[str],
    on_batch: Callable[[int], None] | None,
) -> list[Decoded]:
    labels = LabelWords.of(backbone, texts, config)
    scores_SLT = score_labels(backbone, steering, sources, labels, batch_size=config.batch_size, on_batch=on_batch)
    chosen = labels.choose(scores_SLT, config)
    return [Decoded(index, labels.texts[label], len(labels.ids[label])) for index, label in enumerate(chosen)]


def _decode_batch(
    backbone: Backbone,
    steering: Steering | PerRow,
    ids: Sequence[Sequence[int]],
    chunk: Sequence[int],
    options: GenerationConfig,
) -> list[Decoded]:
    tokenizer = backbone.tokenizer
    assert tokenizer is not None
    batch = make_source_batch(backbone, steering, [ids[index] for index in chunk])
    out = generate(backbone, batch, options)
    rows = []
    given = batch.input_ids_BT.shape[1] if backbone.family == "causal" else 1  # the decoder's start token
    for index, row in zip(chunk, out[:, given:].tolist(), strict=True):
        end = row.index(backbone.eos_id) if backbone.eos_id in row else len(row)
        text = tokenizer.decode(row[:end], skip_special_tokens=True)
        rows.append(Decoded(index, " ".join(text.split()), min(end + 1, len(row))))
    return rows


def generate(backbone: Backbone, batch: Batch, options: GenerationConfig) -> Tensor:
    """The ids (B, T) that transformers' `generate` gives: what was read, and what follows it.

    Raises:
        BackboneError: the model's own code cannot generate, and why.
    """
    # transformers fills from the model's own settings whatever `options` leaves out: this one has none. It is a copy
    # that shares all modules, so another thread that generates meets no change; a model in parts cannot be copied.
    parts = is_sharded(backbone.model)
    model = backbone.model if parts else copy(backbone.model)
    stored, model.generation_config = model.generation_config, GenerationConfig()
    try:
        ids: Tensor = model.generate(**batch.inputs(), generation_config=options, synced_gpus=parts)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        if "memory" in str(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(
            f"backbone {backbone.id!r}: expected model type {model.config.model_type!r} to generate, got "
            f"{type(error).__name__}: {reason} Use another backbone, or decode.labels where the answer is one of a few."
        ) from error
    finally:
        model.generation_config = stored
    return ids


def generation_options(backbone: Backbone, config: DecodeConfig) -> GenerationConfig:
    """The recipe's settings as transformers' own; settings stored with the backbone play no part."""
    sampling = config.strategy == "sample"
    options: dict[str, Any] = {
        "do_sample": sampling,
        "num_beams": config.beams if config.strategy == "beam" else 1,
        "max_new_tokens": config.max_new_tokens,
        "min_new_tokens": config.min_new_tokens or None,
        "eos_token_id": backbone.eos_id,
        "pad_token_id": backbone.pad_id,
        "decoder_start_token_id": backbone.decoder_start_id if backbone.family == "seq2seq" else None,
        "bos_token_id": getattr(backbone.tokenizer, "bos_token_id", None),
        "suppress_tokens": newline_ids(backbone) if config.ban_newline else None,
        # Stated because transformers fills what is left out from the backbone's own generation config.
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
    }
    if config.strategy == "beam":
        options["length_penalty"] = config.length_penalty
    if sampling:
        options |= {
            "temperature": config.temperature or 1.0,
            "top_p": config.top_p or 1.0,
            "top_k": config.top_k or 0,
        }
    return GenerationConfig(**options)


def newline_ids(backbone: Backbone) -> list[int] | None:
    """Ids of every token whose text contains a line feed (Li & Liang ban GPT-2's two: 198 and 628)."""
    tokenizer = backbone.tokenizer
    assert tokenizer is not None
    head = backbone.model.get_output_embeddings() or backbone.model.get_input_embeddings()
    singles = [[index] for index in range(min(head.weight.shape[0], len(tokenizer)))]
    backend = getattr(tokenizer, "backend_tokenizer", None)  # in one call; token by token it is half a second for GPT-2
    texts = tokenizer.batch_decode(singles) if backend is None else backend.decode_batch(singles, False)
    return [index for index, text in enumerate(texts) if "\n" in text and index != backbone.eos_id] or None
