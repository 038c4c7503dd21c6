"""Reads a recording up to its last sound frame, whatever has become of the rest."""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from timevm.engine.replay import log_format as layout
from timevm.engine.replay.codec import FORMAT_VERSION, Entry, MalformedEvent, decode
from timevm.engine.replay.events import End
from timevm.engine.replay.frame_table import Damage, FrameTable, RecordingFile
from timevm.engine.replay.identity import Identity
from timevm.engine.replay.log_format import FrameHead, FrameKind, UnsoundFrame
from timevm.errors import InternalError, RecordingError

#: bytes; a larger file with a sound index is not checked as a whole when it is opened, but frame by frame when reached
CHECK_AT_ONCE = 256 << 20
#: decoded frames kept (a thousand events each at most)
FRAMES_KEPT = 32

END_REASONS = {
    "shutdown": "the guest switched itself off",
    "quit": "the user quit",
    "reset": "the machine was reset",
    "look-back": "there it was looked back at",
}


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """Of a frame of events: its place and sizes in bytes, and the icounts that it spans."""

    offset: int
    stored: int
    plain: int
    events: int
    first: int
    last: int


class LogReader:
    """Events by number, 0 … ``event_count`` - 1.  ``damage`` says why the recording is not whole, None if it is."""

    def __init__(self, path: Path | str, *, check_at_once: int = CHECK_AT_ONCE) -> None:
        """Raises RecordingError if the file is missing, is none of timevm's, or its header is damaged."""
        self.path = Path(path)
        self._descriptor = _open(self.path)
        self._closed = False
        self._kept: OrderedDict[int, list[Entry]] = OrderedDict()
        try:
            self._file, self.identity = _read_header(self._descriptor, self.path)
            table = self._file.index() if self._file.size() > check_at_once else None
            self._table: FrameTable = table or self._file.walk()
            self._last: Entry | None = self.entry(self._table.events - 1) if self._table.events else None
        except BaseException:
            self.close()
            raise

    @property
    def event_count(self) -> int:
        return self._table.events

    @property
    def end_icount(self) -> int:
        """Of the last sound event; the start of the recording if there is none."""
        return self._table.last_icount

    @property
    def damage(self) -> Damage | None:
        """May appear later, when a frame is reached that is unsound."""
        return self._table.damage

    @property
    def is_closed_in_order(self) -> bool:
        """Index and end mark are there."""
        return self._table.end_offset is not None

    @property
    def end(self) -> End | None:
        """How the recording ended, if its last event says so."""
        if self._last is not None and isinstance(self._last.event, End):
            return self._last.event
        return None

    @property
    def ending(self) -> str:
        """Why there is nothing behind ``end_icount``: a sentence without a full stop."""
        at = f"instruction {self.end_icount}"
        if self.end is not None:
            why = END_REASONS.get(self.end.reason, ascii(self.end.reason))
            text = f"the recording ends at {at}: {why}"
            return text if self.damage is None else f"{text}; behind it the file is damaged: {self.damage.reason}"
        if self.damage is not None:
            return (
                f"the recording {self.path} is damaged: it replays up to {at} only "
                f"(byte {self.damage.offset}: {self.damage.reason})"
            )
        if not self.is_closed_in_order:
            return f"the recording ends at {at}: it has no end mark, its recorder was killed or is still at work"
        return f"the recording ends at {at}: recording stopped there"

    def entry(self, number: int) -> Entry | None:
        """Event ``number`` (>= 0) with its icount; None behind the last sound one."""
        while number < self._table.events:
            frame = self._table.frame_of(number)
            entries = self._entries_of(frame)
            if entries is not None:
                return entries[number - self._table.first_events[frame]]
        return None

    def entries(self, start: int = 0) -> Iterator[Entry]:
        """All sound events from number ``start`` on, each frame read once."""
        number = start
        while (entry := self.entry(number)) is not None:
            yield entry
            number += 1

    def number_at(self, icount: int) -> int:
        """Number of the first event at ``icount`` or later (``event_count`` if there is none)."""
        frame = self._table.frame_before(icount)
        number = 0 if frame is None else self._table.first_events[frame]
        while (entry := self.entry(number)) is not None and entry.icount < icount:
            number += 1
        return number

    @property
    def file_size(self) -> int:
        return self._file.size()

    @property
    def header_size(self) -> int:
        """Bytes before the first frame."""
        return self._file.frames_at

    def index_agrees(self) -> bool:
        """The index at the end says what a walk over the frames found.  For verification."""
        index = self._file.index()
        return index is not None and index == self._table

    def frames(self) -> Iterator[FrameInfo]:
        """All frames of events that are sound on disk."""
        for ordinal, offset in enumerate(list(self._table.offsets)):
            try:
                head, _ = self._file.read_frame(offset, ordinal)
            except UnsoundFrame as error:
                self._cut(ordinal, str(error))
                return
            yield FrameInfo(offset, layout.FRAME.size + head.stored, head.plain, head.events, head.first, head.last)

    def close(self) -> None:
        """Idempotent."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)

    def _entries_of(self, frame: int) -> list[Entry] | None:
        """None: the frame turned out to be unsound, and the table ends before it now."""
        if frame in self._kept:
            self._kept.move_to_end(frame)
            return self._kept[frame]
        if self._closed:
            raise InternalError(f"the recording {self.path} is read after it was closed")
        try:
            head, stored = self._file.read_frame(self._table.offsets[frame], frame)
            entries = self._decode(head, stored)
        except UnsoundFrame as error:
            self._cut(frame, str(error))
            return None
        self._kept[frame] = entries
        if len(self._kept) > FRAMES_KEPT:
            self._kept.popitem(last=False)
        return entries

    @staticmethod
    def _decode(head: FrameHead, stored: bytes) -> list[Entry]:
        """Raises UnsoundFrame."""
        if head.kind != FrameKind.EVENTS:
            raise UnsoundFrame("what should be a frame of events is another one")
        try:
            # one more than there should be, so that a frame that lies cannot fill the memory
            entries = list(islice(decode(layout.plain_payload(head, stored), head.first), head.events + 1))
        except MalformedEvent as error:
            raise UnsoundFrame(str(error)) from error
        if len(entries) != head.events or entries[0].icount != head.first or entries[-1].icount != head.last:
            raise UnsoundFrame("the frame does not hold what its head says")
        return entries

    def _cut(self, frame: int, reason: str) -> None:
        offset = self._table.offsets[frame]
        number = self._table.first_events[frame] - 1
        self._kept.pop(frame, None)
        before = self.entry(number) if number >= 0 else None
        if frame < len(self._table.offsets):  # looking at the frame before it may have cut more
            icount = self._file.start_icount if before is None else before.icount
            self._table.cut(frame, Damage(icount, offset, reason))
            self._last = before


def _open(path: Path) -> int:
    try:
        # O_NONBLOCK: a FIFO must not make us wait for somebody who writes
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise RecordingError(f"Replay: open {path}: {error.strerror}") from error
    except ValueError as error:
        raise RecordingError(f"Replay: open {str(path)!r}: {error}") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        what = "Is a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise RecordingError(f"Replay: open {path}: {what}")
    return descriptor


def _read_header(descriptor: int, path: Path) -> tuple[RecordingFile, Identity]:
    try:
        head = os.pread(descriptor, layout.HEADER.size, 0)
        if not head:
            raise RecordingError(f"Replay: {path}: the recording is empty")
        if head[: len(layout.MAGIC)] != layout.MAGIC[: len(head)]:
            raise RecordingError(f"Replay: {path}: not a recording of timevm")
        if len(head) < layout.HEADER.size:
            raise RecordingError(f"Replay: {path}: the header is cut short, nothing can be replayed")
        _, version, length, checksum = layout.HEADER.unpack(head)
        if version != FORMAT_VERSION:
            raise RecordingError(
                f"Replay: {path}: the recording has format version {version}, this timevm reads {FORMAT_VERSION}: "
                "replay it with the version that recorded it"
            )
        if length > layout.LARGEST_IDENTITY:
            raise RecordingError(f"Replay: {path}: the header is damaged, nothing can be replayed")
        text = os.pread(descriptor, length, layout.HEADER.size)
    except OSError as error:
        raise RecordingError(f"Replay: read {path}: {error.strerror}") from error
    if len(text) < length:
        raise RecordingError(f"Replay: {path}: the header is cut short, nothing can be replayed")
    if layout.header_checksum(head[: layout.HEADER_CHECKED], text) != checksum:
        raise RecordingError(f"Replay: {path}: the header is damaged (wrong checksum), nothing can be replayed")
    identity = Identity.from_json(text)
    return RecordingFile(descriptor, layout.HEADER.size + length, checksum, identity.start_icount), identity
