"""The client's break- and watchpoints: what was inserted, as stops of the machine, and named in its stop replies."""

from __future__ import annotations

from timevm.engine.control.port import DebugStop, Stops, WatchKind, Watchpoint
from timevm.gdb.requests import InsertStop, RemoveStop, StopKind

_WATCHES = {StopKind.WRITE: WatchKind.WRITE, StopKind.READ: WatchKind.READ, StopKind.ACCESS: WatchKind.ACCESS}
#: in a stop reply
_NAMES = {WatchKind.WRITE: b"watch", WatchKind.READ: b"rwatch", WatchKind.ACCESS: b"awatch"}
#: bytes of the longest access of one instruction (a pair of vector registers)
_LONGEST_ACCESS = 32

Entry = tuple[StopKind, int, int]


class StopTable:
    """Inserting twice is inserting once, and removing what is not there is nothing (so says gdb's manual)."""

    def __init__(self) -> None:
        self._entries: set[Entry] = set()

    def __bool__(self) -> bool:
        return bool(self._entries)

    def with_change(self, change: InsertStop | RemoveStop) -> StopTable:
        """The table afterwards; this one stays as it is, should the machine refuse."""
        entry = (change.kind, change.address, change.size)
        table = StopTable()
        table._entries = self._entries | {entry} if isinstance(change, InsertStop) else self._entries - {entry}
        return table

    @property
    def stops(self) -> Stops:
        return Stops(
            frozenset(address for kind, address, _ in self._entries if kind not in _WATCHES),
            frozenset(
                Watchpoint(address, size, _WATCHES[kind]) for kind, address, size in self._entries if kind in _WATCHES
            ),
        )

    def kinds_at(self, address: int) -> set[StopKind]:
        return {kind for kind, at, _ in self._entries if at == address and kind not in _WATCHES}

    def watch_of(self, stop: DebugStop) -> Watchpoint | None:
        """Which of ours ``stop`` is about: the lowest that the access can have touched."""
        if stop.watch is None:
            return None
        address = stop.watch.address if stop.address is None else stop.address
        wanted = {WatchKind.ACCESS, WatchKind.WRITE if stop.is_write else WatchKind.READ}
        hit = [
            watch
            for watch in self.stops.watchpoints
            if watch.kind in wanted and address - watch.length < watch.address < address + _LONGEST_ACCESS
        ]
        return min(hit, key=lambda watch: (watch.address, watch.length), default=stop.watch)

    def written(self) -> list[Watchpoint]:
        """Those that a write concerns, in order of address."""
        watches = (watch for watch in self.stops.watchpoints if watch.kind is not WatchKind.READ)
        return sorted(watches, key=lambda watch: (watch.address, watch.length))


def watch_field(watch: Watchpoint, access: int | None) -> bytes:
    """``watch:ADDRESS;``: an address inside of the watched range, for gdb looks for the range that has it."""
    address = watch.address if access is None else min(max(access, watch.address), watch.address + watch.length - 1)
    return b"%s:%x;" % (_NAMES[watch.kind], address)
