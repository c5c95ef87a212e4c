"""METEOR 1.5 by its authors' program, which needs Java; where that is absent METEOR is missing, never another variant.

The program aligns each output to each reference (exact, stem, synonym and paraphrase matches) and answers with counts;
it keeps the reference that scores best. From the sums of the counts over the test set:

    P, R = weighted matches / words, function words counting 1 - delta and content words delta
    F = P R / (alpha P + (1 - alpha) R)
    METEOR = F (1 - gamma (chunks / matched words) ^ beta)

with the program's English parameters. The E2E challenge gives it PTB words, WebNLG and DART the text as it is; both
let it normalise punctuation (`-norm`).

Source: Denkowski and Lavie 2014, "Meteor Universal: Language Specific Translation Evaluation for Any Target
Language". The jar comes with the PyPI package pycocoevalcap (`pip install softprompt[meteor]`), or is the one that the
environment variable SOFTPROMPT_METEOR_JAR names. An answer may take 60 seconds, or SOFTPROMPT_METEOR_TIMEOUT.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Thread
from typing import IO, Final, Literal

import numpy as np

from softprompt.metrics.base import Array, Metric, References, Sums, Unavailable, ratio
from softprompt.metrics.ptb import tokenize_lines

_ALPHA: Final = 0.85
_BETA: Final = 0.2
_GAMMA: Final = 0.6
_DELTA: Final = 0.75
_STAGES: Final = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase
_JAR_VARIABLE: Final = "SOFTPROMPT_METEOR_JAR"
_NUM_COUNTS: Final = 23
_PATIENCE_VARIABLE: Final = "SOFTPROMPT_METEOR_TIMEOUT"
_PATIENCE: Final = 60.0


class Meteor(Metric):
    """METEOR times 100."""

    name = "meteor"

    def __init__(self, references: References, words: Literal["ptb", "as-given"] = "as-given") -> None:
        """Keeps the references.

        Raises:
            Unavailable: There is no Java or no jar.
            DataError: A segment has no reference.
        """
        super().__init__(references)
        self._command = _command()
        self._words = words
        lines = iter(self._lines([text for group in references for text in group]))
        self._references = [[next(lines) for _ in group] for group in references]

    @property
    def signature(self) -> str:
        return f"METEOR|1.5|lang:en|task:default|norm:yes|tok:{self._words}"

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """The program's counts for each segment."""
        program = _Program.running(self._command)
        rows = [
            program.counts(line, group) for line, group in zip(self._lines(hypotheses), self._references, strict=True)
        ]
        return Sums(_without_whole(np.array(rows, dtype=np.float64)), _combine)

    def _lines(self, texts: Sequence[str]) -> list[str]:
        texts = [text.replace("|||", "") for text in texts]
        return [" ".join(words) for words in (tokenize_lines(texts) if self._words == "ptb" else map(str.split, texts))]


def meteor_of_ptb_words(references: References) -> Meteor:
    """METEOR as the COCO scorer, and with it the E2E challenge, computes it."""
    return Meteor(references, words="ptb")


def _without_whole(counts_NK: Array) -> Array:
    """The program does not add up the one chunk of an output that matches all of a reference, word for word."""
    whole_N = (counts_NK[:, 20] == 1) & (counts_NK[:, 21:23] == counts_NK[:, :2]).all(axis=1)
    counts_NK[whole_N, 20] = 0.0
    return counts_NK


