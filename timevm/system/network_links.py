"""The guest's network cards and the networks at the other ends of their cables.

In a replay there are none: what arrives is in the recording, what the guest sends goes nowhere, and no socket of the
host is touched.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from timevm.config.model import Config, UserNetdev
from timevm.engine.control.port import ReplayMode
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.network_cards import plan_cards
from timevm.engine.replay.events import NetworkInput
from timevm.engine.replay.replay_gate import LiveInputRefused
from timevm.errors import HostError, UserError
from timevm.network.settings import BadSetting, Forward, parse_place

if TYPE_CHECKING:
    from timevm.network.user_network import UserNetwork

_log = logging.getLogger(__name__)

#: frames of one card that wait for either side; what is more is lost, as on any cable
_MOST_WAITING = 2048
#: frames that the event loop takes before others have their turn (0.1 ms each)
_BATCH = 128


class _Link:
    """One card's cable.  ``send`` on the CPU thread, everything else on the event loop."""

    def __init__(self, card: int, loop: asyncio.AbstractEventLoop) -> None:
        self.card = card
        self.network: UserNetwork | None = None
        self._loop = loop
        self._lock = threading.Lock()
        self._frames: deque[bytes] = deque()
        self._called = False

    def send(self, frame: bytes) -> None:
        """From the guest.  Never waits; about 10 us when the event loop has to be told."""
        with self._lock:
            if len(self._frames) < _MOST_WAITING:
                self._frames.append(frame)
            if self._called:
                return
            self._called = True
        self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        with self._lock:
            frames = [self._frames.popleft() for _ in range(min(_BATCH, len(self._frames)))]
            self._called = bool(self._frames)
        if self._called:
            self._loop.call_soon(self._take)
        if self.network is not None:
            self.network.take(frames)


class NetworkLinks:
    """Made on the event loop before the machine, whose ``send_frame`` is ``transmit``; ``attend`` names it.

    ``open`` has all forwarded ports, ``close`` lets go of them.
    """

    def __init__(self, config: Config, mode: ReplayMode) -> None:
        self._config = config
        self._mode = mode
        self._plans = plan_cards(config.machine)
        loop = asyncio.get_running_loop()
        self._links = [_Link(plan.number, loop) for plan in self._plans]
        self._machine: Machine | None = None
        self._inject: Callable[[NetworkInput], None] | None = None
        self._ending: asyncio.Task[None] | None = None

    def transmit(self, card: int, frame: bytes) -> None:
        """CPU thread: what the guest sent."""
        self._links[card].send(frame)

    async def open(self) -> None:
        """Raises UserError, HostError; then nothing is left open."""
        used = {plan.netdev for plan in self._plans}
        for netdev in self._config.netdevs:
            if netdev.identifier not in used:
                _log.warning("warning: netdev %s has no peer", netdev.identifier)
        for plan in self._plans:
            if plan.netdev is None:
                _log.warning("warning: nic %s has no peer", plan.name)
        if self._mode is ReplayMode.PLAY:
            return
        try:
            for plan, link in zip(self._plans, self._links, strict=True):
                found = next((each for each in self._config.netdevs if each.identifier == plan.netdev), None)
                if found is not None:
                    link.network = self._network(plan.number, found)
                    await link.network.open()
        except HostError as error:
            await self.close()
            raise HostError(f"-netdev user,id={plan.netdev}: {error}") from error

    def _network(self, card: int, netdev: UserNetdev) -> UserNetwork:
        from timevm.network.user_network import UserNetwork  # most machines have none, and it takes a while

        def deliver(frame: bytes) -> None:
            if self._inject is None or self._waiting(card) >= _MOST_WAITING:
                return
            try:
                self._inject(NetworkInput(card, frame))
            except LiveInputRefused:  # what was recorded is looked back at: the networks end here
                self._ending = asyncio.create_task(self.close(), name="end of the networks")

        return UserNetwork(netdev.settings, deliver, lambda: self._waiting(card) > 0)

    def _waiting(self, card: int) -> int:
        return 0 if self._machine is None else self._machine.gate.frames_waiting(card)

    def attend(self, machine: Machine) -> None:
        self._machine = machine
        self._inject = machine.inject

    def listens(self, card: int) -> list[tuple[str, int]]:
        """Where the forwarded ports of a card are heard, in the order of the rules: (host, port)."""
        network = self._links[card].network
        return [] if network is None else list(network.listens)

    # ---- ForwardingPort of the monitors

    async def forward(self, netdev: str | None, rule: str) -> None:
        network = self._find(netdev)
        try:
            forward = Forward.parse(rule)
        except BadSetting as error:
            raise UserError(str(error)) from error
        await network.forward(forward)

    async def stop_forwarding(self, netdev: str | None, rule: str) -> bool:
        network = self._find(netdev)
        try:
            return network.stop_forwarding(*parse_place(rule))
        except BadSetting as error:
            raise UserError(str(error)) from error

    def _find(self, netdev: str | None) -> UserNetwork:
        """By its id, or the first one.  Raises UserError, in QEMU's words."""
        found = {
            plan.netdev: link.network
            for plan, link in zip(self._plans, self._links, strict=True)
            if link.network is not None
        }
        if netdev is not None and netdev not in found:
            raise UserError(f"unrecognized netdev id '{netdev}'")
        if not found:
            raise UserError("user mode network stack not in use")
        return found[netdev] if netdev is not None else next(iter(found.values()))

    async def close(self) -> None:
        """Idempotent."""
        self._inject = None
        for link in self._links:
            if link.network is not None:
                await link.network.close()
                link.network = None
