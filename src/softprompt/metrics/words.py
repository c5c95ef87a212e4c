"""The words that the WebNLG and DART scripts score: lower case, every character that is no letter, digit or _ apart.

WebNLG 2017 first writes every character in ASCII. Applied to its own result, either function changes nothing.

Source: the evaluation scripts of the WebNLG 2017 challenge and of DART (Nan et al. 2021).
Differences: WebNLG's script takes its ASCII from the package Unidecode; here it comes from anyascii, with the
characters up to U+024F, and some punctuation, on which the two differ put right. Beyond those, rare ones may differ.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_SEPARATE: Final = re.compile(r"((?!(?<=i)\u0307)\W)")  # the dot that lower-casing leaves of a Turkish capital stays
_ASCII: Final = str.maketrans(
    {
        "¢": "C/", "£": "PS", "¤": "$?", "¥": "Y=", "§": "SS", "·": "*", "¼": " 1/4", "½": " 1/2", "¾": " 3/4",
        "×": "x", "ĸ": "k", "ƍ": "d", "ǝ": "@", "ə": "@", "ƕ": "hv", "ƣ": "oi", "ƹ": "zh", "ƻ": "2", "ǀ": "|",
        "ǁ": "||", "ǂ": "|=", "ǃ": "!", "ɂ": "", "→": "-",
        "—": "--", "―": "--", "‚": ",", "„": ",,", "‧": ".", "‣": "*>", "₽": "R", "™": "(tm)", "℃": "degC", "℉": "degF",
        "№": "No. ", "⅓": " 1/3 ", "⅔": " 2/3 ",
    }
)  # fmt: skip


@lru_cache(maxsize=1 << 15)
def split_words(text: str) -> str:
    """`text` as DART scores it."""
    return " ".join(_SEPARATE.sub(r" \1 ", text.lower()).split())


@lru_cache(maxsize=1 << 15)
def split_ascii_words(text: str) -> str:
    """`text` as WebNLG 2017 scores it."""
    if not text.isascii():
        from anyascii import anyascii

        text = anyascii(text.lower().translate(_ASCII))
    return split_words(text)
