"""Exceptions, debug registers, privilege changes and system calls of the x86 CPU."""

from __future__ import annotations

import pytest

from tests.engine.cpu.x86_assembler import assemble
from tests.engine.cpu.x86_board import (
    CODE,
    DATA,
    END,
    Board,
    gate,
)
from tests.engine.cpu.x86_programs import (
    ENTRY,
    GATE,
    PROTECTED_MODE,
    STEPS,
    USER,
    faulting,
    long_mode,
    place_of,
    registers,
    run,
)
from timevm.engine.cpu.base import StopKind


@pytest.mark.parametrize(
    ("body", "vector", "error"),
    [
        ("xor ecx, ecx\n mov eax, 5\n xor edx, edx\nhere: div ecx\n nop\n", 0, None),
        ("nop\nhere: ud2\n nop\n", 6, None),
        ("nop\nhere: mov rax, [0x1000000000]\n nop\n", 14, 0),
        ("nop\nhere: mov [0x1000000000], rax\n nop\n", 14, 2),
        ("nop\n mov rbx, 1 << 60\nhere: mov rax, [rbx]\n nop\n", 13, 0),
        ("mov ax, 0x99\nhere: mov ds, ax\n nop\n", 13, 0x98),
        ("nop\nhere: int 0x55\n nop\n", 13, 0x55 * 16 + 2),
        ("mov rax, cr0\n or eax, 8\n mov cr0, rax\nhere: fld1\n", 7, None),
        ("mov rbx, 1 << 60\nhere: push qword ptr [rbx]\n", 13, 0),
    ],
    ids=["divide", "undefined", "read", "write", "not canonical", "selector", "no gate", "no FPU", "push"],
)
def test_faults_point_at_their_instruction_and_count_it(body: str, vector: int, error: int | None) -> None:
    gates = gate(vector, "handler")
    board, stop, tail = faulting(body, vector, error_code=error is not None)
    assert board.cpu.read_register("r8") == place_of(gates + body, "here")
    if error is not None:
        assert board.cpu.read_register("r15") == error
    if vector == 14:
        assert board.cpu.read_register("r14") == 0x10_0000_0000
    before = body[: body.index("here:")].count("\n")
    assert stop.icount == ENTRY + GATE + before + 1 + tail


@pytest.mark.parametrize(("instruction", "vector"), [("int3", 3), ("int 0x77", 0x77)])
def test_software_interrupts_return_behind_themselves(instruction: str, vector: int) -> None:
    body = f"nop\n{instruction}\nafter: nop\n"
    board, stop, tail = faulting(body, vector)
    assert board.cpu.read_register("r8") == place_of(gate(vector, "handler") + body, "after")
    assert stop.icount == ENTRY + GATE + 2 + tail


def test_a_jump_to_nowhere_faults_at_its_target_and_counts_only_the_jump() -> None:
    board, stop, tail = faulting("mov rax, 0x1000000123\n jmp rax\n", 14, error_code=True)
    assert registers(board, "r8", "r14", "r15") == [0x10_0000_0123, 0x10_0000_0123, 0x10]
    assert stop.icount == ENTRY + GATE + 2 + tail


def test_a_fetch_across_a_page_faults_at_its_instruction_with_the_second_page() -> None:
    """The block before it has been executed, however the run is sliced."""
    at = 0x3F_FFFC  # the last bytes of RAM; behind it nothing is mapped
    body = f"mov dword ptr [0x6010], 0\n mov rax, cr3\n mov cr3, rax\n mov rax, {at - 3}\n jmp rax\n"
    program = long_mode(gate(14, "handler") + body, "handler: pop r15\n pop r8\n mov r14, cr2\n" + END)
    boards = []
    for step in (1_000_000, *STEPS):
        board = Board(program)
        board.write(at - 3, assemble("inc r13\n"))
        board.write(at, b"\x48\xb8\x11\x22")  # mov rax, imm64: eight bytes are missing
        stop = board.run_stepwise(step)
        assert stop.kind is StopKind.POWER_OFF
        assert registers(board, "r8", "r13", "r14", "r15") == [at, 1, 0x40_0000, 0x10]
        boards.append((stop, board.fingerprint()))
    assert all(entry == boards[0] for entry in boards)


