"""A few made-up records of a task, in the layout of its official files."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from string import Formatter
from typing import Any

from softprompt.data.xsum import URLS
from softprompt.tasks import Task, load_task

SECTIONS = ("news/world", "news/health", "sport/football")


def write_task(folder: Path, name: str, rows: int = 9) -> Path:
    """Write all files of the task, `rows` records each, with its labels in turn; return the folder."""
    task = load_task(name)
    for split in task.source.files:
        for file in task.source.names(split):
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = task.source.kind if task.source.kind != "table" else task.source.shape or "table"
            WRITERS[kind](path, task, rows)
    return folder


def _json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def _table(path: Path, task: Task, rows: int) -> None:
    """JSONL, or lines of fields under the task's official column names, which some files leave out."""
    wording, options = task.template, task.source.options
    column = (wording.labels or wording.numbers).column if wording.labels or wording.numbers else ""
    labels = list(wording.labels.words) if wording.labels else ["0.4", "4.6"]
    names = options.get("columns") or [*(name for _, name, _, _ in Formatter().parse(wording.input) if name), column]
    official = {ours: theirs for theirs, ours in options.get("rename", {}).items()}
    made = [{name: labels[n % len(labels)] if name == column else f"tea {n}" for name in names} for n in range(rows)]
    if path.suffix == ".jsonl":
        _json_lines(path, [{official.get(name, name): value for name, value in row.items()} for row in made])
        return
    separator = "," if path.suffix == ".csv" and "separator" not in options else "\t"
    lines = [separator.join(row.values()) for row in made]
    head = [] if "columns" in options else [separator.join(official.get(name, name) for name in names)]
    path.write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")


def _multirc(path: Path, task: Task, rows: int) -> None:
    answers = [{"text": "Bo", "label": 1}, {"text": "Ada", "label": 0}]
    passage = {"text": "Bo ate.", "questions": [{"question": "Who ate?", "idx": 0, "answers": answers}]}
    _json_lines(path, [{"idx": number, "passage": passage} for number in range(rows)])


def _wsc(path: Path, task: Task, rows: int) -> None:
    target = {"span1_text": "Ann", "span1_index": 0, "span2_text": "she", "span2_index": 2}
    texts = [{"text": "Ann says she won.", "target": target, "label": bool(n % 2), "idx": n} for n in range(rows)]
    _json_lines(path, texts)


def _e2e(path: Path, task: Task, rows: int) -> None:
    lines = [f'"name[Inn {number}], food[pie]","Inn {number} sells pie."' for number in range(rows)]
    path.write_text("\n".join(["mr,ref", *lines]) + "\n")


def _webnlg(path: Path, task: Task, rows: int) -> None:
    triple = {"subject": "Inn", "property": "sells", "object": "pie"}
    entries = [
        {
            "category": ("Airport", "Artist")[number % 2],
            "modifiedtripleset": [triple],
            "lexicalisations": [{"comment": "good", "lang": "", "lex": f"It sells pie {number}.", "xml_id": "Id1"}],
            "size": "1",
        }
        for number in range(rows)
    ]
    path.write_text(json.dumps({"entries": [{str(number): one} for number, one in enumerate(entries, 1)]}))


def _dart(path: Path, task: Task, rows: int) -> None:
    texts = [{"source": "e2e", "text": "It sells pie."}]
    path.write_text(
        json.dumps([{"tripleset": [["Inn", "SELLS", f"pie {n}"]], "annotations": texts} for n in range(rows)])
    )


def _xsum(path: Path, task: Task, rows: int) -> None:
    made = [{"document": f"The inn sells pie {n}.", "summary": f"Pie {n}.", "id": str(n)} for n in range(rows)]
    _json_lines(path, made)
    urls = [f"http://www.bbc.co.uk/{SECTIONS[number % len(SECTIONS)]}-{number}" for number in range(rows)]
    (path.parent / URLS).write_text("\n".join(urls))


def _questions(rows: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{n}",
            "qid": f"q{n}",
            "question": f"What {n}?",
            "answers": ["pie"],
            "detected_answers": [{"text": "pie"}],
        }
        for n in range(rows)
    ]


def _squad(path: Path, task: Task, rows: int) -> None:
    answers = [{"text": "pie", "answer_start": 14}]
    asked = [question | {"answers": answers} for question in _questions(rows)]
    paragraph = {"context": "The inn sells pie.", "qas": asked}
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "Inn", "paragraphs": [paragraph]}]}))


def _mrqa(path: Path, task: Task, rows: int) -> None:
    lines = [{"context": "The inn sells pie.", "qas": [question]} for question in _questions(rows)]
    _json_lines(path, [{"header": {"dataset": "x", "split": "x"}}, *lines])


WRITERS: dict[str, Callable[[Path, Task, int], None]] = {
    "table": _table,
    "multirc": _multirc,
    "wsc": _wsc,
    "e2e": _e2e,
    "webnlg": _webnlg,
    "dart": _dart,
    "xsum": _xsum,
    "squad": _squad,
    "mrqa": _mrqa,
}
