"""SIGTERM and SIGINT: what may be stopped at once is, what must come to a clean point first does."""

import atexit
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from softprompt.errors import Interrupted

NUMBERS = (signal.SIGTERM, signal.SIGINT)
EXIT_SAVED, EXIT_INTERRUPTED = 75, 130


class Stopped(BaseException):
    """A signal came where work may be dropped. No `except Exception` on the way swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Caught:
    """The signals that came so far, oldest first; true where there is one."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._eager = False

    def __bool__(self) -> bool:
        return bool(self.numbers)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside the block a signal raises `Stopped` as well."""
        self._eager = True
        try:
            yield
        finally:
            self._eager = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.numbers:
            raise KeyboardInterrupt
        self.numbers.append(number)
        if self._eager:
            raise Stopped(number)


@contextmanager
def collected() -> Iterator[Caught]:
    """Collect signals instead of dying of them; a second SIGINT is let through.

    Outside the main thread signals are not ours to handle, and nothing is collected.
    """
    caught = Caught()
    around = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if isinstance(around, Caught):  # one that came there and was swallowed on its way still counts
        caught.numbers += around.numbers
    try:
        previous = {number: signal.signal(number, caught._note) for number in NUMBERS}
    except ValueError:
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stoppable(message: str) -> Iterator[None]:
    """Let a signal end the block at once, as `Interrupted` with `message`, wherever `collected` does not defer it."""
    with collected() as caught:
        try:
            with caught.at_once():
                yield
        except BaseException:  # an import may turn what the signal raised into an error of its own
            if not caught:
                raise
            raise interrupted(caught.numbers[0], message) from None


def interrupted(number: int, message: str) -> Interrupted:
    """The error of a run that a signal ended: exit code 75, or 130 after Ctrl-C."""
    code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_SAVED
    return Interrupted(f"{signal.Signals(number).name}: {message}", code)


@contextmanager
def leaving(message: str) -> Iterator[None]:
    """Inside the block a signal that nothing further in handles ends the process at once: one line, code 75 or 130.

    Nothing is raised: what is raised inside an import may be swallowed, or printed as a traceback. For a program whose
    state is all on disk. While the interpreter ends, its code stands and signals are ignored.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        error = interrupted(number, message)
        os.write(2, f"error: {error}\n".encode())
        os._exit(error.exit_code)

    try:
        previous = {number: signal.signal(number, leave) for number in NUMBERS}
    except ValueError:  # not the main thread: signals are not ours to handle
        yield
        return
    try:
        yield
    finally:
        atexit.register(_ignore)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ignore() -> None:
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)
