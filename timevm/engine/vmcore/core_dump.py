"""One dump of the guest's memory into a core file, from the request to the last byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from timevm.engine.cpu.core_image import Note
from timevm.engine.cpu.mappings import Mappings
from timevm.engine.cpu.table_walk import MOST_PAGES
from timevm.engine.machine.memory_image import MemoryImage
from timevm.engine.vmcore.elf_core import Load, core_head
from timevm.engine.vmcore.ranges import Part, physical_loads, select, virtual_loads
from timevm.engine.vmcore.target import Target, open_target, words
from timevm.engine.vmcore.vmcoreinfo import find_note
from timevm.errors import HostError, UserError

#: bytes written between two looks at whether to go on
PIECE = 1 << 20
_END_OF_32_BITS = 1 << 32


class Dumpable(Protocol):
    """What a dump wants of a machine."""

    def memory_image(self) -> MemoryImage: ...

    def mappings(self) -> Mappings: ...


@dataclass(frozen=True, slots=True)
class DumpRequest:
    """``chosen``: physical addresses, None for all memory.  ``paging``: loaded where the page tables map it now."""

    filename: str
    chosen: range | None = None
    paging: bool = False


class CoreDump:
    """``take`` on the CPU thread, everything else on any.

    ``completed`` of ``total`` bytes of memory are in the file, or are zeroes that it need not hold.
    """

    def __init__(self, request: DumpRequest, begun: Callable[[], None] = lambda: None) -> None:
        """``begun`` is called on the CPU thread when nothing but writing can fail any more."""
        self.request = request
        self.completed = 0
        self.total = 0
        #: writing has begun
        self.has_begun = False
        self._begun = begun
        self._cancelled = False

    def cancel(self) -> None:
        """``take`` ends soon, with a UserError, and leaves no file."""
        self._cancelled = True

    def _go_on(self) -> None:
        if self._cancelled:
            raise UserError("dump: cancelled")

    def take(self, machine: Dumpable) -> None:
        """The machine stands meanwhile, and is not changed: 1 to 3 s for each GiB that is not zero, else 1 ms.

        Raises UserError for what cannot be dumped, HostError if it cannot be written; then there is no file.
        """
        self._go_on()
        image = machine.memory_image()
        parts = select(image.blocks, self.request.chosen)
        self.total = sum(part.size for part in parts)
        if not parts:
            raise UserError("dump: no guest memory to dump")
        loads = _loads(parts, machine, self.request.paging)
        head = core_head(image.processor.machine, _file_bits(image), _notes(image), loads)
        target = open_target(self.request.filename, self._go_on)
        try:
            self.has_begun = True
            self._begun()
            self._write(target, head, parts)
        except BaseException:
            target.abandon()
            raise

    def _write(self, target: Target, head: bytes, parts: list[Part]) -> None:
        what = "write elf header"
        try:
            target.write(head)
            what = "save memory"
            for part in parts:
                for data, size in part.pieces(PIECE):
                    self._go_on()
                    if data is None:
                        target.skip(size)
                    else:
                        target.write(data)
                    self.completed += size
            target.finish()
        except OSError as failure:
            raise HostError(f"dump: failed to {what}: {words(failure)}") from failure


def _loads(parts: list[Part], machine: Dumpable, paging: bool) -> list[Load]:
    """Raises UserError."""
    mappings = machine.mappings() if paging else None
    if mappings is None or mappings.absent:
        return physical_loads(parts)
    if mappings.more_from is not None:
        raise UserError(f"dump: the guest's page tables map more than {MOST_PAGES} pages: dump without paging")
    loads = virtual_loads(parts, mappings)
    if not loads:
        raise UserError("dump: no guest memory to dump: the guest's page tables map none of it")
    return loads


def _notes(image: MemoryImage) -> tuple[Note, ...]:
    """The processor's and, behind them, the one that a Linux guest has ready."""
    found = (find_note(block) for block in image.blocks)
    own = next((note for note in found if note is not None), None)
    return (*image.processor.notes, own) if own is not None else image.processor.notes


def _file_bits(image: MemoryImage) -> int:
    """Of the file's class: 32 where the processor's addresses are and memory ends below 4 GiB, as in QEMU."""
    small = image.processor.bits == 32 and all(block.end < _END_OF_32_BITS for block in image.blocks)
    return 32 if small else 64
