"""Interrupts, time, ports and memory-mapped devices of the x86 CPU."""

from __future__ import annotations

import pytest

from tests.engine.cpu.x86_board import (
    DATA,
    DEVICE,
    END,
    PORTS,
    VECTOR,
    Board,
    gate,
)
from tests.engine.cpu.x86_programs import ENTRY, GATE, STEPS, USER, long_mode, place_of, registers, run
from timevm.engine.cpu.base import StopKind


def test_an_interrupt_raised_by_an_access_is_taken_before_the_next_instruction() -> None:
    body = gate(VECTOR, "irq") + f"sti\n nop\n mov ebx, {DEVICE}\n mov rbx, rbx\n mov dword ptr [rbx], 1\nafter: nop\n"
    board, _ = run(long_mode(body, "irq: mov r8, [rsp]\n iretq"))
    assert board.cpu.read_register("r8") == place_of(body, "after")
    assert board.acknowledged == [ENTRY + GATE + 5]


@pytest.mark.parametrize("shadow", ["sti", "mov ss, ax"])
def test_the_instruction_behind_sti_and_mov_ss_is_not_interrupted(shadow: str) -> None:
    begin = "sti\n" if shadow != "sti" else ""
    body = gate(VECTOR, "irq") + f"mov ax, 16\n mov edx, {PORTS}\n"
    body += (
        f"cli\n mov al, 1\n out dx, al\n mov al, 16\n{shadow}\nhere: nop\nafter: nop\n"
        if not begin
        else (f"sti\n nop\n mov al, 16\n{shadow}\nhere: nop\nafter: nop\n")
    )
    board = Board(long_mode(body, "irq: mov r8, [rsp]\n iretq"))
    expected = []
    for step in (1_000_000, *STEPS):
        board = Board(long_mode(body, "irq: mov r8, [rsp]\n iretq"))
        if begin:  # the line rises while the CPU stands behind MOV SS
            board.run(ENTRY + GATE + 6)
            board.cpu.set_interrupt("intr", True)
        board.run_stepwise(step)
        assert board.cpu.read_register("r8") == place_of(body, "after")
        expected.append(board.fingerprint())
    assert all(entry == expected[0] for entry in expected)


def test_halt_waits_for_an_interrupt_and_goes_on_behind_itself() -> None:
    body = gate(VECTOR, "irq") + "sti\n hlt\nafter: mov r9d, 1\n cli\n hlt\n"
    board = Board(long_mode(body, "irq: mov r8, [rsp]\n iretq"))
    stop = board.run()
    assert (stop.kind, stop.icount) == (StopKind.IDLE, ENTRY + GATE + 2)
    assert board.run().kind is StopKind.IDLE
    assert not board.cpu.interrupt_pending()
    board.cpu.set_interrupt("intr", True)
    assert board.cpu.interrupt_pending()
    stop = board.run()
    assert (stop.kind, stop.icount) == (StopKind.IDLE, ENTRY + GATE + 2 + 2 + 3)
    assert registers(board, "r8", "r9") == [place_of(body, "after"), 1]
    board.cpu.set_interrupt("intr", True)  # masked: does not wake
    assert not board.cpu.interrupt_pending()
    assert board.run().kind is StopKind.IDLE
    state = board.cpu.state()
    board.cpu.restore(state)
    assert board.run().kind is StopKind.IDLE


def test_a_non_maskable_interrupt_is_an_edge_and_not_nested() -> None:
    body = gate(2, "nmi") + "cli\n nop\n nop\n nop\n"
    board = Board(long_mode(body, "nmi: inc r8\n nop\n nop\n iretq"))
    board.run(ENTRY + GATE + 1)
    board.cpu.set_interrupt("nmi", True)
    board.run(ENTRY + GATE + 2)
    assert board.cpu.read_register("r8") == 1
    board.cpu.set_interrupt("nmi", False)
    board.cpu.set_interrupt("nmi", True)
    board.run(ENTRY + GATE + 5)
    assert board.cpu.read_register("r8") == 1
    board.run()
    assert board.cpu.read_register("r8") == 2


def test_the_time_stamp_counter_is_virtual_time() -> None:
    body = "rdtsc\n mov r8, rax\n mov r9, rdx\n nop\n nop\n rdtsc\n sub rax, r8\n mov r10, rax\n"
    board = Board(long_mode(body))
    board.cpu.set_warp(5 << 32)
    board.run()
    assert registers(board, "r8", "r9", "r10") == [ENTRY * 8, 5, 40]
    run(long_mode(body))


