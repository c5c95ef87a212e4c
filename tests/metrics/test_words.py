"""The words that WebNLG and DART score."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt.metrics.words import split_ascii_words, split_words


@pytest.mark.parametrize(
    ("text", "dart", "webnlg"),
    [
        ("The Mill, near Café_1 (UK).", "the mill , near café_1 ( uk ) .", "the mill , near cafe_1 ( uk ) ."),
        ("It's 1,000.5 m-long", "it ' s 1 , 000 . 5 m - long", "it ' s 1 , 000 . 5 m - long"),
        ("  a\t b\u2028c ", "a b c", "a b c"),
        ("Zażółć Þór ß", "zażółć þór ß", "zazolc thor ss"),
        ("5 – 6 “x” £2 ½", "5 – 6 “ x ” £ 2 ½", '5 - 6 " x " ps2 1 / 2'),
        ("İzmir", "i̇zmir", "izmir"),
        ("", "", ""),
    ],
)
def test_words(text: str, dart: str, webnlg: str) -> None:
    assert split_words(text) == dart
    assert split_ascii_words(text) == webnlg


@given(st.text())
def test_applied_again_they_change_nothing(text: str) -> None:
    assert split_words(split_words(text)) == split_words(text)
    assert split_ascii_words(split_ascii_words(text)) == split_ascii_words(text)
    assert split_ascii_words(text).isascii()
