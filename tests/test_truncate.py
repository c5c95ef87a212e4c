"""Sources cut to a room in tokens: as long as fits, at the end, and counted."""

import factories
import pytest

from softprompt.batch import encode_pairs, encode_sources
from softprompt.segments import joined
from softprompt.truncate import Cut, cut_sources
from softprompt.types import Example

LONG = Example(" ".join(factories.WORDS * 5), ("kind guests",))
SHORT = Example("tea", ("pie",))


@pytest.mark.parametrize("family", ["gpt2", "t5"])
@pytest.mark.parametrize("room", [12, 13, 14, 30])
def test_as_much_as_fits(family: str, room: int) -> None:
    bone = factories.backbone(family)
    cut, count = cut_sources(bone, [SHORT, LONG], room, targets=False)
    before, after = encode_sources(bone, [LONG.source, cut[1].source])
    assert cut[0] is SHORT and LONG.source.startswith(cut[1].source) and cut[1].targets == LONG.targets
    assert len(after) <= room and count == Cut(1, 2, len(before) - len(after))
    one_more = " ".join(LONG.source.split()[: len(cut[1].source.split()) + 1])
    assert len(encode_sources(bone, [one_more])[0]) > room


def test_a_text_without_spaces_is_cut_between_characters() -> None:
    bone = factories.backbone("gpt2")
    (cut,), _ = cut_sources(bone, [Example("qvz" * 40, ("x",))], 20, targets=False)
    assert 3 < len(cut.source) < 30 and len(encode_sources(bone, [cut.source])[0]) <= 20


@pytest.mark.parametrize(("family", "together"), [("gpt2", True), ("t5", False)])
def test_a_causal_target_needs_room_too(family: str, together: bool) -> None:
    bone = factories.backbone(family)
    (cut,), _ = cut_sources(bone, [LONG], 20, targets=True)
    (pair,) = encode_pairs(bone, [cut])
    assert (len(pair) if together else len(pair.source)) in range(17, 21)


def test_what_needs_no_cut_or_allows_none_stays() -> None:
    bone = factories.backbone("gpt2")
    assert cut_sources(bone, [LONG], None, targets=True) == ((LONG,), Cut(0, 1, 0))
    assert cut_sources(bone, [LONG], 2, targets=True) == ((LONG,), Cut(0, 1, 0))
    assert cut_sources(bone, [], 5, targets=True) == ((), Cut(0, 0, 0))


def test_rows_of_one_question_are_scored_as_one() -> None:
    test = [Example(str(n), (label,), {"q": group}) for n, (label, group) in enumerate([("1", 1), ("0", 2), ("1", 1)])]
    assert joined(test, ["1", "0 1", ""], ["q"]) == (["1 -", "0"], [("1 1",), ("0",)])
    assert joined(test, ["a", "b", ""], []) == (["a", "b", ""], [("1",), ("0",), ("1",)])
