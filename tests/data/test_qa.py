"""Question answering end to end: raw rows -> exact texts -> ids -> the labels that carry the loss, decoded back."""

import gzip
import json
from pathlib import Path
from typing import Any

import factories
import pytest

from softprompt.batch import encode_pairs, make_batch
from softprompt.config import DataConfig
from softprompt.data import load
from softprompt.data.qa import pad_punctuation
from softprompt.methods import Untuned
from softprompt.metrics import score_suite

CONTEXT = "The old inn (built 1721) sells tea.\nIts owner is Zoë O'Neil."
QUESTION = " Who owns the inn? "
ANSWERS = ["Zoë O'Neil", "O'Neil", "Zoë O'Neil"]
SOURCE = f"question: Who owns the inn? context: {CONTEXT}"
PADDED = "question: Who owns the inn ? context: The old inn ( built 1721 ) sells tea . Its owner is Zo ë O ' Neil ."


def squad_file(folder: Path) -> Path:
    asked = {"id": "q1", "question": QUESTION, "answers": [{"text": text, "answer_start": 0} for text in ANSWERS]}
    again = {"id": "q2", "question": QUESTION, "answers": [{"text": "Zoë", "answer_start": 48}]}
    article = {"title": "Inns", "paragraphs": [{"context": CONTEXT, "qas": [asked, again]}]}
    path = folder / "squad.json"
    path.write_text(json.dumps({"version": "1.1", "data": [article]}), encoding="utf-8")
    return path


def mrqa_file(folder: Path) -> Path:
    spans = {"char_spans": [[48, 57]], "token_spans": [[14, 16]]}
    asked = {"qid": "q1", "question": QUESTION, "answers": ANSWERS, "detected_answers": [{"text": ANSWERS[0], **spans}]}
    again = {**asked, "qid": "q2", "answers": ["Zoë"]}
    rows: list[dict[str, Any]] = [
        {"header": {"dataset": "Inns", "split": "train"}},
        {"context": CONTEXT, "qas": [asked, again]},
    ]
    path = folder / "mrqa.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


FILES = {"squad": squad_file, "mrqa-newsqa": mrqa_file}


def data_of(task: str, folder: Path, **changes: Any) -> DataConfig:
    path = FILES[task](folder)
    return DataConfig(task=task, train=path, dev=path, split="native", **changes)


@pytest.mark.parametrize("task", FILES)
def test_source_targets_and_id(task: str, tmp_path: Path) -> None:
    """The first answer is trained on, all are scored against, and a question that stands twice stays two."""
    splits = load(data_of(task, tmp_path), 1)
    title = {"title": "Inns"} if task == "squad" else {}
    assert [(x.source, x.targets, x.meta) for x in splits.train] == [
        (SOURCE, ("Zoë O'Neil",), {"id": "q1", **title}),
        (SOURCE, ("Zoë",), {"id": "q2", **title}),
    ]
    assert [(x.source, x.targets, x.meta) for x in splits.test] == [
        (SOURCE, tuple(ANSWERS), {"id": "q1", **title}),
        (SOURCE, ("Zoë",), {"id": "q2", **title}),
    ]
    assert splits.dev == splits.test


@pytest.mark.parametrize("task", FILES)
def test_padded_punctuation(task: str, tmp_path: Path) -> None:
    splits = load(data_of(task, tmp_path, template="lester"), 1)
    assert splits.train[0].source == splits.test[1].source == PADDED
    assert splits.train[0].targets == ("Zo ë O ' Neil",)
    assert splits.test[0].scored_against == ("Zo ë O ' Neil", "O ' Neil", "Zo ë O ' Neil")


def test_the_answer_as_the_context_has_it_is_learned_and_all_are_scored_against(tmp_path: Path) -> None:
    """MRQA's template `lester`: the second question's answer is `Zoë`, found as `Zoë O'Neil`."""
    data = data_of("mrqa-newsqa", tmp_path, template="lester")
    splits = load(data, 1)
    assert [x.targets for x in splits.train] == [("Zo ë O ' Neil",)] * 2
    assert splits.test[1].targets == ("Zo ë O ' Neil",) and splits.test[1].scored_against == ("Zo ë",)
    own = load(data.model_copy(update={"target": "{answers}"}), 1).test[1]
    assert own.targets == own.scored_against == ("Zoë",)


@pytest.mark.parametrize("task", FILES)
@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_labels_decode_back_to_the_first_answer(task: str, name: str, tmp_path: Path) -> None:
    """What the loss is on is the answer and nothing else, in both families."""
    train = load(data_of(task, tmp_path), 1).train
    bone = factories.backbone(name, **({"n_positions": 512} if name == "gpt2" else {}))
    pairs = encode_pairs(bone, train[:1])
    batch = make_batch(bone, Untuned(), pairs)
    labels = factories.tokenizer().decode(batch.labels_N)
    read = factories.tokenizer().decode(batch.input_ids_BT[0])
    if bone.family == "causal":
        assert labels == f" Zoë O'Neil {factories.EOS}"
        assert read == f" {SOURCE} {factories.EOS} Zoë O'Neil {factories.EOS}"
    else:
        assert (labels, read) == (f"Zoë O'Neil{factories.EOS}", SOURCE)


def test_scores_are_the_best_over_all_answers(tmp_path: Path) -> None:
    test = load(data_of("squad", tmp_path), 1).test
    scored = score_suite("squad", ["the O'Neil!", "Neil"], [x.targets for x in test]).scores
    assert (scored["exact_match"].value, scored["f1"].value) == (50.0, 50.0)


@pytest.mark.parametrize(
    ("text", "padded"),
    [
        ("Who's there?", "Who ' s there ?"),
        ("U.S. dollars", "U . S . dollars"),
        ("a_b-c", "a_b - c"),
        ("François paid £5", "Fran ç ois paid £ 5"),
        ("  two\n\tlines ", "two lines"),
        ("a\u00a0b", "a \u00a0 b"),
        ("a\vb", "a \v b"),
        ("\n ", ""),
    ],
)
def test_pad_punctuation(text: str, padded: str) -> None:
    """By hand after T5's two regular expressions, whose \\W and \\s know ASCII alone."""
    assert pad_punctuation(text) == padded
