"""The one thread of the process that waits for the host's disks, so that the CPU need not."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol


class Worker(Protocol):
    """Carries out jobs in the order in which they came; a job's error is in its future."""

    def submit(self, job: Callable[[], bytes], /) -> Future[bytes]: ...


class IoThread:
    """A Worker.  A job costs about 20 us beside what it does."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="timevm-disk")

    def submit(self, job: Callable[[], bytes], /) -> Future[bytes]:
        return self._pool.submit(job)

    def close(self) -> None:
        """Returns when everything is done.  Idempotent."""
        self._pool.shutdown()
