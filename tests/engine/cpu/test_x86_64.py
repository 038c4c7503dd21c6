"""The x86 CPU on small programs: counts, exceptions, interrupts, system calls, devices, time, whatever the slicing."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.cpu.x86_assembler import assemble, link
from tests.engine.cpu.x86_board import (
    CODE,
    COUNTER,
    DATA,
    DEVICE,
    END,
    FOREVER,
    LONG_MODE,
    PORTS,
    STACK,
    VECTOR,
    Board,
    gate,
)
from timevm.engine.cpu.base import Stop, StopKind, WatchKind, Watchpoint
from timevm.engine.cpu.code_trace import may_have_run
from timevm.engine.cpu.x86_64 import X86Cpu
from timevm.engine.cpu.x86_64_state import RESET_VECTOR
from timevm.errors import UserError

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


# ---- counting and slicing

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


# ---- exceptions


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


# ---- user mode

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


# ---- interrupts and time


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


# ---- identification


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


# ---- code that changes


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


# ---- stops


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
    assert not may_have_run(trace.take(), handler + 0x100)
    board.run()
    taken = trace.take()
    assert may_have_run(taken, handler + 0x40) and not may_have_run(taken, CODE + 0x4000)
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
    other.cpu.reset(CODE, [])
    assert other.cpu.state()["memory_types"][0] == 0


def test_a20_can_be_switched() -> None:
    body = f".code32\n mov byte ptr [0x200123], 5\n mov al, [0x300123]\n mov [{DATA}], al\n"
    board = Board(assemble(body + END, CODE))
    board.cpu.set_a20(False)
    # with line 20 off, odd megabytes are even ones: the program itself is fetched from 0
    board.write(0, board.read(CODE, 0x100))
    assert board.run().kind is StopKind.POWER_OFF
    assert board.number(DATA, 1) == 5


# ---- flags that Unicorn alone gets wrong (tests/unicorn_facts/test_x86.py shows how)


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