def test_port_accesses_of_all_sizes_see_their_own_icount() -> None:
    body = f"mov dx, {PORTS + 4}\n nop\n in al, dx\n in ax, dx\n in eax, dx\n mov dx, {PORTS + 8}\n out dx, ax\n"
    body += "in al, 0x99\n mov r8, rax\n"
    board, _ = run(long_mode(body))
    assert board.device.log[:4] == [
        ("read", ENTRY + 2, 4, 1),
        ("read", ENTRY + 3, 4, 2),
        ("read", ENTRY + 4, 4, 4),
        ("write", ENTRY + 6, 8, 3),
    ]
    assert board.cpu.read_register("r8") & 0xFF == 0xFF


def test_string_port_input_and_output() -> None:
    body = f"mov dx, {PORTS + 4}\n mov rdi, {DATA}\n mov ecx, 4\n rep insb\n mov rsi, {DATA}\n"
    body += f"mov dl, {PORTS + 8 & 255}\n mov ecx, 4\n rep outsb\n"
    board, _ = run(long_mode(body))
    assert board.read(DATA, 4) == b"\1\2\3\4"
    assert [entry[3] for entry in board.device.log if entry[0] == "write"][:4] == [1, 2, 3, 4]


def test_device_accesses_in_mid_block_see_their_own_icount() -> None:
    body = f"mov ebx, {DEVICE}\n nop\n mov eax, [rbx + 4]\n nop\n add [rbx + 8], eax\n nop\n push qword ptr [rbx + 8]\n"
    board, _ = run(long_mode(body))
    assert [entry[:3] for entry in board.device.log[:-1]] == [
        ("read", ENTRY + 2, 4),
        ("read", ENTRY + 4, 8),
        ("write", ENTRY + 4, 8),
        ("read", ENTRY + 6, 8),
        ("read", ENTRY + 6, 12),
    ]


def test_physical_holes_read_as_ones_and_swallow_writes() -> None:
    body = "mov eax, 0xe0001000\n mov rcx, rax\n mov dword ptr [rcx], 5\n mov r8, [rcx]\n"
    board, _ = run(long_mode(body))
    assert board.cpu.read_register("r8") == (1 << 64) - 1


def test_the_highest_physical_address_is_a_hole_too() -> None:
    body = "mov dword ptr [0x6020], 0xffe00087\n mov dword ptr [0x6024], 0xff\n mov ebx, 0x9ffff8\n"
    board, stop = run(long_mode(body + "mov [rbx], rbx\n mov r8, [rbx]\n"))
    assert (stop.kind, board.cpu.read_register("r8")) == (StopKind.POWER_OFF, (1 << 64) - 1)


def test_the_rom_is_not_written() -> None:
    body = "mov dword ptr [0x7ff8], 0xffe00087\n mov rax, cr3\n mov cr3, rax\n mov ebx, 0xfffff000\n mov r8d, [rbx]\n"
    body += "mov dword ptr [rbx], 5\n mov r9d, [rbx]\n"
    board, stop = run(long_mode(body))
    assert stop.kind is StopKind.POWER_OFF
    assert registers(board, "r8", "r9") == [0, 0]


def test_a_device_that_fails_ends_the_run_with_its_exception() -> None:
    board = Board(long_mode(f"mov ebx, {DEVICE}\n mov eax, [rbx + 4]\n"))
    board.device.read = lambda offset, size: 1 // 0  # type: ignore[method-assign]  # a broken device
    with pytest.raises(ZeroDivisionError):
        board.run()


def test_native_registers_of_a_window() -> None:
    body = f"mov dx, {PORTS + 4}\n in al, dx\n mov r8, rax\n mov dx, {PORTS + 8}\n mov al, 0x41\n"
    body += "out dx, al\n out dx, al\n"
    got = bytearray()
    board = Board(long_mode(body))
    window = board.cpu.map_ports(PORTS, 16, board.device, got.extend)
    window.set_constant_read(4, 0x77)
    window.set_output(8)
    board.run()
    assert (board.cpu.read_register("r8") & 0xFF, bytes(got)) == (0x77, b"AA")
    assert [entry[0] for entry in board.device.log] == ["write"]


def test_user_programs_may_not_use_ports_unless_they_may() -> None:
    body = gate(13, "denied") + gate(0x61, "finish", dpl=3) + USER + "mov ax, 5\nhere: in al, 0x99\nnext: int 0x61\n"
    tail = "denied: mov r8, [rsp + 8]\n mov r9, [rsp]\n inc r10\n add rsp, 8\n add qword ptr [rsp], 2\n iretq\n"
    tail += "finish:\n"
    board, stop = run(long_mode(body, tail + END))
    assert stop.kind is StopKind.POWER_OFF
    assert registers(board, "r8", "r9", "r10", "rax") == [place_of(body, "here"), 0, 1, 0x10_0031]
    permitted = body.replace("pushfq\n", "pushfq\n or dword ptr [rsp], 0x3000\n", 1)
    board, stop = run(long_mode(permitted, tail + END))
    assert (stop.kind, board.cpu.read_register("r10")) == (StopKind.POWER_OFF, 0)
