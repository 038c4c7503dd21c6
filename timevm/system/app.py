"""One run of ``timevm-system-*``: ``Config`` → character devices → machine → ``Vm`` → servers → orderly end.

The order of the end is the point of this file: the recording is closed first, disks after it, sockets last.  What is
costly to import and not needed for the first instruction (monitors, the gdb server) is imported while the guest runs.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from timevm.chardev import terminal
from timevm.config import Config
from timevm.engine.control.port import ReplayMode
from timevm.engine.control.vm import Over, OverReason, Vm, VmDescription, VmPolicy
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.errors import InternalError, TimevmError
from timevm.system.history import History, history_of
from timevm.system.network_links import NetworkLinks
from timevm.system.process import TRACE, logging_to, pid_file
from timevm.system.serial_lines import SerialLines
from timevm.system.wiring import CharacterDevices

if TYPE_CHECKING:
    from timevm.system.front_ends import FrontEnds

_log = logging.getLogger(__name__)
_trace = logging.getLogger(TRACE)

_MODES = {"none": ReplayMode.NONE, "record": ReplayMode.RECORD, "play": ReplayMode.PLAY}
#: seconds in which the peers of serial ports take the guest's last words
_LAST_WORDS = 2.0
#: seconds after the first signal from which on another one ends the process at once, out of order
_PATIENCE = 2.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(config: Config) -> int:
    """The exit code.  Raises TimevmError if the machine cannot even begin; then nothing is left behind."""
    with ExitStack() as process:
        process.enter_context(logging_to(config.program, config.log_file))
        if config.unlogged_items:
            _log.warning(
                "-d %s: timevm has no such log; in a replay the monitor's 'instructions' shows what was executed last",
                ",".join(config.unlogged_items),
            )
        process.enter_context(pid_file(config.pidfile))
        process.callback(terminal.restore_all)
        return asyncio.run(_live_and_die(config))


async def _live_and_die(config: Config) -> int:
    return await _Daemon(config).run()


async def _log_resets(vm: Vm) -> None:
    with vm.subscribe() as events:
        async for event in events:
            if event.name == "RESET":
                _trace.info("CPU Reset (CPU 0): %s", event.data["reason"])


@dataclass(frozen=True, slots=True)
class _Parting:
    """``reason`` goes into the end mark of a recording; ``exit_code`` is what the process ends with."""

    reason: str
    exit_code: int


class _Daemon:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._mode = _MODES[config.machine.mode]
        #: done when the process shall end, also before there is a machine
        self._over: asyncio.Future[Over] = asyncio.Future()
        #: in the order in which they began (the values mean nothing)
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._front_ends: FrontEnds | None = None
        self._links: NetworkLinks | None = None
        self._first_signal: float | None = None
        self._said: set[str] = set()
        #: there was a first instruction, or there may be one
        self._begun = False

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup: as it was told
                loop.add_signal_handler(number, self._signalled, number)
        devices = CharacterDevices(self._config, lambda: self._end(Over(OverReason.QUIT, "host-qmp-quit")))
        loop.add_signal_handler(signal.SIGCONT, devices.continued)
        await devices.open()
        links = self._links = NetworkLinks(self._config, self._mode)
        try:
            await links.open()
            lines = SerialLines(devices.serial)
            machine = build_machine(self._config.machine, lines.transmit, send_frame=links.transmit)
            gc.freeze()
            gc.enable()
            lines.attend(machine)
            links.attend(machine)
            try:
                return await self._live(machine, devices, lines)
            finally:
                if self._mode is not ReplayMode.PLAY:
                    machine.finish("quit")  # only if something above failed: it has been done otherwise
                machine.close()
                if not self._begun and self._mode is ReplayMode.RECORD and self._config.machine.rrfile is not None:
                    self._config.machine.rrfile.unlink(missing_ok=True)  # nothing is left behind
        finally:
            await links.close()
            await devices.close()

    def _say(self, text: str) -> None:
        """Each sentence once: what stops the machine may come up again when it is left."""
        if text in self._said:
            return
        self._said.add(text)
        with suppress(OSError):  # the terminal may be gone: that is why we are told to end, perhaps
            for line in text.splitlines() or [""]:
                print(f"{self._config.program}: {line}", file=sys.stderr, flush=True)

    def _end(self, over: Over) -> None:
        """The first reason counts."""
        if not self._over.done():
            self._over.set_result(over)

    def _signalled(self, number: signal.Signals) -> None:
        now = asyncio.get_running_loop().time()
        if self._first_signal is not None:
            if now - self._first_signal > _PATIENCE:
                terminal.restore_all()
                os._exit(128 + number)
            return  # a terminal that is closed hangs up more than once
        self._first_signal = now
        self._end(Over(OverReason.QUIT, "host-signal"))
        self._say(f"terminating on signal {number.value}")

    # -- with a machine

    async def _live(self, machine: Machine, devices: CharacterDevices, lines: SerialLines) -> int:
        history = history_of(machine, self._config.machine, self._mode, looks_back=self._config.has_control)
        vm = self._make_vm(machine, history, lines)
        vm.over.add_done_callback(lambda over: self._end(over.result()))
        vm.start()
        parting = _Parting("quit", 1)
        try:
            for name, mux in devices.muxes.items():
                self._spawn(mux.run(), f"terminal {name}")
            self._spawn(lines.run(vm.inject), "serial ports")
            self._trace(vm, machine)
            if devices.waits:
                self._spawn(self._serve(vm, devices, history), "monitors")
            if not devices.waits or await self._wait_for(devices.wait_for_peers()):
                await self._begin(vm)
            if not devices.waits:
                self._spawn(self._serve(vm, devices, history), "monitors")
            parting = self._parting(vm, await self._over)
        finally:
            code = await self._leave(vm, machine, lines, parting)
        return code

    def _make_vm(self, machine: Machine, history: History, lines: SerialLines) -> Vm:
        config = self._config
        spec = config.machine
        return Vm(
            machine,
            VmDescription(spec.architecture, spec.machine, spec.cpu, spec.ram_bytes, config.name, self._mode),
            VmPolicy(no_reboot=spec.no_reboot, no_shutdown=config.no_shutdown, stays=config.has_control),
            time_travel=history.time_travel,
            look_back=history.look_back,
            snapshots=history.snapshots,
            messages=self._say,
            congested=lines.congested,
            run=history.run,
        )

    def _trace(self, vm: Vm, machine: Machine) -> None:
        """What ``-d`` asks for.  Before the machine runs."""
        if "trace:replay" in self._config.log_items:
            machine.trace = lambda icount, event: _trace.info("%d %s", icount, event)
        if "cpu_reset" in self._config.log_items:
            self._spawn(_log_resets(vm), "the log of resets")

    async def _begin(self, vm: Vm) -> None:
        """To the first instruction.  Raises UserError, HostError."""
        if self._config.loadvm is not None:
            await vm.load_snapshot(self._config.loadvm)
        self._begun = True
        if not self._config.start_paused:
            await vm.cont()

    async def _serve(self, vm: Vm, devices: CharacterDevices, history: History) -> None:
        """Begins it; whoever connects before waits as long as the imports take (a quarter of a second)."""
        if self._config.has_control:
            module = await asyncio.to_thread(import_module, "timevm.system.front_ends")
            front_ends: FrontEnds = module.FrontEnds(
                self._config, vm, devices, self._links, self._spawn, history.checkpoints
            )
            self._front_ends = front_ends
            front_ends.start()

    async def _wait_for(self, work: Coroutine[Any, Any, None]) -> bool:
        """False if the process shall end meanwhile."""
        task = asyncio.create_task(work)
        await asyncio.wait((task, self._over), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            return True
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return False

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Until the end; one that fails is reported, and the rest goes on."""

        async def guarded() -> None:
            try:
                await work
            except TimevmError as failure:
                self._say(f"{name}: {failure}")
            except Exception as failure:  # noqa: BLE001 (a server's bug must not cost the user the machine)
                _log.error("%s ended by a bug in timevm, please report it", name, exc_info=failure)

        task = asyncio.create_task(guarded(), name=name)
        self._tasks[task] = None
        task.add_done_callback(lambda task: self._tasks.pop(task, None))
        return task

    # -- the end

    def _parting(self, vm: Vm, over: Over) -> _Parting:
        if over.detail:
            vm.announce("SHUTDOWN", {"guest": False, "reason": over.detail})
        if over.reason is OverReason.GUEST:
            return _Parting("shutdown", over.exit_code)
        return _Parting("quit", 1 if over.reason is OverReason.FAILED else over.exit_code)

    async def _leave(self, vm: Vm, machine: Machine, lines: SerialLines, parting: _Parting) -> int:
        code = parting.exit_code
        if self._front_ends is not None:
            self._front_ends.context.dumps.cancel()  # the machine waits for whoever reads one
        try:
            await vm.leave(parting.reason)
        except InternalError as failure:
            self._say(str(failure))
            with suppress(OSError, RuntimeError, ValueError):  # what it is busy with is what a report needs
                faulthandler.dump_traceback()
            terminal.restore_all()
            os._exit(1)
        except TimevmError as failure:
            self._say(str(failure))
            code = 1
        try:
            machine.close()
        except TimevmError as failure:
            self._say(str(failure))
            code = 1
        await lines.flush(_LAST_WORDS)
        if self._front_ends is not None:
            await self._front_ends.close()
        for task in reversed(list(self._tasks)):  # a monitor's last words go through a terminal that began before it
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return code
