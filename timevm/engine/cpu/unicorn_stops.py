"""Break- and watchpoints of a processor on Unicorn: set at any time, applied when it runs next.

An architecture's class says how its native side learns of breakpoints, and which accesses are to be looked at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from unicorn import unicorn_const as const

from timevm.engine.cpu import native, unicorn_library
from timevm.engine.cpu.base import WatchKind, Watchpoint
from timevm.errors import UserError

#: of a hook: no bounds
EVERYWHERE = (1, 0)
WATCH_KINDS = {
    WatchKind.READ: native.WATCH_READ,
    WatchKind.WRITE: native.WATCH_WRITE,
    WatchKind.ACCESS: native.WATCH_READ | native.WATCH_WRITE,
}


class UnicornStops(ABC):
    """What ``UnicornCpu`` stops at.  ``_forget_stops`` is called before any other method."""

    #: of native hooks on watched accesses
    access_hook: str
    watches_physical = False
    #: bytes of the shortest instruction
    shortest_instruction: int

    _common: native.Engine
    #: of Unicorn's engine
    _handle: int

    # ---- what the processor does for it

    @property
    @abstractmethod
    def icount(self) -> int: ...

    @property
    @abstractmethod
    def _stop_pc(self) -> int:
        """Where the CPU stands, as stops and breakpoints name it."""

    @abstractmethod
    def translate(self, address: int) -> int | None: ...

    @abstractmethod
    def flush_translations(self) -> None: ...

    @abstractmethod
    def code_changed(self, base: int, size: int) -> None: ...

    @abstractmethod
    def _hook(self, kind: int, name: str, instruction: int = 0, begin: int = 1, end: int = 0) -> int: ...

    @abstractmethod
    def _apply_breakpoints(self, changed: frozenset[int]) -> None:
        """Make ``_breakpoints`` known to the native side; ``changed`` are those that came or went."""

    # ---- set at any time

    def _forget_stops(self) -> None:
        self._breakpoints: frozenset[int] = frozenset()
        self._applied_breakpoints: frozenset[int] = frozenset()
        self._watchpoints: frozenset[Watchpoint] = frozenset()
        self._applied_watchpoints: frozenset[Watchpoint] = frozenset()
        self._watch_hooks: list[int] = []
        engine = self._common
        engine.skip_breakpoint_at = engine.skip_watchpoint_at = -1

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """Free; what changed is applied when the CPU runs next."""
        self._breakpoints = addresses

    def set_watchpoints(self, watchpoints: frozenset[Watchpoint]) -> None:
        """Free; while there are any, every load or store of the guest, as watched, takes Unicorn's slow path.

        Raises UserError for more than the native table holds.
        """
        if len(watchpoints) > native.MAX_WATCHES:
            raise UserError(f"more than {native.MAX_WATCHES} watchpoints")
        if not self.watches_physical and any(watch.physical for watch in watchpoints):
            raise UserError("this processor's watchpoints are of virtual addresses only")
        self._watchpoints = watchpoints

    def pass_breakpoint(self) -> None:
        self._common.skip_breakpoint_at = self.icount
        self._common.skip_breakpoint_pc = self._stop_pc

    # ---- applied when it runs

    def _apply_stops(self) -> None:
        if self._breakpoints != self._applied_breakpoints:
            changed = self._breakpoints ^ self._applied_breakpoints
            self._applied_breakpoints = self._breakpoints
            self._apply_breakpoints(changed)
            self._forget_code_at(changed)
        if self._watchpoints != self._applied_watchpoints or self._watched_pages_moved():
            self._apply_watchpoints()

    def _forget_code_at(self, addresses: frozenset[int]) -> None:
        places = [self.translate(address) for address in addresses]
        if None in places:
            self.flush_translations()  # it may have been translated in another address space
        for place in places:
            if place is not None:
                self.code_changed(place, self.shortest_instruction)

    def _apply_watchpoints(self) -> None:
        engine = self._common
        reads = any(watch.kind is not WatchKind.WRITE for watch in self._watchpoints | self._applied_watchpoints)
        self._applied_watchpoints = self._watchpoints
        for handle in self._watch_hooks:
            unicorn_library.check(unicorn_library.hook_delete(self._handle, handle), "remove a watchpoint")
        self._watch_hooks.clear()
        engine.watch_count = len(self._watchpoints)
        for place, watch in enumerate(sorted(self._watchpoints, key=lambda watch: (watch.address, watch.length))):
            engine.watches[place] = native.Watch(watch.address, watch.length, _native_kind(watch))
        wanted = 0
        for watch in self._watchpoints:
            wanted |= WATCH_KINDS[watch.kind]
        # who watches writes only leaves the loads, of which there are more, on their fast path
        ranges = self._watched_ranges()
        for kind, hook in ((native.WATCH_READ, const.UC_HOOK_MEM_READ), (native.WATCH_WRITE, const.UC_HOOK_MEM_WRITE)):
            if wanted & kind:
                self._watch_hooks += [self._hook(hook, self.access_hook, begin=begin, end=end) for begin, end in ranges]
        self._forget_fast_paths(reads)

    def _watched_ranges(self) -> list[tuple[int, int]]:
        """Physical addresses, both ends included, that hold all that is watched; ``(1, 0)`` is everything."""
        return [EVERYWHERE]

    def _watched_pages_moved(self) -> bool:
        """The ranges are not the same any longer."""
        return False

    def _forget_fast_paths(self, reads: bool) -> None:
        """What is watched has changed: accesses that were seen to need no look do now, or the other way round.

        ``reads``: some of them may be loads.
        """
        self.flush_translations()


def _native_kind(watch: Watchpoint) -> int:
    return WATCH_KINDS[watch.kind] | (native.WATCH_PHYSICAL if watch.physical else 0)
