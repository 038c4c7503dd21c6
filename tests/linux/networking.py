"""Machines of this folder with a network card, recorded beside a real server of the host."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.linux.harness import PATIENCE, SLICE, Outcome, Terminal, finish, linux, steps_of
from tests.linux.test_pc_debian import linux_pc
from timevm.config.model import Config, UserNetdev
from timevm.engine.control.port import ReplayMode
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.spec import DeviceOption, MachineSpec
from timevm.engine.replay.events import NetworkInput, SerialInput
from timevm.engine.replay.opening import open_recording
from timevm.network.settings import UserSettings
from timevm.system.network_links import NetworkLinks


@contextmanager
def http_server(body: bytes) -> Iterator[tuple[int, list[str]]]:
    """A server on the host's loopback that answers everything with ``body``: its port, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def networked(driver: str, steps: str, recording: Path, port: int) -> MachineSpec:
    """Debian on the board that has ``driver`` (arm64 of both with virtio-mmio), its card on a user-mode network."""
    spec = linux_pc(steps, recording) if driver in ("virtio-net-pci", "rtl8139") else linux(steps, recording)
    return with_card(spec, driver, port)


def with_card(spec: MachineSpec, driver: str, port: int) -> MachineSpec:
    card = DeviceOption(driver, None, (("netdev", "n0"),))
    return replace(spec, append=f"{spec.append} tvmport={port}", devices=(card,))


def links_of(spec: MachineSpec, settings: UserSettings | None = None) -> NetworkLinks:
    """Of a machine that is recorded; to be opened on the event loop."""
    config = Config("test", spec, netdevs=(UserNetdev("n0", settings or UserSettings()),))
    return NetworkLinks(config, ReplayMode.RECORD)


@dataclass(frozen=True)
class Session:
    """A machine that is being recorded, as somebody on the host sees it."""

    machine: Machine
    terminal: Terminal
    links: NetworkLinks

    async def shows(self, text: bytes) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.terminal.console:
            assert time.monotonic() < deadline, f"never shown: {text!r}; {bytes(self.terminal.console)!r}"
            await asyncio.sleep(0.02)

    def type(self, text: bytes) -> None:
        self.machine.inject(SerialInput(0, text))


async def _nobody(session: Session) -> None:
    """The guest is left alone."""


async def record_networked(
    spec: MachineSpec,
    settings: UserSettings | None = None,
    somebody: Callable[[Session], Awaitable[None]] = _nobody,
) -> Outcome:
    """The machine in a thread of its own, the network on this event loop, as in the real program, and ``somebody``."""
    links = links_of(spec, settings)
    await links.open()
    try:
        terminal = Terminal()
        machine = build_machine(spec, terminal.transmit, send_frame=links.transmit)
        links.attend(machine)
        running = asyncio.to_thread(finish, machine, terminal, steps_of(SLICE), lambda machine: None)
        outcome, _ = await asyncio.gather(running, somebody(Session(machine, terminal, links)))
        return outcome
    finally:
        await links.close()


def frames_of(recording: Path) -> list[int]:
    """The icounts at which frames arrived."""
    reader = open_recording(recording)
    try:
        return [entry.icount for entry in reader.entries() if isinstance(entry.event, NetworkInput)]
    finally:
        reader.close()


def around(icounts: Sequence[int], generator: random.Random) -> Iterator[int]:
    """Ascending limits, dense around each of ``icounts``."""
    places = {icount + generator.randint(-40, 40) for icount in icounts for _ in range(8)}
    return iter(sorted(place for place in places | set(icounts) if place > 0))
