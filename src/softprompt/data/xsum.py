"""Reader of XSum (Narayan et al. 2018): BBC articles with one-sentence summaries, and the topics of their addresses."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from softprompt.data.lines import read_lines
from softprompt.data.table import Record, need_columns, read_table
from softprompt.errors import DataError

URLS = "XSum-WebArxiveUrls.txt"
"""The data set's own list of addresses; read where it lies beside the data file."""

COMMON = frozenset({"world", "uk", "business"})
"""The news that Li & Liang 2021 (6.4, within-news) train on; they test on all other news."""

_BREAK = re.compile(r"\s*[\r\n]+\s*")
_BBC = re.compile(r"(^|\.)bbc\.(co\.uk|com)$")
_ID = re.compile(r"(\d+)/*$")


class Topic(NamedTuple):
    """What a BBC address tells of its article."""

    area: str
    """First part of the path: `news`, `sport`, ..."""
    topic: str
    """Part of the area: `world`, `uk`, `business`, `health`, `football`, ...; the area itself where there is none."""


def topic_of_url(url: str) -> Topic:
    """Read area and topic out of a BBC address, also of one in the Wayback Machine; DataError if it is none.

    `.../web/2016/http://www.bbc.co.uk/news/uk-wales-38413986` is news of the uk.
    """
    try:
        parts = urlsplit(url[max(url.rfind("http"), 0) :])
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    names = [name.split("-")[0] for name in parts.path.split("/") if name]
    names = [name for name in names if not name.isdigit()]
    if not _BBC.search(host) or not names:
        raise DataError(f"expected a BBC address such as http://www.bbc.co.uk/news/uk-wales-38413986, got {url!r}.")
    return Topic(names[0], names[1] if len(names) > 1 else names[0])


def read_xsum(path: Path) -> Iterator[Record]:
    """Yield the articles of a JSONL, CSV or Parquet file, in file order, with a column `url` from the list `URLS`.

    The list is read where it lies beside the file, for rows without an address.
    Raises ConfigError for a file that cannot be read, DataError with `file:line` for its content.
    """
    place = path.expanduser().parent / URLS
    urls = _read_urls(place) if place.is_file() else None
    for record in read_table(path):
        if urls is None or record.values.get("url") is not None:
            yield record
            continue
        need_columns(record, ("id",))
        article = str(record.values["id"])
        if article not in urls:
            raise DataError(f"{record.where}: expected the address of article {article} in {place}, got none.")
        yield replace(record, values={**record.values, "url": urls[article]})


def xsum_rows(record: Record) -> Iterator[Record]:
    """Yield an article's row of `document`, `summary` and `id`, with its line breaks made spaces.

    Where it has a `url`, three columns more: `area` and `topic` (see `Topic`), and `within_news`: `seen` for world, UK
    and business news, `unseen` for all other news, `none` for what is no news.
    """
    need_columns(record, ("document", "summary", "id"))
    values = {name: _BREAK.sub(" ", str(record.values[name])) for name in ("document", "summary", "id")}
    url = record.values.get("url")
    yield replace(record, values=values | (_topics(str(url), record.where) if url is not None else {}))


def _topics(url: str, where: str) -> dict[str, str]:
    try:
        area, topic = topic_of_url(url)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    within = ("seen" if topic in COMMON else "unseen") if area == "news" else "none"
    return {"area": area, "topic": topic, "within_news": within}


def _read_urls(path: Path) -> dict[str, str]:
    """The list of addresses by the article's id, the number at their end."""
    urls = {}
    for line, url in enumerate(read_lines(path), 1):
        if url.strip():
            found = _ID.search(url.strip())
            if found is None:
                raise DataError(f"{path}:{line}: expected an address that ends in the article's id, got {url[:80]!r}.")
            urls[found[1]] = url.strip()
    return urls
