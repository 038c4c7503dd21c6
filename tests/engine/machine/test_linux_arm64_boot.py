"""Where kernel, initrd and device tree go: booting.rst's demands for every size of RAM, and QEMU's places."""

from __future__ import annotations

import gzip
import struct
from itertools import pairwise
from pathlib import Path

import fdt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.machine.elf import EM_X86_64, Segment, elf64
from timevm.engine.machine.images import File, Images
from timevm.engine.machine.linux_arm64_boot import LARGEST_DTB, place
from timevm.engine.machine.placement import Placement
from timevm.engine.machine.spec import GIB, MIB, Loader, LoaderData, MachineSpec
from timevm.errors import UserError

BASE = 0x4000_0000
TREE = b"\xd0\x0d\xfe\xed a device tree"


def image(text_offset: int = 0, image_size: int = 0x20_0000, length: int = 0x1000) -> bytes:
    """A flat kernel: its header, and something behind it (booting.rst, section 4)."""
    head = struct.pack("<IIQQQQQQ4sI", 0x9100_4D4D, 0x1400_0000, text_offset, image_size, 0xA, 0, 0, 0, b"ARM\x64", 0)
    return head + bytes(length - len(head))


def file(data: bytes | None, name: str) -> File | None:
    return None if data is None else File(Path(name), data, name)


class Guest:
    """What is to be placed, in how much RAM; ``tree`` is what the board would make."""

    def __init__(
        self,
        ram: int = 128 * MIB,
        kernel: bytes | None = None,
        initrd: bytes | None = None,
        dtb: bytes | None = None,
        tree: bytes = TREE,
        append: str = "",
        loaders: tuple[Loader | LoaderData, ...] = (),
        loaded: tuple[File, ...] = (),
    ) -> None:
        self.ram = ram
        self.asked: list[tuple[int, int] | None] = []
        self.tree = tree
        self.images = Images(file(kernel, "k"), file(initrd, "i"), file(dtb, "d"), None, loaded)
        self.spec = MachineSpec(ram_bytes=ram, append=append, loaders=loaders)

    def place(self) -> Placement:
        return place(self.spec, self.images, BASE, BASE + self.ram, self._device_tree)

    def _device_tree(self, initrd: tuple[int, int] | None) -> bytes:
        self.asked.append(initrd)
        return self.tree


