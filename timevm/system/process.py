"""What the process is to its host: log, pid file."""

from __future__ import annotations

import fcntl
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from timevm.errors import HostError

#: the logger of ``-d`` items
TRACE = "timevm.trace"


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


class _Format(logging.Formatter):
    """``PROGRAM: sentence``, as errors are printed too; a traceback only for those who set TIMEVM_DEBUG."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        text = f"{self._program}: {record.getMessage()}"
        if record.exc_info and record.exc_info[1] is not None:
            failure = record.exc_info[1]
            text += f" ({type(failure).__name__}: {failure})"
            if os.environ.get("TIMEVM_DEBUG"):
                text += f"\n{self.formatException(record.exc_info)}"
        return text


@contextmanager
def logging_to(program: str, path: Path | None) -> Iterator[None]:
    """``-D``: warnings and ``-d`` items into ``path`` (None: standard error).  Raises HostError."""
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        try:
            handler = logging.FileHandler(path, mode="w", errors="backslashreplace")
        except OSError as error:
            raise HostError(f"-D {path}: Could not open log file: {_reason(error)}") from error
    handler.setFormatter(_Format(program))
    trace = logging.getLogger(TRACE)
    trace.setLevel(logging.INFO)
    root = logging.getLogger("timevm")
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    library = logging.getLogger("asyncio")
    library.addHandler(handler)
    library.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.removeHandler(handler)
        library.removeHandler(handler)
        handler.close()


@contextmanager
def pid_file(path: Path | None) -> Iterator[None]:
    """``-pidfile``: locked while the process lives, removed at its end.  Raises HostError if another has it."""
    if path is None:
        yield
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise HostError(f"cannot create PID file: Cannot open pid file: {_reason(error)}") from error
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HostError(f"cannot create PID file: Cannot lock pid file: {_reason(error)}") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
