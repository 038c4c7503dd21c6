"""``-device loader``: files and values put into RAM beside (or instead of) a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from timevm.engine.machine.images import ELF_MAGIC, Images, Piece, elf_pieces, unpacked
from timevm.engine.machine.spec import LoaderData, MachineSpec
from timevm.errors import UserError


def loader_pieces(spec: MachineSpec, images: Images, machines: Sequence[str]) -> tuple[list[Piece], int | None]:
    """What the loaders put into RAM, in their order, and where the CPU starts if one says so.  Raises UserError."""
    pieces: list[Piece] = []
    start: int | None = None
    files = iter(images.loaded)
    for loader in spec.loaders:
        if isinstance(loader, LoaderData) and loader.sets_pc:
            start = loader.address
            continue
        if isinstance(loader, LoaderData):
            pieces.append(Piece(loader.address, loader.data, len(loader.data)))
            continue
        file = next(files)
        entry = loader.address
        if not loader.raw and file.data.startswith(ELF_MAGIC):
            found, entry = elf_pieces(file, file.data, machines)
            pieces += found
        elif loader.address is None:
            raise UserError(f"loader file '{file.path}' is no ELF file: say where it goes with addr=")
        else:
            data = file.data if loader.raw else unpacked(file)
            pieces.append(Piece(loader.address, data, len(data)))
        if loader.sets_pc:
            start = entry
    return pieces, start


def check_places(pieces: Sequence[tuple[str, Piece]], base: int, end: int) -> None:
    """Everything lies in RAM and nothing on top of another.  Raises UserError that names both."""
    ordered = sorted(pieces, key=lambda piece: piece[1].address)
    for title, piece in ordered:
        if piece.address < base or piece.end > end:
            raise UserError(
                f"{title} does not fit into RAM: it needs {piece.address:#x} to {piece.end:#x}, "
                f"RAM is {base:#x} to {end:#x}. Give the machine more with -m"
            )
    for (title, piece), (next_title, next_piece) in pairwise(ordered):
        if piece.end > next_piece.address:
            raise UserError(
                f"{title} ({piece.address:#x} to {piece.end:#x}) and {next_title} "
                f"({next_piece.address:#x} to {next_piece.end:#x}) overlap: give the machine more RAM with -m, "
                "or load them elsewhere"
            )
