"""``-device isa-debug-exit``: a boot sector says what the process ends with, recorded, replayed, and in QEMU too."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import DEADLINE, QMP, qmp, run, running, verify
from tests.peers import need_file
from timevm.engine.machine.boards import SEABIOS

ENTRY = "main_system_x86_64"
MACHINE = ["-M", "pc", "-m", "16", "-nodefaults", "-display", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
DISK = [
    *("-drive", "file=disk.img,format=raw,if=none,snapshot=on,id=image"),
    *("-drive", "driver=blkreplay,if=none,image=image,id=disk", "-device", "ide-hd,drive=disk"),
]
RECORD = ["-icount", "shift=3,rr=record,rrfile=run.rr"]
REPLAY = ["-icount", "shift=3,rr=replay,rrfile=run.rr"]


@pytest.fixture
def guest(tmp_path: Path) -> list[str]:
    """Writes 21 to the port: 43."""
    return boots(tmp_path, 21)


def boots(folder: Path, value: int) -> list[str]:
    need_file(str(SEABIOS))
    code = b"\xb0" + bytes([value]) + b"\xe6\xf4\xf4\xeb\xfd"  # mov al, VALUE; out 0xf4, al; 1: hlt; jmp 1b
    (folder / "disk.img").write_bytes(code.ljust(510, b"\0") + b"\x55\xaa" + bytes(0x10000 - 512))
    return [*MACHINE, *DISK]


def code_of(arguments: list[str], folder: Path) -> int:
    done = run(arguments, ENTRY, cwd=folder)
    assert done.stderr == b""
    return done.returncode


@pytest.mark.parametrize("further", [[], ["-no-shutdown"], ["-no-reboot"]])
def test_recorded_and_replayed(guest: list[str], further: list[str], tmp_path: Path) -> None:
    assert code_of([*guest, *RECORD, *further], tmp_path) == 43
    verify(tmp_path / "run.rr")
    assert code_of([*guest, *REPLAY, *further], tmp_path) == 43


@pytest.mark.parametrize(("value", "code"), [(0, 1), (0x80, 1), (0x7F, 255)])
def test_eight_bits_and_never_0(value: int, code: int, tmp_path: Path) -> None:
    assert code_of(boots(tmp_path, value), tmp_path) == code


async def test_with_a_monitor_a_replay_stays(guest: list[str], tmp_path: Path) -> None:
    """One can go back from its end; who quits there has not been failed by the guest."""
    async with running([*guest, *RECORD, *QMP], tmp_path, entry=ENTRY) as daemon:
        assert await daemon.ends() == 43
    async with running([*guest, *REPLAY, *QMP, "-S"], tmp_path, entry=ENTRY) as daemon:
        async with qmp(daemon, tmp_path / "qmp") as client:
            with client.listener(("STOP",)) as stops:
                await client.execute("cont")
                await stops.get()
            status: Any = await client.execute("query-status")
            assert status["status"] == "paused"
            await client.execute("quit")
        assert await daemon.ends() == 0


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="there is no QEMU to compare with")
@pytest.mark.parametrize("further", [[], ["-no-shutdown"]])
def test_qemu_ends_with_the_same(guest: list[str], further: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        ["qemu-system-x86_64", *guest, *further], stdin=subprocess.DEVNULL, cwd=tmp_path, timeout=DEADLINE, check=False
    )
    assert done.returncode == 43
