"""What a PC starts with: a firmware's ROM, or a kernel in RAM and a ROM of ours that jumps to it."""

from __future__ import annotations

from dataclasses import dataclass

from timevm.engine.machine import linux_x86_boot, multiboot, pvh
from timevm.engine.machine.images import ELF_MAGIC, File, Images, Piece
from timevm.engine.machine.loaders import check_places, loader_pieces
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.machine.x86_boot_rom import Entry, boot_rom
from timevm.engine.machine.x86_memory_map import HIGH, Range
from timevm.errors import UserError

MACHINES = ("EM_X86_64", "EM_386")
#: the part of a firmware's ROM that also appears below 1 MiB
LOW_ROM_MOST = 0x2_0000
ROM_UNIT, ROM_MOST = 0x1_0000, 0x100_0000


@dataclass(frozen=True, slots=True)
class PcPlacement:
    """``rom`` ends at 4 GiB; ``pieces`` are written into RAM before the first instruction.

    ``needs_set_up``: there is no firmware, the board is to be set up as one would do it.
    """

    rom: bytes
    pieces: tuple[Piece, ...]
    needs_set_up: bool


def place_firmware(firmware: File) -> PcPlacement:
    """Raises UserError for what cannot be a PC's BIOS."""
    size = len(firmware.data)
    if not size or size % ROM_UNIT or size > ROM_MOST:
        raise UserError(
            f"{firmware.title} '{firmware.path}' has {size} bytes: a BIOS is a multiple of 64 KiB, at most 16 MiB"
        )
    low = firmware.data[-LOW_ROM_MOST:]
    return PcPlacement(firmware.data, (Piece(HIGH - len(low), low, len(low)),), needs_set_up=False)


def place_kernel(
    spec: MachineSpec,
    images: Images,
    ram_end: int,
    memory_map: list[Range],
    *,
    random_seed: bytes,
    rsdp: int = 0,
    tables: tuple[Piece, ...] = (),
) -> PcPlacement:
    """``tables`` are the board's own (ACPI), at the addresses that ``memory_map`` reserves.  Raises UserError."""
    loaded, start = loader_pieces(spec, images, MACHINES)
    named = [(f"loaded data at {piece.address:#x}", piece) for piece in loaded]
    reserved: tuple[tuple[str, Piece], ...] = ()
    entry: Entry | None = None
    if images.kernel is not None:
        placed = _place(images.kernel, images.initrd, spec.append, ram_end, memory_map, random_seed, rsdp)
        named += placed.pieces
        reserved = placed.reserved
        entry = placed.entry
    elif images.initrd is not None:
        raise UserError("-initrd needs a kernel: give one with -kernel")
    if start is not None:
        entry = Entry(start)
    if entry is None:
        raise UserError("nothing to start: give a kernel with -kernel or firmware with -bios")
    named += [("the ACPI tables", piece) for piece in tables]
    check_places([*named, *reserved], 0, ram_end)
    return PcPlacement(boot_rom(entry), tuple(piece for _, piece in named), needs_set_up=True)


def _place(
    kernel: File,
    initrd: File | None,
    command_line: str,
    ram_end: int,
    memory_map: list[Range],
    random_seed: bytes,
    rsdp: int,
) -> linux_x86_boot.Placed:
    if linux_x86_boot.is_bzimage(kernel.data):
        return linux_x86_boot.place_linux(
            kernel, initrd, command_line, ram_end, memory_map, random_seed=random_seed, rsdp=rsdp
        )
    if multiboot.header_at(kernel.data) is not None:
        return multiboot.place_multiboot(kernel, initrd, command_line, ram_end, memory_map)
    if kernel.data.startswith(ELF_MAGIC):
        entry = pvh.entry_of(kernel)
        if entry is None:
            raise UserError(
                f"{kernel.title} '{kernel.path}' is an ELF file without a multiboot header or a PVH entry note: "
                "timevm does not know how to start it"
            )
        return pvh.place_pvh(kernel, entry, initrd, command_line, ram_end, memory_map, rsdp=rsdp)
    raise UserError(
        f"{kernel.title} '{kernel.path}' is no x86 kernel that timevm knows (bzImage, multiboot, ELF with PVH entry)"
    )
