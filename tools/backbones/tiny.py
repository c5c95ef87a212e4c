"""Every text model type of transformers as small as it can be built, with random weights.

A config's sizes are shrunk by what their fields are called; where that does not do, `SETTINGS` says how. A model type
that reads something else than text, or stands for parts that it is composed of, is left out with the reason.
"""

import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

WORDS = "the red old inn sells hot tea and cold pie near a quiet river bank for ten pounds to kind guests"
VOCABULARY = 320
PAD, BEGIN, END = 0, 1, 2

RULES: list[tuple[str, Any]] = [
    # what a field is called -> its value; the first that fits
    (r"(.*_)?vocab_size(_per_layer_input)?", VOCABULARY),
    (r"pad_token_id", PAD),
    (r"(bos|decoder_start)_token_id", BEGIN),
    (r"eos_token_id", END),
    (r"(forced_(bos|eos)|sep)_token_id", None),
    (r"(num_)?(key_value_heads|kv_heads|n_head_kv)|num_kv_heads|multi_query_group_num|swa_num_key_value_heads", 2),
    (r"(.*_)?(num_attention_heads|num_heads|attention_heads|n_heads?|n_head)|num_decoder_attention_heads", 4),
    (r"(.*_)?(num_experts_per_tok(en)?|top_k_experts|moe_topk|moe_top_k|moe_k|num_selected_experts|top_k)", 2),
    (r"(num_|n_)?(routed_|local_|moe_)?(num_)?experts|n_routed_experts|num_routed_experts|moe_num_experts", 4),
    (r"n_group|topk_group", 1),
    (r"(num_|n_)shared_experts", 1),
    (r"q_lora_rank|kv_lora_rank|qk_nope_head_dim|v_head_dim|index_head_dim|.*lora_rank", 16),
    (r"qk_rope_head_dim", 8),
    (r"qk_head_dim", 24),
    (r"rotary_dim", 16),
    (
        r"(global_|swa_|linear_|v_|attention_)?head_dim|d_kv|kv_channels|linear_(key|value)_head_dim|attention_key_size",
        16,
    ),
    (r"mamba_d_head|mamba_head_dim|mamba_headdim", 16),
    (
        r"(.*_)?(moe_|shared_expert_|expert_|dense_|.*)?intermediate_size(_mlp)?|.*ffn_dim|d_ff|n_inner|ffn_hidden_size",
        96,
    ),
    (
        r"hidden_size|d_model|n_embd|dim|d_embed|emb_dim|embedding_size|word_embed_proj_dim|width|n_embed|decoder_hidden_size",
        64,
    ),
    (r"hidden_size_per_layer_input", 16),
    (
        r"(num_hidden_layers|n_layers?|num_layers|(num_)?(encoder|decoder)_layers|num_encoder_layers|num_decoder_layers)",
        2,
    ),
    (
        r"max_position_embeddings|n_positions|n_ctx|max_sequence_length|max_seq_len|max_(encoder|decoder)_position_embeddings",
        128,
    ),
    (r"(mamba_)?n_groups|mamba_n_groups", 1),
    (r"(mamba_)?d_state|state_size|ssm_state_size|mamba_state_dim", 16),
    (r".*dropout.*|.*layerdrop", 0.0),
]
"""Sizes by the names of the fields that hold them."""

AS_DECODER = " (is_decoder)"
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_expand": 2}
KV_HEADS_ALIKE = {"num_key_value_heads": 4}
SETTINGS: dict[str, dict[str, Any]] = {
    "bamba": {**MAMBA, "num_hidden_layers": 2, "attn_layer_indices": [1]},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 96},
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_method": "greedy"},
    "bailing_hybrid": {"num_expert_group": 2, "topk_group": 1},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "dots3_note_text": KV_HEADS_ALIKE,
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 128},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {**MAMBA, "layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "led": {"attention_window": 4},
    "longcat_flash": {"zero_expert_num": 2, "expert_ffn_hidden_size": 32, "n_routed_experts": 4},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 16},
    "modernbert-decoder": {"sep_token_id": END, "cls_token_id": BEGIN},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        **{"indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 16},
        "indexer_compress_ratio": 4,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 64},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "n_mamba_heads": 2,
        "attention_hidden_size": 128,
        "mamba_dt_rank": 8,
        "attention_head_dim": 32,
    },
    "zamba2": {"n_mamba_heads": 8, "attention_hidden_size": 128, "attention_head_dim": 32, "mamba_headdim": 16},
    "zaya": {"num_experts_per_tok": 1},
}
"""What the rules do not get right, by model type."""


