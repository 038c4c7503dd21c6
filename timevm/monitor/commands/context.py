"""What commands work on: the machine, and the facts about this process that only the application knows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import timevm
from timevm.engine.control.events import EventStream
from timevm.engine.control.port import RunResult, VmPort
from timevm.engine.control.port import SnapshotInfo as VmSnapshot
from timevm.engine.control.run_state import RunState
from timevm.errors import UserError
from timevm.monitor.commands.dumps import Dumps
from timevm.monitor.commands.jobs import JobTable
from timevm.monitor.commands.turns import Turns
from timevm.qmp_schema.block import BlockDeviceInfo, BlockInfo, BlockStats, SnapshotInfo
from timevm.qmp_schema.extension import TimevmCheckpoints
from timevm.qmp_schema.machine import MachineInfo

_log = logging.getLogger(__name__)

#: the QEMU whose commands and texts timevm keeps to
QEMU_VERSION = (7, 2, 0)
PACKAGE = f"timevm {timevm.__version__}"
NO_UUID = UUID(int=0)


class ChardevPort(Protocol):
    """A character device as ``query-chardev`` lists it."""

    @property
    def label(self) -> str: ...

    @property
    def filename(self) -> str:
        """Where it leads now (``disconnected:…`` while nobody is there)."""

    @property
    def frontend_open(self) -> bool: ...


@dataclass
class Chardev:
    """A ``ChardevPort``.  Whoever owns it keeps ``filename`` true."""

    label: str
    filename: str
    frontend_open: bool = True


@dataclass(frozen=True)
class NetworkClient:
    """One end of a network cable, as ``info network`` lists it with the other; ``kind`` is ``nic`` or ``user``."""

    name: str
    kind: str
    details: str
    filters: tuple[str, ...] = ()
    peer: NetworkClient | None = None


class BlockPort(Protocol):
    """The disks as the block commands see them.  Errors are UserErrors in QEMU's words."""

    async def devices(self) -> list[BlockInfo]: ...

    async def nodes(self) -> list[BlockDeviceInfo]: ...

    async def statistics(self) -> list[BlockStats]: ...

    async def save_snapshot(self, device: str, name: str) -> None: ...

    async def delete_snapshot(self, device: str, identifier: str | None, name: str | None) -> SnapshotInfo: ...


class ForwardingPort(Protocol):
    """Forwarded ports of user-mode networks, at run time.  Errors are UserErrors and HostErrors in QEMU's words."""

    async def forward(self, netdev: str | None, rule: str) -> None:
        """``netdev`` None: the first network."""

    async def stop_forwarding(self, netdev: str | None, rule: str) -> bool:
        """``rule`` without its guest's part; False if there is none such."""


@dataclass
class MonitorContext:
    """One per process, shared by all sessions.

    ``human_monitor`` executes a line of the human monitor (``timevm.monitor.hmp.run_hmp_line``): it lives a floor above
    the commands, so the application plugs it in.  ``checkpoints`` lists what the timeline keeps in memory.
    """

    vm: VmPort
    machines: Sequence[MachineInfo] = ()
    chardevs: list[ChardevPort] = field(default_factory=list)
    block: BlockPort | None = None
    networks: Sequence[NetworkClient] = ()
    forwarding: ForwardingPort | None = None
    human_monitor: Callable[[str, MonitorContext], Awaitable[str]] | None = None
    checkpoints: Callable[[], Awaitable[TimevmCheckpoints]] | None = None
    #: the monitor's ``gdbserver DEVICE``: starts, moves or ends (``none``) the gdb server, returns what to print
    gdb_server: Callable[[str], Awaitable[str]] | None = None
    #: of ``-uuid``
    uuid: UUID = NO_UUID
    #: prompt of the human monitor
    prompt: str = "(timevm) "
    #: what does not come from the machine (jobs, dumps)
    events: EventStream = field(default_factory=EventStream)
    jobs: JobTable = field(init=False)
    dumps: Dumps = field(init=False)
    turns: Turns = field(init=False)
    _seeks: set[asyncio.Task[RunResult]] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.jobs = JobTable(self.events)
        self.dumps = Dumps(self.vm, self.events)
        self.turns = Turns(lambda: self.vm.run_state is RunState.RUNNING)

    async def known_snapshots(self) -> list[VmSnapshot]:
        """Those that there are; none where there is no place for them."""
        try:
            return await self.vm.snapshots()
        except UserError:
            return []

    async def start_seek(self, icount: int) -> None:
        """Begin to seek without waiting for the arrival.  Raises what the machine says at once (UserError)."""
        seek = asyncio.get_running_loop().create_task(self.vm.seek(icount), name=f"seek to {icount}")
        self._seeks.add(seek)
        seek.add_done_callback(self._seek_ended)
        await asyncio.sleep(0)  # lets it begin: a refusal is there now
        if seek.done() and not seek.cancelled() and (refusal := seek.exception()) is not None:
            raise refusal

    def _seek_ended(self, seek: asyncio.Task[RunResult]) -> None:
        self._seeks.discard(seek)
        if not seek.cancelled() and (failure := seek.exception()) is not None:
            _log.warning("%s failed: %s", seek.get_name(), failure)

    async def close(self) -> None:
        """End what runs in the background."""
        for seek in list(self._seeks):
            seek.cancel()
        await asyncio.gather(*self._seeks, return_exceptions=True)
        await self.jobs.close()
        await self.dumps.close()


#: how a command is done: from its validated arguments to a model, a list of them, or plain JSON values
Handler = Callable[[MonitorContext, Any], Awaitable[Any]]
