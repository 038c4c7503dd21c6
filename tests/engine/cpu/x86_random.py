"""Random x86 programs: made from a seed, run in user mode under a small kernel that logs every fault and goes on.

A program is a row of chunks.  A fault of any kind is logged (vector, error code, address, flags, CR2, a checksum of the
registers) and execution goes on at the next chunk, so that programs may consist of anything; the kernel's pages are not
accessible to them, two pages of their data are read-only, and behind RAM 2 MiB of nothing are mapped.  The table of
their data is, too, and they change it without an invalidation.  A few interrupts come at random.
``python -m tests.engine.cpu.x86_random MODE FIRST COUNT`` runs many.
"""

from __future__ import annotations

import random
import sys
from functools import lru_cache
from typing import Any

from tests.engine.cpu.x86_assembler import link
from tests.engine.cpu.x86_board import CODE, FOREVER, Board
from tests.engine.cpu.x86_random_kernel import KERNEL, WITH_ERROR_CODE
from timevm.engine.cpu.base import StopKind

USER_CODE, USER_DATA, USER_STACK = 0x20_0000, 0x28_0000, 0x3F_0000
CHUNK, CHUNKS = 64, 16
LOG = 0x18_0000
#: of the user program: selectors of code and data, address of its code and data in them, end of its stack
MODES = {
    "64": (0x2B, 0x23, USER_CODE, USER_DATA, USER_STACK),
    "32": (0x1B, 0x23, USER_CODE, USER_DATA, USER_STACK),
    "16": (0x43, 0x4B, 0, 0, 0xF000),
}
LENGTH = 500  # instructions of a run, the kernel's included


def _operand(rng: random.Random, wide: bool) -> bytes:
    """ModRM, SIB, displacement: mostly a register or memory near the pointers."""
    reg = rng.randrange(8) << 3
    choice = rng.random()
    if choice < 0.4:
        return bytes([0xC0 | reg | rng.randrange(8)])
    base = rng.choice((3, 5, 6, 7)) if rng.random() < 0.9 else rng.choice((0, 1, 2))
    if choice < 0.75:
        return bytes([0x40 | reg | base, rng.randrange(256)])
    if choice < 0.85 and wide:
        return bytes([0x44 | reg, rng.choice((0x23, 0x25, 0x26, 0x27)), rng.randrange(256)])  # no index
    if choice < 0.93:
        return bytes([0x80 | reg | base]) + rng.randrange(0x2000).to_bytes(4, "little")
    if choice < 0.97:
        return bytes([0x40 | reg | 4, rng.randrange(256), rng.randrange(256)])
    return bytes([0x05 | reg]) + rng.randrange(0x400).to_bytes(4, "little")  # rip-relative, or absolute


def _immediate(rng: random.Random, size: int) -> bytes:
    value = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.getrandbits(32)))
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


TWO_BYTE = (
    *range(0x10, 0x18), *range(0x28, 0x30), *range(0x40, 0x70), *range(0x71, 0x77), 0x7E, 0x7F, *range(0x90, 0xA0),
    0xA3, 0xA4, 0xA5, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF, 0xB0, 0xB1, 0xB3, 0xB6, 0xB7, *range(0xBA, 0xC3),
    *range(0xC4, 0xC8), *range(0xD1, 0x100),
)  # fmt: skip
IMMEDIATE_TWO_BYTE = frozenset((0x70, 0x71, 0x72, 0x73, 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6))
FLAG_WRITERS = (0x00, 0x08, 0x10, 0x18, 0x28, 0x30, 0x38)


#: of the low bytes of an entry, what may change: presence, rights, marks of use, the frame's lowest bit
CHANGES = (0x01, 0x02, 0x04, 0x20, 0x40, 0x60, 0x1000, 0x1020, 0x1060)


def table_change(rng: random.Random, mode: str) -> bytes:
    """Of the entry of one of the data's first five pages, at 0x400 in the page of tables, 0xF000 behind the data."""
    base, size = MODES[mode][3] + 0xF400 + 8 * rng.randrange(5), rng.choice((1, 2, 4))
    wide = mode != "16"
    kind, bits = rng.randrange(5), rng.choice(CHANGES)
    shift = rng.choice((0, 0, 8)) if size > 1 else 8 if bits > 0x1000 and rng.random() < 0.5 else 0

    def absolute(opcode: bytes, reg: int) -> bytes:
        at = base + (-1 if shift and size > 1 else 1 if shift else 0)
        if mode == "64":
            return opcode + bytes([reg << 3 | 4, 0x25]) + at.to_bytes(4, "little")
        return opcode + bytes([reg << 3 | (5 if wide else 6)]) + at.to_bytes(4 if wide else 2, "little")

    def sized(opcode: int) -> bytes:
        """By the size of an operand."""
        return (b"\x66" if size != 1 and (size == 2) == wide else b"") + bytes([opcode | (size > 1)])

    value = (bits << shift if size > 1 else bits >> shift) & (1 << 8 * size) - 1
    if kind == 0:  # xor [entry], bits
        return absolute(sized(0x80), 6) + value.to_bytes(size, "little")
    if kind == 1:
        return b"\xf0" + absolute(sized(0x80), 6) + value.to_bytes(size, "little")
    # mov eax, [entry]; xor eax, bits; mov or xchg [entry], eax
    load, change = absolute(sized(0x8A), 0), sized(0x34) + value.to_bytes(size, "little")
    return load + change + absolute(sized(0x88 if kind < 4 else 0x86), 0)


