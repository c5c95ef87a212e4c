"""The only exceptions a user is meant to meet. Each message says: expected, got, do this."""

import errno


class SoftpromptError(Exception):
    """Something failed that the user can act on. The command line prints the message and exits with `exit_code`."""

    exit_code = 1


class ConfigError(SoftpromptError):
    """A recipe, an override or a command-line argument is wrong, or names something that is not there (exit 2)."""

    exit_code = 2


class DataError(SoftpromptError):
    """A data file was found but its content is not what was declared (exit 1). Names the file and the line."""


class FetchError(SoftpromptError):
    """A file could not be downloaded, or is not the one that was asked for (exit 1)."""


class BackboneError(SoftpromptError):
    """The backbone cannot be loaded, or cannot do what the method needs (exit 1)."""


class TrainingError(SoftpromptError):
    """Training stopped before it could do harm: a non-finite loss, say (exit 1)."""


class CheckpointError(SoftpromptError):
    """A checkpoint is damaged, incomplete or of another run (exit 1)."""


class Interrupted(SoftpromptError):
    """A signal stopped the run after it had saved: exit 75 (run again with --resume) or 130 (Ctrl-C)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


_NO_MEMORY = (
    "defaultcpuallocator",
    "not enough memory",
    "out of memory",
    "cannot allocate memory",
    "failed to map segment",
    "bad_alloc",
    "can't start new thread",
    "alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: torch's on a device or a CPU, Python's, or the system's."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | ImportError | OSError) and any(
        words in str(error).lower() for words in _NO_MEMORY
    )


def first_line(error: BaseException) -> str:
    """What an error says first, shortened; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
