"""Debian's U-Boot in the flash of the arm64 board: recorded, replayed in slices, and run backwards."""

from __future__ import annotations

import random
from itertools import chain

import pytest

from tests.linux.harness import Outcome, assert_same, record, replay
from tests.linux.test_bare_irq import random_limits
from tests.peers import need_file
from timevm.engine.machine.spec import MIB, MachineSpec

pytestmark = [pytest.mark.linux, pytest.mark.timeout(300)]

U_BOOT = "/usr/lib/u-boot/qemu_arm64/u-boot.bin"
#: the last but one writes to the flash, which keeps what it has
SCRIPT = [
    (b"Hit any key to stop autoboot", b" "),
    (b"\n=> ", b"version\n"),
    (b"\n=> ", b"crc32 0 10000\n"),
    (b"\n=> ", b"mw.l 1000 12345678 4; cmp.l 1000 4001000 1; md.l 1000 1\n"),
    (b"\n=> ", b"poweroff\n"),
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[MachineSpec, Outcome]:
    folder = tmp_path_factory.mktemp("firmware")
    spec = MachineSpec(
        bios=need_file(U_BOOT), ram_bytes=64 * MIB, shift=3, sleep=False, mode="record", rrfile=folder / "run.rr"
    )
    return spec, record(spec, SCRIPT)


def test_firmware_runs(recorded: tuple[MachineSpec, Outcome]) -> None:
    console = recorded[1].console
    assert b"U-Boot 20" in console and b"DRAM:  64 MiB" in console
    assert b"crc32 for 00000000 ... 0000ffff ==>" in console
    assert b"00001000: 12345678" not in console


def test_replays_are_the_recorded_run(recorded: tuple[MachineSpec, Outcome]) -> None:
    spec, outcome = recorded
    generator = random.Random(1)
    assert_same(outcome, replay(spec))
    assert_same(outcome, replay(spec, random_limits(generator, 1, 2_000_000)))
    assert_same(outcome, replay(spec, chain(range(1, 3_000), random_limits(generator, 1, 3_000_000))))
