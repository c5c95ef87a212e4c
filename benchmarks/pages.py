"""docs/performance.md from the JSON in benchmarks/results: `python benchmarks/pages.py`."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

HEAD = """# Speed and memory

Made by `python benchmarks/pages.py` from `benchmarks/results/*.json`; each file names its machine and commit. Every
comparison runs in one process, the arms taking turns, and a ratio is the median over rounds: the machines are shared
and noisy, so read ratios, not seconds. Nothing here was run on a GPU.
"""


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
`python benchmarks/train_step.py --e2e FOLDER`: {setting["backbone"]}, {setting["data"]}, batches of {setting["batch"]},
prefix {setting["prefix_length"]}, {setting["precision"]},
{setting["rounds"]} rounds of {setting["steps_per_round"]} steps.

| arm | steps/s | peak MiB above the loaded model |
|---|---:|---:|
{rows}

Prefix-tuning makes **{ratios["speed_vs_peft"]:.2f}x** PEFT's steps per second with
**{ratios["peak_memory_vs_peft"]:.2f}x** its peak memory above the model,
and {ratios["speed_vs_finetune"]:.2f}x the steps of full fine-tuning in the same loop.
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


def main() -> None:
    """Write the page."""
    sections = [train_section(read("train_step")), decode_section(read("decode")), scoring_section(read("scoring"))]
    page = "\n".join([HEAD, *sections])
    (ROOT / "docs" / "performance.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
