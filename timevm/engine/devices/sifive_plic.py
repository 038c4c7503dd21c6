"""The platform-level interrupt controller (RISC-V PLIC specification 1.0.0; registers as in QEMU's ``sifive_plic.c``).

All sources are level-sensitive: one is pending while its wire is up and nobody is serving it.  It is served from the
claim to the completion, and pends again at once if the wire is still up then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from timevm.engine.devices.base import InterruptLine
from timevm.engine.devices.word_access import WordRegisters
from timevm.errors import InternalError

PRIORITY, PENDING, ENABLE, CONTEXT = 0x0, 0x1000, 0x2000, 0x20_0000
ENABLE_STRIDE, CONTEXT_STRIDE = 0x80, 0x1000
THRESHOLD, CLAIM = 0x0, 0x4
#: priorities are 0 (never) to 7
PRIORITY_MASK: Final = 7
#: the register map has room for so many
MOST_SOURCES: Final = 1024
_WORD: Final = 0xFFFF_FFFF


class _Context:
    """One target: a privilege mode of a hart."""

    __slots__ = ("enabled", "level", "line", "threshold")

    def __init__(self, line: InterruptLine) -> None:
        self.line = line
        self.reset()

    def reset(self) -> None:
        self.enabled = 0
        self.threshold = 0
        self.level = False


class SifivePlic(WordRegisters):
    """A Device and Stateful.  Sources are 1 to ``source_count`` - 1; ``targets`` get the lines of the contexts.

    A look at what is pending costs a few operations for each source that is.
    """

    window = 0x60_0000

    def __init__(self, name: str, source_count: int, targets: Sequence[InterruptLine]) -> None:
        if not 1 <= source_count <= MOST_SOURCES:
            raise InternalError(f"a PLIC has 1 to {MOST_SOURCES} sources, not {source_count}: correct the board")
        self.name = name
        self._count = source_count
        self._sources = (1 << source_count) - 2  # there is no source 0
        self._contexts = [_Context(line) for line in targets]
        self.reset()

    def reset(self) -> None:
        self._priorities = bytearray(self._count)
        self._lines = 0
        self._served = 0
        for context in self._contexts:
            context.reset()

    def state(self) -> dict[str, Any]:
        size = (self._count + 7) // 8
        return {
            "priorities": bytes(self._priorities),
            "lines": self._lines.to_bytes(size, "little"),
            "served": self._served.to_bytes(size, "little"),
            "contexts": [
                {
                    "enabled": context.enabled.to_bytes(size, "little"),
                    "threshold": context.threshold,
                    "level": context.level,
                }
                for context in self._contexts
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._priorities = bytearray(state["priorities"])
        self._lines = int.from_bytes(state["lines"], "little")
        self._served = int.from_bytes(state["served"], "little")
        for context, saved in zip(self._contexts, state["contexts"], strict=True):
            context.enabled = int.from_bytes(saved["enabled"], "little")
            context.threshold = saved["threshold"]
            context.level = saved["level"]

    # the wires

    def line(self, source: int) -> InterruptLine:
        """The input wire of a source, for a device's constructor."""
        if not 1 <= source < self._count:
            raise InternalError(f"the PLIC has sources 1 to {self._count - 1}, not {source}: correct the board")
        return _Wire(self, source)

    def set_line(self, source: int, level: bool) -> None:
        bit = 1 << source
        if bool(self._lines & bit) != level:
            self._lines ^= bit
            self._update()

    # the guest

    def read_word(self, offset: int) -> int:
        if offset < PENDING:
            source = offset // 4
            return self._priorities[source] if source < self._count else 0
        if offset < ENABLE:
            return self._pending() >> 8 * (offset - PENDING) & _WORD
        if offset < CONTEXT:
            number, place = divmod(offset - ENABLE, ENABLE_STRIDE)
            return self._contexts[number].enabled >> 8 * place & _WORD if number < len(self._contexts) else 0
        number, register = divmod(offset - CONTEXT, CONTEXT_STRIDE)
        if number < len(self._contexts):
            if register == THRESHOLD:
                return self._contexts[number].threshold
            if register == CLAIM:
                return self._claim(self._contexts[number])
        return 0

    def write_word(self, offset: int, value: int) -> None:
        if offset < PENDING:
            source = offset // 4
            if 1 <= source < self._count:
                self._priorities[source] = value & PRIORITY_MASK
        elif offset < ENABLE:
            return
        elif offset < CONTEXT:
            number, place = divmod(offset - ENABLE, ENABLE_STRIDE)
            if number >= len(self._contexts):
                return
            context = self._contexts[number]
            context.enabled = (context.enabled & ~(_WORD << 8 * place) | value << 8 * place) & self._sources
        else:
            number, register = divmod(offset - CONTEXT, CONTEXT_STRIDE)
            if number >= len(self._contexts):
                return
            context = self._contexts[number]
            if register == THRESHOLD:
                context.threshold = value & PRIORITY_MASK
            elif register == CLAIM and value < self._count and context.enabled & 1 << value:
                self._served &= ~(1 << value)
        self._update()

    def _pending(self) -> int:
        return self._lines & ~self._served

    def _claim(self, context: _Context) -> int:
        """The source with the highest priority; the threshold does not matter here (specification, chapter 9)."""
        source, priority = self._highest(context)
        if not priority:
            return 0
        self._served |= 1 << source
        self._update()
        return source

    def _highest(self, context: _Context) -> tuple[int, int]:
        """Pending and enabled: its number and priority, of equals the lowest number; priority 0: there is none."""
        best = priority = 0
        candidates = self._pending() & context.enabled
        while candidates:
            source = (candidates & -candidates).bit_length() - 1
            candidates &= candidates - 1
            if self._priorities[source] > priority:
                best, priority = source, self._priorities[source]
        return best, priority

    def _update(self) -> None:
        for context in self._contexts:
            level = self._highest(context)[1] > context.threshold
            if level != context.level:
                context.level = level
                context.line.set(level)


class _Wire:
    """One input of the PLIC."""

    __slots__ = ("_plic", "_source")

    def __init__(self, plic: SifivePlic, source: int) -> None:
        self._plic = plic
        self._source = source

    def set(self, level: bool) -> None:
        self._plic.set_line(self._source, level)
