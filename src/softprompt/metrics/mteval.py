"""Words as NIST's mteval-v13a script sees them, lower case: the tokenizer that sacrebleu calls "13a".

Source: the behaviour of NIST's mteval-v13a.pl, which WMT and the E2E challenge score with.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal

Lowercase = Literal["no", "ascii", "unicode"]

_ENTITIES: Final = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_SYMBOL: Final = re.compile(r"([!-&(-+/:-@\[-`{-~])")  # ASCII punctuation but ' - . ,
_STOP_AFTER_NON_DIGIT: Final = re.compile(r"([^0-9])([.,])")
_STOP_BEFORE_NON_DIGIT: Final = re.compile(r"([.,])([^0-9])")
_DASH_AFTER_DIGIT: Final = re.compile(r"([0-9])(-)")
_ASCII_LOWER: Final = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


@lru_cache(maxsize=1 << 15)
def tokenize_13a(text: str, lowercase: Lowercase = "ascii") -> tuple[str, ...]:
    """The words of `text`: ASCII symbols apart, `.` and `,` apart unless between digits, `-` apart after a digit.

    Args:
        text: One segment.
        lowercase: `ascii` lowers A-Z only, as the Perl script does; `unicode` lowers every letter, as its Python port
            does; `no` leaves case alone, as sacrebleu does by default.
    """
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    if lowercase != "no":
        text = text.translate(_ASCII_LOWER) if lowercase == "ascii" else text.lower()
    text = f" {text} "
    text = _SYMBOL.sub(r" \1 ", text)
    text = _STOP_AFTER_NON_DIGIT.sub(r"\1 \2 ", text)
    text = _STOP_BEFORE_NON_DIGIT.sub(r" \1 \2", text)
    text = _DASH_AFTER_DIGIT.sub(r"\1 \2 ", text)
    return tuple(text.split())
