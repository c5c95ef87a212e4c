"""docs/performance.md, docs/comparison.md and a part of docs/results.md from the JSON in benchmarks/results.

python benchmarks/pages.py
"""

import json
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
KINDS = ("trained", "stored")

HEAD = """# Speed and memory

Made by `python benchmarks/pages.py` from `benchmarks/results/*.json`; each file names its machine and commit. Every
comparison runs in one process, the arms taking turns, and a ratio is the median over rounds: the machines are shared
and noisy, so read ratios, not seconds.
"""
NO_GPU = "Nothing here was run on a GPU.\n"


def read(name: str) -> dict[str, Any]:
    """One result file."""
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def machine(result: dict[str, Any]) -> str:
    """One line about where it ran."""
    found = result["machine"]
    packages = ", ".join(f"{name} {found['packages'][name]}" for name in ("torch", "transformers"))
    cores = f"{found['cores']} cores, {found['cpu_threads']} threads, {found['cpu_capability']}"
    return f"On {found['device']} ({cores}), {packages}, commit `{(result['commit'] or 'none')[:10]}`."


def mib(count: float) -> str:
    """Bytes as MiB."""
    return f"{count / 2**20:,.0f}"


def train_section(result: dict[str, Any]) -> str:
    """Training steps."""
    setting, ratios, peaks = result["setting"], result["ratios"], result["peak_bytes_above_model"]
    rows = "\n".join(
        f"| {name} | {speed:.3f} | {mib(peaks[name])} |" for name, speed in result["steps_per_second"].items()
    )
    return f"""## Training step
`python benchmarks/train_step.py --e2e FOLDER --compile`: {setting["backbone"]}, {setting["data"]},
batches of {setting["batch"]},
prefix {setting["prefix_length"]}, {setting["precision"]},
{setting["rounds"]} rounds of {setting["steps_per_round"]} steps.

| arm | steps/s | peak MiB above the loaded model |
|---|---:|---:|
{rows}

Prefix-tuning makes **{ratios["speed_vs_peft"]:.2f}x** PEFT's steps per second with
**{ratios["peak_memory_vs_peft"]:.2f}x** its peak memory above the model,
and {ratios["speed_vs_finetune"]:.2f}x the steps of full fine-tuning in the same loop.
Under `train.compile` it makes {ratios["speed_of_compiled"]:.2f}x the steps that it makes without,
{ratios["speed_of_compiled_vs_peft"]:.2f}x PEFT's, with {ratios["peak_memory_of_compiled_vs_peft"]:.2f}x PEFT's memory.
{machine(result)}
"""


def decode_section(result: dict[str, Any]) -> str:
    """Decoding."""
    setting, ratios, peaks = result["setting"], result["ratios"], result["peak_bytes_above_model"]
    rows = "\n".join(
        f"| {name} | {speed:.1f} | {mib(peaks[name])} |" for name, speed in result["tokens_per_second"].items()
    )
    lengths = sorted(int(name.rpartition("_")[2]) for name in ratios if name.startswith("speed_vs_peft_"))
    said = "\n".join(
        f"- P={length}: **{ratios[f'speed_vs_peft_{length}']:.2f}x** PEFT's speed with "
        f"{ratios[f'peak_memory_vs_peft_{length}']:.2f}x its peak memory above the model; "
        f"**{ratios[f'time_vs_no_prefix_{length}']:.2f}x** the time of no prefix at all."
        for length in lengths
    )
    return f"""## Decoding
`python benchmarks/decode.py --e2e FOLDER`: {setting["backbone"]}, {setting["rows"]} rows x {setting["beams"]} beams,
{setting["new_tokens"]} new tokens a row, {setting["rounds"]} rounds.

| arm | tokens/s | peak MiB above the loaded model |
|---|---:|---:|
{rows}

{said}

{machine(result)}
"""


def scoring_section(result: dict[str, Any]) -> str:
    """Scoring."""
    parts, left_out = result["official_python_part"], " and the ".join(result["official_python_part"]["without"])
    return f"""## Scoring
`python benchmarks/scoring.py HYPOTHESES REFERENCES`: the E2E test set, 630 outputs, 4,693 references, one core.

| what | seconds |
|---|---:|
| `softprompt score`, the whole command: BLEU, NIST, ROUGE-L, CIDEr | {result["ours"]["seconds"]:.2f} |
| the official scorer's Python parts from PyPI, without {left_out} | {parts["median_seconds"]:.2f} |

{machine(result)}
"""


