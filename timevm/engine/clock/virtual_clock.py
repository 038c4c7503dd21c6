"""Virtual time: ``(icount << shift) + warp`` ns, and the devices' timers in it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from timevm.errors import InternalError


class _Timer:
    """One device's timer (``devices.base.Timer``)."""

    __slots__ = ("_clock", "deadline", "fire", "name")

    def __init__(self, clock: VirtualClock, name: str, fire: Callable[[], None]) -> None:
        self._clock = clock
        self.name = name
        self.fire = fire
        self.deadline: int | None = None

    def arm(self, deadline_ns: int) -> None:
        if deadline_ns != self.deadline:
            self.deadline = deadline_ns
            self._clock._armed(self)

    def cancel(self) -> None:
        self.deadline = None


class VirtualClock:
    """``devices.base.VirtualTime`` for the devices; the machine asks it what is due.

    ``shift``: an instruction takes ``1 << shift`` ns.  ``icount`` is exact inside a device access too.  ``sooner`` is
    called when a timer is armed that is due before all others: whoever runs the CPU must look at its bound again.
    """

    def __init__(self, shift: int, icount: Callable[[], int], sooner: Callable[[], None]) -> None:
        self.shift = shift
        #: ns by which idle jumps have moved time forward, summed up
        self.warp_ns = 0
        self._icount = icount
        self._sooner = sooner
        self._timers: dict[str, _Timer] = {}
        #: (deadline, name), with stale entries of timers that were armed anew or cancelled
        self._heap: list[tuple[int, str]] = []

    # ---- devices

    def now_ns(self) -> int:
        return (self._icount() << self.shift) + self.warp_ns

    def timer(self, name: str, fire: Callable[[], None]) -> _Timer:
        if name in self._timers:
            raise InternalError(f"two timers are called {name}: correct the board")
        timer = self._timers[name] = _Timer(self, name, fire)
        return timer

    def _armed(self, timer: _Timer) -> None:
        assert timer.deadline is not None
        entry = (timer.deadline, timer.name)
        first = self._first()
        heapq.heappush(self._heap, entry)
        if first is None or entry < (first.deadline or 0, first.name):
            self._sooner()

    # ---- the machine

    @property
    def timer_names(self) -> list[str]:
        """In the order in which those that are due at once fire."""
        return sorted(self._timers)

    def _first(self) -> _Timer | None:
        """The timer that fires next: the earliest, of equals the one whose name comes first.  O(log n) amortised."""
        while self._heap:
            deadline, name = self._heap[0]
            timer = self._timers[name]
            if timer.deadline == deadline:
                return timer
            heapq.heappop(self._heap)
        return None

    def next_deadline_ns(self) -> int | None:
        """Of the devices' timers; None: none is armed."""
        first = self._first()
        return None if first is None else first.deadline

    def next_icount(self) -> int | None:
        """The first icount at which a timer is due, if nothing jumps before; maybe a past one.  None: no timer."""
        deadline = self.next_deadline_ns()
        if deadline is None:
            return None
        return max(0, -(-(deadline - self.warp_ns) >> self.shift))

    def fire_next_due(self) -> bool:
        """Let the first due timer fire, disarmed before; True if there was one."""
        first = self._first()
        if first is None or first.deadline is None or first.deadline > self.now_ns():
            return False
        heapq.heappop(self._heap)
        first.deadline = None
        first.fire()
        return True

    def warp(self, ns: int) -> None:
        """An idle machine's time jumps."""
        if ns < 0:
            raise InternalError(f"virtual time cannot jump by {ns} ns: it only goes forward")
        self.warp_ns += ns

    def reset(self) -> None:
        """All timers off; time goes on."""
        for timer in self._timers.values():
            timer.deadline = None
        self._heap.clear()

    def state(self) -> dict[str, Any]:
        armed = {name: timer.deadline for name, timer in sorted(self._timers.items()) if timer.deadline is not None}
        return {"warp_ns": self.warp_ns, "armed": armed}

    def restore(self, state: dict[str, Any]) -> None:
        """Calls nobody."""
        self.warp_ns = state["warp_ns"]
        for name, timer in self._timers.items():
            timer.deadline = state["armed"].get(name)
        self._heap = sorted((deadline, name) for name, deadline in state["armed"].items())
