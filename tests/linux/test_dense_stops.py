"""Stops at every instruction around the delicate moments: device accesses that raise interrupts, and IC IVAU."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.linux.harness import Outcome, Terminal, assert_same, build, linux, record, replay
from timevm.engine.cpu.aarch64 import Aarch64Cpu
from timevm.engine.machine.outcome import RunEnd, Stops
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay.gate import NEVER

pytestmark = [pytest.mark.linux, pytest.mark.timeout(900)]

#: how many moments are surrounded, and by how many instructions on each side
MOMENTS, AROUND = 500, 2
#: where Linux 6.1 puts its image without KASLR (arch/arm64/include/asm/memory.h: KIMAGE_VADDR)
IMAGE_ADDRESS = 0xFFFF_8000_0800_0000
IC_IVAU, OPERAND = 0xD50B_7520, 0x1F


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> tuple[MachineSpec, Outcome]:
    spec = linux("off", tmp_path_factory.mktemp("dense") / "boot.rr", sleep=False)
    return spec, record(spec)


def around(moments: Iterable[int]) -> list[int]:
    return sorted(
        {moment + distance for moment in moments for distance in range(-AROUND, AROUND + 1) if moment > AROUND}
    )


def spread(moments: list[int]) -> list[int]:
    """MOMENTS of them: the first hundred, and the rest evenly."""
    step = max(1, len(moments) // (MOMENTS - 100))
    return sorted({*moments[:100], *moments[::step]})[:MOMENTS]


def test_around_accesses_that_raise_interrupts(
    boot: tuple[MachineSpec, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, recorded = boot
    raised: list[int] = []
    original = Aarch64Cpu.set_interrupt

    def watched(cpu: Aarch64Cpu, line: str, level: bool) -> None:
        if level and not cpu.interrupt_pending():
            raised.append(cpu.icount)
        original(cpu, line, level)

    with monkeypatch.context() as patched:
        patched.setattr(Aarch64Cpu, "set_interrupt", watched)
        assert_same(recorded, replay(spec))
    assert len(raised) > 100
    assert_same(recorded, replay(spec, around(spread(raised))))


def cache_maintenance(kernel: Path) -> frozenset[int]:
    """Addresses of the kernel's IC IVAU instructions (words that look like one, which does no harm)."""
    image = kernel.read_bytes()
    words = struct.unpack(f"<{len(image) // 4}I", image[: len(image) & ~3])
    return frozenset(IMAGE_ADDRESS + 4 * n for n, word in enumerate(words) if word & ~OPERAND == IC_IVAU)


def test_around_instruction_cache_maintenance(boot: tuple[MachineSpec, Outcome]) -> None:
    spec, recorded = boot
    assert spec.kernel is not None
    machine = build(replace(spec, mode="play"), Terminal())
    machine.set_stops(Stops(breakpoints=cache_maintenance(spec.kernel)))
    hits: list[int] = []
    while len(hits) < 20_000 and (result := machine.run(NEVER)).end is RunEnd.DEBUG:
        hits.append(result.icount)
    machine.close()
    assert len(hits) > 100, f"IC IVAU was met {len(hits)} times: is the kernel at {IMAGE_ADDRESS:#x}?"
    assert_same(recorded, replay(spec, around(spread(hits))))