def length_section(result: dict[str, Any]) -> str:
    """Prefix length."""
    setting, ratios = result["setting"], result["ratios"]
    lengths = setting["lengths"]
    rows = "\n".join(
        f"| {length} | " + " | ".join(f"{ratios[kind][f'speed_vs_peft_{length}']:.2f}x" for kind in ratios) + " |"
        for length in lengths
    )
    grown = [f"{kind} {found['growth_ours']:.2f}x (PEFT {found['growth_peft']:.2f}x)" for kind, found in ratios.items()]
    return f"""## Prefix length
`python benchmarks/prefix_length.py`: {setting["backbone"]}, batches of {setting["batch"]}, {setting["rows"]} rows x
{setting["beams"]} beams, {setting["new_tokens"]} new tokens, {setting["precision"]}, {setting["rounds"]} rounds.

| P | training steps against PEFT's | decoding against PEFT's |
|---:|---:|---:|
{rows}

Time at P={max(sorted(lengths)[:6])} over that at P={min(lengths)}: {", ".join(grown)}.
{machine(result)}
"""


def memory_section(result: dict[str, Any]) -> str:
    """Peaks by batch size and prefix length."""
    cells = result["cells"]
    batches = list(dict.fromkeys(cell["batch"] for cell in cells))
    rows: dict[tuple[str, int | None], list[str]] = {}
    for cell in cells:
        rows.setdefault((cell["arm"], cell["prefix_length"]), []).append(mib(cell["peak_bytes"]))
    lines = "\n".join(
        f"| {arm} | {length or '-'} | " + " | ".join(found) + " |" for (arm, length), found in rows.items()
    )
    return f"""## Memory of training
`python benchmarks/memory.py`: {result["setting"]["backbone"]}, {result["setting"]["precision"]}; peak MiB above the
loaded model in the first two steps, by pairs a step.

| arm | P | {" | ".join(map(str, batches))} |
|---|---:{"|---:" * len(batches)}|
{lines}

{machine(result)}
"""


def overhead_section(result: dict[str, Any]) -> str:
    """What surrounds the steps."""
    setting, marks, found = result["setting"], result["start_seconds"], result["surround"]
    step, each = found["step_seconds"], found["checkpoint_seconds"]
    return f"""## Around the steps
`python benchmarks/overhead.py`: {setting["backbone"]}, batches of {setting["batch"]}, {setting["precision"]}. From the
start of a process: imports {marks["imports"]:.1f} s, backbone loaded {marks["backbone"]:.1f} s, data tokenised
{marks["data"]:.1f} s, first step done {marks["first_step"]:.1f} s. A step takes {step:.3f} s; its line in the
log with TensorBoard adds {found["log_share"]:.2%}, a checkpoint every {setting["save_every"]} steps
({each:.3f} s each) {found["checkpoint_share"]:.2%}.
{machine(result)}
"""


def step_overhead_section(result: dict[str, Any]) -> str:
    """What a step costs outside torch."""
    setting, found = result["setting"], result["data"]
    rows = [
        f"| {name} | {one['pairs']:,} | {one['outside_torch_ms_a_step']:.2f} | {one['plan_ms_a_step']:.3f} | "
        f"{one['plan_seconds']:.2f} |"
        for name, one in found.items()
    ]
    table = "\n".join(rows)
    return f"""## Python around a step
`python benchmarks/step_overhead.py`: {setting["backbone"]}, batches of {setting["batch"]},
{setting["precision"]}, median of {setting["steps"]} steps. Milliseconds of processor time a step outside torch
(collating, modes, attaching the prefix, the log, its share of the epoch's plan), which do not grow with the training
set: the plan of an epoch is made once.

| as many pairs as | pairs | ms a step | of them the plan | plan of an epoch, s |
|---|---:|---:|---:|---:|
{table}

{machine(result)}
"""


