"""The 13a tokenizer."""

from __future__ import annotations

import pytest

from softprompt.metrics.mteval import tokenize_13a


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World!", "hello , world !"),
        ("family-friendly isn't", "family-friendly isn't"),
        ("1,000.50 costs 3.", "1,000.50 costs 3 ."),
        ("20-25 a-b 5-star", "20 - 25 a-b 5 - star"),
        ("(a) [b] {c} <d> e/f", "( a ) [ b ] { c } < d > e / f"),
        ("x&amp;y &quot;z&quot; &lt;", 'x & y " z " <'),
        ("£20 Café_1", "£20 café _ 1"),
        ("a<skipped>b end-\nless new\nline", "ab endless new line"),
        (".5 5. a.b", ". 5 5 . a . b"),
        ("", ""),
    ],
)
def test_tokens(text: str, words: str) -> None:
    assert " ".join(tokenize_13a(text)) == words


def test_the_perl_script_lowers_ascii_only() -> None:
    assert tokenize_13a("CAFÉ") == ("cafÉ",)
    assert tokenize_13a("CAFÉ", "unicode") == ("café",)
