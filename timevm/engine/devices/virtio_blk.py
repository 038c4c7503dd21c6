"""virtio block device (Virtual I/O Device 1.2, section 5.2), with the features and figures that QEMU 7.2 gives it.

Data to write is taken from the guest when the request is made; data that was read goes into the guest when the request
is completed, between two instructions.  A request that the device was reset away from is completed by nobody.

Discarding is writing zeroes: what a discarded range reads as would otherwise depend on the image's clusters.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from timevm.engine.devices.base import DmaError, GuestMemory
from timevm.engine.devices.block_port import BlockPort
from timevm.engine.devices.virtio import VirtioDevice
from timevm.engine.devices.virtqueue import Chain, RingError, Segment, gather, scatter, total

DEVICE_ID: Final = 2
SECTOR: Final = 512
QUEUE_SIZE: Final = 256

# feature bits, 5.2.3
SEG_MAX, GEOMETRY, RO, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE = 1 << 2, 1 << 4, 1 << 5, 1 << 6, 1 << 9, 1 << 10, 1 << 11
MQ, DISCARD, WRITE_ZEROES = 1 << 12, 1 << 13, 1 << 14
# status of a request, 5.2.6
OK, IOERR, UNSUPP = 0, 1, 2
STATUS: Final = {OK: b"\0", IOERR: b"\1", UNSUPP: b"\2"}
HEADER: Final = struct.Struct("<IIQ")
RANGE: Final = struct.Struct("<QII")
UNMAP: Final = 1
ID_BYTES: Final = 20
#: struct virtio_blk_config, 5.2.4
CONFIGURATION: Final = struct.Struct("<QIIHBBIBBHIBBHIIIIIB3x")
WRITEBACK_OFFSET: Final = 32
#: sectors that one discard or write-zeroes may have (QEMU: 2**31 bytes), and bytes that one read or write may have
MOST_ZEROES: Final = (1 << 31) // SECTOR - 1
MOST_BYTES: Final = 64 << 20


class RequestType(IntEnum):
    """5.2.6."""

    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8
    DISCARD = 11
    WRITE_ZEROES = 13


WRITES: Final = (RequestType.OUT, RequestType.DISCARD, RequestType.WRITE_ZEROES)


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """``-device virtio-blk-device,…``: sizes in bytes, powers of two."""

    serial: str = ""
    logical_block_size: int = SECTOR
    physical_block_size: int = SECTOR
    min_io_size: int = 0
    opt_io_size: int = 0
    queues: int = 1
    queue_size: int = QUEUE_SIZE
    write_cache: bool = True
    discard: bool = True
    write_zeroes: bool = True


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that the disk works on.  ``flush``: once it is written, a flush still has to follow."""

    queue: int
    head: int
    writable: tuple[Segment, ...]
    flush: bool = False


class Refused(Exception):
    """A request that ends at once with ``status``."""

    def __init__(self, status: int) -> None:
        self.status = status


