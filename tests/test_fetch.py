"""Downloads against a server on this machine that drops connections, lacks ranges, or has the wrong file."""

import hashlib
import io
import json
import re
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import softprompt.tasks
from softprompt.cli import main
from softprompt.errors import ConfigError, FetchError
from softprompt.fetch import TRIES, Fetched, fetch
from softprompt.tasks import Task, list_tasks, load_task

BODY = bytes(range(256)) * 4096
"""1 MiB: several chunks."""


@dataclass
class Server:
    """What the server has and does, and what it was asked."""

    body: bytes = BODY
    ranges: bool = True
    drops: list[int] = field(default_factory=list)
    """Bytes after which each of the next answers breaks off."""
    statuses: list[int] = field(default_factory=list)
    """Error codes of the next answers."""
    shift: int = 0
    """Bytes by which an answered range is off."""
    asked: list[str | None] = field(default_factory=list)
    """The Range header of each request."""
    url: str = ""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            if state.statuses:
                self.send_error(state.statuses.pop(0))
                return
            found = re.fullmatch(r"bytes=(\d+)-", wanted or "") if state.ranges else None
            start = int(found[1]) if found else 0
            if found and start >= len(state.body):
                self.send_error(416)
                return
            part = state.body[start:]
            self.send_response(206 if found else 200)
            if found:
                at = start + state.shift
                self.send_header("Content-Range", f"bytes {at}-{len(state.body) - 1}/{len(state.body)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            drop = state.drops.pop(0) if state.drops else len(part)
            self.wfile.write(part[:drop])
            self.close_connection = True

    monkeypatch.setenv("no_proxy", "*")
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}/file.bin"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def task_of(url: str, sha256: str | None = digest(BODY), **download: Any) -> Task:
    item = {"url": url, "file": "sub/file.bin", "sha256": sha256, **download}
    source = {"kind": "table", "files": {"test": "sub/file.bin"}, "fetch": [item]}
    template = {"input": "{a}", "target": "{b}"}
    return Task.model_validate(
        {
            "name": "t",
            "title": "t",
            "citation": "c",
            "licence": "l",
            "source": source,
            "template": template,
            "suite": "e2e",
        }
    )


def get(task: Task, folder: Path) -> list[Fetched]:
    return fetch(task, folder, quiet=True, pause=0)


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        (found,) = get(task_of(server.url), tmp_path / "new")
        assert found == Fetched(tmp_path / "new" / "sub" / "file.bin", len(BODY), digest(BODY), True)
        assert found.path.read_bytes() == BODY and str(found).endswith(f"sha256 {digest(BODY)} checked")
    assert server.asked == [None] and left(tmp_path) == ["new/sub/file.bin"]


def test_a_lost_connection_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.drops = [300_000, 0, 100_000]
    (found,) = get(task_of(server.url), tmp_path)
    assert found.path.read_bytes() == BODY
    assert server.asked == [None, "bytes=300000-", "bytes=300000-", "bytes=400000-"]


def test_more_lost_connections_than_tries_if_each_brought_something(server: Server, tmp_path: Path) -> None:
    server.drops = [50_000] * (3 * TRIES)
    (found,) = get(task_of(server.url), tmp_path)
    assert found.path.read_bytes() == BODY and len(server.asked) == 3 * TRIES + 1


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.drops = False, [300_000, 200_000]
    (found,) = get(task_of(server.url), tmp_path)
    assert found.path.read_bytes() == BODY and len(server.asked) == 3


@pytest.mark.parametrize("size", [1, 700_000, len(BODY)])
def test_an_earlier_attempt_is_gone_on_with(server: Server, tmp_path: Path, size: int) -> None:
    """Also where all of it was there and only the renaming was missing."""
    part = tmp_path / "sub" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(BODY[:size])
    (found,) = get(task_of(server.url), tmp_path)
    assert found.path.read_bytes() == BODY and not part.exists()
    assert server.asked == [f"bytes={size}-"]


@pytest.mark.parametrize("size", [1000, len(BODY) + 1])
def test_a_part_of_another_file_is_dropped(server: Server, tmp_path: Path, size: int) -> None:
    part = tmp_path / "sub" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * size)
    (found,) = get(task_of(server.url), tmp_path)
    assert found.path.read_bytes() == BODY and server.asked == [f"bytes={size}-", None]


def test_a_part_without_a_known_checksum_is_dropped(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "sub" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * 1000)
    (found,) = get(task_of(server.url, None), tmp_path)
    assert found.path.read_bytes() == BODY and server.asked == [None]
    assert not found.checked and str(found).endswith("NOT CHECKED")


