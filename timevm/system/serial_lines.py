"""The guest's serial ports and the character devices that they are connected to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from timevm.chardev.base import Backend
from timevm.chardev.outlet import Outlet
from timevm.engine.control.port import ReplayMode
from timevm.engine.machine.machine import Machine
from timevm.engine.replay.events import SerialInput
from timevm.engine.replay.replay_gate import LiveInputRefused

_log = logging.getLogger(__name__)

#: seconds in which the guest's bytes become one piece
_BATCH = 0.002
_PIECE = 1 << 14
#: bytes typed that may wait for the guest to take them, and seconds between two looks at whether it did
_BACKLOG, _LOOK_AGAIN = 4096, 0.01


class PastOutput:
    """Whether a byte is a new one, or was shown before: a way back of a replay may lead past its moment often.

    A byte is known by the icount of the instruction that sends it; ``restorations`` tells two passes over the same
    instruction from two bytes of one.
    """

    def __init__(self) -> None:
        self._shown = (-1, -1)

    def is_new(self, icount: int, restorations: int) -> bool:
        last, pass_ = self._shown
        if icount < last or (icount == last and restorations != pass_):
            return False
        self._shown = (icount, restorations)
        return True


class SerialLines:
    """``transmit`` is the machine's; ``run`` carries bytes both ways until cancelled, ``flush`` what is left.

    ``backends``: of each port, None: not connected.  Made on the event loop before the machine; ``attend`` names it.
    """

    def __init__(self, backends: Sequence[Backend | None]) -> None:
        self._backends = backends
        self._machine: Machine | None = None
        self._outlets = [None if backend is None else Outlet(self._kick) for backend in backends]
        self._past = [PastOutput() for _ in backends]
        self._sending = [asyncio.Lock() for _ in backends]
        self._refused = False

    def attend(self, machine: Machine) -> None:
        self._machine = machine

    def transmit(self, port: int, data: bytes) -> None:
        """CPU thread: the guest's output.  Never waits."""
        outlet = self._outlets[port] if port < len(self._outlets) else None
        if outlet is None:
            return
        machine = self._machine
        if machine is not None:
            is_new = self._past[port].is_new(machine.icount, machine.restorations)
            if machine.mode is ReplayMode.PLAY and not is_new:
                return
        outlet.put(data)

    def _kick(self) -> None:
        if self._machine is not None:
            self._machine.kick()

    def congested(self) -> bool:
        """Any thread: somebody does not take the guest's output: the machine had better pause."""
        return any(outlet is not None and outlet.congested for outlet in self._outlets)

    async def run(self, inject: Callable[[SerialInput], None]) -> None:
        async with asyncio.TaskGroup() as group:
            for port, (backend, outlet) in enumerate(zip(self._backends, self._outlets, strict=True)):
                if backend is not None and outlet is not None:
                    group.create_task(self._carry_out(port, backend, outlet), name=f"serial {port} out")
                    group.create_task(self._carry_in(port, backend, inject), name=f"serial {port} in")

    async def flush(self, seconds: float) -> None:
        """What the guest has sent is sent on; a peer that does not take it within ``seconds`` does not get it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for port, (backend, outlet) in enumerate(zip(self._backends, self._outlets, strict=True)):
                    if backend is not None and outlet is not None:
                        await self._send_all(port, backend, outlet)

    async def _carry_out(self, port: int, backend: Backend, outlet: Outlet) -> None:
        while True:
            await outlet.wait()
            await asyncio.sleep(_BATCH)
            await self._send_all(port, backend, outlet)

    async def _send_all(self, port: int, backend: Backend, outlet: Outlet) -> None:
        async with self._sending[port]:
            while data := outlet.take(_PIECE):
                await backend.send(data)

    async def _carry_in(self, port: int, backend: Backend, inject: Callable[[SerialInput], None]) -> None:
        assert self._machine is not None, "attend comes first"
        machine = self._machine
        while data := await backend.receive():
            while machine.gate.backlog(port) > _BACKLOG:  # noqa: ASYNC110 (the guest takes bytes without telling anybody)
                await asyncio.sleep(_LOOK_AGAIN)
            try:
                inject(SerialInput(port, data))
            except LiveInputRefused as refusal:
                if not self._refused:
                    self._refused = True
                    _log.warning("%s", refusal)
