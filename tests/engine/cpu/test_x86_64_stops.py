"""Breakpoints, watchpoints and state of the x86 CPU."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.cpu.x86_assembler import assemble, link
from tests.engine.cpu.x86_board import (
    CODE,
    DATA,
    END,
    FOREVER,
    LONG_MODE,
    STACK,
    VECTOR,
    Board,
    gate,
)
from tests.engine.cpu.x86_programs import BUSY, ENTRY, GATE, long_mode, place_of, run
from timevm.engine.cpu.base import StopKind, WatchKind, Watchpoint


@pytest.fixture(scope="module")
def busy() -> tuple[Any, ...]:
    board = Board(BUSY)
    assert board.run().kind is StopKind.POWER_OFF
    assert board.cpu.read_register("r12") == 60
    return board.fingerprint()


def test_breakpoints_stop_before_and_are_passed_on_leaving(busy: tuple[Any, ...]) -> None:
    board = Board(BUSY)
    place = CODE + board.read(CODE, 0x400).index(assemble("xor r9, r8"))
    board.run(ENTRY)
    board.cpu.set_breakpoints(frozenset({place}))
    icounts = []
    while (stop := board.run()).kind is StopKind.BREAKPOINT:
        assert stop.pc == place
        icounts.append(stop.icount)
    assert len(icounts) == 30 and icounts == sorted(set(icounts))
    board.cpu.set_breakpoints(frozenset())
    assert board.fingerprint() == busy
    again = Board(BUSY)
    again.cpu.set_breakpoints(frozenset({place}))
    collected = again.cpu.run_collecting(icounts[20])
    assert [stop.icount for stop in collected.passed] == icounts[:20]


def test_watchpoints_stop_before_the_access(busy: tuple[Any, ...]) -> None:
    board = Board(BUSY)
    place = CODE + board.read(CODE, 0x400).index(assemble("mov [rsi + 8], r9"))
    watched = DATA + 24 * 4 + 8
    board.cpu.set_watchpoints(frozenset({Watchpoint(watched + 2, 1, WatchKind.WRITE)}))
    stop = board.run()
    assert (stop.kind, stop.pc, stop.address, stop.is_write) == (StopKind.WATCHPOINT, place, watched + 2, True)
    assert board.number(watched) == 0
    assert board.run().kind is StopKind.POWER_OFF
    assert board.number(watched) != 0
    board.cpu.set_watchpoints(frozenset())
    assert board.fingerprint() == busy


@pytest.mark.parametrize("distance", [1, 3, 7])
def test_a_store_that_begins_before_what_is_watched_happens_not_at_all_or_whole(distance: int) -> None:
    """Across two pages too; the addition would be done to its own result."""
    for watched in (DATA + 0x108, DATA + 0x1000):
        body = f"mov rbx, {watched - distance}\n mov rax, 0x0102030405060708\n mov [rbx], rax\n nop\n"
        body += "add qword ptr [rbx], rax\n mov dword ptr [rbx + 12], 5\n"
        undisturbed, _ = run(long_mode(body))
        board = Board(long_mode(body))
        board.cpu.set_watchpoints(frozenset({Watchpoint(watched, 1, WatchKind.WRITE)}))
        values = []
        while (stop := board.run()).kind is StopKind.WATCHPOINT:
            assert (stop.address, stop.is_write) == (watched, True)
            values.append(board.number(watched - distance))
        assert values == [0, 0x0102030405060708]
        board.cpu.set_watchpoints(frozenset())
        assert board.fingerprint() == undisturbed.fingerprint()


@pytest.mark.parametrize(
    "store",
    ["movdqu [rbx - 8], xmm1", "movdqu [rbx - 9], xmm1", "fxsave [rbx - 32]", "fnsave [rbx - 20]", "enter 16, 3"],
)
def test_an_instruction_of_several_stores_happens_not_at_all_or_whole(store: str) -> None:
    body = f"mov ebx, {DATA + 0x200}\n mov rax, -1\n movq xmm1, rax\n punpcklqdq xmm1, xmm1\n fninit\n fld1\n"
    body += f"mov rbp, rsp\n mov rsp, {DATA + 0x210}\n nop\n {store}\n nop\n mov rsp, {STACK}\n"
    watched = DATA + 0x200 if "enter" not in store else DATA + 0x1F8
    undisturbed, _ = run(long_mode(body))
    board = Board(long_mode(body))
    board.cpu.set_watchpoints(frozenset({Watchpoint(watched, 4, WatchKind.WRITE)}))
    stop = board.run()
    assert stop.kind is StopKind.WATCHPOINT
    assert board.read(DATA, 0x400) == bytes(0x400)
    while board.run().kind is StopKind.WATCHPOINT:
        pass
    board.cpu.set_watchpoints(frozenset())
    assert board.fingerprint() == undisturbed.fingerprint()


def test_a_load_from_the_page_before_is_seen() -> None:
    body = f"mov ebx, {DATA + 0x1000}\n nop\nhere: mov rax, [rbx - 3]\n"
    board = Board(long_mode(body))
    board.cpu.set_watchpoints(frozenset({Watchpoint(DATA + 0x1000, 1, WatchKind.READ)}))
    stop = board.run()
    assert (stop.kind, stop.pc, stop.address) == (StopKind.WATCHPOINT, place_of(body, "here"), DATA + 0x1000)


def test_flags_survive_a_watchpoint() -> None:
    body = f"mov ebx, {DATA}\n mov eax, 5\n cmp eax, 7\n nop\n seto byte ptr [rbx]\n pushfq\n"
    body += "rcl dword ptr [rbx], 1\n pushfq\n"
    undisturbed, _ = run(long_mode(body))
    for stops in (True, False):
        board = Board(long_mode(body))
        board.cpu.set_watchpoints(frozenset({Watchpoint(DATA, 1, WatchKind.ACCESS)}))
        if stops:
            count = 0
            while board.run().kind is StopKind.WATCHPOINT:
                count += 1
            assert count >= 2
        else:
            assert len(board.cpu.run_collecting(FOREVER).passed) == 2
        board.cpu.set_watchpoints(frozenset())
        assert board.fingerprint() == undisturbed.fingerprint()


def test_the_code_that_ran_is_noted(busy: tuple[Any, ...]) -> None:
    board = Board(BUSY)
    trace = board.cpu.trace_code()
    handler = link(LONG_MODE, CODE)[1]["entered"]
    board.run(ENTRY - 10)
    assert not trace.take().holds(handler + 0x100)
    board.run()
    taken = trace.take()
    assert taken.holds(handler + 0x40) and not taken.holds(CODE + 0x4000)
    assert board.fingerprint() == busy


def test_settling_takes_the_interrupt_that_is_due() -> None:
    body = gate(VECTOR, "irq") + "sti\n nop\n nop\n"
    board = Board(long_mode(body, "irq: iretq"))
    board.run(ENTRY + GATE + 2)
    board.cpu.set_interrupt("intr", True)
    stop = board.cpu.settle()
    assert (stop.kind, stop.icount) == (StopKind.LIMIT, ENTRY + GATE + 2)
    assert stop.pc == place_of(body + "nop", "irq") - 1
    assert board.acknowledged == [stop.icount]


def test_memory_type_registers_are_part_of_the_state() -> None:
    board, _ = run(long_mode("mov ecx, 0x200\n mov eax, 0x12000006\n xor edx, edx\n wrmsr\n"))
    state = board.cpu.state()
    other = Board(long_mode("mov ecx, 0x200\n rdmsr\n"))
    other.cpu.restore(state)
    assert other.cpu.state() == state
    assert (0x12000006).to_bytes(8, "little") in state["memory_types"]
    other.cpu.reset(CODE, [])
    assert not any(other.cpu.state()["memory_types"])


def test_a20_can_be_switched() -> None:
    body = f".code32\n mov byte ptr [0x200123], 5\n mov al, [0x300123]\n mov [{DATA}], al\n"
    board = Board(assemble(body + END, CODE))
    board.cpu.set_a20(False)
    # with line 20 off, odd megabytes are even ones: the program itself is fetched from 0
    board.write(0, board.read(CODE, 0x100))
    assert board.run().kind is StopKind.POWER_OFF
    assert board.number(DATA, 1) == 5


def test_physical_memory_is_watched_whoever_maps_it() -> None:
    """DATA's page is mapped at 0x10000000 too; a virtual watchpoint there does not see what is written to DATA."""
    body = """
    mov dword ptr [0x6400], 0x87 + 0x200000
    mov rbx, 0x10000000
    mov rdi, 0x200000
    mov qword ptr [rdi + 0x108], 1
    mov qword ptr [rbx + 0x108], 2
    mov byte ptr [rbx + 0x10f], 3
    mov qword ptr [rbx + 0x110], 4
    mov qword ptr [rbx + 0x1108], 5
    """
    for watch, addresses in (
        (Watchpoint(0x20_010A, 6, WatchKind.WRITE, physical=True), [0x20_010A, 0x20_010A, 0x20_010F]),
        (Watchpoint(0x1000_010A, 6, WatchKind.WRITE), [0x1000_010A, 0x1000_010F]),
    ):
        board = Board(long_mode(body))
        board.cpu.set_watchpoints(frozenset({watch}))
        met = []
        while (stop := board.run()).kind is StopKind.WATCHPOINT:
            met.append(stop.address)
        assert met == addresses
        board = Board(long_mode(body))
        board.cpu.set_watchpoints(frozenset({watch}))
        assert [stop.address for stop in board.cpu.run_collecting(stop.icount).passed] == addresses
