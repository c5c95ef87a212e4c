"""The official E2E files: counts, the papers' linearisation line by line, and the parser's refusals."""

import re
from pathlib import Path

import pytest

from softprompt.config import DataConfig
from softprompt.data import identity, load
from softprompt.data.e2e import parse_mr, read_e2e
from softprompt.data.e2e_tokens import tokenise
from softprompt.errors import ConfigError, DataError

ROW = '"name[A], area[b]",text\n'


def test_parse_mr() -> None:
    assert parse_mr("name[The Vaults], area[city centre], familyFriendly[no]", "f:1") == {
        "name": "The Vaults",
        "area": "city centre",
        "familyFriendly": "no",
    }
    assert parse_mr(" name[A, B], near[C [D], E] ,  food[]", "f:1") == {"name": "A, B", "near": "C [D], E", "food": ""}
    assert parse_mr("name[Rock, area 51], near[x]", "f:1") == {"name": "Rock, area 51", "near": "x"}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty mr"),
        ("name", "expected slots such as"),
        ("name[A", "expected slots such as"),
        ("name[A] area[B", "expected slots such as"),
        ("nmae[A]", "the slot 'nmae' is unknown"),
        ("name[A], name[B]", "the slot 'name' is twice"),
    ],
)
def test_parse_mr_errors(text: str, part: str) -> None:
    with pytest.raises(DataError, match=r"^f:1: ") as caught:
        parse_mr(text, "f:1")
    assert part in str(caught.value)


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('mr,ref\n"name[A]","two\nlines"\nname(B),x\n')
    with pytest.raises(DataError, match=r"t.csv:4: expected slots"):
        list(read_e2e(path))
    path.write_text("MR\nname[A]\n")
    with pytest.raises(DataError, match=r"t.csv:2: expected a column 'mr'.*Columns here: 'MR'"):
        list(read_e2e(path))


def test_own_files_in_the_official_format(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.csv").write_text("mr,ref\n" + ROW + ROW.replace("text", ' "  two\r\nlines "'.strip()))
    data = DataConfig(task="e2e", **{split: tmp_path / f"{split}.csv" for split in ("train", "dev", "test")})
    splits = load(data, 1)
    assert [(x.source, x.targets) for x in splits.train] == [
        ("name : A | area : b", ("text",)),
        ("name : A | area : b", ("two lines",)),
    ]
    assert [x.targets for x in splits.dev] == [("text", "two lines")] and splits.dev == splits.test
    raw = load(data.model_copy(update={"input": "{mr}"}), 1)
    assert raw.train[0].source == "name[A], area[b]"
    tokenised = load(data.model_copy(update={"input": "{table_tokenised}", "target": "{ref_tokenised}!"}), 1)
    assert [(x.source, x.targets) for x in tokenised.train[1:]] == [("name : A | area : b", ("two lines!",))]


def test_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"needs the folder with trainset.csv, devset.csv, testset_w_refs.csv; got none"
    ):
        load(DataConfig(task="e2e"), 1)
    with pytest.raises(ConfigError, match="cannot be read as a folder"):
        load(DataConfig(task="e2e", dir=tmp_path / "none"), 1)
    (tmp_path / "trainset.csv").write_text("mr,ref\n" + ROW)
    with pytest.raises(ConfigError, match=r"lacks devset.csv, testset_w_refs.csv; it holds trainset.csv"):
        load(DataConfig(task="e2e", dir=tmp_path), 1)


def test_a_truncated_official_file_is_refused(tmp_path: Path) -> None:
    for name in ("trainset.csv", "devset.csv", "testset_w_refs.csv"):
        (tmp_path / name).write_text("mr,ref\n" + ROW)
    with pytest.raises(DataError, match=r"trainset.csv: expected the e2e train file of 42,061 pairs .* got 1 and 1"):
        load(DataConfig(task="e2e", dir=tmp_path), 1)


def test_official_counts(e2e_folder: Path) -> None:
    data = DataConfig(task="e2e", dir=e2e_folder)
    splits = load(data, 101)
    assert len(splits.train) == 42_061 and len({x.source for x in splits.train}) == 4_862
    assert all(len(x.targets) == 1 for x in splits.train)
    assert len(splits.dev) == 547 and sum(len(x.targets) for x in splits.dev) == 4_672
    assert len(splits.test) == 630 and sum(len(x.targets) for x in splits.test) == 4_693
    assert not any("\n" in text for part in (splits.train, splits.dev, splits.test) for x in part for text in x.targets)
    tokenised = load(data.model_copy(update={"template": "tokenised"}), 101).test
    assert [x.scored_against for x in tokenised] == [x.targets for x in splits.test] != [x.targets for x in tokenised]
    found = identity(data)
    assert [split for split, _, _ in found] == ["train", "dev", "test"]
    assert found[0][1:] == (
        str(e2e_folder / "trainset.csv"),
        "f27d48df45815288ab15619d47a79028c300fbb7f42e373668aba0b98c1d57c6",
    )
    raw = load(data.model_copy(update={"input": "{mr}"}), 101)
    assert len(raw.dev) == 547 and raw.dev[0].source.startswith("name[")


PAPER = [("devset", "valid", 4_672, 4_671), ("testset_w_refs", "test", 4_693, 4_569)]
"""Official file, Li & Liang's file made of it, lines, and those whose tokenised target is theirs."""


@pytest.mark.parametrize(("name", "paper", "lines", "same"), PAPER)
def test_the_papers_files_line_by_line(e2e_folder: Path, name: str, paper: str, lines: int, same: int) -> None:
    """All sources, in order: equal without spaces as they are, and equal with them where tokenised."""
    text = (e2e_folder / "prefixtuning_format" / f"src1_{paper}.txt").read_text(encoding="utf-8")
    theirs = [tuple(part.strip() for part in line.split("||")) for line in text.splitlines()]
    ours = [record.values for record in read_e2e(e2e_folder / f"{name}.csv")]
    assert len(theirs) == len(ours) == lines
    squeezed = [tuple(re.sub(r"\s", "", part) for part in pair) for pair in theirs]
    assert [tuple(re.sub(r"\s", "", row[column]) for column in ("table", "ref")) for row in ours] == squeezed
    assert [row["table_tokenised"] for row in ours] == [source for source, _ in theirs]
    assert sum(row["ref_tokenised"] == target for row, (_, target) in zip(ours, theirs, strict=True)) == same


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("It's £20-25, isn't it?", "It 's £ 20 - 25 , isn 't it ?"),
        ("A 5-star, non-family-friendly pub.", "A 5 - star , non - family - friendly pub ."),
        ("The 'Green Man', by d'oeuvre...but", "The ' Green Man ' , by d'oeuvre ... but"),
        ("'Aromi' is £30.99.", "' Aromi ' is £ 30.99 ."),
        ('riverside,they  said\n"no"', 'riverside , they said " no "'),
        ("price : £20-£25..", "price : £ 20- £ 25 .."),
        ("", ""),
    ],
)
def test_tokenise(text: str, tokens: str) -> None:
    assert tokenise(text) == tokens
    assert tokenise(tokens) == tokens
