"""For each task a hand-made record in its official format: the exact texts that the model sees, and the label again."""

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import factories
import pytest

from softprompt.batch import encode_pairs, make_batch
from softprompt.data.rows import read_rows
from softprompt.errors import DataError
from softprompt.methods import Untuned
from softprompt.tasks import list_tasks, load_task


@dataclass
class Case:
    """The content of a file, and the (source, targets) of its first row under each template."""

    content: str
    wanted: dict[str, tuple[str, tuple[str, ...]]]
    meta: dict[str, Any] = field(default_factory=dict)
    rows: int = 1


def tsv(*rows: str) -> str:
    return "".join(row.replace("|", "\t") + "\n" for row in rows)


def jsonl(**values: Any) -> str:
    return json.dumps(values) + "\n"


def labelled(dept: str, t5: str, digit: str, word: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {"dept": (dept, (digit,)), "t5": (t5, (word,))}


PAIR = "sentence1: It rains. sentence2: The sun is out."
PH, HP = "premise: It rains. hypothesis: It is wet.", "hypothesis: It is wet. premise: It rains."
MULTIRC = {
    "text": "<b>Sent 1: </b>Ada baked.<br><b>Sent 2: </b>Bo ate.",
    "questions": [
        {
            "question": "Who ate?",
            "idx": 4,
            "answers": [{"text": "Bo", "idx": 0, "label": 1}, {"text": "Ada", "label": 0}],
        }
    ],
}
RECORD = {
    "text": "Ada won.\n@highlight\nBo lost to Ada\n@highlight\nCy left",
    "entities": [{"start": 0, "end": 2}, {"start": 20, "end": 21}, {"start": 31, "end": 33}],
}
CASES = {
    "glue-cola": Case(
        tsv('bc01|0|*|They said "go.', "bc01|1||They went."),
        labelled('sentence: They said "go.', 'sentence: They said "go.', "0", "unacceptable"),
        {"source": "bc01", "star": "*"},
        rows=2,
    ),
    "glue-sst2": Case(
        tsv("sentence|label", 'a " fine film |1'),
        labelled('sentence: a " fine film', 'sentence: a " fine film', "1", "positive"),
    ),
    "glue-mrpc": Case(
        "\ufeff" + tsv("Quality|#1 ID|#2 ID|#1 String|#2 String", "0|7|8|It rains.|The sun is out."),
        labelled(PAIR, PAIR, "0", "not_equivalent"),
        {"#1 ID": "7", "#2 ID": "8"},
    ),
    "glue-stsb": Case(
        tsv("news|MSRpar|2012|0003|2.749|It rains.|The sun is out.|further|columns"),
        labelled(PAIR, PAIR, "2.7", "2.8"),
        {"genre": "news", "file": "MSRpar", "year": "2012", "id": "0003"},
    ),
    "glue-qqp": Case(
        tsv("id|qid1|qid2|question1|question2|is_duplicate", "1|2|3|Why?|How so?|1", "4|5|6|cut short"),
        labelled("question1: Why? question2: How so?", "question1: Why? question2: How so?", "1", "duplicate"),
        {"id": "1", "qid1": "2", "qid2": "3"},
    ),
    "glue-qnli": Case(
        tsv("index|question|sentence|label", "0|Who won?|Ada won.|not_entailment"),
        labelled(
            "question: Who won? sentence: Ada won.", "question: Who won? sentence: Ada won.", "1", "not_entailment"
        ),
        {"index": "0"},
    ),
    "glue-mnli": Case(
        tsv(
            "pairID|genre|sentence1|sentence2|label1|gold_label", "9c|travel|It rains.|It is wet.|neutral|contradiction"
        ),
        labelled(PH, HP, "2", "contradiction"),
        {"genre": "travel", "pairID": "9c"},
    ),
    "glue-rte": Case(
        tsv("index|sentence1|sentence2|label", "0|It rains.|The sun is out.|entailment"),
        labelled(PAIR, PAIR, "0", "entailment"),
        {"index": "0"},
    ),
    "glue-wnli": Case(
        tsv("index|sentence1|sentence2|label", "0|It rains.|The sun is out.|0"),
        labelled(PAIR, PAIR, "0", "not_entailment"),
        {"index": "0"},
    ),
    "superglue-boolq": Case(
        jsonl(question="is rain wet", passage="Rain is water.", idx=3, label=True),
        labelled(
            "question: is rain wet passage: Rain is water.",
            "passage: Rain is water. question: is rain wet",
            "1",
            "True",
        ),
        {"idx": 3},
    ),
    "superglue-cb": Case(
        jsonl(premise="It rains.", hypothesis="It is wet.", label="neutral", idx=0),
        labelled(PH, HP, "2", "neutral"),
        {"idx": 0},
    ),
    "superglue-copa": Case(
        jsonl(premise="It rained.", choice1="I got wet.", choice2="I sang.", question="effect", label=0, idx=0),
        labelled(
            "premise: It rained. choice1: I got wet. choice2: I sang. question: effect",
            "choice1: I got wet. choice2: I sang. premise: It rained. question: effect",
            "0",
            "False",
        ),
        {"idx": 0},
    ),
    "superglue-multirc": Case(
        jsonl(idx=2, version=1.1, passage=MULTIRC),
        labelled(*["question: Who ate? answer: Bo paragraph: Sent 1: Ada baked. Sent 2: Bo ate."] * 2, "1", "True"),
        {"paragraph_id": 2, "question_id": 4},
        rows=2,
    ),
    "superglue-record": Case(
        jsonl(source="x", passage=RECORD, qas=[{"query": "@placeholder won.", "answers": [{"text": "Ada"}] * 2}]),
        {
            "dept": (
                "record query: @placeholder won. entities: Ada, Bo passage: Ada won. Bo lost to Ada. Cy left",
                ("Ada",),
            ),
            "t5": ("query: @placeholder won. entities: Ada, Bo passage: Ada won. Bo lost to Ada. Cy left", ("Ada",)),
        },
    ),
    "superglue-rte": Case(
        jsonl(premise="It rains.", hypothesis="It is wet.", label="not_entailment", idx=0),
        labelled(PH, HP, "1", "not_entailment"),
        {"idx": 0},
    ),
    "superglue-wic": Case(
        jsonl(word="bank", sentence1="A river bank.", sentence2="A bank loan.", label=False, idx=0, version=1.1),
        labelled(*["sentence1: A river bank. sentence2: A bank loan. word: bank"] * 2, "0", "False"),
        {"idx": 0},
    ),
    "superglue-wsc": Case(
        jsonl(
            text="Ann told Bea's mother that she won.",
            target={"span1_text": "Bea's Mother", "span1_index": 2, "span2_text": "she", "span2_index": 5},
            label=True,
            idx=0,
        ),
        labelled(*["text: Ann told * Bea's mother * that # she # won."] * 2, "1", "True"),
        {"idx": 0},
    ),
    "winogrande": Case(
        jsonl(qID="q-1", sentence="Ann met Bea and _ waved.", option1="Ann", option2="Bea", answer="2"),
        {"dept": ("sentence: Ann met Bea and _ waved. option0: Ann option1: Bea", ("1",))},
        {"qID": "q-1"},
    ),
    "scitail": Case(tsv("It rains.|It is wet.|entails"), labelled(PH, HP, "0", "entailment")),
    "paws": Case(
        tsv("id|sentence1|sentence2|label", "5|It rains.|The sun is out.|1"),
        labelled(PAIR, PAIR, "1", "equivalent"),
        {"id": "5"},
    ),
    "yelp": Case(
        '"1","Cold ""tea"".\\nNever again."\n',
        labelled(*['sentence: Cold "tea".\\nNever again.'] * 2, "0", "negative"),
    ),
    "snli": Case(
        jsonl(gold_label="-", sentence1="x", sentence2="y", pairID="0")
        + jsonl(gold_label="neutral", sentence1="It rains.", sentence2="It is wet.", pairID="1"),
        labelled(PH, HP, "1", "neutral"),
        {"pairID": "1"},
    ),
}
EVERY = [(task, template) for task, case in CASES.items() for template in case.wanted]


def read(name: str, template: str, folder: Path) -> list[Any]:
    task = load_task(name)
    path = folder / Path(task.source.names("train")[0]).name
    path.write_text(CASES[name].content, encoding="utf-8")
    return list(read_rows([path], task.source, task.wording(template), ("input", "target")))


@pytest.mark.parametrize(("name", "template"), EVERY)
def test_a_record_becomes_these_texts(name: str, template: str, tmp_path: Path) -> None:
    case = CASES[name]
    rows = read(name, template, tmp_path)
    assert (rows[0].source, rows[0].targets) == case.wanted[template]
    assert rows[0].meta == case.meta and len(rows) == case.rows


def test_every_template_of_every_classification_task_has_a_case() -> None:
    tasks = [task for task in list_tasks() if task.name in CASES or task.template.labels]
    assert sorted(EVERY) == sorted((task.name, template) for task in tasks for template in task.templates)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_the_loss_is_on_the_label_alone(name: str, family: str, tmp_path: Path) -> None:
    """What the batch says is to be predicted decodes back to the target, behind all of the source."""
    bone = factories.backbone(family, **({"n_positions": 512} if family == "gpt2" else {}))
    example = read(name, next(iter(CASES[name].wanted)), tmp_path)[0]
    batch = make_batch(bone, Untuned(), encode_pairs(bone, [example]))
    tokenizer = bone.tokenizer
    assert tokenizer is not None
    assert tokenizer.decode(batch.labels_N, skip_special_tokens=True).strip() == example.targets[0]
    assert example.source in tokenizer.decode(batch.input_ids_BT[0])


WRONG = {
    "glue-cola": (tsv("a|1||Good.", "a|2||Bad."), "in_domain_train.tsv:2: expected a label out of '0' (0), '1' (1)"),
    "glue-stsb": (
        tsv("a|b|c|d|5.1|x|y"),
        "sts-train.csv:1: expected a number from 0 to 5 in column 'label', got '5.1'",
    ),
    "superglue-wsc": (
        jsonl(text="Ann won.", target={"span1_text": "a b c", "span1_index": 0, "span2_text": "a", "span2_index": 1}),
        "train.jsonl:1: expected span1_index and span1_text of words in the text of 2 words, got 0 and 'a b c'",
    ),
    "superglue-multirc": (
        jsonl(passage={"text": "x"}, idx=0),
        "train.jsonl:1: expected a passage with text, questions",
    ),
    "superglue-record": (jsonl(passage="x", qas=[{}]), "train.jsonl:1: expected a passage with text and entities"),
    "superglue-copa": (jsonl(premise="x", label=0), "train.jsonl:1: expected a column 'choice1'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_record_is_named_by_file_and_line(name: str, tmp_path: Path) -> None:
    task = load_task(name)
    path = tmp_path / task.source.names("train")[0]
    path.write_text(WRONG[name][0])
    with pytest.raises(DataError) as caught:
        list(read_rows([path], task.source, task.template, ("input", "target")))
    assert str(caught.value).startswith(f"{tmp_path}/{WRONG[name][1]}")


def test_rows_as_the_hub_has_them(tmp_path: Path) -> None:
    """The same texts from flat rows."""
    flat = {
        "superglue-wsc": jsonl(
            text="Ann won as she said.",
            span1_index=0,
            span1_text="Ann",
            span2_index=3,
            span2_text="she",
            idx=0,
            label=1,
        ),
        "superglue-multirc": jsonl(
            paragraph="<b>Sent 1: </b>Bo ate.",
            question="Who?",
            answer="Bo",
            label=1,
            idx={"paragraph": 2, "question": 4},
        ),
        "superglue-record": jsonl(
            passage="Ada won.\n@highlight\nBo", query="q", entities=["Ada", "Bo"], answers=["Bo"]
        ),
    }
    wanted = {
        "superglue-wsc": ("text: * Ann * won as # she # said.", ("1",)),
        "superglue-multirc": ("question: Who? answer: Bo paragraph: Sent 1: Bo ate.", ("1",)),
        "superglue-record": ("record query: q entities: Ada, Bo passage: Ada won. Bo", ("Bo",)),
    }
    for name, line in flat.items():
        task, path = load_task(name), tmp_path / f"{name}.jsonl.gz"
        path.write_bytes(gzip.compress(line.encode()))
        (row,) = read_rows([path], task.source, task.template, ("input", "target"))
        assert (row.source, row.targets) == wanted[name]


def test_spans_that_lie_in_each_other_are_both_marked(tmp_path: Path) -> None:
    task, path = load_task("superglue-wsc"), tmp_path / "a.jsonl"
    target = {"span1_text": "their mothers", "span1_index": 1, "span2_text": "their", "span2_index": 1}
    path.write_text(jsonl(text="So their mothers, all, worry.", target=target, label=False))
    (row,) = read_rows([path], task.source, task.template, ("input", "target"))
    assert row.source == "text: So * # their # mothers *, all, worry."
