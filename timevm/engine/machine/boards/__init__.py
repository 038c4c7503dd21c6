"""The boards: tables of what is where, and how it is put together.  ``board_for`` finds one by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from timevm.engine.machine.assembly import Assembly, Order
from timevm.engine.machine.spec import MachineSpec
from timevm.errors import UserError


@dataclass(frozen=True, slots=True)
class Board:
    """``module`` has ``assemble(order: Order) -> Assembly``; it is imported when the board is wanted."""

    architecture: str
    name: str
    module: str
    #: icount shift of ``shift=auto``: about as many virtual ns per instruction as the host needs
    auto_shift: int
    #: what starts the machine when it is given nothing to start, and how to get it
    firmware: Path | None = None
    firmware_hint: str = ""

    def with_firmware(self, spec: MachineSpec) -> MachineSpec:
        """With the board's own firmware if ``spec`` names nothing to start.  Raises UserError when it is missing."""
        if self.firmware is None or spec.bios or spec.kernel or spec.loaders:
            return spec
        if not self.firmware.exists():
            raise UserError(
                f"nothing to start: there is no -kernel and no -bios, and the machine's own firmware "
                f"'{self.firmware}' is missing: {self.firmware_hint}"
            )
        return replace(spec, bios=self.firmware)

    def assemble(self, order: Order) -> Assembly:
        """Raises UserError, HostError for what this machine cannot be."""
        build: Callable[[Order], Assembly] = import_module(self.module).assemble
        return build(order)


#: where Debian's package puts it
SEABIOS = Path("/usr/share/seabios/bios-256k.bin")
SEABIOS_HINT = "apt-get install seabios"

BOARDS = (
    Board("aarch64", "virt", "timevm.engine.machine.boards.virt", 1),
    Board("x86_64", "pc", "timevm.engine.machine.boards.pc", 2, SEABIOS, SEABIOS_HINT),
    Board("riscv64", "virt", "timevm.engine.machine.boards.virt_riscv", 1),
    Board("i386", "pc", "timevm.engine.machine.boards.pc", 2, SEABIOS, SEABIOS_HINT),
)


def board_for(architecture: str, name: str) -> Board:
    """Raises UserError."""
    for board in BOARDS:
        if (board.architecture, board.name) == (architecture, name):
            return board
    known = ", ".join(board.name for board in BOARDS if board.architecture == architecture) or "none"
    raise UserError(f"unsupported machine type '{name}' of {architecture} (known: {known})")