class VirtioBlk(VirtioDevice):
    device_id = DEVICE_ID

    def __init__(self, name: str, memory: GuestMemory, port: BlockPort, options: BlockOptions | None = None) -> None:
        self._port = port
        self._options = options or BlockOptions()
        port.completed = self._completed
        features = SEG_MAX | GEOMETRY | BLK_SIZE | FLUSH | TOPOLOGY | CONFIG_WCE
        features |= MQ if self._options.queues > 1 else 0
        features |= RO if port.read_only else 0
        features |= DISCARD if self._options.discard else 0
        features |= WRITE_ZEROES if self._options.write_zeroes else 0
        super().__init__(name, memory, features, [self._options.queue_size] * self._options.queues)

    # ---- Stateful

    def device_reset(self) -> None:
        self._pending: dict[int, Pending] = {}
        self._writeback = self._options.write_cache

    def device_state(self) -> dict[str, Any]:
        pending = [
            {
                "request": request,
                "queue": one.queue,
                "head": one.head,
                "writable": [list(segment) for segment in one.writable],
                "flush": one.flush,
            }
            for request, one in self._pending.items()
        ]
        return {"pending": pending, "writeback": self._writeback}

    def device_restore(self, state: dict[str, Any]) -> None:
        self._writeback = state["writeback"]
        self._pending = {
            one["request"]: Pending(
                one["queue"], one["head"], tuple((where, length) for where, length in one["writable"]), one["flush"]
            )
            for one in state["pending"]
        }

    # ---- configuration

    def configuration(self) -> bytes:
        options, block = self._options, self._options.logical_block_size
        heads, sectors = 16, 63
        cylinders = min(max(self._port.size // SECTOR // (heads * sectors), 2), 16383)
        alignment = max(block, SECTOR) // SECTOR
        return CONFIGURATION.pack(
            self._port.size // SECTOR,
            0,  # size_max: no limit
            options.queue_size - 2,  # seg_max: header and status take a descriptor each
            cylinders,
            heads,
            sectors,
            block,
            (options.physical_block_size // block).bit_length() - 1,
            0,  # alignment offset
            options.min_io_size // block,
            options.opt_io_size // block,
            self._writeback,
            0,
            options.queues,
            MOST_ZEROES if options.discard else 0,
            1 if options.discard else 0,
            alignment if options.discard else 0,
            MOST_ZEROES if options.write_zeroes else 0,
            1 if options.write_zeroes else 0,
            options.write_zeroes,
        )

    def write_configuration(self, offset: int, data: bytes) -> None:
        if offset <= WRITEBACK_OFFSET < offset + len(data) and self.has(CONFIG_WCE):
            self._writeback = bool(data[WRITEBACK_OFFSET - offset])

    # ---- requests

    def handle(self, queue: int) -> None:
        ring = self.queues[queue]
        while self._port.has_room():
            chain = ring.pop(self.memory)
            if chain is None:
                break
            try:
                self._start(queue, chain)
            except Refused as refusal:
                self._end(Pending(queue, chain.head, chain.writable), refusal.status)
        self.wait_for_more(queue)

    def _start(self, queue: int, chain: Chain) -> None:
        """Hand the request to the disk.  Raises Refused, RingError and DmaError."""
        header = gather(self.memory, chain.readable, 0, HEADER.size)
        if len(header) < HEADER.size or not chain.writable:
            raise RingError("a request without header or status")
        kind, _, sector = HEADER.unpack(header)
        sent, room = total(chain.readable) - HEADER.size, total(chain.writable) - 1
        match kind:
            case RequestType.IN:
                self._check(sector, room)
                request = self._port.read(sector * SECTOR, room)
            case RequestType.OUT:
                self._check_writable()
                self._check(sector, sent)
                request = self._port.write(sector * SECTOR, gather(self.memory, chain.readable, HEADER.size, sent))
            case RequestType.FLUSH:
                request = self._port.flush()
            case RequestType.GET_ID:
                identifier = self._options.serial.encode()[:ID_BYTES].ljust(ID_BYTES, b"\0")
                self._end(Pending(queue, chain.head, chain.writable), OK, identifier[:room])
                return
            case RequestType.DISCARD | RequestType.WRITE_ZEROES:
                request = self._zero(kind, chain, sent)
            case _:
                raise Refused(UNSUPP)
        flush = kind in WRITES and not self._is_cached()
        self._pending[request] = Pending(queue, chain.head, chain.writable, flush)

    def _zero(self, kind: int, chain: Chain, sent: int) -> int:
        self._check_writable()
        enabled = self._options.discard if kind == RequestType.DISCARD else self._options.write_zeroes
        if not enabled or sent > RANGE.size:
            raise Refused(UNSUPP)
        if sent < RANGE.size:
            raise Refused(IOERR)
        sector, count, flags = RANGE.unpack(gather(self.memory, chain.readable, HEADER.size, RANGE.size))
        if flags & ~UNMAP or (kind == RequestType.DISCARD and flags):
            raise Refused(UNSUPP)
        if not 0 < count <= MOST_ZEROES:
            raise Refused(IOERR)
        self._check_range(sector, count * SECTOR)
        unmap = kind == RequestType.DISCARD or bool(flags & UNMAP)
        return self._port.write_zeroes(sector * SECTOR, count * SECTOR, unmap=unmap)

    def _check_writable(self) -> None:
        if self._port.read_only:
            raise Refused(IOERR)

    def _check(self, sector: int, length: int) -> None:
        if not 0 < length <= MOST_BYTES:
            raise Refused(IOERR)
        self._check_range(sector, length)

    def _check_range(self, sector: int, length: int) -> None:
        block = self._options.logical_block_size
        if length % block or sector * SECTOR % block or sector * SECTOR + length > self._port.size:
            raise Refused(IOERR)

    def _is_cached(self) -> bool:
        """Whether a completed write may be lost until the next flush (5.2.6.2)."""
        if self.has(CONFIG_WCE):
            return self._writeback
        return self.has(FLUSH)

    def _completed(self, request: int, data: bytes | None) -> None:
        pending = self._pending.pop(request, None)
        if pending is not None and pending.flush and data is not None:
            self._pending[self._port.flush()] = Pending(pending.queue, pending.head, pending.writable)
        elif pending is not None and not self.is_broken:
            try:
                self._end(pending, OK if data is not None else IOERR, data or b"")
            except DmaError:
                self.broken()
        if not self.is_broken:
            for queue, ring in enumerate(self.queues):
                if ring.ready:
                    self.notify(queue)

    def _end(self, pending: Pending, status: int, data: bytes = b"") -> None:
        """Raises DmaError."""
        where = total(pending.writable) - 1
        if where >= 0:
            scatter(self.memory, pending.writable, 0, data)
            scatter(self.memory, pending.writable, where, STATUS[status])
        self.use(pending.queue, pending.head, len(data) + 1)
