"""NIST by hand."""

from __future__ import annotations

import math

import pytest

from softprompt.metrics.nist import Nist, NistVariant

VARIANTS: list[NistVariant] = ["mteval-v13a", "pymteval"]


def nist(hypotheses: list[str], references: list[list[str]], variant: NistVariant = "mteval-v13a") -> float:
    return Nist(references, variant).score(hypotheses).value


@pytest.mark.parametrize("variant", VARIANTS)
def test_information_by_hand(variant: NistVariant) -> None:
    # Words a a b c: info(a) = 1, info(b) = info(c) = 2, info(a b) = info(a c) = 1.
    references = [["a b"], ["a c"]]
    assert nist(["a b", "a c"], references, variant) == pytest.approx((1 + 2 + 1 + 2) / 4 + (1 + 1) / 2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_thirds_of_the_length_halve_the_score(variant: NistVariant) -> None:
    assert nist(["a b"], [["a b c"]], variant) == pytest.approx(math.log2(3) / 2)


def test_the_variants_differ_in_the_reference_length() -> None:
    references = [["a b c d", "a b"], ["a b"]]  # 8 words, 1.5 references a segment; mean lengths 3 and 2
    beta = math.log(2) / math.log(1.5) ** 2
    perl, python = (nist(["a b", "a b"], references, variant) for variant in VARIANTS)
    penalties = [math.exp(-beta * math.log(4 / length) ** 2) for length in (8 / 1.5, 3 + 2)]
    assert perl / python == pytest.approx(penalties[0] / penalties[1])


def test_perl_takes_a_zero_for_no_history() -> None:
    assert nist(["0 x"], [["0 x"]], "mteval-v13a") == pytest.approx(1 + 1)
    assert nist(["0 x"], [["0 x"]], "pymteval") == pytest.approx(1 + 0)


def test_matches_are_clipped() -> None:
    once = nist(["a"], [["a b c"]])
    again = Nist([["a b c"]]).score(["a a a"]).value
    assert once > 0
    assert again == pytest.approx(math.log2(3) / 3)


def test_longer_hypotheses_are_not_penalised_for_length() -> None:
    assert nist(["a b x y"], [["a b"]]) == pytest.approx((1 + 1) / 4)


def test_the_signature_names_the_variant() -> None:
    assert Nist([["a"]], "pymteval").score(["a"]).signature == "NIST|order:5|case:lc-unicode|tok:13a|variant:pymteval"
