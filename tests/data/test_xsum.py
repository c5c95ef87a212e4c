"""XSum by hand-made files: topics from addresses, hold-outs by them, and refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from softprompt.config import DataConfig
from softprompt.data import load
from softprompt.data.rows import records
from softprompt.data.table import Record
from softprompt.data.xsum import URLS, topic_of_url
from softprompt.errors import DataError
from softprompt.tasks import load_task

WAYBACK = "http://web.archive.org/web/20170119110233/"
NEWS = {
    1: "http://www.bbc.co.uk/news/uk-wales-1",
    2: "http://www.bbc.co.uk/news/world-us-canada-2",
    3: "http://www.bbc.com:80/news/business-3",
    4: "http://www.bbc.co.uk/news/science-environment-4",
    5: "http://www.bbc.co.uk/news/health-5",
    6: "http://www.bbc.co.uk/sport/football/6",
    7: "http://www.bbc.co.uk/sport/0/rugby-league/7",
}


def article(number: int, **changes: Any) -> dict[str, Any]:
    return {"document": f"Text {number}.", "summary": f"Sum {number}.", "id": str(number)} | changes


def read_xsum(path: Path) -> list[Record]:
    """The records as the task has them: read, and shaped."""
    return list(records(path, load_task("xsum").source))


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All articles in each of the three files, their addresses in the data set's list."""
    for name in ("train", "validation", "test"):
        write(tmp_path / f"{name}.jsonl", *(article(number) for number in NEWS))
    (tmp_path / URLS).write_text("".join(f"{WAYBACK}{url}\n" for url in NEWS.values()))
    return tmp_path


@pytest.mark.parametrize(
    ("url", "topic"),
    [
        (WAYBACK + "http://www.bbc.co.uk/news/uk-wales-38413986", ("news", "uk")),
        ("https://www.bbc.com/news/world-asia-india-32143053", ("news", "world")),
        (WAYBACK + "http://www.bbc.com:80/sport/football/37543139", ("sport", "football")),
        ("http://www.bbc.co.uk/sport/0/football/37543139", ("sport", "football")),
        ("http://www.bbc.co.uk/sport/37543139", ("sport", "sport")),
        ("http://www.bbc.co.uk/news/10138849", ("news", "news")),
        ("http://www.bbc.co.uk/news/entertainment-arts-29604402/", ("news", "entertainment")),
        ("http://www.bbc.co.uk/newsround/29604402", ("newsround", "newsround")),
    ],
)
def test_topic_of_url(url: str, topic: tuple[str, str]) -> None:
    assert topic_of_url(url) == topic


@pytest.mark.parametrize(
    "url", ["", "uk", "http://www.bbc.co.uk/", "http://www.abbc.co.uk/news/uk-1", "http://[bbc/news"]
)
def test_an_address_that_is_none(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match=r"^expected a BBC address such as .*, got "):
        topic_of_url(url)
    with pytest.raises(DataError, match=r"a.jsonl:2: expected a BBC address"):
        read_xsum(write(tmp_path / "a.jsonl", article(1, url=NEWS[1]), article(2, url=url)))


def test_columns(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", article(1, document="One.\n\n Two.\r\nThree.", url=NEWS[4]), article(2, url=NEWS[6])
    )
    first, second = read_xsum(path)
    assert first.values == {
        "document": "One. Two. Three.",
        "summary": "Sum 1.",
        "id": "1",
        "area": "news",
        "topic": "science",
        "within_news": "unseen",
    }
    assert [second.values[name] for name in ("area", "topic", "within_news")] == ["sport", "football", "none"]
    (bare,) = read_xsum(write(tmp_path / "b.jsonl", article(1)))
    assert set(bare.values) == {"document", "summary", "id"}


def test_a_csv_file_whose_ids_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("document,summary,id\nText,Sum,1\n")
    (tmp_path / URLS).write_text(NEWS[1])
    (record,) = read_xsum(tmp_path / "a.csv")
    assert record.values["topic"] == "uk"
    (from_json,) = read_xsum(write(tmp_path / "a.jsonl", article(1, id=1)))
    assert from_json.values["topic"] == "uk"


def test_missing_column_and_missing_address(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.jsonl:1: expected a column 'summary'"):
        read_xsum(write(tmp_path / "a.jsonl", {"document": "a", "id": "1"}))
    path = write(tmp_path / "a.jsonl", article(1), article(9))
    (tmp_path / URLS).write_text(f"{NEWS[1]}\n\n")
    with pytest.raises(DataError, match=r"a.jsonl:2: expected the address of article 9 in .*XSum-WebArxiveUrls.txt"):
        read_xsum(path)
    (tmp_path / URLS).write_text(f"{NEWS[1]}\nhttp://www.bbc.co.uk/news\n")
    with pytest.raises(DataError, match=r"XSum-WebArxiveUrls.txt:2: expected an address that ends in the article's id"):
        read_xsum(path)


def ids(task: str, folder: Path) -> list[list[str]]:
    names = {"train": "train", "dev": "validation", "test": "test"}
    own = {split: folder / f"{name}.jsonl" for split, name in names.items()}
    splits = load(DataConfig(task=task, **own), 1)
    return [[row.meta["id"] for row in part] for part in (splits.train, splits.dev, splits.test)]


def test_news_to_sports(folder: Path) -> None:
    news = ["1", "2", "3", "4", "5"]
    assert ids("xsum-news-to-sports", folder) == [news, news, ["6", "7"]]


def test_within_news(folder: Path) -> None:
    common = ["1", "2", "3"]
    assert ids("xsum-within-news", folder) == [common, common, ["4", "5"]]


def test_a_hold_out_needs_the_topics(folder: Path) -> None:
    (folder / URLS).unlink()
    with pytest.raises(DataError, match=r"train.jsonl:1: expected a column 'area'. Columns here: 'document'"):
        ids("xsum-news-to-sports", folder)


def test_a_hold_out_that_leaves_nothing_is_refused(folder: Path) -> None:
    write(folder / "test.jsonl", article(1))
    with pytest.raises(DataError, match="no row of the test split has area in sport"):
        ids("xsum-news-to-sports", folder)


@pytest.mark.parametrize("task", ["xsum", "xsum-news-to-sports", "xsum-within-news"])
def test_a_file_of_another_size_than_published_is_refused(folder: Path, task: str) -> None:
    with pytest.raises(DataError, match=rf"expected the {task} train file of 204,045 pairs .* got 7 and 7"):
        load(DataConfig(task=task, dir=folder), 1)
