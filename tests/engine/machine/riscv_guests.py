"""Small programs for the riscv board, in S-mode on the built-in firmware and in M-mode without one."""

from __future__ import annotations

from collections.abc import Callable

from tests.engine.cpu.riscv64_assembler import (
    ECALL,
    MRET,
    SRET,
    WFI,
    add,
    addi,
    branch,
    code,
    csrr,
    csrsi,
    csrw,
    jal,
    load,
    load_constant,
    slli,
    store,
)
from timevm.engine.cpu.sbi import Extension

ZERO, T0, T1, T2, A0, A1, A6, A7, S0, S1, S2 = 0, 5, 6, 7, 10, 11, 16, 17, 8, 9, 18
UART, CLINT, PLIC, TEST = 0x1000_0000, 0x0200_0000, 0x0C00_0000, 0x0010_0000
#: of the ``load`` and ``store`` helpers: bytes, words, double words
BYTE, WORD, DOUBLE, BYTE_UNSIGNED = 0, 2, 3, 4
EQUAL, NOT_EQUAL = 0, 1
UART_SOURCE = 10
#: between two timer interrupts: 1 ms
TICKS = 10_000


class Program:
    """Instructions in a row with labels; a jump, of four bytes, is resolved when all places are known."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, int | tuple[str, Callable[[int], int]]]] = []
        self._end = 0
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        self._labels[name] = self._end

    def offset(self, name: str) -> int:
        """Bytes from the start."""
        return self._labels[name]

    def put(self, *instructions: int) -> None:
        for bits in instructions:
            self._parts.append((self._end, bits))
            self._end += 4 if bits & 3 == 3 else 2

    def jump(self, name: str, make: Callable[[int], int] = lambda offset: jal(ZERO, offset)) -> None:
        self._parts.append((self._end, (name, make)))
        self._end += 4

    def constant(self, register: int, value: int) -> None:
        self.put(*load_constant(register, value))

    def write(self, address: int, value: int, kind: int = WORD) -> None:
        self.constant(T0, address)
        self.constant(T1, value)
        self.put(store(T1, T0, 0, kind))

    def call(self, extension: int, function: int = 0) -> None:
        """Arguments are in their registers; changes a6 and a7, and what the firmware answers."""
        self.constant(A7, extension)
        self.put(addi(A6, ZERO, function), ECALL)

    def assembled(self) -> bytes:
        words = []
        for place, part in self._parts:
            if isinstance(part, tuple):
                name, make = part
                words.append(make(self._labels[name] - place))
            else:
                words.append(part)
        return code(*words)


def _next_tick(program: Program) -> None:
    program.put(csrr(A0, "time"))
    program.constant(T0, TICKS)
    program.put(add(A0, A0, T0))
    program.call(Extension.TIME)


def supervisor(base: int) -> bytes:
    """Prints ``r``, then ``t`` each millisecond, and echoes what is typed; ``q`` powers off, ``b`` boots again."""
    program = Program()
    program.jump("start")
    program.label("handler")
    program.put(csrr(S0, "scause"), slli(S0, S0, 1), addi(T1, ZERO, 10))
    program.jump("external", lambda offset: branch(NOT_EQUAL, S0, T1, offset))
    program.constant(T0, UART)
    program.put(addi(T1, ZERO, ord("t")), store(T1, T0, 0, BYTE))
    _next_tick(program)
    program.put(SRET)
    program.label("external")
    program.constant(S1, PLIC + 0x20_1004)
    program.put(load(S2, S1, 0, WORD))
    program.constant(T0, UART)
    program.put(load(S0, T0, 0, BYTE_UNSIGNED), store(S0, T0, 0, BYTE), store(S2, S1, 0, WORD))
    program.put(addi(A0, ZERO, 0), addi(A1, ZERO, 0), addi(T1, ZERO, ord("q")))
    program.jump("reset", lambda offset: branch(EQUAL, S0, T1, offset))
    program.put(addi(A0, ZERO, 1), addi(T1, ZERO, ord("b")))
    program.jump("reset", lambda offset: branch(EQUAL, S0, T1, offset))
    program.put(SRET)
    program.label("reset")
    program.call(Extension.SRST)
    program.label("start")
    program.constant(T0, base + 4)
    program.put(csrw("stvec", T0))
    program.write(PLIC + 4 * UART_SOURCE, 1)
    program.write(PLIC + 0x2080, 1 << UART_SOURCE)
    program.write(UART + 1, 1, BYTE)
    program.constant(T0, 1 << 5 | 1 << 9)
    program.put(csrw("sie", T0))
    _next_tick(program)
    program.write(UART, ord("r"), BYTE)
    program.put(csrsi("sstatus", 2))
    program.label("idle")
    program.put(WFI)
    program.jump("idle")
    return program.assembled()


def machine(base: int, finish: int) -> bytes:
    """In M-mode: software and timer interrupt through the CLINT print ``s`` and ``m``; then it writes ``finish``."""
    program = Program()
    program.jump("start")
    program.label("handler")
    program.put(csrr(S0, "mcause"), slli(S0, S0, 1), addi(T1, ZERO, 6))
    program.jump("timer", lambda offset: branch(NOT_EQUAL, S0, T1, offset))
    program.write(CLINT, 0)
    program.write(UART, ord("s"), BYTE)
    program.put(MRET)
    program.label("timer")
    program.write(UART, ord("m"), BYTE)
    program.write(TEST, finish)
    program.label("stop")
    program.jump("stop")
    program.label("start")
    program.constant(T0, base + 4)
    program.put(csrw("mtvec", T0))
    program.constant(T0, 1 << 3 | 1 << 7)
    program.put(csrw("mie", T0))
    program.constant(T0, CLINT + 0xBFF8)
    program.put(load(T1, T0, 0, DOUBLE), addi(T1, T1, 2000))
    program.constant(T0, CLINT + 0x4000)
    program.put(store(T1, T0, 0, DOUBLE))
    program.write(CLINT, 1)
    program.put(csrsi("mstatus", 8))
    program.label("idle")
    program.put(WFI)
    program.jump("idle")
    return program.assembled()