@pytest.mark.parametrize("ram", [16 * MIB, 64 * MIB, 128 * MIB, 1 * GIB, 3 * GIB, 4 * GIB])
@pytest.mark.parametrize("text_offset", [0, 0x80000])
@pytest.mark.parametrize("with_initrd", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_linux(ram: int, text_offset: int, with_initrd: bool, packed: bool) -> None:
    kernel = image(text_offset, image_size=5 * MIB, length=3 * MIB)
    initrd = b"initrd" * 1000 if with_initrd else None
    guest = Guest(ram, gzip.compress(kernel) if packed else kernel, initrd)
    placement = guest.place()
    assert placement.device_tree == TREE
    pieces = {piece.data[:4]: piece for piece in placement.pieces}
    code = pieces[kernel[:4]]
    assert (code.address - text_offset) % (2 * MIB) == 0, "booting.rst: text_offset bytes from a 2 MiB boundary"
    assert (code.data, code.size) == (kernel, 5 * MIB), "room for its .bss"
    assert placement.start == code.address
    tree = pieces[TREE[:4]]
    assert placement.arguments == (tree.address, 0, 0, 0)
    assert tree.address % 8 == 0 and tree.address // (2 * MIB) == (tree.end - 1) // (2 * MIB)
    assert tree.address - BASE < 512 * MIB, "kernels before 4.2 look there only"
    if initrd is not None:
        found = pieces[initrd[:4]]
        assert found.data == initrd and guest.asked == [(found.address, found.end)]
        assert found.address == BASE + max(min(ram // 2, 128 * MIB), -(-(code.end - BASE) // 4096) * 4096)
        assert found.end <= tree.address
    else:
        assert guest.asked == [None]
    assert all(piece.address >= BASE and piece.end <= BASE + ram for piece in placement.pieces)


def test_a_kernel_before_3_17_says_no_size() -> None:
    placement = Guest(kernel=image(text_offset=0x1234, image_size=0)).place()
    assert placement.start == BASE + 0x80000


def test_a_kernel_that_is_neither_elf_nor_image() -> None:
    placement = Guest(kernel=b"\x00\x00\x00\x14" * 100, initrd=b"initrd").place()
    assert placement.start == BASE + 0x80000 and placement.arguments[0]


def test_an_elf_program_finds_the_tree_at_the_start_of_ram() -> None:
    placement = Guest(kernel=elf64([Segment(BASE + 0x80000, b"code")], entry=BASE + 0x80002)).place()
    assert placement.start == BASE + 0x80002 and placement.arguments == (BASE, 0, 0, 0)
    assert [piece.address for piece in placement.pieces] == [BASE + 0x80000, BASE]


def test_an_elf_program_at_the_start_of_ram_gets_none() -> None:
    placement = Guest(kernel=elf64([Segment(BASE + 4, b"code")], entry=BASE + 4)).place()
    assert placement.arguments == (0, 0, 0, 0) and len(placement.pieces) == 1
    assert placement.device_tree == TREE


def test_loaders_beside_and_instead_of_a_kernel(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(elf64([Segment(BASE + 0x9000, b"code")], entry=BASE + 0x9004))
    loaded = (File(program, program.read_bytes(), "loader file"),)
    kernel = elf64([Segment(BASE + 0x80000, b"kern")], entry=BASE + 0x80000)
    data = LoaderData(b"\x11\x22", BASE + 0x7000)
    quiet = Guest(kernel=kernel, loaders=(Loader(program), data), loaded=loaded).place()
    assert quiet.start == BASE + 0x80000
    assert {piece.address: piece.data for piece in quiet.pieces if piece.data != TREE} == {
        BASE + 0x9000: b"code",
        BASE + 0x7000: b"\x11\x22",
        BASE + 0x80000: b"kern",
    }
    chosen = Guest(kernel=kernel, loaders=(Loader(program, sets_pc=True),), loaded=loaded).place()
    assert chosen.start == BASE + 0x9004
    alone = Guest(loaders=(Loader(program, sets_pc=True),), loaded=loaded).place()
    assert (alone.start, alone.arguments[0]) == (BASE + 0x9004, BASE)


def test_nothing_to_run() -> None:
    placement = Guest().place()
    assert (placement.start, placement.pieces) == (BASE, ())


@pytest.mark.parametrize(
    ("guest", "message"),
    [
        (Guest(16 * MIB, image(image_size=15 * MIB)), "the kernel does not fit into RAM"),
        (Guest(16 * MIB, image(), b"i" * 9 * MIB), "the initrd does not fit into RAM"),
        (Guest(kernel=elf64([Segment(BASE, b"k")]), initrd=b"i"), "-initrd needs a Linux kernel"),
        (Guest(initrd=b"i"), "-initrd needs a Linux kernel"),
        (Guest(kernel=elf64([Segment(BASE, b"k")], machine=EM_X86_64)), "for another CPU"),
        (Guest(kernel=elf64([Segment(BASE - 4096, b"k")])), "does not fit into RAM: it needs 0x3ffff000"),
        (Guest(kernel=elf64([Segment(BASE, b"k", memory_size=1 << 62)])), "does not fit into RAM"),
        (Guest(kernel=elf64([Segment(BASE, b"k" * 8), Segment(BASE + 4, b"k")])), "overlap"),
        (Guest(kernel=image(), loaders=(LoaderData(b"1", BASE + 2 * MIB + 5),)), "overlap"),
        (Guest(kernel=image(image_size=1 << 63)), "does not fit into RAM"),
        (Guest(kernel=image(text_offset=1 << 63)), "does not fit into RAM"),
        (Guest(kernel=image(), tree=bytes(LARGEST_DTB + 1)), "a kernel takes at most 2097152"),
        (Guest(kernel=image(), dtb=b"no tree"), "device tree 'd' is none that can be read: Data size too small"),
        (Guest(kernel=b""), "'k' is empty"),
        (Guest(kernel=b"MZ".ljust(0x202, b"\0") + b"HdrS"), "'k' is a Linux kernel for a PC, which timevm-system"),
        (Guest(kernel=b"MZ".ljust(56, b"\0") + b"RSC\x05"), "'k' is a Linux kernel for riscv64"),
    ],
)
def test_what_cannot_be(guest: Guest, message: str) -> None:
    with pytest.raises(UserError) as caught:
        guest.place()
    assert message in str(caught.value) and "\n" not in str(caught.value)


SIZES = st.one_of(st.integers(0, 40 * MIB), st.integers(0, 1 << 64))


@given(
    st.sampled_from([16 * MIB, 32 * MIB, 48 * MIB, 4 * GIB]),
    st.integers(0, 40 * MIB),
    SIZES,
    st.integers(1, 4096),
    st.integers(1, 8192),
)
def test_what_is_placed_is_sound(ram: int, offset: int, size: int, initrd: int, tree: int) -> None:
    guest = Guest(ram, image(offset, min(size, (1 << 64) - 1)), b"i" * initrd, tree=b"t" * tree)
    try:
        placement = guest.place()
    except UserError:
        assert offset + size > ram // 4, "this would have fitted"
        return
    ordered = sorted(placement.pieces, key=lambda piece: piece.address)
    assert ordered[0].address >= BASE and ordered[-1].end <= BASE + ram
    assert all(one.end <= other.address for one, other in pairwise(ordered))
    assert placement.arguments[0] % 8 == 0


def blob(version: int = 17) -> bytes:
    """A board's tree from a file: its own memory, arguments and a clock that nobody must lose."""
    tree = fdt.FDT(entries=[])
    tree.root.append(fdt.PropWords("#address-cells", 2))
    tree.root.append(fdt.PropWords("#size-cells", 2))
    for path, name, value in (
        ("/memory@80000000", "device_type", "memory"),
        ("/memory", "device_type", "memory"),
        ("/chosen", "bootargs", "its own"),
        ("/clock", "compatible", "fixed-clock"),
    ):
        tree.get_node(path, create=True).set_property(name, value)
    tree.entries.append({"address": 0x4100_0000, "size": 0x1000})
    return bytes(tree.to_dtb(version=version, last_comp_version=16, boot_cpuid_phys=0))


def parsed(data: bytes) -> fdt.FDT:
    fdt.FDT().entries.clear()  # the library's trees share it, as a default argument
    return fdt.parse_dtb(data)


def test_a_tree_from_a_file_is_told_what_the_command_line_says() -> None:
    guest = Guest(4 * GIB, image(), b"initrd", dtb=blob(), append="console=ttyAMA0")
    placement = guest.place()
    assert guest.asked == []
    tree = parsed(placement.device_tree)
    assert [node.name for node in tree.root.nodes] == ["chosen", "clock", "memory@40000000"]
    assert list(tree.get_node("/memory@40000000").get_property("reg")) == [0, BASE, 1, 0]
    chosen = tree.get_node("/chosen")
    assert chosen.get_property("bootargs").value == "console=ttyAMA0"
    initrd = next(piece for piece in placement.pieces if piece.data == b"initrd")
    assert list(chosen.get_property("linux,initrd-start")) == [0, initrd.address]
    assert list(chosen.get_property("linux,initrd-end")) == [0, initrd.end]
    assert tree.entries == [{"address": 0x4100_0000, "size": 0x1000}]
    assert any(piece.data == placement.device_tree for piece in placement.pieces)


def test_a_tree_from_a_file_keeps_its_own_arguments() -> None:
    tree = fdt.parse_dtb(Guest(kernel=image(), dtb=blob()).place().device_tree)
    assert tree.get_node("/chosen").get_property("bootargs").value == "its own"
    assert not tree.get_node("/chosen").exist_property("linux,initrd-start")


def test_a_tree_from_a_file_with_narrow_cells() -> None:
    tree = fdt.FDT(entries=[])
    tree.root.append(fdt.PropWords("#address-cells", 1))
    tree.root.append(fdt.PropWords("#size-cells", 1))
    data = bytes(tree.to_dtb(version=17, last_comp_version=16, boot_cpuid_phys=0))
    fitting = fdt.parse_dtb(Guest(128 * MIB, image(), dtb=data).place().device_tree)
    assert list(fitting.get_node("/memory@40000000").get_property("reg")) == [BASE, 128 * MIB]
    with pytest.raises(UserError, match="32-bit numbers only"):
        Guest(4 * GIB, image(), dtb=data).place()


BLOB = blob()


@given(st.lists(st.tuples(st.integers(0, len(BLOB) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(BLOB)))
def test_damaged_trees_from_a_file(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(BLOB)
    for place_, value in changes:
        data[place_] = value
    try:
        Guest(kernel=image(), dtb=bytes(data[:length]), append="x").place()
    except UserError as error:
        assert "device tree" in str(error)
