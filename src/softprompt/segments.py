"""What is scored as one text where a task's rows are parts of it: MultiRC's answer options of one question."""

from collections.abc import Sequence

from softprompt.types import Example

RIGHT, WRONG, NO_LABEL = "1", "0", "-"


def joined(
    test: Sequence[Example],
    texts: Sequence[str],
    columns: Sequence[str],
    words: Sequence[str] = (),
    positive: str | None = None,
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return outputs and references; those of rows that agree in the columns of `meta` are one, in row order.

    Each row gives one word. With the label `words` of which one is `positive`, that is 1, 0, or `-` for what is no
    label, whatever the labels are called; of an output that is none its first word is looked at. Without them it is
    the first word itself. Without columns, each row is a text of its own.
    """
    if not columns:
        return list(texts), [example.scored_against for example in test]
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, example in enumerate(test):
        groups.setdefault(tuple(example.meta.get(column) for column in columns), []).append(index)

    def word(text: str) -> str:
        first = (text.split() or [NO_LABEL])[0]
        if positive is None:
            return first
        known = next((one for one in (text.strip(), first) if one in words), None)
        return NO_LABEL if known is None else RIGHT if known == positive else WRONG

    outputs = [" ".join(word(texts[index]) for index in group) for group in groups.values()]
    references: list[tuple[str, ...]] = [
        (" ".join(word(test[index].scored_against[0]) for index in group),) for group in groups.values()
    ]
    return outputs, references
