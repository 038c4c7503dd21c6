"""More input than a serial port takes at once: all of it arrives, also at a guest that sleeps and has no timer."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.linux.harness import Terminal, bare_guest, build
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import RunEnd
from timevm.engine.machine.spec import MIB, MachineSpec
from timevm.engine.replay.events import SerialInput
from timevm.engine.replay.gate import NEVER
from timevm.guests import DEMO_AARCH64

pytestmark = pytest.mark.timeout(30)

TEXT = bytes(range(ord("s"), ord("z") + 1)) * 40


def run_to_end(machine: Machine) -> int:
    while (result := machine.run(NEVER)).end is RunEnd.KICKED:
        pass
    assert result.end is RunEnd.POWERED_OFF
    machine.finish("shutdown")
    return result.icount


def check(spec: MachineSpec, data: bytes, expected: bytes) -> None:
    terminal = Terminal()
    machine = build(spec, terminal)
    machine.inject(SerialInput(0, data))
    icount = run_to_end(machine)
    assert terminal.console.endswith(expected)
    again = Terminal()
    assert run_to_end(build(replace(spec, mode="play"), again)) == icount
    assert again.console == terminal.console


@pytest.mark.parametrize("sleep", [False, True])
def test_a_port_without_a_fifo(tmp_path: Path, sleep: bool) -> None:
    check(bare_guest("power", tmp_path / "x.rr", sleep=sleep), TEXT + b"q", TEXT + b"off\n")


@pytest.mark.parametrize("sleep", [False, True])
def test_a_port_with_a_fifo_that_is_read_to_the_last_byte_before_the_guest_sleeps(tmp_path: Path, sleep: bool) -> None:
    spec = MachineSpec(
        kernel=DEMO_AARCH64, ram_bytes=16 * MIB, shift=3, sleep=sleep, mode="record", rrfile=tmp_path / "x.rr"
    )
    lines = b"".join(b'let t = "%s"\r' % (b"x" * 50) for _ in range(8))
    check(spec, lines + b"print 6 * 7\rbye\r", b"> print 6 * 7\r\n42\r\n> bye\r\nbye\r\n")


def test_a_sleeping_guest_is_typed_at_from_another_thread(tmp_path: Path) -> None:
    terminal = Terminal()
    spec = bare_guest("power", tmp_path / "x.rr", sleep=True)
    machine = build(spec, terminal)

    def typist() -> None:
        for start in range(0, len(TEXT), 64):
            machine.inject(SerialInput(0, TEXT[start : start + 64]))
        machine.inject(SerialInput(0, b"q"))

    thread = threading.Thread(target=typist)
    thread.start()
    icount = run_to_end(machine)
    thread.join(10)
    assert terminal.console.endswith(TEXT + b"off\n")
    again = Terminal()
    assert run_to_end(build(replace(spec, mode="play"), again)) == icount
    assert again.console == terminal.console
