"""metrics.jsonl: one line a step and one a dev loss, and no doubt about how much of it belongs to a checkpoint."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from softprompt.errors import CheckpointError
from softprompt.plain import naming, open_plain, read_plain

_JSON = json.JSONEncoder(allow_nan=False)


class MetricsLog:
    """The file, open to be written behind what a checkpoint knows of."""

    def __init__(self, path: Path, *, kept: int, digest: str | None, step: int) -> None:
        """Cut off what stands behind the first `kept` bytes, whose SHA-256 is `digest` (None: not known).

        Raises:
            CheckpointError: those bytes are not all there, or are not those; or the file is none (a link, say).
        """
        self.path, self._hash = path, hashlib.sha256()
        try:
            descriptor = open_plain(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            what = "a link" if error.errno == errno.ELOOP else error.strerror
            raise CheckpointError(f"{path}: expected a plain file or none, got: {what}. Move it away.") from None
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            self._take_up(kept, digest, step)
        except BaseException:
            self._file.close()
            raise

    def _take_up(self, kept: int, digest: str | None, step: int) -> None:
        size = os.fstat(self._file.fileno()).st_size
        advice = "Put it back, or start the run anew with --out."
        if size < kept:
            raise CheckpointError(
                f"{self.path}: expected at least {kept} bytes (those that the checkpoint of step {step} knows of), "
                f"got {size}. {advice}"
            )
        left = kept
        while left and (part := self._file.read(min(left, 1 << 20))):
            self._hash.update(part)
            left -= len(part)
        if digest is not None and digest != self._hash.hexdigest():
            raise CheckpointError(
                f"{self.path}: its first {kept} bytes are not those that the checkpoint of step {step} knows of; "
                f"it was changed. {advice}"
            )
        with naming(self.path):
            self._file.truncate(kept)
            self._file.seek(kept)

    def write(self, line: dict[str, Any]) -> None:
        """One more line. OSError names the file: a full disk takes a part and then says so."""
        raw = _JSON.encode(line).encode() + b"\n"
        rest = memoryview(raw)
        with naming(self.path):
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        self._hash.update(raw)

    def mark(self) -> tuple[int, str]:
        """Everything so far brought to the disk: its length and SHA-256."""
        with naming(self.path):
            os.fsync(self._file.fileno())
        return self._file.tell(), self._hash.hexdigest()

    def fileno(self) -> int:
        """Its descriptor."""
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


def prefix_digest(path: Path, length: int) -> str | None:
    """SHA-256 of the first bytes of a file; None where there are fewer. Errors as `read_plain`."""
    raw = read_plain(path)
    return hashlib.sha256(raw[:length]).hexdigest() if len(raw) >= length else None


def dev_losses_at(path: Path, step: int) -> dict[str, Any]:
    """The line with the dev loss of this step; empty where there is none. CheckpointError where a line is damaged."""
    try:
        for text in reversed(read_plain(path).decode("utf-8").splitlines()):
            line = json.loads(text)
            if line["step"] == step and "dev_loss" in line:
                return dict(line)
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{path}: damaged: expected a JSON object with `step` in each line.") from None
    return {}