LEFT_OUT: dict[str, str] = {
    "encoder-decoder": "composed of two other models",
    **dict.fromkeys(
        ("audioflamingo3", "glmasr", "granite_speech", "granite_speech_plus", "musicflamingo", "nemo_speechlm",
         "qwen2_audio", "qwen3_asr", "vibevoice_asr", "voxtral", "voxtral_realtime", "whisper"), "reads speech or sound"
    ),
    **dict.fromkeys(("musicgen", "musicgen_melody"), "writes sound"),
    **dict.fromkeys(("gemma4_assistant", "gemma4_unified_assistant"), "drafts for a model whose states it reads"),
    "blt": "reads bytes in patches found by a second model; 190 million parameters at the least",
    "qwen4_exp": "joins text and pictures; its text model is qwen4_exp_text",
    "dots3_note": "joins text, pictures and sound; its text model is dots3_note_text",
}  # fmt: skip
"""Model types of the two lists that are no language models of text."""


class NotText(Exception):
    """A model type that is not built here, and why."""


def names() -> list[str]:
    """All model types that transformers has a causal or encoder-decoder language model of.

    An encoder that can be a decoder comes twice, the second time as one.
    """
    types = sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES})
    return [form for name in types for form in ([name, name + AS_DECODER] if _is_encoder(name) else [name])]


def _is_encoder(name: str) -> bool:
    if name in LEFT_OUT:
        return False
    try:
        default = CONFIG_MAPPING[name]()
    except Exception:  # its default is not valid
        return False
    return getattr(default, "is_decoder", None) is False and not default.is_encoder_decoder


def shrunk(default: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config that the rules change; those of the configs in it too."""
    changed = _layers(default)
    for key, value in default.items():
        if isinstance(value, dict) and "model_type" in value:
            changed[key] = shrunk(value)
            continue
        if key in changed:
            continue
        rule = next((new for pattern, new in RULES if re.fullmatch(pattern, key)), ...)
        unset = value is None and rule is not None and not key.endswith("token_id")
        if rule is not ... and not isinstance(value, list | dict | str) and not unset:
            changed[key] = rule
    if "kv_lora_rank" in changed:  # multi-head latent attention: all heads have keys, and two fields are one size
        changed |= {"num_key_value_heads": 4} if "num_key_value_heads" in default else {}
        changed |= {"head_dim": changed["qk_rope_head_dim"]} if "head_dim" in default else {}
    return changed


def _layers(default: dict[str, Any]) -> dict[str, Any]:
    """One layer of each kind where a list says of which kind each is, and as many layers."""
    count = default.get("num_hidden_layers") or 0
    lists = {key: value for key, value in default.items() if isinstance(value, list) and len(value) == count > 0}
    lists = {key: value for key, value in lists.items() if all(isinstance(one, str) for one in value)}
    kinds = {key: list(dict.fromkeys(value)) for key, value in lists.items()}
    most = max([2, *map(len, kinds.values())])
    made: dict[str, Any] = {key: (value + [value[-1]] * most)[:most] for key, value in kinds.items()}
    return made | {"num_hidden_layers": most} if made else {}


def config(name: str) -> Any:
    """The tiny config of a model type."""
    name, _, as_decoder = name.partition(" ")
    kind = CONFIG_MAPPING[name]
    decoding = {"is_decoder": True} if as_decoder else {}
    return kind(**{**shrunk(kind().to_dict()), **SETTINGS.get(name, {}), **decoding})


def model(name: str) -> PreTrainedModel:
    """A random model, its weights spread so that every change of an input shows; in eval mode."""
    if name in LEFT_OUT:
        raise NotText(LEFT_OUT[name])
    made_of = config(name)
    if made_of.is_encoder_decoder and getattr(made_of, "decoder_start_token_id", None) is None:
        made_of.decoder_start_token_id = PAD
    torch.manual_seed(0)
    auto = AutoModelForSeq2SeqLM if made_of.is_encoder_decoder else AutoModelForCausalLM
    made: PreTrainedModel = auto.from_config(made_of)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1 and parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return made.eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over a few words: pad, begin and end of text are the first three."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    made.train_from_iterator([WORDS] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def folder(name: str, into: Path) -> Path:
    """A folder as `Backbone.load` takes it."""
    made = model(name)
    made.save_pretrained(into)
    words = tokenizer()
    if made.config.is_encoder_decoder:  # source and target end with the end of text
        from tokenizers import processors

        words.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", END)]
        )
    words.save_pretrained(into)
    return into
