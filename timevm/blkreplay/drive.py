"""A disk of the machine: requests go to the I/O thread at once, and each is completed when the gate says so.

What a request does depends on the order of the requests only: they are carried out one after the other, and a read sees
exactly the writes that were asked for before it.  So the *completion* is all that has to be recorded.  Live and
recording, the drive announces it as soon as the host is done; in a replay the gate does not listen, calls ``complete``
where the recording says so, and the CPU waits there for the host if it must.  Nothing else ever waits for a completion.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from dataclasses import dataclass, field
from typing import Any

import xxhash

from timevm.blkreplay.iothread import Worker
from timevm.blkreplay.layer import Layer
from timevm.errors import HostError, InternalError, RecordingError, TimevmError

_log = logging.getLogger(__name__)

#: seconds that the CPU waits for the host's disk before it gives up
PATIENCE = 120.0
#: requests, and bytes in them, that a guest may have under way before it has to wait
MOST_REQUESTS, MOST_BYTES = 256, 64 << 20

Completed = Callable[[int, bytes | None], None]


class UnknownRequest(RecordingError):
    """The recording completes what the guest of this replay has not asked for: the replay differs."""


@dataclass(slots=True)
class Statistics:
    """Since the process began: what was completed, and the host's time for it."""

    operations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("read", "write", "flush"), 0))
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("read", "write", "flush"), 0))
    nanoseconds: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("read", "write", "flush"), 0))
    failed: int = 0
    highest_write: int = 0


@dataclass(slots=True)
class _Request:
    kind: str  # read, write, zero, flush
    offset: int
    length: int
    version: int
    result: Future[bytes]
    nanoseconds: int = 0


def _nobody(request: int, data: bytes | None) -> None:
    """Until a controller is there."""


def _quiet(request: int, failed: bool) -> None:
    """Nobody is told of a request that is done."""


