"""What a run came to, as one table for people, one object for programs, and the run folder's README.md."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from softprompt.config import MAIN, UNTUNED, Recipe, dump_yaml
from softprompt.console import duration, say
from softprompt.errors import CheckpointError
from softprompt.places import CARD
from softprompt.results import ArmResult
from softprompt.sealed import read_sealed_text, write_sealed_text
from softprompt.table import as_markdown, metric_title, show_score


def table(results: Sequence[ArmResult]) -> list[list[str]]:
    """Header and one row an arm: scores, parameters, time, speed, memory."""
    metrics = list(dict.fromkeys(metric for result in results for metric in result.scores))
    header = ["", *map(metric_title, metrics)]
    header += ["trained", "stored", "stored/backbone", "train", "train tok/s", "decode tok/s", "peak memory"]
    return [header, *(_row(result, metrics) for result in results)]


def _row(result: ArmResult, metrics: Sequence[str]) -> list[str]:
    scores = [show_score(m, result.scores[m]["score"]) if m in result.scores else "-" for m in metrics]
    training, parameters = result.training, result.parameters
    peak = max(result.decoding["peak_memory_bytes"], training["peak_memory_bytes"] if training else 0)
    steered = result.method != UNTUNED
    return [
        _name(result),
        *scores,
        f"{parameters['trained']:,.0f}" if steered else "-",
        f"{parameters['stored']:,.0f}" if steered else "-",
        f"{parameters['stored_share']:.2%}" if steered else "-",
        duration(training["seconds"]) if training else "-",
        f"{training['tokens_per_second']:,.0f}" if training and training["tokens_per_second"] else "-",
        f"{result.decoding['tokens_per_second']:,.0f}",
        f"{peak / 2**20:,.0f} MiB",
    ]


def _name(result: ArmResult) -> str:
    return f"{result.method if result.arm == MAIN else result.arm} {result.task}".rstrip()


def notes(results: Sequence[ArmResult]) -> list[str]:
    """Lines below the table: parts of the test set, the share against fine-tuning, what is missing and why."""
    lines = []
    for result in results:
        groups = result.groups.items()
        parts = [f"{group} {scores['bleu']['score']:.2f}" for group, scores in groups if "bleu" in scores]
        if parts:
            lines.append(f"BLEU of {_name(result)} on parts of the test set: {', '.join(parts)}.")
    for result in results:
        if result.method == "incontext":
            room = result.decoding["room_taken"]
            lines.append(f"{_name(result)} puts {room:,} tokens of instruction and examples before each source.")
    for result in results:
        full = next((one for one in results if _is_full(one) and one.task == result.task), None)
        compared = full is not None and result is not full and result.training is not None
        if full and compared and "bleu" in result.scores and full.scores["bleu"]["score"]:
            share = result.scores["bleu"]["score"] / full.scores["bleu"]["score"]
            lines.append(
                f"{_name(result)} reaches {share:.1%} of fine-tuning's BLEU with "
                f"{result.parameters['trained_share']:.2%} of its parameters trained and "
                f"{result.parameters['stored_share']:.2%} stored."
            )
    if not any(result.decoding["sources"] for result in results):
        lines.append("No test data, no scores: set data.test or data.dev.")
    reasons = {f"{metric_title(metric)}: {why}" for result in results for metric, why in result.missing.items()}
    return lines + sorted(reasons)


def _is_full(result: ArmResult) -> bool:
    """Whether it is fine-tuning of the whole backbone, not of its top alone."""
    return result.method == "finetune" and result.parameters["trained_share"] > 0.9999 and "bleu" in result.scores


def published(recipe: Recipe, results: Sequence[ArmResult]) -> list[str]:
    """What the recipe's paper reports and what the run came to: a line for the test set, and one for each part."""
    known = recipe.published
    if known is None:
        return []
    main = next(result for result in results if result.arm == MAIN)
    parts = {"": (known.scores, main.scores)}
    parts |= {f" on {part}": (scores, main.groups.get(part, {})) for part, scores in known.groups.items()}
    lines = [f"The recipe, as it comes, stands for {known.table}."]
    for part, (theirs, own) in parts.items():
        pairs = [f"{metric_title(m)} {show_score(m, score)} ({_own(own, m)})" for m, score in theirs.items()]
        if pairs:
            lines.append(f"Published{part} (in brackets: this run): {', '.join(pairs)}.")
    return lines


