"""Where an arm64 kernel, its initrd and its device tree go (Linux, Documentation/arch/arm64/booting.rst)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from timevm.engine.machine.given_tree import adapted
from timevm.engine.machine.images import ELF_MAGIC, Images, Piece, check_flat, elf_pieces, unpacked
from timevm.engine.machine.loaders import check_places, loader_pieces
from timevm.engine.machine.placement import Placement
from timevm.engine.machine.spec import MIB, MachineSpec
from timevm.errors import UserError

MACHINES = ("EM_AARCH64",)
IMAGE_MAGIC, IMAGE_MAGIC_AT = b"ARM\x64", 56
#: text_offset of a kernel that does not say its size (before Linux 3.17)
OLD_TEXT_OFFSET = 0x80000
#: kernels with a text_offset of less than this go 2 MiB up, as QEMU puts them (it keeps its boot code below)
LEAST_OFFSET, UP = 4096, 2 * MIB
#: where firmware is executed
FLASH_BASE = 0
DTB_ALIGNMENT = 2 * MIB
#: a device tree blob may be this large (booting.rst, section 2)
LARGEST_DTB = 2 * MIB


def place(
    spec: MachineSpec,
    images: Images,
    ram_base: int,
    ram_end: int,
    device_tree: Callable[[tuple[int, int] | None], bytes],
) -> Placement:
    """``device_tree(initrd)`` gives the blob for an initrd at those addresses (start, end).  Raises UserError."""
    loaded, start = loader_pieces(spec, images, MACHINES)
    named = [(f"loaded data at {piece.address:#x}", piece) for piece in loaded]
    is_linux = False
    if images.kernel is not None:
        kernel, entry, is_linux = _kernel_pieces(images, ram_base)
        named += [("the kernel", piece) for piece in kernel]
        start = entry if start is None else start
    if images.initrd is not None and not is_linux:
        raise UserError("-initrd needs a Linux kernel (Image): this -kernel is not one")
    initrd: tuple[int, int] | None = None
    kernel_end = max((piece.end for title, piece in named if title == "the kernel"), default=ram_base)
    if images.initrd is not None:
        half = ram_base + min((ram_end - ram_base) // 2, 128 * MIB)
        begin = -(-max(half, kernel_end) // 4096) * 4096
        initrd = (begin, begin + len(images.initrd.data))
        named.append(("the initrd", Piece(begin, images.initrd.data, len(images.initrd.data))))
    if images.dtb is None:
        blob = device_tree(initrd)
    else:
        blob = adapted(images.dtb, (ram_base, ram_end - ram_base), spec.append, initrd)
    if len(blob) > LARGEST_DTB:
        raise UserError(f"the device tree has {len(blob)} bytes: a kernel takes at most {LARGEST_DTB}")
    arguments: tuple[int, ...] = (0, 0, 0, 0)
    if images.bios is not None:
        # firmware finds it at the start of RAM, and nothing in registers (QEMU: hw/arm/boot.c, arm_setup_firmware_boot)
        named.append(("the device tree", Piece(ram_base, blob, len(blob))))
        check_places(named, ram_base, ram_end)
        return Placement(tuple(piece for _, piece in named), FLASH_BASE, arguments, blob)
    where = _place_for_tree(is_linux, initrd, kernel_end, ram_base, ram_end, [piece for _, piece in named], len(blob))
    if where is not None:
        named.append(("the device tree", Piece(where, blob, len(blob))))
        arguments = (where, 0, 0, 0)
    check_places(named, ram_base, ram_end)
    return Placement(tuple(piece for _, piece in named), ram_base if start is None else start, arguments, blob)


def _kernel_pieces(images: Images, ram_base: int) -> tuple[list[Piece], int, bool]:
    """Pieces, entry, and whether it is Linux (which wants a device tree and takes an initrd)."""
    assert images.kernel is not None
    data = unpacked(images.kernel)
    if data.startswith(ELF_MAGIC):
        pieces, entry = elf_pieces(images.kernel, data, MACHINES)
        return pieces, entry, False
    if data[IMAGE_MAGIC_AT : IMAGE_MAGIC_AT + 4] != IMAGE_MAGIC:
        # neither ELF nor Image: a flat binary, as QEMU takes it, at the usual place
        check_flat(images.kernel, data)
        where = ram_base + OLD_TEXT_OFFSET
        return [Piece(where, data, len(data))], where, True
    text_offset, image_size = struct.unpack_from("<QQ", data, 8)
    offset = text_offset if image_size else OLD_TEXT_OFFSET
    if offset < LEAST_OFFSET:
        offset += UP
    size = max(image_size, len(data))
    return [Piece(ram_base + offset, data, size)], ram_base + offset, True


def _place_for_tree(
    is_linux: bool,
    initrd: tuple[int, int] | None,
    kernel_end: int,
    ram_base: int,
    ram_end: int,
    taken: list[Piece],
    size: int,
) -> int | None:
    """Behind the initrd or the kernel for Linux; for others at the start of RAM if that is free, or nowhere."""
    if not is_linux:
        free = all(piece.address >= ram_base + size or piece.end <= ram_base for piece in taken)
        return ram_base if free and taken else None
    end = kernel_end if initrd is None else initrd[1]
    aligned = -(-end // DTB_ALIGNMENT) * DTB_ALIGNMENT
    if aligned + size <= ram_end:
        return aligned
    return -(-end // 8) * 8
