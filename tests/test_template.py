"""Linearised tables and user templates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt.errors import ConfigError, DataError
from softprompt.template import linearise, parse_template


def render(text: str, values: dict[str, object]) -> str:
    return parse_template(text, "data.input").render(values, "f:1")


def test_linearise() -> None:
    assert (
        linearise({"name": "Blue Spice", "Type": "pub", "near": "A | B"})
        == "name : Blue Spice | Type : pub | near : A | B"
    )
    assert linearise({"n": 3, "ok": False}) == "n : 3 | ok : false"


def test_render() -> None:
    assert render("{name} in {area}", {"name": "X", "area": "Y"}) == "X in Y"
    assert render("{a}{a}", {"a": 1}) == "11"
    assert render(" {{{a}}} {{}} ", {"a": "x"}) == "{x} {}"
    assert render("{a.b} {c[0]} {d!r} {e:>9}", {"a.b": 1, "c[0]": 2, "d!r": 3, "e:>9": 4}) == "1 2 3 4"
    assert render("{t}", {"t": {"name": "X", "open": True}}) == "name : X | open : true"
    assert render("{a}", {"a": "{b} {0}"}) == "{b} {0}"


@pytest.mark.parametrize("text", ["{a.__class__}", "{a[0]}", "{a!r}", "{a:>9}"])
def test_no_format_tricks(text: str) -> None:
    with pytest.raises(DataError, match="which is not there"):
        render(text, {"a": "x"})


@pytest.mark.parametrize("text", ["{", "}", "{a", "a}", "{}", "{a}{", "{{a}", "{a{b}}"])
def test_broken_templates(text: str) -> None:
    with pytest.raises(ConfigError, match=r"data.input: expected \{column\}"):
        parse_template(text, "data.input")


def test_constant_template() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        parse_template("hello {{x}}", "data.input")


def test_unknown_column() -> None:
    with pytest.raises(DataError, match=r"f:1: .*'nmae'.*nearest: 'name'. Columns here: 'name', 'area'"):
        render("{nmae}", {"name": "X", "area": "Y"})


@pytest.mark.parametrize(("value", "part"), [(None, "got null"), ("  ", "only white space"), ("", "only white space")])
def test_values_that_are_no_text(value: object, part: str) -> None:
    with pytest.raises(DataError, match=part):
        render("{a}", {"a": value})


def test_expand_lists() -> None:
    target = parse_template("{t}!", "data.target")
    assert target.expand({"t": ["a", "b"]}, "f:1") == ("a!", "b!")
    assert target.expand({"t": "a"}, "f:1") == ("a!",)
    for values, part in [
        ({"t": []}, "empty list"),
        ({"t": ["a", None]}, "got null"),
        ({"t": [["a"]]}, "a list in a list"),
    ]:
        with pytest.raises(DataError, match=part):
            target.expand(values, "f:1")
    with pytest.raises(DataError, match="at most one list"):
        parse_template("{a}{b}", "x").expand({"a": [1], "b": [2]}, "f:1")


@given(st.text(max_size=30))
def test_fuzz(text: str) -> None:
    try:
        template = parse_template(text, "data.input")
    except ConfigError:
        return
    values = dict.fromkeys(template.columns, "v")
    assert (
        template.render(values, "f:1")
        == "".join(
            part for pair in zip(template.literals, [*["v"] * len(template.columns), ""], strict=True) for part in pair
        ).strip()
    )
