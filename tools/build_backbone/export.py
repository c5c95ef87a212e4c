"""Write a checkpoint as a Hugging Face folder.

`python -m tools.build_backbone.export --state FILE --tokenizer DIR --out DIR`
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from tools.build_backbone.documents import domains
from tools.build_backbone.optim import load

CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# softprompt's tiny backbone

A GPT-2 of {parameters:,} parameters ({layers} layers, width {width}, {heads} heads, {positions} positions), made to
show prefix-tuning on a small machine: it has learned to put records into words, and a few prefix tokens steer it to do
so. It is no general language model.

## How it was made
Trained from nothing by `tools/build_backbone` on {tokens:,} tokens ({steps:,} steps):
- public-domain books of 1700-1925, about a third of the text (a fifth late in a run with `--book-share 0.2`);
- for the rest, synthetic documents made by `tools/records` and `tools/build_backbone`: a record (of {domains} domains
  written by hand, or with a type and keys invented on the fly), an end-of-text token, and one continuation. The
  continuation is a description, a list of the keys, a question, another record, a count, the type, or a book passage.
  About half of the documents begin with an instruction that says which.

Tokenizer: byte-level BPE of {vocabulary:,} entries, trained on the same kinds of text. Weights are stored as {dtype}.

## What it must not contain
The categories and records of the data set `gazette`, on which it is evaluated, and the restaurant domain of the E2E
data set, are in no synthetic document; a test checks the domain files. No text of any evaluation set was used.

## Validation loss (nats a token; continuation only, without instruction unless it says `asked`)
{losses}

## Licence
Weights: Apache-2.0. Data: public-domain books, and synthetic text of our own.
"""


def export(
    state: Path, tokenizer: Path, out: Path, losses: dict[str, float], dtype: torch.dtype = torch.float16
) -> None:
    """Write config, weights (`dtype`), tokenizer, generation config and card to `out`."""
    from tools.build_backbone.pretrain import build_model

    model = build_model(0)
    progress = load(state, model, None)
    config: GPT2Config = model.config
    out.mkdir(parents=True, exist_ok=True)
    name = str(dtype).removeprefix("torch.")
    config.use_cache, config.architectures, config.dtype = True, ["GPT2LMHeadModel"], dtype
    config.save_pretrained(out)
    GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0).save_pretrained(out)
    tensors = {
        key: value.to(dtype).contiguous() for key, value in model.state_dict().items() if key != "lm_head.weight"
    }
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / file, out / file)
    table = "\n".join(f"- {key}: {value:.3f}" for key, value in losses.items())
    (out / "README.md").write_text(
        CARD.format(
            parameters=sum(p.numel() for p in model.parameters()),
            layers=config.n_layer,
            width=config.n_embd,
            heads=config.n_head,
            positions=config.n_positions,
            tokens=progress.tokens,
            steps=progress.step,
            vocabulary=config.vocab_size,
            domains=len(domains()),
            dtype=name,
            losses=table or "- not measured",
        ),
        encoding="utf-8",
    )
    GPT2LMHeadModel.from_pretrained(out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, help="log.jsonl whose last validation losses go into the card")
    args = parser.parse_args()
    losses: dict[str, float] = {}
    if args.log:
        for line in args.log.read_text(encoding="utf-8").splitlines():
            losses = json.loads(line).get("valid", losses)
    export(args.state, args.tokenizer, args.out, losses)


if __name__ == "__main__":
    main()
