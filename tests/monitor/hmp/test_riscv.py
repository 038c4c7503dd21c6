"""The human monitor of a RISC-V machine: registers, instructions, names in expressions, in QEMU's layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.machine import riscv_guests
from tests.engine.machine.test_virt_riscv import PLACE, guest
from tests.linux.harness import Terminal, build, record
from tests.monitor.toy_vm import RAM, ToyVm
from timevm.engine.cpu.riscv64_registers import REGISTERS
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.commands.dispatch import execute
from timevm.monitor.hmp.memory_dump import disassemble
from timevm.monitor.hmp.registers import read_registers, registers_by_any_name, render_registers


async def test_instructions_of_two_and_four_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    vm = ToyVm()
    monkeypatch.setattr(ToyVm, "architecture", "riscv64")
    code = bytes.fromhex("97020000 0145 73005010 ffffffff 0000 8280".replace(" ", ""))
    vm.machine.memory[: len(code)] = code
    assert await disassemble(vm, RAM, 6, physical=False) == (
        "0x0000000040000000:  00000297          auipc    t0, 0\n"
        "0x0000000040000004:  4501              c.li     a0, 0\n"
        "0x0000000040000006:  10500073          wfi      \n"
        "0x000000004000000a:  ffffffff          .byte    0xff, 0xff, 0xff, 0xff\n"
        "0x000000004000000e:  0000              c.unimp  \n"
        "0x0000000040000010:  8082              c.jr     ra\n"
    )


def test_registers_in_qemus_columns() -> None:
    values = {register.name: number for number, register in enumerate(REGISTERS)}
    lines = render_registers(values, "riscv64").splitlines()
    assert lines[0] == f" pc       {values['pc']:016x}"
    assert lines[1] == f" mhartid  {values['mhartid']:016x}"
    assert [line.split()[0] for line in lines[1:18]] == [
        *("mhartid", "mstatus", "mip", "mie", "mideleg", "medeleg", "mtvec", "stvec", "mepc", "sepc", "mcause"),
        *("scause", "mtval", "stval", "mscratch", "sscratch", "satp"),
    ]
    assert lines[18] == (
        " x0/zero  0000000000000000 x1/ra    0000000000000001 x2/sp    0000000000000002 x3/gp    0000000000000003"
    )
    assert lines[25].endswith(" x31/t6   000000000000001f")
    assert lines[26].startswith(f" f0/ft0   {values['f0']:016x} f1/ft1 ") and " f31/ft11 " in lines[33]
    assert len(lines) == 34


def test_names_of_the_calling_convention(tmp_path: Path) -> None:
    spec = guest(tmp_path, riscv_guests.supervisor(PLACE))
    record(spec, ((b"r", b"q"),))
    machine = build(spec.__class__(architecture="riscv64", cpu="rv64", kernel=spec.kernel), Terminal())
    machine.run(50)
    values = registers_by_any_name(machine)
    plain = read_registers(machine)
    for name, same in (("sp", "x2"), ("fp", "x8"), ("s0", "x8"), ("a0", "x10"), ("t6", "x31"), ("fa0", "f10")):
        assert values[name] == plain[same]
    assert values["pc"] == plain["pc"] and values["priv"] == 1
    machine.close()


async def test_where_the_hart_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyVm, "architecture", "riscv64")
    (cpu,) = await execute(MonitorContext(ToyVm()), "query-cpus-fast", {})
    assert cpu.qom_path == "/machine/soc0/harts[0]" and cpu.target.value == "riscv64"
    assert cpu.props.core_id == 0 and cpu.props.socket_id is None
