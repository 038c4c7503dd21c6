"""Linux sees the power button, and starts anew as often as it wants to; recorded and replayed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.linux.harness import Outcome, Terminal, assert_same, build, differences, finish, linux, replay, steps_of
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import RunEnd
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay.events import Request, RequestKind
from timevm.engine.replay.gate import NEVER

pytestmark = [pytest.mark.linux, pytest.mark.timeout(600)]

PROMPT = b"/ # "
#: Debian's small kernel has Linux's driver for the GPIO, but not the one for keys on it: a script plays that.  The
#: line is number 3 of the only chip.
WATCH = (
    b"cd /sys/class/gpio; line=$(($(cat gpiochip*/base) + 3)); echo $line > export; cd gpio$line; "
    b"echo both > edge; echo wait''ing; while [ $(cat value) = 0 ]; do usleep 10000; done; "
    b"echo pre''ssed; while [ $(cat value) = 1 ]; do usleep 10000; done; echo relea''sed; "
    b"grep gpiolib /proc/interrupts; exit\r"
)


class Finger(Terminal):
    """Presses the power button when the guest waits for it."""

    pressed = False

    def transmit(self, port: int, data: bytes) -> None:
        super().transmit(port, data)
        if not self.pressed and b"\nwaiting" in self.console:
            self.pressed = True
            assert self.machine is not None
            self.machine.inject(Request(RequestKind.POWERDOWN))


def test_linux_sees_the_power_button(tmp_path: Path) -> None:
    spec = linux("shell,off", tmp_path / "power.rr", sleep=False)
    terminal = Finger([(PROMPT, WATCH)])
    recorded = finish(build(spec, terminal), terminal, steps_of(50_000_000), lambda machine: None)
    console = recorded.console.decode()
    assert console.index("\nwaiting") < console.index("\npressed") < console.index("\nreleased"), console
    counts = [line.split()[1] for line in console.splitlines() if line.endswith("gpiolib")]
    assert counts == ["2"], "an interrupt for each edge"
    assert "reboot: Power down" in console
    assert_same(recorded, replay(spec))


def run_over_resets(machine: Machine, terminal: Terminal, count: int) -> tuple[Outcome, list[int]]:
    """Until reset number ``count`` (or the recording's end), with the icounts of all."""
    resets: list[int] = []
    while len(resets) < count:
        result = machine.run(NEVER)
        if result.end is RunEnd.RESET:
            resets.append(result.icount)
            if len(resets) < count:
                machine.reset()
        elif result.end is not RunEnd.KICKED:
            break
    return Outcome(bytes(terminal.console), machine.icount, machine.now_ns(), machine.digest()), resets


def test_linux_reboots_and_reboots(tmp_path: Path) -> None:
    spec: MachineSpec = linux("reboot", tmp_path / "reboot.rr", sleep=False)
    terminal = Terminal()
    machine = build(spec, terminal)
    recorded, resets = run_over_resets(machine, terminal, 3)
    machine.finish("reset")
    assert recorded.console.count(b"TIMEVM-GUEST reboot") == len(resets) == 3
    for _ in range(2):
        terminal = Terminal()
        machine = build(replace(spec, mode="play"), terminal)
        replayed, again = run_over_resets(machine, terminal, 3)
        assert again == resets
        assert replayed == recorded, differences(recorded, replayed)
        machine.finish("reset")
