"""Texts to token ids: the one place where a tokenizer is called, so that a text never becomes what is no text.

`</s>` or `<|endoftext|>` in the data are words of the user. Tokenizers are told to spell them out; where one cannot
(a SentencePiece vocabulary that holds the string as a piece), the text is refused and not read as its own end.
"""

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from softprompt.errors import DataError
from softprompt.template import is_unicode

Places = Callable[[int], str]
"""Index of a text -> where it stands, as messages start."""
_SAMPLE = "a"


def token_ids(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    framed: bool = True,
    target: bool = False,
    places: Places | None = None,
) -> list[list[int]]:
    """The ids of each text; `framed`: with the special tokens that the tokenizer itself puts around a text.

    Raises:
        DataError: a text that would hold a special token inside, or that is no Unicode; with how many there are and
            where the first is.
    """
    if not texts:
        return []
    where = places or (lambda index: f"text number {index + 1}")
    rows = _tokenised(tokenizer, list(texts), framed, target, where)
    front, back = _frame(tokenizer, target) if framed else (0, 0)
    special = special_ids(tokenizer)
    wrong = [index for index, row in enumerate(rows) if not special.isdisjoint(row[front : len(row) - back])]
    if wrong:
        first = wrong[0]
        row = rows[first]
        found = next(one for one in row[front : len(row) - back] if one in special)
        raise DataError(
            f"{where(first)}: expected a text, got the special token {tokenizer.convert_ids_to_tokens(found)!r} in it "
            f"(id {found}), in {len(wrong)} of {len(rows)} texts: {excerpt(texts[first])}. This backbone's tokenizer "
            "cannot tell the two apart. Write it otherwise, or drop the row."
        )
    return rows


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that no text may become: ends, pads, sentinels. That of unknown words is none, unless it is one of these."""
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    unknown = unknown_id(tokenizer)
    return frozenset({*tokenizer.all_special_ids, *added} - {unknown})


def unknown_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that stands for what the vocabulary lacks; None where it lacks nothing.

    That is so in a vocabulary of bytes, where the token is often named although it is the end of text as well.
    """
    unknown = tokenizer.unk_token_id
    return None if unknown in (None, tokenizer.eos_token_id, tokenizer.bos_token_id) else int(unknown)


def excerpt(text: str, most: int = 60) -> str:
    """The beginning of a text as messages show it."""
    return repr(text if len(text) <= most else f"{text[:most]}...")


def _tokenised(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], framed: bool, target: bool, where: Places
) -> list[list[int]]:
    options = {"add_special_tokens": framed, "split_special_tokens": True}
    try:
        found = tokenizer(text_target=texts, **options) if target else tokenizer(texts, **options)
    except (TypeError, UnicodeError):
        broken = [index for index, text in enumerate(texts) if not is_unicode(text)]
        if not broken:
            raise
        raise DataError(
            f"{where(broken[0])}: expected Unicode text, got a lone surrogate in {len(broken)} of {len(texts)} texts: "
            f"{excerpt(texts[broken[0]])}. Correct or drop the row."
        ) from None
    rows: list[list[int]] = found["input_ids"]
    return rows


def _frame(tokenizer: PreTrainedTokenizerBase, target: bool) -> tuple[int, int]:
    """How many tokens the tokenizer puts in front of a text and behind it."""
    plain, framed = (_tokenised(tokenizer, [_SAMPLE], framed, target, str)[0] for framed in (False, True))
    for front in range(len(framed) - len(plain) + 1):
        if framed[front : front + len(plain)] == plain:
            return front, len(framed) - len(plain) - front
    return 0, 0
