"""Debian's i386 kernel on ``timevm-system-i386``: paging without long mode, from the 32-bit entry to power-off."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guests import linux_i386
from tests.linux.harness import Outcome, assert_same, record, replay
from tests.linux.test_debian import random_limits
from timevm.engine.machine.spec import MIB, MachineSpec

pytestmark = [pytest.mark.linux, pytest.mark.timeout(900)]


def linux_pc_32(steps: str, recording: Path) -> MachineSpec:
    guest = linux_i386()
    return MachineSpec(
        architecture="i386",
        machine="pc",
        cpu="qemu32",
        kernel=guest.kernel,
        initrd=guest.initrd,
        ram_bytes=512 * MIB,
        append=f"console=ttyS0 quiet nokaslr tvm={steps}",
        shift=2,
        mode="record",
        rrfile=recording,
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[MachineSpec, Outcome]:
    spec = linux_pc_32("basic,off", tmp_path_factory.mktemp("i386") / "pc.rr")
    outcome = record(spec)
    assert b"TIMEVM-GUEST basic uname Linux" in outcome.console and b" i686" in outcome.console, outcome.console
    assert outcome.console.rstrip().endswith(b"reboot: Power down")
    return spec, outcome


def test_a_replay_at_full_speed(recorded: tuple[MachineSpec, Outcome]) -> None:
    spec, outcome = recorded
    assert_same(outcome, replay(spec))


def test_random_slicing(recorded: tuple[MachineSpec, Outcome]) -> None:
    spec, outcome = recorded
    assert_same(outcome, replay(spec, random_limits(5, 5_000_000, 40_000_000)))
