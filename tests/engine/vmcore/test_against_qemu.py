"""The same guest, dumped by QEMU and by timevm: the same head, the same notes byte for byte, the same memory."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from qemu.qmp import ConnectError, QMPClient

from tests.daemon import DEADLINE, command
from tests.engine.vmcore.core_guests import GUESTS, TEXT, CoreGuest
from tests.engine.vmcore.cores import Core, read_core
from timevm.engine.machine.ram import PAGE

#: of what is not compared: QEMU leaves out the flags that the last instruction made
_ARITHMETIC = 0x8D5
#: where the note with registers has rflags, by the size of the note
_FLAGS_AT = {336: 112 + 18 * 8, 144: 72 + 14 * 4, 440: 8 + 17 * 8}


@contextlib.contextmanager
def running(program: Sequence[str], guest: CoreGuest, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir()
    options = ("-m", "16", "-nodefaults", "-display", "none", "-qmp", "unix:qmp,server=on,wait=off")
    process = subprocess.Popen(
        [*program, *guest.options, "-kernel", str(guest.kernel(folder)), *options],
        cwd=folder,
        stdin=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(DEADLINE)


async def dumped(program: Sequence[str], guest: CoreGuest, folder: Path, *, paging: bool) -> Core:
    """When all registers are what the guest makes them."""
    path = folder / "core"
    client = QMPClient("test")
    with running(program, guest, folder) as process:
        async with asyncio.timeout(DEADLINE):
            while True:
                assert process.poll() is None, f"it ended with {process.returncode}"
                with contextlib.suppress(ConnectError):
                    await client.connect(str(folder / "qmp"))
                    break
                await asyncio.sleep(0.02)
            while True:
                await client.execute("dump-guest-memory", {"paging": paging, "protocol": f"file:{path}"})
                core = read_core(path)
                if set(guest.general.values()) <= words(guest, core.notes[0][2]):
                    await client.disconnect()
                    return core


def words(guest: CoreGuest, status: bytes) -> set[int]:
    """Of a note with registers."""
    form, start = ("<I", 72) if guest.architecture == "i386" else ("<Q", 112)
    size = struct.calcsize(form)
    registers = status[start : start + (len(status) - start) // size * size]
    return {value for (value,) in struct.iter_unpack(form, registers)}


def comparable(note: tuple[str, int, bytes]) -> tuple[str, int, bytes]:
    name, kind, data = note
    at = _FLAGS_AT.get(len(data))
    if at is None:
        return note
    (flags,) = struct.unpack_from("<I", data, at)
    return name, kind, data[:at] + struct.pack("<I", flags & ~_ARITHMETIC) + data[at + 4 :]


@pytest.mark.parametrize("paging", [False, True], ids=["physical", "mapped"])
@pytest.mark.parametrize("guest", [guest for guest in GUESTS if guest.qemu], ids=lambda guest: guest.architecture)
async def test_head_and_notes_are_qemus(guest: CoreGuest, paging: bool, tmp_path: Path) -> None:
    qemu = shutil.which(f"qemu-system-{guest.architecture}")
    if qemu is None:
        pytest.skip(f"this compares with qemu-system-{guest.architecture}, which is not here")
    theirs = await dumped([qemu], guest, tmp_path / "qemu", paging=paging)
    ours = await dumped(command([], f"main_system_{guest.architecture}"), guest, tmp_path / "timevm", paging=paging)
    assert (ours.bits, ours.machine) == (theirs.bits, theirs.machine)
    assert [comparable(note) for note in ours.notes] == [comparable(note) for note in theirs.notes]
    if paging and guest.architecture == "aarch64":  # where QEMU does not look at the tables
        assert ours.at(guest.high, len(TEXT)) == theirs.at(guest.physical, len(TEXT)) == TEXT
    else:
        # of the PC's ROMs theirs has more
        assert {place for place in pages(theirs) if place[1] < guest.ram_end} == {
            place for place in pages(ours) if place[1] < guest.ram_end
        }
        place = guest.high if paging else guest.physical
        assert ours.at(place, len(TEXT)) == theirs.at(place, len(TEXT)) == TEXT


def pages(core: Core) -> set[tuple[int, int]]:
    """Virtual and physical address of each.  QEMU extends the sign of amd64's addresses, also of positive ones."""
    return {
        (_extended(load.virtual + at), load.physical + at)
        for load in core.loads
        for at in range(0, len(load.data), PAGE)
    }


def _extended(address: int) -> int:
    return address & 0xFFFF_FFFF_FFFF if address >> 47 == 0x1FFFE else address
