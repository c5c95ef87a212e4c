"""Split policies: what goes where, that draws are nested and repeatable, and what is refused."""

from dataclasses import replace

import pytest

from softprompt.data import split
from softprompt.errors import DataError
from softprompt.types import Example, Splits


def rows(count: int, prefix: str = "s", **meta: str) -> tuple[Example, ...]:
    return tuple(Example(f"{prefix}{number}", (str(number % 2),), meta) for number in range(count))


def sources(examples: tuple[Example, ...]) -> list[str]:
    return [example.source for example in examples]


def test_half_validation_is_a_partition_of_the_permutation_of_seed_42() -> None:
    whole = rows(11)
    dev, test = split.half_validation(whole)
    assert (len(dev), len(test)) == (5, 6)
    assert sorted(sources(dev) + sources(test)) == sorted(sources(whole))
    # torch.randperm(11, generator=torch.Generator().manual_seed(42)) begins with 6, 8, 9, 2, 1
    assert sources(dev) == ["s1", "s2", "s6", "s8", "s9"]
    assert split.half_validation(whole) == (dev, test)
    with pytest.raises(DataError, match="at least 2 validation rows"):
        split.half_validation(whole[:1])


def test_dev_from_train() -> None:
    train, dev = split.dev_from_train(rows(50), 10)
    assert (len(train), len(dev)) == (40, 10)
    assert not set(sources(train)) & set(sources(dev)) and sources(train) == sorted(sources(train), key=number)
    with pytest.raises(DataError, match="more than 50 training rows, of which 50 become dev, got 50"):
        split.dev_from_train(rows(50), 50)


def number(source: str) -> int:
    return int(source[1:])


@pytest.mark.parametrize("given", [0, 40])
def test_low_data(given: int) -> None:
    train, dev = rows(300), rows(given, "d")
    small, small_dev = split.low_data(train, dev, 50, 1)
    large, _ = split.low_data(train, dev, 100, 1) if given == 0 else split.low_data(train, rows(60, "d"), 100, 1)
    assert (len(small), len(small_dev)) == (50, 15)
    assert not set(sources(small)) & set(sources(small_dev))
    if given:
        assert set(sources(small)) <= set(sources(large)) and set(sources(small_dev)) <= set(sources(dev))
    assert split.low_data(train, dev, 50, 1) == (small, small_dev)
    others = {tuple(sources(split.low_data(train, dev, 50, subset)[0])) for subset in range(5)}
    assert len(others) == 5
    with pytest.raises(DataError, match=r"data.low_data: expected at least"):
        split.low_data(rows(40), dev, 50, 0)


def test_shots_are_balanced() -> None:
    train = rows(30) + tuple(replace(row, targets=("2",)) for row in rows(30, "t"))
    chosen = split.shots(train, 16, 0, lambda pair: pair.targets[0])
    counts = [sum(pair.targets == (label,) for pair in chosen) for label in "012"]
    assert counts == [5, 5, 5]  # 16 // 3 of each, as in DePT's code
    assert set(sources(split.shots(train, 4, 0, lambda pair: pair.targets[0]))) <= set(sources(chosen))
    assert split.shots(train, 16, 1, lambda pair: pair.targets[0]) != chosen
    with pytest.raises(DataError, match=r"at least one pair for each of the 3 labels \('0', '1', '2'\), got 2 in all"):
        split.shots(train, 2, 0, lambda pair: pair.targets[0])
    with pytest.raises(DataError, match=r"expected 30 pairs of the label '0', got 15"):
        split.shots(train, 90, 0, lambda pair: pair.targets[0])


def test_hold_out_and_keep() -> None:
    news, sport, tech = rows(4, "n", topic="news"), rows(3, "p", topic="sport"), rows(2, "t", topic="tech")
    whole = Splits(news + sport, news[:2] + sport[:1], tech + sport + news)
    held = split.hold_out(whole, "topic", ["sport", "tech"])
    assert held == Splits(news, news[:2], tech + sport)
    kept = split.keep(held, "topic", ["news"])
    assert kept == held and split.keep(whole, "topic", ["sport"]) == Splits(sport, sport[:1], whole.test)
    one_file = split.hold_out(Splits(news + sport, (), ()), "topic", ["sport"])
    assert one_file == Splits(news, (), sport)
    with pytest.raises(
        DataError, match=r"data.hold_out.values: no row has topic 'sports'. Values here: news, sport, tech"
    ):
        split.hold_out(whole, "topic", ["sports"])
    with pytest.raises(DataError, match="no row of the test split has topic in news"):
        split.hold_out(Splits(news, (), sport), "topic", ["news"])


def test_the_record_tells_draws_apart() -> None:
    a = split.record_of(Splits(rows(4), rows(2), ()))
    b = split.record_of(Splits(rows(4)[::-1], rows(2), ()))
    assert a["train"]["examples"] == 4 and a["train"]["sha256"] != b["train"]["sha256"] and a["dev"] == b["dev"]
