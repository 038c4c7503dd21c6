"""RTL8139C+, the network card of QEMU's ``-device rtl8139`` (Realtek's data sheet), a PCI function.

Both ways of its drivers are here: the descriptors of C+ mode (Linux's 8139cp, with checksums, large segments and VLAN
tags) and the ring buffer of older ones.  A frame for which the driver has no room waits outside (``accepts``).

Not part of it: power management, wake-up by a frame, the boot ROM.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final

from timevm.engine.devices.base import DmaError, GuestMemory, InterruptLine, VirtualTime
from timevm.engine.devices.eeprom_93c46 import Eeprom93c46
from timevm.engine.devices.network_port import BROADCAST, HEADER_BYTES, MOST_BYTES, NetworkPort
from timevm.engine.devices.pci_function import (
    COMMAND_NO_INTERRUPT,
    STATUS,
    STATUS_INTERRUPT,
    Bar,
    Identity,
    PciFunction,
)
from timevm.engine.devices.pci_i440fx import SUBSYSTEM, SUBSYSTEM_VENDOR
from timevm.engine.devices.rtl8139_registers import (
    EEPROM_CLOCK,
    EEPROM_IN,
    EEPROM_MODE,
    EEPROM_OUT,
    EEPROM_SELECT,
    LOCKED,
    LOOPBACK,
    MODE_CONFIG,
    MODE_LOAD,
    SIZE,
    TALLY_DUMP,
    VERSION,
    WRITABLE,
    Command,
    CPlus,
    Interrupt,
    Poll,
    Receive,
    Register,
    Registers,
    masks,
)
from timevm.engine.devices.rtl8139_rings import Kind, ReceiveBuffer, ReceiveRing, TransmitRing

VENDOR, DEVICE, REVISION, CLASS = 0x10EC, 0x8139, 0x20, 0x020000
#: timer ticks a second, a PCI clock each
TIMER_HZ: Final = 33_000_000
SECOND_NS: Final = 1_000_000_000
#: transmit status of a buffer: whose turn, and that it went well
SENT_OWN, SENT_OK = 1 << 13, 1 << 15
MOST_PLAIN: Final = 1792
_TALLY: Final = struct.Struct("<QQQIHHIIQQIHH")
_FREE, _UNLOCKED = masks(WRITABLE), masks(WRITABLE, LOCKED)


def _multicast_bit(address: bytes) -> int:
    """Of the filter's 64: the upper six bits of the Ethernet checksum, most significant bit first."""
    low = ~zlib.crc32(address) & 0x3F
    return int(f"{low:06b}"[::-1], 2)


