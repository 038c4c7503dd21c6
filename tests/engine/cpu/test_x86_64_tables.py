"""Page tables that are changed without an invalidation, on x86: nobody can tell how long Unicorn's TLB keeps an entry.

Each program is run through, and stopped at every instruction with its state put back, here or in a fresh machine, which
empties the TLB.  All see what tables say when an access happens.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.engine.cpu.x86_assembler import assemble, link
from tests.engine.cpu.x86_board import CODE, END, LONG_MODE, PORTS, Board, gate
from timevm.engine.cpu.base import StopKind

PRESENT, WRITABLE, ACCESSED, DIRTY, LARGE = 1, 2, 0x20, 0x40, 0x80
#: the page that is looked at: its address, and the frames it is mapped to
PAGE, FRAME, OTHER = 0x40_0000, 0x28_0000, 0x28_1000
HOW = ("straight through", "restored", "fresh")


@dataclass(frozen=True, slots=True)
class Paging:
    """Tables from 0x4000 on map the first 4 MiB one to one and PAGE to FRAME; ``entry`` is that of PAGE."""

    control: int
    #: address and value of each entry
    entries: tuple[tuple[int, int], ...]
    entry: int
    entry_size: int
    is_large: bool = False
    is_long: bool = False

    def write(self, board: Board) -> None:
        for at, value in self.entries:
            board.write(at, value.to_bytes(self.entry_size, "little"))


def low(table: int, size: int, count: int) -> tuple[tuple[int, int], ...]:
    """The first pages, one to one."""
    return tuple((table + size * number, number << 12 | 7) for number in range(count))


PAE_TOP = ((0x4000, 0x5001),)
PAE_LOW = ((0x5000, 0x87), (0x5008, 0x20_0087))
LONG_TOP = ((0x4000, 0x5007), (0x5000, 0x6007), (0x6000, 0x87), (0x6008, 0x20_0087))
LEGACY = Paging(0, ((0x4000, 0x5007), (0x4004, 0x6007), *low(0x5000, 4, 1024), (0x6000, FRAME | 7)), 0x6000, 4)
KINDS = {
    "two levels": LEGACY,
    "two levels, large": Paging(0x10, ((0x4000, 0x5007), (0x4004, 0x87), *low(0x5000, 4, 1024)), 0x4004, 4, True),
    "three levels": Paging(0x20, (*PAE_TOP, *PAE_LOW, (0x5010, 0x6007), (0x6000, FRAME | 7)), 0x6000, 8),
    "three levels, large": Paging(0x20, (*PAE_TOP, *PAE_LOW, (0x5010, 0x20_0087)), 0x5010, 8, True),
    "four levels": Paging(0x20, (*LONG_TOP, (0x6010, 0x7007), (0x7000, FRAME | 7)), 0x7000, 8, is_long=True),
    "four levels, large": Paging(0x20, (*LONG_TOP, (0x6010, 0x20_0087)), 0x6010, 8, True, True),
}
SMALL = [name for name, kind in KINDS.items() if not kind.is_large]


def begin(kind: Paging) -> str:
    """Paging on; ``esi`` points to the page's entry, ``edi`` to the page."""
    if kind.is_long:
        program = LONG_MODE.replace("mov edi, 0x4000", "mov edi, 0xa000").replace("mov dword ptr [0x7800]", "nop #")
        for at in ("0x4000", "0x5000", "0x5018"):
            program = program.replace(f"mov dword ptr [{at}]", "nop #")
        program = program.replace("mov [edi], eax\n    add eax", "add eax")
        return program + gate(14, "fault") + f"mov esi, {kind.entry}\n mov edi, {PAGE}\ngo:\n"
    return f"""
    .code32
    mov esp, 0x300000
    mov eax, 0x4000
    mov cr3, eax
    mov eax, {kind.control | 0x600}
    mov cr4, eax
    mov eax, 0x80000011
    mov cr0, eax
    jmp 1f
1:  mov esi, {kind.entry}
    mov edi, {PAGE}
go:
    """


FAULT = f"fault: mov rbx, cr2\n mov ecx, 14\n {END}"


def machine(kind: Paging, program: str, *, model: str = "max") -> Board:
    """It stands before the first instruction of the program."""
    source = begin(kind) + program + END + (FAULT if kind.is_long else "")
    image, labels = link(source, CODE)
    board = Board(image, model=model)
    kind.write(board)
    board.cpu.set_breakpoints(frozenset({labels["go"]}))
    assert board.run().kind is StopKind.BREAKPOINT
    board.cpu.set_breakpoints(frozenset())
    board.write(FRAME, b"\x11" * 8)
    board.write(OTHER, b"\x22" * 8)
    return board


