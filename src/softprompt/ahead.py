"""Items made by a thread while the caller is busy with earlier ones."""

import queue
import sys
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], depth: int = 2) -> Iterator[T]:
    """The same items in the same order, up to `depth` of them made before they are asked for.

    `items` runs in a thread of its own, which ends with it, or when this generator is closed or forgotten. An
    exception in `items` is raised here, behind the items that came before it.
    """
    ready: queue.Queue[tuple[list[T], BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def work() -> None:
        error = None
        try:
            for item in items:
                ready.put(([item], None))
                if stopped.is_set():
                    return
        except BaseException as raised:
            error = raised
        ready.put(([], error))

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            found, error = ready.get()
            if error is not None:
                raise error
            if not found:
                return
            yield found[0]
    finally:
        stopped.set()
        while thread.is_alive() and not sys.is_finalizing():  # it may be waiting for room
            try:
                ready.get(timeout=0.01)
            except queue.Empty:
                thread.join(timeout=0.01)
