"""Block nodes of tests: a disk in memory, and a worker that does things when and in which order it likes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from timevm.errors import HostError


class MemoryNode:
    """A BlockNode in memory.  ``refuse``: (operation, offset, length) → whether the host refuses."""

    def __init__(self, data: bytes | int) -> None:
        self.data = bytearray(data)
        self.refuse: Callable[[str, int, int], bool] = lambda kind, offset, length: False
        self.log: list[tuple[str, int, int]] = []
        self.closed = False

    @property
    def size(self) -> int:
        return len(self.data)

    def _note(self, kind: str, offset: int, length: int) -> None:
        assert not self.closed and 0 <= offset <= offset + length <= self.size, (kind, offset, length)
        self.log.append((kind, offset, length))
        if self.refuse(kind, offset, length):
            raise HostError(f"no {kind} today")

    def read(self, offset: int, length: int) -> bytes:
        self._note("read", offset, length)
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        try:
            self._note("write", offset, len(data))
        except HostError:
            self.data[offset : offset + len(data)] = b"?" * len(data)  # undefined
            raise
        self.data[offset : offset + len(data)] = data

    def write_zeroes(self, offset: int, length: int, *, unmap: bool = True) -> None:
        self._note("zero", offset, length)
        self.data[offset : offset + length] = bytes(length)

    def discard(self, offset: int, length: int) -> None:
        self._note("discard", offset, length)

    def flush(self) -> None:
        self._note("flush", 0, 0)

    def close(self) -> None:
        self.closed = True


class PatientWorker:
    """Carries out the oldest job when ``step`` is called: the slowest disk there is."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], bytes], Future[bytes]]] = []

    def submit(self, job: Callable[[], bytes], /) -> Future[bytes]:
        future: Future[bytes] = Future()
        self.jobs.append((job, future))
        return future

    def step(self) -> None:
        job, future = self.jobs.pop(0)
        try:
            future.set_result(job())
        except HostError as error:
            future.set_exception(error)

    def finish(self) -> None:
        while self.jobs:
            self.step()


class EagerWorker:
    """Everything is done before ``submit`` returns: the fastest disk there is."""

    def submit(self, job: Callable[[], bytes], /) -> Future[bytes]:
        worker = PatientWorker()
        future = worker.submit(job)
        worker.step()
        return future


class LateWorker:
    """A thread that does each job ``delay()`` seconds after the one before."""

    def __init__(self, delay: Callable[[], float]) -> None:
        self._delay = delay
        self._inner = PatientWorker()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], bytes], /) -> Future[bytes]:
        with self._changed:
            future = self._inner.submit(job)
            self._changed.notify()
        return future

    def _main(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._inner.jobs or self._stop.is_set())
                if self._stop.is_set() and not self._inner.jobs:
                    return
            if not self._stop.wait(self._delay()):
                pass
            self._inner.step()

    def close(self) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the worker still works after 10 s"
