"""What the tests of the x86 CPU have in common: small programs in 64-bit mode, run whole and in slices."""

from __future__ import annotations

from typing import Any

from tests.engine.cpu.device import COUNTER
from tests.engine.cpu.x86_assembler import assemble, link
from tests.engine.cpu.x86_board import CODE, DATA, DEVICE, END, LONG_MODE, PORTS, VECTOR, Board, gate
from timevm.engine.cpu.base import Stop, StopKind

STEPS = (1, 2, 3, 17)


def long_mode(body: str, tail: str = "") -> bytes:
    """``body`` in 64-bit mode, then the end of the run; ``tail`` behind it (handlers)."""
    return assemble(LONG_MODE + body + END + tail, CODE)


def instructions(program: bytes) -> int:
    """How many instructions LONG_MODE takes before the body."""
    board = Board(program)
    board.cpu.set_breakpoints(frozenset({CODE + len(long_mode("")) - len(assemble(END))}))
    return board.run().icount


ENTRY = instructions(long_mode(""))


def run(program: bytes, **options: Any) -> tuple[Board, Stop]:
    """At full speed, and sliced into pieces of several sizes: all alike, to the last bit."""
    board = Board(program, **options)
    stop = board.run(1_000_000)
    expected = board.fingerprint()
    for step in STEPS:
        other = Board(program, **options)
        while (again := other.cpu.run(min(1_000_000, other.cpu.icount + step))).kind is StopKind.LIMIT:
            if again.icount == 1_000_000:
                break
        assert (again, other.fingerprint()) == (stop, expected), f"{step} at a time"
    return board, stop


def registers(board: Board, *names: str) -> list[int]:
    return [board.cpu.read_register(name) for name in names]


BUSY = long_mode(
    gate(VECTOR, "irq")
    + f"""
    sti
    mov rbx, {DEVICE}
    mov rsi, {DATA}
    mov edx, {PORTS}
    mov ecx, 30
again:
    add r8, 3
    mov dword ptr [rbx], 1
    xor r9, r8
    mov [rsi + 8], r9
    mov eax, [rbx + {COUNTER}]
    bt r9, 5
    setc [rsi + 16]
    lea r10, [r10 + rax + 1]
    mov al, 1
    out dx, al
    add r11, r10
    add rsi, 24
    loop again
    """,
    "irq: inc r12\n xor r13, [rsp]\n iretq",
)


def faulting(body: str, vector: int, *, error_code: bool = False) -> tuple[Board, Stop, int]:
    """Run ``body`` with a handler that keeps what was pushed in r8… and ends; also returns the handler's count."""
    keep = "pop r15\n" if error_code else ""
    handler = keep + "pop r8\n pop r9\n pop r10\n pop r11\n pop r12\n mov r14, cr2\n" + END
    board, stop = run(long_mode(gate(vector, "handler") + body, "handler: " + handler))
    assert stop.kind is StopKind.POWER_OFF
    return board, stop, 6 + error_code + 3


GATE = 8  # instructions of one gate()


def place_of(body: str, label: str) -> int:
    """Address of a label of the body."""
    return link(LONG_MODE + body + END + "handler: irq: denied: service: finish: entry: done: nop", CODE)[1][label]


USER = """
    push 0x23
    push 0x2f0000
    pushfq
    push 0x2b
    lea rax, [rip + user]
    push rax
    iretq
user:
"""

#: 32-bit protected mode with a stack; GDT: 8 code, 16 data, 0x1b user code, 0x23 user data
PROTECTED_MODE = """
.code32
    lgdt [gdt_pointer]
    ljmp 8, offset entered
.balign 8
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
entered:
    mov ax, 16
    mov ss, ax
    mov ds, ax
    mov es, ax
    mov esp, 0x300000
"""
