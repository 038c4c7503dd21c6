"""What a board writes into RAM before the first instruction, and where that is."""

from __future__ import annotations

from dataclasses import dataclass

from timevm.engine.machine.images import Piece


@dataclass(frozen=True, slots=True)
class Placement:
    """``arguments`` go into the first argument registers of the architecture's calling convention."""

    pieces: tuple[Piece, ...]
    start: int
    arguments: tuple[int, ...]
    #: the blob, among the pieces or not
    device_tree: bytes