def finish(board: Board, how: str) -> Board:
    """Run to its end; where that was."""
    if how == HOW[0]:
        assert board.run().kind is StopKind.POWER_OFF
        return board
    while (stop := board.run(board.cpu.icount + 1)).kind is StopKind.LIMIT:
        if how == HOW[2]:
            fresh = Board(b"", model="max")
            board.copy_to(fresh)
            board = fresh
        else:
            board.cpu.restore(board.cpu.state())
    assert stop.kind is StopKind.POWER_OFF
    return board


ACCESSES = "mov eax, [edi]\n mov [edi + 8], eax\n"
#: stores that change the entry in the bits of a constant
STORES = {
    "one": "xor dword ptr [esi], {bits}",
    "of another register": "mov ebx, [esi]\n xor ebx, {bits}\n mov [esi], ebx",
    "not aligned": "mov ebx, {bits} << 8\n xor dword ptr [esi - 1], ebx",
    "exchanged": "mov ebx, [esi]\n xor ebx, {bits}\n xchg [esi], ebx",
    "by a string": "mov eax, [esi]\n xor eax, {bits}\n mov edx, edi\n mov edi, esi\n stosd\n mov edi, edx",
    "pushed": "mov ebx, [esi]\n xor ebx, {bits}\n mov edx, esp\n lea esp, [esi + STEP]\n push PUSHED\n mov esp, edx",
    "a vector": "movups xmm0, [esi - 8]\n mov ebx, {bits}\n movd xmm1, ebx\n pslldq xmm1, 8\n pxor xmm0, xmm1\n"
    "movups [esi - 8], xmm0",
}


def store(kind: Paging, name: str, bits: int) -> str:
    text = STORES[name].replace("{bits}", str(bits))
    if kind.is_long:
        return (
            text.replace("STEP", "8")
            .replace("PUSHED", "rbx")
            .replace("edx, esp", "rdx, rsp")
            .replace("esp, edx", "rsp, rdx")
        )
    return text.replace("STEP", "4").replace("PUSHED", "ebx")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("by", STORES)
@pytest.mark.parametrize("name", KINDS)
def test_marks_of_use_come_back(name: str, by: str, how: str) -> None:
    """As Linux looks which pages are in use: it takes the marks away, and invalidates nothing."""
    kind = KINDS[name]
    board = machine(kind, ACCESSES + store(kind, by, ACCESSED | DIRTY) + "\n" + ACCESSES)
    used = ACCESSED | DIRTY | 7 | (LARGE if kind.is_large else 0)
    assert finish(board, how).number(kind.entry, 4) & 0xFF == used


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("by", STORES)
@pytest.mark.parametrize("name", SMALL)
def test_a_page_is_where_its_entry_says(name: str, by: str, how: str) -> None:
    kind = KINDS[name]
    program = ACCESSES + store(kind, by, FRAME ^ OTHER) + "\n nop\n nop\n mov ecx, [edi]\n"
    board = finish(machine(kind, program), how)
    assert board.cpu.read_register("rcx") == 0x2222_2222


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("by", STORES)
@pytest.mark.parametrize("bits", [PRESENT, WRITABLE], ids=["not there", "read-only"])
def test_rights_are_what_an_entry_says(bits: int, by: str, how: str) -> None:
    kind = KINDS["four levels"]
    board = machine(kind, ACCESSES + store(kind, by, bits) + "\n mov [edi + 4], eax\n xor ecx, ecx\n")
    board = finish(board, how)
    assert (board.cpu.read_register("rbx"), board.cpu.read_register("rcx")) == (PAGE + 4, 14)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", SMALL)
def test_tables_above_the_last_are_followed(name: str, how: str) -> None:
    """Another last table takes the place of the one that was used."""
    kind = KINDS[name]
    above = next(at for at, value in kind.entries if value & ~0xFFF == kind.entry)
    board = machine(kind, ACCESSES + f"mov dword ptr [{above}], 0x9007\n mov ecx, [edi]\n")
    board.write(0x9000, (OTHER | 7).to_bytes(8, "little"))
    assert finish(board, how).cpu.read_register("rcx") == 0x2222_2222


@pytest.mark.parametrize("how", HOW)
def test_an_entry_that_forbids_execution_is_a_fault_when_nothing_can(how: str) -> None:
    """EFER.NXE goes: the bit of the entry that was that right is reserved now."""
    kind = KINDS["four levels"]
    program = f"mov eax, [edi]\n mov ecx, 0xc0000080\n rdmsr\n xor eax, {1 << 11}\n wrmsr\n mov eax, [edi + 4]\n"
    board = machine(kind, program)
    board.write(kind.entry + 7, b"\x80")
    board = finish(board, how)
    assert (board.cpu.read_register("rbx"), board.cpu.read_register("rcx")) == (PAGE + 4, 14)


