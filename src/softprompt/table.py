"""Tables for people: aligned text, Markdown, and how a metric is written in them."""

import os
import shutil
import sys
from collections.abc import Sequence

_TITLES = {
    "bleu": "BLEU", "nist": "NIST", "meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr", "ter": "TER",
    "chrf": "chrF++", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "exact_match": "EM", "f1": "F1",
    "f1_macro": "macro-F1", "f1a": "F1a", "squad_f1": "SQuAD F1", "bertscore": "BERTScore",
    "rouge1_unicode": "ROUGE-1 (Unicode)", "rouge2_unicode": "ROUGE-2 (Unicode)", "rougeL_unicode": "ROUGE-L (Unicode)",
}  # fmt: skip
_DECIMALS = {"dev loss": 4, "nist": 3, "cider": 3, "ter": 4}


def metric_title(metric: str) -> str:
    """The metric's name as papers write it."""
    return _TITLES.get(metric, metric)


def show_score(metric: str, value: float) -> str:
    """The score with as many decimals as papers print, or one more."""
    return f"{value:.{_DECIMALS.get(metric, 2)}f}"


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is, or of COLUMNS where that is set; None: nothing has to fit."""
    if os.environ.get("COLUMNS", "").isdecimal() or sys.stdout.isatty():
        return max(40, shutil.get_terminal_size().columns)
    return None


def as_text(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Aligned columns, the first to the left and the numbers to the right.

    Wider than `width` (default: `terminal_width`) it is turned around, a row a column, where that fits, else the
    columns go on below, the first one repeated.
    """
    width = terminal_width() if width is None else width
    if width is None or _wide(rows) <= width:
        return _aligned(rows)
    turned = list(map(list, zip(*rows, strict=True)))
    if _wide(turned) <= width:
        return _aligned(turned)
    blocks, start = [], 1
    while start < len(rows[0]):
        end = start + 1
        while end < len(rows[0]) and _wide([[row[0], *row[start : end + 1]] for row in rows]) <= width:
            end += 1
        blocks.append(_aligned([[row[0], *row[start:end]] for row in rows]))
        start = end
    return "\n\n".join(blocks)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]


def _wide(rows: Sequence[Sequence[str]]) -> int:
    widths = _widths(rows)
    return sum(widths) + 2 * (len(widths) - 1)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = _widths(rows)
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """The same table for a README."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + "|".join(["---"] + ["---:"] * (len(rows[0]) - 1)) + "|", *body])
