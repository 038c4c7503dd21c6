"""Code that changes, and flags that Unicorn alone gets wrong (tests/unicorn_facts/test_x86.py shows how)."""

from __future__ import annotations

import pytest

from tests.engine.cpu.x86_assembler import assemble
from tests.engine.cpu.x86_board import (
    CODE,
    DATA,
    DEVICE,
    STACK,
    Board,
)
from tests.engine.cpu.x86_programs import ENTRY, faulting, long_mode, registers, run
from timevm.engine.cpu.base import StopKind


def test_a_store_into_its_own_block_happens_once() -> None:
    """The store replaces an instruction behind it in the same block."""
    body = """
    mov ecx, 5
1:  inc r8
    mov byte ptr [rip + patch + 3], 7
    inc r9
patch: add r10, 1
    add byte ptr [rip + counter], 1
    mov byte ptr [rip + patch + 3], 1
    loop 1b
    jmp on
counter: .quad 0
on: movzx r11, byte ptr [rip + counter]
    """
    board, stop = run(long_mode(body))
    assert registers(board, "r8", "r9", "r10", "r11") == [5, 5, 35, 5]
    assert stop.icount == ENTRY + 1 + 5 * 7 + 2 + 3


def test_code_written_through_another_mapping_is_seen() -> None:
    """0x10000000 is mapped to the page of `victim`; it is written, run and written again through both addresses."""
    body = """
    mov dword ptr [0x6400], 0x87 + 0x200000
    mov rbx, 0x10000000
    mov rdi, 0x200000
    mov dword ptr [rdi], 0xc3c0ff49
    mov ecx, 8
1:  call rdi
    mov byte ptr [rbx + 2], 0xc1
    call rdi
    mov byte ptr [rbx + 2], 0xc0
    mov byte ptr [rbx + 0x100], cl
    loop 1b
    """
    board, _ = run(long_mode(body))
    assert registers(board, "r8", "r9") == [8, 8]


def test_a_page_of_code_and_data_stays_exact_however_often_it_is_written() -> None:
    body = """
    mov ecx, 3000
1:  add dword ptr [rip + data], 1
    call victim
    add byte ptr [rip + victim + 3], 1
    loop 1b
    jmp on
victim: add r8, 1
    ret
data: .quad 0
on: mov r9d, [rip + data]
    """
    board = Board(long_mode(body))
    assert board.run().kind is StopKind.POWER_OFF
    total = sum((n % 256) - 256 * (n % 256 > 127) for n in range(1, 3001))
    assert registers(board, "r8", "r9") == [total % (1 << 64), 3000]
    other = Board(long_mode(body))
    other.run_stepwise(777)
    assert other.fingerprint() == board.fingerprint()


def test_code_changed_by_somebody_else() -> None:
    board = Board(long_mode("1: inc r8\n jmp 1b\n"))
    board.run(ENTRY + 100)
    place = board.read(CODE, 0x1000).index(assemble("inc r8"))
    board.write(CODE + place, assemble("inc r9"))
    board.cpu.code_changed(CODE + place, 3)
    before = board.cpu.read_register("r8")
    board.run(ENTRY + 200)
    assert registers(board, "r8", "r9") == [before, 50]


def test_the_flags_of_cmpxchg16b() -> None:
    body = f"""
    mov edi, {DATA}
    mov rsi, 0x1234567800454500
    mov rax, [rdi]
    mov rdx, [rdi + 8]
    add r9, rsi
    cmpxchg16b [rdi]
    pushfq
    pop r8
    """
    board, _ = run(long_mode(body))
    assert board.cpu.read_register("r8") == 0x46


@pytest.mark.parametrize(
    ("flags", "instruction"),
    [
        (f"cmp {left}, eax", f"{name} [rbx]")
        for left in ("ecx", "eax")
        for name in (
            "setz byte ptr",
            "setl byte ptr",
            "setb byte ptr",
            "seto byte ptr",
            "rcl dword ptr",
            "rcr word ptr",
        )
    ]
    + [("inc eax", "setp byte ptr [rbx]"), ("shl ecx, 3", "setle byte ptr [rbx]"), ("imul eax, ecx", "sets [rbx]")],
)
def test_flags_survive_a_store_that_faults(flags: str, instruction: str) -> None:
    operands = instruction if "," in instruction or instruction.startswith("set") else f"{instruction}, 1"
    body = f"mov eax, 0x80000005\n mov ecx, 3\n mov rbx, 0x1000000000\n {flags}\n pushfq\n {flags}\nhere: {operands}\n"
    if flags.startswith(("inc", "shl", "imul")):
        body = body.replace(f"{flags}\n pushfq\n {flags}\n", f"{flags}\n pushfq\n", 1)
    board, _, _ = faulting(body, 14, error_code=True)
    pushed_before = board.number(STACK - 8)
    assert board.cpu.read_register("r10") & 0x8D5 == pushed_before & 0x8D5


def test_undefined_flags_of_bit_tests_do_not_depend_on_the_block() -> None:
    tests = ("bt eax, 3", "bts ecx, 5", "btr edx, 1", "btc eax, ecx", "bt dword ptr [rbx], 7")
    body = f"mov ebx, {DATA}\n mov eax, 0x7fffffff\n mov ecx, 9\n" + "".join(
        f"add eax, {n + 0x7FFF_0000}\n {test}\n pushfq\n" for n, test in enumerate(tests)
    )
    run(long_mode(body))


def test_flags_survive_a_device_and_a_change_of_code() -> None:
    """SETcc to a device, and into its own block: both make Unicorn begin the instruction again."""
    body = f"""
    mov ebx, {DEVICE}
    mov eax, 5
    cmp eax, 7
    nop
    setl byte ptr [rbx + 8]
    pushfq
    cmp eax, 7
    setl [rip + patch + 3]
    pushfq
patch: add r8, 9
    """
    board, _ = run(long_mode(body))
    assert board.number(STACK - 8) & 0x8D5 == board.number(STACK - 16) & 0x8D5 == 0x91
    assert board.cpu.read_register("r8") == 1
    assert ("write", 1) in {(entry[0], entry[3]) for entry in board.device.log}
