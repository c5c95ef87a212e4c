"""docs/backbones.md from the rows."""

import re
from collections import Counter
from typing import Any

Row = dict[str, Any]
METHODS = ("prefix", "prompt", "dept")
NUMBERS = ("front", "front_logits", "batched", "padded", "generated")
SMALL = 1e-4
"""Below it a difference is rounding."""

HEAD = """# Backbones: every text model type of transformers

Each model type that transformers {transformers} has a causal or an encoder-decoder language model of, built tiny with
random weights, saved, read by `Backbone.load` and put under three methods. Made by

```
python tools/backbones > benchmarks/results/backbones.json
python tools/backbones --page < benchmarks/results/backbones.json > docs/backbones.md
```

with torch {torch} on a CPU in float32. {counts}

**What the numbers are**, all of them differences that should be rounding (below 1e-4):

* *front*: keys and values of real words as a prefix, against the words in front, at the worst attention module: each
  is given the inputs that it had behind the words. Beside the largest number that comes out of the module.
* *logits*: the same of the logits of the whole model, the text at the positions behind the words. A dash where a prefix
  does not reach all layers, or the model numbers its own positions (encoder-decoders).
* *batch*: log probabilities (nats) of two targets of unlike length in a batch, against each alone.
* *pads*: of the first token behind a source that is padded as in decoding, against unpadded. *alone*: the backbone
  reads padding otherwise, which `Backbone.load` finds and says; its sources are decoded one by one.
* *generate*: by how much a greedily generated token is below the likeliest one where all tokens are read at once, in
  nats.

The checks of *front* (for a prefix) and of virtual tokens (rows that are embeddings of words have the logits of the
words) run on the backbone at hand whenever a method is put on it; see [methods](methods.md). A model type that is
refused below with random weights may pass with others, and the other way round: what counts is the check.
"""


def short(row: Row) -> str:
    """A row in a line, for the terminal."""
    parts = [f"{key.upper()} {row[key]}" for key in ("tiny", "refused", "traceback") if key in row]
    for method in METHODS:
        if method in row:
            own = row[method]
            said = [f"{key} {own[key][:300]}" for key in ("refused", "traceback") if key in own]
            said += [f"{key} {own[key]:.1g}" for key in NUMBERS if key in own]
            said += [one for one in own.get("reach", []) if "(not" in one]
            parts.append(f"{method}: {', '.join(said)}")
    return " | ".join(parts)


def verdict(row: Row, method: str) -> str:
    """`works`, `refused`, `differs`, `fails` or `not built`."""
    if "tiny" in row:
        return "not built"
    own = row if "refused" in row or "traceback" in row else row[method]
    if "traceback" in own:
        return "fails"
    if "refused" in own:
        return "refused"
    said = ("front_logits",) if own.get("said") else ()
    return "works" if all(own[key] < SMALL for key in NUMBERS if key in own and key not in said) else "differs"


def made_of(found: Row) -> str:
    """The page."""
    rows: dict[str, Row] = found["rows"]
    counts = []
    for method in METHODS:
        tally = Counter(verdict(row, method) for row in rows.values())
        counts.append(f"{method}: {', '.join(f'{count} {what}' for what, count in sorted(tally.items()))}")
    total = f"{len(rows)} rows:\n\n" + "".join(f"* {line}\n" for line in counts)
    working = {name: row for name, row in rows.items() if any(verdict(row, method) == "works" for method in METHODS)}
    parts = [HEAD.format(**found["versions"], counts=total), "## Works\n", _numbers(working)]
    others = {name: row for name, row in rows.items() if name not in working and "tiny" not in row}
    parts += ["## Refused at load\n", _list((name, _why(row)) for name, row in others.items())]
    parts += ["## Not built\n", _list((name, row["tiny"]) for name, row in rows.items() if "tiny" in row)]
    return "\n".join(parts)


def _numbers(rows: dict[str, Row]) -> str:
    head = "| type | prefix: front | logits | batch | pads | generate | prompt: batch | pads | generate |"
    head += " DePT: batch | pads | generate |"
    lines = [head, "|---|" + "---|" * 11]
    notes: dict[str, list[str]] = {}
    for name, row in rows.items():
        cells = []
        for method in METHODS:
            keys = NUMBERS if method == "prefix" else NUMBERS[2:]
            own = row[method]
            if "refused" in own or "traceback" in own:
                cells += ["refused" if "refused" in own else "fails"] + [""] * (len(keys) - 1)
                notes.setdefault(_why(own), []).append(f"{name} ({method})")
                continue
            cells += [_cell(own, key, row) for key in keys]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        reach = [one for one in row["prefix"].get("reach", []) if "(not" in one]
        if reach:
            notes.setdefault(
                "said: a prefix reaches " + "; ".join(re.sub(r" \(.*", "", one) for one in reach), []
            ).append(name)
        if row["prefix"].get("said"):
            notes.setdefault("said: words in front act in other ways than attention as well", []).append(name)
    return (
        "\n".join(lines)
        + "\n\n### Refused or said of these\n\n"
        + _list((", ".join(n), why) for why, n in notes.items())
    )


def _cell(own: Row, key: str, row: Row) -> str:
    if key == "padded" and row["one_by_one"]:
        return "alone"
    return f"{own[key]:.0e}" if key in own else "-"


def _why(row: Row) -> str:
    return str(row.get("refused") or row.get("traceback"))


def _list(pairs: Any) -> str:
    return "".join(f"* {name}: {why}\n" for name, why in pairs)
