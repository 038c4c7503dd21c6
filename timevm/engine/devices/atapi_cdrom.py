"""An ATAPI CD-ROM drive (ATA/ATAPI-7, PACKET feature set) on a BlockPort, with QEMU's ide-cd as the model."""

from __future__ import annotations

import struct
from typing import Any, Final

from timevm.engine.devices.ata_identify import FIRMWARE, DiskNames, text
from timevm.engine.devices.block_port import BlockPort
from timevm.engine.devices.ide_drive import ABORTED, DRDY, ERR, Channel, IdeDrive, Phase
from timevm.engine.devices.scsi_cdrom import (
    BLOCK,
    ILLEGAL_REQUEST,
    INVALID_FIELD,
    MEDIUM_ERROR,
    NO_SENSE,
    PACKET_BYTES,
    UNRECOVERED_READ,
    Read,
    Sense,
    interpret,
)

PACKET, IDENTIFY_PACKET, IDENTIFY, DEVICE_RESET, SET_FEATURES = 0xA0, 0xA1, 0xEC, 0x08, 0xEF
NO_OPERATION: Final = (0xE0, 0xE1, 0xE5, 0xE6, 0x00)
FEATURE_DMA: Final = 0x01
# interrupt reason, in COUNT: what the data port carries
COMMAND_BIT, TO_HOST_BIT = 0x01, 0x02
#: what a byte count limit of zero means, and the largest even one
MOST_BYTES: Final = 0xFFFE
#: blocks that one request has at most
MOST_BLOCKS: Final = 64

_REGISTERS: Final = ("sense_key", "sense_code", "limit", "by_dma", "block", "left", "packet_pending")


class AtapiCdrom(IdeDrive):
    """``port.completed`` is set by the drive."""

    def __init__(self, name: str, channel: Channel, port: BlockPort, names: DiskNames) -> None:
        self._port = port
        self._names = names
        port.completed = self._completed
        super().__init__(name, channel)

    def signature(self) -> None:
        self.count = self.low = 1
        self.mid, self.high = 0x14, 0xEB

    def clear(self) -> None:
        super().clear()
        self.status = 0  # until the first packet command (9.12)
        self._sense_key, self._sense_code = NO_SENSE, 0
        self._limit = MOST_BYTES
        self._by_dma = False
        self._block = self._left = 0  # of the disc: where a read goes on, and how many blocks are still to come
        self._waiting = b""  # for the data port
        self._packet_pending = False

    def state(self) -> dict[str, Any]:
        own = {name: getattr(self, f"_{name}") for name in _REGISTERS}
        return {**super().state(), **own, "waiting": self._waiting}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        for name in _REGISTERS:
            setattr(self, f"_{name}", state[name])
        self._waiting = state["waiting"]

    # ---- commands of the drive

    def execute(self, command: int) -> None:
        self.command = command
        self.error = 0
        if command == PACKET:
            self._limit = self.high << 8 | self.mid
            self._limit = MOST_BYTES if self._limit in (0, 0xFFFF) else self._limit
            self._by_dma = bool(self.features & FEATURE_DMA)
            self._packet_pending = True
            self.count = COMMAND_BIT
            self.want(PACKET_BYTES, interrupt=False)
        elif command == IDENTIFY_PACKET:
            self._waiting = b""
            self._left = 0
            self.offer(self._identify())
        elif command == DEVICE_RESET:
            self.soft_reset()
        elif command == IDENTIFY:
            self.signature()
            self.fail(ABORTED)
        elif command in NO_OPERATION or command == SET_FEATURES:
            self.done()
        else:
            self.fail(ABORTED)

    def _identify(self) -> bytes:
        words: dict[int, int] = {
            0: 0x85C0,  # ATAPI, CD-ROM, removable, 12-byte packets, DRQ within 50 us
            20: 3,
            21: 512,
            22: 4,
            48: 1,
            49: 1 << 11 | 1 << 9 | 1 << 8,
            53: 7,
            62: 7,
            63: 7,
            64: 3,
            65: 0xB4,
            66: 0xB4,
            67: 0x12C,
            68: 0xB4,
            71: 30,
            72: 30,
            80: 0x1E,
            88: 0x3F | 0x2000,
        }
        data = bytearray(struct.pack("<256H", *(words.get(index, 0) for index in range(256))))
        data[20:40] = text(self._names.serial, 20)
        data[46:54] = text(FIRMWARE, 8)
        data[54:94] = text(self._names.model, 40)
        return bytes(data)

    # ---- packets

    def block_given(self) -> None:
        self._packet_pending = False
        packet = bytes(self.buffer)
        answer = interpret(packet, self._port.size // BLOCK, Sense(self._sense_key, self._sense_code))
        if isinstance(answer, Sense):
            self._refuse(answer)
            return
        self._sense_key, self._sense_code = NO_SENSE, 0
        if isinstance(answer, Read):
            self._block, self._left = answer.block, answer.count
            self._fetch()
        elif answer:
            self._give(answer)
        else:
            self._finish()

    def _refuse(self, sense: Sense) -> None:
        self._sense_key, self._sense_code = sense.key, sense.code
        self._left = 0
        self._waiting = b""
        self.count = COMMAND_BIT | TO_HOST_BIT
        self._end(DRDY | ERR, sense.key << 4 | ABORTED, True)

    def _finish(self) -> None:
        self.count = COMMAND_BIT | TO_HOST_BIT
        self.done()

    def _fetch(self) -> None:
        """All of it for DMA, which is one transfer; pieces for the data port."""
        blocks = self._left if self._by_dma else min(self._left, MOST_BLOCKS)
        self.ask(self._port.read(self._block * BLOCK, blocks * BLOCK))

    def _give(self, data: bytes) -> None:
        self._waiting = data
        if self._by_dma:
            self.count = TO_HOST_BIT
            self.wait_for_bus_master(Phase.DMA_TO_HOST)
        else:
            self._show()

    def _show(self) -> None:
        """The next piece at the data port, at most as large as the host wants them."""
        size = min(len(self._waiting), self._limit)
        if size < len(self._waiting):
            size &= ~1
        piece, self._waiting = self._waiting[: max(size, 1)], self._waiting[max(size, 1) :]
        self.mid, self.high = len(piece) & 0xFF, len(piece) >> 8
        self.count = TO_HOST_BIT
        self.offer(piece)

    def block_taken(self) -> None:
        if self.command != PACKET:
            self.done(interrupt=False)
        elif self._waiting:
            self._show()
        elif self._left:
            self._fetch()
        else:
            self._finish()

    def bus_master_started(self) -> None:
        if self.phase != Phase.DMA_TO_HOST:
            return
        data, self._waiting = self._waiting, b""
        if self.channel.bus_master.to_memory(data):
            self._finish()
        else:
            self._refuse(Sense(ILLEGAL_REQUEST, INVALID_FIELD))

    def _completed(self, request: int, data: bytes | None) -> None:
        if request != self.request or self.phase != Phase.ASKED:
            return
        self.request = None
        if data is None:
            self._refuse(Sense(MEDIUM_ERROR, UNRECOVERED_READ))
            return
        blocks = len(data) // BLOCK
        self._block += blocks
        self._left -= blocks
        self._give(data)
