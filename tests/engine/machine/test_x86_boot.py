"""Kernels for the PC: bzImage, multiboot, PVH, the ROM that starts them; what is damaged is refused in a sentence."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import capstone
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.machine.elf import EM_AARCH64, EM_X86_64, PT_NOTE, Segment, elf64
from timevm.engine.machine import linux_x86_boot
from timevm.engine.machine.images import File, Images
from timevm.engine.machine.pc_boot import PcPlacement, place_firmware, place_kernel
from timevm.engine.machine.spec import MIB, MachineSpec
from timevm.engine.machine.x86_boot_rom import BASE, CODE_SELECTOR, DESCRIPTORS, SIZE, Entry, boot_rom, identity_tables
from timevm.engine.machine.x86_memory_map import HIGH, USABLE, ranges
from timevm.errors import TimevmError, UserError

RAM = 128 * MIB
SEED = bytes(range(32))


def bzimage(
    *,
    protocol: int = 0x20F,
    code: bytes = b"\x90" * 5000,
    init_size: int = 4 * MIB,
    preferred: int = 16 * MIB,
    payload: tuple[int, int] = (0, 0),
) -> bytes:
    """Two sectors of real-mode code with a header, and ``code``; ``payload``: where the packed kernel is in it."""
    setup = bytearray(512 * 3)
    setup[0x1F1] = 2
    setup[0x200:0x202] = b"\xeb\x6a"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, protocol)
    setup[0x211] = 1
    struct.pack_into("<I", setup, 0x22C, 0x7FFF_FFFF)
    struct.pack_into("<I", setup, 0x238, 2047)
    struct.pack_into("<QI", setup, 0x258, preferred, init_size)
    struct.pack_into("<H", setup, 0x236, int(payload != (0, 0)))
    struct.pack_into("<II", setup, 0x248, *payload)
    return bytes(setup) + code


def place(kernel: bytes | None, initrd: bytes | None = None, append: str = "", ram: int = RAM) -> PcPlacement:
    images = Images(
        kernel=None if kernel is None else File(Path("k"), kernel, "kernel"),
        initrd=None if initrd is None else File(Path("i"), initrd, "initrd"),
    )
    spec = MachineSpec(architecture="x86_64", machine="pc", ram_bytes=ram, append=append)
    return place_kernel(spec, images, ram, ranges(ram), random_seed=SEED, rsdp=0xF0000)


def check_inside(placement: PcPlacement, ram: int = RAM) -> None:
    for piece in placement.pieces:
        assert len(piece.data) <= piece.size and 0 <= piece.address <= piece.end <= ram


class Memory:
    """RAM after the pieces were written."""

    def __init__(self, placement: PcPlacement, ram: int = RAM) -> None:
        check_inside(placement, ram)
        self.data = bytearray(ram)
        for piece in placement.pieces:
            self.data[piece.address : piece.address + len(piece.data)] = piece.data

    def number(self, address: int, size: int = 4) -> int:
        return int.from_bytes(self.data[address : address + size], "little")

    def text(self, address: int) -> bytes:
        return bytes(self.data[address : self.data.index(0, address)])


def registers_at_entry(rom: bytes) -> dict[str, int]:
    """What the ROM loads before it jumps to the kernel, read off its 32-bit code; ``entry`` is the target."""
    found: dict[str, int] = {}
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    for instruction in decoder.disasm(rom[0xFF40:0xFFF0], BASE + 0xFF40):
        name, *operands = instruction.op_str.replace(",", " ").replace(":", " ").split() or [""]
        if instruction.mnemonic == "mov" and operands[0].isalnum() and operands[0][0].isdigit():
            found[name] = int(operands[0], 0)
        if instruction.mnemonic == "ljmp":
            assert int(name, 0) == CODE_SELECTOR
            found["entry"] = int(operands[0], 0)
            return found
    raise AssertionError("the ROM jumps nowhere")


def test_the_rom_goes_from_the_reset_vector_to_protected_mode() -> None:
    rom = boot_rom(Entry(0x10_0000, eax=1, ebx=2, esi=3))
    assert len(rom) == SIZE
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_16)
    jump = next(decoder.disasm(rom[0xFFF0:], 0xFFF0))
    assert (jump.mnemonic, jump.op_str) == ("jmp", "0xff00")
    code = [f"{i.mnemonic} {i.op_str}" for i in decoder.disasm(rom[0xFF00:0xFF40], 0xFF00)]
    assert code[:2] == ["cli ", "lgdtl cs:[0xfe40]"] or code[1].startswith("lgdt")
    limit, base = struct.unpack_from("<HI", rom, 0xFE40)
    assert struct.unpack_from("<6Q", rom, base - BASE) == DESCRIPTORS and limit == 47
    assert registers_at_entry(rom) == {"ax": 0x18, "esp": 0x7000, "eax": 1, "ebx": 2, "esi": 3, "entry": 0x10_0000}


def test_bzimage() -> None:
    code = bytes(range(256)) * 20
    placement = place(bzimage(code=code), b"initrd" * 1000, "console=ttyS0 quiet")
    memory = Memory(placement)
    start = registers_at_entry(placement.rom)
    assert (start["entry"], start["esi"]) == (16 * MIB, linux_x86_boot.PARAMETERS)
    assert memory.data[16 * MIB : 16 * MIB + len(code)] == code
    zero_page = linux_x86_boot.PARAMETERS
    assert memory.data[zero_page + 0x202 : zero_page + 0x206] == b"HdrS"
    assert memory.number(zero_page + 0x210, 1) == 0xFF and memory.number(zero_page + 0x211, 1) == 0x81
    assert memory.number(zero_page + 0x70, 8) == 0xF0000
    assert memory.text(memory.number(zero_page + 0x228)) == b"console=ttyS0 quiet"
    where, size = memory.number(zero_page + 0x218), memory.number(zero_page + 0x21C)
    assert memory.data[where : where + size] == b"initrd" * 1000 and not where % 4096 and where >= 20 * MIB
    count = memory.number(zero_page + 0x1E8, 1)
    table = [struct.unpack_from("<QQI", memory.data, zero_page + 0x2D0 + 20 * n) for n in range(count)]
    assert (HIGH, RAM - HIGH, USABLE) in table
    setup_data = memory.number(zero_page + 0x250, 8)
    assert struct.unpack_from("<QII", memory.data, setup_data) == (0, 9, 32)
    assert memory.data[setup_data + 16 : setup_data + 48] == SEED
    assert placement.needs_set_up


def test_older_protocols_load_at_one_mebibyte() -> None:
    placement = place(bzimage(protocol=0x206))
    assert registers_at_entry(placement.rom)["entry"] == HIGH


@pytest.mark.parametrize(
    ("kernel", "initrd", "append", "ram", "why"),
    [
        (bzimage(protocol=0x205), None, "", RAM, "boot protocol 2.05"),
        (bzimage()[:0x280], None, "", RAM, "ends in its header"),
        (bzimage(code=b""), None, "", RAM, "before its 32-bit code"),
        (bzimage(), None, "x" * 2048, RAM, "2048 characters are more than the 2047"),
        (bzimage(init_size=200 * MIB), None, "", RAM, "does not fit into RAM"),
        (bzimage(init_size=100 * MIB), bytes(20 * MIB), "", RAM, "give the machine more with -m"),
        (b"neither of them" * 100, None, "", RAM, "no x86 kernel that timevm knows"),
        (None, b"x", "", RAM, "-initrd needs a kernel"),
        (None, None, "", RAM, "nothing to start"),
    ],
)
def test_what_cannot_be_started(kernel: bytes | None, initrd: bytes | None, append: str, ram: int, why: str) -> None:
    with pytest.raises(UserError, match=why):
        place(kernel, initrd, append, ram)


ELF_KERNEL = elf64(
    [
        Segment(16 * MIB, bytes(range(256)) * 8, virtual=0xFFFF_FFFF_8100_0000),
        Segment(17 * MIB, b"data", memory_size=MIB, virtual=0xFFFF_FFFF_8110_0000),
    ],
    0xFFFF_FFFF_8100_0040,
    EM_X86_64,
)


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "zstd": _zstd,
}


def packed(data: bytes, *, packer: Callable[[bytes], bytes] = gzip.compress, size: int | None = None) -> bytes:
    """A bzImage with ``data`` packed in it behind 100 bytes of its unpacker."""
    payload = packer(data) + struct.pack("<I", len(data) if size is None else size)
    return bzimage(code=b"\x90" * 100 + payload, payload=(100, len(payload)))


@pytest.mark.parametrize("name", PACKERS)
def test_a_64_bit_kernel_is_unpacked_by_us(name: str) -> None:
    placement = place(packed(ELF_KERNEL, packer=PACKERS[name]), b"initrd", "quiet")
    memory = Memory(placement)
    assert memory.data[16 * MIB : 16 * MIB + 2048] == bytes(range(256)) * 8
    assert memory.data[17 * MIB : 17 * MIB + 4] == b"data"
    assert memory.text(memory.number(linux_x86_boot.PARAMETERS + 0x228)) == b"quiet"
    where = memory.number(linux_x86_boot.PARAMETERS + 0x218)
    assert memory.data[where : where + 6] == b"initrd" and where >= 20 * MIB, "behind the kernel's memory"
    long_code = placement.rom[0xFE80:0xFEA0]
    found = [
        f"{i.mnemonic} {i.op_str}" for i in capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(long_code, 0)
    ]
    assert found[:2] == ["movabs rax, 0x1000040", "jmp rax"]
    start = registers_at_entry(placement.rom)
    assert start["esi"] == linux_x86_boot.PARAMETERS and start["entry"] == BASE + 0xFE80


def test_page_tables_map_memory_to_itself() -> None:
    at = 0x3_0000
    tables = identity_tables(at)
    assert len(tables) == 6 * 4096

    def entry(table: int, index: int) -> int:
        return int(struct.unpack_from("<Q", tables, table - at + 8 * index)[0])

    for address in (0, 0x1234_5678, 0xFFFF_FE80, 0xC000_0000):
        middle = entry(at, address >> 39)
        large = entry(entry(middle & ~0xFFF, address >> 30) & ~0xFFF, address >> 21 & 511)
        assert middle & 3 == 3 and large & 0x83 == 0x83
        assert (large & ~0x1F_FFFF) + (address & 0x1F_FFFF) == address


@pytest.mark.parametrize(
    "kernel",
    [
        packed(b"no ELF file" * 100),
        packed(ELF_KERNEL, size=len(ELF_KERNEL) - 1),
        packed(ELF_KERNEL, size=0xFFFF_FFFF),
        packed(ELF_KERNEL, packer=lambda data: gzip.compress(data)[:-20]),
        packed(ELF_KERNEL, packer=lambda data: b"\x02\x21\x4c\x18" + data),
        packed(elf64([Segment(64 * MIB, b"elsewhere")], 64 * MIB, EM_X86_64)),
        packed(elf64([Segment(16 * MIB, b"x")], 16 * MIB, EM_AARCH64)),
    ],
)
def test_what_we_cannot_unpack_the_guest_does(kernel: bytes) -> None:
    start = registers_at_entry(place(kernel).rom)
    assert start["entry"] == 16 * MIB


def header(flags: int = 0, *rest: int) -> bytes:
    return struct.pack(f"<III{len(rest)}I", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF, *rest)


def test_multiboot_with_addresses_in_its_header() -> None:
    body = bytes(range(200))
    kernel = header(1 << 16, 0x20_0000, 0x20_0000, 0, 0x20_4000, 0x20_0020) + body
    placement = place(kernel, b"module data", "one two")
    memory, start = Memory(placement), registers_at_entry(placement.rom)
    assert (start["eax"], start["entry"]) == (0x2BADB002, 0x20_0020)
    assert memory.data[0x20_0000 : 0x20_0000 + len(kernel)] == kernel
    info = start["ebx"]
    flags, lower, upper = struct.unpack_from("<III", memory.data, info)
    assert flags == 0x24D and lower == 639 and upper == (RAM - HIGH) >> 10
    assert memory.text(memory.number(info + 16)) == b"k one two"
    assert memory.number(info + 20) == 1
    begin, end, name, _ = struct.unpack_from("<IIII", memory.data, memory.number(info + 24))
    assert memory.data[begin:end] == b"module data" and memory.text(name) == b"i" and begin >= 0x20_4000
    length, where = memory.number(info + 44), memory.number(info + 48)
    assert length == 24 * len(ranges(RAM)) and struct.unpack_from("<IQQI", memory.data, where)[0] == 20
    assert memory.text(memory.number(info + 64)) == b"timevm"


def test_multiboot_that_cannot_be_loaded() -> None:
    for kernel, why in (
        (header(1 << 16), "ends in its multiboot header"),
        (header(1 << 16, 0, 0x100, 0x10, 0, 0) + bytes(100), "do not match its size"),
        (header(1 << 2) + bytes(100), "what timevm has not"),
        (header() + bytes(100), "says not where"),
    ):
        with pytest.raises(UserError, match=why):
            place(kernel)


def note(name: bytes, kind: int, data: bytes) -> bytes:
    return struct.pack("<III", len(name), len(data), kind) + name.ljust(-(-len(name) // 4) * 4, b"\0") + data


def vmlinux(*, machine: int = EM_X86_64, with_note: bool = True) -> bytes:
    segments = [Segment(HIGH, b"\xf4" * 4096, virtual=0xFFFF_FFFF_8010_0000)]
    if with_note:
        others = b"".join(note(b"Xen\0", kind, b"text\0\0\0\0") for kind in range(1, 18)) + note(b"GNU\0", 18, bytes(8))
        segments.append(Segment(0, others + note(b"Xen\0", 18, struct.pack("<Q", 0x10_0040)), kind=PT_NOTE))
    return elf64(segments, 0xFFFF_FFFF_8010_0000, machine)


def test_pvh() -> None:
    placement = place(vmlinux(), b"ramdisk", "root=/dev/sda")
    memory, start = Memory(placement), registers_at_entry(placement.rom)
    assert start["entry"] == 0x10_0040
    info = start["ebx"]
    magic, version, _, modules, list_at, line, rsdp, map_at, entries, _ = struct.unpack_from(
        "<IIIIQQQQII", memory.data, info
    )
    assert (magic, version, modules, rsdp, entries) == (0x336EC578, 1, 1, 0xF0000, len(ranges(RAM)))
    assert memory.text(line) == b"root=/dev/sda"
    where, size = struct.unpack_from("<QQ", memory.data, list_at)
    assert memory.data[where : where + size] == b"ramdisk"
    assert struct.unpack_from("<QQI", memory.data, map_at) == (0, 0x9FC00, 1)


def test_elf_files_without_an_entry_or_for_another_cpu() -> None:
    with pytest.raises(UserError, match="without a multiboot header or a PVH entry note"):
        place(vmlinux(with_note=False))
    with pytest.raises(UserError, match="another CPU"):
        place(vmlinux(machine=EM_AARCH64))


def test_firmware() -> None:
    data = bytes(range(256)) * 1024
    placement = place_firmware(File(Path("bios"), data, "firmware"))
    assert placement.rom == data and not placement.needs_set_up
    assert placement.pieces[0].address == 0xE_0000 and placement.pieces[0].data == data[-0x2_0000:]
    for bad in (b"", bytes(1000), bytes(17 * MIB)):
        with pytest.raises(UserError, match="multiple of 64 KiB"):
            place_firmware(File(Path("bios"), bad, "firmware"))


VALID = [
    bzimage(),
    packed(ELF_KERNEL),
    header(1 << 16, 0x20_0000, 0x20_0000, 0, 0, 0x20_0020) + bytes(500),
    vmlinux(),
]


@settings(deadline=None)
@given(
    st.integers(0, len(VALID) - 1),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=6),
    st.integers(0, 6000),
)
def test_damaged_kernels_are_placed_or_refused(which: int, damage: list[tuple[int, int]], cut: int) -> None:
    """No other exception, and nothing outside RAM."""
    changed = bytearray(VALID[which])
    for at, value in damage:
        changed[at % len(changed)] = value
    for candidate in (bytes(changed), bytes(changed[:cut])):
        try:
            check_inside(place(candidate, b"initrd"))
        except TimevmError as error:
            assert str(error).strip()


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_anything_is_placed_or_refused(data: bytes) -> None:
    for kernel in (data, b"\x7fELF" + data, bzimage(code=data), header(1 << 16) + data):
        try:
            check_inside(place(kernel))
        except TimevmError as error:
            assert str(error).strip()
