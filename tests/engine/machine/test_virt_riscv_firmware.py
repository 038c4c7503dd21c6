"""What the riscv board does for its built-in firmware, asked as a guest asks: through the SBI's calls."""

from __future__ import annotations

from tests.engine.devices.wires import ManualTime, Wire
from timevm.engine.cpu.sbi import ALL, Error, Extension, Sbi, SbiOutcome
from timevm.engine.devices.base import DmaError
from timevm.engine.devices.uart16550 import Uart16550
from timevm.engine.machine.boards.virt_riscv_firmware import FirmwarePlatform

BASE, SIZE, TICK_NS = 0x8000_0000, 0x1000, 100


class Memory:
    """``GuestMemory``; the supervisor sees it at the same addresses."""

    def __init__(self) -> None:
        self.bytes = bytearray(SIZE)

    def read(self, address: int, size: int) -> bytes:
        if address < BASE or address + size > BASE + SIZE:
            raise DmaError("no RAM")
        return bytes(self.bytes[address - BASE : address - BASE + size])

    def write(self, address: int, data: bytes) -> None:
        self.read(address, len(data))
        self.bytes[address - BASE : address - BASE + len(data)] = data


class Rig:
    def __init__(self) -> None:
        self.memory, self.time = Memory(), ManualTime()
        self.software, self.timer, self.sent = Wire(), Wire(), b""
        self.uart = Uart16550("uart0", Wire(), self.send)
        self.platform = FirmwarePlatform(
            "sbi",
            software=self.software,
            timer=self.timer,
            time=self.time,
            tick_ns=TICK_NS,
            uart=self.uart,
            transmit=self.send,
            memory=self.memory,
            virtual=lambda address, size: bytes(self.memory.bytes[max(0, address - BASE) : address - BASE + size]),
        )
        self.sbi = Sbi(self.platform)

    def send(self, data: bytes) -> None:
        self.sent += data

    def call(self, extension: int, function: int = 0, a0: int = 0, a1: int = 0, a2: int = 0) -> SbiOutcome:
        return self.sbi(extension, function, (a0, a1, a2, 0, 0, 0))


def test_timer() -> None:
    rig = Rig()
    rig.time.advance(1000)
    rig.call(Extension.TIME, 0, 15)
    assert not rig.timer.level
    rig.time.advance(499)
    assert not rig.timer.level
    rig.time.advance(1)
    assert rig.timer.level
    rig.call(Extension.TIME, 0, 16)
    assert not rig.timer.level, "asking anew takes the interrupt back"
    rig.call(Extension.TIME, 0, 15)
    assert rig.timer.level, "a time that has passed interrupts at once"
    rig.call(Extension.SET_TIMER, 0, ALL)
    assert not rig.timer.level and rig.time.timers["sbi.timer"].deadline is None


def test_a_deadline_is_state() -> None:
    rig, other = Rig(), Rig()
    rig.call(Extension.TIME, 0, 20)
    other.platform.restore(rig.platform.state())
    assert other.platform.state() == rig.platform.state() and other.timer.calls == []
    other.time.now = 2000
    other.time.timers["sbi.timer"].fire()
    assert other.timer.level
    other.platform.reset()
    assert other.platform.state() == Rig().platform.state()


def test_software_interrupts() -> None:
    rig = Rig()
    rig.call(Extension.IPI, 0, 1, 0)
    assert rig.software.level
    rig.call(Extension.CLEAR_IPI)
    assert not rig.software.level


def test_output_in_order_with_the_uarts() -> None:
    rig = Rig()
    rig.memory.bytes[0:3] = b"abc"
    rig.uart.write(0, 1, ord("<"))
    assert rig.call(Extension.DBCN, 0, 3, BASE) == SbiOutcome(value=3)
    rig.call(Extension.CONSOLE_PUTCHAR, 0, ord(">"))
    assert rig.sent == b"<abc>"
    assert rig.call(Extension.DBCN, 0, 0, BASE) == SbiOutcome(value=0)
    assert rig.call(Extension.DBCN, 0, 2, BASE + SIZE - 1).error == Error.INVALID_PARAM


def test_input_comes_out_of_the_uart() -> None:
    rig = Rig()
    rig.uart.write(2, 1, 1)
    rig.uart.receive(b"typed")
    assert rig.call(Extension.CONSOLE_GETCHAR) == SbiOutcome(ord("t"), None)
    assert rig.call(Extension.DBCN, 1, 3, BASE + 8) == SbiOutcome(value=3)
    assert rig.call(Extension.DBCN, 1, 99, BASE + 16) == SbiOutcome(value=1)
    assert rig.call(Extension.CONSOLE_GETCHAR) == SbiOutcome(-1, None)
    assert rig.memory.bytes[8:11] + rig.memory.bytes[16:17] == b"yped"


def test_harts_in_virtual_memory() -> None:
    rig = Rig()
    rig.memory.bytes[0] = 1
    assert rig.call(Extension.SEND_IPI, 0, BASE) == SbiOutcome(value=None)
    assert rig.software.level
    assert rig.call(Extension.SEND_IPI, 0, BASE + SIZE - 4).error == Error.INVALID_ADDRESS