class Rtl8139(PciFunction):
    """``address``: 6 bytes; ``interrupt`` is its INTA."""

    def __init__(
        self,
        name: str,
        memory: GuestMemory,
        port: NetworkPort,
        address: bytes,
        interrupt: InterruptLine,
        time: VirtualTime,
    ) -> None:
        self._memory, self._port, self._interrupt, self._time = memory, port, interrupt, time
        words = struct.unpack("<3H", address)
        self._eeprom = Eeprom93c46([0x8129, VENDOR, DEVICE, VENDOR, DEVICE, 0, 0, *words])
        self._own_address = address
        self._registers = Registers()
        self._receive_ring = ReceiveRing(memory, self._registers)
        self._buffer = ReceiveBuffer(memory, self._registers)
        self._transmit_rings = {
            Register.NORMAL_RING: TransmitRing(memory, self._registers, Register.NORMAL_RING),
            Register.HIGH_RING: TransmitRing(memory, self._registers, Register.HIGH_RING),
        }
        self._timer = time.timer(f"{name}.timer", self._timer_fired)
        bars = (Bar(0, SIZE, True, self), Bar(1, SIZE, False, self))
        identity = Identity(VENDOR, DEVICE, CLASS, REVISION, SUBSYSTEM_VENDOR, SUBSYSTEM)
        super().__init__(name, identity, bars, pin=1)
        port.accepts = self._accepts
        port.received = self._received
        self.reset()

    # ---- Stateful

    def reset(self) -> None:
        super().reset()
        self._eeprom.reset()
        self._level = False
        self._chip_reset()
        self._registers.put(Register.ADDRESS, 6, int.from_bytes(self._own_address, "little"))

    def _chip_reset(self) -> None:
        """The driver's: everything but the address and the EEPROM."""
        address = self._registers.get(Register.ADDRESS, 6)
        self._registers.reset()
        self._registers.put(Register.ADDRESS, 6, address)
        self._receive_ring.index = 0
        for ring in self._transmit_rings.values():
            ring.index = 0
            ring.begin()
        self._sent = self._taken = 0
        self._timer_start = 0  # ns
        self._deadline: int | None = None

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "registers": bytes(self._registers.bytes),
            "eeprom": self._eeprom.state(),
            "receive_index": self._receive_ring.index,
            "transmit": [
                {"index": ring.index, "parts": ring.parts, "flags": ring.flags, "tag": ring.tag}
                for ring in self._transmit_rings.values()
            ],
            "sent": self._sent,
            "taken": self._taken,
            "timer_start": self._timer_start,
            "deadline": self._deadline,
            "level": self._level,
        }

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._registers.bytes[:] = state["registers"]
        self._eeprom.restore(state["eeprom"])
        self._receive_ring.index = state["receive_index"]
        for ring, saved in zip(self._transmit_rings.values(), state["transmit"], strict=True):
            ring.index, ring.parts, ring.flags, ring.tag = (
                saved["index"],
                saved["parts"],
                saved["flags"],
                saved["tag"],
            )
        self._sent, self._taken = state["sent"], state["taken"]
        self._timer_start, self._deadline = state["timer_start"], state["deadline"]
        self._level = state["level"]

    # ---- the driver

    def read(self, offset: int, size: int) -> int:
        registers = self._registers
        if offset <= Register.COMMAND < offset + size:
            enabled = registers.get(Register.COMMAND, 1) & ~Command.BUFFER_EMPTY
            registers.put(Register.COMMAND, 1, enabled | (Command.BUFFER_EMPTY if self._buffer.is_empty else 0))
        elif offset == Register.EEPROM:
            wires = registers.get(Register.EEPROM, 1) & ~EEPROM_OUT
            registers.put(Register.EEPROM, 1, wires | (EEPROM_OUT if self._eeprom.data_out else 0))
        elif offset == Register.TIMER_COUNT:
            registers.put(Register.TIMER_COUNT, 4, self._timer_count())
        elif offset == Register.TRANSMIT_SUMMARY:
            registers.put(Register.TRANSMIT_SUMMARY, 2, self._summary())
        return registers.get(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        registers = self._registers
        unlocked = registers.get(Register.EEPROM, 1) & EEPROM_MODE == MODE_CONFIG
        writable = _UNLOCKED if unlocked else _FREE
        for at, byte in enumerate(value.to_bytes(size, "little"), offset):
            if at >= SIZE:
                return
            if Register.INTERRUPT_STATUS <= at < Register.INTERRUPT_STATUS + 2:
                registers.bytes[at] &= ~byte  # seen
            else:
                registers.bytes[at] = registers.bytes[at] & ~writable[at] | byte & writable[at]
        self._act(offset, offset + size, value)
        self._update()

    def _act(self, start: int, end: int, value: int) -> None:
        """What follows from a write to the bytes ``start`` … ``end`` - 1."""
        registers = self._registers
        if start <= Register.COMMAND < end and value >> 8 * (Register.COMMAND - start) & Command.RESET:
            self._chip_reset()
        elif start <= Register.EEPROM < end:
            self._move_wires(registers.get(Register.EEPROM, 1))
        elif start <= Register.POLL < end:
            self._poll(value >> 8 * (Register.POLL - start) & 0xFF)
        elif start == Register.TIMER_COUNT:
            self._timer_start = self._time.now_ns()
            self._set_timer()
        elif start == Register.TIMER_LIMIT:
            self._set_timer()
        elif start == Register.MISSED:
            registers.put(Register.MISSED, 4, 0)
        elif start == Register.TRANSMIT_CONFIG:
            registers.put(Register.TRANSMIT_CONFIG, 4, registers.get(Register.TRANSMIT_CONFIG, 4) | VERSION)
        elif start == Register.RECEIVE_BUFFER:
            registers.put(Register.WRITE_POINTER, 2, 0)
        elif start == Register.RECEIVE_RING:
            self._receive_ring.index = 0
        elif start in self._transmit_rings and self._c_plus & CPlus.TRANSMIT:
            ring = self._transmit_rings[Register(start)]
            ring.index = 0
            ring.begin()
        elif Register.TRANSMIT_STATUS <= start < Register.TRANSMIT_ADDRESS:
            self._transmit_or_dump(start)

    @property
    def _c_plus(self) -> int:
        return self._registers.get(Register.C_PLUS_COMMAND, 2)

    @property
    def _command(self) -> int:
        return self._registers.get(Register.COMMAND, 1)

    def _move_wires(self, wires: int) -> None:
        mode = wires & EEPROM_MODE
        if mode == MODE_LOAD:
            words = self._eeprom.words[7:10]
            self._registers.bytes[:6] = struct.pack("<3H", *words)
            self._registers.put(Register.EEPROM, 1, 0)
        elif mode != MODE_CONFIG:
            self._eeprom.set_wires(bool(wires & EEPROM_SELECT), bool(wires & EEPROM_CLOCK), bool(wires & EEPROM_IN))

    # ---- interrupts and the timer

    def _raise(self, reason: Interrupt) -> None:
        self._registers.put(
            Register.INTERRUPT_STATUS, 2, self._registers.get(Register.INTERRUPT_STATUS, 2) | int(reason)
        )
        self._update()

    def _update(self) -> None:
        wanted = self._registers.get(Register.INTERRUPT_STATUS, 2) & self._registers.get(Register.INTERRUPT_MASK, 2)
        level = bool(wanted) and not self.command & COMMAND_NO_INTERRUPT
        if level != self._level:
            self._level = level
            self._interrupt.set(level)

    def config_read(self, offset: int, size: int) -> int:
        value = super().config_read(offset, size)
        if offset <= STATUS < offset + size and self._level:
            value |= STATUS_INTERRUPT << 8 * (STATUS - offset)
        return value

    def config_written(self, offset: int, size: int) -> None:
        self._update()

    def _timer_count(self) -> int:
        return (self._time.now_ns() - self._timer_start) * TIMER_HZ // SECOND_NS & 0xFFFF_FFFF

    def _set_timer(self) -> None:
        """An interrupt when the count comes to the limit; a limit of zero is none."""
        limit = self._registers.get(Register.TIMER_LIMIT, 4)
        missing = limit - self._timer_count()
        if not limit or missing <= 0:
            self._deadline = None
            self._timer.cancel()
        else:
            self._deadline = self._timer_start - (-limit * SECOND_NS // TIMER_HZ)
            self._timer.arm(self._deadline)

    def _timer_fired(self) -> None:
        # one that was armed before a reset says nothing
        if self._deadline is not None and self._time.now_ns() >= self._deadline:
            self._deadline = None
            self._raise(Interrupt.TIMEOUT)

    # ---- towards the network

    def _transmit_or_dump(self, start: int) -> None:
        registers = self._registers
        if not self._c_plus & CPlus.TRANSMIT:
            if start % 4 == 0:
                self._transmit_plain((start - Register.TRANSMIT_STATUS) // 4)
        elif start == Register.TALLY and registers.get(Register.TALLY, 1) & TALLY_DUMP:
            where = registers.get(Register.TALLY, 8) & ~0x3F
            counts = _TALLY.pack(self._sent, self._taken, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
            self._dma(lambda: self._memory.write(where, counts))
            registers.put(Register.TALLY, 1, registers.get(Register.TALLY, 1) & ~TALLY_DUMP)

    def _dma(self, do: Any) -> Any:
        """What ``do`` gives; None if the function may not reach memory, or reached for what is none."""
        if not self.is_master:
            return None
        try:
            return do()
        except DmaError:
            self._raise(Interrupt.SYSTEM_ERROR)
            return None

    def _transmit_plain(self, number: int) -> None:
        registers, at = self._registers, Register.TRANSMIT_STATUS + 4 * number
        status = registers.get(at, 4)
        if status & SENT_OWN or not self._command & Command.TRANSMIT:
            return
        size = status & 0x1FFF
        where = registers.get(Register.TRANSMIT_ADDRESS + 4 * number, 4)
        frame = self._dma(lambda: self._memory.read(where, size)) if 0 < size <= MOST_PLAIN else b""
        if frame is None:
            return
        registers.put(at, 4, status | SENT_OWN | SENT_OK)
        self._send([frame])

    def _summary(self) -> int:
        """Of the four transmit status registers: whose turn, and which went well."""
        found = 0
        for number in range(4):
            status = self._registers.get(Register.TRANSMIT_STATUS + 4 * number, 4)
            found |= bool(status & SENT_OWN) << number | bool(status & SENT_OK) << 12 + number
        return found

    def _poll(self, what: int) -> None:
        if what & Poll.SOFTWARE_INTERRUPT:
            self._raise(Interrupt.SOFTWARE)
        if not (self._command & Command.TRANSMIT and self._c_plus & CPlus.TRANSMIT):
            return
        for bit, register in ((Poll.HIGH, Register.HIGH_RING), (Poll.NORMAL, Register.NORMAL_RING)):
            if what & bit and (frames := self._dma(self._transmit_rings[register].take)):
                self._send(frames)

    def _send(self, frames: list[bytes]) -> None:
        loops = self._registers.get(Register.TRANSMIT_CONFIG, 4) & LOOPBACK == LOOPBACK
        for frame in frames:
            if not HEADER_BYTES <= len(frame) <= MOST_BYTES:
                continue
            self._sent += 1
            if not loops:
                self._port.send(frame)
            elif self._accepts(frame):
                self._received(frame)
        self._raise(Interrupt.SENT)

    # ---- from the network

    def _place(self) -> ReceiveRing | ReceiveBuffer:
        return self._receive_ring if self._c_plus & CPlus.RECEIVE else self._buffer

    def _accepts(self, frame: bytes) -> bool:
        if not self._command & Command.RECEIVE or not self.is_master or self._kind(frame) is None:
            return True
        try:
            return self._place().has_room(frame)
        except DmaError:
            return True

    def _received(self, frame: bytes) -> None:
        kind = self._kind(frame)
        if not self._command & Command.RECEIVE or not self.is_master or kind is None:
            return
        place = self._place()
        taken = self._dma(lambda: place.put(frame, kind))
        if taken:
            self._taken += 1
            self._raise(Interrupt.RECEIVED)
        elif taken is False:
            missed = self._registers.get(Register.MISSED, 4)
            self._registers.put(Register.MISSED, 4, missed + 1 & 0xFF_FFFF)
            self._raise(Interrupt.OVERFLOW)

    def _kind(self, frame: bytes) -> Kind | None:
        """None: it is not wanted."""
        if not HEADER_BYTES <= len(frame) <= MOST_BYTES:
            return None
        wanted, target = self._registers.get(Register.RECEIVE_CONFIG, 4), frame[:6]
        if target == BROADCAST:
            kind, bit = Kind(broadcast=True), Receive.BROADCAST
        elif target[0] & 1:
            filtered = self._registers.get(Register.MULTICAST, 8) >> _multicast_bit(target) & 1
            kind, bit = Kind(multicast=True), Receive.MULTICAST if filtered else Receive(0)
        elif target == self._registers.bytes[:6]:
            kind, bit = Kind(own=True), Receive.OWN
        else:
            kind, bit = Kind(), Receive(0)
        return kind if wanted & (bit | Receive.ALL) else None
