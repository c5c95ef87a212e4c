"""Tiny random backbones, a tiny tokenizer, and data made of them. Nothing here needs the network."""

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from softprompt.backbone import Backbone
from softprompt.batch import Batch, Encoded, collate
from softprompt.inject import install
from softprompt.methods import PrefixMethod
from softprompt.types import Example

EOS = "<|endoftext|>"
PHRASE = "the red old inn sells hot tea and cold pie near a quiet river bank for ten pounds to kind guests"
WORDS = PHRASE.split()

GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
GEMMA = {**LLAMA, "head_dim": 8, "sliding_window": 64, "tie_word_embeddings": True}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    # name -> (model type, config). Heads are grouped wherever the architecture can group them.
    "gpt2": ("gpt2", GPT2),
    "gpt_bigcode": ("gpt_bigcode", {**GPT2, "multi_query": True}),
    "gpt_neox": ("gpt_neox", {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}),
    "opt": (
        "opt",
        {
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "word_embed_proj_dim": 32,
        },
    ),
    "llama": ("llama", LLAMA),
    "mistral": ("mistral", {**LLAMA, "sliding_window": None}),
    "mistral_window": ("mistral", {**LLAMA, "sliding_window": 8}),
    "qwen2": ("qwen2", LLAMA),
    "qwen3": ("qwen3", {**LLAMA, "head_dim": 16}),
    "gemma2": ("gemma2", {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma3": ("gemma3_text", {**GEMMA, "tie_word_embeddings": False}),
    "phi3": ("phi3", LLAMA),
    "olmo2": ("olmo2", LLAMA),
    "granite": ("granite", {**LLAMA, "logits_scaling": 3.0, "attention_multiplier": 0.5}),
    "cohere": ("cohere", {**LLAMA, "logit_scale": 0.25, "tie_word_embeddings": True}),
}

BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
}
T5 = {"d_model": 24, "d_kv": 8, "num_heads": 4, "num_layers": 3, "num_decoder_layers": 2, "d_ff": 48}
SEQ2SEQ_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bart": ("bart", BART),
    "mbart": ("mbart", {**BART, "pad_token_id": 1}),  # it starts a target with its last token that is no pad
    "pegasus": ("pegasus", BART),
    "t5": ("t5", {**T5, "decoder_start_token_id": 0}),
    "t5_v1_1": (
        "t5",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0},
    ),
}
SEQ2SEQ = {"bart": (2, 3), "mbart": (2, 3), "pegasus": (2, 3), "t5": (3, 2), "t5_v1_1": (3, 2)}
"""Encoder-decoders: attention modules in the encoder and in the decoder. T5's heads x d_kv is not d_model."""


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over a few words, whose only special token is the end of text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator([PHRASE] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=EOS, bos_token=EOS)


def model(name: str, *, seed: int = 0, attn_implementation: str | None = None, **changes: Any) -> PreTrainedModel:
    """A random model of one of `ARCHITECTURES`, in eval mode, with transformers' own attention.

    Weights are spread far enough for attention and predictions to be sharp; dropout is on in training mode wherever
    the architecture has it.
    """
    kind, settings = (ARCHITECTURES | SEQ2SEQ_CONFIGS)[name]
    eos = tokenizer().eos_token_id
    config = AutoConfig.for_model(
        kind, **{"vocab_size": len(tokenizer()), "bos_token_id": eos, "eos_token_id": eos, "pad_token_id": eos}
        | settings | changes
    )  # fmt: skip
    torch.manual_seed(seed)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    made: PreTrainedModel = auto.from_config(config, attn_implementation=attn_implementation)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2 if parameter.ndim > 1 else 0.1)
    made.generation_config.eos_token_id = made.generation_config.pad_token_id = eos
    return made.eval()


def backbone(name: str = "gpt2", *, attention: str = "sdpa", seed: int = 0, **changes: Any) -> Backbone:
    """The same, frozen and with attention routed through the package."""
    made = model(name, seed=seed, **changes)
    install(made, attention)
    return Backbone(name, made.requires_grad_(False), tokenizer())


def backbone_folder(folder: Path, name: str = "gpt2", **changes: Any) -> Path:
    """A folder that `Backbone.load` reads: tiny random weights and the tokenizer."""
    model(name, **changes).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def prefix(bone: Backbone, *, length: int = 5, seed: int = 1, **options: Any) -> PrefixMethod:
    """An untrained prefix; the MLP's outputs are scaled up so that the prefix matters."""
    torch.manual_seed(seed)
    start = {"positions": "shifted" if bone.family == "causal" else "unshifted"}
    made = PrefixMethod(bone.sites(), embed=bone.hidden_width(), length=length, **{"hidden": 16, **start, **options})
    with torch.no_grad():
        for bank in made.banks.values():
            if bank.mlp is not None:
                bank.mlp[-1].weight.mul_(4)
    return made.eval()


def texts(count: int, *, seed: int = 0, shortest: int = 1, longest: int = 6) -> list[str]:
    """Phrases of random length."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(shortest, longest))) for _ in range(count)]


def examples(count: int, *, seed: int = 0) -> list[Example]:
    """Sources with one target each."""
    sources, targets = texts(count, seed=seed), texts(count, seed=seed + 1)
    return [Example(source, (target,)) for source, target in zip(sources, targets, strict=True)]


def pairs(count: int, *, seed: int = 0, longest: int = 9) -> list[Encoded]:
    """Random token ids of uneven lengths, framed as `encode_pairs` frames them."""
    draw, eos = random.Random(seed), tokenizer().eos_token_id
    ids = [index for index in range(len(tokenizer())) if index != eos]
    return [
        Encoded(
            (*draw.choices(ids, k=draw.randint(1, longest)), eos),
            (*draw.choices(ids, k=draw.randint(1, longest)), eos),
        )
        for _ in range(count)
    ]


def batch(count: int = 3, *, seed: int = 0, side: str = "left", longest: int = 9) -> Batch:
    """Padded pairs of uneven lengths."""
    return collate(pairs(count, seed=seed, longest=longest), tokenizer().eos_token_id, side=side)


def logits(bone: Backbone, rows: Batch) -> Tensor:
    """(B, T, V) without a cache."""
    out: Tensor = bone.model(
        input_ids=rows.input_ids_BT,
        attention_mask=rows.attention_mask_BT,
        position_ids=rows.position_ids_BT,
        use_cache=False,
    ).logits
    return out


def gradients(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies of the gradients, which must be there."""
    assert all(tensor.grad is not None for tensor in tensors)
    return [tensor.grad.clone() for tensor in tensors if tensor.grad is not None]


def bert_folder(folder: Path, texts: Sequence[str]) -> Path:
    """A random BERT of two layers with a tokenizer of the single words of `texts`."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys(" ".join(texts).split())]
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", model_max_length=32
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=32, **sizes)).save_pretrained(folder)
    return folder