def instruction(rng: random.Random, mode: str) -> bytes:
    wide = mode != "16"
    if rng.random() < 0.03:
        return table_change(rng, mode)
    prefix = b""
    if rng.random() < 0.15:
        prefix += bytes([rng.choice((0x66, 0x66, 0xF2, 0xF3, 0xF0, 0x67, 0x64, 0x2E))])
    if mode == "64" and rng.random() < 0.4:
        prefix += bytes([0x40 | rng.choice((8, 8, 0, 4, 1, 9, 5, 12))])
    kind = rng.random()
    if kind < 0.22:
        return prefix + bytes([rng.choice(FLAG_WRITERS) | rng.randrange(4)]) + _operand(rng, wide)
    if kind < 0.30:
        group = rng.choice((0x80, 0x81, 0x83))
        size = 1 if group != 0x81 else 2 if b"\x66" in prefix and wide else 4 if wide else 2
        return prefix + bytes([group]) + _operand(rng, wide) + _immediate(rng, size)
    if kind < 0.38:
        shift = rng.choice((0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3))
        return prefix + bytes([shift]) + _operand(rng, wide) + (_immediate(rng, 1) if shift < 0xD0 else b"")
    if kind < 0.46:
        return (
            prefix
            + bytes([rng.choice((0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8B, 0x8D, 0xFE))])
            + _operand(rng, wide)
        )
    if kind < 0.52:
        group = rng.choice((0xF6, 0xF7))
        operand = _operand(rng, wide)
        tests = operand[0] >> 3 & 7 < 2
        return prefix + bytes([group]) + operand + (_immediate(rng, 1 if group == 0xF6 else 4) if tests else b"")
    if kind < 0.56:
        repeat = rng.choice((b"", b"\xf3", b"\xf2"))
        rex = b"\x48" if mode == "64" and rng.random() < 0.3 else b""
        count = b"\xb9" + rng.randrange(12).to_bytes(4 if wide else 2, "little")  # mov ecx, n
        return count + repeat + rex + bytes([rng.choice((0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF))])
    if kind < 0.60:
        return bytes([0x70 | rng.randrange(16), rng.randrange(24)])  # jcc forward
    if kind < 0.64:
        return prefix + bytes([rng.choice((0x50, 0x58)) | rng.randrange(8)])
    if kind < 0.68:
        return bytes([rng.choice((0x9C, 0x9D, 0x9E, 0x9F, 0xF5, 0xF8, 0xF9, 0xFC, 0xFD, 0x98, 0x99, 0x90, 0xCC, 0xC9))])
    if kind < 0.72:
        return bytes([0xD8 | rng.randrange(8)]) + _operand(rng, wide)
    if kind < 0.96:
        opcode = rng.choice(TWO_BYTE)
        sse = bytes([rng.choice((0x66, 0xF2, 0xF3))]) if rng.random() < 0.4 else b""
        tail = _immediate(rng, 1) if opcode in IMMEDIATE_TWO_BYTE else b""
        return sse + prefix + bytes([0x0F, opcode]) + _operand(rng, wide) + tail
    return rng.randbytes(rng.randrange(1, 8))


@lru_cache(1)
def program(seed: int, mode: str) -> bytes:
    rng = random.Random(seed * 4 + len(mode))
    chunks = []
    for _ in range(CHUNKS):
        chunk = b""
        while len(chunk) < CHUNK - 12:
            chunk += instruction(rng, mode)
        chunks.append(chunk[:CHUNK].ljust(CHUNK, b"\x90"))
    return b"".join(chunks)


