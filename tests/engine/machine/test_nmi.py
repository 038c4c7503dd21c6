"""Non-maskable interrupts from outside: at any moment, also while the PC sleeps, and the same in every replay."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.machine.pc_guests import kernel
from tests.guests import bare
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.spec import MIB, MachineSpec
from timevm.engine.replay.events import Request, RequestKind, SerialInput

NMI = Request(RequestKind.NMI)
COUNT = 0x21_8000
#: counts, sleeps till the next tick, and counts again; NMIs and ticks are counted apart, and NMIs said
GUEST = """
    call interrupts
    mov eax, on_nmi
    mov edi, 0x210000 + 2 * 8
    call gate
    mov al, 0x34            ; the timer: 1193 Hz
    out 0x43, al
    mov al, 0xE8
    out 0x40, al
    mov al, 0x03
    out 0x40, al
    sti
again:
    mov ecx, 200
.work:
    add ebx, ecx
    rol ebx, 3
    loop .work
    hlt
    jmp again
on_nmi:
    inc dword [0x218000]
    push eax
    push edx
    mov edx, 0x3F8
    mov al, 'N'
    out dx, al
    pop edx
    pop eax
    iret
"""
HANDLERS = """
on_timer:
    inc dword [0x218004]
    push eax
    mov al, 0x20
    out 0x20, al
    pop eax
    iret
on_serial: iret
"""


def spec_of(folder: Path) -> MachineSpec:
    return MachineSpec(
        architecture="x86_64",
        machine="pc",
        cpu="qemu64",
        ram_bytes=16 * MIB,
        kernel=kernel(GUEST, folder / "kernel", HANDLERS),
        shift=4,
        sleep=False,
        seed=1,
        rtc_base=0,
        mode="record",
        rrfile=folder / "x.rr",
    )


def count(machine: Machine) -> int:
    return int.from_bytes(machine.read_memory(COUNT, 4, physical=True), "little")


@pytest.mark.parametrize("seed", range(6))
def test_at_random_moments(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    spec = spec_of(tmp_path)
    console = bytearray()
    machine = build_machine(spec, lambda port, data: console.extend(data))
    moments = sorted({chance.randrange(1000, 60_000) for _ in range(60)})
    seen = {}
    for moment in moments:
        machine.run(moment)
        if chance.random() < 0.7:
            machine.inject(NMI)
        if chance.random() < 0.2:
            machine.inject(SerialInput(0, b"x"))
            machine.inject(NMI)
        seen[machine.icount] = machine.digest()
    end = machine.run(70_000).icount
    seen[end] = machine.digest()
    total = count(machine)
    machine.finish("quit")
    machine.close()
    assert total > 30 and console == b"N" * total
    for limits in (
        [],
        sorted(chance.sample(range(end), 200)),
        sorted({max(1, at + chance.randint(-2, 2)) for at in seen}),
    ):
        again = bytearray()
        replayed = build_machine(replace(spec, mode="play"), lambda port, data, to=again: to.extend(data))  # type: ignore[misc]
        for limit in sorted({*limits, *seen} & set(range(end + 1))):
            replayed.run(limit)
            assert replayed.icount == limit
            assert replayed.icount not in seen or replayed.digest() == seen[replayed.icount]
        assert (count(replayed), again) == (total, console)
        replayed.close()


def test_other_boards_take_none() -> None:
    machine = build_machine(
        MachineSpec(ram_bytes=16 * MIB, kernel=bare("irq"), shift=2, sleep=False, seed=1, rtc_base=0),
        lambda port, data: None,
    )
    assert not machine.takes_nmi
    machine.close()