def test_a_double_fault_and_its_stack() -> None:
    board, _, _ = faulting("mov rax, [0x1000000000]\n", 8, error_code=True)  # no gate for #PF
    assert board.cpu.read_register("r15") == 0


def test_a_triple_fault_is_a_reset() -> None:
    board = Board(long_mode("nop\n ud2\n"))
    stop = board.run()
    assert (stop.kind, stop.icount, stop.detail) == (StopKind.RESET, ENTRY + 2, "triple fault")
    board.cpu.reset(CODE, [])
    assert board.cpu.icount == ENTRY + 2
    assert board.run().kind is StopKind.RESET


def test_single_step_traps_after_each_instruction() -> None:
    body = """
    pushfq
    or dword ptr [rsp], 0x100
    popfq
    nop
    xor eax, eax
    pushfq
    and dword ptr [rsp], ~0x100
    popfq
    nop
    """
    handler = "handler: inc r12\n mov r8, [rsp]\n xor r13, r8\n iretq"
    board, stop = run(long_mode(gate(1, "handler") + body, handler))
    assert board.cpu.read_register("r12") == 5  # nop, xor, pushfq, and, popfq
    assert stop.icount == ENTRY + GATE + 9 + 5 * 4 + 3
    assert board.cpu.read_register("dr6") & 1 << 14


def test_debug_registers_break_at_instructions() -> None:
    body = """
    lea rax, [rip + here]
    mov dr0, rax
    mov eax, 0x402
    mov dr7, rax
    nop
here: mov eax, 7
    """
    handler = "handler: inc r12\n mov r8, [rsp]\n or dword ptr [rsp + 16], 0x10000\n iretq"
    board, _ = run(long_mode(gate(1, "handler") + body, handler))
    assert board.cpu.read_register("r12") == 1
    assert board.cpu.read_register("r8") == place_of(gate(1, "handler") + body, "here")
    assert board.cpu.read_register("dr6") & 1


@pytest.mark.parametrize(("kind", "hits"), [(1, 5), (3, 8)], ids=["write", "access"])
def test_debug_registers_break_behind_accesses_to_data(kind: int, hits: int) -> None:
    body = f"""
    mov eax, {DATA + 0x20}
    mov dr1, rax
    mov eax, {0x408 | kind << 20 | 3 << 22}
    mov dr7, rax
    mov rbx, {DATA}
    mov eax, [rbx + 0x1c]
    mov [rbx + 0x24], eax
    nop
    mov byte ptr [rbx + 0x22], 5
after: nop
    mov eax, [rbx + 0x20]
    add dword ptr [rbx + 0x1f], 0x100
    nop
    seto byte ptr [rbx + 0x20]
    lea rsi, [rbx + 0x21]
    lea rdi, [rbx + 0x1e]
    mov ecx, 4
    cld
    rep movsb
    xor eax, eax
    mov dr7, rax
    mov [rbx + 0x20], eax
    """
    handler = "handler: inc r12\n test r8, r8\n cmovz r8, [rsp]\n xor r13, [rsp]\n rol r13, 3\n mov r14, dr6\n iretq"
    board, stop = run(long_mode(gate(1, "handler") + body, handler))
    assert stop.kind is StopKind.POWER_OFF
    # writes: the byte, the addition, SETO, two of the copies; with reads: the load, and all four copies
    assert board.cpu.read_register("r12") == hits
    assert board.cpu.read_register("r8") == place_of(gate(1, "handler") + body, "after")
    assert board.cpu.read_register("r14") & 15 == 2


def test_data_breaks_go_with_the_state() -> None:
    body = f"mov eax, {DATA}\n mov dr0, rax\n mov eax, 0xd0402\n mov dr7, rax\n nop\n"
    body += f"mov [{DATA}], eax\nafter: nop\n"
    program = long_mode(gate(1, "handler") + body, "handler: inc r12\n mov r8, [rsp]\n iretq")
    board = Board(program)
    board.run(ENTRY + GATE + 5)
    other = Board(program)
    other.memory[:] = board.memory[:]
    other.cpu.restore(board.cpu.state())
    for each in (board, other):
        each.run()
        assert registers(each, "r12", "r8") == [1, place_of(gate(1, "handler") + body, "after")]
    assert other.fingerprint() == board.fingerprint()


