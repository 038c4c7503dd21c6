"""``timevm-system-riscv64`` as a process: exit codes of the test finisher, recordings, what QMP and HMP say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.daemon import QMP, qmp, run, running, verify
from tests.engine.machine import riscv_guests
from tests.engine.machine.elf import EM_RISCV, Segment, elf64
from tests.engine.machine.test_device_tree import parsed
from tests.engine.machine.test_virt_riscv import PLACE

ENTRY = "main_system_riscv64"
MACHINE = ["-M", "virt", "-m", "16", "-nodefaults", "-display", "none", "-kernel", "guest.elf", "-serial", "stdio"]
RECORD = ["-icount", "shift=3,sleep=off,rr=record,rrfile=run.rr"]
REPLAY = ["-icount", "shift=3,sleep=off,rr=replay,rrfile=run.rr"]


def guest(folder: Path, program: bytes) -> list[str]:
    (folder / "guest.elf").write_bytes(elf64([Segment(PLACE, program)], entry=PLACE, machine=EM_RISCV))
    return MACHINE


@pytest.mark.parametrize(("finish", "code"), [(0x5555, 0), (0x0011_3333, 17)])
def test_recorded_and_replayed(tmp_path: Path, finish: int, code: int) -> None:
    arguments = [*guest(tmp_path, riscv_guests.machine(PLACE, finish)), "-bios", "none"]
    done = run([*arguments, *RECORD], ENTRY, cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == (b"sm", b"", code)
    verify(tmp_path / "run.rr")
    done = run([*arguments, *REPLAY], ENTRY, cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == (b"sm", b"", code)
    done = run([*MACHINE, *REPLAY], ENTRY, cwd=tmp_path)
    assert done.returncode == 1 and b"firmware=none" in done.stderr


async def test_what_the_monitors_say(tmp_path: Path) -> None:
    arguments = guest(tmp_path, riscv_guests.supervisor(PLACE))
    async with running([*arguments, *QMP, "-S"], tmp_path, entry=ENTRY) as daemon:
        async with qmp(daemon, tmp_path / "qmp") as client:
            (cpu,) = await answer(client, "query-cpus-fast")
            assert (cpu["target"], cpu["qom-path"]) == ("riscv64", "/machine/soc0/harts[0]")
            (machine,) = await answer(client, "query-machines")
            assert (machine["name"], machine["default-cpu-type"]) == ("virt", "rv64-riscv-cpu")

            async def monitor(line: str) -> str:
                return str(await answer(client, "human-monitor-command", {"command-line": line}))

            assert f" pc       {PLACE:016x}" in await monitor("info registers")
            assert "csrr     s0, scause" in await monitor("x/2i $pc")
            for region in ("plic", "clint", "uart0", "rtc", "test", "virtio-mmio.7", "riscv_virt_board.ram"):
                assert region in await monitor("info mtree")
            await client.execute("quit")
        assert await daemon.ends() == 0


async def answer(client: Any, command: str, arguments: dict[str, Any] | None = None) -> Any:
    return await client.execute(command, arguments)


def test_its_device_tree_is_dumped(tmp_path: Path) -> None:
    arguments = ["-M", "virt,dumpdtb=tree.dtb", "-m", "32", "-nodefaults", "-display", "none"]
    assert run(arguments, ENTRY, cwd=tmp_path).returncode == 0
    nodes = parsed((tmp_path / "tree.dtb").read_bytes())
    assert nodes["/memory@80000000"]["reg"] == [0, 0x8000_0000, 0, 32 << 20]
