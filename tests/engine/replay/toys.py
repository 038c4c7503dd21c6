"""A toy machine behind a gate: what it received, and a state that depends on every bit of it."""

from __future__ import annotations

from dataclasses import replace

import xxhash

from timevm.engine.replay.events import BlockCompletion, Digest, Event, Input, NetworkInput, Request, SerialInput
from timevm.engine.replay.gate import Gate
from timevm.engine.replay.identity import Identity

IDENTITY = Identity(
    machine="virt",
    cpu="cortex-a57",
    ram_bytes=512 << 20,
    shift=3,
    rtc_base_seconds=1_700_000_000,
    seed=bytes(range(32)),
    kernel="ab" * 32,
    append="console=ttyAMA0 'quoted' ünïcode",
    disks=(("hd0", "cd" * 32),),
)


def identity(**changes: object) -> Identity:
    return replace(IDENTITY, **changes)  # type: ignore[arg-type]  # names and types are the caller's business


class ToySink:
    """Takes ``room`` bytes a port; ``history`` is everything that happened, with its icount."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.icount = 0
        self.now_ns = 0
        self.history: list[tuple[int, int, object]] = []

    def capacity(self, event: Input) -> int:
        return self.room

    def apply(self, event: Event) -> None:
        assert isinstance(event, SerialInput | NetworkInput | Request | BlockCompletion)
        self.history.append((self.icount, self.now_ns, event))

    def digest(self) -> Digest:
        number = xxhash.xxh64_intdigest(repr((self.icount, self.now_ns, self.history)).encode())
        return Digest(number, number >> 1, number >> 2)

    def received(self, port: int = 0) -> bytes:
        events = [event for _, _, event in self.history]
        return b"".join(event.data for event in events if isinstance(event, SerialInput) and event.port == port)


class ToyMachine(ToySink):
    """Runs forward as the real machine does; the CPU idles wherever ``idle_at`` says so, with a timer ahead."""

    def __init__(self, gate: Gate, idle_every: int = 1000, timer_ns: int | None = 5000) -> None:
        super().__init__()
        self.gate = gate
        self.idle_every = idle_every
        self.timer_ns = timer_ns
        self.idled_at = 0

    def run(self, limit: int) -> str | None:
        """To ``limit``; or to the end of the recording, and why it ends."""
        while self.icount < limit:
            while self.gate.deliver(self.icount, self):
                pass
            over = self.gate.finished(self.icount)
            if over is not None:
                return over
            bound = min(limit, self.gate.horizon(self.icount))
            idle_at = (self.icount // self.idle_every + 1) * self.idle_every
            if self.icount and self.icount % self.idle_every == 0 and self.idled_at != self.icount:
                idle_at = self.icount
            if idle_at > bound:
                self.icount = bound
                continue
            self.icount = idle_at
            deadline = None if self.timer_ns is None else self.now_ns + self.timer_ns
            jump = self.gate.idle(self.icount, self.now_ns, deadline)
            if jump is not None:
                assert jump > 0
                self.now_ns += jump
                self.history.append((self.icount, self.now_ns, "idle"))
                self.idled_at = self.icount
        return None