class Drive:
    """A BlockPort of the devices, and Stateful.  All on the CPU thread; only announcements come from the I/O thread.

    ``expect()`` is called when a request goes out, ``announce(request, failed)`` when the host is done with it.
    """

    def __init__(
        self,
        name: str,
        layer: Layer,
        worker: Worker,
        *,
        read_only: bool = False,
        expect: Callable[[], None] = lambda: None,
        announce: Callable[[int, bool], None] = _quiet,
        patience: float = PATIENCE,
    ) -> None:
        self.name = name
        self.completed: Completed = _nobody
        self.statistics = Statistics()
        self._layer = layer
        self._worker = worker
        self._read_only = read_only
        self._expect = expect
        self._announce = announce
        self._patience = patience
        self._next = 0  # number of the next request
        self._writes = 0  # writes asked for so far
        self._history = 0  # hash of everything that was asked for, in order
        self._in_flight: dict[int, _Request] = {}
        self._going_on = threading.Lock()  # once `restore` has it nothing of before is announced any more
        self._bytes = 0  # of the requests in flight
        self._told = 0  # failures
        self._unannounced = False  # requests in flight came from a snapshot

    def connect(self, expect: Callable[[], None], announce: Callable[[int, bool], None]) -> None:
        """The machine is there; see the class."""
        self._expect, self._announce = expect, announce

    def use(self, layer: Layer) -> None:
        """Requests go there from now on; those before have been carried out (``drain``)."""
        self._layer = layer

    @property
    def is_calm(self) -> bool:
        """The host is done with everything that was asked for: ``state`` does not wait."""
        return all(request.result.done() for request in self._in_flight.values())

    @property
    def size(self) -> int:
        return self._layer.size

    @property
    def read_only(self) -> bool:
        return self._read_only

    @property
    def writes(self) -> int:
        """The version of the disk: how many writes were asked for."""
        return self._writes

    # ---- requests

    def has_room(self) -> bool:
        return len(self._in_flight) < MOST_REQUESTS and self._bytes < MOST_BYTES

    def read(self, offset: int, length: int) -> int:
        layer, version = self._layer, self._writes
        return self._submit("read", offset, length, b"", lambda: layer.read(offset, length, version))

    def write(self, offset: int, data: bytes) -> int:
        self._writes += 1
        layer, number = self._layer, self._writes
        return self._submit("write", offset, len(data), data, lambda: _after(lambda: layer.write(offset, data, number)))

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> int:
        self._writes += 1
        layer, number = self._layer, self._writes
        return self._submit(
            "zero", offset, length, b"", lambda: _after(lambda: layer.write_zeroes(offset, length, number, unmap=unmap))
        )

    def flush(self) -> int:
        layer = self._layer
        return self._submit("flush", 0, 0, b"", lambda: _after(layer.flush))

    def _submit(self, kind: str, offset: int, length: int, data: bytes, job: Callable[[], bytes]) -> int:
        number = self._next
        self._next += 1
        what = struct.pack("<8sQQQ", kind.encode(), offset, length, xxhash.xxh3_64_intdigest(data))
        self._history = xxhash.xxh3_64_intdigest(what, seed=self._history)
        request = _Request(kind, offset, length, self._writes, Future())

        def carry_out() -> bytes:
            begin = time.perf_counter_ns()
            try:
                return job()
            finally:
                request.nanoseconds = time.perf_counter_ns() - begin

        self._in_flight[number] = request
        self._bytes += length
        self._expect()
        request.result = self._worker.submit(carry_out)
        request.result.add_done_callback(lambda result: self._done(number, request, result))
        return number

    def _done(self, number: int, request: _Request, result: Future[bytes]) -> None:
        """On the I/O thread."""
        failed = result.exception() is not None
        with self._going_on:
            if self._in_flight.get(number) is request:
                self._announce(number, failed)

    # ---- completions

    def complete(self, number: int, failed: bool) -> None:
        """The gate says that request ``number`` is done; ``failed``: what the guest is told.

        Raises UnknownRequest if the guest made none such, HostError if the host could not do what it did when it
        was recorded, or is not done within the drive's patience.
        """
        request = self._in_flight.pop(number, None)
        if request is None:
            raise UnknownRequest(f"request {number} of the disk '{self.name}' is done, but the guest has none such")
        self._bytes -= request.length
        error = self._wait(number, request)
        self._count(request, error)
        if failed:
            self._tell(number, request, error)
            self.completed(number, None)
        elif error is not None:
            raise HostError(
                f"{self._describe(number, request)} was done when it was recorded and cannot be done now: {error}"
            ) from error
        else:
            self.completed(number, request.result.result())

    def _tell(self, number: int, request: _Request, error: TimevmError | None) -> None:
        """The user, of a failure; of many the first few, then one in each ten times as many."""
        self._told += 1
        if self._told <= 3 or str(self._told).strip("0") == "1":
            more = "" if self._told <= 3 else f" ({self._told} so far)"
            what = self._describe(number, request)
            _log.warning("%s failed%s, the guest was told: %s", what, more, error or "as it was recorded")

    def drain(self) -> None:
        """Everything that was asked for is carried out (not completed) when this returns.  Raises HostError: hangs."""
        for number, request in self._in_flight.items():
            self._wait(number, request)

    def announce_pending(self) -> None:
        """Announce again what a snapshot had under way; whoever lets a machine run on from one calls this first."""
        if not self._unannounced:
            return
        self._unannounced = False
        for number, request in self._in_flight.items():
            self._expect()
            self._announce(number, request.result.exception() is not None)

    def close(self) -> None:
        """Carry out what is under way, then let the image go."""
        try:
            self.drain()
        finally:
            self._layer.close()

    def _wait(self, number: int, request: _Request) -> TimevmError | None:
        """Until the host is done; its error."""
        try:
            error = request.result.exception(self._patience)
        except NotDone:
            raise HostError(
                f"{self._describe(number, request)} is not done after {self._patience:g} s: the host's disk hangs"
            ) from None
        if error is None or isinstance(error, TimevmError):
            return error
        raise InternalError(f"{self._describe(number, request)} failed: {error!r}") from error

    def _describe(self, number: int, request: _Request) -> str:
        where = "" if request.kind == "flush" else f" of {request.length} bytes at {request.offset}"
        return f"request {number} of the disk '{self.name}' ({request.kind}{where})"

    def _count(self, request: _Request, error: TimevmError | None) -> None:
        kind = "write" if request.kind == "zero" else request.kind
        statistics = self.statistics
        statistics.operations[kind] += 1
        statistics.bytes[kind] += request.length if request.kind in ("read", "write") else 0
        statistics.nanoseconds[kind] += request.nanoseconds
        statistics.failed += error is not None
        if kind == "write":
            statistics.highest_write = max(statistics.highest_write, request.offset + request.length)

    # ---- state

    def position(self) -> dict[str, Any]:
        """What a digest of the machine holds of the disk: everything that was asked for, as a hash.  Waits for nothing.

        What the host made of it is not in it: that is known only when it is done.
        """
        return {"requests": self._next, "writes": self._writes, "history": self._history}

    def reset(self) -> None:
        """A disk has no power-on state: what is under way will still be completed, and numbers go on."""

    def state(self) -> dict[str, Any]:
        """Waits until the host is done with what is under way: its results are part of the moment."""
        in_flight = []
        for number, request in self._in_flight.items():
            error = self._wait(number, request)
            in_flight.append(
                {
                    "request": number,
                    "kind": request.kind,
                    "offset": request.offset,
                    "length": request.length,
                    "version": request.version,
                    "result": request.result.result() if error is None else None,
                }
            )
        return {**self.position(), "in_flight": in_flight}

    def restore(self, state: dict[str, Any]) -> None:
        """The image is the caller's business (``drain`` first); a journal needs nothing: it holds every version."""
        self._next, self._writes, self._history = state["requests"], state["writes"], state["history"]
        in_flight = {}
        for one in state["in_flight"]:
            result: Future[bytes] = Future()
            if one["result"] is None:
                result.set_exception(HostError("the host could not do it before the snapshot"))
            else:
                result.set_result(one["result"])
            in_flight[one["request"]] = _Request(one["kind"], one["offset"], one["length"], one["version"], result)
        with self._going_on:
            self._in_flight = in_flight
        self._bytes = sum(request.length for request in self._in_flight.values())
        self._unannounced = bool(self._in_flight)


def _after(action: Callable[[], None]) -> bytes:
    """What a request gives that reads nothing."""
    action()
    return b""
