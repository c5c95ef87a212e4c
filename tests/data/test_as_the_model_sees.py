"""Each task from a raw record to what the model reads and learns, by hand: texts, ids, and the labels read back."""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import factories
import pytest

from softprompt.backbone import Backbone
from softprompt.batch import encode_pairs, make_batch
from softprompt.config import DataConfig
from softprompt.data import load
from softprompt.methods import Untuned
from softprompt.types import Example


class Case(NamedTuple):
    task: str
    name: str
    raw: str
    source: str
    target: str


XML = """<benchmark><entries><entry category="{category}" eid="Id1" size="2"><modifiedtripleset>
<mtriple>Abilene_Regional_Airport | cityServed | Abilene,_Texas</mtriple>
<mtriple>Abilene,_Texas | isPartOf | Texas</mtriple></modifiedtripleset>
<lex comment="good" lid="Id1">Abilene is in Texas.</lex></entry></entries></benchmark>"""
WEBNLG = {
    "category": "Airport",
    "lexicalisations": [{"comment": "good", "lang": "", "lex": "Abilene is in Texas.", "xml_id": "Id1"}],
    "modifiedtripleset": [
        {"object": "Abilene,_Texas", "property": "cityServed", "subject": "Abilene_Regional_Airport"},
        {"object": "Texas", "property": "isPartOf", "subject": "Abilene,_Texas"},
    ],
}
WEBNLG_SOURCE = "| Abilene_Regional_Airport : cityServed : Abilene,_Texas | Abilene,_Texas : isPartOf : Texas"
DART = {
    "tripleset": [["Mars Hill College", "JOINED", "1973"], ["Mars Hill College", "LOCATION", "Mars Hill, N. Carolina"]],
    "subtree_was_extended": True,
    "annotations": [{"source": "WikiSQL_decl_sents", "text": "A school from Mars Hill joined in 1973."}],
}
DART_SOURCE = "Mars Hill College : joined : 1973 | Mars Hill College : location : Mars Hill, N. Carolina"
XSUM = {"document": "Ms Ní Bhriain spoke.\nIt rained.", "summary": "A talk was held in the rain.", "id": "1"}
NEWS, SPORT = ("http://www.bbc.co.uk/news/uk-1", "http://www.bbc.co.uk/sport/golf/1")
SCITLDR = {"source": ["We train.", "It works."], "target": ["Training works."], "title": "T", "paper_id": "p"}

CASES = [
    Case(
        "e2e",
        "a.csv",
        'mr,ref\n"name[Café X], priceRange[£20-25], familyFriendly[no]","Café X isn\'t cheap."\n',
        "name : Café X | price : £20-25 | family friendly : no",
        "Café X isn't cheap.",
    ),
    Case("webnlg", "a.json", json.dumps({"entries": [{"1": WEBNLG}]}), WEBNLG_SOURCE, "Abilene is in Texas."),
    Case("webnlg", "a.xml", XML.format(category="Airport"), WEBNLG_SOURCE, "Abilene is in Texas."),
    Case("dart", "a.json", json.dumps([DART]), DART_SOURCE, "A school from Mars Hill joined in 1973."),
    Case(
        "dart",
        "a.xml",
        XML.format(category="MISC"),
        "Abilene_Regional_Airport : cityserved : Abilene,_Texas | Abilene,_Texas : ispartof : Texas",
        "Abilene is in Texas.",
    ),
    Case("xsum", "a.jsonl", json.dumps(XSUM), "Ms Ní Bhriain spoke. It rained.", "A talk was held in the rain."),
    Case("scitldr", "a.jsonl", json.dumps(SCITLDR), "We train. It works.", "Training works."),
]


@cache
def bone(family: str) -> Backbone:
    return factories.backbone({"causal": "gpt2", "seq2seq": "bart"}[family])


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.task}-{case.name}")
def test_from_the_raw_record_to_the_labels(tmp_path: Path, case: Case, family: str) -> None:
    path = tmp_path / case.name
    path.write_text(case.raw, encoding="utf-8")
    splits = load(DataConfig(task=case.task, train=path, dev=path, test=path), 1)
    (example,) = splits.train
    assert (example.source, example.targets) == (case.source, (case.target,))
    backbone = bone(family)
    check_labels(backbone, case.source, case.target)
    assert splits.dev == (example,)
    (test,) = splits.test
    assert (test.source, test.targets[0], test.meta) == (case.source, case.target, example.meta)


@pytest.mark.parametrize(
    ("task", "own"), [("xsum-news-to-sports", SPORT), ("xsum-within-news", "http://www.bbc.co.uk/news/health-1")]
)
def test_the_extrapolations_of_xsum(tmp_path: Path, task: str, own: str) -> None:
    """One article that is trained on, and one that is only tested on."""
    path = tmp_path / "a.jsonl"
    rows = [XSUM | {"url": NEWS}, XSUM | {"url": own, "document": "Played.", "summary": "Won."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = load(DataConfig(task=task, train=path, dev=path, test=path), 1)
    assert [(row.source, row.targets) for row in splits.train] == [
        ("Ms Ní Bhriain spoke. It rained.", ("A talk was held in the rain.",))
    ]
    assert splits.dev == splits.train
    assert [(row.source, row.targets) for row in splits.test] == [("Played.", ("Won.",))]
    for family in ("causal", "seq2seq"):
        check_labels(bone(family), splits.test[0].source, splits.test[0].targets[0])


def check_labels(backbone: Backbone, source: str, target: str) -> None:
    """Encode the pair beside a longer one, and read back what is learned and what is only given."""
    longer = Example(source + " and more", (target + " and more",))
    pairs = encode_pairs(backbone, [Example(source, (target,)), longer])
    batch = make_batch(backbone, Untuned(), pairs)
    tokenizer = backbone.tokenizer
    learned = batch.labels_N[: int(batch.predicts_BT[0].sum())]
    read = batch.input_ids_BT[0][batch.attention_mask_BT[0].bool()]
    if backbone.family == "causal":
        assert tokenizer.decode(learned) == f" {target} {factories.EOS}"
        assert tokenizer.decode(read) == f" {source} {factories.EOS} {target} {factories.EOS}"
        given = read[: -len(learned)]
        assert tokenizer.decode(given) == f" {source} {factories.EOS}"
    else:
        assert tokenizer.decode(learned) == target + factories.EOS
        assert tokenizer.decode(read) == source
        assert batch.decoder_input_ids_BT[0, 1 : len(learned)].tolist() == learned[:-1].tolist()
