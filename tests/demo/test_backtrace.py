"""Our own backtrace of the demo guest is the one that real gdb makes, wherever the guest stands."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.gdb.replays import DAMAGE, gdb, record_demo, replaying
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.outcome import RunEnd, Stops
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay.gate import NEVER
from timevm.guests import DEMO_AARCH64, DEMO_SOURCES
from timevm.guests.backtrace import DEEPEST, Call, backtrace
from timevm.guests.source_places import SourcePlaces

PLACES = SourcePlaces(DEMO_AARCH64)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MachineSpec, int]]:
    spec, outcome = record_demo(tmp_path_factory.mktemp("demo") / "demo.rr", DAMAGE)
    yield spec, outcome.icount


#: behind the start-up code, which has neither frames nor a caller
STARTED = 43_100


def in_interrupt(calls: list[Call]) -> bool:
    """The handler is written in assembler, and has no frame record."""
    return any(call.place.function in ("interrupt", "board_interrupt") for call in calls)


def names(output: str) -> list[str]:
    return re.findall(r"^#\d+ +(?:0x[0-9a-f]+ in )?(\w+) \(", output, re.MULTILINE)


async def test_as_gdb_has_it(recorded: tuple[MachineSpec, int]) -> None:
    spec, end = recorded
    ours: dict[int, list[Call]] = {}
    async with replaying(spec) as session:
        # behind the start-up code, which has neither frames nor a caller
        for moment in range(STARTED, end, (end - STARTED) // 60):
            await session.vm.seek(moment)
            calls = await session.vm.inspect(lambda machine: backtrace(machine, PLACES))
            if not in_interrupt(calls):  # gdb takes its stack for an endless one
                ours[moment] = calls
        commands = []
        for moment in ours:
            commands += [
                f"monitor replay_seek {moment}",
                "maintenance flush register-cache",
                "maintenance flush dcache",
                "backtrace",
                "echo --\\n",
            ]
        output = await gdb(session, commands)
    theirs = output.split("--\n")[:-1]
    assert len(theirs) == len(ours) > 30
    compared = 0
    for (moment, own), text in zip(ours.items(), theirs, strict=True):
        # in a function's first and last instructions gdb guesses wrong, and skips a caller
        callers = dict.fromkeys(call.address for call in own if call.address != own[0].address)
        if [int(address, 16) for address in re.findall(r"#[1-9]\d* +(0x\w+) in", text)] != list(callers):
            continue
        compared += 1
        assert [call.place.function for call in own] == names(text), (moment, own, text)
        for call in own[1:]:
            assert f"{call.place.file}:{call.place.line}\n" in text, (moment, call, text)
    assert compared > len(ours) * 0.9, (compared, len(ours))


def test_as_the_calls_and_returns_were(recorded: tuple[MachineSpec, int]) -> None:
    """Against a list of the return addresses, kept while walking instruction by instruction."""
    machine = build_machine(replace(recorded[0], mode="play"), lambda port, data: None)
    main = PLACES.function_named("main")
    assert main is not None
    machine.set_stops(Stops(breakpoints=frozenset({main.start})))
    assert machine.run(NEVER).end is RunEnd.DEBUG
    machine.set_stops(Stops())
    open_calls = [machine.read_register("x30")]
    compared, begin = 0, machine.icount + 10
    while machine.icount < begin + 9_000:
        pc = machine.read_register("pc")
        (word,) = struct.unpack("<I", machine.read_memory(pc, 4))
        machine.run(machine.icount + 1)
        if word >> 26 == 0b100101 or word & 0xFFFFFC1F == 0xD63F0000:  # BL, BLR
            open_calls.append(pc + 4)
        elif word == 0xD65F03C0:  # RET
            assert open_calls.pop() == machine.read_register("pc")
        if machine.icount < begin or machine.icount % 7:
            continue
        calls = backtrace(machine, PLACES)
        if not in_interrupt(calls):
            addresses = list(dict.fromkeys(call.address for call in calls))
            # the first is main's own
            assert addresses == [machine.read_register("pc"), *open_calls[:0:-1]], (machine.icount, calls)
            compared += 1
    machine.close()
    assert compared > 500


def test_every_instruction_has_a_place() -> None:
    for function in PLACES.functions:
        lines = len((DEMO_SOURCES / "main.c").read_text().splitlines())
        for address in range(function.start, function.end, 4):
            places = PLACES.at(address)
            assert places and places[-1].function == function.name, hex(address)
            assert all(place.line <= lines for place in places if place.file == "main.c")


def test_outside_of_the_program_there_is_none() -> None:
    assert PLACES.at(0x41000000) == [] and PLACES.function_at(0x41000000) is None
    assert PLACES.function_named("no_such") is None


def test_sources_are_there() -> None:
    for name in ("main.c", "heap.c", "board.c", "start.S"):
        assert (DEMO_SOURCES / name).read_text()


class Wild:
    """A machine whose stack is whatever one likes."""

    def __init__(self, pc: int, words: dict[int, bytes]) -> None:
        self._pc = pc
        self._words = words

    def read_register(self, name: str) -> int:
        return {"pc": self._pc, "x29": 0x40090000, "x30": 0xDEAD}[name]

    def read_memory(self, address: int, size: int, *, physical: bool = False) -> bytes:
        return self._words.get(address, b"")


def test_a_damaged_stack() -> None:
    """It ends, whatever the records say: in a circle, nowhere, at odd addresses, in a chain without end."""
    main = PLACES.function_named("keep")
    assert main is not None
    inside = main.start.to_bytes(8, "little")
    code = {main.start: bytes.fromhex("fd030091")}  # mov x29, sp
    for outer in (0x40090000, 0, 0x40090008, 0x40090001, 1 << 63):
        stack = {0x40090000 + 8 * index: outer.to_bytes(8, "little") + inside for index in range(4)}
        assert len(backtrace(Wild(main.start + 4, code | stack), PLACES)) <= 4
    endless = {
        0x40090000 + 16 * index: (0x40090010 + 16 * index).to_bytes(8, "little") + inside for index in range(999)
    }
    assert len(backtrace(Wild(main.start + 4, code | endless), PLACES)) <= 2 * (DEEPEST + 2)
    assert backtrace(Wild(0x10, {}), PLACES) == []