def gpu_section(result: dict[str, Any]) -> str:
    """Training and decoding on a CUDA device."""
    parts, setting, lines = result["parts"], result["setting"], []
    titles = {
        "gpt2_medium": "GPT-2 medium, prefix P=5",
        "t5_base": "T5-base, prompt P=100",
        "llama_7b": "Llama 7B, prefix P=20",
    }
    for name in titles.keys() & parts.keys():
        found = parts[name]
        speed = found["steps_per_second"]
        lines.append(
            f"| {titles[name]}, batches of {found['batch']} | {speed['ours']:.1f} steps/s | {speed['peft']:.1f} | "
            f"{found['speed_vs_peft']:.2f}x |"
        )
    for length, ratio in parts.get("decode", {}).get("speed_vs_peft", {}).items():
        speed = parts["decode"]["tokens_per_second"]
        ours, theirs = speed[f"ours_{length}"], speed[f"peft_{length}"]
        lines.append(f"| GPT-2 medium, decoding, P={length} | {ours:.0f} tokens/s | {theirs:.0f} | {ratio:.2f}x |")
    said = ""
    if "gpt2_medium" in parts:
        said += (
            f"GPT-2 medium's step reaches {parts['gpt2_medium']['share_of_hardware']:.1%} of the device's rate in one "
            "large matrix product (the file states the formula).\n"
        )
    if "e2e_run" in parts:
        run = parts["e2e_run"]
        said += f"The paper's E2E training, {run['epochs']} x {run['pairs']:,} pairs: {run['seconds']:.0f} s.\n"
    table = "\n".join(sorted(lines))
    return f"""## On a GPU
`python benchmarks/gpu.py`: random weights in {setting["dtype"]}, {setting["rounds"]} rounds.

| | ours | PEFT | ratio |
|---|---:|---:|---:|
{table}

{said}{machine(result)}
"""


LATER = {
    "prefix_length": length_section,
    "memory": memory_section,
    "overhead": overhead_section,
    "step_overhead": step_overhead_section,
    "gpu": gpu_section,
}
"""Results that may not be there yet, and their sections."""


COMPARISON = """# Methods side by side

Made by `python benchmarks/pages.py` from `benchmarks/results/*.json`. Small frozen models, few pairs, greedy decoding,
one thread: it shows that every method learns and what each costs here, and says nothing of large models. Mean
(standard deviation) over seeds; rates were chosen by dev loss on the first seed, alike for all arms, on a coarse grid.
"""


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ({deviation:.2f})"


def methods_section(result: dict[str, Any], title: str, command: str) -> str:
    """All arms of one recipe over its seeds."""
    arms = result["arms"]
    metrics = list(next(iter(arms.values()))["scores"])
    head = "| arm | " + " | ".join(name.replace("_", " ") for name in metrics) + " | trained | stored |"
    rows = []
    for name, arm in arms.items():
        shares = [f"{arm['parameters'][kind]:,.0f} ({arm['parameters'][f'{kind}_share']:.2%})" for kind in KINDS]
        shown = name if name != "main" else f"{arm['method']} (text)"
        rows.append(
            f"| {shown} | " + " | ".join(spread(arm["scores"][m]) for m in metrics) + f" | {' | '.join(shares)} |"
        )
    table = "\n".join([head, "|---" + "|---:" * (len(metrics) + 2) + "|", *rows])
    return f"""## {title}
`{command}`, seeds {", ".join(map(str, result["seeds"]))}.

{table}

{machine(result)}
"""


def lowdata_section(result: dict[str, Any]) -> str:
    """Starts by number of training pairs."""
    from real_tasks import interval

    def within(values: list[float]) -> str:
        mean, half = interval(values)
        return f"{mean:.2f} ± {half:.2f}"

    arms = list(next(iter(result["runs"].values()))[0])
    rows = "\n".join(
        f"| {size} | " + " | ".join(within([run[arm] for run in runs]) for arm in arms) + " |"
        for size, runs in result["runs"].items()
    )
    names = " | ".join("task words" if arm == "main" else arm.replace("-", " ") for arm in arms)
    return f"""## Few training pairs: real words against random numbers
`python benchmarks/lowdata.py`: BLEU on the 200 test sources of the bundled task, 150 steps of 10 pairs,
{len(result["subsets"])} subsets a size. A direct prefix of 19 starts from the backbone's activations for an
instruction or from random numbers. Mean and 95% interval of Student's t over the subsets.

| training pairs | {names} |
|---{"|---:" * len(arms)}|
{rows}

{machine(result)}
"""


