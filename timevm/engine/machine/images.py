"""The files that a machine starts with: read once, known by digest, put into RAM in pieces."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from timevm.engine.machine.spec import Loader, MachineSpec
from timevm.errors import HostError, UserError

ELF_MAGIC, GZIP_MAGIC = b"\x7fELF", b"\x1f\x8b"
#: what a compressed kernel may unpack to
LARGEST_KERNEL = 1 << 30
#: where the Linux kernels of other machines have a magic, and what they are (Documentation/arch/*/boot*.rst)
_OTHERS = (
    (0x202, b"HdrS", "a Linux kernel for a PC, which timevm-system-x86_64 starts"),
    (56, b"ARM\x64", "a Linux kernel for arm64, which timevm-system-aarch64 starts"),
    (56, b"RSC\x05", "a Linux kernel for riscv64, which timevm-system-riscv64 starts"),
)


@dataclass(frozen=True, slots=True)
class Piece:
    """``data`` goes to physical ``address``; ``size`` bytes in all, the rest zero."""

    address: int
    data: bytes
    size: int

    @property
    def end(self) -> int:
        return self.address + self.size


@dataclass(frozen=True, slots=True)
class File:
    """A file's contents; ``title`` is how the user knows it."""

    path: Path
    data: bytes
    title: str

    @property
    def digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(self.data)


@dataclass(frozen=True, slots=True)
class Images:
    """The files of a MachineSpec; ``loaded`` are those of its loaders with a path, in their order."""

    kernel: File | None = None
    initrd: File | None = None
    dtb: File | None = None
    bios: File | None = None
    loaded: tuple[File, ...] = ()


def read_file(path: Path, title: str) -> File:
    """Raises HostError."""
    try:
        return File(path, path.read_bytes(), title)
    except OSError as error:
        raise HostError(f"could not load {title} '{path}': {error.strerror}") from error


def read_images(spec: MachineSpec) -> Images:
    """Raises HostError that names the file."""

    def optional(path: Path | None, title: str) -> File | None:
        return None if path is None else read_file(path, title)

    return Images(
        kernel=optional(spec.kernel, "kernel"),
        initrd=optional(spec.initrd, "initrd"),
        dtb=optional(spec.dtb, "device tree"),
        bios=optional(spec.bios, "firmware"),
        loaded=tuple(read_file(loader.path, "loader file") for loader in spec.loaders if isinstance(loader, Loader)),
    )


def unpacked(file: File) -> bytes:
    """The contents, out of gzip if they are in it.  Raises UserError."""
    if not file.data.startswith(GZIP_MAGIC):
        return file.data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(file.data)) as stream:
            data = stream.read(LARGEST_KERNEL + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file.title} '{file.path}' is damaged: {error}") from error
    if len(data) > LARGEST_KERNEL:
        raise UserError(f"{file.title} '{file.path}' unpacks to more than {LARGEST_KERNEL >> 20} MiB")
    return data


def check_flat(file: File, data: bytes) -> None:
    """A flat binary can be anything, but for what is certainly a mistake.  Raises UserError."""
    if not data:
        raise UserError(f"{file.title} '{file.path}' is empty")
    for at, magic, what in _OTHERS:
        if data.startswith(magic, at):
            raise UserError(f"{file.title} '{file.path}' is {what}: this machine has another CPU")


def elf_pieces(file: File, data: bytes, machines: Sequence[str]) -> tuple[list[Piece], int]:
    """The loadable segments by physical address, and the physical address of the entry point.

    ``machines``: the ``e_machine`` values that this CPU runs, e.g. ``EM_AARCH64``.  Raises UserError.
    """
    # 20 ms that a Linux image does not need
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(io.BytesIO(data))
        machine = elf["e_machine"]
        entry = int(elf["e_entry"])
        segments = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
        pieces = []
        for segment in segments:
            size, offset, filled = int(segment["p_memsz"]), int(segment["p_offset"]), int(segment["p_filesz"])
            if offset + filled > len(data) or filled > size:
                raise UserError(f"{file.title} '{file.path}' is damaged: a segment reaches behind the file's end")
            if size:
                pieces.append(Piece(int(segment["p_paddr"]), data[offset : offset + filled], size))
        for segment in segments:
            if segment["p_vaddr"] <= entry < segment["p_vaddr"] + segment["p_memsz"]:
                entry += int(segment["p_paddr"]) - int(segment["p_vaddr"])
                break
    except (ELFError, ValueError, KeyError, AssertionError, OverflowError, AttributeError) as error:
        raise UserError(f"{file.title} '{file.path}' is no ELF file that can be read: {error}") from error
    if machine not in machines:
        raise UserError(f"{file.title} '{file.path}' is for another CPU ({machine}, not {' or '.join(machines)})")
    if not pieces:
        raise UserError(f"{file.title} '{file.path}' holds nothing to load")
    return pieces, entry