def test_privilege_changes_through_gates_and_back() -> None:
    body = gate(0x60, "service", dpl=3) + gate(0x61, "finish", dpl=3) + gate(13, "denied") + USER
    body += "mov ebx, 1\n int 0x60\n cli\n int 0x61\n"
    tail = """
service: mov r8, [rsp + 8]
    mov r9, [rsp + 24]
    mov r10, rsp
    iretq
denied: mov r11, [rsp]
    add rsp, 8
    add qword ptr [rsp], 1
    iretq
finish:
    """
    board, stop = run(long_mode(body, tail + END))
    assert stop.kind is StopKind.POWER_OFF
    assert registers(board, "r8", "r9", "r10", "r11") == [0x2B, 0x2F_0000, 0x2F_F000 - 40, 0]


def test_system_calls_by_syscall_and_sysret() -> None:
    setup = """
    mov ecx, 0xc0000081
    xor eax, eax
    mov edx, 0x001b0008
    wrmsr
    mov ecx, 0xc0000082
    lea rax, [rip + entry]
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000084
    mov eax, 0x4700
    wrmsr
    """
    body = setup + USER + "stc\n syscall\nback: setc al\n movzx r14d, al\n syscall\n"
    tail = """
entry: pushfq
    pop r9
    inc r8
    cmp r8, 2
    je done
    mov r12, rcx
    mov r13, r11
    mov r10, cs
    mov r15, ss
    sysretq
done:
    """
    board, stop = run(long_mode(body, tail + END))
    assert stop.kind is StopKind.POWER_OFF
    assert registers(board, "r8", "r10", "r15", "r14") == [2, 8, 16, 1]
    assert board.cpu.read_register("r12") == place_of(body, "back")
    assert board.cpu.read_register("r13") & 0x201 == 0x001
    assert board.cpu.read_register("r9") & 0x300 == 0


def test_syscall_without_permission_is_undefined() -> None:
    body = "mov ecx, 0xc0000080\n mov eax, 0x900\n xor edx, edx\n wrmsr\nhere: syscall\n"
    board, _, _ = faulting(body, 6)
    assert board.cpu.read_register("r8") == place_of(gate(6, "handler") + body, "here")


def test_sysenter_goes_to_the_kernel_and_sysexit_back() -> None:
    """In 32-bit code: an AMD processor has no SYSENTER in long mode."""
    body = """
    xor edx, edx
    mov ecx, 0x174
    mov eax, 8
    wrmsr
    mov ecx, 0x175
    mov eax, 0x2e0000
    wrmsr
    mov ecx, 0x176
    mov eax, offset entry
    wrmsr
    mov edx, offset user
    mov ecx, 0x2f0000
    sysexit
user: mov bx, cs
    mov edi, esp
    stc
    sysenter
back: setc [0x200000]
    mov [0x200004], esi
    sysenter
entry: pushfd
    inc ebp
    cmp ebp, 2
    je done
    mov esi, esp
    mov edx, offset back
    mov ecx, 0x2e8000
    popfd
    sysexit
done: mov ax, cs
    """
    board, stop = run(assemble(PROTECTED_MODE + body + END, CODE))
    assert stop.kind is StopKind.POWER_OFF
    assert registers(board, "rbx", "rdi", "rbp") == [0x1B, 0x2F_0000, 2]
    assert (board.number(DATA, 1), board.number(DATA + 4, 4)) == (1, 0x2E_0000 - 4)
    assert registers(board, "cs", "ss") == [8, 16]


def test_sysenter_is_undefined_in_64_bit_code_of_an_amd_processor() -> None:
    board, _, _ = faulting("here: sysenter\n", 6)
    assert board.cpu.read_register("r8") == place_of(gate(6, "handler") + "here: nop", "here")


def test_far_calls_and_returns_into_32_bit_code_and_back() -> None:
    body = """
    lea rax, [rip + narrow]
    mov [0x2000], eax
    mov dword ptr [0x2004], 0x38
    mov rbx, 0x00cf9b000000ffff
    lea rcx, [rip + gdt]
    mov [rcx + 0x38], rbx
    call fword ptr [0x2000]
    mov r9d, 7
    jmp on
    .code32
narrow: mov ebp, 0x1234
    inc ebp
    retf
    .code64
on:
    """
    board, stop = run(long_mode(body))
    assert stop.kind is StopKind.POWER_OFF
    assert registers(board, "r9", "rbp") == [7, 0x1235]