REAL = """## Protocols on the official files
Made by `python benchmarks/pages.py` from `benchmarks/results/real_tasks.json`, which `python benchmarks/real_tasks.py
--data DATA` makes: DATA holds the official files. The backbone is the bundled one of 3.5M parameters, which has read
nothing but generated text: the pipelines and the numbers are real, and far from those of large models. One seed where
no interval is given; intervals are 95% ones of Student's t over five draws of the examples.

A prefix steers what a backbone can do already. This one puts records into words; it knows no sentiment (50.9 on SST-2
is the share of one label) and finds no answers in a text, and a prefix cannot teach it: fine-tuning can, a little.
Each run by hand:
"""
MARKS = "<!-- made by benchmarks/pages.py: -->", "<!-- until here -->"
"""What it writes in docs/results.md lies between these."""
SHOWN = {"bleu": "BLEU", "meteor": "METEOR", "ter": "TER", "exact_match": "EM", "f1": "F1", "accuracy": "accuracy"}


def real_part(result: dict[str, Any]) -> str:
    """A table for each protocol, and the commands that make it."""
    from real_tasks import interval

    parts = []
    few = {name: found for name, found in result["runs"].items() if name.endswith("examples a label")}
    for name, found in result["runs"].items():
        if name in few:
            continue
        command = "\n".join(run["command"] for run in found["runs"])
        parts.append(f"### {name}\n```\n{command}\n```\n{real_table(found['runs'])}\n")
    rows = []
    for name, found in few.items():
        values = [run["arms"][0]["scores"]["accuracy"] for run in found["runs"]]
        mean, half = interval(values)
        rows.append(f"| {name} | {mean:.1f} ± {half:.1f} | {min(values):.1f} to {max(values):.1f} |")
    if few:
        command = next(iter(few.values()))["runs"][0]["command"]
        table = "\n".join(["| | accuracy | draws |", "|---|---:|---:|", *rows])
        parts.append(
            "### SST-2, few examples\n`data.shots` 4, 16 and 32 (a label), `data.subset` 0 to 4:\n"
            f"```\n{command}\n```\n"
            f"{table}\n\nThe low-data series of the bundled task, real words against random numbers: "
            "[comparison.md](comparison.md).\n"
        )
    return "\n".join([REAL, *parts, machine(result)])


def real_table(runs: list[dict[str, Any]]) -> str:
    """One row an arm and test set: the whole and its parts."""
    metrics = list(runs[0]["arms"][0]["scores"])
    rows = [f"| arm | test set | sources | {' | '.join(SHOWN.get(metric, metric) for metric in metrics)} |"]
    rows.append("|---|---|---:" + "|---:" * len(metrics) + "|")
    for run in runs:
        for arm in run["arms"]:
            whole = {tested(run["command"]): arm["scores"]} | arm["groups"]
            share = f" ({arm['trained_share']:.2%} trained)" if arm["trained_share"] else ""
            for part, scores in whole.items():
                count = str(arm["sources"]) if part not in arm["groups"] else ""
                values = " | ".join(f"{scores[metric]:.2f}" for metric in metrics)
                rows.append(f"| {arm['method']}{share} | {part} | {count} | {values} |")
    return "\n".join(rows)


def tested(command: str) -> str:
    """What a command tests on, by its last file: `all` where that is the task's own."""
    names = {"dev-v1.1.recovered": "SQuAD dev", "reddit_v1.0": "reddit", "amazon_reviews_v1.0": "Amazon reviews"}
    files = [Path(word).stem for word in command.split() if word.startswith("data.dev=")]
    return names[files[-1]] if files else "all"


def main() -> None:
    """Write the pages."""
    sections = [train_section(read("train_step")), decode_section(read("decode")), scoring_section(read("scoring"))]
    there = {name: section for name, section in LATER.items() if (RESULTS / f"{name}.json").exists()}
    sections += [section(read(name)) for name, section in there.items()]
    page = "\n".join([HEAD + ("" if "gpu" in there else NO_GPU), *sections])
    (ROOT / "docs" / "performance.md").write_text(page, encoding="utf-8")
    quality = "python benchmarks/quality.py --recipe"
    e2e = f"{quality} benchmarks/recipes/methods-e2e.yaml -- data.dir=FOLDER backbone=FOLDER"
    compared = [
        methods_section(
            read("methods-gazette"), "Gazette, the bundled backbone of 3.5M parameters", f"{quality} methods"
        ),
        methods_section(read("methods-e2e"), "E2E, stories260K (Llama, 260K parameters, real pretraining)", e2e),
        lowdata_section(read("lowdata")),
    ]
    (ROOT / "docs" / "comparison.md").write_text("\n".join([COMPARISON, *compared]), encoding="utf-8")
    results = ROOT / "docs" / "results.md"
    before, _, rest = results.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    results.write_text(f"{before}{MARKS[0]}\n{real_part(read('real_tasks'))}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
