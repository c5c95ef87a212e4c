"""Reader of the files of the MRQA 2019 shared task (Fisch et al. 2019): a context and its questions on each line."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from softprompt.data.document import need
from softprompt.data.table import Record, read_table


def read_mrqa(path: Path) -> Iterator[Record]:
    """Yield a record for each question of a `.jsonl` or `.jsonl.gz` file, in file order.

    Columns: `id`, `question`, `context`, `answers`, and `detected`, the answers as they stand in the context. The first
    line may be the official header. All questions of a line are read (the conversion script of Lester et al. 2021 takes
    the first only). Raises ConfigError for a file that cannot be read, DataError with `file:line` for its content.
    """
    for record in read_table(path):
        if record.line == 1 and "header" in record.values:
            continue
        for question in need(record.values, "qas", list, record.where):
            detected = need(question, "detected_answers", list, record.where)
            values = {
                "id": question.get("qid"),
                "question": question.get("question"),
                "context": record.values.get("context"),
                "answers": question.get("answers"),
                "detected": [need(answer, "text", str, record.where) for answer in detected],
            }
            yield replace(record, values=values)
