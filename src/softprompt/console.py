"""Progress on stderr: one line that is rewritten on a terminal, a line now and then elsewhere. stdout stays data.

Of the processes of a job only the first one speaks.
"""

import os
import sys
import time
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Counts `done` of `total` units and says rate and time left, at most every `every` seconds."""

    label: str
    total: int
    unit: str
    done: int = 0
    quiet: bool = False
    _started: float = field(default_factory=time.monotonic)
    _shown: float = 0.0
    _start_at: int | None = None

    def update(self, done: int, note: str = "", *, force: bool = False) -> None:
        """Report that `done` units are finished."""
        if self._start_at is None:
            self._start_at = min(self.done, done)
        self.done = done
        if self.quiet:
            return
        now, live = time.monotonic(), sys.stderr.isatty()
        if not force and now - self._shown < (0.5 if live else 10.0):
            return
        self._shown = now
        rate = (done - self._start_at) / max(now - self._started, 1e-9)
        left = duration((self.total - done) / rate) if rate > 0 else "?"
        text = f"{self.label}: {done:,}/{self.total:,} {self.unit}, {rate:,.1f}/s, {left} left{note and '  ' + note}"
        print(f"\r\x1b[2K{text}" if live else text, end="" if live else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the rewritten line."""
        if self._shown and sys.stderr.isatty() and not self.quiet:
            print(file=sys.stderr)


def speaks() -> bool:
    """Whether this process is the first of its job, by what `torchrun` tells it, or the only one."""
    return "WORLD_SIZE" not in os.environ or os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """One line for the person at the terminal."""
    if speaks():
        print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`47s`, `3m 05s`, `2h 10m`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