def _own(scores: Mapping[str, dict[str, Any]], metric: str) -> str:
    return show_score(metric, scores[metric]["score"]) if metric in scores else "not scored"


def as_json(recipe: Recipe, folder: Path, results: Sequence[ArmResult]) -> str:
    """One object for programs."""
    known = recipe.published.model_dump() if recipe.published else None
    arms = [asdict(result) for result in results]
    whole = {"recipe": recipe.name, "folder": str(folder), "published": known, "arms": arms}
    return json.dumps(whole, indent=2, allow_nan=False)


_FRAME = """
A source is framed as it was in training. For another program, PEFT say, these are its ids:
```python
from softprompt.batch import encode_sources, encode_targets

ids = encode_sources(backbone, ["name : ... | area : ..."])[0]
end = encode_targets(backbone, ["..."])[0][-1]  # what ends an answer
```
On a decoder-only backbone that is the tokenizer's `" " + source + " "` and its end of text, behind which the answer
comes as `" " + target + " "` and the end of text again; on an encoder-decoder, each text as the tokenizer frames it."""


def write_card(recipe: Recipe, folder: Path, results: Sequence[ArmResult]) -> None:
    """README.md of the run folder: what was learned, from what, how well, how to use it and how to make it again.

    One that is not ours, or that was changed since it was written, is left as it is, and that is said.
    """
    if not _is_ours(folder / CARD):
        say(f"warning: {folder / CARD} is not as a run wrote it, and stays as it is. Move it away to have it written.")
        return
    scores = [pair for result in results if result.arm == MAIN for pair in result.scores.items()]
    signed = (f"- {metric_title(name)}: `{score['signature']}`" for name, score in scores)
    signatures = "\n".join(dict.fromkeys(signed))
    text = f"""---
library_name: softprompt
base_model: {recipe.backbone.id}
tags: [{recipe.method.name}]
---
# {recipe.name}

`{recipe.method.name}` on backbone `{recipe.backbone.id}`, learned from {_sources(recipe)}, seed {recipe.seed}.

{as_markdown(table(results))}

{chr(10).join(f"{line}  " for line in [*notes(results), *published(recipe, results)])}

Train time includes dev losses and checkpoints; tokens per second count source and target tokens of the training steps
alone, and generated tokens in decoding. Peak memory is of the process (CPU) or the device's allocations (CUDA).

## How the scores were made
{signatures or "No test data, no scores."}

## Use it
{_usage(recipe)}

## Make it again
```
softprompt run recipe.yaml --out ANOTHER_FOLDER
```
The resolved recipe:
```yaml
{dump_yaml(recipe).rstrip()}
```
Versions, machine and data checksums are in `env.json`; every training step is in `metrics.jsonl`.
"""
    write_sealed_text(folder / CARD, text)


def _is_ours(path: Path) -> bool:
    """Whether a card may be written: there is none, or one as it was written; a seal is younger than the card."""
    try:
        text, sealed = read_sealed_text(path)
    except FileNotFoundError:
        return True
    except CheckpointError:
        return False
    return sealed or text.startswith("---\nlibrary_name: softprompt\n")


def _sources(recipe: Recipe) -> str:
    """What it was learned from; a prompt of its own was learned from each of several."""
    named = [f"{name}: {_source(part)}" if name else _source(part) for name, part in recipe.parts().items()]
    return ", ".join(named) + (" (trained together, a prompt each)" if recipe.tasks else "")


def _source(recipe: Recipe) -> str:
    return f"task `{recipe.data.task}`" if recipe.data.task else f"`{recipe.data.train}`"


def _usage(recipe: Recipe) -> str:
    if recipe.method.name == "finetune":
        return "`model/` is a transformers folder: give it as the backbone, or to transformers' `from_pretrained`."
    if recipe.method.name in ("incontext", UNTUNED):
        return "Nothing was learned: what is put before each source follows from the recipe and its training data."
    folder = f"tasks/{next(iter(recipe.tasks))}" if recipe.tasks else "."
    return f"""```python
import softprompt

backbone = softprompt.Backbone.load({json.dumps(recipe.backbone.id)})
model = softprompt.load(backbone, {json.dumps(folder)})  # in this folder
print(model.generate(["name : ... | area : ..."])[0])  # decodes as this run did
```
{_FRAME}"""
