"""Curves for TensorBoard: a viewer's file beside the log, whose failure never ends a run."""

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from softprompt.console import say

_NUMBERS = count()
"""Files that this process has opened."""


class Board:
    """Scalars in an event file of TensorBoard's own format, written at once and by no thread of its own.

    After the first failure (the folder is gone, the disk is full) it says so in one line and writes nothing more: what
    counts is in metrics.jsonl. It does nothing where the extra `tb` is not installed.
    """

    def __init__(self, folder: Path, *, purge: int = 0) -> None:
        """A new file in `folder`; scalars that earlier ones have from step `purge` on are no longer shown."""
        self._folder = folder
        self._file: Any = None
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError:
            return
        except Exception as error:  # protobuf of another version raises whatever it likes
            self._give_up(error)
            return
        self._events, self._summaries = event_pb2, summary_pb2
        try:
            folder.mkdir(exist_ok=True)
            self._file = open(folder / _name(), "xb", buffering=0)  # noqa: SIM115
            self._records = RecordWriter(self._file)
            self._write(event_pb2.Event(file_version="brain.Event:2"))
            if purge:
                start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
                self._write(event_pb2.Event(step=purge, session_log=start))
        except OSError as error:
            self._give_up(error)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """One point of each curve."""
        if self._file is None:
            return
        made = self._summaries.Summary
        summary = made(value=[made.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        try:
            if os.fstat(self._file.fileno()).st_nlink == 0:
                raise FileNotFoundError("its file was removed")
            self._write(self._events.Event(step=step, summary=summary))
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file. Safe to call again."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())

    def _give_up(self, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        say(f"warning: no more curves for TensorBoard in {self._folder} ({reason}); the run goes on without")
        self.close()


def _name() -> str:
    return f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
