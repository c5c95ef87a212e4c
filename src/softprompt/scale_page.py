"""How `softprompt scale` shows its numbers: tables for people, and docs/scale.md."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from softprompt.scale import Cost
from softprompt.scale_setting import Setting
from softprompt.table import as_markdown, as_text

GB, MB = 1e9, 1e6
HELD = ("trained", "gradients", "moments")


def memory_rows(costs: Sequence[Cost], setting: Setting) -> list[list[str]]:
    """GB of a device, a row for each method and length; `!` behind what is more than the device has."""
    sizes = setting.processes
    rows = [
        ["method", "P", "trained", "its state", "activations", "logits", "replicated", *_titles("split over", sizes)]
    ]
    for first, *others in _by_prompt(costs):
        held = first.memory
        split = [cost for cost in (first, *others) if cost.split]
        totals = [cost.memory_total for cost in (first, *split)]
        shown = [f"{total / GB:.2f}{' !' if total > setting.device_memory else ''}" for total in totals]
        parts = [sum(held[name] for name in HELD), held["activations"], held["logits"]]
        numbers = f"{first.trained:,}"
        rows.append([first.method, str(first.length), numbers, *(f"{part / GB:.2f}" for part in parts), *shown])
    return rows


def sending_rows(costs: Sequence[Cost]) -> list[list[str]]:
    """What a process sends and computes in a step, a row for each method, length and number of processes."""
    rows = [["method", "P", "processes", "sums MB", "gathers MB", "TFLOP", "computing ms", "replicated ms", "split ms"]]
    for whole, split in zip(costs[::2], costs[1::2], strict=True):
        sent = [f"{whole.sent_summing / MB:,.2f}", f"{split.sent_gathering / MB:,.0f}"]
        times = [f"{1e3 * one:,.2f}" for one in (whole.compute_seconds, whole.bound_seconds, split.bound_seconds)]
        named = [whole.method, str(whole.length), str(whole.processes)]
        rows.append([*named, *sent, f"{whole.flops / 1e12:,.1f}", *times])
    return rows


def _titles(start: str, sizes: Sequence[int]) -> list[str]:
    return [f"{start} {size}" for size in sizes]


def _by_prompt(costs: Sequence[Cost]) -> list[list[Cost]]:
    groups: dict[tuple[str, int], list[Cost]] = {}
    for cost in costs:
        groups.setdefault((cost.method, cost.length), []).append(cost)
    return list(groups.values())


def weights_line(costs: Sequence[Cost], setting: Setting) -> str:
    """The frozen weights, whole and in parts."""
    split = {cost.processes: cost.memory for cost in costs if cost.split}
    parts = "; ".join(
        f"split over {size}, {held['weights'] / GB:.2f} GB and {held['gathered'] / GB:.2f} GB gathered at once"
        for size, held in split.items()
    )
    return f"Frozen weights in {setting.dtype}: {costs[0].memory['weights'] / GB:.2f} GB on each device; {parts}."


def scale_text(found: dict[str, list[Cost]], setting: Setting) -> str:
    """For people at a terminal."""
    parts = [
        f"{id}\n{weights_line(costs, setting)}\n\nmemory of a device, GB\n{as_text(memory_rows(costs, setting))}\n\n"
        f"one step: what a process sends and computes, and its time at the least\n{as_text(sending_rows(costs))}"
        for id, costs in found.items()
    ]
    return "\n\n\n".join([*parts, _setting_line(setting)])


def scale_json(found: dict[str, list[Cost]], setting: Setting) -> str:
    """One object: the setting, and every number of every backbone."""
    counted = {id: [cost.facts() for cost in costs] for id, costs in found.items()}
    return json.dumps({"setting": asdict(setting), "backbones": counted}, indent=2)


def _setting_line(setting: Setting) -> str:
    return (
        f"A step of {setting.rows} rows a process, {setting.source} source and {setting.target} target tokens each; a "
        f"device of {setting.device_flops / 1e12:,.0f} TFLOP/s, {setting.bandwidth / GB:,.0f} GB/s sent, "
        f"{setting.device_memory / GB:,.0f} GB."
    )


def section(id: str, costs: Sequence[Cost], setting: Setting) -> str:
    """A backbone's part of the page."""
    return f"""## {id}

{weights_line(costs, setting)}

Memory of a device, GB:

{as_markdown(memory_rows(costs, setting))}

One step:

{as_markdown(sending_rows(costs))}
"""


