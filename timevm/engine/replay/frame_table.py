"""Where the frames of a recording are: found by walking over it, or taken from its index."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

from timevm.engine.replay import log_format as layout
from timevm.engine.replay.codec import Cursor, MalformedEvent
from timevm.engine.replay.log_format import FrameHead, FrameKind, UnsoundFrame


@dataclass(frozen=True, slots=True)
class Damage:
    """Behind ``icount`` nothing can be replayed; ``offset`` is where in the file the unsound bytes begin."""

    icount: int
    offset: int
    reason: str


@dataclass(slots=True)
class FrameTable:
    """Sound frames of events, in order; one array element a frame."""

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    #: number of the first event of each frame
    first_events: array[int] = field(default_factory=lambda: array("Q"))
    #: icount of the first event of each frame
    first_icounts: array[int] = field(default_factory=lambda: array("Q"))
    events: int = 0
    #: icount of the last event
    last_icount: int = 0
    #: of the index and end mark; None: the recording was never closed
    end_offset: int | None = None
    damage: Damage | None = None

    def frame_of(self, event: int) -> int:
        """Number of the frame that holds event number ``event`` (which must exist)."""
        return bisect_right(self.first_events, event) - 1

    def frame_before(self, icount: int) -> int | None:
        """The last frame that begins before ``icount``; None: all begin there or later."""
        frame = bisect_left(self.first_icounts, icount) - 1
        return None if frame < 0 else frame

    def append(self, offset: int, first_icount: int, events: int) -> None:
        """Raises OverflowError for what no file can hold."""
        self.offsets.append(offset)
        self.first_events.append(self.events)
        self.first_icounts.append(first_icount)
        self.events += events

    def cut(self, frame: int, damage: Damage) -> None:
        """Frame number ``frame`` and all behind it turned out to be unsound."""
        self.events = self.first_events[frame]
        del self.offsets[frame:], self.first_events[frame:], self.first_icounts[frame:]
        self.last_icount = damage.icount
        self.damage = damage


class RecordingFile:
    """An open recording behind its header; every read is checked."""

    def __init__(self, descriptor: int, frames_at: int, header_checksum: int, start_icount: int) -> None:
        self.descriptor = descriptor
        self.frames_at = frames_at
        self.start_icount = start_icount
        self._header = header_checksum

    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def read_frame(self, offset: int, ordinal: int) -> tuple[FrameHead, bytes]:
        """Head and stored payload; ``ordinal`` counts frames of events.  Raises UnsoundFrame."""
        try:
            head_bytes = os.pread(self.descriptor, layout.FRAME.size, offset)
            head = layout.unpack_head(head_bytes)
            stored = os.pread(self.descriptor, head.stored, offset + layout.FRAME.size)
        except OSError as error:
            raise UnsoundFrame(f"the file cannot be read there ({error.strerror})") from error
        seed = layout.frame_seed(self._header, ordinal if head.kind == FrameKind.EVENTS else 0)
        layout.check_frame(head, head_bytes, stored, seed)
        return head, stored

    def walk(self) -> FrameTable:
        """Check every frame from the first to the end mark or to the first unsound one."""
        table = FrameTable(last_icount=self.start_icount)
        size, offset = self.size(), self.frames_at
        while offset < size:
            try:
                head, _ = self.read_frame(offset, len(table.offsets))
                if head.kind == FrameKind.EVENTS and (head.first < table.last_icount or head.events == 0):
                    raise UnsoundFrame("the frame goes back in time")
            except UnsoundFrame as error:
                table.damage = Damage(table.last_icount, offset, self._with_loss(str(error), table))
                return table
            if head.kind == FrameKind.EVENTS:
                table.append(offset, head.first, head.events)
                table.last_icount = head.last
            elif head.kind == FrameKind.END:
                table.end_offset = offset
                end = offset + layout.END_SIZE
                if end < size:
                    reason = f"{size - end} bytes of something else follow the end mark"
                    table.damage = Damage(table.last_icount, end, reason)
                return table
            offset += layout.FRAME.size + head.stored
        return table

    def index(self) -> FrameTable | None:
        """The table without a look at the frames; None if end mark or index are missing or unsound."""
        end_offset = self.size() - layout.END_SIZE
        try:
            end, payload = self.read_frame(end_offset, 0) if end_offset >= self.frames_at else (None, b"")
            if end is None or end.kind != FrameKind.END or end.stored != layout.END_PAYLOAD.size or end.flags:
                return None
            frames, events, index_offset = layout.END_PAYLOAD.unpack(payload)
            head, stored = self.read_frame(index_offset, 0)
            if head.kind != FrameKind.INDEX:
                return None
            cursor = Cursor(layout.plain_payload(head, stored))
            table = FrameTable(last_icount=end.last, end_offset=end_offset)
            offset = first = 0
            while not cursor.at_end:
                offset += cursor.varint()
                first += cursor.varint()
                table.append(offset, first, cursor.varint())
        except (UnsoundFrame, MalformedEvent, OverflowError):
            return None
        return table if len(table.offsets) == frames and table.events == events else None

    def _with_loss(self, reason: str, table: FrameTable) -> str:
        """How much of the recording is behind the damage, if its end mark is there to say so."""
        index = self.index()
        if index is None or index.events <= table.events:
            return reason
        return f"{reason}; lost are {index.events - table.events} events up to instruction {index.last_icount}"
