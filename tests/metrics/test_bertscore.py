"""BERTScore by the formula, on a random model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from factories import bert_folder
from transformers import AutoModel, AutoTokenizer

from softprompt.metrics.bertscore import bertscore

OUTPUTS = ["the red inn sells hot tea", "a quiet river bank", "kind guests"]
FIRST = ["the old inn sells hot tea", "a quiet river bank", "kind guests pay ten pounds"]
SECOND = ["tea is sold at the red inn", "", "guests are kind"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"), [*OUTPUTS, *FIRST, *SECOND])


def one_by_one(model: Path, layer: int, hypothesis: str, reference: str) -> float:
    """F of one pair, without batches and pads."""
    tokenizer, encoder = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()

    def vectors(text: str) -> torch.Tensor:
        with torch.no_grad():
            states = encoder(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[layer][0]
        return states / states.norm(dim=1, keepdim=True)

    ours, theirs = vectors(hypothesis), vectors(reference)
    cosines = ours @ theirs.T
    precision, recall = cosines.max(1).values[1:-1].mean(), cosines.max(0).values[1:-1].mean()
    return float(2 * precision * recall / (precision + recall))


def test_the_best_reference_counts_and_padding_does_not(model: Path) -> None:
    references = [[first, *([second] if second else [])] for first, second in zip(FIRST, SECOND, strict=True)]
    want = [
        max(one_by_one(model, 2, output, reference) for reference in group)
        for output, group in zip(OUTPUTS, references, strict=True)
    ]
    got = bertscore(f"{model}:2")(references).score(OUTPUTS)
    assert got.value == pytest.approx(sum(want) / len(want), abs=1e-6)


def test_a_text_scores_1_against_itself_and_no_words_score_0(model: Path) -> None:
    metric = bertscore(f"{model}:1")([[text] for text in FIRST])
    assert metric.score(FIRST).value == pytest.approx(1, abs=1e-6)
    assert metric.score(["", " ", ""]).value == 0