def scale_page(found: dict[str, list[Cost]], setting: Setting) -> str:
    """docs/scale.md."""
    sections = "\n".join(section(id, costs, setting) for id, costs in found.items())
    return f"""# Scale: what training a prompt sends, holds and computes

Written by `softprompt scale --markdown > docs/scale.md`, from configs alone: no weights, no GPU, no cluster. **Nothing
on this page about these backbones was run.** Bytes and operations are counted from the code that trains, and the same
counts are checked against small jobs that were run (last section). Times are bounds from a device's data sheet: a step
cannot be faster, and how much slower it is nobody has measured here.

{_setting_line(setting)}

Rows are per process: more processes are larger batches. Frozen weights and arithmetic are in {setting.dtype}, without
autocast (`backbone.dtype={setting.dtype} train.precision=float32`); what is trained is in float32 with AdamW, a prefix
through its MLP of 512 units. `softprompt scale --help` says how to ask for something else.

## How to read it

- **Replicated**: every device has all weights. **Split**: `backbone.shard=true`, FSDP2. `!`: more than the device has.
- **its state**: trained numbers, gradients, AdamW's moments. The MLP is most of it; the kept prompt is far smaller.
- **activations**: all that autograd keeps for the backward pass below the logits, counted tensor by tensor while the
  step runs without memory. Fused attention as on a CPU, which keeps what CUDA's kernels keep. `train.micro_batch` and
  `train.gradient_checkpointing` lower it. Temporaries and the allocator's slack are not in it.
- **logits**: at target positions only: as computed, in float32, and their log-softmax; all at once, though replicated
  training takes no more than 2^24 of them at a time.
- **gathered at once**: what is in no block (embeddings, head) stays together from forward to backward; beside it the
  largest block, and once more as the message that it came in. At the least: the next block may be on its way.
- **sums MB**: sent by a process in a step to sum gradients, loss and signals in rings, 2(n-1)/n of the bytes summed.
  **gathers MB**: sent to put split weights together, (n-1)/n of them: every block once for forward and once for
  backward, the rest once. Replicated, a process sends the sums alone; split, both.
- **replicated ms, split ms**: the sums come after the backward pass, since nothing is left to hide them behind; gathers
  run beside the computing, and the longer of the two counts. Among {setting.processes[-1]} processes some neighbours
  are on other machines, where sending is slower: give `--bandwidth` what they have.
- T5 1.1 is counted with one matrix for embedding and head, as transformers builds it from its config; the published
  weights have a head of their own, {2 * 32128 * 4096 / GB:.2f} GB more in bfloat16 for XXL.

What a process sends for a prompt is a few megabytes. For a prefix it is the gradient of the MLP that makes it: P
hardly counts, and `reparam: none` sends the prefix alone. Splitting is what costs: all blocks travel twice in every
step, whatever is learned and however few rows there are, so it wants as many rows as fit.

{sections}
{checks()}"""


def checks() -> str:
    """Predictions beside what small real jobs did: recorded by benchmarks/scale.py, held to by a test."""
    kept: list[dict[str, Any]] = json.loads((files("softprompt") / "assets" / "scale.json").read_text(encoding="utf-8"))
    names = list(kept[0]["measured"])
    rows = [["job", *names]]
    for job in kept:
        pairs = [(job["predicted"][name], job["measured"][name]) for name in names]
        rows.append([job["job"], *("-" if b is None else f"{a:,} / {b:,}" for a, b in pairs)])
    return f"""## Checked against what was run

Tiny random models in real jobs of gloo processes on a CPU, their second step: predicted / measured, in bytes unless it
says numbers. Measured where it happens: arguments of torch.distributed's calls, tensors that autograd saved, the
optimiser's state, the parts of the weights. `python benchmarks/scale.py` measures again; a test wants both to be equal.

{as_markdown(rows)}

- summed: through all-reduce in a step, by one process. gathered: put together by all-gathers in a step.
- part: of the split weights, in process 0. kept: for the backward pass, logits included.
"""
