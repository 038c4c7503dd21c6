"""One client's session: requests in, payloads of packets out.  It knows the machine, but neither bytes nor sockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from timevm.engine.control.port import MachinePort, ReplayMode, Stops, VmPort
from timevm.engine.control.run_state import RunState
from timevm.errors import TimevmError, UserError
from timevm.gdb import state_access
from timevm.gdb.architectures import describe
from timevm.gdb.client import BAD_REQUEST, NO_SUCH_ADDRESS, OK, Client, console, error_code
from timevm.gdb.link import PACKET_SIZE
from timevm.gdb.motion import Mover
from timevm.gdb.patience import Listener, Patience
from timevm.gdb.requests import (
    Ask,
    Continue,
    InsertStop,
    MemoryRegionAt,
    Monitor,
    ReadMemory,
    ReadRegister,
    RemoveStop,
    Request,
    SelectThread,
    SetPhysicalMemory,
    SetStepFlags,
    Step,
    StepRange,
    Supported,
    ThreadAlive,
    Transfer,
    Unknown,
    WriteMemory,
    WriteRegister,
    WriteRegisters,
)
from timevm.gdb.sentences import LOOK_BACK, NO_RECORDING, WRITE_REFUSALS, moved
from timevm.gdb.stop_reply import EXITED, Signal, stopped
from timevm.gdb.stop_table import StopTable
from timevm.gdb.target_description import memory_map_document, memory_region

#: carries out a line of the human monitor and returns what it prints
MonitorLine = Callable[[str], Awaitable[str]]

#: of QEMU's bits for a step: with interrupts, with timers.  Ours is exactly what the guest does
_STEP_FLAGS = 1

Handler = Callable[[Any], Awaitable[list[bytes]]]


class GdbSession:
    """``open`` first, then ``handle`` one request after the other, ``close`` at the end.

    ``interrupt`` and ``give_up`` may be called while ``handle`` is under way; ``listener`` is told something then.
    """

    def __init__(self, vm: VmPort, monitor: MonitorLine | None, listener: Listener) -> None:
        self._vm = vm
        self._monitor_line = monitor
        self._listener = listener
        #: of the monitor command under way
        self._patience: Patience | None = None
        self._client = Client()
        self._table = StopTable()
        self._physical = False
        self._refreshes = False
        #: the client wants the machine to end
        self.over = False
        self._by_type: dict[type, Handler] = {
            Supported: self._supported,
            ReadRegister: self._read_register,
            WriteRegister: self._write_register,
            WriteRegisters: self._write_registers,
            ReadMemory: self._read_memory,
            WriteMemory: self._write_memory,
            SelectThread: self._select_thread,
            ThreadAlive: self._select_thread,
            Continue: self._go,
            Step: self._step,
            StepRange: self._step_range,
            InsertStop: self._change_stops,
            RemoveStop: self._change_stops,
            Transfer: self._transfer,
            MemoryRegionAt: self._memory_region,
            Monitor: self._monitor,
            SetPhysicalMemory: self._set_physical_memory,
            SetStepFlags: self._set_step_flags,
        }
        self._by_ask: dict[Ask, Callable[[], Awaitable[list[bytes]]]] = {
            Ask.WHY_STOPPED: self._why_stopped,
            Ask.ATTACH: self._attach,
            Ask.READ_REGISTERS: self._read_registers,
            Ask.REVERSE_STEP: self._reverse_step,
            Ask.REVERSE_CONTINUE: self._reverse_go,
            Ask.KILL: self._kill,
            Ask.KILL_AND_ANSWER: self._kill_and_answer,
            Ask.DETACH: self._detach,
            Ask.INTERRUPT: self._stop_and_answer,
            Ask.THREAD_DESCRIPTION: self._thread_description,
            Ask.ICOUNT: self._icount,
            Ask.REFRESHES: self._note_refreshes,
            Ask.THREAD_SUFFIX: self._note_lldb,
        }

    async def open(self) -> None:
        """The machine stands from now on, as with QEMU."""
        await self._vm.stop()
        registers, self._memory_map = await self._vm.inspect(lambda machine: (machine.registers, machine.memory_map()))
        self._architecture = describe(self._vm.architecture, registers)
        self._mover = Mover(self._vm, self._architecture)
        self._documents = {
            ("features", "target.xml"): self._architecture.document(),
            ("memory-map", ""): memory_map_document(self._memory_map),
        }

    def interrupt(self) -> None:
        self._mover.interrupt()

    def forget_interrupt(self) -> None:
        self._mover.forget_interrupt()

    @property
    def is_gdb(self) -> bool:
        return self._client.is_gdb

    def give_up(self) -> None:
        """The client asks for something else, or is gone: a monitor command under way is cancelled, not answered."""
        if self._patience is not None:
            self._patience.give_up()

    async def close(self) -> None:
        """Nothing of the client's is left behind; a machine that it let run goes on, a way back is given up."""
        if self._mover.in_journey:
            await self._vm.stop()
        if self._table:
            self._table = StopTable()
            await self._vm.set_stops(Stops())

    async def handle(self, request: Request) -> list[bytes]:
        """The payloads to send, in order.  Raises nothing of timevm.errors: those become an answer."""
        try:
            if isinstance(request, Ask):
                if request in self._by_ask:
                    return await self._by_ask[request]()
                return [self._constant(request)]
            if isinstance(request, Unknown):
                return [b""]
            return await self._by_type[type(request)](request)
        except TimevmError as failure:
            return self._client.refusal(str(failure))

    def _constant(self, ask: Ask) -> bytes:
        """Answers that need no look at the machine."""
        thread = self._client.thread()
        return {
            Ask.EXTENDED_MODE: OK,
            Ask.RESUME_KINDS: b"vCont;c;C;s;S;t;r",
            Ask.STAY: stopped(self._client, Signal.NONE),
            Ask.CURRENT_THREAD: b"QC" + thread,
            Ask.FIRST_THREADS: b"m" + thread,
            Ask.MORE_THREADS: b"l",
            Ask.ATTACHED: b"1",
            Ask.SYMBOLS: OK,
            Ask.NO_ACKNOWLEDGEMENTS: OK,
            Ask.PHYSICAL_MEMORY: b"%d" % self._physical,
            Ask.STEP_BITS: b"ENABLE=%x" % _STEP_FLAGS,
            Ask.STEP_FLAGS: b"0x%x" % _STEP_FLAGS,
            Ask.QEMU_SUPPORTED: b"sstepbits;sstep;PhyMemMode",
        }[ask]

    # -- who we are to each other

    async def _supported(self, request: Supported) -> list[bytes]:
        self._client = replace(self._client, features=request.features)
        features = [
            f"PacketSize={PACKET_SIZE:x}",
            *("qXfer:features:read+", "qXfer:memory-map:read+", "qXfer:threads:read+"),
            *("QStartNoAckMode+", "vContSupported+", "multiprocess+", "swbreak+", "hwbreak+"),
        ]
        if self._vm.mode is not ReplayMode.NONE:  # while recording the answer says how one gets there
            features += ["ReverseStep+", "ReverseContinue+"]
        if self._client.announced("error-message"):
            features.append("error-message+")
        return [";".join(features).encode()]

    async def _why_stopped(self) -> list[bytes]:
        return [stopped(self._client)]

    async def _attach(self) -> list[bytes]:
        await self._vm.stop()
        if self._table:
            await self._set_stops(StopTable())
        return await self._why_stopped()

    async def _stop_and_answer(self) -> list[bytes]:
        await self._vm.stop()
        return [OK]

    async def _select_thread(self, request: SelectThread | ThreadAlive) -> list[bytes]:
        return [OK]

    async def _thread_description(self) -> list[bytes]:
        return [self._describe_thread().encode().hex().encode()]

    def _describe_thread(self) -> str:
        return f"CPU#0 [{'running' if self._vm.run_state is RunState.RUNNING else 'halted'}]"

    async def _detach(self) -> list[bytes]:
        """The machine runs on, as with QEMU; the client may attach again."""
        if self._table:
            await self._set_stops(StopTable())
        with suppress(UserError):  # one that cannot run stays as it is
            await self._vm.cont()
        return [OK]

    async def _kill(self) -> list[bytes]:
        self.over = True
        await self._vm.quit()
        return [EXITED] if self._client.is_lldb else []

    async def _kill_and_answer(self) -> list[bytes]:
        await self._kill()
        return [OK]

    # -- registers and memory

    async def _read_registers(self) -> list[bytes]:
        values = await self._vm.inspect(state_access.read_registers(self._architecture.general))
        return [values.hex().encode()]

    async def _read_register(self, request: ReadRegister) -> list[bytes]:
        registers = self._architecture.registers[request.number : request.number + 1]
        if not registers:
            return [error_code(NO_SUCH_ADDRESS)]
        return [(await self._vm.inspect(state_access.read_registers(registers))).hex().encode()]

    async def _write_register(self, request: WriteRegister) -> list[bytes]:
        registers = self._architecture.registers[request.number : request.number + 1]
        if not registers:
            return [error_code(NO_SUCH_ADDRESS)]
        if registers[0].size != len(request.data):
            return [error_code(BAD_REQUEST)]
        return await self._alter(state_access.write_registers(registers, request.data))

    async def _write_registers(self, request: WriteRegisters) -> list[bytes]:
        return await self._alter(state_access.write_registers(self._architecture.general, request.data))

    async def _alter(self, change: Callable[[MachinePort], None]) -> list[bytes]:
        refusal = WRITE_REFUSALS.get(self._vm.mode)
        if refusal is not None:
            return self._client.refusal(refusal)
        await self._vm.inspect(change)
        return [OK]

    async def _read_memory(self, request: ReadMemory) -> list[bytes]:
        length = min(request.length, PACKET_SIZE // 2)
        data = await self._vm.inspect(state_access.read_memory(request.address, length, physical=self._physical))
        return [error_code(NO_SUCH_ADDRESS) if length and not data else data.hex().encode()]

    async def _write_memory(self, request: WriteMemory) -> list[bytes]:
        if not request.data:
            return [OK]  # gdb asks in this way whether we know `X`
        refusal = WRITE_REFUSALS.get(self._vm.mode)
        if refusal is not None:
            return self._client.refusal(refusal)
        done = await self._vm.inspect(state_access.write_memory(request.address, request.data, physical=self._physical))
        return [OK if done == len(request.data) else error_code(NO_SUCH_ADDRESS)]

    async def _set_physical_memory(self, request: SetPhysicalMemory) -> list[bytes]:
        self._physical = request.on
        return [OK]

    async def _set_step_flags(self, request: SetStepFlags) -> list[bytes]:
        return [OK if request.flags == _STEP_FLAGS else error_code(BAD_REQUEST)]

    async def _transfer(self, request: Transfer) -> list[bytes]:
        if request.name not in ("features", "memory-map", "threads"):
            return [b""]
        document = self._threads() if request.name == "threads" else self._documents.get((request.name, request.annex))
        if document is None:
            return [b"E00"]  # as QEMU, and so says the manual
        data = document.encode()
        if request.offset > len(data):
            return [error_code(BAD_REQUEST)]
        end = request.offset + min(request.length, PACKET_SIZE - 1)
        return [(b"m" if end < len(data) else b"l") + data[request.offset : end]]

    async def _memory_region(self, request: MemoryRegionAt) -> list[bytes]:
        return [memory_region(self._memory_map, request.address).encode()]

    def _threads(self) -> str:
        identifier = self._client.thread().decode()
        return (
            '<?xml version="1.0"?>\n<threads>\n'
            f'<thread id="{identifier}" core="0">{self._describe_thread()}</thread>\n</threads>\n'
        )

    # -- stops and motion

    async def _set_stops(self, table: StopTable) -> None:
        await self._vm.set_stops(table.stops)
        self._table = table

    async def _change_stops(self, request: InsertStop | RemoveStop) -> list[bytes]:
        watches = request.kind.value > 1
        if watches and (request.size < 1 or request.address + request.size > state_access.TOP + 1):
            return [error_code(BAD_REQUEST)]
        await self._set_stops(self._table.with_change(request))
        return [OK]

    async def _jump(self, address: int | None) -> list[bytes]:
        """``c`` and ``s`` from another place; what it answers when it may not."""
        if address is None:
            return []
        pc = self._architecture.program_counter
        if (await self._where())[1] == address:
            return []
        answer = await self._alter(state_access.write_registers((pc,), address.to_bytes(pc.size, "little")))
        return [] if answer == [OK] else answer

    async def _go(self, request: Continue) -> list[bytes]:
        return await self._jump(request.address) or await self._mover.go(self._client, self._table)

    async def _step(self, request: Step) -> list[bytes]:
        return await self._jump(request.address) or await self._mover.step(self._client, self._table)

    async def _step_range(self, request: StepRange) -> list[bytes]:
        return await self._mover.step(self._client, self._table, (request.start, request.end))

    async def _reverse_step(self) -> list[bytes]:
        return self._no_way_back() or [await self._mover.reverse_step(self._client, self._table)]

    async def _reverse_go(self) -> list[bytes]:
        return self._no_way_back() or [await self._mover.reverse_go(self._client, self._table)]

    def _no_way_back(self) -> list[bytes]:
        if self._vm.mode is ReplayMode.PLAY:
            return []
        if self._vm.mode is ReplayMode.RECORD:
            return self._client.refusal(LOOK_BACK)
        return self._client.refusal(NO_RECORDING)

    # -- timevm's own

    async def _where(self) -> tuple[int, int]:
        pc = state_access.read_registers((self._architecture.program_counter,))
        return await self._vm.inspect(lambda machine: (machine.icount, int.from_bytes(pc(machine), "little")))

    async def _monitor(self, request: Monitor) -> list[bytes]:
        if self._monitor_line is None:
            return [b""]
        patience = self._patience = Patience(request.line.partition(" ")[0], self._listener, self._mover.interrupt)
        try:
            work = patience.wait_for(self._vm, self._carry_out(self._monitor_line, request.line))
            answer = await self._mover.interruptible(work)
            return answer if await patience.is_awaited() else []
        finally:
            self._patience = None

    async def _carry_out(self, monitor_line: MonitorLine, line: str) -> list[bytes]:
        before = await self._where()
        answer = console(await monitor_line(line))
        try:
            after = await self._where()
        except TimevmError:
            after = before  # it said `quit`
        if after != before and not self._refreshes:
            answer += console(moved(self._client, after[0]))
        return [*answer, OK]

    async def _icount(self) -> list[bytes]:
        return [b"%x" % (await self._where())[0]]

    async def _note_lldb(self) -> list[bytes]:
        """Nobody else asks for that.  We do not have it."""
        self._client = replace(self._client, is_lldb=True)
        return [b""]

    async def _note_refreshes(self) -> list[bytes]:
        """Our gdbinit.py is there: it looks again after each ``monitor`` by itself."""
        self._refreshes = True
        return [OK]
