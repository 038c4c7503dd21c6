"""What a machine is made of, before it is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from timevm.engine.machine.assembly import Assembly
from timevm.engine.machine.dirty_pages import DirtyPages
from timevm.engine.machine.disks import Disks
from timevm.engine.machine.machine_digest import MachineDigest
from timevm.engine.machine.network_cards import Cables
from timevm.engine.machine.outcome import ReplayMode
from timevm.engine.replay.build import Build
from timevm.engine.replay.gate import Gate
from timevm.engine.replay.identity import Identity


@dataclass(slots=True)
class Parts:
    """The builder fills it in."""

    name: str
    board: Assembly
    gate: Gate
    identity: Identity
    #: what a saved state of this machine means
    layout: Build
    dirty: DirtyPages
    digest: MachineDigest
    mode: ReplayMode = ReplayMode.NONE
    filename: str | None = None
    disks: Disks = field(default_factory=Disks)
    cables: Cables = field(default_factory=Cables)
    #: gets what network cards send: (card, frame), on the CPU thread
    send_frame: Callable[[int, bytes], None] = lambda card, frame: None