def test_a_wrong_checksum_is_an_error_and_nothing_is_kept(server: Server, tmp_path: Path) -> None:
    server.body = BODY[:-1] + b"x"
    with pytest.raises(FetchError, match=rf"SHA-256 {digest(BODY)}, got {digest(server.body)} .* It was not kept"):
        get(task_of(server.url), tmp_path)
    assert left(tmp_path) == []


def test_a_file_that_is_there_and_wrong_is_left_alone(server: Server, tmp_path: Path) -> None:
    mine = tmp_path / "sub" / "file.bin"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(FetchError, match=r"file.bin: expected the file of .* Move it away"):
        get(task_of(server.url), tmp_path)
    assert mine.read_text() == "mine" and server.asked == []


def test_a_server_that_refuses(server: Server, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(FetchError, match=r"expected the file, got HTTP 404 \(Not Found\). Has it moved"):
        get(task_of(server.url), tmp_path)
    assert len(server.asked) == 1


def test_a_server_that_is_busy(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    assert get(task_of(server.url), tmp_path)[0].checked
    (tmp_path / "sub" / "file.bin").unlink()
    server.statuses = [500] * TRIES
    with pytest.raises(FetchError, match=rf"cannot be reached \(HTTP 500\), tried {TRIES} times"):
        get(task_of(server.url), tmp_path)


def test_a_range_that_is_off_is_not_taken(server: Server, tmp_path: Path) -> None:
    server.drops, server.shift = [300_000], 7
    with pytest.raises(FetchError, match=r"another part than was asked for.*300,000 bytes are kept"):
        get(task_of(server.url), tmp_path)
    assert (tmp_path / "sub" / "file.bin.part").read_bytes() == BODY[:300_000]


def test_offline(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=rf"cannot be reached \(.*\), tried {TRIES} times. Check the network"):
        get(task_of("http://127.0.0.1:9/file.bin"), tmp_path)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_members_of_an_archive(server: Server, tmp_path: Path, pack: Any) -> None:
    server.body = pack({"CoLA/train.tsv": b"a\tb\n", "CoLA/test.tsv": b"c\n"})
    task = task_of(server.url, digest(server.body), unpack={"train.tsv": "CoLA/train.tsv"})
    archive, member = get(task, tmp_path)
    assert archive.path.read_bytes() == server.body
    assert member == Fetched(tmp_path / "train.tsv", 4, digest(b"a\tb\n"), True)
    assert left(tmp_path) == ["sub/file.bin", "train.tsv"]
    wrong = task_of(server.url, digest(server.body), unpack={"x": "train.tsv"})
    with pytest.raises(FetchError, match=r"expected the member 'train.tsv' in it, got CoLA/train.tsv, CoLA/test.tsv"):
        get(wrong, tmp_path)


def test_what_is_no_archive(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="cannot be unpacked"):
        get(task_of(server.url, unpack={"x": "y"}), tmp_path)
    assert left(tmp_path) == ["sub/file.bin"]


def test_tasks_without_files_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'gazette' comes with the package"):
        get(load_task("gazette"), tmp_path)
    bare = task_of("http://x/y")
    bare = bare.model_copy(update={"url": "http://x", "source": bare.source.model_copy(update={"fetch": ()})})
    with pytest.raises(ConfigError, match=r"names no file that can be fetched. Get it from http://x and set data.dir"):
        get(bare, tmp_path)


def test_a_task_that_can_be_fetched_is_complete_afterwards() -> None:
    fetched = [task for task in list_tasks() if task.source.fetch]
    assert {"e2e", "squad", "xquad-en", "mrqa-bioasq"} <= {task.name for task in fetched}
    for task in fetched:
        got = {name for item in task.source.fetch for name in (item.file, *item.unpack)}
        assert set(task.source.files.values()) <= got


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["softprompt", "fetch", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_command(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(softprompt.tasks, "load_task", lambda name: task_of(server.url))
    monkeypatch.chdir(tmp_path)
    path = Path("data/t/sub/file.bin")
    assert run(["t"], monkeypatch) == 0
    out, err = capsys.readouterr()
    assert out == f"{path}  1,048,576 bytes  sha256 {digest(BODY)} checked\n"
    assert "file.bin: 1,048,576/1,048,576 bytes" in err and "data.task=t data.dir=data/t" in err
    assert run(["t", "--dir", "there", "--json", "-q"], monkeypatch) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found == {"path": "there/sub/file.bin", "bytes": len(BODY), "sha256": digest(BODY), "checked": True}
    server.body = b"other"
    path.unlink()
    assert run(["t"], monkeypatch) == 1
    assert "error: " in capsys.readouterr().err and not path.exists()


def test_command_with_an_unknown_task(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sqad"], monkeypatch) == 2
    assert "unknown task 'sqad'; nearest: 'squad'" in capsys.readouterr().err
