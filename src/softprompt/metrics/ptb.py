"""Words as the COCO caption scorer sees them: Penn Treebank tokens, lower case, punctuation removed.

The scorer runs Stanford CoreNLP 3.4.1's `PTBTokenizer -preserveLines -lowerCase` and then drops 17 punctuation tokens.
This module answers with the same words without Java. It was written from the tokenizer's observed answers.

What the scorer does that one would not guess:

* `£` becomes `#`, `€` becomes `$`, `½` becomes `1/2`.
* Brackets become `-lrb-`, `-rrb-` and so on. The list of punctuation to remove has them in upper case, and lower-casing
  comes first, so they stay as words.
* `family-friendly`, `and/or` and even `centre.The` are one word each; `5.The` is not.
* An abbreviation keeps its full stop (`inc.`, `p.m.`, `A.` within a sentence).

Differences: smileys, phone numbers with spaces, and rare abbreviations are cut in the plain way. After an initial
that ends a line the next line decides, as in the original (`8.3 m.`, and then The: `m`; and then a name, or nothing:
`m.`); a line on its own ends a sentence. The direction of a quotation mark
and the doubled full stop after an abbreviation are not computed, because both are removed anyway.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

_PUNCTUATION: Final = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# Words that keep the full stop after them: always, if they begin with a capital, before a number.
_ABBREVIATIONS: Final = (
    "adj adm adv al ala apr ariz assn assoc asst aug ave bldg blvd brig bros calif capt cf cmdr co col colo comdr "
    "conn corp cos cpl ct dak dec dept dr drs elec ens esq est etc ext feb fla fri ft ga gen gov hon inc ind insp "
    "intl invt jan jr jul jun kan kans ky lt ltd maj mar md messrs mfg mich minn mlle mme mo mon mont mr mrs ms "
    "msgr mt natl neb nev nov oct okla penn ph plc pres prof profs pvt rd rep reps rev sen sens sep sept sgt sq "
    "sr st ste supt tel tenn thu thurs tue tues univ va vs vt wed wis wisc wyo"
).replace(" ", "|")
_STATES: Final = "Ark|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"
_BEFORE_A_NUMBER: Final = frozenset(["ca.", "fig.", "figs.", "no.", "nos.", "op.", "pp."])

# Tried together at every position: the longest match wins, and of equal ones the first, as in a generated lexer.
_LETTER = r"[^\W\d_]"
_ALNUM = r"[^\W_½¼¾⅓⅔²³]"
_THING = rf"{_ALNUM}+(?:[-‐‑_]{_ALNUM}+)*"
_SLASHED = rf"{_ALNUM}+(?:-{_LETTER}+){{0,2}}"
_DOTTED = rf"{_LETTER}{_ALNUM}*"
_RULES: Final = tuple(
    re.compile(rule)
    for rule in (
        r"</?[A-Za-z!][^<>]*>",  # a tag
        r"(?i:https?://[^\s\"<>|(){}]*[^\s\"<>|.!?(){},-])",  # an address
        r"(?i:(?:www\.)?(?:[a-z0-9-]+\.)+(?:com|net|org|edu)(?:/[^\s\"<>|(){}]*[^\s\"<>|.!?(){},-])?)",
        r"[A-Za-z0-9_.-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*",
        rf"[#@]{_LETTER}\w*",  # a hashtag, a user
        r"&(?i:amp|lt|gt|quot|apos);",
        r"[-+]?(?:\d+|[.,:]\d+)(?:[.,:]\d+)*",  # a number
        rf"\d+\.\d*(?:-{_ALNUM}+)+",  # from such a number on
        r"\d+[-/]\d+(?:[-/]\d+)?",  # a fraction, a date
        _THING,
        rf"{_SLASHED}(?:/{_SLASHED})+",
        rf"{_THING}\.(?=[,;:])",  # a full stop before a comma can only be an abbreviation's
        r"[A-Za-z0-9]+(?:,[A-Za-z0-9]+){1,3}(?:-[A-Za-z0-9]+)+",
        rf"{_DOTTED}(?:[.!?]{_DOTTED})+(?:-{_ALNUM}+)*",
        r"[A-Z]+(?:&(?:amp;)?[A-Z]+)+",
        rf"(?i:(?:[a-z]\.){{2,}}(?:-{_ALNUM}+)*)",  # an acronym
        rf"(?:(?i:{_ABBREVIATIONS})|{_STATES})\.(?!{_ALNUM})",
        r"(?i:no\.(?=\d))",  # a number
        r"[A-Za-z]\.(?![^\W\d])",  # an initial
        rf"(?:[A-HK-XZ]|[dlno])['’](?!(?:ll|re|ve)\b){_LETTER}{{2,}}(?:-{_ALNUM}+)*",
        rf"{_LETTER}+[aeiouyAEIOUY]['’][aeiouA-Z]{_LETTER}*",  # Ya'Kub, Hawai'i
        rf"[yY]['’](?={_LETTER})",  # y'all
        r"(?i:ma['’]am|e['’]er|o['’]er|ne['’]er|['’]n|['’]em)(?!\w)",
        r"(?i:['’]n['’])",
        r"(?i:ol['’])(?!\w)",
        r"['’][0-9]{2}s?(?!\w)",
        r"(?i:['’](?:s|m|d|ll|re|ve))(?!\w)",
        r"(?:US|HK|NZ|A|C|S|M)\$",
        r"[cC](?:\+\+|#)",
        r"[!?]{2,}",
        r"\.{3}|-{2,}|\*+|_+|#+",
        r"\S",
    )
)
_NEGATION: Final = re.compile(rf"({_LETTER}*)(n['’]t)(?!{_ALNUM})", re.IGNORECASE)
_CLITIC_PAIRS: Final = re.compile(
    r"(can)(not)|(gon|wan)(na)|(got)(ta)|(gim|lem)(me)|(['’]t)(is|was)|(mor)(e['’]n)", re.IGNORECASE
)
_WORD_GOES_ON: Final = re.compile(rf"-?{_ALNUM}")
_CLITICS: Final = {
    f"{a}’{b}": f"{a}'{b}" for a, b in [("n", "t"), *(("", end) for end in ("s", "m", "d", "ll", "re", "ve"))]
}
_RENAMED: Final = {
    "£": "#", "€": "$", "¢": "cents", "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
    "…": "...", "–": "--", "—": "--", "---": "--", "----": "--",
    "’": "'", "‘": "`", "«": "``", "»": "''", "“": "``", "”": "''", '"': "''",
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'",
}  # fmt: skip
_UNKNOWN: Final = "‒₩₹\ufeff"  # dropped by the lexer, as are symbols beyond the basic plane
# Words which, after an initial, start the next sentence: "vitamin C. The" against "George W. Bush". In capitals too.
_OPENERS: Final = (
    "A", "About", "According", "Additionally", "After", "An", "As", "At", "But", "Earlier", "He", "Her", "Here",
    "However", "If", "In", "It", "Last", "Many", "More", "Mr.", "Ms.", "Now", "Once", "One", "Other", "Our", "She",
    "Since", "So", "Some", "Such", "That", "The", "Their", "Then", "There", "These", "They", "This", "We", "What",
    "When", "While", "Yet", "You",
)  # fmt: skip
_STARTERS: Final = frozenset([*_OPENERS, *map(str.upper, _OPENERS)])


def _normalise(token: str) -> str:
    renamed = _RENAMED.get(token)
    if renamed is not None:
        return renamed
    word = token.lower()
    return _CLITICS.get(word, word.replace("&amp;", "&"))


@lru_cache(maxsize=1 << 16)
def _split(chunk: str) -> tuple[str, ...]:
    """The words of a piece of text without white space, lower case, punctuation removed."""
    tokens: list[str] = []
    at = 0
    while at < len(chunk):
        pair = _NEGATION.match(chunk, at) or _CLITIC_PAIRS.match(chunk, at)
        if pair and not _WORD_GOES_ON.match(chunk, pair.end()):
            tokens.extend(part for part in pair.groups() if part)
            at = pair.end()
            continue
        end = max(match.end() for rule in _RULES if (match := rule.match(chunk, at)))
        if chunk[at] not in _UNKNOWN and (ord(chunk[at]) < 0x10000 or chunk[at].isalnum()):
            tokens.append(chunk[at:end])
        at = end
    return tuple(word for word in map(_normalise, tokens) if word not in _PUNCTUATION)


def tokenize_lines(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """The words of each of a file's lines, as the scorer cuts them: an initial at a line's end looks into the next."""
    following, words = "", []
    for text in reversed(texts):
        words.append(tokenize(text, ends=following in _STARTERS))
        following = next(iter(text.split(maxsplit=1)), following)
    return words[::-1]


@lru_cache(maxsize=1 << 15)
def tokenize(text: str, ends: bool = True) -> tuple[str, ...]:
    """The words that COCO's ROUGE-L and CIDEr count in `text`, a line of any length. Remembers recent lines.

    `ends`: whether an initial at the line's end ends a sentence (`8.3 m.`), as it does before a line like The ...
    """
    words: list[str] = []
    chunks = text.split()
    for index, chunk in enumerate(chunks):
        following = chunks[index + 1] if index + 1 < len(chunks) else ""
        if following[:1].isdigit() and chunk.lower() in _BEFORE_A_NUMBER:
            words.append(chunk.lower())
            continue
        found = _split(chunk)
        words.extend(found)
        initial = chunk[-1] == "." and found and len(found[-1]) == 2 and found[-1][0].isalpha() and found[-1][1] == "."
        if initial and (following in _STARTERS if following else ends):
            words[-1] = found[-1][0]  # it ends the sentence
    return tuple(words)
