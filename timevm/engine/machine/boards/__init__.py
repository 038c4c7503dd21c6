"""The boards: tables of what is where, and how it is put together.  ``board_for`` finds one by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from timevm.engine.machine.assembly import Assembly, Order
from timevm.errors import UserError


@dataclass(frozen=True, slots=True)
class Board:
    """``module`` has ``assemble(order: Order) -> Assembly``; it is imported when the board is wanted."""

    architecture: str
    name: str
    module: str
    #: icount shift of ``shift=auto``: about as many virtual ns per instruction as the host needs
    auto_shift: int

    def assemble(self, order: Order) -> Assembly:
        """Raises UserError, HostError for what this machine cannot be."""
        build: Callable[[Order], Assembly] = import_module(self.module).assemble
        return build(order)


BOARDS = (
    Board("aarch64", "virt", "timevm.engine.machine.boards.virt", 1),
    Board("x86_64", "pc", "timevm.engine.machine.boards.pc", 2),
    Board("i386", "pc", "timevm.engine.machine.boards.pc", 2),
)


def board_for(architecture: str, name: str) -> Board:
    """Raises UserError."""
    for board in BOARDS:
        if (board.architecture, board.name) == (architecture, name):
            return board
    known = ", ".join(board.name for board in BOARDS if board.architecture == architecture) or "none"
    raise UserError(f"unsupported machine type '{name}' of {architecture} (known: {known})")
