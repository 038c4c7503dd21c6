"""Random x86 programs: made from a seed, run in user mode under a small kernel that logs every fault and goes on.

A program is a row of chunks.  A fault of any kind is logged (vector, error code, address, flags, CR2, a checksum of the
registers) and execution goes on at the next chunk, so that programs may consist of anything; the kernel's pages are not
accessible to them, two pages of their data are read-only, and behind RAM 2 MiB of nothing are mapped.  A few
interrupts come at random.
``python -m tests.engine.cpu.x86_random MODE FIRST COUNT`` runs many.
"""

from __future__ import annotations

import random
import sys
from functools import lru_cache
from typing import Any

from tests.engine.cpu.x86_assembler import link
from tests.engine.cpu.x86_board import CODE, LONG_MODE, Board
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

WITH_ERROR_CODE = (8, 10, 11, 12, 13, 14, 17)
STUBS = "\n".join(
    f".balign 16\nstub{vector}: {'nop; nop' if vector in WITH_ERROR_CODE else 'push 0'}\n push {vector}\n jmp common"
    for vector in range(32)
)
KERNEL = (
    LONG_MODE.replace(
        "    .quad 0\ntss:", "    .quad 0\n    .quad 0x0000fb200000ffff, 0x0000f3280000ffff\ntss:"
    ).replace(
        "mov [edi], eax\n    add eax, 0x200000",
        "mov [edi], eax\n    add eax, 0x200000\n    cmp edi, 0x6008\n    jbe 2f\n    xor eax, eax\n2:",
    )
    + """
    mov dword ptr [0x6000], 0x83
    mov dword ptr [0x6008], 0x9007
    mov edi, 0x9000
    mov eax, 0x200007
6:  mov [rdi], eax
    add eax, 0x1000
    add edi, 8
    cmp edi, 0xa000
    jne 6b
    mov dword ptr [0x9000 + 8 * 0x84], 0x284005
    mov dword ptr [0x9000 + 8 * 0x83], 0x283005
    mov rax, cr3
    mov cr3, rax
    mov ebx, 0x8000
    lea rcx, [rip + stub0]
    lea rdx, [rip + stub1]
    sub rdx, rcx
    xor edi, edi
3:  mov rax, rcx
    mov [rbx], ax
    mov word ptr [rbx + 2], 8
    mov word ptr [rbx + 4], 0x8e00
    cmp edi, 3
    je 5f
    cmp edi, 4
    jne 4f
5:  mov word ptr [rbx + 4], 0xee00
4:  shr rax, 16
    mov [rbx + 6], ax
    mov dword ptr [rbx + 8], 0
    mov dword ptr [rbx + 12], 0
    add ebx, 16
    add rcx, rdx
    inc edi
    cmp edi, 32
    jne 3b
    lea rax, [rip + irq]
    mov ebx, 0x8400
    mov [rbx], ax
    mov word ptr [rbx + 2], 8
    mov word ptr [rbx + 4], 0x8e00
    shr rax, 16
    mov [rbx + 6], ax
    mov dword ptr [rbx + 8], 0
    mov rax, 0x600
    mov rcx, cr4
    or rax, rcx
    mov cr4, rax
    jmp start
.balign 16
"""
    + STUBS
    + """
common:
    push rax
    push rbx
    mov rbx, [chunk + 8]
    mov rax, [rsp + 16]
    mov [rbx], rax
    mov rax, [rsp + 24]
    mov [rbx + 8], rax
    mov rax, [rsp + 32]
    mov [rbx + 16], rax
    mov rax, [rsp + 48]
    mov [rbx + 24], rax
    mov rax, cr2
    mov [rbx + 32], rax
    mov rax, [rsp]
    xor rax, [rsp + 8]
    xor rax, rcx
    add rax, rdx
    xor rax, rsi
    add rax, rdi
    xor rax, rbp
    add rax, [rsp + 56]
    xor rax, r8
    add rax, r9
    xor rax, r10
    add rax, r15
    mov [rbx + 40], rax
    fninit
    add ebx, 64
    and ebx, 0x1fffff
    or ebx, 0x180000
    mov [chunk + 8], rbx
    mov rax, [chunk]
    inc eax
    and eax, 15
    mov [chunk], rax
    shl eax, 6
    add eax, [place_of_code]
    mov [rsp + 32], rax
    mov eax, [selector]
    mov [rsp + 40], rax
    mov dword ptr [rsp + 48], 0x202
    mov eax, [end_of_stack]
    mov [rsp + 56], rax
    mov eax, [data_selector]
    mov [rsp + 64], rax
    mov ds, eax
    mov es, eax
    pop rbx
    pop rax
    mov ebx, [place_of_data]
    lea esi, [rbx + 0x1000]
    lea edi, [rbx + 0x2000]
    lea ebp, [rbx + 0x3000]
    lea ebx, [rbx + 0x4000]
    add rsp, 16
    iretq
irq:
    push rax
    mov rax, [rsp + 8]
    add rax, [rsp + 24]
    xor [interrupted], rax
    rol qword ptr [interrupted], 7
    pop rax
    iretq
.balign 16
interrupted: .quad 0
chunk: .quad 0, 0x180000
selector: .quad 0
data_selector: .quad 0
place_of_code: .quad 0
place_of_data: .quad 0
end_of_stack: .quad 0
start:
    mov eax, [data_selector]
    mov ds, eax
    mov es, eax
    push rax
    mov eax, [end_of_stack]
    push rax
    push 0x202
    mov eax, [selector]
    push rax
    mov eax, [place_of_code]
    push rax
    fninit
    mov ebx, [place_of_data]
    lea esi, [rbx + 0x1000]
    lea edi, [rbx + 0x2000]
    lea ebp, [rbx + 0x3000]
    lea ebx, [rbx + 0x4000]
    iretq
"""
)
for name in ("chunk", "interrupted", "selector", "data_selector", "place_of_code", "place_of_data", "end_of_stack"):
    KERNEL = KERNEL.replace(f"[{name}", f"[rip + {name}")


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


def instruction(rng: random.Random, mode: str) -> bytes:
    wide = mode != "16"
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
        """To ``limit`` or the next interrupt.  Where it got to."""
        board = self.board
        while self.interrupts and board.cpu.icount >= self.interrupts[0]:
            self.interrupts.pop(0)
            board.cpu.set_interrupt("intr", True)
        stop = board.run(min([limit, *self.interrupts[:1]]))
        return stop.icount if stop.kind is StopKind.LIMIT else limit

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
            pass
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
