"""Where firmware, kernel, initrd and device tree go on the riscv board."""

from __future__ import annotations

import gzip
import struct
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.machine.elf import EM_AARCH64, EM_RISCV, Segment, elf64
from timevm.engine.machine.images import File, Images
from timevm.engine.machine.linux_riscv_boot import FIRMWARE_INFO, place
from timevm.engine.machine.placement import Placement
from timevm.engine.machine.spec import GIB, MIB, Loader, LoaderData, MachineSpec
from timevm.errors import UserError

BASE = 0x8000_0000
TREE = b"\xd0\x0d\xfe\xed a device tree"


def image(text_offset: int = 2 * MIB, image_size: int = 5 * MIB, length: int = 0x1000) -> bytes:
    """A flat kernel: its header (boot-image-header.rst), and something behind it."""
    head = struct.pack(
        "<IIQQQIIQ8s4sI", 0x106F_5A4D, 0x010F_E0, text_offset, image_size, 0, 2, 0, 0, b"RISCV\0\0\0", b"RSC\x05", 0
    )
    return head + bytes(length - len(head))


def program(address: int = BASE, entry: int | None = None) -> bytes:
    return elf64([Segment(address, b"code")], entry=address if entry is None else entry, machine=EM_RISCV)


def file(data: bytes | None, name: str) -> File | None:
    return None if data is None else File(Path(name), data, name)


class Guest:
    """What is to be placed, in how much RAM."""

    def __init__(
        self,
        ram: int = 128 * MIB,
        kernel: bytes | None = None,
        initrd: bytes | None = None,
        bios: bytes | None = None,
        bare: bool = False,
        tree: bytes = TREE,
        loaders: tuple[Loader | LoaderData, ...] = (),
    ) -> None:
        self.ram, self.bare, self.tree = ram, bare, tree
        self.asked: list[tuple[int, int] | None] = []
        self.images = Images(file(kernel, "k"), file(initrd, "i"), None, file(bios, "b"))
        self.spec = MachineSpec(architecture="riscv64", ram_bytes=ram, loaders=loaders)

    def place(self) -> Placement:
        return place(self.spec, self.images, BASE, BASE + self.ram, self._device_tree, is_bare=self.bare)

    def _device_tree(self, initrd: tuple[int, int] | None) -> bytes:
        self.asked.append(initrd)
        return self.tree