class Bench:
    """One board for many programs."""

    def __init__(self, mode: str, *, model: str = "max") -> None:
        kernel, labels = link(KERNEL, CODE)
        self.board = Board(kernel, model=model)
        self.mode = mode
        self.stubs = labels["stub0"]
        for number, value in enumerate(MODES[mode]):
            self.board.write(labels["selector"] + 8 * number, value.to_bytes(8, "little"))
        # the kernel's start, once: stop at the first user instruction
        self.board.cpu.set_breakpoints(frozenset({USER_CODE}))
        stop = self.board.run(100_000)
        assert stop.kind is StopKind.BREAKPOINT, stop
        self.board.cpu.set_breakpoints(frozenset())
        self.start = self.board.cpu.state()
        self.memory = bytes(self.board.memory)

    def begin(self, seed: int) -> None:
        """Stand before the first instruction of a program, with registers and data from its seed."""
        rng = random.Random(~seed)
        board = self.board
        board.memory[:] = self.memory
        board.device.reads = 0
        board.write(USER_CODE, program(seed, self.mode))
        board.write(USER_DATA, rng.randbytes(0x4000) + bytes(0x1000))
        board.cpu.restore(self.start)
        board.cpu.flush_translations()
        for name in ("rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"):
            value = rng.choice((rng.getrandbits(64), rng.getrandbits(8), USER_DATA + rng.getrandbits(12)))
            board.cpu.write_register(name, value)
        for n in range(8):
            board.cpu.write_register(f"xmm{n}", rng.getrandbits(128))
        #: icounts at which an interrupt is asked for
        self.interrupts = sorted(self.start["icount"] + rng.randrange(LENGTH) for _ in range(6))

    def result(self) -> tuple[Any, ...]:
        board = self.board
        names = [register.name for register in board.cpu.registers if register.group != "system"]
        state = board.cpu.state()
        return (
            {name: board.cpu.read_register(name) for name in names},
            state["context"],
            {key: value for key, value in state.items() if key != "context"},
            bytes(board.memory[LOG:]),
            bytes(board.memory[:LOG]),
        )

    def run(self, limit: int) -> int:
        """To ``limit`` or the next interrupt.  Where it got to; FOREVER: a triple fault has ended the program."""
        board = self.board
        while self.interrupts and board.cpu.icount >= self.interrupts[0]:
            self.interrupts.pop(0)
            board.cpu.set_interrupt("intr", True)
        stop = board.run(min([limit, *self.interrupts[:1]]))
        return stop.icount if stop.kind is StopKind.LIMIT else FOREVER

    def whole(self, seed: int) -> tuple[Any, ...]:
        self.begin(seed)
        end = self.start["icount"] + LENGTH
        while self.run(end) < end:
            pass
        return self.result()

    def sliced(self, seed: int, sizes: tuple[int, ...]) -> tuple[Any, ...]:
        self.begin(seed)
        rng = random.Random(seed)
        end = self.start["icount"] + LENGTH
        while self.run(min(end, self.board.cpu.icount + rng.choice(sizes))) < end:
            if rng.random() < 0.05:
                self.board.cpu.restore(self.board.cpu.state())
        return self.result()


#: where a fault leaves all general registers as they were
FAULTS = (0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19)
CONDITION_FLAGS = 0x8D5


def faults_are_clean(bench: Bench, seed: int) -> str:
    """Single-step a program: what a fault pushes are the flags before its instruction, and no register has changed."""
    bench.begin(seed)
    board = bench.board
    names = ("rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rax", "rbx")
    end = bench.start["icount"] + LENGTH
    while board.cpu.icount < end:
        flags, place = board.cpu.read_register("rflags"), board.cpu.read_register("rip")
        user = board.cpu.read_register("cs") & 3
        before = [board.cpu.read_register(name) for name in names]
        board.run(board.cpu.icount + 1)
        if not user or board.cpu.read_register("cs") & 3:
            continue
        vector = (board.cpu.read_register("rip") - bench.stubs) // 16
        if vector not in FAULTS:
            continue
        stack = board.cpu.read_register("rsp") + (8 if vector in WITH_ERROR_CODE else 0)
        pushed = board.number(stack + 16)
        after = [board.cpu.read_register(name) for name in names]
        if board.number(stack) != place:
            continue  # the next instruction could not be fetched
        if (pushed ^ flags) & CONDITION_FLAGS or after != before:
            return f"at {place:#x} vector {vector} flags {flags:#x} pushed {pushed:#x} at {board.number(stack):#x}"
    return ""


def differences(left: tuple[Any, ...], right: tuple[Any, ...]) -> str:
    """What differs, in a line; empty if nothing does."""
    found = [f"{name} {value:#x} {right[0][name]:#x}" for name, value in left[0].items() if value != right[0][name]]
    if left[1] != right[1]:
        found.append(f"context at {next(i for i in range(len(left[1])) if left[1][i] != right[1][i])}")
    if left[2] != right[2]:
        found.append(f"{left[2]} {right[2]}")
    for part, base in ((3, LOG), (4, 0)):
        if left[part] != right[part]:
            at = next(i for i in range(len(left[part])) if left[part][i] != right[part][i])
            found.append(f"memory at {base + at:#x}")
    return ", ".join(found)


def main() -> None:
    mode, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    bench = Bench(mode)
    bad = 0
    for seed in range(first, first + count):
        whole = bench.whole(seed)
        sizes = (1,) if seed % 3 == 0 else (1, 2, 3, 7, 20)
        found = differences(whole, bench.sliced(seed, sizes))
        if found:
            bad += 1
            print(f"{mode} seed {seed} {sizes}: {found}", flush=True)
        found = faults_are_clean(bench, seed) if seed % 50 == 0 else ""
        if found:
            bad += 1
            print(f"{mode} seed {seed}: {found}", flush=True)
        if seed % 1000 == 999:
            print(f"{mode} {seed + 1 - first} programs, {bad} differ", flush=True)
    print(f"{mode}: {count} programs from {first}, {bad} differ")


if __name__ == "__main__":
    main()
