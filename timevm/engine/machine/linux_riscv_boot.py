"""Where a RISC-V kernel, its firmware, initrd and device tree go (Linux, Documentation/arch/riscv/boot.rst and
boot-image-header.rst; the addresses are QEMU's).

Firmware and kernel get the hart's number in a0 and the address of the device tree in a1; firmware that does not know
where the kernel is (OpenSBI's ``fw_dynamic``) is told by what a2 points to.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from timevm.engine.machine.given_tree import adapted
from timevm.engine.machine.images import ELF_MAGIC, File, Images, Piece, check_flat, elf_pieces, unpacked
from timevm.engine.machine.loaders import check_places, loader_pieces
from timevm.engine.machine.placement import Placement
from timevm.engine.machine.spec import GIB, KIB, MIB, MachineSpec
from timevm.errors import UserError

MACHINES = ("EM_RISCV",)
IMAGE_MAGIC, IMAGE_MAGIC_AT = b"RSC\x05", 56
#: behind the firmware, and a multiple of what Linux maps at once
KERNEL_OFFSET = 2 * MIB
#: where OpenSBI lives in QEMU: a kernel that lies there was made to run without it
FIRMWARE_SIZE = 512 * KIB
INITRD_OFFSET = 128 * MIB
TREE_ALIGNMENT = 2 * MIB
#: the tree is below 3 GiB, where a kernel that has not mapped all of RAM finds it
TREE_BELOW = 3 * GIB
#: struct fw_dynamic_info (OpenSBI, docs/firmware/fw_dynamic.md): magic, version, next address, its mode, options, hart
FIRMWARE_INFO = struct.Struct("<6Q")
FIRMWARE_MAGIC, FIRMWARE_VERSION, SUPERVISOR = 0x4942_534F, 2, 1
#: it lies so far below the tree, which firmware may make longer where it is
FIRMWARE_INFO_BELOW = 4096
HART = 0


@dataclass(frozen=True, slots=True)
class _Program:
    """Firmware or kernel."""

    pieces: list[Piece]
    entry: int
    is_linux: bool = False

    @property
    def end(self) -> int:
        return max(piece.end for piece in self.pieces)


def place(
    spec: MachineSpec,
    images: Images,
    ram_base: int,
    ram_end: int,
    device_tree: Callable[[tuple[int, int] | None], bytes],
    *,
    is_bare: bool,
) -> Placement:
    """``device_tree(initrd)`` gives the blob for an initrd at those addresses (start, end).  Raises UserError.

    ``is_bare``: the kernel has RAM for itself (``-bios none``), and a flat one starts where firmware would.
    """
    loaded, start = loader_pieces(spec, images, MACHINES)
    named = [(f"loaded data at {piece.address:#x}", piece) for piece in loaded]
    firmware = kernel = None
    if images.bios is not None:
        firmware = _program(images.bios, images.bios.data, ram_base)
        named += [("the firmware", piece) for piece in firmware.pieces]
    if images.kernel is not None:
        kernel = _kernel(images.kernel, ram_base, 0 if is_bare else KERNEL_OFFSET)
        named += [("the kernel", piece) for piece in kernel.pieces]
        if not is_bare and firmware is None:
            _check_firmwares_place(images.kernel, kernel, ram_base)
    initrd: tuple[int, int] | None = None
    if images.initrd is not None:
        if kernel is None or not kernel.is_linux:
            raise UserError("-initrd needs a Linux kernel (Image): this -kernel is not one")
        begin = max(kernel.entry + min((ram_end - ram_base) // 2, INITRD_OFFSET), -(-kernel.end // 4096) * 4096)
        initrd = (begin, begin + len(images.initrd.data))
        named.append(("the initrd", Piece(begin, images.initrd.data, len(images.initrd.data))))
    if images.dtb is None:
        blob = device_tree(initrd)
    else:
        blob = adapted(images.dtb, (ram_base, ram_end - ram_base), spec.append, initrd)
    tree = (min(ram_end, TREE_BELOW) - len(blob)) // TREE_ALIGNMENT * TREE_ALIGNMENT
    named.append(("the device tree", Piece(tree, blob, len(blob))))
    arguments: tuple[int, ...] = (HART, tree, 0)
    if firmware is not None:
        where, info = tree - FIRMWARE_INFO_BELOW, _firmware_info(kernel)
        named.append(("what the firmware is told", Piece(where, info, len(info))))
        arguments = (HART, tree, where)
    check_places(named, ram_base, ram_end)
    first = firmware or kernel
    if start is None:
        start = ram_base if first is None else first.entry
    return Placement(tuple(piece for _, piece in named), start, arguments, blob)


def _program(file: File, data: bytes, flat_address: int) -> _Program:
    if not data.startswith(ELF_MAGIC):
        return _Program([Piece(flat_address, data, len(data))], flat_address)
    if data[4:5] == b"\x01":  # EI_CLASS
        raise UserError(f"{file.title} '{file.path}' is for a 32-bit CPU: this one is rv64")
    pieces, entry = elf_pieces(file, data, MACHINES)
    return _Program(pieces, entry)


def _kernel(file: File, ram_base: int, flat_offset: int) -> _Program:
    data = unpacked(file)
    if data.startswith(ELF_MAGIC):
        return _program(file, data, ram_base + flat_offset)
    if data[IMAGE_MAGIC_AT : IMAGE_MAGIC_AT + 4] != IMAGE_MAGIC:
        check_flat(file, data)
        return _program(file, data, ram_base + flat_offset)
    text_offset, image_size = struct.unpack_from("<QQ", data, 8)
    where = ram_base + text_offset
    return _Program([Piece(where, data, max(image_size, len(data)))], where, is_linux=True)


def _check_firmwares_place(file: File, kernel: _Program, ram_base: int) -> None:
    """The built-in firmware needs no memory, but who comes from QEMU meant M-mode.  Raises UserError."""
    if any(piece.address < ram_base + FIRMWARE_SIZE and ram_base < piece.end for piece in kernel.pieces):
        raise UserError(
            f"{file.title} '{file.path}' lies where the firmware is ({ram_base:#x} to "
            f"{ram_base + FIRMWARE_SIZE:#x}): start a program that needs none, in M-mode, with -bios none"
        )


def _firmware_info(kernel: _Program | None) -> bytes:
    entry = 0 if kernel is None else kernel.entry
    return FIRMWARE_INFO.pack(FIRMWARE_MAGIC, FIRMWARE_VERSION, entry, SUPERVISOR, 0, HART)
