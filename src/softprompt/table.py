"""Tables for people: aligned text, Markdown, and how a metric is written in them."""

from collections.abc import Sequence

_TITLES = {
    "bleu": "BLEU", "nist": "NIST", "meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr", "ter": "TER",
    "chrf": "chrF++", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "exact_match": "EM", "f1": "F1",
    "f1_macro": "macro-F1", "f1a": "F1a", "squad_f1": "SQuAD F1", "bertscore": "BERTScore",
    "rouge1_unicode": "ROUGE-1 (Unicode)", "rouge2_unicode": "ROUGE-2 (Unicode)", "rougeL_unicode": "ROUGE-L (Unicode)",
}  # fmt: skip
_DECIMALS = {"nist": 3, "cider": 3, "ter": 4}


def metric_title(metric: str) -> str:
    """The metric's name as papers write it."""
    return _TITLES.get(metric, metric)


def show_score(metric: str, value: float) -> str:
    """The score with as many decimals as papers print, or one more."""
    return f"{value:.{_DECIMALS.get(metric, 2)}f}"


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first to the left and the numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
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
