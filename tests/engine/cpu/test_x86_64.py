"""The x86 CPU on small programs: counts and slicing, entry, identification, state."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.cpu.x86_assembler import assemble
from tests.engine.cpu.x86_board import (
    CODE,
    DATA,
    END,
    PORTS,
    Board,
    gate,
)
from tests.engine.cpu.x86_programs import BUSY, ENTRY, STEPS, faulting, long_mode, place_of, registers, run
from timevm.engine.cpu.base import Stop, StopKind
from timevm.engine.cpu.x86_64 import X86Cpu
from timevm.engine.cpu.x86_64_state import RESET_VECTOR
from timevm.errors import UserError


@pytest.fixture(scope="module")
def busy() -> tuple[Any, ...]:
    board = Board(BUSY)
    assert board.run().kind is StopKind.POWER_OFF
    assert board.cpu.read_register("r12") == 60
    return board.fingerprint()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(ENTRY, ENTRY + 560), max_size=40))
def test_slicing_changes_nothing(busy: tuple[Any, ...], stops: list[int]) -> None:
    board = Board(BUSY)
    for at in sorted(stops):
        stop = board.run(at)
        if stop.kind is StopKind.POWER_OFF:
            break
        assert stop == Stop(StopKind.LIMIT, at, board.cpu.run(at).pc)
    else:
        assert board.run().kind is StopKind.POWER_OFF
    assert board.fingerprint() == busy


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(ENTRY, ENTRY + 560), min_size=1, max_size=5))
def test_restored_anywhere_in_another_cpu(busy: tuple[Any, ...], stops: list[int]) -> None:
    board = Board(BUSY)
    for at in sorted(stops):
        board.run(at)
        other = Board(BUSY)
        other.memory[:] = board.memory[:]
        other.cpu.restore(board.cpu.state())
        other.device.reads, other.device.log, other.acknowledged = (
            board.device.reads,
            board.device.log,
            board.acknowledged,
        )
        board = other
    assert board.run().kind is StopKind.POWER_OFF
    assert board.fingerprint() == busy


@pytest.mark.parametrize("setting", [{"exit_checks": True}, {"translation_buffer": 8 << 20}], ids=str)
def test_speed_settings_change_nothing(busy: tuple[Any, ...], setting: dict[str, Any]) -> None:
    board = Board(BUSY, **setting)
    rng = random.Random(3)
    while board.run(board.cpu.icount + rng.randint(1, 50)).kind is StopKind.LIMIT:
        if rng.random() < 0.1:
            board.cpu.flush_translations()
    assert board.fingerprint() == busy


def test_a_limit_in_the_past_runs_nothing() -> None:
    board = Board(BUSY)
    assert board.run(0) == Stop(StopKind.LIMIT, 0, CODE)


def test_the_reset_vector_is_real_mode_at_the_top() -> None:
    rom = assemble(
        f".code16\nstart: mov ax, 0x1234\n mov ds, ax\n mov [5], ax\n mov dx, {PORTS + 12}\n mov al, 0x31\n"
        " out dx, al\n jmp .\n.org 0x30\n jmp start\n.org 0x40"
    )
    board, stop = run(rom, start=RESET_VECTOR)
    assert (stop.kind, stop.icount) == (StopKind.POWER_OFF, 7)
    assert board.read(0x12345, 2) == b"\x34\x12"
    assert registers(board, "cs", "ds", "ds_base") == [0xF000, 0x1234, 0x12340]


def test_a_kernel_is_entered_in_flat_protected_mode_with_its_arguments() -> None:
    body = f".code32\n mov [{DATA}], eax\n mov [{DATA + 4}], ebx\n mov [{DATA + 8}], esi\n"
    board = Board(assemble(body + END, CODE))
    board.cpu.reset(CODE, [0x2BADB002, 0x1000, 0x90000])
    assert board.run().kind is StopKind.POWER_OFF
    assert board.read(DATA, 12) == bytes.fromhex("02b0ad2b") + bytes.fromhex("00100000") + bytes.fromhex("00000900")


def test_repeated_string_instructions_count_each_iteration_and_one() -> None:
    body = f"mov rdi, {DATA}\n mov eax, 0x41\n mov ecx, 10\n rep stosb\n xor ecx, ecx\n rep stosb\n"
    board, stop = run(long_mode(body))
    assert stop.icount == ENTRY + 3 + 11 + 1 + 1 + 3
    assert board.read(DATA, 11) == b"A" * 10 + b"\0"


def test_an_instruction_across_two_pages() -> None:
    at = 0x10_1FFB
    board = Board(long_mode(f"mov rax, {at}\n call rax\n"))
    board.write(at, assemble("mov rax, 0x1122334455667788\n ret"))
    assert board.run().kind is StopKind.POWER_OFF
    for step in STEPS:
        other = Board(long_mode(f"mov rax, {at}\n call rax\n"))
        other.write(at, assemble("mov rax, 0x1122334455667788\n ret"))
        other.run_stepwise(step)
        assert other.fingerprint() == board.fingerprint()


def test_cpuid_is_the_models_own() -> None:
    body = ""
    for number, leaf in enumerate((0, 1, 7, 0x80000001)):
        body += f"mov eax, {leaf}\n xor ecx, ecx\n cpuid\n mov rdi, {DATA + 16 * number}\n mov [rdi], eax\n"
        body += "mov [rdi + 4], ebx\n mov [rdi + 8], ecx\n mov [rdi + 12], edx\n"
    found = {}
    for model in ("qemu64", "max"):
        board, _ = run(long_mode(body), model=model)
        found[model] = [board.number(DATA + 4 * n, 4) for n in range(16)]
    vendor = [0xD, 0x68747541, 0x444D4163, 0x69746E65]
    assert found["qemu64"] == [
        *vendor, 0x663, 0x800, 0x80002001, 0x78BF9FD, 0, 0, 0, 0, 0x663, 0, 1, 0x2193F9FD,
    ]  # fmt: skip
    assert found["max"][4:8] == [0x663, 0x800, 0x82D82203, 0x78BF9FD]
    assert not any(words[6] & 1 << 30 for words in found.values())  # RDRAND


@pytest.mark.parametrize("instruction", ["rdrand eax", "rdseed eax", "rdpmc", "xgetbv", "monitor", "vmrun"])
def test_what_would_bring_in_the_host_is_undefined(instruction: str) -> None:
    board, _, _ = faulting(f"here: {instruction}\n", 6)
    assert board.cpu.read_register("r8") == place_of(gate(6, "handler") + "here: nop", "here")


def test_models_and_registers_have_names() -> None:
    with pytest.raises(UserError, match="unable to find CPU model 'z80'"):
        X86Cpu("z80", time_shift=0, seed=0, acknowledge=lambda: 0)
    board = Board(long_mode(""))
    with pytest.raises(UserError, match="unknown register 'x0'"):
        board.cpu.read_register("x0")
    with pytest.raises(UserError, match="unknown register 'x0'"):
        board.cpu.write_register("x0", 0)
    for register in board.cpu.registers:
        value = board.cpu.read_register(register.name)
        assert 0 <= value < 1 << register.bits
        board.cpu.write_register(register.name, value)
    assert board.run().kind is StopKind.POWER_OFF


def test_float_registers_by_name() -> None:
    board, _ = run(long_mode("mov eax, 0x3f800000\n movd xmm3, eax\n fld1\n fldpi\n"))
    assert board.cpu.read_register("xmm3") == 0x3F800000
    assert board.cpu.read_register("st1") == 0x3FFF << 64 | 1 << 63
    assert board.cpu.read_register("st0") == 0x4000C90FDAA22168C235
