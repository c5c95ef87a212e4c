"""Hypotheses and references as they lie on disk.

A line ends at a line feed (a carriage return before it goes); other characters that Unicode calls line breaks are
part of the text, as they are for the official scripts.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from softprompt.errors import ConfigError, DataError
from softprompt.yaml_text import surrogate_in

_NO_ANSWER = "\0"
"""In place of an absent answer. An empty one would be right where the right one has no words that count."""


@dataclass(frozen=True)
class TestSet:
    """One system's outputs beside the references."""

    __test__ = False  # not a test, whatever its name says to pytest

    hypotheses: list[str]
    references: list[list[str]]
    parts: Mapping[str, list[int]] = field(default_factory=dict)
    """Part of the test set (seen, unseen, ...) -> its segments."""
    rows: Sequence[Mapping[str, Any]] = field(default=(), compare=False)
    """What a run's predictions say of each segment."""


def read_test_set(hypotheses: Path, references: Sequence[Path], parts: Path | None = None) -> TestSet:
    """Reads a system's outputs and what they are scored against.

    Args:
        hypotheses: one output a line; or predictions.jsonl of a run (or the run folder), which holds its references;
            or a JSON object id -> answer, for a SQuAD file.
        references: one file with groups of lines between blank lines, or with one reference a line; several parallel
            files; a SQuAD v1.1 file. Empty for predictions that hold their own.
        parts: one label a line (seen, unseen, ...).

    Raises:
        ConfigError: a file is not there.
        DataError: counts differ, or a file is not what its name says.
    """
    hypotheses = _predictions_of(hypotheses)
    for path in (hypotheses, *references, *([parts] if parts else [])):
        if not path.is_file():
            raise ConfigError(f"{path}: no such file. Expected hypotheses, references or labels of parts there.")
    if hypotheses.suffix == ".jsonl":
        found = _read_predictions(hypotheses)
        if references:
            found = replace(found, references=_aligned(hypotheses, found.hypotheses, references))
    elif not references:
        raise ConfigError(f"{hypotheses}: expected references, got none. Name them with --refs FILE [FILE ...].")
    elif hypotheses.suffix == ".json":
        found = _read_squad(hypotheses, references)
    else:
        lines = read_lines(hypotheses)
        found = TestSet(lines, _aligned(hypotheses, lines, references))
    if parts is None:
        return found
    labels = read_lines(parts)
    if len(labels) != len(found.hypotheses):
        raise DataError(f"{parts} has {len(labels)} lines, {hypotheses} has {len(found.hypotheses)} outputs.")
    return replace(found, parts=_by_label(labels))


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; the last may lack its line feed.

    Raises:
        DataError: not UTF-8.
    """
    text = _text(path)
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8, got byte {error.object[error.start]:#x} at {error.start}.") from None


def _predictions_of(path: Path) -> Path:
    return path / "predictions" / "test.jsonl" if path.is_dir() else path


def _aligned(hypotheses_path: Path, hypotheses: Sequence[str], paths: Sequence[Path]) -> list[list[str]]:
    """References for each hypothesis, from parallel files or one file of groups."""
    files = [read_lines(path) for path in paths]
    grouped = len(files) == 1 and any(not line.strip() for line in files[0])
    if grouped and len(files[0]) != len(hypotheses):
        return _matching(hypotheses_path, hypotheses, paths[0], _groups(files[0]))
    for path, lines in zip(paths, files, strict=True):
        if len(lines) != len(hypotheses):
            raise DataError(
                f"{path} has {len(lines)} lines, {hypotheses_path} has {len(hypotheses)}. "
                "Expected parallel files: one reference, or a blank line, for each output."
            )
    return [list(group) for group in zip(*files, strict=True)]


def _groups(lines: Sequence[str]) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            groups[-1].append(line)
        elif groups[-1]:
            groups.append([])
    return groups if groups[-1] else groups[:-1]


def _matching(hypotheses_path: Path, hypotheses: Sequence[str], path: Path, groups: list[list[str]]) -> list[list[str]]:
    if len(groups) != len(hypotheses):
        raise DataError(
            f"{path} has {len(groups)} groups of references (blank lines between them), "
            f"{hypotheses_path} has {len(hypotheses)} lines. Expected one output for each group."
        )
    return groups


def _read_predictions(path: Path) -> TestSet:
    hypotheses, references, labels, rows = [], [], [], []
    for number, line in enumerate(read_lines(path), start=1):
        row = _json(path, line, f"line {number}")
        if not isinstance(row, dict) or not isinstance(row.get("prediction"), str):
            raise DataError(f"{path}: line {number}: expected an object with a text `prediction`, got {line[:60]!r}.")
        group = row.get("references")
        if not isinstance(group, list) or not group or not all(isinstance(text, str) for text in group):
            raise DataError(f"{path}: line {number}: expected a list of texts as `references`, got {group!r:.80}.")
        for text in (row["prediction"], *group):
            if flaw := surrogate_in(text):
                raise DataError(f"{path}: line {number}: expected text, got {flaw}: half of a character.")
        hypotheses.append(row["prediction"])
        references.append(group)
        rows.append({**row, **row["meta"]} if isinstance(row.get("meta"), dict) else row)
        seen = rows[-1].get("seen")
        labels.append({True: "seen", False: "unseen"}[seen] if isinstance(seen, bool) else "")
    return TestSet(hypotheses, references, _by_label(labels), rows)


def _by_label(labels: Sequence[str]) -> dict[str, list[int]]:
    parts: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        if label.strip():
            parts.setdefault(label.strip(), []).append(index)
    return dict(sorted(parts.items()))


def _read_squad(hypotheses: Path, references: Sequence[Path]) -> TestSet:
    """The official forms: `{id: answer}` and the data set's file.

    Raises:
        ConfigError: more than one file of references.
        DataError: not of the form.
    Warns:
        UserWarning: questions without an answer. As in the official script they count as answered wrongly.
    """
    answers = _json(hypotheses, _text(hypotheses))
    if not isinstance(answers, dict) or not all(isinstance(answer, str) for answer in answers.values()):
        raise DataError(f"{hypotheses}: expected a JSON object from question id to answer text.")
    if len(references) != 1:
        raise ConfigError(f"{hypotheses}: expected one SQuAD file in --refs, got {len(references)} files.")
    path = references[0]
    data = _json(path, _text(path))
    try:
        questions = [qa for article in data["data"] for paragraph in article["paragraphs"] for qa in paragraph["qas"]]
        gold = {qa["id"]: [answer["text"] for answer in qa["answers"]] for qa in questions}
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{references[0]}: expected the form of SQuAD v1.1 (data/paragraphs/qas), got {error}."
        ) from None
    if not gold.keys() & answers.keys():
        raise DataError(
            f"{hypotheses} has {len(answers)} answers, {path} has {len(gold)} questions, and no id is in both."
        )
    absent = [question for question in gold if question not in answers]
    if absent:
        warnings.warn(
            f"{hypotheses} has no answer to {len(absent)} of the {len(gold)} questions of {path}, the first "
            f"{absent[0]!r}: each of them counts as answered wrongly.",
            stacklevel=3,
        )
    return TestSet([answers.get(question, _NO_ANSWER) for question in gold], list(gold.values()))


def _json(path: Path, text: str, where: str = "") -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: {where + ': ' if where else ''}expected JSON: {error}.") from None
    except RecursionError:
        raise DataError(f"{path}: {where + ': ' if where else ''}expected JSON, got one nested too deep.") from None