@pytest.mark.parametrize("ram", [16 * MIB, 64 * MIB, 128 * MIB, 1 * GIB, 4 * GIB])
@pytest.mark.parametrize("with_initrd", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_linux(ram: int, with_initrd: bool, packed: bool) -> None:
    kernel = image(length=3 * MIB)
    initrd = b"initrd" * 1000 if with_initrd else None
    guest = Guest(ram, gzip.compress(kernel) if packed else kernel, initrd)
    placement = guest.place()
    pieces = {piece.data[:4]: piece for piece in placement.pieces}
    code = pieces[kernel[:4]]
    assert (code.address, code.data, code.size) == (BASE + 2 * MIB, kernel, 5 * MIB)
    assert placement.start == code.address and code.address % (2 * MIB) == 0
    tree = pieces[TREE[:4]]
    assert placement.arguments == (0, tree.address, 0)
    assert tree.address % (2 * MIB) == 0 and tree.end <= 3 * GIB
    assert tree.address == min(BASE + ram, 3 * GIB) - 2 * MIB
    if initrd is None:
        assert guest.asked == [None]
    else:
        found = pieces[initrd[:4]]
        assert guest.asked == [(found.address, found.end)]
        assert found.address == code.address + min(ram // 2, 128 * MIB)
    ordered = sorted(placement.pieces, key=lambda piece: piece.address)
    assert all(piece.end <= following.address for piece, following in pairwise(ordered))


def test_programs_start_at_their_entry() -> None:
    assert Guest(kernel=program(entry=BASE + 2), bare=True).place().start == BASE + 2
    assert Guest(kernel=program(BASE + 0x8_0000)).place().start == BASE + 0x8_0000


def test_a_flat_binary_is_behind_the_firmware_or_in_its_place() -> None:
    assert Guest(kernel=b"\x13\0\0\0" * 40).place().start == BASE + 2 * MIB
    assert Guest(kernel=b"\x13\0\0\0" * 40, bare=True).place().start == BASE


def test_firmware_starts_first_and_is_told_about_the_kernel() -> None:
    kernel = image()
    placement = Guest(kernel=kernel, bios=b"\x6f\0\0\0" * 100).place()
    hart, tree, info = placement.arguments
    assert (placement.start, hart) == (BASE, 0)
    pieces = {piece.address: piece.data for piece in placement.pieces}
    assert pieces[tree] == TREE and pieces[BASE] == b"\x6f\0\0\0" * 100 and pieces[BASE + 2 * MIB] == kernel
    assert FIRMWARE_INFO.unpack(pieces[info]) == (0x4942_534F, 2, BASE + 2 * MIB, 1, 0, 0)
    alone = Guest(bios=program(BASE + 0x100)).place()
    assert alone.start == BASE + 0x100
    assert FIRMWARE_INFO.unpack({piece.address: piece.data for piece in alone.pieces}[alone.arguments[2]])[2] == 0


def test_a_loader_says_where_to_start() -> None:
    placement = Guest(kernel=image(), loaders=(LoaderData(b"", BASE + 0x42, sets_pc=True),)).place()
    assert placement.start == BASE + 0x42
    assert Guest().place().start == BASE


def elf32() -> bytes:
    data = bytearray(program())
    data[4] = 1
    return bytes(data)


@pytest.mark.parametrize(
    ("guest", "message"),
    [
        (Guest(16 * MIB, image(image_size=15 * MIB)), "the kernel does not fit into RAM"),
        (Guest(16 * MIB, image(image_size=13 * MIB)), "the kernel .* the device tree .* overlap"),
        (Guest(16 * MIB, image(), b"i" * 9 * MIB), "the initrd does not fit into RAM"),
        (Guest(kernel=program(BASE + 0x10_0000), initrd=b"i"), "-initrd needs a Linux kernel"),
        (Guest(initrd=b"i"), "-initrd needs a Linux kernel"),
        (Guest(kernel=elf64([Segment(BASE, b"k")], machine=EM_AARCH64)), "for another CPU"),
        (Guest(kernel=b""), " is empty"),
        (Guest(kernel=b"MZ".ljust(56, b"\0") + b"ARM\x64"), "is a Linux kernel for arm64, which timevm-system-aarch64"),
        (Guest(kernel=program(BASE - 4096)), "does not fit into RAM: it needs 0x7ffff000"),
        (Guest(kernel=program(BASE + 64), bios=b"f" * 100), "the firmware .* and the kernel .* overlap"),
        (Guest(kernel=program()), "lies where the firmware is .0x80000000 to 0x80080000.: .* with -bios none"),
        (Guest(kernel=program(BASE + 0x7_FFFC)), "with -bios none"),
        (Guest(kernel=image(text_offset=1 << 63)), "does not fit into RAM"),
        (Guest(kernel=elf32()), "for a 32-bit CPU"),
    ],
)
def test_refusals(guest: Guest, message: str) -> None:
    with pytest.raises(UserError, match=message):
        guest.place()


@given(st.binary(max_size=300), st.binary(max_size=64), st.booleans())
def test_any_kernel_is_placed_or_refused(data: bytes, head: bytes, bare: bool) -> None:
    for kernel in (data, image()[:8] + data[:48] + image()[56:], b"\x7fELF\x02\x01\x01" + data, head):
        try:
            placement = Guest(kernel=kernel, bare=bare).place()
        except UserError:
            continue
        assert all(piece.address >= BASE and piece.end <= BASE + 128 * MIB for piece in placement.pieces)
