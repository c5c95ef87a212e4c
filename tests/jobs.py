"""A whole tiny job on disk: backbone folder, data files and a recipe."""

import json
from pathlib import Path

import torch
from factories import backbone_folder, examples, tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from softprompt.backbone import quiet_transformers


def tiny_job(place: Path, more: str = "", architecture: str = "gpt2") -> Path:
    """Write everything below `place` and return the recipe's path; `more` is YAML put at its end."""
    backbone_folder(place / "backbone", architecture)
    for name, count, seed in (("train", 16, 0), ("dev", 4, 50)):
        rows = [{"source": e.source, "target": e.targets[0]} for e in examples(count, seed=seed)]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text = f"""
backbone: {place / "backbone"}
method: {{name: prefix, length: 3, hidden: 8, dropout: 0.1}}
data: {{train: {place / "train.jsonl"}, dev: {place / "dev.jsonl"}}}
train: {{epochs: 2, batch_size: 4, lr: 1e-2, precision: float32}}
decode: {{beams: 2, max_new_tokens: 5}}
{more}
"""
    (place / "tiny.yaml").write_text(text, encoding="utf-8")
    return place / "tiny.yaml"


def long_job(folder: Path, **changes: object) -> Path:
    """A recipe of its own data and backbone, long enough to be stopped and short enough to be finished."""
    folder.mkdir(exist_ok=True)
    backbone_folder(folder / "backbone", n_layer=1)
    for part, count, seed in (("train", 20, 0), ("dev", 4, 50)):
        rows = [{"source": e.source, "target": e.targets[0]} for e in examples(count, seed=seed)]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {"max_steps": 150, "batch_size": 4, "eval_every": 50, "save_every": 20, "lr": 1e-3, **changes}
    recipe = {
        "backbone": str(folder / "backbone"),
        "method": {"name": "prefix", "length": 3, "hidden": 8, "dropout": 0.1},
        "data": {"train": str(folder / "train.jsonl"), "dev": str(folder / "dev.jsonl")},
        "train": {"precision": "float32", **train},
        "decode": {"strategy": "greedy", "max_new_tokens": 4},
        "untuned": False,
    }
    (folder / "job.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    return folder / "job.yaml"


def bloom_folder(folder: Path) -> Path:
    """A backbone whose attention does not go through transformers' interface."""
    eos = tokenizer().eos_token_id
    sizes = {"hidden_size": 16, "n_layer": 1, "n_head": 2, "vocab_size": len(tokenizer())}
    config = AutoConfig.for_model("bloom", bos_token_id=eos, eos_token_id=eos, pad_token_id=eos, **sizes)
    torch.manual_seed(0)
    with quiet_transformers():
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
