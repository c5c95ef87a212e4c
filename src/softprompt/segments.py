"""What is scored as one text where a task's rows are parts of it: MultiRC's answer options of one question."""

from collections.abc import Sequence

from softprompt.types import Example


def joined(
    test: Sequence[Example], texts: Sequence[str], columns: Sequence[str]
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return outputs and references; those of rows that agree in the columns of `meta` are one, in row order.

    Of an output its first word counts (`-` if it has none), so that there is one for each row. Without columns, each
    row is a text of its own.
    """
    if not columns:
        return list(texts), [example.scored_against for example in test]
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, example in enumerate(test):
        groups.setdefault(tuple(example.meta.get(column) for column in columns), []).append(index)
    outputs = [" ".join((texts[index].split() or ["-"])[0] for index in group) for group in groups.values()]
    references: list[tuple[str, ...]] = [
        (" ".join(test[index].scored_against[0] for index in group),) for group in groups.values()
    ]
    return outputs, references