def _combine(sums_RK: Array) -> Array:
    lengths_R4, chunks_R, matched_R2 = sums_RK[:, :4], sums_RK[:, 20], sums_RK[:, 21:23]
    # For each stage: content words of the output, of the reference, function words of the output, of the reference.
    matches_R4 = np.einsum("rsk,s->rk", sums_RK[:, 4:20].reshape(-1, 4, 4), _STAGES)

    def share(side: int) -> Array:
        words, function = lengths_R4[:, side], lengths_R4[:, side + 2]
        weighed = _DELTA * matches_R4[:, side] + (1 - _DELTA) * matches_R4[:, side + 2]
        return ratio(weighed, _DELTA * (words - function) + (1 - _DELTA) * function)

    precision, recall = share(0), share(1)
    f_mean = ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    fragmentation = ratio(chunks_R, matched_R2.mean(axis=1))
    scores: Array = 100.0 * f_mean * (1.0 - _GAMMA * fragmentation**_BETA)
    return scores


def _command() -> tuple[str, ...]:
    """How to start the program.

    Raises:
        Unavailable: There is no Java or no jar.
    """
    java, jar = shutil.which("java"), _jar()
    if java is None:
        raise Unavailable("METEOR 1.5 needs Java: install a Java runtime, then `pip install softprompt[meteor]`")
    if jar is None:
        raise Unavailable(
            f"METEOR 1.5 needs its jar: `pip install softprompt[meteor]`, or set {_JAR_VARIABLE} to a meteor-1.5.jar "
            "that has data/paraphrase-en.gz beside it"
        )
    return (java, "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm")


def _jar() -> Path | None:
    named = os.environ.get(_JAR_VARIABLE)
    if named:
        return Path(named) if Path(named).is_file() else None
    package = find_spec("pycocoevalcap")
    folders = (package.submodule_search_locations or []) if package else []
    return next((jar for folder in folders if (jar := Path(folder) / "meteor" / "meteor-1.5.jar").is_file()), None)


class _Program:
    """The Java program, started once (it reads tables for seconds) and asked one line at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        self._lock = Lock()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        atexit.register(self._process.kill)

    @staticmethod
    @cache
    def running(command: tuple[str, ...]) -> _Program:
        """The program started by `command`, one in this process."""
        return _Program(command)

    def counts(self, hypothesis: str, references: Sequence[str]) -> list[float]:
        """The counts of `hypothesis` against the reference that it scores best with.

        Raises:
            Unavailable: The program died, did not answer within its time, or answered with something else.
        """
        with self._lock:
            answer = self._ask(f"SCORE ||| {' ||| '.join(references)} ||| {hypothesis}")
        try:
            counts = [float(number) for number in answer.split()]
        except ValueError:
            counts = []
        if len(counts) != _NUM_COUNTS or not all(0 <= count < math.inf for count in counts):
            self._give_up()
            raise Unavailable(f"METEOR's program answered {answer[:60]!r} where {_NUM_COUNTS} counts were expected")
        return counts

    def _ask(self, line: str) -> str:
        """The answer to a line; "" of a program that died. What is read waits in a thread, since a pipe has no clock.

        Raises:
            Unavailable: There was none in time.
        """
        assert self._process.stdin and self._process.stdout
        answer: list[str] = []

        def converse(to: IO[str], back: IO[str]) -> None:
            with contextlib.suppress(OSError, ValueError):
                to.write(f"{line}\n")
                to.flush()
                answer.append(back.readline().strip())

        patience = _patience()
        waiting = Thread(target=converse, args=(self._process.stdin, self._process.stdout), daemon=True)
        waiting.start()
        waiting.join(patience)
        if waiting.is_alive():
            self._give_up()
            raise Unavailable(
                f"METEOR's program gave no answer in {patience:g} s. Is `java` in PATH a Java runtime? On a slow "
                f"machine set {_PATIENCE_VARIABLE} to more seconds"
            )
        return answer[0] if answer else ""

    def _give_up(self) -> None:
        """End the program; the next call starts another."""
        self.running.cache_clear()
        self._process.kill()


def _patience() -> float:
    """Seconds that an answer may take; the first one includes the start."""
    with contextlib.suppress(ValueError):
        given = float(os.environ.get(_PATIENCE_VARIABLE, _PATIENCE))
        if 0 < given < 1e6:
            return given
    return _PATIENCE