@pytest.mark.parametrize("how", HOW)
def test_a_load_and_store_of_one_instruction(how: str) -> None:
    """Not aligned and across the entry: its operand is read once, whatever begins anew."""
    kind = KINDS["four levels"]
    board = finish(machine(kind, ACCESSES + "add dword ptr [esi - 3], 0x80000001\n mov ecx, [edi]\n" * 3), how)
    assert board.number(kind.entry - 3, 3) == 3
    assert board.number(kind.entry, 1) == 7 | ACCESSED | DIRTY | 0x80


@pytest.mark.parametrize("how", HOW)
def test_a_comparison_of_two_entries(how: str) -> None:
    """CMPXCHG16B stores in halves; the second is the one in use."""
    kind = KINDS["four levels"]
    program = f"""
        add rdi, 0x1000
        {ACCESSES}
        mov rax, [rsi]
        mov rdx, [rsi + 8]
        mov rbx, rax
        xor rbx, 0x200
        mov rcx, rdx
        xor rcx, {FRAME ^ OTHER}
        cmpxchg16b [rsi]
        setz bl
        mov ecx, [rdi]
    """
    board = machine(kind, program)
    board.write(kind.entry + 8, (FRAME | 7).to_bytes(8, "little"))
    board = finish(board, how)
    assert (board.cpu.read_register("rbx") & 0xFF, board.cpu.read_register("rcx")) == (1, 0x2222_2222)
    assert board.number(kind.entry) == FRAME | 0x207


@pytest.mark.parametrize("how", HOW)
def test_the_next_instruction_comes_from_the_new_table(how: str) -> None:
    """The page that is running is mapped to another place, by a branch back to code that ran before."""
    kind = KINDS["four levels"]
    board = machine(kind, "xor ecx, ecx\n xor edx, edx\n call rdi\n")
    body = "1: add ecx, {step}\n cmp edx, 3\n jne 2f\n mov dword ptr [esi], {to}\n2: inc edx\n cmp edx, 6\n jne 1b\n"
    for frame, step in ((FRAME, 1), (OTHER, 100)):
        board.write(frame, assemble((body + "ret").replace("{step}", str(step)).replace("{to}", str(OTHER | 7))))
    assert finish(board, how).cpu.read_register("rcx") == 4 + 2 * 100


@pytest.mark.parametrize("how", HOW)
def test_a_table_that_maps_itself(how: str) -> None:
    """The entry through which it is written: the next store goes elsewhere."""
    kind = KINDS["four levels"]
    board = machine(kind, f"mov dword ptr [{kind.entry}], {kind.entry | 7}\n mov dword ptr [edi], {OTHER | 7}\n"
                          "mov dword ptr [edi + 8], 0x77\n")  # fmt: skip
    board = finish(board, how)
    assert board.number(OTHER + 8, 4) == 0x77
    assert board.number(kind.entry, 4) == OTHER | 7 | ACCESSED | DIRTY


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", SMALL)
def test_what_a_device_writes_to_a_table(name: str, how: str) -> None:
    """As by DMA, while its port is accessed."""
    kind = KINDS[name]
    board = machine(kind, ACCESSES + f"mov edx, {PORTS}\n xor eax, eax\n out dx, eax\n mov ecx, [edi]\n")

    def write() -> None:
        board.write(kind.entry, (OTHER | 7).to_bytes(4, "little"))
        board.cpu.code_changed(kind.entry, 4)

    board.device.effect = write
    if how == HOW[0]:
        assert finish(board, how).cpu.read_register("rcx") == 0x2222_2222
        return
    while not board.device.log:
        board.run(board.cpu.icount + 1)
    assert finish(board, how).cpu.read_register("rcx") == 0x2222_2222


def test_stores_to_what_was_a_table_once_become_fast() -> None:
    """Many stores to a page that tables were read from: it is a page like others again, and then a table again."""
    kind = KINDS["four levels"]
    program = ACCESSES + "mov ecx, 2000\n1: mov [esi + 8], ecx\n dec ecx\n jnz 1b\n" + store(kind, "one", 0x60) + "\n"
    board = machine(kind, program + ACCESSES)
    before = board.cpu.native.engine.slow_blocks
    assert finish(board, HOW[0]).number(kind.entry, 4) & 0xFF == 7 | ACCESSED | DIRTY
    assert board.cpu.native.engine.slow_blocks - before < 50
