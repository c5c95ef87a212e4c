"""Pretrain the backbone from nothing: `python -m tools.build_backbone.pretrain --books DIR --out DIR`.

Trains the tokenizer when `<out>/tokenizer` is missing, logs to `<out>/log.jsonl`, checkpoints to
`<out>/state.safetensors`, and writes the finished folder to `<out>/backbone`. A file `<out>/DECAY` begins the decay
phase at once (its content, a number, overrides `--decay-steps`).
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from tools.build_backbone import tokenizer as tokenizer_tool
from tools.build_backbone.batches import Batch, Batcher, validation
from tools.build_backbone.documents import Books, DocumentMaker
from tools.build_backbone.export import export
from tools.build_backbone.optim import Progress, load, optimizers, save


def build_model(seed: int, vocabulary: int = 4096) -> GPT2LMHeadModel:
    """A freshly initialised GPT-2 of 3.45 million parameters."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=512,
        n_embd=224,
        n_layer=4,
        n_head=7,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    return GPT2LMHeadModel(config)


def _loss_of(model: GPT2LMHeadModel, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The weighted sum of the token losses of a batch (bf16 autocast)."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.transformer(ids[:, :-1]).last_hidden_state
        logits = model.lm_head(hidden)
    losses = functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights.flatten()).sum()


class LossOf:
    """`_loss_of`, compiled on request (about a third faster on a CPU; one compilation, fixed shapes)."""

    def __init__(self, compiled: bool = False) -> None:
        self.call = torch.compile(_loss_of, dynamic=False) if compiled else _loss_of

    def __call__(self, model: GPT2LMHeadModel, batch: Batch) -> torch.Tensor:
        """The weighted sum of the token losses."""
        loss: torch.Tensor = self.call(model, batch.ids, batch.weights)
        return loss


def _slice(batch: Batch, start: int, rows: int) -> Batch:
    return Batch(batch.ids[start : start + rows], batch.weights[start : start + rows])


@torch.no_grad()
def validate(model: GPT2LMHeadModel, sets: dict[str, Batch]) -> dict[str, float]:
    """Mean token loss of each validation set."""
    out: dict[str, float] = {}
    for name, batch in sets.items():
        total = sum(float(LossOf()(model, _slice(batch, start, 8))) for start in range(0, len(batch.ids), 8))
        out[name] = round(total / float(batch.weights.sum()), 4)
    return out


def train_step(
    model: GPT2LMHeadModel,
    loss_of: LossOf,
    found: list[torch.optim.Optimizer],
    batch: Batch,
    scale: float,
    micro: int,
) -> float:
    """One update; returns the mean loss before it, and raises FloatingPointError where it is not finite."""
    mass, total = float(batch.weights.sum()), 0.0
    for start in range(0, len(batch.ids), micro):
        loss = loss_of(model, _slice(batch, start, micro)) / mass
        loss.backward()
        total += float(loss.detach())
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if not torch.isfinite(norm):
        raise FloatingPointError(f"expected a finite gradient, got {float(norm)}; resume from the last checkpoint")
    for optimizer in found:
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * scale
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return total


def watch_decay(out: Path, progress: Progress, default: int) -> Progress:
    """Begin the decay phase now if a file DECAY asks for it and it has not begun."""
    flag = out / "DECAY"
    if not flag.exists() or progress.step >= progress.decay_start:
        return progress
    text = flag.read_text(encoding="utf-8").strip()
    return replace(progress, decay_start=progress.step, decay_steps=int(text) if text.isdigit() else default)


def run(args: argparse.Namespace) -> None:
    """Train, checkpoint, log, export."""
    torch.set_num_threads(args.threads)
    out: Path = args.out
    books = Books.load(args.books / "books.train.txt.xz")
    if not (out / "tokenizer" / "tokenizer.json").exists():
        tokenizer_tool.train(books, out / "tokenizer")
    tokenizer = Tokenizer.from_file(str(out / "tokenizer" / "tokenizer.json"))
    batcher = Batcher(DocumentMaker(books), tokenizer, args.rows, args.width, args.seed, args.book_share)
    sets = validation(DocumentMaker(Books.load(args.books / "books.valid.txt.xz")), tokenizer, args.width)
    model = build_model(args.seed, tokenizer.get_vocab_size())
    model.set_attn_implementation("eager")  # faster than sdpa on a CPU at this size
    loss_of = LossOf(args.compile)
    found = optimizers(model, args.rate, args.matrix_rate, not args.no_muon)
    total = args.tokens // (args.rows * args.width)
    decay = args.decay_steps or max(1, total // 4)
    progress = Progress(decay_start=total - decay, decay_steps=decay)
    state = out / "state.safetensors"
    if args.resume and state.exists():
        progress = load(state, model, found)
    since, tokens, losses, saved = time.time(), 0, [], time.time()
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        while progress.step < progress.last:
            progress = watch_decay(out, progress, decay)
            scale = progress.scale(args.warmup)
            losses.append(train_step(model, loss_of, found, batcher.batch(progress.step), scale, args.micro))
            size = args.rows * args.width
            progress = replace(progress, step=progress.step + 1, tokens=progress.tokens + size)
            tokens += size
            if progress.step % args.log_every == 0 or progress.step == progress.last:
                line: dict[str, Any] = {
                    "step": progress.step,
                    "of": progress.last,
                    "tokens": progress.tokens,
                    "scale": round(progress.scale(args.warmup), 3),
                    "loss": round(sum(losses) / len(losses), 4),
                    "tokens_per_s": round(tokens / (time.time() - since)),
                }
                if progress.step % args.valid_every == 0 or progress.step == progress.last:
                    line["valid"] = validate(model, sets)
                log.write(json.dumps(line) + "\n")
                log.flush()
                print(json.dumps(line), flush=True)
                since, tokens, losses = time.time(), 0, []
            if time.time() - saved > args.save_seconds or progress.step == progress.last:
                save(state, model, found, progress)
                saved = time.time()
    export(state, out / "tokenizer", out / "backbone", validate(model, sets))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--books", type=Path, required=True, help="folder with books.train.txt.xz and books.valid.txt.xz"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=30_000_000)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--micro", type=int, default=2, help="rows a forward pass")
    parser.add_argument("--compile", action="store_true", help="torch.compile the loss (needs a C++ compiler)")
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--matrix-rate", type=float, default=4e-3)
    parser.add_argument("--no-muon", action="store_true")
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--decay-steps", type=int, default=0)
    parser.add_argument("--book-share", type=float, default=0.35, help="share of the characters that are books")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--valid-every", type=int, default=200)
    parser.add_argument("--save-seconds", type=int, default=300)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    run(args)


if __name__ == "__main__":
    main()
