"""Writes a recording so that whatever kills the process costs at most the last frame."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time
from pathlib import Path

from timevm.engine.replay import log_format as layout
from timevm.engine.replay.codec import FORMAT_VERSION, encode, put_varint
from timevm.engine.replay.events import Event
from timevm.engine.replay.identity import Identity
from timevm.engine.replay.log_format import FrameKind
from timevm.errors import HostError, InternalError, RecordingError

#: seconds for which an event may stay in memory; half of the promised 100 ms, for a busy host
FLUSH_AFTER = 0.05


class LogWriter:
    """``append`` is called on one thread; a daemon thread of its own writes the frame that is pending.

    When the file cannot be written any more (a full disk), it is cut back to its last sound frame, and each later
    ``append`` raises that HostError: nothing may happen that is not recorded.  ``close`` then says nothing more.
    """

    def __init__(self, path: Path | str, identity: Identity) -> None:
        """Creates or replaces ``path``.  Raises HostError; RecordingError if another process is recording into it."""
        self.path = Path(path)
        self.icount = identity.start_icount
        self.events = 0
        self._pending = bytearray()
        self._pending_events = 0
        self._pending_first = self._pending_last = identity.start_icount
        self._pending_since = 0.0
        self._frames: list[tuple[int, int, int]] = []  # offset, first icount, events
        self._failure: HostError | None = None
        self._failure_told = False
        self._closed = False
        self._changed = threading.Condition()
        text = identity.to_json()
        fields = layout.HEADER.pack(layout.MAGIC, FORMAT_VERSION, len(text), 0)[: layout.HEADER_CHECKED]
        self._header = layout.header_checksum(fields, text)
        self._descriptor = self._open()
        self._size = 0
        try:
            self._write(fields + self._header.to_bytes(8, "little") + text)
        except HostError:
            os.close(self._descriptor)
            raise
        self._flusher = threading.Thread(target=self._flush_in_time, name="recording", daemon=True)
        self._flusher.start()

    def _open(self) -> int:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
        except OSError as error:
            raise HostError(f"Record: open {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.ftruncate(descriptor, 0)
        except BlockingIOError as error:
            os.close(descriptor)
            raise RecordingError(f"Record: another timevm is recording into {self.path}") from error
        except OSError as error:
            os.close(descriptor)
            raise HostError(f"Record: {self.path}: {error.strerror}") from error
        return descriptor

    def append(self, icount: int, event: Event) -> None:
        """To be called before ``event`` takes effect; ``icount`` never decreases.  Raises HostError (see the class)."""
        with self._changed:
            if self._closed:
                raise InternalError(f"an event behind the end of the recording {self.path}: {event}")
            if self._failure is not None:
                self._failure_told = True
                raise self._failure
            if icount < self.icount:
                raise InternalError(f"an event at instruction {icount}, after one at {self.icount}: {event}")
            self.icount = icount
            if not self._pending_events:
                self._pending_first = self._pending_last = icount
                self._pending_since = time.monotonic()
                self._changed.notify()
            self._encode(icount - self._pending_last, event)
            self._pending_last = icount
            self._pending_events += 1
            self.events += 1
            if len(self._pending) >= layout.FRAME_BYTES or self._pending_events >= layout.FRAME_EVENTS:
                try:
                    self._flush()
                except HostError:
                    self._failure_told = True
                    raise

    def _encode(self, delta: int, event: Event) -> None:
        before = len(self._pending)
        encode(self._pending, delta, event)
        if len(self._pending) - before > layout.LARGEST_EVENT:
            del self._pending[before:]
            raise InternalError(f"an event of more than {layout.LARGEST_EVENT} bytes ({type(event).__name__})")

    def flush(self) -> None:
        """Everything appended so far is in the file when this returns.  Raises HostError."""
        with self._changed:
            if self._failure is None:
                try:
                    self._flush()
                except HostError:
                    self._failure_told = True
                    raise
            else:
                self._failure_told = True
                raise self._failure

    @property
    def failed(self) -> bool:
        """The file cannot be written any more; the next ``append`` raises."""
        return self._failure is not None

    def close(self) -> None:
        """Flush, write index and end mark.  Idempotent.  Raises HostError if the file is not whole and nobody knows."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify()
        self._flusher.join()
        try:
            if self._failure is None:
                self._flush()
                self._finish()
        except HostError as error:
            self._failure = error
        finally:
            os.close(self._descriptor)
        if self._failure is not None and not self._failure_told:
            raise self._failure

    def abandon(self) -> None:
        """Close without flush, index and end mark: what a killed process leaves behind.  For tests."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._flusher.join()
        os.close(self._descriptor)

    # -- the rest holds the lock, or is alone

    def _flush_in_time(self) -> None:
        with self._changed:
            while not self._closed:
                if not self._pending_events or self._failure is not None:
                    self._changed.wait()
                    continue
                left = self._pending_since + FLUSH_AFTER - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                try:
                    self._flush()
                except HostError as error:
                    self._failure = error  # told at the next append

    def _flush(self) -> None:
        if not self._pending_events:
            return
        seed = layout.frame_seed(self._header, len(self._frames))
        frame = layout.pack_frame(
            FrameKind.EVENTS, seed, self._pending_events, self._pending_first, self._pending_last, bytes(self._pending)
        )
        offset = self._size
        try:
            self._write(frame)
        except HostError as error:
            self._failure = error
            raise
        self._frames.append((offset, self._pending_first, self._pending_events))
        self._pending.clear()
        self._pending_events = 0

    def _finish(self) -> None:
        """Index (per frame: bytes since the one before, instructions likewise, events) and end mark."""
        index = bytearray()
        before_offset = before_first = 0
        for offset, first, events in self._frames:
            put_varint(index, offset - before_offset)
            put_varint(index, first - before_first)
            put_varint(index, events)
            before_offset, before_first = offset, first
        seed = layout.frame_seed(self._header, 0)
        at = self._size
        start = self._frames[0][1] if self._frames else self.icount
        payload = layout.END_PAYLOAD.pack(len(self._frames), self.events, at)
        self._write(
            layout.pack_frame(FrameKind.INDEX, seed, 0, start, self.icount, bytes(index))
            + layout.pack_frame(FrameKind.END, seed, 0, self.icount, self.icount, payload)
        )

    def _write(self, data: bytes) -> None:
        """All of it or nothing.  Raises HostError."""
        done = 0
        try:
            while done < len(data):
                done += os.write(self._descriptor, data[done:])
        except OSError as error:
            if done and stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                os.ftruncate(self._descriptor, self._size)
                os.lseek(self._descriptor, self._size, os.SEEK_SET)
            why = error.strerror
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                why = f"{why}: make room and record again"
            raise HostError(
                f"the recording {self.path} cannot be continued after instruction {self.icount} ({why}). "
                "What was written so far can be replayed"
            ) from error
        self._size += done
